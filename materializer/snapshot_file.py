"""Snapshot file: pieces of bytes in frames with checksums, read ahead and written outside of the event loop.

The file is written beside the last one, synced and put in its place; a reader takes all of it or nothing. A line with
the format's number, then frames: what it is, how long, checksum, data (packed pieces of the image). The checksum of a
frame goes on from that of the one before, so that none can be missing, changed or out of its order; the last frame says
that it is the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from isal import isal_zlib

from materializer.errors import MaterializerError
from materializer.image_records import PACKED_PIECES, Piece

FORMAT = 4
_MAGIC = b"kubebraid snapshot %d\n"
# What it is, stored length, length unpacked, checksum of these three and of what is stored.
_FRAME = struct.Struct(">BQQI")
_CHECKED = struct.Struct(">BQQ")
# Pieces are deflated, but for those of packed bodies.
_HEADER, _PIECES, _END, _PACKED = 1, 2, 3, 4
# A piece in a frame: type and length.
_PIECE = struct.Struct(">BQ")
# Level 1 packs what else there is to a tenth, faster than a disk takes it.
_LEVEL = 1
# A frame ends with the piece that makes it larger than this, in bytes unpacked: less than what an allocator takes from
# the system, and gives back to it, each time.
_LARGE = 60 << 10
BATCH = 1 << 20
"""So much is packed and written, or (as it is stored) read, at one go outside of the event loop, in bytes."""
# So much of the disk is left to others, in bytes; looked at whenever so many were written.
_RESERVE = 256 << 20
_LOOK = 64 << 20


class BadFile(MaterializerError):
    """It is no snapshot, or of another format, or damaged; the message says which."""


def _gone_on(checksum: int, head: bytes | memoryview, stored: bytes | memoryview) -> int:
    """The checksum of a frame, behind one that had `checksum`; of its `head` all but the checksum itself counts."""
    return isal_zlib.crc32(stored, isal_zlib.crc32(head[: _CHECKED.size], checksum))


class Frame(NamedTuple):
    """`stored`: its data as it stands in the file, at `at`. `size`: its length unpacked."""

    type: int
    stored: memoryview
    size: int
    at: int

    @property
    def in_place(self) -> bool:
        """Whether its data stands in the file as it is."""
        return self.type == _PACKED

    def data(self) -> memoryview:
        """Raises BadFile."""
        if self.in_place:
            return self.stored
        try:
            return memoryview(isal_zlib.decompress(self.stored, bufsize=max(self.size, 1)))
        except isal_zlib.error as cause:  # type: ignore[misc]  # a class, whatever its stub says
            raise BadFile(f"a frame cannot be unpacked: {cause}") from cause

    def pieces(self) -> Iterator[tuple[int, memoryview, int]]:
        """The pieces in it, and where in it they begin. Raises BadFile."""
        data, at = self.data(), 0
        try:
            while at < len(data):
                type, length = _PIECE.unpack_from(data, at)
                at += _PIECE.size + length
                yield type, data[at - length : at], at - length
        except struct.error as cause:
            raise BadFile(f"a frame is not made of pieces: {cause}") from cause


def damage(data: memoryview) -> str | None:
    """What is wrong with a whole file that was read before and is still mapped; None if nothing is.

    O(its length), most of it without the GIL: to be called in a thread.
    """
    checksum, at, count = 0, len(_MAGIC % FORMAT), 0
    while at + _FRAME.size <= len(data):
        type, length, _, expected = _FRAME.unpack_from(data, at)
        begins = at + _FRAME.size
        if length > len(data) - begins:
            break
        checksum = _gone_on(checksum, data[at:begins], data[begins : begins + length])
        if checksum != expected:
            return f"the checksum of frame {count} is wrong"
        if type == _END:
            return None
        at, count = begins + length, count + 1
    return "it is cut off"


class FileReader:
    """Reads a file from its beginning; a thread reads ahead.

    `async with`, as the file must not be closed under the thread.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        # Bytes of the file that have not been read, and those at hand: from `_at` on they are to be looked at.
        self._left = self._length = os.fstat(source.fileno()).st_size
        self._text = memoryview(b"")
        self._at = 0
        self._ahead: asyncio.Task[bytes] | None = None
        self._checksum = 0
        self._count = 0

    async def __aenter__(self) -> FileReader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        cancelled = False
        while self._ahead is not None and not self._ahead.done():
            try:
                await asyncio.wait((self._ahead,))
            except asyncio.CancelledError:
                # It is to end, but not before the thread.
                cancelled = True
        if self._ahead is not None:
            # What nobody waits for any more.
            self._ahead.exception()
        if cancelled:
            raise asyncio.CancelledError

    async def header(self) -> bytes:
        """The text of the header, to be asked for first. Raises BadFile, OSError."""
        magic = _MAGIC % FORMAT
        if (first := bytes(await self._take(len(magic)))) != magic:
            known = first.startswith(_MAGIC.partition(b"%")[0])
            raise BadFile("another version of kubebraid wrote it" if known else "it is no snapshot")
        frame = await self.frame()
        if frame is None or frame.type != _HEADER:
            raise BadFile("it has no header")
        return bytes(frame.data())

    async def frame(self) -> Frame | None:
        """The next frame; None at the end. What is returned was checked. Raises BadFile, OSError."""
        head = await self._take(_FRAME.size)
        if len(head) < _FRAME.size:
            raise BadFile("it is cut off")
        type, length, size, expected = _FRAME.unpack(head)
        left = self._left + len(self._text) - self._at
        if length > left:
            raise BadFile("it is cut off, or damaged")
        stored = await self._take(length)
        self._checksum = _gone_on(self._checksum, head, stored)
        if len(stored) < length or self._checksum != expected:
            raise BadFile(f"it is damaged: the checksum of frame {self._count} is wrong")
        self._count += 1
        if type == _END:
            if left > length:
                raise BadFile("it goes on behind its end")
            return None
        return Frame(type, stored, size, self._length - left)

    async def _take(self, length: int) -> memoryview:
        """So many bytes, or as many as there are."""
        while (missing := length - (len(self._text) - self._at)) > 0:
            if self._ahead is None:
                self._ahead = self._read_ahead(missing)
            # Not cancelled with who waits for it: see `__aexit__`.
            await asyncio.wait((self._ahead,))
            more, self._ahead = self._ahead.result(), None
            if not more:
                break
            self._left -= len(more)
            self._text = memoryview(bytes(self._text[self._at :]) + more if self._at < len(self._text) else more)
            self._at = 0
            self._ahead = self._read_ahead(BATCH)
        found = self._text[self._at : self._at + length]
        self._at += len(found)
        return found

    def _read_ahead(self, size: int) -> asyncio.Task[bytes]:
        return asyncio.create_task(asyncio.to_thread(self._source.read, max(size, BATCH)), name="snapshot-reading")


class FileWriter:
    """A snapshot file in the making. All of it outside of the event loop, one call at a time."""

    def __init__(self, file: Path, made: Path, sink: BinaryIO) -> None:
        self._file = file
        self._made = made
        self._sink = sink
        self._checksum = 0
        self._looked = 0
        self._done = False

    @classmethod
    def open(cls, file: Path) -> FileWriter | None:
        """None if another process is writing one. Raises OSError."""
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = file.with_suffix(".snapshot.new")
        # The objects may be Secrets: no other user may read them.
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT, 0o600)
        sink = os.fdopen(descriptor, "wb")
        try:
            # Also where somebody had made it.
            os.fchmod(descriptor, 0o600)
            # Another process' lock goes with that process, and so does not outlive a crash.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), made.stat()):
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            # It was put in its place, or is being written.
            sink.close()
            return None
        except OSError:
            sink.close()
            raise
        writer = cls(file, made, sink)
        try:
            sink.truncate(0)
            sink.write(_MAGIC % FORMAT)
        except OSError:
            writer.close()
            raise
        return writer

    def header(self, text: bytes) -> None:
        """Raises OSError."""
        self._frame(_HEADER, isal_zlib.compress(text, _LEVEL), len(text))

    def write(self, pieces: list[Piece]) -> None:
        """Raises OSError."""
        waiting: list[bytes] = []
        size = 0
        for number, (type, text) in enumerate(pieces):
            packed = type in PACKED_PIECES
            waiting += (_PIECE.pack(type, len(text)), text)
            size += _PIECE.size + len(text)
            last = number == len(pieces) - 1
            if last or size >= _LARGE or (pieces[number + 1][0] in PACKED_PIECES) is not packed:
                stored = b"".join(waiting)
                if packed:
                    self._frame(_PACKED, stored, size)
                else:
                    self._frame(_PIECES, isal_zlib.compress(stored, _LEVEL), size)
                waiting, size = [], 0
        at = self._sink.tell()
        if at >= self._looked:
            self._looked = at + _LOOK
            if shutil.disk_usage(self._made.parent).free < _RESERVE:
                raise OSError(errno.ENOSPC, f"less than {_RESERVE >> 20} MiB of the disk would be left")

    def _frame(self, type: int, stored: bytes, size: int) -> None:
        head = _CHECKED.pack(type, len(stored), size)
        self._checksum = _gone_on(self._checksum, head, stored)
        self._sink.write(head + self._checksum.to_bytes(4, "big"))
        self._sink.write(stored)

    def finish(self, pieces: list[Piece]) -> int:
        """Writes the last pieces and puts the file in its place; its length. Raises OSError."""
        self.write(pieces)
        self._frame(_END, b"", 0)
        self._sink.flush()
        os.fsync(self._sink.fileno())
        size = self._sink.tell()
        os.replace(self._made, self._file)
        self._done = True
        directory = os.open(self._file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return size

    def close(self) -> None:
        """Leaves nothing behind of one that was not finished."""
        if not self._done:
            with contextlib.suppress(OSError):
                self._made.unlink()
        with contextlib.suppress(OSError):
            # What is buffered may not find room any more.
            self._sink.close()
