"""The producer: all clusters of one process, each on its own."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable

import structlog

from deltalog.stream import Log
from producers.cluster import ClusterProducer
from producers.kubeconfig import Context
from producers.ownership import Deposed
from producers.rules import Rules

log = structlog.get_logger("producers")


def producer_id() -> str:
    """A name for this process that no other one has or had."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Producer:
    """Runs a `ClusterProducer` for each context."""

    def __init__(
        self,
        contexts: Iterable[Context],
        rules: Rules,
        open_log: Callable[[], Awaitable[Log]],
        identity: str | None = None,
    ) -> None:
        self.identity = identity or producer_id()
        self.clusters = [ClusterProducer(context, rules, open_log, self.identity) for context in contexts]

    async def run(self) -> None:
        """Produces until cancelled. Raises Deposed when no cluster is left to this process."""
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._run_one(cluster), name=f"cluster {cluster.name}") for cluster in self.clusters
            ]
            await asyncio.wait(running)
        raise Deposed("every cluster was taken over by another producer")

    async def first_lists(self) -> None:
        """Returns when each cluster's first lists are in the log, or the cluster is known to be unreachable."""
        await asyncio.gather(*(cluster.first_lists() for cluster in self.clusters))

    async def _run_one(self, cluster: ClusterProducer) -> None:
        try:
            await cluster.run()
        except Deposed as deposed:
            log.error("no longer producing", cluster=cluster.name, reason=str(deposed))
