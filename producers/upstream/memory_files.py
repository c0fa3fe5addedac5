"""Files that are in memory only: libcurl copies what it is given as bytes for each request, but not what a path names.

A certificate, its key and an authority are some 4 KB; at a thousand clusters with twenty watches that is 80 MB.
"""

from __future__ import annotations

import os
from pathlib import Path

# Where a process finds its own open files by path.
_OPEN_FILES = Path("/proc/self/fd")


class MemoryFile:
    """Content with a path, readable by this process only, until it is closed."""

    def __init__(self, name: str, content: bytes) -> None:
        self._fd = os.memfd_create(name, os.MFD_CLOEXEC)
        self.path = str(_OPEN_FILES / str(self._fd))
        try:
            with os.fdopen(os.dup(self._fd), "wb") as file:
                file.write(content)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forgets the content; what has read it keeps that."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def memory_file(name: str, content: bytes) -> MemoryFile | None:
    """A file with this content; None where the system has none, or no more open files are allowed."""
    if not hasattr(os, "memfd_create") or not _OPEN_FILES.is_dir():
        return None
    try:
        return MemoryFile(name, content)
    except OSError:
        return None
