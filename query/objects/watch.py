"""One watch: reads from its position in the index order when its client can take more; no queue.

Kubernetes API Concepts, "Efficient detection of changes" and "Watch bookmarks"; KEP-956, KEP-3157 (watch-list).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from deltalog.wire.delta import ADDED
from deltalog.wire.kubernetes import GroupResource
from materializer.cursor import ShownChange
from materializer.filter import BodyCondition, Filter
from materializer.materializer import Materializer
from materializer.resume import Expired, HistoryReplaced, Resumption, from_now, unread
from query.access.gate import Permit
from query.discovery.followed import Followed, SeveralFollowed, TypeChange
from query.errors import QueryError
from query.http.accept import Form
from query.http.status import ApiError, expired
from query.http.websocket import Send
from query.objects.representations import Encoder
from query.objects.shared_events import READ_BYTES, READ_LIMIT, InitialState, SharedEvents
from query.objects.turns import in_slices
from query.search.where import chosen_by
from query.timing import QueryTiming


@dataclass(frozen=True, slots=True)
class WatchedType:
    """One of several types that are watched, and what of it."""

    key: GroupResource
    selection: Filter


@dataclass(frozen=True, slots=True)
class WatchStart:
    """What to watch and from where.

    `followed`: the type as it was served when the watch was asked for. `resumption` None: the initial state first,
    whose end is marked if there are to be bookmarks. `begins_at`: the version at which `resumption` begins. `timeout`
    in seconds, None for one that is chosen. `permit`: that its user may see what they did when it was asked for.
    `parts`: of a watch of a collection, its types; None: it is one of `key`.
    """

    key: GroupResource
    selection: Filter
    encoder: Encoder
    followed: Followed | SeveralFollowed
    resumption: Resumption | None
    bookmarks: bool
    begins_at: str
    timeout: float | None
    permit: Permit | None = None
    parts: tuple[WatchedType, ...] | None = None


class ClientStalled(QueryError):
    """The time of a watch is over, but its client does not take what was sent before."""


OTHER_SIGHT = "what may be seen has changed: list again"
"""What a watch ends with whose user comes to see more or less."""


class _TimeOver(Exception):
    """The time of a watch is over."""


class WatchStream:
    """One watcher. `wake` has it look for changes; it is to be called when `closing` is set, too."""

    def __init__(
        self,
        materializer: Materializer,
        shared: SharedEvents,
        closing: asyncio.Event,
        start: WatchStart,
        send: Send,
        timing: QueryTiming,
        turns: asyncio.Lock,
    ) -> None:
        self._materializer = materializer
        self._shared = shared
        self._closing = closing
        self._start = start
        self._send = send
        self._timing = timing
        self._turns = turns
        self._generation = materializer.generation
        # The last control record by which a type may have come, changed or gone: as of the last look at `followed`.
        self._catalogue = -1
        # Whether the next table is to tell its columns: the first one.
        self._definitions = start.encoder.form is Form.TABLE
        self._resumption = start.resumption or from_now(materializer.store, start.selection)
        self._cursor = self._resumption.cursor()
        self._key = shared.key((start.key, start.selection, start.parts), start.encoder)
        self._loop = asyncio.get_running_loop()
        self._woken = False
        self._sleep: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        length = random.uniform(*timing.watch_length) if start.timeout is None else start.timeout
        self.deadline = self._loop.time() + length
        if start.permit is not None:
            start.permit.on_end = self.wake

    async def run(self) -> None:
        """Sends events until the time is over (`deadline`, in the loop's time), `closing` is set or the watch expires.

        Or what it follows goes, or changes its versions: then it ends without an error, as at a kube-apiserver.

        Raises:
            ClientStalled: the client takes nothing though the time is over.
            ConnectionError: the client is gone.
        """
        try:
            # A client that has fallen behind gets a proper end behind what it takes, if it takes it now.
            async with asyncio.timeout_at(self.deadline + self._timing.watch_grace) as limit:
                await self._run()
        except _TimeOver:
            pass
        except TimeoutError:
            if not limit.expired():
                raise
            raise ClientStalled("the time of this watch is over") from None

    async def _run(self) -> None:
        start, loop, deadline = self._start, self._loop, self.deadline
        stop = self._listen()
        try:
            if start.resumption is None:
                self._resumption = from_now(self._materializer.store, start.selection)
                self._cursor = self._resumption.cursor()
                await self._send_initial()
            else:
                if self._resumption.backlog:
                    await self._send_changes(self._resumption.backlog)
                if start.bookmarks:
                    # To client-go a watch that was cut in its first second, without an event, is a failed one, after
                    # which it lists again (reflector.go: "very short watch").
                    await self._send_bookmark(start.begins_at)
            next_bookmark = self._next_bookmark(loop.time(), deadline)
            while not self._closing.is_set():
                self._woken = False
                if self._materializer.generation != self._generation:
                    raise HistoryReplaced
                if start.permit is not None and start.permit.ended:
                    raise Expired(OTHER_SIGHT)
                if (change := self._change()) is TypeChange.OTHER:
                    # The client goes on from its version, as far as there is something to go on with.
                    return
                await self._advance()
                if change is TypeChange.GONE:
                    # What it had was deleted, which was shown.
                    return
                now = loop.time()
                if now >= deadline:
                    return
                if start.bookmarks and now >= next_bookmark:
                    await self._bookmark()
                    next_bookmark = self._next_bookmark(now, deadline)
                until = min(deadline, next_bookmark) if start.bookmarks else deadline
                if not self._woken:
                    await self._rest(until)
        except Expired as problem:
            await self._send(error_event(expired(str(problem))))
        finally:
            stop()
            if self._alarm is not None:
                self._alarm.cancel()

    def _listen(self) -> Callable[[], None]:
        """Has it woken by what it may have to show; returns what ends that."""
        return self._materializer.listen(self._start.key, self.wake)

    def _change(self) -> TypeChange:
        """What has become of the type that is followed. O(1)."""
        catalogue = self._materializer.store.catalogue
        if catalogue == self._catalogue:
            return TypeChange.NONE
        change = self._start.followed.change()
        if change is TypeChange.NONE:
            self._catalogue = catalogue
        return change

    def wake(self) -> None:
        """Has the watch look for changes, and at the time."""
        self._woken = True
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    def _alarmed(self) -> None:
        self._alarm = None
        self.wake()

    async def _rest(self, until: float) -> None:
        """Returns when woken, or at `until`."""
        # A timer for each change would cost more than everything else here. One that was set for a sooner time only
        # causes a look at the time.
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

    def _next_bookmark(self, now: float, deadline: float) -> float:
        last = deadline - self._timing.bookmark_before_end
        following = now + self._timing.bookmark_every * random.uniform(0.9, 1.1)
        return following if following < last or now >= last else last

    async def _send_initial(self) -> None:
        """Sends the present state, in pieces, and the bookmark that marks its end."""
        start = self._start
        store = self._materializer.store
        index = store.applied
        type_store = store.types.get(start.key)
        if type_store is not None:
            state = self._shared.initial(self._generation, type_store, start.selection)
            await in_slices(self._turns, state.steps())
            await self._send_added(state, start.selection.where)
        if start.bookmarks:
            await self._send_bookmark(start.encoder.versions.of_list(index), initial_events_end=True)

    async def _send_added(self, state: InitialState, where: BodyCondition | None) -> None:
        """Sends ADDED events; no more of them are encoded than are sent at one go."""
        entries = state.entries
        for begin, end in _parts(entry.size for entry in entries):
            found = entries[begin:end]
            if where is not None:
                found = await in_slices(self._turns, chosen_by(where, found)) or []
            part = [ShownChange(ADDED, entry, entry.index) for entry in found]
            await self._send_part(part, first=not begin)

    async def _send_changes(self, found: Sequence[ShownChange]) -> None:
        for begin, end in _parts(change.entry.size for change in found):
            await self._send_part(found[begin:end], first=not begin)

    async def _send_part(self, part: Sequence[ShownChange], *, first: bool) -> None:
        if not first:
            await self._yield()
        await self._send(self._start.encoder.events(part, definitions=self._definitions))
        self._definitions = False

    async def _yield(self) -> None:
        """Lets other tasks run. Raises _TimeOver if the time is over: between two events a watch may end."""
        await asyncio.sleep(0)
        if self._loop.time() >= self.deadline:
            raise _TimeOver

    async def _advance(self) -> None:
        """Sends what lies past the cursor. Raises Expired."""
        while (found := self._read()) is not None:
            payload, upto = found
            self._cursor.advance(self._materializer.store, upto)
            if isinstance(payload, list):
                await self._send_changes(payload)
            elif payload:
                self._definitions = False
                await self._send(payload)
            if upto is None:
                return
            # One that has much to read, and can take it all, must not keep the others waiting.
            await self._yield()

    def _read(self) -> tuple[bytes | list[ShownChange], int | None] | None:
        """What lies past the cursor, as `SharedEvents.read` has it; None: nothing. Raises Expired."""
        start, cursor = self._start, self._cursor
        store = self._materializer.store
        if self._materializer.generation != self._generation:
            return None
        type_store = unread(store, start.key, self._resumption, cursor)
        if type_store is None:
            return None
        return self._shared.read(
            (self._generation, store.applied),
            type_store,
            cursor.position(type_store),
            start.selection,
            start.encoder,
            self._key,
            self._definitions,
        )

    async def _bookmark(self) -> None:
        store = self._materializer.store
        read_to = self._cursor.read_to
        # With nothing to send everything up to the applied index was shown, of whatever type it was.
        if self._materializer.outage_seconds() is None and store.applied == read_to:
            await self._send_bookmark(self._start.encoder.versions.of_list(read_to))

    async def _send_bookmark(self, version: str, *, initial_events_end: bool = False) -> None:
        bookmark = self._start.encoder.bookmark(
            version, initial_events_end=initial_events_end, definitions=self._definitions
        )
        self._definitions = False
        await self._send(bookmark)


def _parts(sizes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Begin and end of runs that can be encoded and held at one go, by the bytes of their bodies."""
    begin, end, held = 0, 0, 0
    for size in sizes:
        end += 1
        held += size
        if held >= READ_BYTES or end - begin >= READ_LIMIT:
            yield begin, end
            begin, held = end, 0
    if begin < end:
        yield begin, end


def error_event(error: ApiError) -> bytes:
    """An error that is found after the watch began, as its last event (a line with a Status of failure)."""
    return b'{"type":"ERROR","object":%b}\n' % msgspec.json.encode(error.status())
