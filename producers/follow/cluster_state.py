"""The state of one cluster that is followed: its producer's parts write it, metrics, health and progress read it."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import structlog

from deltalog.wire.kubernetes import GroupResource
from producers.flag import Flag
from producers.follow.type_informer import TypeInformer
from producers.members.membership import Member
from producers.metrics import ClusterReading, ProducerMetrics, StateCounts, TypeReading
from producers.rules.configuration import RELIST_EVERY
from producers.rules.pruning import Pruning
from producers.supervision import Complaints
from producers.timing import DEFAULT, ProducerTiming
from producers.upstream.apiserver import ApiServer

log = structlog.get_logger("producers.follow.cluster_state")


class Treatment(NamedTuple):
    """What is done with all objects alike. `relist_every` in seconds, 0: never."""

    pruning: Pruning = Pruning()
    relist_every: float = RELIST_EVERY


class ClusterState:
    """What one cluster is to its producer now.

    `informers` are those running, by type; `counts` what became of the states it sent, by type, since this process
    began. `unreachable`: why the cluster cannot be read, `undiscovered`: why its types cannot be discovered; None if
    they can. `failure`: what its work last failed with that nothing expects; None once it has gone well for a while.
    `discovered` is set once its types are known, `down` while it cannot be read. `holding`: it is held.
    """

    def __init__(
        self,
        name: str,
        member: Member,
        treatment: Treatment,
        metrics: ProducerMetrics | None = None,
        timing: ProducerTiming = DEFAULT,
    ) -> None:
        self.name = name
        self.member = member
        self.treatment = treatment
        self.metrics = metrics
        self.timing = timing
        self.server = ApiServer(member.access, timing)
        self.informers: dict[GroupResource, TypeInformer] = {}
        self.counts: dict[str, StateCounts] = {}
        self.holding = False
        self.unreachable: str | None = None
        self.undiscovered: str | None = None
        self.failure: str | None = None
        # Since when its work goes on after that (time.monotonic).
        self._going_since = 0.0
        self._complain = Complaints(log, "work of a cluster failed", cluster=name)
        self.discovered = Flag()
        self.down = Flag()
        # Set where there is a reason to look before the time comes.
        self.rediscover = Flag()
        self.probe_now = Flag()

    def reading(self) -> ClusterReading:
        """Its reading for metrics."""
        types = [
            TypeReading(str(key), one.objects, one.synced.is_set(), one.last_event)
            for key, one in self.informers.items()
        ]
        return ClusterReading(self.name, self.holding, self.unreachable is None, types, self.counts)

    def retry_now(self) -> None:
        """Ends pauses between attempts to read it: it is ready again."""
        self.rediscover.set()
        for informer in self.informers.values():
            informer.retry_now()

    def failed(self, error: BaseException, work: str = "") -> str:
        """Its work failed with what nothing expects: it is stale with that reason, which is logged and returned.

        `work`: the part of it that failed, as the reason names it.
        """
        reason = self._complain(error)
        self.failure = self.unreachable = f"{work}: {reason}" if work else reason
        self.going_again()
        self.down.set()
        self.probe_now.set()
        return self.failure

    def going_again(self) -> None:
        """Work that has failed is begun again: whether it goes well is not known yet."""
        self._going_since = time.monotonic()

    def lasting_failure(self) -> str | None:
        """What its work failed with, until it has gone well for `ProducerTiming.stable`; None then."""
        if self.failure is not None and time.monotonic() - self._going_since >= self.timing.stable:
            self.failure = None
            self._complain.clear()
        return self.failure

    async def first_lists(self) -> None:
        """Returns when the first lists of all types are in the log, or the cluster cannot be read."""
        discovered = asyncio.ensure_future(self.discovered.wait())
        down = asyncio.ensure_future(self.down.wait())
        try:
            await asyncio.wait((discovered, down), return_when=asyncio.FIRST_COMPLETED)
            for informer in list(self.informers.values()):
                synced = asyncio.ensure_future(informer.synced.wait())
                await asyncio.wait((synced, down), return_when=asyncio.FIRST_COMPLETED)
                synced.cancel()
        finally:
            discovered.cancel()
            down.cancel()
