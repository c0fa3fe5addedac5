"""WATCH: one task per watcher that reads from its position in the index order; no queues.

What several watchers with the same filter, form and position are to get next is read and encoded once.
"""

from __future__ import annotations

import asyncio
import random
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from deltalog.wire.delta import ADDED
from deltalog.wire.kubernetes import GroupResource
from materializer.cursor import Change, Position, changes
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.materializer import Materializer
from materializer.resume import Expired, HistoryReplaced, Resumption, from_now, unread
from materializer.type_store import TypeStore
from query.http.accept import Form
from query.http.status import ApiError, expired
from query.objects.representations import Encoder

# Seconds: a watch's length when the client names none, the time between bookmarks, and how long before the end
# the last one comes (apiserver pkg/endpoints/handlers/get.go, storage/cacher).
_DEFAULT_TIMEOUT = (1800.0, 3600.0)
_BOOKMARK_EVERY = 60.0
_BOOKMARK_BEFORE_END = 2.0
# Changes read at one go, and their bytes: bounds what is held for a slow watcher, and how long others wait.
_READ_LIMIT = 512
_READ_BYTES = 128 * 1024
# Seconds that a client has left to take what was being sent when its time was over.
_GRACE = 10.0
# Bytes of encoded changes that are kept for others who may want the same.
_SHARED_BYTES = 32 * 1024 * 1024

Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What to watch and from where. `start` None: the present state first; `timeout` in seconds."""

    key: GroupResource
    wanted: Filter
    encoder: Encoder
    start: Resumption | None
    bookmarks: bool
    mark_initial_end: bool
    timeout: float | None


class NotTaken(Exception):
    """The time of a watch is over, but its client does not take what was sent before."""


class _Over(Exception):
    """The time of a watch is over."""


class Present:
    """The state that watchers begin with: one for all that begin at the same time, however long each takes."""

    __slots__ = ("__weakref__", "entries")

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries


class Wants:
    """What several watchers want alike."""

    __slots__ = ("__weakref__",)


class Shared:
    """What many watchers may want: encoded changes, by filter, form and position, for the newest state only.

    And present states, for as long as somebody reads them.
    """

    def __init__(self) -> None:
        self._at: tuple[int, int] = (-1, -1)
        self._made: dict[tuple[object, Position, bool], tuple[bytes, int | None]] = {}
        # Stand for a type, filter and form, as these are compared for each change and watcher.
        self._wants: weakref.WeakValueDictionary[tuple[object, ...], Wants] = weakref.WeakValueDictionary()
        self._present: weakref.WeakValueDictionary[tuple[object, ...], Present] = weakref.WeakValueDictionary()
        self.size = 0
        self.hits = 0
        self.misses = 0

    def those_who_want(self, request: WatchRequest) -> Wants:
        """One and the same for all that want the same changes in the same form."""
        key = (request.key, request.wanted, request.encoder.key)
        found = self._wants.get(key)
        if found is None:
            found = self._wants[key] = Wants()
        return found

    def read(
        self,
        state: tuple[int, int],
        kind: TypeStore,
        at: Position,
        request: WatchRequest,
        wants: Wants,
        definitions: bool,
    ) -> tuple[bytes | list[Change], int | None]:
        """Changes past a position as lines, and where to go on if that is not all.

        Very many that cannot be parted, as a whole cluster went, are returned as they are.
        """
        if state != self._at:
            self.clear()
            self._at = state
        key = (wants, at, definitions)
        made = self._made.get(key)
        if made is None:
            self.misses += 1
            found, upto = changes(kind, at, request.wanted, _READ_LIMIT, _READ_BYTES)
            if len(found) > 2 * _READ_LIMIT:
                return found, upto
            made = (request.encoder.events(found, definitions=definitions), upto)
            self.size += len(made[0])
            if self.size > _SHARED_BYTES:
                # What many want is wanted at the same time: it is made again at most once.
                self.clear()
                self.size = len(made[0])
            self._made[key] = made
        else:
            self.hits += 1
        return made

    def present(self, generation: int, kind: TypeStore, wanted: Filter) -> Present:
        """What there is now of a type, by cluster, namespace and name."""
        # A deletion that is forgotten leaves the order with the last index of an older state.
        key = (generation, kind.key, wanted, kind.order.last(), kind.forgotten)
        found = self._present.get(key)
        if found is None:
            found = self._present[key] = Present(kind.select(wanted))
        return found

    def clear(self) -> None:
        self._made.clear()
        self.size = 0


class Watches:
    """Serves watches from one materializer; `open` counts those under way."""

    def __init__(self, materializer: Materializer) -> None:
        self._materializer = materializer
        self._shared = Shared()
        self._closing = asyncio.Event()
        self._wakes: set[Callable[[], None]] = set()
        self.open = 0

    def close(self) -> None:
        """Ends all watches cleanly; their clients go on elsewhere from their versions."""
        self._closing.set()
        for wake in tuple(self._wakes):
            wake()

    async def serve(self, request: WatchRequest, send: Send) -> None:
        """Sends events until the time is over, the service closes or the history changes.

        `send` waits while the client cannot take more: that is all the back-pressure there is. Raises NotTaken if it
        still does when the time is over.
        """
        watch = _Watch(self._materializer, self._shared, self._closing, request, send)
        self.open += 1
        self._wakes.add(watch.wake)
        try:
            await watch.run()
        finally:
            self._wakes.discard(watch.wake)
            self.open -= 1
            if not self.open:
                self._shared.clear()


class _Watch:
    def __init__(
        self,
        materializer: Materializer,
        shared: Shared,
        closing: asyncio.Event,
        request: WatchRequest,
        send: Send,
    ) -> None:
        self._materializer = materializer
        self._shared = shared
        self._closing = closing
        self._request = request
        self._send = send
        self._generation = materializer.generation
        self._definitions = request.encoder.form is Form.TABLE
        self._start = request.start or from_now(materializer.store, request.wanted)
        self._cursor = self._start.cursor()
        self._shares = shared.those_who_want(request)
        self._loop = asyncio.get_running_loop()
        self._woken = False
        self._sleep: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        length = random.uniform(*_DEFAULT_TIMEOUT) if request.timeout is None else request.timeout
        self._deadline = self._loop.time() + length

    async def run(self) -> None:
        try:
            # A client that has fallen behind gets a proper end behind what it takes, if it takes it now.
            async with asyncio.timeout_at(self._deadline + _GRACE) as limit:
                await self._run()
        except _Over:
            pass
        except TimeoutError:
            if not limit.expired():
                raise
            raise NotTaken("the time of this watch is over") from None

    async def _run(self) -> None:
        request, loop, deadline = self._request, self._loop, self._deadline
        stop = self._materializer.listen(request.key, self.wake)
        try:
            if request.start is None:
                self._start = from_now(self._materializer.store, request.wanted)
                self._cursor = self._start.cursor()
                await self._present()
            elif self._start.backlog:
                await self._show(self._start.backlog)
            next_bookmark = self._next_bookmark(loop.time(), deadline)
            while not self._closing.is_set():
                self._woken = False
                if self._materializer.generation != self._generation:
                    await self._send(error_event(expired(str(HistoryReplaced()))))
                    return
                try:
                    await self._advance()
                except Expired as problem:
                    await self._send(error_event(expired(str(problem))))
                    return
                now = loop.time()
                if now >= deadline:
                    return
                if request.bookmarks and now >= next_bookmark:
                    await self._bookmark()
                    next_bookmark = self._next_bookmark(now, deadline)
                until = min(deadline, next_bookmark) if request.bookmarks else deadline
                if not self._woken:
                    await self._rest(until)
        finally:
            stop()
            if self._alarm is not None:
                self._alarm.cancel()

    def wake(self) -> None:
        """Has the watch look for what is new, and at the time."""
        self._woken = True
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    def _alarmed(self) -> None:
        self._alarm = None
        self.wake()

    async def _rest(self, until: float) -> None:
        """Returns when woken, or at `until`."""
        # A timer for each change would cost more than all else here; of one that was set for sooner nothing comes but
        # a look at the time.
        if self._alarm is not None and self._alarm.when() > until:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None:
            self._alarm = self._loop.call_at(until, self._alarmed)
        self._sleep = self._loop.create_future()
        try:
            await self._sleep
        finally:
            self._sleep = None

    @staticmethod
    def _next_bookmark(now: float, deadline: float) -> float:
        last = deadline - _BOOKMARK_BEFORE_END
        following = now + _BOOKMARK_EVERY * random.uniform(0.9, 1.1)
        return following if following < last or now >= last else last

    async def _present(self) -> None:
        """Sends the present state, in pieces."""
        request = self._request
        store = self._materializer.store
        index = store.applied
        kind = store.types.get(request.key)
        if kind is not None:
            await self._begin(self._shared.present(self._generation, kind, request.wanted))
        if request.mark_initial_end:
            version = request.encoder.versions.of_list(index)
            await self._send(request.encoder.bookmark(version, initial_events_end=True, definitions=self._definitions))
            self._definitions = False

    async def _begin(self, present: Present) -> None:
        """Sends ADDED events; no more of them are made than go out at once."""
        entries = present.entries
        for begin, end in _parts(len(entry.body) for entry in entries):
            await self._part([Change(ADDED, entry, entry.index) for entry in entries[begin:end]], first=not begin)

    async def _show(self, found: Sequence[Change]) -> None:
        for begin, end in _parts(len(change.entry.body) for change in found):
            await self._part(found[begin:end], first=not begin)

    async def _part(self, part: Sequence[Change], *, first: bool) -> None:
        if not first:
            await self._turn()
        await self._send(self._request.encoder.events(part, definitions=self._definitions))
        self._definitions = False

    async def _turn(self) -> None:
        """Lets others have theirs. Raises _Over if the time is over: between two events a watch may end."""
        await asyncio.sleep(0)
        if self._loop.time() >= self._deadline:
            raise _Over

    async def _advance(self) -> None:
        """Sends what lies past the cursor."""
        cursor = self._cursor
        while True:
            store = self._materializer.store
            if self._materializer.generation != self._generation:
                return
            kind = unread(store, self._request.key, self._start, cursor)
            if kind is None:
                return
            state = (self._generation, store.applied)
            payload, upto = self._shared.read(
                state, kind, cursor.position(kind), self._request, self._shares, self._definitions
            )
            cursor.advance(store, upto)
            if isinstance(payload, list):
                await self._show(payload)
            elif payload:
                self._definitions = False
                await self._send(payload)
            if upto is None:
                return
            # One that has much to read, and can take it all, must not keep the others waiting.
            await self._turn()

    async def _bookmark(self) -> None:
        store = self._materializer.store
        after = self._cursor.read_to
        # Nothing to send means that everything up to the applied index was seen, whatever it was about.
        if self._materializer.outage() is None and store.applied == after:
            encoder = self._request.encoder
            await self._send(encoder.bookmark(encoder.versions.of_list(after), definitions=self._definitions))
            self._definitions = False


def _parts(sizes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Begin and end of runs that can be encoded and held at one go, by the bytes of their bodies."""
    begin, end, held = 0, 0, 0
    for size in sizes:
        end += 1
        held += size
        if held >= _READ_BYTES or end - begin >= _READ_LIMIT:
            yield begin, end
            begin, held = end, 0
    if begin < end:
        yield begin, end


def error_event(error: ApiError) -> bytes:
    """An error found after the watch began, as its last event."""
    return b'{"type":"ERROR","object":%b}\n' % msgspec.json.encode(error.status())
