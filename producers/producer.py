"""The producer: the clusters of one process, each on its own, as they are added and removed."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from fnmatch import fnmatchcase

import msgspec
import structlog
from nats.aio.msg import Msg

from deltalog import LogUnavailable
from deltalog.jetstream.backoff import Backoff
from deltalog.jetstream.connection import TRANSPORT_ERRORS, Connection
from deltalog.jetstream.stream import Log
from deltalog.jetstream.stream_info import DEFAULT_NAME
from producers.follow.cluster_producer import ClusterProducer
from producers.follow.cluster_state import Treatment
from producers.follow.leases import Leases
from producers.follow.ownership import Deposed
from producers.follow.removal import leave_cluster, remove_cluster
from producers.follow.writer import Writer
from producers.forgetting import MOST_DELETIONS, OwnDeletions
from producers.members.membership import Members
from producers.metrics import ProducerMetrics
from producers.supervision import Complaints, being_cancelled, endless, reason_of
from producers.timing import DEFAULT, ProducerTiming

log = structlog.get_logger("producers.producer")


def producer_id() -> str:
    """A name for this process that no other one has or had."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Relist(msgspec.Struct):
    """A request to all producers of a stream: compare lists with the log now. Patterns with wildcards."""

    cluster: str = "*"
    type: str = "*"


class Relisting(msgspec.Struct):
    """One producer's answer: how many lists it takes, in how many clusters."""

    producer: str
    clusters: int
    lists: int


def relist_subject(stream: str) -> str:
    """Where producers take `Relist` requests: NATS request and reply, not in the log."""
    return f"kubebraid.{stream}.relist"


def leases_bucket(stream: str) -> str:
    """The bucket with the leases of a log's producers: each shard's have every cluster among themselves."""
    return "kubebraid-leases" if stream == DEFAULT_NAME else f"kubebraid-leases-{stream}"


# Of how many clusters the first lists are taken at once: all of a thousand would hold up the leases of each other.
_BEGINNING = 32


class Producer:
    """Runs a `ClusterProducer` for each member that it has the lease of.

    `clusters` are all members, by name; `held` those that this process produces now. `deletions`: how many of them are
    remembered, see `producers.forgetting`.
    """

    def __init__(
        self,
        members: Members,
        open_log: Callable[[], Awaitable[Log]],
        connection: Connection,
        *,
        identity: str | None = None,
        bucket: str = "kubebraid-leases",
        replicas: int = 1,
        deletions: int = MOST_DELETIONS,
        timing: ProducerTiming = DEFAULT,
    ) -> None:
        self.identity = identity or producer_id()
        self.members = members
        self.clusters: dict[str, ClusterProducer] = {}
        self.metrics = ProducerMetrics(
            lambda: [cluster.state.reading() for cluster in self.clusters.values()],
            lambda: connection.append_health.refusals,
        )
        self.leases = Leases(
            connection,
            bucket,
            self.identity,
            [],
            take=self._take,
            drop=self._drop,
            replicas=replicas,
            ttl=timing.lease,
        )
        self.forgetting = OwnDeletions(open_log, self._writers, deletions, every=timing.forget_deletions_every)
        self.metrics.deletions(lambda: self.forgetting.remembered)
        # Set when `clusters` has the members that there are at the start, none of which is followed yet.
        self.begun = asyncio.Event()
        self._connection = connection
        self._open_log = open_log
        self._timing = timing
        self._places = asyncio.Semaphore(_BEGINNING)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def held(self) -> list[ClusterProducer]:
        """The clusters that this process produces now."""
        return [self.clusters[name] for name in self._running if name in self.clusters]

    def _writers(self) -> Iterator[Writer]:
        """Of all types of the clusters that this process produces now."""
        for cluster in self.held:
            for informer in cluster.informers.values():
                for reflector in informer.reflectors:
                    yield reflector.writer

    def problems(self) -> list[str]:
        """What is wrong with writing to the log, one line for each problem; none if it works."""
        return self._connection.problems()

    async def run(self) -> None:
        """Produces until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            await self._follow_members()
            self.begun.set()
            tasks.create_task(self.members.run(), name="members")
            tasks.create_task(self._members_changed(), name="members changed")
            tasks.create_task(self.leases.run(), name="leases")
            tasks.create_task(self._requests(), name="requests")
            tasks.create_task(self.forgetting.run(), name="forgetting")

    async def first_lists(self) -> None:
        """Returns when the first lists of each cluster we hold are in the log, or the cluster is unreachable."""
        await self.leases.settled.wait()
        await asyncio.gather(*(cluster.first_lists() for cluster in self.held))

    # -- members added and removed ------------------------------------------------------------------------------------

    async def _members_changed(self) -> None:
        while True:
            await self.members.changed.wait()
            self.members.changed.clear()
            await self._follow_members()

    async def _follow_members(self) -> None:
        current = self.members.current
        configuration = self.members.configuration
        treatment = Treatment(configuration.pruning, configuration.relist_every)
        for name, member in current.items():
            if (known := self.clusters.get(name)) is None:
                log.info("cluster is a member", cluster=name)
                self.clusters[name] = ClusterProducer(
                    *(name, member, self._open_log, self.identity, treatment, self.metrics, self._timing),
                    places=self._places,
                )
            elif known.member != member or known.treatment != treatment:
                assert self._tasks is not None
                # Of its own: new credentials may take a while, and others do not wait for that.
                self._tasks.create_task(known.change(member, treatment), name=f"changing {name}")
        removed = [name for name in self.clusters if name not in current]
        for name in removed:
            log.info("cluster is no member any more", cluster=name)
            del self.clusters[name]
        self.leases.follow(current)
        for name in removed:
            if name in self._running and name not in self._leaving:
                assert self._tasks is not None
                leaving = self._leave(name, remove=configuration.remove)
                self._leaving[name] = self._tasks.create_task(leaving, name=f"leaving {name}")

    async def _leave(self, name: str, *, remove: bool) -> None:
        """Takes a cluster that we held out of the log, then lets go of it."""
        try:
            await self._drop(name)
            backoff = Backoff(*self._timing.log_backoff)
            while name not in self.clusters:
                try:
                    log_ = await self._open_log()
                    if remove:
                        await remove_cluster(log_, self.identity, name)
                        log.info("cluster removed from the log", cluster=name)
                    else:
                        await leave_cluster(log_, self.identity, name)
                    break
                except Deposed:
                    # The producer that took it follows it still.
                    break
                except Exception as cause:
                    if being_cancelled():
                        raise
                    log.warning("cluster cannot be removed yet", cluster=name, reason=reason_of(cause))
                    await backoff.wait()
        finally:
            del self._leaving[name]
        # One that is a member again is taken again, by the producer with the smallest share.
        self.leases.release(name)

    # -- leases ------------------------------------------------------------------------------------------------------

    def _take(self, name: str) -> None:
        assert self._tasks is not None
        if (cluster := self.clusters.get(name)) is None:
            # It left the configuration in this very moment.
            self.leases.release(name)
            return
        self._running[name] = self._tasks.create_task(self._produce(cluster), name=f"cluster {name}")

    async def _drop(self, name: str) -> None:
        task = self._running.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _produce(self, cluster: ClusterProducer) -> None:
        complain = Complaints(log, "a cluster's producer failed", cluster=cluster.name)
        backoff = Backoff(*self._timing.failure_backoff)
        while True:
            try:
                await endless(cluster.run())
            except Deposed as deposed:
                # The producer that took it over has, or had, the lease: this one's ends, or it is held again.
                log.warning("deposed", cluster=cluster.name, reason=str(deposed))
                await asyncio.sleep(self._timing.deposed)
            except Exception as cause:  # noqa: BLE001 - supervised
                complain(cause)
                if being_cancelled():
                    return
                await backoff.wait()

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _requests(self) -> None:
        """Answers requests to compare lists now."""
        backoff = Backoff(0.5, 5.0)
        while True:
            try:
                stream = (await self._open_log()).name
                subscription = await self._connection.client.subscribe(relist_subject(stream))
                break
            except (LogUnavailable, *TRANSPORT_ERRORS) as cause:
                log.debug("requests cannot be taken yet", reason=str(cause))
                await backoff.wait()
        try:
            async for message in subscription.messages:
                await self._relist(message)
        finally:
            try:
                await self._connection.client.unsubscribe(subscription)
            except TRANSPORT_ERRORS:
                pass

    async def _relist(self, message: Msg) -> None:
        try:
            wanted = msgspec.json.decode(message.data, type=Relist)
        except msgspec.MsgspecError as cause:
            log.warning("a request nobody can read", reason=str(cause))
            return
        named = [cluster for cluster in self.held if fnmatchcase(cluster.name, wanted.cluster)]
        lists = sum(cluster.relist(lambda text: fnmatchcase(text, wanted.type)) for cluster in named)
        log.info("comparing lists on request", clusters=len(named), lists=lists)
        try:
            await message.respond(msgspec.json.encode(Relisting(self.identity, len(named), lists)))
        except TRANSPORT_ERRORS as cause:
            log.info("nobody to answer", reason=str(cause))
