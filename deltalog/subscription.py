"""Subscribing to the log: typed deltas in order, from any place, for consumers that are programs of their own.

    async with subscribe("nats://127.0.0.1:4222", type="pods", labels="app=web", start="beginning") as subscription:
        async for event in subscription:
            match event:
                case Change():
                    print(event.sequence, event.type, event.delta.cluster, event.object["metadata"]["name"])
                case Removed():
                    print(event.sequence, "all of", event.cluster, event.resource, "has gone")

`docs/consumers.md` says in plain words what is guaranteed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import msgspec
import structlog

from deltalog.bounded_queue import READ_AHEAD, BoundedQueue
from deltalog.durable import Durable
from deltalog.events import Bookmark, Change, Event, Removed
from deltalog.jetstream.access import Access
from deltalog.jetstream.backoff import Backoff
from deltalog.jetstream.connection import BrokerUnavailable, Connection, JetStreamRefused, connect
from deltalog.jetstream.opening import LogSettings, open_log
from deltalog.jetstream.same_history import Progress, why_another
from deltalog.jetstream.stream import STREAM_NOT_FOUND, Log, LogError
from deltalog.jetstream.stream_info import StreamState
from deltalog.place import BEGINNING, NOW, Forgotten, Place, Start, locate, nothing_forgotten, same_history
from deltalog.reader import WHOLE_STATE, HistoryChanged, Reader, Record
from deltalog.shown import Shown
from deltalog.timing import DEFAULT_TIMING, LogTiming
from deltalog.wire.delta import Delta, UnreadableRecord, decode_delta
from deltalog.wire.errors import HistoryEnded, LogUnavailable
from deltalog.wire.parts import complete
from deltalog.wire.records import decode_control
from deltalog.wire.selection import Selection, select
from deltalog.wire.subjects import OBJECTS, REMOVED

log = structlog.get_logger("deltalog.subscription")

_MARKER_HEADER = "Nats-Marker-Reason"
# Events handed out in one go before the rest of the process runs.
_SLICE = 64


class StreamGone(LogError, HistoryEnded):
    """The log's stream was deleted while it was read."""


class _Item(msgspec.Struct, frozen=True, gc=False):
    """A message that waits for the consumer. `last`: nothing selected lay behind it. Without record: caught up."""

    record: Record | None
    last: bool = False


class Subscription:
    """An open subscription; iterate over it in one task. `place` is that of the last event handed out.

    Within the log's window every change is handed out, else the latest of each object first: `compacted_through`.

    Ends with what cannot be mended by reading on: HistoryChanged, Forgotten, StreamGone, TakenOver. A message that
    cannot be read raises UnreadableRecord; iterating again goes on behind it. When NATS is away it waits.
    """

    def __init__(
        self,
        source: str | Connection | Log,
        stream: str,
        selection: Selection,
        start: Start,
        durable: str | None,
        *,
        reset: bool,
        fresh: bool,
        bookmarks: bool,
        access: Access | None,
        read_ahead: int,
        timing: LogTiming,
    ) -> None:
        self.selection = selection
        self.log: Log
        self.place = Place("", 0)
        self.start = self.place
        self._source = source
        self._access = access
        self._stream = stream
        self._wanted = start
        self._name = durable
        self._from_beginning = False
        self._resuming = True
        self._reset = reset
        self._fresh = fresh
        self._bookmarks = bookmarks
        self._connection: Connection | None = None
        self._durable: Durable | None = None
        self._reader: Reader
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._read_ahead = read_ahead
        self._timing = timing
        self._queue: BoundedQueue[_Item]
        self._handed = 0
        # The last event that a consumer would acknowledge.
        self._due = 0
        self._shown: Shown
        # By the server's clock: when nothing lay behind what was read.
        self._current_at = 0
        self._out = False

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()

    async def _open(self) -> None:
        if isinstance(self._source, Log):
            self.log = self._source
        else:
            connection = self._source
            if isinstance(connection, str):
                self._connection = connection = await connect(
                    connection, name=f"kubebraid-{self._name or 'subscribe'}", access=self._access
                )
            self.log = await open_log(connection, LogSettings(name=self._stream), make=False)
        try:
            state = await self.log.state()
            await self._begin(state)
        except JetStreamRefused as refused:
            raise LogError(f"stream {self.log.name}: {refused.description}") from refused
        self._reader = Reader(
            self.log,
            self._take,
            after=self.start.sequence,
            subjects=self._subjects(),
            # From the beginning: what there is, and not how it came to be.
            state_to=WHOLE_STATE if self._from_beginning else 0,
            fresh=not self._resuming,
            timing=self._timing,
        )
        if self.start.time:
            self._reader.begin_at(Progress(self.start.sequence, self.start.time, self.start.time))
        self._queue = BoundedQueue(self._reader.pause, self._reader.resume, limit=self._read_ahead)
        self._current_at = self.log.now()
        for part in (self._read, self._look, self._catch_up):
            task = asyncio.create_task(part(), name=f"subscription-{part.__name__}")
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    def _subjects(self) -> list[str]:
        return [*self.selection.subjects(), *self.selection.controls()]

    async def _begin(self, state: StreamState) -> None:
        """Finds out where to begin, and what is known there."""
        kept: Place | None = None
        if self._name is not None:
            self._durable = Durable(self.log, self._name, str(self.selection))
            kept = await self._durable.open(reset=self._reset)
        if kept is not None:
            await same_history(self.log, kept, state)
            await nothing_forgotten(self.log, kept, state)
            self.start, resuming = kept, True
        else:
            self.start, resuming = await locate(self.log, self._wanted, state, fresh=self._fresh)
            self._from_beginning = self._wanted == BEGINNING
            if not self.start.prefix:
                self.start = Place(self.log.prefix, self.start.sequence, self.start.time)
            if self._durable is not None:
                # A consumer that ends before its first acknowledgement begins here again, and not where now is then.
                await self._durable.begin(self.start)
        self.place = self.start
        self._resuming = resuming
        self._shown = Shown(self.selection, self.start.sequence)
        if self.selection.labels and self.start.sequence:
            await self._survey(resuming)

    async def _survey(self, resuming: bool) -> None:
        """Learns what the labels selected at the beginning, so that it can be said when something leaves.

        What changed since cannot be known; it matters only to a consumer that knew it. O(selected subjects).
        """

        def note(record: Record) -> None:
            if not record.data:
                return
            try:
                if not self.selection.takes(record.subject):
                    return
                delta = decode_delta(record.data)
            except (UnreadableRecord, ValueError):
                return
            self._shown.survey(record.sequence, record.subject, delta, resuming=resuming)

        reader = Reader(
            self.log,
            note,
            subjects=self.selection.subjects(),
            stop_when_caught_up=True,
            state_to=WHOLE_STATE,
            timing=self._timing,
        )
        await reader.run()

    # -- reading -----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        await self._reader.run(self._outage)

    def _outage(self, out: bool) -> None:
        self._out = out

    async def _catch_up(self) -> None:
        await self._reader.caught_up.wait()
        self._queue.put(_Item(None), 0)

    def _take(self, record: Record) -> None:
        last = self._reader.pending == 0
        if last:
            self._current_at = self.log.now()
        self._queue.put(_Item(record, last), len(record.data))

    async def _look(self) -> None:
        """Looks from time to time whether this is still the log, and this process the durable consumer."""
        while True:
            await asyncio.sleep(self._timing.look_every * random.uniform(0.8, 1.2))
            read = self._reader.position
            try:
                state = await self.log.state_read_to(read)
                if self._durable is not None:
                    await self._durable.still_ours()
                    await self._acknowledge_quiet()
            except JetStreamRefused as refused:
                if refused.code == STREAM_NOT_FOUND:
                    raise StreamGone(
                        f"stream {self.log.name} was deleted; read from the beginning once there is another one"
                    ) from None
                log.debug("the log cannot be looked at", reason=str(refused))
                continue
            except BrokerUnavailable as cause:
                log.debug("the log cannot be looked at", reason=str(cause))
                continue
            if (reason := why_another(self.log.name, state, self.log.identity, read)) is not None:
                raise HistoryChanged(reason)
            behind = self._out or self._queue.paused or self._reader.pending
            if self._reader.caught_up.is_set() and not behind:
                self._current_at = self.log.now()
            elif self.log.now() - self._current_at > self.log.tombstone_ttl * 1_000_000_000:
                raise Forgotten(
                    f"reading lags behind by more than {self.log.tombstone_ttl} s, for which deletions are kept: "
                    "read from the beginning, and drop what does not come"
                )

    async def _acknowledge_quiet(self) -> None:
        """What needs no acknowledgement counts as acknowledged, so that a quiet consumer doesn't fall behind."""
        assert self._durable is not None
        assert self._durable.place is not None
        if self._due <= self._durable.place.sequence:
            await self._durable.acknowledge(self.place)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            if self._failure is None:
                self._failure = failure
            self._queue.wake()

    @property
    def compacted_through(self) -> int:
        """Up to this sequence only the last change of each object was, or will be, handed out; past it every one.

        0: every change past `start` is. The log keeps all of them for a window (an hour, by default); a subscription
        that begins before that, at the beginning too, or falls back behind it, gets the state first.
        """
        return self._reader.compacted_through

    @property
    def waiting(self) -> int:
        """Messages that have been read and wait to be handed out."""
        return len(self._queue)

    # -- handing out -------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while True:
            if self._failure is not None:
                raise self._failure
            if not self._queue:
                await self._queue.wait()
                continue
            self._handed += 1
            if not self._handed % _SLICE:
                # A consumer that never waits must not keep the connection from being served.
                await asyncio.sleep(0)
            event = await self._event(self._queue.take())
            if event is not None and (self._bookmarks or not isinstance(event, Bookmark)):
                return event

    async def _event(self, item: _Item) -> Event | None:
        """What a message says to the consumer, if anything; moves the place. Raises UnreadableRecord."""
        record = item.record
        if record is None:
            return Bookmark(self.place.sequence, self.place.time, self.log.prefix, caught_up=True)
        event: Event | None
        try:
            if not record.data and _MARKER_HEADER in record.headers:
                event = None
            elif record.subject.startswith(f"{OBJECTS}."):
                event = await self._change(record)
            else:
                event = self._control(record, quiet=not self._queue)
        except UnreadableRecord as problem:
            self._due = record.sequence
            raise UnreadableRecord(f"message {record.sequence} ({record.subject}): {problem}") from problem
        finally:
            self.place = Place(self.log.prefix, record.sequence, record.time)
            if item.last:
                self._shown.complete(record.sequence)
        if isinstance(event, Change | Removed):
            self._due = event.sequence
        return event

    def _control(self, record: Record, *, quiet: bool) -> Event | None:
        if record.subject.split(".", 3)[2] != REMOVED:
            return Bookmark(record.sequence, record.time, self.log.prefix) if quiet else None
        control = decode_control(record.data)
        cluster, (group, resource) = control.cluster, control.resource or ("", "")
        if not self.selection.takes_removal(cluster, group, resource):
            return None
        self._shown.removed(record.subject)
        return Removed(record.sequence, record.time, self.log.prefix, cluster, group, resource)

    async def _change(self, record: Record) -> Change | None:
        try:
            if not self.selection.takes(record.subject):
                return None
        except ValueError as cause:
            raise UnreadableRecord(str(cause)) from None
        delta = decode_delta(record.data)
        self._shown.compacted_through = self._reader.compacted_through
        showing = self._shown.showing(record.sequence, record.subject, delta)
        if showing is None:
            return None
        whole = await self._whole(delta, record)
        if whole is None:
            return None
        return Change(showing.type, record.sequence, record.time, self.log.prefix, whole, showing.left)

    async def _whole(self, delta: Delta, record: Record) -> Delta | None:
        """The delta with its object complete; None if it was superseded meanwhile. Raises UnreadableRecord."""
        pieces: list[bytes] = []
        for sequence in delta.parts:
            piece = await self._patiently(sequence)
            if piece is None:
                last = await self.log.last(record.subject)
                if last is None or last[0] > record.sequence:
                    # Parts are purged only when a newer state is in the log: it is on its way here.
                    return None
                raise UnreadableRecord(f"part {sequence} is not in the log")
            pieces.append(piece)
        return complete(delta, pieces)

    async def _patiently(self, sequence: int) -> bytes | None:
        """A message of the log, however long it takes to get it."""
        backoff = Backoff(*self._timing.read_again)
        while True:
            try:
                return await self.log.message(sequence)
            except LogUnavailable:
                if self._failure is not None:
                    raise self._failure from None
            await backoff.wait()

    # -- acknowledging -----------------------------------------------------------------------------------------------

    async def ack(self, event: Event) -> None:
        """Of a durable one: everything up to this event is done with, and never comes again once this returns.

        It stands for all events before, too; so acknowledging every hundredth costs a hundredth. Raises TakenOver,
        BrokerUnavailable (then it may come again).
        """
        if self._durable is None:
            raise TypeError("only a durable subscription has acknowledgements: subscribe(..., durable=NAME)")
        await self._durable.acknowledge(event.place)


def subscribe(
    source: str | Connection | Log,
    *,
    stream: str = "KUBEBRAID",
    cluster: str | Iterable[str] | None = None,
    type: str | Iterable[str] | None = None,
    namespace: str | Iterable[str] | None = None,
    name: str | Iterable[str] | None = None,
    labels: str = "",
    start: Start = NOW,
    durable: str | None = None,
    reset: bool = False,
    fresh: bool = False,
    bookmarks: bool = False,
    access: Access | None = None,
    read_ahead: int = READ_AHEAD,
    timing: LogTiming = DEFAULT_TIMING,
) -> Subscription:
    """Subscribes to changes of objects: an async context manager to iterate over, of Change, Removed and Bookmark.

    - `source`: the URL of a NATS, or a connection or log that stays open as long.
    - `cluster`, `type` (`pods`, `deployments.apps`, `*.apps`), `namespace` (empty: objects without one), `name`: one
      or several; the server sends no others. `labels`: a label selector, for which all of these are sent.
    - `start`: `now`; `beginning`: what is there, then what happens; a sequence, a resourceVersion or the `place` of an
      event: what happened since; a datetime: what happened since then. As far as the log's window reaches back that is
      every change; from before it the latest of each object, then every one (`Subscription.compacted_through`).
    - `durable`: the name under which NATS keeps what was acknowledged (`ack`). From then on that is the start, unless
      `reset`. One process goes on with it at a time: the last one that opened it.
    - `fresh`: the consumer holds nothing from before `start`, so it doesn't matter whether deletions were forgotten,
      and of objects that leave the labels' selection only those that were shown come as DELETED.
    - `bookmarks`: also tell when the subscription has caught up, and how far it is when nothing happens.
    - `access`: as whom and over what TLS to connect to a URL, if that does not say it.
    - `read_ahead`: how many messages may wait to be handed out before the server is asked to stop sending.
    - `timing`: how long is waited for what.

    Opening raises BadAccess, BrokerUnavailable, LogError (no such stream), BadPlace, BadDurable, HistoryChanged (a
    place of another history), Forgotten (deletions since may be missing). Raises BadSelection at once.
    """
    selection = select(cluster=cluster, type=type, namespace=namespace, name=name, labels=labels)
    return Subscription(
        source,
        stream,
        selection,
        start,
        durable,
        reset=reset,
        fresh=fresh,
        bookmarks=bookmarks,
        access=access,
        read_ahead=read_ahead,
        timing=timing,
    )
