"""WATCH: a cursor over a type's event history, seen through a selector.

A watch holds a cursor and no queue. It sleeps until its type has new events, its next bookmark is due, or its time is
up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from simulation.api.options import ListOptions
from simulation.api.presentation import Presentation
from simulation.faults import Faults
from simulation.registry.selectors import ObjectSelector
from simulation.status import StatusError, expired
from simulation.storage import ClusterStorage, Collection, EventType, HistoryGone, StoredEvent, StoredObject

__all__ = ["SimulatedWatch", "shown_as"]

BATCH = 256
# A server's last bookmark goes out this long before the end of a watch, in seconds.
BOOKMARK_BEFORE_END = 2.0


def shown_as(event: StoredEvent, selector: ObjectSelector) -> EventType | None:
    """The type of an event as seen through a selector; None if it is not seen.

    An object that the selector begins to match is ADDED, one that it no longer matches is DELETED.
    """
    if not selector:
        return event.type
    before = event.previous is not None and selector.matches(event.previous)
    if event.type == "DELETED":
        return "DELETED" if before else None
    after = selector.matches(event.current)
    if after:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else None


@dataclass(slots=True)
class SimulatedWatch:
    """One watch, from its start (`begin`, synchronous) to its end (`run`).

    `cursor` is that of the next event to look at, `version` the newest version that has been looked at. `initial` are
    the objects to send first, `marks_initial_end` whether a bookmark follows them. `error` is what to send instead
    of events. `bookmark_interval` and `lifetime` are in seconds.
    """

    storage: ClusterStorage
    collection: Collection
    options: ListOptions
    presentation: Presentation
    faults: Faults
    bookmark_interval: float
    lifetime: float
    cursor: int = 0
    version: int = 0
    initial: tuple[StoredObject, ...] = ()
    marks_initial_end: bool = False
    error: StatusError | None = None

    def begin(self) -> None:
        """Take the state that the watch starts from. A version that is too old becomes an ERROR event in the stream."""
        options, collection = self.options, self.collection
        if options.initial_events:
            self.marks_initial_end = options.bookmarks
        wants_state = options.initial_events or (options.initial_events is None and not options.version)
        if wants_state:
            self._take_state()
            return
        self.version = options.version or self.storage.version
        try:
            self.cursor = collection.cursor_at(self.version)
        except HistoryGone as error:
            self.error = expired(str(error))

    def _take_state(self) -> None:
        matches = self.options.selector.matches
        self.initial = tuple(stored for stored in self.collection.in_order() if matches(stored))
        self.cursor = self.collection.cursor()
        self.version = self.storage.version

    async def run(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Send until the time is up, the type is no longer served, or the next event is no longer kept.

        Raises:
            ConnectionError: from `write`, when the client has left.
        """
        if self.error is not None:
            await write(b'{"type":"ERROR","object":%s}\n' % self.error.encode())
            return
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        term = self.collection.term
        self.collection.listeners.add(changed.set)
        try:
            await self._send_initial(write)
            end = loop.time() + self.lifetime
            bookmark_at = self._next_bookmark(loop.time(), end)
            while True:
                changed.clear()
                try:
                    sent = await self._send_news(write)
                except HistoryGone:
                    # Too slow: a server ends the stream, and the next watch gets 410.
                    return
                if sent:
                    continue
                now = loop.time()
                if now >= bookmark_at:
                    await self._send_bookmark(write)
                    bookmark_at = self._next_bookmark(now, end)
                    continue
                if now >= end or self.collection.removed or self.collection.term != term:
                    return
                try:
                    async with asyncio.timeout_at(min(bookmark_at, end)):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            self.collection.listeners.discard(changed.set)

    def _next_bookmark(self, now: float, end: float) -> float:
        if not self.options.bookmarks:
            return float("inf")
        regular = now + self.bookmark_interval
        last = end - BOOKMARK_BEFORE_END
        return min(regular, last) if last > now else regular

    async def _send(self, write: Callable[[bytes], Awaitable[None]], chunks: Iterable[bytes]) -> None:
        data = b"".join(chunks)
        if data:
            await self.faults.flowing.wait()
            await write(data)

    async def _send_initial(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        initial, self.initial = self.initial, ()
        for start in range(0, len(initial), BATCH):
            await self._send(write, map(self.presentation.initial, initial[start : start + BATCH]))
        if self.marks_initial_end:
            await self._send(write, [self.presentation.bookmark(self.version, initial_events_end=True)])

    async def _send_news(self, write: Callable[[bytes], Awaitable[None]]) -> bool:
        """Send the next events; whether there were any. Raises HistoryGone if they are no longer kept."""
        # The storage's version is looked at only if no await comes between reading it and the events.
        version = self.storage.version
        events = self.collection.since(self.cursor, BATCH)
        if not events:
            self.version = max(self.version, version)
            return False
        self.cursor += len(events)
        selector = self.options.selector
        chunks = []
        for event in events:
            # A watch may start ahead of the storage: what is not newer than its start is not shown.
            if event.version <= self.version:
                continue
            type = shown_as(event, selector)
            if type is not None:
                chunks.append(self.presentation.event(type, event))
        self.version = max(self.version, events[-1].version)
        await self._send(write, chunks)
        return True

    async def _send_bookmark(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        if not self.faults.skip_bookmarks:
            await self._send(write, [self.presentation.bookmark(self.version)])
