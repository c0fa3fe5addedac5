"""Killed and started again: the same history goes on, and nothing is missing, repeated or left over."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import aiohttp

from deltalog import connect, open_log
from kubebraid.command.broker import EmbeddedBroker, port_in_use
from tests.e2e.conftest import Comparison, Members, Starter, View
from tests.patience import PATIENCE
from tests.ports import free_port


async def test_kill_and_start_again(members: Members, start: Starter, compare: Comparison, view: type[View]) -> None:
    """SIGKILL again and again under churn: one prefix, growing indexes, watches that go on from before."""
    data = str(members.kubeconfig.parent / "data")
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", data)
    service = await start(*arguments)
    views = [
        view(service.url, path) for path in ("/api/v1/pods", "/apis/apps/v1/deployments", "/clusters/bravo/api/v1/pods")
    ]
    for one in views:
        await one.list()
    prefix = views[0].version.split(".")[0]
    followers = [asyncio.create_task(one.follow_for_ever()) for one in views]
    for cluster in members.clusters:
        cluster.churn.rate = 40
    chance = random.Random(7)
    index = views[0].index
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0.2, 2.0))
        await service.kill()
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        await service.start()
        await service.ready()
        version = (await service.get("/api/v1/pods", limit="1"))["metadata"]["resourceVersion"]
        assert version.split(".")[0] == prefix
        assert int(version.split(".")[1]) >= index
        index = int(version.split(".")[1])
        for follower in followers:
            assert not follower.done() or follower.result() is None
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await compare.settle(service.url, members.clusters)
    for one in views:
        await one.equals(service)
        assert one.events > 0
    for follower in followers:
        follower.cancel()
    for result in await asyncio.gather(*followers, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), result


async def test_kill_during_the_first_lists(members: Members, start: Starter, compare: Comparison) -> None:
    data = str(members.kubeconfig.parent / "data")
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", data, ready=False)
    chance = random.Random(3)
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        await service.kill()
        await service.start()
    await service.ready()
    await compare.settle(service.url, members.clusters)


async def test_restart_appends_only_what_changed_meanwhile(
    members: Members, start: Starter, compare: Comparison, view: type[View]
) -> None:
    data = str(members.kubeconfig.parent / "data")
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", data)
    service = await start(*arguments)
    await compare.settle(service.url, members.clusters)
    pods = await service.get("/api/v1/pods")
    before = {view.key(item): item["metadata"]["resourceVersion"] for item in pods["items"]}
    await service.stop()
    alpha = members["alpha"]
    gone = next(item for item in pods["items"] if view.key(item)[0] == "alpha")
    async with aiohttp.ClientSession() as session:
        path = f"/api/v1/namespaces/{gone['metadata']['namespace']}/pods/{gone['metadata']['name']}"
        async with session.delete(f"{alpha.url}{path}?gracePeriodSeconds=0") as answer:
            assert answer.status == 200, await answer.text()
    await service.start()
    await service.ready()
    await compare.settle(service.url, members.clusters)
    after = {
        view.key(item): item["metadata"]["resourceVersion"] for item in (await service.get("/api/v1/pods"))["items"]
    }
    assert view.key(gone) not in after
    assert {key: version for key, version in before.items() if key in after} == after, "unchanged objects keep versions"
    # The deletion during the gap reaches a client that watches from before it.
    pods_view = view(service.url, "/api/v1/pods")
    pods_view.objects = {view.key(item): item for item in pods["items"]}
    pods_view.version = pods["metadata"]["resourceVersion"]
    follower = asyncio.create_task(pods_view.follow())
    async with asyncio.timeout(PATIENCE):
        while view.key(gone) in pods_view.objects:
            await asyncio.sleep(0.05)
    assert pods_view.events == 1
    follower.cancel()


async def test_stops_cleanly(members: Members, start: Starter, view: type[View]) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(members.kubeconfig.parent / "data"))
    pods_view = view(service.url, "/api/v1/pods")
    await pods_view.list()
    following = asyncio.create_task(pods_view.follow())
    await asyncio.sleep(0.3)
    assert await service.stop() == 0, service.output()
    await asyncio.wait_for(following, PATIENCE)
    assert "Traceback" not in service.output()


async def test_the_log_server_killed_under_watchers(
    members: Members, start: Starter, compare: Comparison, view: type[View]
) -> None:
    """SIGKILL to the embedded NATS alone: it is started again, watches stay open and lose and repeat nothing."""
    data = members.kubeconfig.parent / "data"
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(data))
    pods_view = view(service.url, "/api/v1/pods")
    await pods_view.list()
    connections = 0

    async def follow() -> None:
        nonlocal connections
        while True:
            connections += 1
            await pods_view.follow()

    follower = asyncio.create_task(follow())
    for cluster in members.clusters:
        cluster.churn.rate = 40
    file = data / "nats" / "nats.pid"
    for _ in range(2):
        # One that ends within two seconds of its start counts as one that cannot be started.
        await asyncio.sleep(2.5)
        killed = file.read_text()
        os.kill(int(killed), signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while not file.exists() or file.read_text() in ("", killed):
                await asyncio.sleep(0.05)
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await compare.settle(service.url, members.clusters)
    assert not follower.done(), follower.exception()
    await pods_view.equals(service)
    assert connections == 1, "the watch stayed open"
    assert not follower.done()
    follower.cancel()


async def test_another_server_on_the_port_of_the_log_server(
    members: Members, start: Starter, compare: Comparison, view: type[View], tmp_path: Path
) -> None:
    """The embedded NATS dies and another kubebraid's takes its port: neither is taken for the other."""
    data, port = members.kubeconfig.parent / "data", free_port()
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(data), "--nats-port", str(port))
    pods_view = view(service.url, "/api/v1/pods")
    await pods_view.list()
    prefix = pods_view.version.split(".")[0]
    follower = asyncio.create_task(pods_view.follow())
    for cluster in members.clusters:
        cluster.churn.rate = 20
    # It cannot start its server again before the other one is there.
    service.child.send_signal(signal.SIGSTOP)
    os.kill(int((data / "nats" / "nats.pid").read_text()), signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        while port_in_use("127.0.0.1", port):
            await asyncio.sleep(0.05)
    async with EmbeddedBroker(tmp_path / "other", port) as other:
        connection = await connect(other.url, name="other")
        their_log = await open_log(connection)
        service.child.send_signal(signal.SIGCONT)
        async with asyncio.timeout(PATIENCE):
            while "another server" not in service.output():
                assert not follower.done(), (follower.exception(), service.output())
                await asyncio.sleep(0.1)
        assert await their_log.head() == 0, "what is followed here must not come into another's log"
        await connection.close()
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await compare.settle(service.url, members.clusters)
    await pods_view.equals(service)
    assert not follower.done(), (follower.exception(), service.output())
    assert pods_view.version.split(".")[0] == prefix
    follower.cancel()
