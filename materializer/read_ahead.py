"""Read ahead: a long list's bodies, the next chunk of them unpacked in a thread while the present one is sent."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

from materializer.bodies import Dictionary
from materializer.entry import Entry
from materializer.reading import KEPT, places_by_dictionary
from materializer.record import REST_SIZE, body_in, length_at

# So many slices are unpacked at one go: what it takes to have a thread do it is some 100 us, as much as it takes to
# unpack 25 objects of 5 KB.
_SLICES: Final = 4
_LEAST: Final = 64
# So many lists at most have a chunk of a MiB or so ahead, done or under way; the others unpack as they send.
_MOST: Final = 8
_THREADS: Final = 2
# A thread is of use where there is a processor beside the event loop's.
_HELPS: Final = (os.cpu_count() or 1) > 1

_threads = ThreadPoolExecutor(_THREADS, "kubebraid-reading")
_held: set[ReadAhead] = set()

Held = tuple[Dictionary, bytes]
Read = tuple[list[Entry], Sequence[bytes | memoryview] | None]
"""A slice of a list and its entries' rests, None: they have not been read."""


class ReadAhead:
    """Slices of a list, to be iterated over, each of them after `ready`. To be closed.

    `slices`: of the entries, of some 256 KiB each. `ahead`: False if most of the bodies will not be read.
    """

    def __init__(self, slices: Iterator[list[Entry]], *, ahead: bool = True) -> None:
        self._slices = slices
        self._ahead = ahead and _HELPS
        self._now: deque[Read] = deque()
        self._next: _Chunk | None = None

    def __iter__(self) -> Iterator[Read]:
        return self

    def __next__(self) -> Read:
        if self._now:
            return self._now.popleft()
        return next(self._slices), None

    async def ready(self) -> None:
        """Waits until the next slice is there. Raises CorruptFrame."""
        if self._now or not self._ahead:
            return
        chunk, self._next = self._next, None
        if chunk is not None:
            try:
                self._now.extend(await chunk.read())
            finally:
                _held.discard(self)
        elif (first := next(self._slices, None)) is not None:
            # It is read at once, while the thread has the next ones.
            self._now.append((first, None))
        if len(_held) < _MOST:
            self._begin()

    def close(self) -> None:
        """Ends it; what is under way in a thread is of no use any more."""
        _held.discard(self)
        if self._next is not None:
            self._next.drop()
            self._next = None

    def _begin(self) -> None:
        parts = list(islice(self._slices, _SLICES))
        chunk = _Chunk(parts)
        if chunk.begin():
            self._next = chunk
            _held.add(self)
        else:
            self._now.extend(chunk.unread())


class _Chunk:
    """Some slices that are read together."""

    def __init__(self, parts: list[list[Entry]]) -> None:
        self._parts = parts
        self._rests, self._missing = KEPT.find([entry for part in parts for entry in part])
        self._held: list[Held] = []
        self._reading: asyncio.Future[list[bytes | memoryview]] | None = None

    def begin(self) -> bool:
        """Has a thread read what is packed; False if that is not worth while."""
        if len(self._missing) < _LEAST:
            return False
        entries = [entry for part in self._parts for entry in part]
        for at in self._missing:
            entry = entries[at]
            assert entry.dictionary is not None
            self._held.append((entry.dictionary, entry.record))
        self._reading = asyncio.get_running_loop().run_in_executor(_threads, _unpacked, self._held)
        return True

    def unread(self) -> Iterator[Read]:
        """The slices, with the rests if they are all plain or kept: they need no reading."""
        return ((part, None) for part in self._parts) if self._missing else self._split(self._rests)

    async def read(self) -> Iterator[Read]:
        """The slices. Raises CorruptFrame."""
        assert self._reading is not None
        rests: list[bytes | memoryview] = list(self._rests)
        for at, (dictionary, record), rest in zip(self._missing, self._held, await self._reading, strict=True):
            rests[at] = rest
            if KEPT.has_room:
                KEPT.keep(dictionary, record, bytes(rest))
        return self._split(rests)

    def drop(self) -> None:
        """Ends the reading of what nobody waits for."""
        if self._reading is not None and not self._reading.cancel():
            self._reading.exception()

    def _split(self, rests: Sequence[bytes | memoryview]) -> Iterator[Read]:
        begin = 0
        for part in self._parts:
            yield part, rests[begin : begin + len(part)]
            begin += len(part)


def _unpacked(held: Sequence[Held]) -> list[bytes | memoryview]:
    """The bodies of records under dictionaries, in their order; run in a thread."""
    found: list[bytes | memoryview] = [b""] * len(held)
    for dictionary, places in places_by_dictionary(held):
        records = [held[at][1] for at in places]
        frames, sizes = map(body_in, records), [length_at(record, REST_SIZE) for record in records]
        for at, rest in zip(places, dictionary.unpack_apart(list(frames), sizes), strict=True):
            found[at] = rest
    return found
