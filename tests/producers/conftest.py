"""Fixtures: a real NATS, a simulated cluster, a producer and a materializer in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deltalog import Connection, Log, LogSettings, Record, connect, open_log
from deltalog.reader import read_to_end
from deltalog.wire.kubernetes import GroupResource
from kubebraid.command.broker import EmbeddedBroker
from materializer import timing as materializer_timing
from materializer.entry import Entry
from materializer.materializer import Materializer
from producers.members.membership import Members
from producers.producer import Producer
from producers.rules.configuration import Configuration, Kubeconfig, Source
from producers.rules.rules import Rules
from producers.timing import ProducerTiming
from simulation import SimulatedCluster, write_kubeconfig
from tests.patience import PATIENCE


async def records(log: Log, after: int = 0) -> list[Record]:
    """What the log has, of all after a sequence or of its state."""
    found: list[Record] = []
    await read_to_end(log, found.append, after=after)
    return found


async def subjects(log: Log, after: int = 0) -> set[str]:
    return {one.subject for one in await records(log, after)}


class Rig:
    """One cluster, one NATS, and what runs between them."""

    def __init__(self, broker: EmbeddedBroker, cluster: SimulatedCluster, kubeconfig: Path) -> None:
        self.broker = broker
        self.cluster = cluster
        self.kubeconfig = kubeconfig
        self.stack = contextlib.AsyncExitStack()
        self.settings = LogSettings()
        # Of the materializers and producers that are started from now on.
        self.materializer_timing = materializer_timing.Timing()
        self.timing = ProducerTiming()
        # What the producers take of; all.
        self.namespaces: tuple[str, ...] = ()
        self.materializers: list[Materializer] = []

    async def connection(self, name: str) -> Connection:
        connection = await connect(self.broker.url, name=name)
        self.stack.push_async_callback(connection.close)
        return connection

    def _background(self, task: asyncio.Task[None]) -> None:
        async def end() -> None:
            task.cancel()
            _, left = await asyncio.wait((task,), timeout=PATIENCE)
            if left:
                for one in asyncio.all_tasks():
                    one.print_stack(limit=4, file=sys.stderr)
            assert not left, "a cancelled task goes on"

        self.stack.push_async_callback(end)

    async def materializer(self) -> Materializer:
        """Another materializer, replayed."""
        made = Materializer(
            await open_log(await self.connection("read"), self.settings), timing=self.materializer_timing
        )
        self._background(asyncio.create_task(made.run()))
        await made.ready.wait()
        self.materializers.append(made)
        return made

    async def start_producer(self, *include: str) -> asyncio.Task[None]:
        """Another producer, just begun."""
        return (await self._producer(include))[1]

    async def produce(self, *include: str) -> tuple[Producer, asyncio.Task[None]]:
        """Another producer, with its first lists in the log and in the stores of those that read it."""
        producer, task = await self._producer(include)
        await producer.first_lists()
        await asyncio.gather(*(one.wait_current(PATIENCE) for one in self.materializers))
        return producer, task

    async def _producer(self, include: tuple[str, ...]) -> tuple[Producer, asyncio.Task[None]]:
        writing = await self.connection("write")

        async def opened() -> Log:
            return await open_log(writing, self.settings)

        source = Source(Kubeconfig(str(self.kubeconfig)), Rules.of(include or ("*",), namespaces=self.namespaces))
        members = Members(Configuration((source,)), timing=self.timing)
        await members.first()
        producer = Producer(members, opened, writing, timing=self.timing)
        task = asyncio.create_task(producer.run())
        self._background(task)
        return producer, task

    async def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        data = None if body is None else json.dumps(body)
        async with aiohttp.ClientSession(headers={"Content-Type": kind}) as session:
            while True:
                async with session.request(method, self.cluster.url + path, data=data) as answer:
                    if answer.status < 300:
                        return await answer.json()
                    # A fault meant for the producer met us.
                    assert method == "GET", await answer.text()
                    assert answer.status in (429, 500, 503), await answer.text()

    async def settled(
        self, materializer: Materializer, path: str, group: str, resource: str, patience: float = PATIENCE
    ) -> list[Entry]:
        """Waits until the store has what the cluster lists at `path`; returns its entries."""
        limit = asyncio.get_running_loop().time() + patience
        while True:
            listed = (await self.request("GET", path))["items"]
            wanted = {
                (one["metadata"].get("namespace", ""), one["metadata"]["name"]): one["metadata"]["resourceVersion"]
                for one in listed
            }
            kind = materializer.store.types.get(GroupResource(group, resource))
            entries = list(kind.objects(self.cluster.name).values()) if kind is not None else []
            if {(entry.namespace, entry.name): entry.member_version for entry in entries} == wanted:
                materializer.store.check()
                return entries
            assert asyncio.get_running_loop().time() < limit, "the store does not get there"
            await asyncio.sleep(0.05)


@pytest.fixture
def max_payload() -> int:
    return 8 * 1024 * 1024


@pytest.fixture
def pods() -> int:
    return 30


@pytest.fixture
async def rig(tmp_path: Path, max_payload: int, pods: int) -> AsyncIterator[Rig]:
    async with EmbeddedBroker(tmp_path / "data", max_payload=max_payload) as broker:
        async with SimulatedCluster("alpha", seed=1, pods=pods) as cluster:
            kubeconfig = tmp_path / "kubeconfig"
            write_kubeconfig([cluster], kubeconfig)
            rig = Rig(broker, cluster, kubeconfig)
            async with rig.stack:
                yield rig
