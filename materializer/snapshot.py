"""Snapshot: an image of a store in a file, so that a restart reads only what the log has got since.

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
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import structlog
from isal import isal_zlib

from deltalog.jetstream.stream import Log
from deltalog.wire.parts import Assembler
from deltalog.wire.subjects import encode_token
from materializer.adoption import Adoption
from materializer.bodies import Packing
from materializer.errors import MaterializerError
from materializer.heap import trim
from materializer.image import PACKED_PIECES, SHAPE, Image, NotAnImage, Piece, Restoration
from materializer.integrity import Counts
from materializer.mapped import MappedFile
from materializer.store import Store

log = structlog.get_logger("materializer.snapshot")

FORMAT = 3
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
_LARGE = 80 << 10
# So much is packed and written, or (as it is stored) read, at one go outside of the event loop, in bytes.
_BATCH = 1 << 20
# So much of the disk is left to others, in bytes; looked at whenever so many were written.
_RESERVE = 256 << 20
_LOOK = 64 << 20


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    """Of what log the store is, and how far it had come.

    - `shape`: checksum of what an image is made of.
    - `index`, `time`, `latest`: the last message that was applied, as in `Progress`.
    - `current`: what the log got later, it got at this time or later; nanoseconds by the server's clock.
    """

    shape: int
    stream: str
    created: str
    prefix: str
    tombstone_ttl: int
    index: int
    time: int
    latest: int
    current: int


class Restored(msgspec.Struct, frozen=True):
    """What a snapshot holds. `latest`, `current`: as in its header."""

    store: Store
    counts: Counts
    parts: Assembler
    latest: int
    current: int


class _Ignored(MaterializerError):
    """The snapshot is not to be used; the message says why."""


_SHAPE = zlib.crc32(msgspec.json.encode([FORMAT, SHAPE]))


def too_old(log_: Log, current: int) -> bool:
    """Whether deletions past a snapshot may have been forgotten by the log, so that what was deleted would live on.

    A tenth of the tombstone time is kept as a margin, for the reading and for clocks that were set.
    """
    return log_.now() - current > log_.tombstone_ttl * 900_000_000


class Snapshots:
    """The snapshots of one log in a directory, of which it keeps the last; `every` so many seconds one is due.

    `writes`: whether this process is to write them; of several with one directory, one at a time can. `shares`: records
    that stand in the last one are read from there, by all processes of the host that do so (`materializer.mapped`).
    """

    def __init__(self, directory: Path, every: float, *, writes: bool = True, shares: bool = False) -> None:
        self.directory = directory
        self.every = every
        self.writes = writes
        self.shares = shares
        # Which file was shared last, or tried to.
        self._shared: tuple[int, ...] | None = None
        # Why that was not possible, as it was logged last.
        self._said = ""
        # The index of the last one that was written or read, and its length in bytes.
        self.index = 0
        self.size = 0
        self._prefix, self._current = "", 0

    def file(self, stream: str) -> Path:
        """The path of a stream's snapshot, whether there is one or not."""
        return self.directory / f"{encode_token(stream)}.snapshot"

    # -- reading ---------------------------------------------------------------------------------------------------

    async def read(self, log_: Log) -> Restored | None:
        """What the last one holds, if it is of this log's history and not too old; else one line says why not."""
        return await self._last(log_.name, lambda _: log_, "reading the log from its beginning")

    async def read_alone(self, url: str, stream: str) -> tuple[Log, Restored] | None:
        """What the last one holds, and the log that it is of, while NATS at `url` cannot be asked about that.

        As `read` otherwise; how old it is, is by this machine's clock.
        """
        logs: list[Log] = []

        def log_of(header: _Header) -> Log:
            if header.stream != stream:
                raise _Ignored(f"it is of a stream {header.stream}")
            logs.append(
                Log.unreached(
                    url,
                    stream,
                    created=header.created,
                    prefix=header.prefix,
                    tombstone_ttl=header.tombstone_ttl,
                )
            )
            return logs[-1]

        found = await self._last(stream, log_of, "there is nothing to serve without NATS")
        return None if found is None else (logs[-1], found)

    async def _last(self, stream: str, log_of: Callable[[_Header], Log], without: str) -> Restored | None:
        file = self.file(stream)
        try:
            with await asyncio.to_thread(file.open, "rb") as source:
                found = await self._read(source, log_of)
                self.size = os.fstat(source.fileno()).st_size
        except FileNotFoundError:
            return None
        except (_Ignored, NotAnImage, OSError) as cause:
            log.warning(f"the snapshot is ignored: {without}", file=str(file), reason=str(cause))
            return None
        self.index, self._prefix, self._current = found.store.applied, found.store.prefix, found.current
        return found

    def _map(self, source: BinaryIO) -> MappedFile | None:
        """The file mapped; None if nothing is to be shared, or cannot be."""
        if not self.shares:
            return None
        try:
            found = MappedFile(source)
        except OSError as cause:
            log.warning("a snapshot's records are not shared: it cannot be mapped", reason=str(cause))
            self.shares = False
            return None
        self._shared = _identity(os.fstat(source.fileno()))
        return found

    async def _read(self, source: BinaryIO, log_of: Callable[[_Header], Log]) -> Restored:
        frames = _frames(source)
        header, batch = await _header_of(frames)
        _check(header, log_of(header))
        file = self._map(source)
        restoration = Restoration(file)
        await _each_piece(frames, batch, restoration.take)
        for _ in restoration.finish():
            await asyncio.sleep(0)
        store, counts, parts = restoration.restored(Packing())
        if (store.prefix, store.applied) != (header.prefix, header.index):
            raise _Ignored("its header is that of another one")
        if file is not None:
            file.end()
        return Restored(store, counts, parts, header.latest, header.current)

    async def share(self, log_: Log, store: Store) -> None:
        """Has the store's entries be read from the last one, if that is another than before. O(its length), in steps.

        What it has otherwise than the store, or what cannot be read of it, the store keeps as it is.
        """
        file = self.file(log_.name)
        try:
            if not self.shares or _identity(await asyncio.to_thread(file.stat)) == self._shared:
                return
            with await asyncio.to_thread(file.open, "rb") as source:
                self._shared = _identity(os.fstat(source.fileno()))
                frames = _frames(source)
                header, batch = await _header_of(frames)
                _check(header, log_, young=False)
                if (mapped := self._map(source)) is None:
                    return
                adoption = Adoption(store, mapped)
                try:
                    await _each_piece(frames, batch, adoption.take)
                finally:
                    mapped.end()
                for _ in adoption.leave_others():
                    await asyncio.sleep(0)
                self.index, self.size = header.index, os.fstat(source.fileno()).st_size
                # What entries held themselves stood between other things.
                await asyncio.to_thread(trim)
        except FileNotFoundError:
            return
        except (_Ignored, NotAnImage, OSError) as cause:
            # It is tried every few seconds.
            if (said := str(cause)) != self._said:
                self._said = said
                log.warning("a snapshot's records are not shared", file=str(file), reason=said)
            return
        self._said = ""
        log.info("a snapshot's records are shared", file=str(file), index=header.index, entries=adoption.adopted)

    # -- writing ---------------------------------------------------------------------------------------------------

    def due(self, store: Store, log_: Log) -> bool:
        """Whether a new one would say more: there were changes, or the last one is on its way to being too old."""
        changed = (store.prefix, store.applied) != (self._prefix, self.index)
        return changed or log_.now() - self._current > log_.tombstone_ttl * 250_000_000

    async def write(self, log_: Log, image: Image, *, created: str, latest: int, current: int) -> bool:
        """Writes down what a store was; what can't be written is one line in the log, and False.

        The event loop has its turn after each piece. `created`: when the stream was made; `latest`,
        `current`: see the header.
        """
        header = _Header(
            shape=_SHAPE,
            stream=log_.name,
            created=created,
            prefix=image.prefix,
            tombstone_ttl=image.tombstone_ttl,
            index=image.index,
            time=image.time,
            latest=latest,
            current=max(current, image.time),
        )
        file = self.file(log_.name)
        try:
            size = await self._write(file, header, image)
        except OSError as cause:
            log.warning("the snapshot cannot be written", file=str(file), reason=cause.strerror or str(cause))
            return False
        if size:
            self.index, self.size = image.index, size
            self._prefix, self._current = image.prefix, header.current
            log.info("snapshot written", file=str(file), index=image.index, bytes=size)
        return bool(size)

    async def _write(self, file: Path, header: _Header, image: Image) -> int:
        """Its length in bytes; 0 if another process is writing one. Raises OSError."""
        writer = await asyncio.to_thread(_Writer.open, file)
        if writer is None:
            return 0
        try:
            await asyncio.to_thread(writer.header, msgspec.json.encode(header))
            batch: list[Piece] = []
            size = 0
            for piece in image.pieces():
                batch.append(piece)
                size += len(piece[1])
                if size < _BATCH:
                    await asyncio.sleep(0)
                    continue
                await asyncio.to_thread(writer.write, batch)
                batch, size = [], 0
            return await asyncio.to_thread(writer.finish, batch)
        finally:
            # Also when this is cancelled while a thread is writing: then the thread ends first.
            await asyncio.shield(asyncio.to_thread(writer.close))


def _identity(of: os.stat_result) -> tuple[int, ...]:
    # The number of one that is gone is soon another one's.
    return of.st_dev, of.st_ino, of.st_mtime_ns


async def _header_of(frames: Iterator[_Frame]) -> tuple[_Header, list[_Frame]]:
    """The header, and frames behind it that were read with it. Raises _Ignored, OSError."""
    batch = await asyncio.to_thread(_next_batch, frames)
    if not batch or batch[0].type != _HEADER:
        raise _Ignored("it has no header")
    try:
        header = msgspec.json.decode(_unpacked(batch.pop(0)), type=_Header)
    except msgspec.MsgspecError:
        raise _Ignored("another version of kubebraid wrote it") from None
    return header, batch


async def _each_piece(
    frames: Iterator[_Frame], batch: list[_Frame], take: Callable[[int, memoryview, int | None], None]
) -> None:
    """Gives all pieces to `take`, beginning with those in `batch`, with where in the file they stand as they are.

    Raises:
        _Ignored, NotAnImage, OSError: it cannot be read on.
    """
    if not batch:
        # The header alone filled one.
        batch = await asyncio.to_thread(_next_batch, frames)
    while batch:
        # The next ones are read meanwhile.
        ahead = asyncio.create_task(asyncio.to_thread(_next_batch, frames))
        try:
            for frame in batch:
                for type, piece, at in _pieces(_unpacked(frame)):
                    take(type, piece, frame.at + at if frame.type == _PACKED else None)
                await asyncio.sleep(0)
        finally:
            # The file must not be closed under the thread.
            await asyncio.wait((ahead,))
        batch = ahead.result()


def _check(header: _Header, log_: Log, *, young: bool = True) -> None:
    """Raises _Ignored unless the snapshot can be gone on from; `young` False: it may be too old for that."""
    if header.shape != _SHAPE:
        raise _Ignored("another version of kubebraid wrote it")
    if (header.stream, header.created) != (log_.name, log_.created):
        raise _Ignored(f"it is of a stream {header.stream} made at {header.created}")
    if header.prefix != log_.prefix:
        raise _Ignored(f"it is of the history {header.prefix}, this is {log_.prefix}")
    if header.tombstone_ttl != log_.tombstone_ttl:
        raise _Ignored("the tombstone time is another one")
    if young and too_old(log_, header.current):
        raise _Ignored("deletions since then may have been forgotten")


# -- the file ----------------------------------------------------------------------------------------------------------


class _Frame(NamedTuple):
    """`size`: its length unpacked. `at`: where in the file what is stored stands."""

    type: int
    stored: bytes
    size: int
    at: int


def _frames(source: BinaryIO) -> Iterator[_Frame]:
    """The file's frames, up to that which says that it is the last. Raises _Ignored, OSError."""
    magic = _MAGIC % FORMAT
    if (first := source.read(len(magic))) != magic:
        known = first.startswith(_MAGIC.partition(b"%")[0])
        raise _Ignored("another version of kubebraid wrote it" if known else "it is no snapshot")
    length = os.fstat(source.fileno()).st_size
    left = length - len(magic)
    checksum = count = 0
    while True:
        head = source.read(_FRAME.size)
        left -= _FRAME.size
        if len(head) < _FRAME.size:
            raise _Ignored("it is cut off")
        type, stored_length, size, expected = _FRAME.unpack(head)
        if stored_length > left:
            raise _Ignored("it is cut off, or damaged")
        at = length - left
        stored = source.read(stored_length)
        left -= stored_length
        checksum = isal_zlib.crc32(stored, isal_zlib.crc32(head[: _CHECKED.size], checksum))
        if len(stored) < stored_length or checksum != expected:
            raise _Ignored(f"it is damaged: the checksum of frame {count} is wrong")
        count += 1
        if type == _END:
            if left:
                raise _Ignored("it goes on behind its end")
            return
        yield _Frame(type, stored, size, at)


def _next_batch(frames: Iterator[_Frame]) -> list[_Frame]:
    """The next frames, none at the end. Raises as `_frames` does."""
    batch: list[_Frame] = []
    size = 0
    for frame in frames:
        batch.append(frame)
        size += len(frame.stored)
        if size >= _BATCH:
            break
    return batch


def _unpacked(frame: _Frame) -> bytes:
    """Raises _Ignored."""
    if frame.type == _PACKED:
        return frame.stored
    try:
        return isal_zlib.decompress(frame.stored, bufsize=max(frame.size, 1))
    except isal_zlib.error as cause:  # type: ignore[misc]  # a class, whatever its stub says
        raise _Ignored(f"a frame cannot be unpacked: {cause}") from cause


def _pieces(text: bytes) -> Iterator[tuple[int, memoryview, int]]:
    """The pieces in a frame, and where in it they begin. Raises _Ignored."""
    view, at = memoryview(text), 0
    try:
        while at < len(text):
            type, length = _PIECE.unpack_from(text, at)
            at += _PIECE.size + length
            yield type, view[at - length : at], at - length
    except struct.error as cause:
        raise _Ignored(f"a frame is not made of pieces: {cause}") from cause


class _Writer:
    """A snapshot file in the making. All of it outside of the event loop, one call at a time."""

    def __init__(self, file: Path, made: Path, sink: BinaryIO) -> None:
        self._file = file
        self._made = made
        self._sink = sink
        self._checksum = 0
        self._looked = 0
        self._done = False

    @classmethod
    def open(cls, file: Path) -> _Writer | None:
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
        self._checksum = isal_zlib.crc32(stored, isal_zlib.crc32(head, self._checksum))
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
