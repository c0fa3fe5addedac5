"""Files of credentials: read as a whole, within bounds, and never waited for as a pipe would have it."""

from __future__ import annotations

import os
import stat

from producers.credentials.credential import BadCredentials

# More than any token, certificate chain or authority bundle has.
LARGEST = 4 * 1024 * 1024

Identity = tuple[int, int, int, int]


def file_identity(path: str) -> Identity | None:
    """Another value when a file was changed or replaced; None if there is none. Blocking."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size)


def read_file(path: str, what: str) -> bytes:
    """A file's bytes. Blocking. Raises BadCredentials, which says `what` file it is, by its path."""
    try:
        # Opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadCredentials(f"{what} {path} is no regular file")
            content = file.read(LARGEST + 1)
    except OSError as cause:
        raise BadCredentials(f"{what} {path}: {cause.strerror or type(cause).__name__}") from None
    except ValueError:
        raise BadCredentials(f"{what}: no path") from None
    if len(content) > LARGEST:
        raise BadCredentials(f"{what} {path} has more than {LARGEST // 1024 // 1024} MiB")
    return content
