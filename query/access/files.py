"""Files that say who may ask and see what: read at the start, and anew when they change."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from query.access.errors import BadAccessFile

log = structlog.get_logger()

Content = TypeVar("Content")
_FileIdentity = tuple[int, int, int, int]

# More than any bundle of authorities or list of tokens has.
LARGEST = 16 * 1024 * 1024
# Seconds in which a second change of a file may leave its times as they are (ticks of a kernel, of a network's file
# system). git calls such a file racily clean.
_RACY = 2.0


def read_file(path: Path) -> bytes:
    """A file's bytes. Blocking. Raises BadAccessFile with the file's name."""
    try:
        # Opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadAccessFile(f"{path} is no regular file")
            content = file.read(LARGEST + 1)
    except OSError as cause:
        raise BadAccessFile(f"{path}: {cause.strerror or type(cause).__name__}") from None
    except ValueError:
        raise BadAccessFile("a path of a file has a NUL byte") from None
    if len(content) > LARGEST:
        raise BadAccessFile(f"{path} has more than {LARGEST // 1024 // 1024} MiB")
    return content


class WatchedFile(Generic[Content]):
    """What a file says: read at once, and anew when it changes. A bad one is logged, and what was said before stays.

    `read`: from bytes to what they say; raises BadAccessFile, without the file's name. It runs in a thread.
    `look_every`: seconds between two looks at the file, which are made by who asks for `current`.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[bytes], Content],
        *,
        look_every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the file. Blocking. Raises BadAccessFile."""
        self.path = path
        self._read = read
        self._look_every, self._clock = look_every, clock
        self._identity = self._settled_identity()
        content = read_file(path)
        self._digest = hashlib.sha256(content).digest()
        self._content = self._interpreted(content)
        self._look_at = clock() + look_every
        self._looking = asyncio.Lock()
        self._problem = ""

    @property
    def latest(self) -> Content:
        """What the file said when it was looked at last."""
        return self._content

    async def current(self) -> Content:
        """What the file says now, or said at most `look_every` seconds ago."""
        if self._clock() >= self._look_at:
            async with self._looking:
                # Another may have looked while this one waited.
                if self._clock() >= self._look_at:
                    await self._look()
                    self._look_at = self._clock() + self._look_every
        return self._content

    async def _look(self) -> None:
        identity = self._settled_identity()
        if identity is not None and identity == self._identity:
            return
        try:
            content = await asyncio.to_thread(read_file, self.path)
            digest = hashlib.sha256(content).digest()
            if digest != self._digest:
                self._content = await asyncio.to_thread(self._interpreted, content)
                self._digest = digest
                log.info("a file was read anew", path=str(self.path))
        except BadAccessFile as cause:
            if str(cause) != self._problem:
                log.warning("a file cannot be used; what it said before stays", reason=str(cause))
            self._problem = str(cause)
        else:
            self._problem = ""
        self._identity = identity

    def _interpreted(self, content: bytes) -> Content:
        try:
            return self._read(content)
        except BadAccessFile as cause:
            raise BadAccessFile(f"{self.path}: {cause}") from None

    def _settled_identity(self) -> _FileIdentity | None:
        """Another value when the file was changed or replaced; None where that cannot be told by it (yet)."""
        try:
            found = os.stat(self.path)
        except (OSError, ValueError):
            return None
        if abs(time.time() - found.st_mtime) < _RACY or abs(time.time() - found.st_ctime) < _RACY:
            return None
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size)
