"""The materializer: keeps one store current from one log, and answers who reads it.

It assembles its parts: what is served (`served`), how old that may be (`freshness`), who waits for it (`waiting`),
whether the log is still the same history (`history_guard`), snapshots (`persistence`). What is left here: the run from
start to end, the way of one message into the store, and consistent reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from deltalog.handover import Handover, hand_over
from deltalog.history import History
from deltalog.jetstream.backoff import Backoff, Once
from deltalog.jetstream.connection import BrokerUnavailable
from deltalog.jetstream.same_history import Progress
from deltalog.jetstream.stream import Log
from deltalog.jetstream.stream_info import nanoseconds
from deltalog.reader import HistoryChanged, Reader, Record, StateIncomplete
from deltalog.timing import DEFAULT_TIMING, LogTiming
from deltalog.wire.delta import SharingDecoder, UnreadableRecord
from deltalog.wire.errors import LogUnavailable
from deltalog.wire.forgotten import MARKER_HEADER, forgotten_through
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import decode_control
from deltalog.wire.subjects import CONTROL, PARTS
from materializer import reading
from materializer.cluster_facts import ClusterFacts
from materializer.forgetting import DeletionLimits, Forgetting
from materializer.freshness import Freshness, LogUnreachable
from materializer.heap import trim
from materializer.history_guard import HistoryGuard, StateOutdated
from materializer.persistence import Away, Persistence
from materializer.plain import LOADING_BYTES, MOST_BYTES, packed
from materializer.served import Served
from materializer.snapshot import Snapshots
from materializer.store import Store
from materializer.streams import LogStreams
from materializer.timing import DEFAULT, Timing
from materializer.waiting import Waiting

log = structlog.get_logger("materializer")

# What JetStream's file store has for a message beside its subject, headers and payload.
_MESSAGE_BYTES = 34
_CONTROL_PREFIX = CONTROL + "."
_PARTS_PREFIX = PARTS + "."
# First and longest pause between attempts to ask the log where its window begins, in seconds.
_ASK_AGAIN = (0.05, 2.0)
# From so many bytes of plain bodies on they are packed as they come.
_MOST_PLAIN = LOADING_BYTES + MOST_BYTES
# What so many more took than may stay is given back to the system once it is packed: else 400 bytes an object of
# 100,000 would stay as free memory between the packed ones.
_WORTH_GIVING_BACK = 8 << 20


class Materializer:
    """One store and the task that feeds it.

    `store` is replaced as a whole when the history changes, and `generation` goes up; whoever holds the old one
    compares. `ready` is set when the log was replayed to the head it had at the start; where the store comes from a
    snapshot, also the log was found to hold what it has to. Unless the log is `away`: then what the snapshot holds is
    served, as of its time, until the log can be read, and goes on from there if that proves to be the same one.

    - `replayed`, `unreadable`: messages taken in, and those among them that could not be read.
    - `guard`: whether the log is still the history that is served.
    - `window`: bytes for the newest events, None: in proportion to the objects there are; watches within them are shown
      every one (`materializer.window`).
    - `deletions`: how many are remembered; see `materializer.forgetting`.
    """

    def __init__(
        self,
        log: Log,
        history: History | None = None,
        snapshots: Snapshots | None = None,
        away: Away | None = None,
        *,
        window: int | None = None,
        deletions: DeletionLimits | None = None,
        timing: Timing = DEFAULT,
        log_timing: LogTiming = DEFAULT_TIMING,
    ) -> None:
        self._timing = timing
        self._away = away
        self._served = Served(log, window)
        self.ready = self._served.ready
        self._freshness = Freshness(self._served, timing)
        self._waiting = Waiting(self._served, timing)
        self.guard = HistoryGuard(self._served, self._freshness, self._waiting, history or History(log), timing)
        self._persistence = Persistence(self._served, self._freshness, self._waiting, self.guard, snapshots, timing)
        self.forgetting = Forgetting(
            self._served,
            lambda: self.guard.history,
            lambda: self._persistence.imaging,
            deletions or DeletionLimits(),
            timing,
            log_timing,
        )
        self._decoder = SharingDecoder()
        self.replayed = 0
        self.unreadable = 0
        # The log is read up to there where it has the latest states only; past it the window is open.
        self._opens_past: int | None = None
        self._pack_due = asyncio.Event()
        self._ended = False
        # The clusters of the history that ended, and until when (monotonic) they are expected in this one.
        self._former: tuple[frozenset[str], float] = (frozenset(), 0.0)
        self._head_lock = asyncio.Lock()
        self._head_question: asyncio.Task[int] | None = None

    @property
    def store(self) -> Store:
        """The store that is served now; another one once the history has changed."""
        return self._served.store

    @property
    def generation(self) -> int:
        """Counts the stores: what was kept of one is good for the same generation only."""
        return self._served.generation

    @property
    def log(self) -> Log:
        """The log that is read; while NATS is away at the start, what its snapshot says of it."""
        return self._served.log

    @property
    def snapshots(self) -> Snapshots | None:
        """Where snapshots are kept; None: nowhere."""
        return self._persistence.snapshots

    @property
    def confirmed(self) -> bool:
        """Whether what is served is known to be what the log has held, and not only what a snapshot says."""
        return self._served.unconfirmed is None

    @property
    def lacks_to(self) -> int:
        """Up to which index the log lacked objects when it was read here; they come when clusters are listed again."""
        return self._served.lacks_to

    @property
    def streams(self) -> LogStreams | None:
        """What the log's streams were like when they were last looked at; None before that."""
        return self.guard.streams

    @property
    def former_clusters(self) -> frozenset[str]:
        """Clusters of the history that ended which this one does not have yet, though it may be about to."""
        names, until = self._former
        return names - self.store.clusters.keys() if names and time.monotonic() < until else frozenset()

    # -- the run -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Replays and follows the log until cancelled.

        Raises:
            LogError, JetStreamRefused: as the reader does, for what waiting cannot mend.
        """
        try:
            if self._away is not None:
                try:
                    await self._persistence.serve_until_there(self._away)
                except HistoryChanged as change:
                    await self._start_anew(change)
            if (reason := await self.guard.recall()) is not None:
                log.warning(
                    "not the history that was served before: starting anew", reason=reason, prefix=self.log.prefix
                )
                await self._start_anew(HistoryChanged(reason))
            if self.confirmed:
                await self._persistence.restore()
            elif self.guard.snapshot_outdated():
                # Before anything is read: what was deleted meanwhile would be served as if it lived.
                reason = "deletions since the snapshot may have been forgotten"
                log.warning(f"{reason}: starting anew")
                await self._start_anew(StateOutdated(reason))
            self._freshness.unreadable_since = None
            await self._follow()
        except asyncio.CancelledError:
            await self.guard.mark_the_end()
            self._ended = True
            raise

    async def close(self) -> None:
        """After `run` was cancelled: keeps a snapshot of where it ended, for the next start."""
        if self._ended:
            await self._persistence.save_the_end()

    async def save(self) -> None:
        """Writes a snapshot now, if there is something new to write and all is well."""
        await self._persistence.save(ended=self._ended)

    async def _follow(self) -> None:
        while True:
            served = self._served
            progress = Progress(served.store.applied, served.store.applied_time, served.latest)
            # One that has nothing yet reads the state up to where the window begins, and from there what happened.
            begin = 0 if progress.sequence else await self._window_start()
            reader = self._freshness.reader = Reader(self.log, self._apply, after=progress, state_to=begin)
            self._opens_past = None if progress.sequence else begin
            following = asyncio.create_task(reader.run(self._outage), name="materializer-following")
            looking = asyncio.create_task(self.guard.watch(reader), name="materializer-history")
            loading = asyncio.create_task(self._finish_loading(reader), name="materializer-loading")
            decoding = asyncio.create_task(self._forget_texts(), name="materializer-decoding")
            forgetting = asyncio.create_task(self.forgetting.run(), name="materializer-forgetting")
            saving = asyncio.create_task(self._persistence.save_regularly(), name="materializer-saving")
            packing = asyncio.create_task(self._pack(), name="materializer-packing")
            tasks = (following, looking, loading, decoding, forgetting, saving, packing)
            try:
                watched = {following, looking, packing, saving}
                while watched:
                    done, watched = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                        # The others do not end; this one does where there is nothing to save.
                        assert task is saving
            except HistoryChanged as change:
                log.warning("the history changed: starting anew", reason=str(change), prefix=self.store.prefix)
                found = change
                # Whoever found it out could read the log. The reader, if it was another task, has not said so, and the
                # next one says only what changes from now on.
                self._freshness.unreadable_since = None
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await self._start_anew(found)

    async def _window_start(self) -> int:
        """The sequence past which the log's newest events are as many as the window may have."""
        backoff = Backoff(*_ASK_AGAIN)
        say = Once(lambda reason: log.warning("the log cannot be read", reason=reason))
        while True:
            try:
                return await self.log.window_start(self._served.window)
            except LogUnavailable as cause:
                self._freshness.unreadable_since = self._freshness.unreadable_since or time.time()
                say(cause)
            await backoff.wait()

    async def _start_anew(self, change: HistoryChanged) -> None:
        """An empty store, of a history with another prefix unless only what is known of it here is outdated."""
        renamed = not isinstance(change, StateOutdated | StateIncomplete)
        if renamed:
            names = frozenset(self.store.clusters) or self.former_clusters
            self._former = (names, time.monotonic() + self._timing.former_clusters)
            await self.guard.rename()
        self._served.begin_anew()
        self.guard.begin_anew(renamed=renamed)
        log.info("new history" if renamed else "reading the history anew", prefix=self.log.prefix)
        self._waiting.wake_all()

    async def _finish_loading(self, reader: Reader) -> None:
        started = time.monotonic()
        await reader.caught_up.wait()
        if not self.confirmed:
            self.guard.look_soon()
            await self.guard.confirmed()
            self.store.forget(self.log.now())
        self.store.finish_loading(self.log.now(), nanoseconds(self.log.created))
        if self._opens_past is not None:
            self.store.note_compacted(self._opens_past)
            self._opens_past = None
        # What the log's state lacked when this was read may have been deletions.
        self.store.floor = max(self.store.floor, self.guard.floor, reader.lacks_to)
        self._served.lacks_to = reader.lacks_to
        # Less may be plain from now on.
        self._pack_due.set()
        log.info(
            "log replayed",
            messages=self.replayed,
            seconds=round(time.monotonic() - started, 3),
            index=self.store.applied,
            prefix=self.store.prefix,
        )
        self.ready.set()
        self.guard.look_soon()
        self._waiting.became_ready()

    async def _forget_texts(self) -> None:
        while True:
            await asyncio.sleep(self._timing.forget_every)
            # Texts of objects that have gone meanwhile are kept no longer than this.
            self._decoder.forget()
            reading.KEPT.forget_unused()

    async def _pack(self) -> None:
        """Packs the oldest plain bodies, in a thread, while there are more than there may be."""
        # One thread, always the same: each allocates from an arena of its own (glibc), a part of which stays unused.
        pool = ThreadPoolExecutor(1, "materializer-packing")
        loop = asyncio.get_running_loop()
        most = 0
        try:
            while True:
                await self._pack_due.wait()
                store = self.store
                if store.packing is None or store.plain.size <= store.plain.limit:
                    self._pack_due.clear()
                    if not store.loading and most > store.plain.limit + _WORTH_GIVING_BACK:
                        most = 0
                        await loop.run_in_executor(pool, trim)
                    continue
                most = max(most, store.plain.size)
                batch = store.take_plain()
                try:
                    done = await loop.run_in_executor(pool, packed, store.packing, batch)
                except BaseException:
                    store.plain.give_back(batch.taken)
                    raise
                store.settle_packed(done)
                # Else what was plain would be kept until the next batch.
                del batch, done
        finally:
            pool.shutdown(wait=False)

    def _outage(self, out: bool) -> None:
        """Told by the reader when the log can no longer be read, and when it can again. Raises StateOutdated."""
        freshness = self._freshness
        began, freshness.unreadable_since = freshness.unreadable_since, time.time() if out else None
        if out or began is None:
            return
        if time.time() - began > self.log.tombstone_ttl or self.guard.snapshot_outdated():
            raise StateOutdated("deletions were forgotten while the log could not be read")

    # -- the way of one message --------------------------------------------------------------------------------------

    def _apply(self, record: Record) -> None:
        self.replayed += 1
        served = self._served
        store, integrity = served.store, served.integrity
        if self._opens_past is not None and record.sequence > self._opens_past:
            store.note_compacted(self._opens_past)
            self._opens_past = None
        if integrity.due is not None and record.sequence > integrity.due.last_sequence:
            # The count that waited for the store to come as far as the stream was.
            integrity.settle(integrity.due, served.log.now())
            if integrity.suspicious:
                self.guard.look_soon()
        try:
            if not record.data and MARKER_HEADER in (headers := record.headers):
                if through := forgotten_through(headers):
                    self._obey(through, record.sequence)
                store.skip(record.sequence, record.time)
            elif record.subject.startswith(_CONTROL_PREFIX):
                control = decode_control(record.data)
                store.apply_control(control, record.sequence, record.time)
                integrity.take_control(control, record.subject, record.sequence, record.time)
            elif record.subject.startswith(_PARTS_PREFIX):
                served.assembler.hold(record.sequence, record.data)
                store.skip(record.sequence, record.time)
            else:
                delta = self._decoder.decode(record.data)
                integrity.take_delta(delta, record.subject)
                if delta.compression or delta.parts:
                    delta = served.assembler.whole(delta)
                size = len(record.data) + len(record.block) + len(record.subject) + _MESSAGE_BYTES
                store.apply_delta(delta, record.sequence, record.time, size)
        except UnreadableRecord as problem:
            self.unreadable += 1
            integrity.take_unreadable(record.subject)
            log.error("unreadable message", sequence=record.sequence, subject=record.subject, problem=str(problem))
            store.skip(record.sequence, record.time)
        plain = store.plain
        if plain.size > plain.limit:
            self._pack_due.set()
            if plain.size > _MOST_PLAIN:
                # The thread does not keep up.
                store.pack(_MOST_PLAIN, train=False)
        reader = self._freshness.reader
        if reader is not None and reader.pending == 0:
            store.settle()
        if not self._waiting.flush_due:
            self._waiting.schedule_flush()

    def _obey(self, through: int, sequence: int) -> None:
        """The log says that deletions up to there are forgotten."""
        reader = self._freshness.reader
        if reader is not None and 0 < reader.resumed_from < through:
            # Their messages may have been taken out of the state while that was gone on with.
            reason = f"deletions up to {through} were forgotten while the state past {reader.resumed_from} was read"
            raise HistoryChanged(reason) if self.ready.is_set() else StateOutdated(reason)
        self._served.integrity.take_forgotten(sequence)
        self.forgetting.obey(through)

    # -- for those who read the store --------------------------------------------------------------------------------

    def age(self) -> float:
        """Seconds since it was known that all of the log is here; a few seconds where all is well."""
        return self._freshness.age()

    def outage_seconds(self) -> float | None:
        """`age`, if the log cannot be read, or a mirror does not hear of its origin; None if all is well."""
        return self._freshness.outage_seconds()

    def stale_reason(self, cluster: ClusterFacts) -> str | None:
        """Why a cluster's objects may be out of date; None if they are current as far as is known."""
        return cluster.stale_reason(self.silence_clock())

    def silence_clock(self) -> int:
        """The time at which it is asked how long producers have been silent, see `ClusterFacts.stale_reason`."""
        # While the log cannot be read, no producer can be heard.
        return self.log.now() if self.outage_seconds() is None and self.ready.is_set() else 0

    async def wait_control(self) -> None:
        """Returns at the next control record, or when the log was replayed."""
        await self._waiting.control()

    def listen(self, key: GroupResource, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` after changes of a type; returns what ends that.

        Also when any type comes, changes or goes, and when the history changes.
        """
        return self._waiting.listen(key, wake)

    async def wait_applied(self, index: int, timeout: float | None) -> None:
        """Returns once `index` is applied here; `timeout` in seconds, None: none.

        Raises:
            NotThereYet: it is not within the time.
        """
        await self._waiting.applied(index, timeout)

    async def wait_until(self, key: GroupResource, true: Callable[[], bool], timeout: float) -> None:
        """Returns once `true()`, asked again at changes of a type and at control records; `timeout` in seconds.

        Raises:
            NotThereYet: it is not within the time.
        """
        await self._waiting.until(key, true, timeout)

    async def append(
        self, cluster: str, group: str, resource: str, obj: bytes, *, deleted: bool = False, timeout: float = 5.0
    ) -> int:
        """The second source: a state that a cluster has accepted, in the log and readable here when this returns.

        `obj`: the object as JSON as the cluster answered it, with its resourceVersion; `deleted`: its last state.
        Returns an index at which it can be read. The watch's own copy of it changes nothing. (Clusterpedia's
        ResourceStorage.Create, Update and Delete.)

        Raises:
            NotTaken: only the cluster's watch can bring it.
            NotThereYet: it is not readable here within `timeout` seconds.
        """
        handover = Handover(group=group, resource=resource, object=obj, deleted=deleted)
        index = await hand_over(self.log.connection, self.log.origin, cluster, handover, timeout)
        await self.wait_applied(index, timeout)
        return index

    async def wait_current(self, timeout: float = 1.0) -> None:
        """Returns once all that the log held at the moment of the call is applied: a consistent read.

        As a kube-apiserver's consistent reads from its cache are (KEP-2340): the log's head is asked for, and the store
        waited for. Concurrent callers share one question.

        Raises:
            LogUnreachable: that cannot be had within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._waiting.applied(await self._head(), None)
        except (TimeoutError, LogUnavailable):
            raise LogUnreachable(self.age()) from None
        self._freshness.current_at = time.monotonic()

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
            if (other := self.guard.why_another(state, applied)) is not None:
                self.guard.look_soon()
                raise BrokerUnavailable(other)
            return state.last_sequence
