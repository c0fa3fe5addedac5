"""Three clusters and one producer for them: `alpha`, which is in trouble, must not harm `bravo` and `charlie`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from deltalog import Log, open_log
from deltalog.wire.kubernetes import GroupResource
from materializer.entry import object_key
from materializer.materializer import Materializer
from producers.members.membership import Members
from producers.producer import Producer
from producers.rules.configuration import Configuration, Kubeconfig, Source
from producers.rules.rules import Rules
from producers.timing import ProducerTiming
from simulation import SimulatedCluster, write_kubeconfig
from tests.patience import PATIENCE
from tests.producers.conftest import Rig

CONFIG_MAPS = GroupResource("", "configmaps")
PATH = "/api/v1/namespaces/default/configmaps"
WELL = ("bravo", "charlie")
# Failures pass quickly, and so does what is said of them.
QUICK = ProducerTiming(
    probe_every=0.2,
    stable=0.3,
    failure_backoff=(0.02, 0.1),
    list_backoff=(0.02, 0.1),
    log_backoff=(0.02, 0.1),
    discover_every=0.5,
    discover_again=(0.02, 0.1),
    deposed=0.05,
    host_backoff=(0.02, 0.1),
    look_at_files_every=0.1,
    look_at_history_every=0.2,
    first_status=0.05,
    status_every=0.3,
    openapi_first_lists=0.1,
    openapi_again=0.05,
    openapi_every=0.3,
)


class Fleet:
    """Clusters alpha, bravo and charlie, one producer and one store."""

    def __init__(self, rig: Rig, clusters: dict[str, SimulatedCluster], kubeconfig: Path) -> None:
        self.rig = rig
        self.clusters = clusters
        self.kubeconfig = kubeconfig
        self.numbers = itertools.count()
        self.task: asyncio.Task[None] | None = None

    async def start(self, *include: str) -> tuple[Producer, Materializer]:
        self.writing = writing = await self.rig.connection("write")

        async def opened() -> Log:
            return await open_log(writing, self.rig.settings)

        source = Source(Kubeconfig(str(self.kubeconfig)), Rules.of(include or ("configmaps", "pods")))
        members = Members(Configuration((source,)), timing=QUICK)
        await members.first()
        producer = Producer(members, opened, writing, timing=QUICK)
        warm = await self.rig.materializer()
        self.task = asyncio.create_task(producer.run())
        self.rig._background(self.task)
        return producer, warm

    async def write(self, cluster: str) -> str:
        """Makes a ConfigMap in a cluster; its name."""
        name = f"n{next(self.numbers)}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
        async with aiohttp.ClientSession() as session:
            async with session.post(self.clusters[cluster].url + PATH, json=body) as answer:
                assert answer.status == 201, await answer.text()
        return name

    def shows(self, warm: Materializer, cluster: str, name: str) -> bool:
        kind = warm.store.types.get(CONFIG_MAPS)
        return kind is not None and kind.get(cluster, object_key("default", name)) is not None

    async def flows(self, warm: Materializer, *clusters: str) -> None:
        """Events of these clusters come through."""
        made = [(cluster, await self.write(cluster)) for cluster in clusters]
        await self.until(lambda: all(self.shows(warm, *one) for one in made), f"events of {clusters}")

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        loop = asyncio.get_running_loop()
        limit = loop.time() + PATIENCE
        while not holds():
            assert self.task is None or not self.task.done(), "the producer has ended"
            assert loop.time() < limit, f"{what}: they do not come"
            await asyncio.sleep(0.01)


@pytest.fixture
async def fleet(rig: Rig, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with contextlib.AsyncExitStack() as stack:
        clusters = {"alpha": rig.cluster}
        for name in WELL:
            clusters[name] = await stack.enter_async_context(SimulatedCluster(name, seed=2, pods=5))
        kubeconfig = tmp_path / "three"
        write_kubeconfig(list(clusters.values()), kubeconfig)
        yield Fleet(rig, clusters, kubeconfig)
