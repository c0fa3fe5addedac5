"""The materializer: keeps one store current from one log, and tells who waits for it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from deltalog.handover import Offer, hand_over
from deltalog.history import History, Mark
from deltalog.jetstream.connection import BrokerUnavailable
from deltalog.jetstream.same_history import Progress, why_another
from deltalog.jetstream.stream import Log, StreamState, nanoseconds
from deltalog.reader import HistoryChanged, Reader, Record
from deltalog.wire.delta import SharingDecoder, UnreadableRecord
from deltalog.wire.errors import LogUnavailable
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.parts import Assembler
from deltalog.wire.records import decode_control
from deltalog.wire.subjects import CONTROL, PARTS
from materializer.cluster_facts import Cluster
from materializer.image import Image
from materializer.integrity import Census
from materializer.snapshot import Restored, Snapshots, too_old
from materializer.store import Store

log = structlog.get_logger("materializer")

_CONTROL_PREFIX = CONTROL + "."
_PARTS_PREFIX = PARTS + "."
_MARKER_HEADER = "Nats-Marker-Reason"
# How often tombstones are looked through for expired ones, in seconds.
_FORGET_EVERY = 5.0
# How often the log is asked whether it is still the same, and what was served from it is noted beside it, in seconds.
_LOOK_EVERY = 5.0
_AUDIT_PATIENCE = 10.0
# To write one event to each of many watchers costs almost as much as to write several, so where telling them takes
# its time, they are told again after so many times that time: what changes meanwhile goes out together. In seconds, at
# least (timers have milliseconds) and at most.
_REST = 2.0
_SHORTEST_REST, _LONGEST_REST = 0.002, 0.02
# Seconds without a word of the log, which has a heartbeat of 2 s, and of a mirror's origin, which is looked at that
# often.
_UNHEARD = 7.0
_ORIGIN_UNHEARD = 12.0
_LAST_MARK = 1.0
# How long the last snapshot may take, in seconds.
_LAST_SNAPSHOT = 12.0


class LogUnreachable(Exception):
    """The log's head cannot be asked for: what memory holds may be old. `age`: seconds since it was current."""

    def __init__(self, age: float) -> None:
        super().__init__(f"the log cannot be reached; this state is {age:.0f} s old")
        self.age = age


class NotThereYet(Exception):
    """The index asked for was not applied within the time allowed."""


class _Forgotten(HistoryChanged):
    """The history is the same, but what is known of it here is not enough to go on."""


class Away(NamedTuple):
    """What there is of a log while NATS is away: a snapshot, and how to wait until the log can be opened.

    `open` returns it, with its history, whatever it is by then; what it raises, `Materializer.run` raises.
    """

    restored: Restored
    open: Callable[[], Awaitable[tuple[Log, History]]]


class Materializer:
    """One store and the task that feeds it.

    `store` is replaced as a whole when the history changes; whoever holds the old one finds `expired` set on
    its generation. `ready` is set when the log was replayed to the head it had at the start; where the store comes from
    a snapshot, also the log was found to hold what it has to. Unless the log is `away`: then what the snapshot holds is
    served, as of its time, until the log can be read, and goes on from there if that proves to be the same one.
    """

    def __init__(
        self,
        log: Log,
        history: History | None = None,
        snapshots: Snapshots | None = None,
        away: Away | None = None,
    ) -> None:
        self.log = log
        self._away = away
        self.history = history or History(log)
        self.snapshots = snapshots
        self.store = Store(log.prefix, log.tombstone_ttl)
        self._census = Census(self.store)
        self._identity = log.identity
        # What was marked last (index, floor), and up to where deletions are known to be lost.
        self._marked = (0, 0)
        self._floor = 0
        self._look = asyncio.Event()
        # Of a store from a snapshot: what the header says of it, until the log was found to hold what it has to.
        self._unproved: Restored | None = None
        # Whether what is served is a snapshot's, and not known to be the log's.
        self._alone = False
        self._proved = asyncio.Event()
        self._latest = 0
        self._imaging = False
        self._ended = False
        self.ready = asyncio.Event()
        self._assembler = Assembler()
        self._decoder = SharingDecoder()
        self._reader: Reader | None = None
        self.generation = 0
        self.replayed = 0
        self.unreadable = 0
        self._unreadable_since: float | None = None
        # When a consistent read was one; when the origin of a mirror was last heard of there (time.monotonic).
        self._current_at = self._origin_heard = time.monotonic()
        self._listeners: dict[GroupResource, set[Callable[[], None]]] = {}
        self._waiting: set[tuple[int, asyncio.Future[None]]] = set()
        self._flush_due = False
        # When listeners may be told again (time.perf_counter), and what will tell them then.
        self._rested_at = 0.0
        self._telling: asyncio.TimerHandle | None = None
        self._controls = (0, 0)
        self._control_event = asyncio.Event()
        self._head_lock = asyncio.Lock()
        self._head_question: asyncio.Task[int] | None = None

    @property
    def proven(self) -> bool:
        """Whether what is served is known to be what the log has held, and no more what a snapshot alone says."""
        return self._unproved is None

    async def run(self) -> None:
        """Replays and follows the log until cancelled."""
        try:
            if self._away is not None:
                await self._serve_until_there(self._away)
            await self._recall()
            if self._unproved is None:
                await self._restore()
            elif too_old(self.log, self._unproved.current):
                # Before anything is read: what was deleted meanwhile would be served as if it lived.
                log.warning("deletions since the snapshot may have been forgotten: starting anew")
                await self._start_anew(rotate=False)
            self._unreadable_since = None
            await self._follow()
        except asyncio.CancelledError:
            await self._mark_the_end()
            self._ended = True
            raise

    def age(self) -> float:
        """Seconds since it was known that all of the log is here; a few seconds where all is well."""
        heard = self._current_at if self._reader is None or self._alone else self._reader.heard
        if self.log.mirror:
            heard = min(heard, self._origin_heard)
        return time.monotonic() - max(heard, self._current_at)

    def outage(self) -> float | None:
        """`age`, if the log cannot be read, or a mirror does not hear of its origin; None if all is well."""
        now = time.monotonic()
        silent = self._reader is not None and now - self._reader.heard > _UNHEARD
        cut = self.log.mirror and now - self._origin_heard > _ORIGIN_UNHEARD
        out = self._unreadable_since is not None or self._alone
        return self.age() if out or silent or cut else None

    async def close(self) -> None:
        """After `run` was cancelled: keeps a snapshot of where it ended, for the next start."""
        if self._ended:
            try:
                async with asyncio.timeout(_LAST_SNAPSHOT):
                    await self.save()
            except TimeoutError:
                log.warning("the last snapshot took too long", seconds=_LAST_SNAPSHOT)

    async def _follow(self) -> None:
        while True:
            point = Progress(self.store.applied, self.store.applied_time, self._latest)
            reader = self._reader = Reader(self.log, self._apply, after=point)
            following = asyncio.create_task(reader.run(self._outage), name="materializer-following")
            looking = asyncio.create_task(self._watch_history(reader), name="materializer-history")
            loading = asyncio.create_task(self._finish_loading(reader), name="materializer-loading")
            forgetting = asyncio.create_task(self._forget(), name="materializer-forgetting")
            saving = asyncio.create_task(self._save_regularly(), name="materializer-saving")
            tasks = (following, looking, loading, forgetting, saving)
            try:
                done, _ = await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            except HistoryChanged as change:
                log.warning("the history changed: starting anew", reason=str(change), prefix=self.store.prefix)
                rotate = not isinstance(change, _Forgotten)
                # Whoever found it out could read the log. The reader, if it was another task, has not said so, and the
                # next one says only what changes from now on.
                self._unreadable_since = None
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await self._start_anew(rotate=rotate)

    # -- the history -----------------------------------------------------------------------------------------------

    async def _recall(self) -> None:
        """At the start: whether the log is what others have served before under its name."""
        while True:
            try:
                reason = await self.history.why_not_served()
                for mark in await self.history.marks():
                    if (mark.created, mark.prefix) == self._identity:
                        self._floor = max(self._floor, mark.floor)
                break
            except BrokerUnavailable as cause:
                log.warning("the log cannot be read", reason=str(cause))
                await asyncio.sleep(1.0)
            except LogUnavailable as cause:
                log.error("nobody can say whether this history was served before", reason=str(cause))
                return
        if reason is not None:
            log.warning("not the history that was served before: starting anew", reason=reason, prefix=self.log.prefix)
            await self._start_anew(rotate=True)

    async def _start_anew(self, *, rotate: bool) -> None:
        said = ""
        while rotate:
            try:
                await self.history.rotate(self.store.prefix)
                break
            except LogUnavailable as cause:
                if said != str(cause):
                    said = str(cause)
                    log.warning("the history cannot be renamed", reason=said)
                await asyncio.sleep(1.0)
        self.ready.clear()
        self.store = Store(self.log.prefix, self.log.tombstone_ttl)
        self._census = Census(self.store)
        self._identity = self.log.identity
        self._marked = (0, 0)
        self._floor = 0 if rotate else self._floor
        self._assembler = Assembler()
        self._unproved, self._latest, self._alone = None, 0, False
        self.generation += 1
        log.info("new history" if rotate else "reading the history anew", prefix=self.log.prefix)
        for listeners in list(self._listeners.values()):
            for wake in list(listeners):
                wake()

    async def _watch_history(self, reader: Reader) -> None:
        """Looks from time to time, and when there is a reason to, whether the log is still what was read of it.

        Raises HistoryChanged.
        """
        while True:
            try:
                async with asyncio.timeout(_LOOK_EVERY * random.uniform(0.8, 1.2)):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            try:
                applied = reader.position
                state = await self.log.state()
                if self.log.mirror:
                    self._origin_heard = time.monotonic() - state.silent
                    if state.last_sequence < applied and state.prefix == self._identity.prefix:
                        # It was made anew and is being filled.
                        continue
                if (other := self._another(state, applied)) is not None:
                    raise HistoryChanged(other)
                if self.log.mirror and (other := self._another(await self.log.origin_state(), applied)) is not None:
                    raise HistoryChanged(f"of the mirrored stream, {other}")
                if self._unproved is not None and reader.caught_up.is_set():
                    await self._prove(self._unproved, state)
                elif self.ready.is_set() and self._unproved is None:
                    self._census.compare(state, self.log.now())
                    if self._census.suspicious:
                        await self._audit()
                    await self._mark(reader)
            except (LogUnavailable, NotThereYet) as cause:
                # The reader says so, too, and looks at the history when it can read again.
                log.debug("the history cannot be looked at", reason=str(cause))

    def _another(self, state: StreamState, applied: int) -> str | None:
        """Why a stream that is so, asked for when `applied` was, is not the one that is read here."""
        return why_another(self.log.name, state, self._identity, applied)

    async def _audit(self) -> None:
        missing = await self._census.audit(self.log, lambda index: self.wait_applied(index, _AUDIT_PATIENCE))
        if missing.living:
            few = ", ".join(missing.living[:3])
            raise HistoryChanged(f"{len(missing.living)} messages were cut out of the stream: {few}")
        if missing.tombstone > self.store.floor:
            log.warning("deletions were cut out of the stream", floor=missing.tombstone)
            self.store.floor = missing.tombstone

    async def _mark(self, reader: Reader) -> None:
        """Notes beside the log how far it was served."""
        store = self.store
        if (store.applied, store.floor) == self._marked or store.applied != reader.position:
            return
        created, prefix = self._identity
        marked = (store.applied, store.floor)
        await self.history.mark(
            Mark(
                created=created,
                prefix=prefix,
                index=reader.position,
                time=reader.position_time,
                latest=reader.latest,
                floor=store.floor,
                witnesses=self._census.witnesses(),
            )
        )
        self._marked = marked

    async def _mark_the_end(self) -> None:
        """Whoever starts next is to know how far it was served, and not only up to the last look."""
        if self._reader is None or not self.ready.is_set() or not self.proven or self.outage() is not None:
            return
        try:
            async with asyncio.timeout(_LAST_MARK):
                await self._mark(self._reader)
        except (LogUnavailable, TimeoutError) as cause:
            log.debug("the end cannot be marked", reason=str(cause))

    # -- the snapshot ----------------------------------------------------------------------------------------------

    async def _restore(self) -> None:
        """At the start: goes on from the last snapshot, if there is one to go on from."""
        restored = None if self.snapshots is None else await self.snapshots.read(self.log)
        if restored is None:
            return
        self._go_on_from(restored)
        log.info("going on from a snapshot", index=self.store.applied, prefix=self.store.prefix)

    def _go_on_from(self, restored: Restored) -> None:
        self.store = restored.store
        self._census = Census(self.store, restored.counted)
        self._assembler = restored.parts
        self._latest = restored.latest
        self._unproved = restored
        self.generation += 1

    async def _serve_until_there(self, away: Away) -> None:
        """NATS is away at the start: what the snapshot holds is served, as after an outage that began at its time."""
        self._go_on_from(away.restored)
        self._alone = True
        self._unreadable_since = away.restored.current / 1e9
        # It may be of a time before this clock's beginning.
        self._current_at = time.monotonic() - max(0.0, time.time() - self._unreadable_since)
        log.warning(
            "NATS is away: serving what a snapshot holds",
            url=self.log.connection.url,
            age=round(self.age()),
            index=self.store.applied,
            prefix=self.store.prefix,
        )
        self.ready.set()
        self._schedule_flush()
        ttl = self.log.tombstone_ttl
        self.log, self.history = await away.open()
        if self.log.identity != self._identity:
            log.warning("not the log that the snapshot is of: starting anew", prefix=self.log.prefix)
            await self._start_anew(rotate=True)
        elif self.log.tombstone_ttl != ttl:
            await self._start_anew(rotate=False)

    async def _prove(self, restored: Restored, state: StreamState) -> None:
        """Whether the log, as it was at `state`, holds what a store from a snapshot says: nothing else does.

        Raises HistoryChanged, NotThereYet.
        """
        if too_old(self.log, restored.current):
            reason = "deletions since the snapshot may have been forgotten while it was read"
            # What was served meanwhile may have lacked them, in versions that are good everywhere.
            raise HistoryChanged(reason) if self._alone else _Forgotten(reason)
        self._census.compare(state, self.log.now())
        if self._census.due is not None:
            # Settled by what comes behind it, or here.
            await self.wait_applied(state.last_sequence, _AUDIT_PATIENCE)
            if self._census.due is state:
                self._census.settle(state, self.log.now())
        if self._census.suspicious:
            await self._audit()
        self._unproved = None
        self._alone = False
        self._proved.set()

    async def _save_regularly(self) -> None:
        while self.snapshots is not None and self.snapshots.every:
            await asyncio.sleep(self.snapshots.every)
            await self.save()

    async def save(self) -> None:
        """Writes a snapshot, if there is something new to write and all is well."""
        snapshots = self.snapshots
        if snapshots is None or not snapshots.writes or not self.ready.is_set() or self.outage() is not None:
            return
        if self._reader is None or self._unproved is not None or not snapshots.due(self.store, self.log):
            return
        current = 0
        try:
            async with asyncio.timeout(_AUDIT_PATIENCE):
                # Before the question: what the log gets after it has answered, it gets later than that.
                asked = self.log.now()
                state = await self.log.state()
                if self._another(state, self.store.applied) is not None:
                    return
                if not self._ended:
                    await self.wait_applied(state.last_sequence, None)
                # A mirror is as old as what it last heard of its origin; `outage` has seen that it did.
                current = asked - int(state.silent * 1e9) if self.store.applied >= state.last_sequence else 0
        except (LogUnavailable, TimeoutError) as cause:
            log.debug("the log cannot be asked how current a snapshot is", reason=str(cause))
        if self.store.applied != self._reader.position:
            return
        self._imaging = True
        try:
            image = Image(self.store, self._census, self._assembler)
            latest, created = self._reader.latest, self._identity.created
            await snapshots.write(self.log, image, created=created, latest=latest, current=current)
        finally:
            self._imaging = False

    # -- feeding the store -----------------------------------------------------------------------------------------

    async def _finish_loading(self, reader: Reader) -> None:
        started = time.monotonic()
        await reader.caught_up.wait()
        if self._unproved is not None:
            self._look.set()
            await self._proved.wait()
            self.store.forget(self.log.now())
        self.store.finish_loading(self.log.now(), nanoseconds(self.log.created))
        self.store.floor = max(self.store.floor, self._floor)
        log.info(
            "log replayed",
            messages=self.replayed,
            seconds=round(time.monotonic() - started, 3),
            index=self.store.applied,
            prefix=self.store.prefix,
        )
        self.ready.set()
        self._look.set()
        # Who waits for this may have found it ready, but of too long ago.
        self._controls = (-1, -1)
        self._schedule_flush()

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(_FORGET_EVERY)
            # Texts of objects that have gone meanwhile are kept no longer than this.
            self._decoder.forget()
            # An image is of entries that remember what they did when it was taken.
            if self.ready.is_set() and not self._imaging:
                self.store.forget(self.log.now())

    def _outage(self, out: bool) -> None:
        began, self._unreadable_since = self._unreadable_since, time.time() if out else None
        if out or began is None:
            return
        long = time.time() - began > self.log.tombstone_ttl
        if long or (self._unproved is not None and too_old(self.log, self._unproved.current)):
            raise _Forgotten("deletions were forgotten while the log could not be read")

    def _apply(self, record: Record) -> None:
        self.replayed += 1
        store, census = self.store, self._census
        if census.due is not None and record.sequence > census.due.last_sequence:
            # The count that waited for the store to come as far as the stream was.
            census.settle(census.due, self.log.now())
            if census.suspicious:
                self._look.set()
        try:
            if not record.data and _MARKER_HEADER in record.headers:
                store.skip(record.sequence, record.time)
            elif record.subject.startswith(_CONTROL_PREFIX):
                control = decode_control(record.data)
                store.apply_control(control, record.sequence, record.time)
                census.take_control(control, record.subject, record.sequence)
            elif record.subject.startswith(_PARTS_PREFIX):
                self._assembler.hold(record.sequence, record.data)
                store.skip(record.sequence, record.time)
            else:
                delta = self._decoder.decode(record.data)
                census.take_delta(delta, record.subject)
                if delta.compression or delta.parts:
                    delta = self._assembler.whole(delta)
                store.apply_delta(delta, record.sequence, record.time)
        except UnreadableRecord as problem:
            self.unreadable += 1
            census.take_unreadable(record.subject)
            log.error("unreadable message", sequence=record.sequence, subject=record.subject, problem=str(problem))
            store.skip(record.sequence, record.time)
        if self._reader is not None and self._reader.pending == 0:
            store.settle()
        if not self._flush_due:
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        # Once for all messages that the loop hands over in this turn: waking watchers is per batch, not per
        # message.
        self._flush_due = True
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        applied = self.store.applied
        for waiting in [one for one in self._waiting if one[0] <= applied]:
            self._waiting.discard(waiting)
            if not waiting[1].done():
                waiting[1].set_result(None)
        if not self.ready.is_set():
            return
        controls = (self.generation, self.store.controls)
        if controls != self._controls:
            self._controls = controls
            self._control_event.set()
            self._control_event = asyncio.Event()
        if self.store.dirty and self._telling is None:
            rest = self._rested_at - time.perf_counter()
            if rest < _SHORTEST_REST:
                self._tell()
            else:
                self._telling = asyncio.get_running_loop().call_later(rest, self._tell)

    def _tell(self) -> None:
        """Wakes who listens to what has changed; not again before they have rested."""
        self._telling = None
        if not self.ready.is_set():
            return
        for key in self.store.dirty:
            for wake in tuple(self._listeners.get(key, ())):
                wake()
        self.store.dirty.clear()
        # Comes behind those that were woken.
        asyncio.get_running_loop().call_soon(self._told, time.perf_counter())

    def _told(self, began: float) -> None:
        now = time.perf_counter()
        self._rested_at = now + min(_REST * (now - began), _LONGEST_REST)

    def stale(self, cluster: Cluster) -> str | None:
        """Why a cluster's objects may be out of date; None if they are current as far as is known."""
        # While the log cannot be read, nobody can be heard.
        return cluster.stale(self.log.now() if self.outage() is None and self.ready.is_set() else 0)

    async def wait_control(self) -> None:
        """Returns at the next control record, or when the log was replayed."""
        if self.ready.is_set():
            await self._control_event.wait()
        else:
            await self.ready.wait()

    def listen(self, key: GroupResource, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` after changes of a type (and when the history changes); returns what ends that."""
        listeners = self._listeners.setdefault(key, set())
        listeners.add(wake)

        def stop() -> None:
            listeners.discard(wake)
            if not listeners and self._listeners.get(key) is listeners:
                del self._listeners[key]

        return stop

    async def wait_applied(self, index: int, timeout: float | None) -> None:
        """Returns once `index` is applied here. Raises NotThereYet after `timeout` seconds."""
        if self.store.applied >= index:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (index, future)
        self._waiting.add(waiting)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise NotThereYet(f"index {index} is not here; the last one is {self.store.applied}") from None
        finally:
            self._waiting.discard(waiting)

    async def append(
        self, cluster: str, group: str, resource: str, obj: bytes, *, deleted: bool = False, timeout: float = 5.0
    ) -> int:
        """The second source: a state that a cluster has accepted, in the log and readable here when this returns.

        `obj`: the object as JSON as the cluster answered it, with its resourceVersion; `deleted`: its last state.
        Returns an index at which it can be read. The watch's own copy of it changes nothing. Raises NotTaken where
        only the cluster's watch can bring it, NotThereYet. (ResourceStorage.Create, Update and Delete.)
        """
        offer = Offer(group=group, resource=resource, object=obj, deleted=deleted)
        index = await hand_over(self.log.connection, self.log.origin, cluster, offer, timeout)
        await self.wait_applied(index, timeout)
        return index

    async def wait_until(self, key: GroupResource, true: Callable[[], bool], timeout: float) -> None:
        """Returns once `true()`, asked again at changes of a type and at control records. Raises NotThereYet."""
        changed = asyncio.Event()
        stop = self.listen(key, changed.set)
        try:
            async with asyncio.timeout(timeout):
                while not true():
                    changed.clear()
                    waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(self.wait_control())]
                    try:
                        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for one in waits:
                            one.cancel()
        except TimeoutError:
            raise NotThereYet("what is waited for has not come") from None
        finally:
            stop()

    async def wait_current(self, timeout: float = 1.0) -> None:
        """Returns once all that the log held at the moment of the call is applied: a consistent read.

        Concurrent callers share one question to the log. Raises LogUnreachable if that cannot be had in
        `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self.wait_applied(await self._head(), None)
        except (TimeoutError, LogUnavailable):
            raise LogUnreachable(self.age()) from None
        self._current_at = time.monotonic()

    async def _head(self) -> int:
        """The log's last sequence, asked after the call: joins the next question, never one under way."""
        if self._head_question is None:
            self._head_question = asyncio.create_task(self._ask_head(), name="materializer-head")
        return await asyncio.shield(self._head_question)

    async def _ask_head(self) -> int:
        async with self._head_lock:
            self._head_question = None
            applied = self.store.applied
            state = await self.log.origin_state()
            if (other := self._another(state, applied)) is not None:
                self._look.set()
                raise BrokerUnavailable(other)
            return state.last_sequence
