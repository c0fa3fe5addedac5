"""The producer of one member cluster: takes it over, follows it as its owner, and again after each failure."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from deltalog import Appender, HistoryEnded, LogUnavailable, UnreadableRecord
from deltalog.history import History
from deltalog.jetstream.backoff import Backoff, Once
from deltalog.jetstream.stream import Log
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import HealthChanged
from producers.follow.cluster_state import ClusterState, Treatment
from producers.follow.ownership import Deposed, Owner, append_control, last_owner, take
from producers.follow.tenure import serve_tenure
from producers.follow.type_informer import TypeInformer
from producers.members.membership import Member
from producers.metrics import ProducerMetrics
from producers.supervision import being_cancelled, beyond, reason_of
from producers.timing import DEFAULT, ProducerTiming
from producers.upstream.apiserver import ApiServer

log = structlog.get_logger("producers.follow.cluster_producer")

# What ends a tenure if all is as it should be.
_EXPECTED = (Deposed, LogUnavailable, HistoryEnded)


class ClusterProducer:
    """Keeps the log's view of one cluster current for as long as it owns the cluster.

    `on_synced` is called whenever a type's complete list is in the log. `state` is what is known of the cluster now.
    `places`: of how many clusters the first lists are taken at once; others wait for their turn.
    """

    def __init__(
        self,
        name: str,
        member: Member,
        open_log: Callable[[], Awaitable[Log]],
        producer: str,
        treatment: Treatment,
        metrics: ProducerMetrics | None = None,
        timing: ProducerTiming = DEFAULT,
        places: asyncio.Semaphore | None = None,
    ) -> None:
        self.on_synced: Callable[[ClusterProducer, TypeInformer], None] | None = None
        self.state = ClusterState(name, member, treatment, metrics, timing)
        self._places = places
        self._open_log = open_log
        self._producer = producer

    @property
    def name(self) -> str:
        """The cluster's."""
        return self.state.name

    @property
    def member(self) -> Member:
        """How it is reached, and what is synced of it."""
        return self.state.member

    @property
    def treatment(self) -> Treatment:
        """What is done with its objects."""
        return self.state.treatment

    @property
    def server(self) -> ApiServer:
        """The connection to it."""
        return self.state.server

    @property
    def informers(self) -> Mapping[GroupResource, TypeInformer]:
        """Those running now, by type."""
        return self.state.informers

    @property
    def unreachable(self) -> str | None:
        """Why the cluster cannot be read now, as a person reads it; None if it can."""
        return self.state.unreachable

    @property
    def discovered(self) -> bool:
        """Whether discovery has found its types at least once."""
        return self.state.discovered.is_set()

    async def change(self, member: Member, treatment: Treatment) -> None:
        """Goes on under another configuration; what is configured as before is not restarted.

        Under which it goes on is said at once; the connection may take a while to follow.
        """
        state = self.state
        before, state.member = state.member, member
        rules_differ = before.rules != member.rules or treatment != state.treatment
        state.treatment = treatment
        if rules_differ:
            state.rediscover.set()
        if before.access != member.access:
            try:
                await state.server.change(member.access)
            except Exception as cause:  # noqa: BLE001 - supervised
                state.failed(cause)
                # What asks it next asks for credentials again, and is supervised.
                await self._close()
                if state.holding:
                    self._reopen()

    def relist(self, named: Callable[[str], bool]) -> int:
        """Compares the lists of the types with a text like `deployments.apps` that is `named` with the log now.

        Returns how many.
        """
        informers = [informer for key, informer in self.state.informers.items() if named(str(key))]
        for informer in informers:
            informer.relist()
        return len(informers)

    def rediscover(self) -> None:
        """Looks at the cluster's types now."""
        self.state.rediscover.set()

    async def first_lists(self) -> None:
        """Returns when the first lists of all types are in the log, or the cluster cannot be read."""
        await self.state.first_lists()

    def _synced(self, informer: TypeInformer) -> None:
        if self.on_synced is not None:
            self.on_synced(self, informer)

    async def run(self) -> None:
        """Produces until cancelled. Raises Deposed when another producer takes the cluster over.

        Whatever else its work raises makes the cluster stale, and is tried again.
        """
        state = self.state
        backoff = Backoff(*state.timing.log_backoff)
        failing = Backoff(*state.timing.failure_backoff)
        complain = Once(lambda reason: log.warning("the log cannot be written", cluster=state.name, reason=reason))
        owner: Owner | None = None
        prefix, epoch = "", 0
        # Its connections ended when it was let go; it is ours again.
        self._reopen()
        state.discovered.clear()
        state.down.clear()
        state.holding = True
        beginning: asyncio.Task[None] | None = None
        try:
            if self._places is not None:
                beginning = await self._begin(self._places)
            while True:
                pause = backoff
                started = time.monotonic()
                try:
                    owner = None
                    log_ = await self._open_log()
                    prefix = log_.prefix
                    async with Appender.to(log_) as appender:
                        owner = await take(log_, appender, state.name, self._producer, epoch)
                        epoch = owner.epoch
                        complain.clear()
                        backoff.reset()
                        await self._serve(log_, appender, owner)
                except (LogUnavailable, HistoryEnded) as cause:
                    complain(cause)
                except Exception as cause:
                    if being_cancelled():
                        raise
                    unexpected = beyond(cause, *_EXPECTED)
                    if unexpected is not None:
                        state.failed(unexpected)
                        # Whatever it left the connection in.
                        await self._close()
                        self._reopen()
                        if time.monotonic() - started >= state.timing.stable:
                            failing.reset()
                        pause = failing
                    if (unexpected is None or _has_deposed(cause)) and await self._is_over(cause, owner, prefix):
                        raise Deposed(f"cluster {state.name} was taken over by another producer") from None
                await pause.wait()
        finally:
            state.holding = False
            if beginning is not None:
                beginning.cancel()
            await self._close()

    async def _begin(self, places: asyncio.Semaphore) -> asyncio.Task[None]:
        """Waits for a place, which is given back when the first lists are in the log, or as the task returned ends."""
        await places.acquire()
        beginning = asyncio.create_task(self._first_lists_for_a_while(), name=f"{self.name}: beginning")
        beginning.add_done_callback(lambda _: places.release())
        return beginning

    async def _first_lists_for_a_while(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.state.timing.begin):
                await self.state.first_lists()

    async def _serve(self, log_: Log, appender: Appender, owner: Owner) -> None:
        """One tenure. Raises as `serve_tenure`; of what nothing expects there is a record then."""
        self.state.going_again()
        try:
            await serve_tenure(self.state, log_, appender, owner, self._synced)
        except Exception as cause:
            if (unexpected := beyond(cause, *_EXPECTED)) is not None and not being_cancelled():
                reason = self.state.failed(unexpected)
                with contextlib.suppress(*_EXPECTED):
                    await append_control(appender, owner, owner.control(HealthChanged(reason=reason)))
            raise

    def _reopen(self) -> None:
        """Begins the connection anew where it was closed, whatever it was left in; whoever has it goes on with it."""
        self.state.server.reopen(self.state.member.access)

    async def _close(self) -> None:
        """Ends the connection to the cluster, as far as that can be done."""
        try:
            await self.state.server.close()
        except Exception as cause:  # noqa: BLE001 - supervised
            log.warning("a connection could not be closed", cluster=self.name, reason=reason_of(cause))

    async def _is_over(self, ended: Exception, owner: Owner | None, prefix: str) -> bool:
        """Whether what ended a tenure means that another producer owns the cluster."""
        if not _has_deposed(ended):
            log.warning("starting anew", cluster=self.name, reason=reason_of(ended))
            return False
        try:
            log_ = await self._open_log()
            last = await last_owner(log_, self.name, 0 if owner is None else owner.sequence)
            if last is not None:
                return last.producer != self._producer
            if owner is not None and await _may_have_gone(log_, owner.sequence):
                log.info("the owner record has gone from the events", cluster=self.name)
                return False
            # There is no later record of another producer, but this one's is missing: the log was cut, set back or
            # replaced.
            log.warning("the log has lost who owns the cluster", cluster=self.name)
            await History(log_).rotate(prefix)
            return False
        except (LogUnavailable, UnreadableRecord):
            return False


async def _may_have_gone(log_: Log, sequence: int) -> bool:
    """Whether a message went to make room in the events, and is not in the state yet, which has it soon, or again.

    Raises LogUnavailable.
    """
    if not log_.window or (await log_.state()).first_sequence <= sequence:
        return False
    state = await log_.find_state()
    return state is None or await state.head() < sequence


def _has_deposed(ended: Exception) -> bool:
    return isinstance(ended, Deposed) or (isinstance(ended, ExceptionGroup) and ended.subgroup(Deposed) is not None)
