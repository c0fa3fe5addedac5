"""Snapshot: an image of a store in a file, so that a restart reads only what the log has got since.

The file itself: `materializer.snapshot_file`.
"""

from __future__ import annotations

import asyncio
import os
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from deltalog.jetstream.stream import Log
from deltalog.wire.parts import Assembler
from deltalog.wire.subjects import encode_token
from materializer.adoption import Adoption
from materializer.bodies import Packing
from materializer.errors import MaterializerError
from materializer.heap import trim
from materializer.image import Image
from materializer.image_records import SHAPE, NotAnImage, Piece
from materializer.integrity import Counts
from materializer.mapped import MappedFile
from materializer.restoration import Restoration
from materializer.snapshot_file import BATCH, FORMAT, BadFile, FileReader, FileWriter, damage
from materializer.store import Store

log = structlog.get_logger("materializer.snapshot")


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
        # The entries that are read from one keep it.
        self._mapped: weakref.WeakSet[MappedFile] = weakref.WeakSet()
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
        except (_Ignored, BadFile, NotAnImage, OSError) as cause:
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
        self._mapped.add(found)
        return found

    async def _read(self, source: BinaryIO, log_of: Callable[[_Header], Log]) -> Restored:
        async with FileReader(source) as reader:
            header = await _header_of(reader)
            _check(header, log_of(header))
            file = self._map(source)
            restoration = Restoration(file)
            await _each_piece(reader, restoration.take)
        for _ in restoration.finish():
            await asyncio.sleep(0)
        store, counts, parts = restoration.restored(Packing())
        if (store.prefix, store.applied) != (header.prefix, header.index):
            raise _Ignored("its header is that of another one")
        if file is not None:
            file.end()
        return Restored(store, counts, parts, header.latest, header.current)

    async def damage(self) -> str | None:
        """What has become wrong with the file that records are read from; None if nothing has, or none are.

        Every checksum was right when they were left to it. A disk may change bytes after that.
        """
        for mapped in list(self._mapped):
            if (found := await asyncio.to_thread(damage, memoryview(mapped.data))) is not None:
                # Who still holds entries of it, as an answer under way, is not asked again.
                self._mapped.discard(mapped)
                return found
        return None

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
                async with FileReader(source) as reader:
                    header = await _header_of(reader)
                    _check(header, log_, young=False)
                    if (mapped := self._map(source)) is None:
                        return
                    adoption = Adoption(store, mapped)
                    try:
                        await _each_piece(reader, adoption.take)
                    finally:
                        mapped.end()
                for _ in adoption.leave_others():
                    await asyncio.sleep(0)
                self.index, self.size = header.index, os.fstat(source.fileno()).st_size
                # What entries held themselves stood between other things.
                await asyncio.to_thread(trim)
        except FileNotFoundError:
            return
        except (_Ignored, BadFile, NotAnImage, OSError) as cause:
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
        writer = await asyncio.to_thread(FileWriter.open, file)
        if writer is None:
            return 0
        try:
            await asyncio.to_thread(writer.header, msgspec.json.encode(header))
            batch: list[Piece] = []
            size = 0
            for piece in image.pieces():
                batch.append(piece)
                size += len(piece[1])
                if size < BATCH:
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


async def _header_of(reader: FileReader) -> _Header:
    """Raises _Ignored, BadFile, OSError."""
    try:
        return msgspec.json.decode(await reader.header(), type=_Header)
    except msgspec.MsgspecError:
        raise _Ignored("another version of kubebraid wrote it") from None


async def _each_piece(reader: FileReader, take: Callable[[int, memoryview, int | None], None]) -> None:
    """Gives all pieces behind the header to `take`, with where in the file they stand as they are.

    Raises:
        BadFile, NotAnImage, OSError: it cannot be read on.
    """
    while (frame := await reader.frame()) is not None:
        for type, piece, at in frame.pieces():
            take(type, piece, frame.at + at if frame.in_place else None)
        await asyncio.sleep(0)


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
