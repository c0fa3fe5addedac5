"""The producer: all clusters of one process, each on its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable

import structlog

from deltalog.connection import Connection
from deltalog.stream import Log
from producers.cluster import ClusterProducer
from producers.kubeconfig import Context
from producers.leases import Leases
from producers.ownership import Deposed
from producers.rules import Rules

log = structlog.get_logger("producers")


def producer_id() -> str:
    """A name for this process that no other one has or had."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Producer:
    """Runs a `ClusterProducer` for each of its contexts that it has the lease of.

    `clusters` are all of them, by name; `held` those that are ours now.
    """

    def __init__(
        self,
        contexts: Iterable[Context],
        rules: Rules,
        open_log: Callable[[], Awaitable[Log]],
        connection: Connection,
        *,
        identity: str | None = None,
        bucket: str = "kubebraid-leases",
    ) -> None:
        self.identity = identity or producer_id()
        self.clusters = {context.name: ClusterProducer(context, rules, open_log, self.identity) for context in contexts}
        self.leases = Leases(connection, bucket, self.identity, list(self.clusters), take=self._take, drop=self._drop)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def held(self) -> list[ClusterProducer]:
        return [self.clusters[name] for name in self._running]

    async def run(self) -> None:
        """Produces until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self.leases.run(), name="leases")

    async def first_lists(self) -> None:
        """Returns when the first lists of each cluster we hold are in the log, or the cluster is unreachable."""
        await self.leases.settled.wait()
        await asyncio.gather(*(cluster.first_lists() for cluster in self.held))

    def _take(self, name: str) -> None:
        assert self._tasks is not None
        self._running[name] = self._tasks.create_task(self._produce(self.clusters[name]), name=f"cluster {name}")

    async def _drop(self, name: str) -> None:
        task = self._running.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _produce(self, cluster: ClusterProducer) -> None:
        while True:
            try:
                await cluster.run()
            except Deposed as deposed:
                # Whoever took it over has, or had, the lease: ours ends, or says that it is our turn again.
                log.warning("deposed", cluster=cluster.name, reason=str(deposed))
                await asyncio.sleep(2.0)
