"""LogFile: lines of a file that is rotated, which several processes may write at once.

Each line is written as a whole when it is given, before the request goes on: what was noted is there after a crash of
the process. A file that is full is renamed as k8s.io/apiserver's are (lumberjack: `audit-2026-01-31T12-00-00.000.log`);
another process, or somebody else, may do that as well, which is noticed within a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import structlog

from query.access.errors import BadAccessFile

log = structlog.get_logger("query.access.audit")

# Seconds between two looks at whether the file is still the one that is written, and between two complaints.
_LOOK_EVERY, _SAY_EVERY = 1.0, 60.0
_STAMP, _TIME = "%Y-%m-%dT%H-%M-%S", r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}"


class EventLines(Protocol):
    """Takes lines, each with its line feed."""

    def write(self, line: bytes) -> None:
        """Writes a line; one that cannot be written is lost, and that is logged."""
        ...

    def close(self) -> None:
        """Writes no more."""
        ...


class StandardOutput:
    """Lines on the process's standard output."""

    def write(self, line: bytes) -> None:
        """Writes a line."""
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    def close(self) -> None:
        """Leaves it open: it is the process's."""


class LogFile:
    """Lines of a file that only its user may read (0600).

    - `largest`: bytes after which another is begun; 0: never. `files`: how many full ones are kept, 0: all; `days`: for
      how long, 0: ever.

    Raises:
        BadAccessFile: the file cannot be written.
    """

    def __init__(
        self, path: Path, *, largest: int, files: int, days: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._largest, self._files, self._days = largest, files, days
        self._clock = clock
        self._say_at = 0.0
        try:
            self._open()
        except OSError as cause:
            raise BadAccessFile(f"{path}: {cause.strerror or type(cause).__name__}") from None

    def write(self, line: bytes) -> None:
        """Writes a line; one that cannot be written is lost, and that is logged."""
        try:
            if self._clock() >= self._look_at:
                self._follow()
            if self._largest and self._size and self._size + len(line) > self._largest:
                self._rotate()
            written = os.write(self._descriptor, line)
            self._size += written
            if written != len(line):
                raise OSError(0, "no space left for a whole line")
        except OSError as cause:
            if (now := self._clock()) >= self._say_at:
                self._say_at = now + _SAY_EVERY
                log.error("audit events are lost", path=str(self._path), reason=cause.strerror or type(cause).__name__)

    def close(self) -> None:
        """Writes no more."""
        os.close(self._descriptor)

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._noticed(os.fstat(self._descriptor))

    def _noticed(self, found: os.stat_result) -> None:
        self._identity = (found.st_dev, found.st_ino)
        self._size = found.st_size
        self._look_at = self._clock() + _LOOK_EVERY

    def _follow(self) -> None:
        """Goes on with the file that has the name now; others may have written to it, or renamed it."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            found = None
        if found is not None and (found.st_dev, found.st_ino) == self._identity:
            self._noticed(found)
            return
        former = self._descriptor
        self._open()
        os.close(former)

    def _rotate(self) -> None:
        """Renames the file and begins another, unless another process did so meanwhile."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            self._follow_locked()
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _follow_locked(self) -> None:
        locked, before = self._descriptor, self._identity
        try:
            found = os.stat(self._path)
            if (found.st_dev, found.st_ino) == before:
                self._noticed(found)
                if self._size < self._largest // 2:
                    # It was begun anew in place.
                    return
                os.rename(self._path, self._full_name())
                self._remove_old()
        except FileNotFoundError:
            pass
        self._open()
        # With it goes the lock, for which others may wait: they find that the name is another file's.
        os.close(locked)

    def _full_name(self) -> Path:
        """By the time, and after all others, however the clock is set."""
        at = datetime.now(UTC)
        if kept := self._full():
            newest = datetime.strptime(kept[-1][0], f"{_STAMP}.%f").replace(tzinfo=UTC)
            at = max(at, newest + timedelta(milliseconds=1))
        stamp = f"{at.strftime(_STAMP)}.{at.microsecond // 1000:03d}"
        return self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")

    def _full(self) -> list[tuple[str, Path]]:
        """Full files with the times in their names, the oldest first."""
        name = re.compile(rf"{re.escape(self._path.stem)}-({_TIME}){re.escape(self._path.suffix)}")
        found = ((name.fullmatch(path.name), path) for path in self._path.parent.iterdir())
        return sorted((match[1], path) for match, path in found if match is not None)

    def _remove_old(self) -> None:
        """Removes full files that are too many, or too old. By their names, which have the time."""
        oldest = (datetime.now(UTC) - timedelta(days=self._days)).strftime(_STAMP)
        for at, (time_of, path) in enumerate(reversed(self._full())):
            if (self._files and at >= self._files) or (self._days and time_of < oldest):
                with contextlib.suppress(OSError):
                    path.unlink()
