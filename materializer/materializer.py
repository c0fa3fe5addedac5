"""The materializer: keeps one store current from one log, and tells who waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from deltalog.connection import BrokerUnavailable, JetStreamRefused
from deltalog.delta import SharingDecoder, UnreadableRecord, decode_control
from deltalog.large import Assembler
from deltalog.replay import HistoryChanged, Reader, Record
from deltalog.stream import Log, nanoseconds
from deltalog.subjects import CONTROL, PARTS
from materializer.entry import TypeKey
from materializer.store import Cluster, Store

log = structlog.get_logger("materializer")

_CONTROL_PREFIX = CONTROL + "."
_PARTS_PREFIX = PARTS + "."
_MARKER_HEADER = "Nats-Marker-Reason"
# How often tombstones are looked through for expired ones, in seconds.
_FORGET_EVERY = 5.0


class LogUnreachable(Exception):
    """The log's head cannot be asked for: what memory holds may be old. `age`: seconds since it was current."""

    def __init__(self, age: float) -> None:
        super().__init__(f"the log cannot be reached; this state is {age:.0f} s old")
        self.age = age


class NotThereYet(Exception):
    """The index asked for was not applied within the time allowed."""


class Materializer:
    """One store and the task that feeds it.

    `store` is replaced as a whole when the history changes; whoever holds the old one finds `expired` set on
    its generation. `ready` is set when the log was replayed to the head it had at the start.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.store = Store(log.prefix, log.tombstone_ttl)
        self.ready = asyncio.Event()
        self._assembler = Assembler()
        self._decoder = SharingDecoder()
        self._reader: Reader | None = None
        self.generation = 0
        self.replayed = 0
        self.unreadable = 0
        self.outage_since: float | None = None
        self._current_at = time.monotonic()
        self._listeners: dict[TypeKey, set[Callable[[], None]]] = {}
        self._waiting: set[tuple[int, asyncio.Future[None]]] = set()
        self._flush_due = False
        self._controls = (0, 0)
        self._control_event = asyncio.Event()
        self._head_lock = asyncio.Lock()
        self._head_question: asyncio.Task[int] | None = None

    async def run(self) -> None:
        """Replays and follows the log until cancelled."""
        while True:
            reader = self._reader = Reader(self.log, self._apply)
            loading = asyncio.create_task(self._finish_loading(reader), name="materializer-loading")
            forgetting = asyncio.create_task(self._forget(), name="materializer-forgetting")
            try:
                await reader.run(self._outage)
            except HistoryChanged as change:
                log.warning("the history changed: starting anew", reason=str(change), prefix=self.store.prefix)
                await self._start_anew()
            finally:
                for task in (loading, forgetting):
                    task.cancel()
                await asyncio.gather(loading, forgetting, return_exceptions=True)

    async def _start_anew(self) -> None:
        while True:
            try:
                same = self.log.created, self.log.prefix
                await self.log.reopen()
                if (self.log.created, self.log.prefix) == same:
                    await self.log.rotate_prefix()
                break
            except (BrokerUnavailable, JetStreamRefused) as cause:
                log.warning("the log cannot be read", reason=str(cause))
                await asyncio.sleep(1.0)
        self.ready.clear()
        self.store = Store(self.log.prefix, self.log.tombstone_ttl)
        self._assembler = Assembler()
        self.generation += 1
        log.info("new history", prefix=self.log.prefix)
        for listeners in list(self._listeners.values()):
            for wake in list(listeners):
                wake()

    async def _finish_loading(self, reader: Reader) -> None:
        started = time.monotonic()
        await reader.caught_up.wait()
        self.store.finish_loading(self.log.now(), nanoseconds(self.log.created))
        log.info(
            "log replayed",
            messages=self.replayed,
            seconds=round(time.monotonic() - started, 3),
            index=self.store.applied,
            prefix=self.store.prefix,
        )
        self.ready.set()
        self._schedule_flush()

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(_FORGET_EVERY)
            # Texts of objects that have gone meanwhile are kept no longer than this.
            self._decoder.forget()
            if self.ready.is_set():
                self.store.forget(self.log.now())

    def _outage(self, out: bool) -> None:
        began, self.outage_since = self.outage_since, time.time() if out else None
        if not out and began is not None and time.time() - began > self.log.tombstone_ttl:
            raise HistoryChanged("deletions were forgotten while the log could not be read")

    def _apply(self, record: Record) -> None:
        self.replayed += 1
        store = self.store
        try:
            if not record.data and _MARKER_HEADER in record.headers:
                store.skip(record.sequence, record.time)
            elif record.subject.startswith(_CONTROL_PREFIX):
                store.apply_control(decode_control(record.data), record.sequence, record.time)
            elif record.subject.startswith(_PARTS_PREFIX):
                self._assembler.hold(record.sequence, record.data)
                store.skip(record.sequence, record.time)
            else:
                delta = self._decoder.decode(record.data)
                if delta.compression or delta.parts:
                    delta = self._assembler.whole(delta)
                store.apply_delta(delta, record.sequence, record.time)
        except UnreadableRecord as problem:
            self.unreadable += 1
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
        dirty = self.store.dirty
        if dirty:
            for key in dirty:
                for wake in tuple(self._listeners.get(key, ())):
                    wake()
            dirty.clear()

    def stale(self, cluster: Cluster) -> str | None:
        """Why a cluster's objects may be out of date; None if they are current as far as is known."""
        # While the log cannot be read, nobody can be heard.
        return cluster.stale(self.log.now() if self.outage_since is None and self.ready.is_set() else 0)

    async def wait_control(self) -> None:
        """Returns at the next control record, or when the log was replayed."""
        if self.ready.is_set():
            await self._control_event.wait()
        else:
            await self.ready.wait()

    def listen(self, key: TypeKey, wake: Callable[[], None]) -> Callable[[], None]:
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

    async def wait_current(self, timeout: float = 1.0) -> None:
        """Returns once all that the log held at the moment of the call is applied: a consistent read.

        Concurrent callers share one question to the log. Raises LogUnreachable if that cannot be had in
        `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self.wait_applied(await self._head(), None)
        except (TimeoutError, BrokerUnavailable, JetStreamRefused):
            raise LogUnreachable(time.monotonic() - self._current_at) from None
        self._current_at = time.monotonic()

    async def _head(self) -> int:
        """The log's last sequence, asked after the call: joins the next question, never one under way."""
        if self._head_question is None:
            self._head_question = asyncio.create_task(self._ask_head(), name="materializer-head")
        return await asyncio.shield(self._head_question)

    async def _ask_head(self) -> int:
        async with self._head_lock:
            self._head_question = None
            return await self.log.head()
