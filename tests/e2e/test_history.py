"""The log cut, made anew or put back behind kubebraid: every old version gets 410, and the new state is whole."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deltalog import Connection, LogSettings, open_log
from deltalog.history import History
from deltalog.jetstream.stream import Log
from kubebraid.command.broker import EmbeddedBroker
from tests.ageing import cut_one, state_at
from tests.e2e.conftest import Comparison, Members, Starter, StartProcess
from tests.halting import halt
from tests.patience import PATIENCE

PATHS = ("/api/v1/pods", "/apis/apps/v1/deployments", "/clusters/bravo/api/v1/configmaps")
Start = Callable[..., Awaitable[Any]]


class Watcher:
    """A list, then a watch from its version, and how that ended: with which event of type ERROR, if with any."""

    def __init__(self, url: str, path: str) -> None:
        self.url, self.path = url, path
        self.version = ""
        self.error: dict[str, Any] | None = None
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        async with aiohttp.ClientSession() as session, session.get(self.url + self.path) as answer:
            assert answer.status == 200
            self.version = (await answer.json())["metadata"]["resourceVersion"]
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        query = {"watch": "1", "resourceVersion": self.version, "allowWatchBookmarks": "true"}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), read_bufsize=2**22) as session,
            session.get(self.url + self.path, params=query) as answer,
        ):
            assert answer.status == 200
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    self.error = event["object"]
                    return

    async def expired(self) -> None:
        """Returns when the watch ended with 410."""
        assert self.task is not None
        async with asyncio.timeout(PATIENCE):
            await self.task
        assert self.error is not None, "the watch ended without a word"
        assert (self.error["code"], self.error["reason"]) == (410, "Expired")

    async def goes_on(self) -> None:
        """The watch is open still; then it is ended."""
        assert self.task is not None
        assert not self.task.done(), self.error
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def assert_expired(url: str, path: str, version: str) -> None:
    """A list at an old version, and a watch from there, get 410."""
    async with aiohttp.ClientSession() as session:
        async with session.get(url + path, params={"resourceVersion": version}) as answer:
            told = await answer.json()
            assert (answer.status, told["code"], told["reason"]) == (410, 410, "Expired")
        query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "5"}
        async with session.get(url + path, params=query) as answer:
            first = json.loads(await answer.content.readline())
            status = first["object"] if answer.status == 200 else first
            assert (status["code"], status["reason"]) == (410, "Expired")


async def prefix_of(service: Any) -> str:
    found = await service.get("/api/v1/namespaces", limit="1")
    return str(found["metadata"]["resourceVersion"].split(".")[0])


class Copy:
    """A copy of the NATS server's files."""

    def __init__(self, data: Path) -> None:
        self.files = data / "nats" / "jetstream"
        self.copy = data / "copy"

    def take(self) -> None:
        shutil.copytree(self.files, self.copy)

    def put_back(self) -> None:
        shutil.rmtree(self.files)
        shutil.copytree(self.copy, self.files)


@pytest.fixture
async def log(connection: Connection) -> Log:
    return await open_log(connection, LogSettings())


async def purge(log: Log, **options: Any) -> None:
    await state_at(log, await log.head())
    for name in (f"{log.name}_STATE", log.name):
        await log.connection.api(f"STREAM.PURGE.{name}", options)


async def make_namespaces(cluster: Any, service: Any) -> None:
    """Objects that nothing else changes, as the last in the log; returns when they are served."""
    names = {f"late-{number}" for number in range(3)}
    async with aiohttp.ClientSession() as session:
        for name in names:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            async with session.post(f"{cluster.url}/api/v1/namespaces", json=body) as answer:
                assert answer.status == 201
    async with asyncio.timeout(PATIENCE):
        while not names <= {one["metadata"]["name"] for one in (await service.get("/api/v1/namespaces"))["items"]}:
            await asyncio.sleep(0.05)


async def delete_namespaces(log: Log) -> None:
    """Takes the messages of those out of the stream."""
    for number in range(3):
        found = await log.last(f"kb.alpha.core.v1.namespaces._.late-{number}")
        assert found is not None
        await cut_one(log, found[0])


async def happen(what: str, log: Log, broker: EmbeddedBroker, copy: Copy) -> None:
    """What a log may go through."""
    if what == "purged":
        await purge(log)
    elif what == "purged but the end":
        await purge(log, keep=5)
    elif what == "last messages deleted":
        await delete_namespaces(log)
    elif what == "made anew":
        await log.connection.api(f"STREAM.DELETE.{log.name}")
    else:
        await broker.stop()
        copy.put_back()
        await broker.start()


WAYS = ["purged", "purged but the end", "last messages deleted", "made anew", "put back"]


@pytest.mark.parametrize("what", WAYS)
async def test_behind_running_instances(
    what: str, members: Members, start: Starter, compare: Comparison, broker: EmbeddedBroker, log: Log
) -> None:
    copy = Copy(broker.data)
    first = await start("--kubeconfig", str(members.kubeconfig), "--nats", broker.url)
    await compare.settle(first.url, members.clusters)
    before = await prefix_of(first)
    # Without loss it is the same history, over a restart of the server.
    await broker.stop()
    copy.take()
    await broker.start()
    for cluster in members.clusters:
        cluster.churn.step(30)
    await compare.settle(first.url, members.clusters)
    second = await start("--nats", broker.url, command="serve")
    await make_namespaces(members["alpha"], first)
    assert {await prefix_of(one) for one in (first, second)} == {before}
    watchers = [Watcher(one.url, path) for one in (first, second) for path in PATHS]
    for watcher in watchers:
        await watcher.start()
    for cluster in members.clusters:
        cluster.churn.rate = 20
    await happen(what, log, broker, copy)
    for watcher in watchers:
        await watcher.expired()
    for cluster in members.clusters:
        cluster.churn.rate = 0
    for one in (first, second):
        await compare.settle(one.url, members.clusters, patience=PATIENCE)
        for watcher in watchers:
            await assert_expired(one.url, watcher.path, watcher.version)
    # Who reads the log for the first time finds the same: what was lost is in it again.
    third = await start("--nats", broker.url, command="serve")
    await compare.settle(third.url, members.clusters, patience=PATIENCE)
    prefixes = {await prefix_of(one) for one in (first, second, third)}
    assert len(prefixes) == 1
    assert prefixes != {before}


@pytest.mark.parametrize("what", WAYS[:-1])
async def test_while_nobody_ran(
    what: str, members: Members, start: Starter, compare: Comparison, broker: EmbeddedBroker, log: Log
) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--nats", broker.url)
    await compare.settle(service.url, members.clusters)
    await make_namespaces(members["alpha"], service)
    watcher = Watcher(service.url, PATHS[0])
    await watcher.start()
    before = await prefix_of(service)
    await marked(log)
    await watcher.goes_on()
    await service.stop()
    await happen(what, log, broker, Copy(broker.data))
    for cluster in members.clusters:
        cluster.churn.step(30)
    await service.start()
    await service.ready()
    await compare.settle(service.url, members.clusters, patience=PATIENCE)
    assert await prefix_of(service) != before
    await assert_expired(service.url, watcher.path, watcher.version)


async def marked(log: Log) -> None:
    """Returns once it is noted beside the log that all that it holds now was served."""
    head, history = await log.head(), History(log)
    async with asyncio.timeout(PATIENCE):
        while not any(mark.index >= head for mark in await history.marks()):
            await asyncio.sleep(0.1)


async def test_an_embedded_log_put_back_while_nobody_ran(members: Members, start: Starter, compare: Comparison) -> None:
    data = members.kubeconfig.parent / "data"
    copy = Copy(data)
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(data))
    await compare.settle(service.url, members.clusters)
    before = await prefix_of(service)
    await service.stop()
    copy.take()
    # Started again on the same files it is the same history.
    await service.start()
    await service.ready()
    assert await prefix_of(service) == before
    for cluster in members.clusters:
        cluster.churn.step(100)
    await compare.settle(service.url, members.clusters)
    version = (await service.get(PATHS[0], limit="1"))["metadata"]["resourceVersion"]
    # A clean end notes how far it was served.
    await service.stop()
    mark = json.loads((data / "history-KUBEBRAID.json").read_text())
    assert mark["index"] >= int(version.split(".")[1])
    copy.put_back()
    for cluster in members.clusters:
        cluster.churn.step(200)
    await service.start()
    await service.ready()
    await compare.settle(service.url, members.clusters, patience=PATIENCE)
    assert await prefix_of(service) != before
    await assert_expired(service.url, PATHS[0], version)


async def test_a_log_put_back_under_producers_alone(
    members: Members, start: Starter, process: StartProcess, compare: Comparison, broker: EmbeddedBroker, log: Log
) -> None:
    """Nobody served it then: the producers saw how far it had come."""
    producing = await process("produce", "--kubeconfig", str(members.kubeconfig), "--nats", broker.url)
    service = await start("--nats", broker.url, command="serve")
    await compare.settle(service.url, members.clusters)
    copy = Copy(broker.data)
    await broker.stop()
    copy.take()
    await broker.start()
    for cluster in members.clusters:
        cluster.churn.step(100)
    await compare.settle(service.url, members.clusters, patience=PATIENCE)
    version = (await service.get(PATHS[0], limit="1"))["metadata"]["resourceVersion"]
    await service.stop()
    await happen("put back", log, broker, copy)
    for cluster in members.clusters:
        cluster.churn.rate = 20
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if (await log.state()).prefix != version.split(".")[0]:
                    break
            except Exception:  # noqa: BLE001 - any kind of not yet
                pass
            await asyncio.sleep(0.1)
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await service.start()
    await service.ready()
    await compare.settle(service.url, members.clusters, patience=PATIENCE)
    await assert_expired(service.url, PATHS[0], version)
    assert producing.child.returncode is None


async def test_a_server_that_stood_still_or_was_killed_is_the_same_history(
    members: Members, start: Starter, compare: Comparison, broker: EmbeddedBroker, log: Log
) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--nats", broker.url)
    await compare.settle(service.url, members.clusters)
    before = await prefix_of(service)
    watchers = [Watcher(service.url, path) for path in PATHS]
    for watcher in watchers:
        await watcher.start()
    for cluster in members.clusters:
        cluster.churn.rate = 20
    halt(broker.pid)
    # Longer than the reader waits for a heartbeat.
    await asyncio.sleep(8)
    os.kill(broker.pid, signal.SIGCONT)
    await asyncio.sleep(2)
    os.kill(broker.pid, signal.SIGKILL)
    await broker.wait()
    await broker.start()
    await asyncio.sleep(2)
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await compare.settle(service.url, members.clusters, patience=PATIENCE)
    # It has looked at the log since.
    await asyncio.sleep(7)
    for watcher in watchers:
        await watcher.goes_on()
    assert await prefix_of(service) == before
    other = await start("--nats", broker.url, command="serve")
    assert await prefix_of(other) == before
