"""Started from a snapshot: watches go on from before and after it, whatever way the process before ended."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from kubebraid.command.broker import EmbeddedBroker
from tests.e2e.conftest import Comparison, Members, Service, Starter, StartProcess, View
from tests.patience import PATIENCE

FROM_SNAPSHOT = "going on from a snapshot"
IGNORED = "the snapshot is ignored"
SHARED = "a snapshot's records are shared"
PATHS = ("/api/v1/pods", "/apis/apps/v1/deployments", "/clusters/bravo/api/v1/pods")


def as_a_reflector(view: View, event: dict[str, Any]) -> None:
    """Who resumes far back may be told of the deletion of what it doesn't have, and of changes of what is new to it."""
    assert event["type"] != "ERROR", event
    key = view.key(event["object"]) if event["type"] != "BOOKMARK" else None
    view.events += 1
    if event["type"] == "DELETED":
        assert key is not None
        view.objects.pop(key, None)
    elif key is not None:
        view.objects[key] = event["object"]


def as_one_who_was_away(view: View, event: dict[str, Any]) -> None:
    """Nothing is missing or repeated; but what came and went while nobody served may be told to be deleted."""
    if event["type"] == "DELETED" and view.key(event["object"]) not in view.objects:
        version = event["object"]["metadata"]["resourceVersion"]
        index = int(version.split(".")[1])
        assert index >= view.index
        view.version, view.index = version, index
        view.events += 1
        return
    type(view).take_in(view, event)


async def written(file: Path, since: int = 0) -> None:
    """Returns when there is a snapshot written after `since` (ns)."""
    async with asyncio.timeout(PATIENCE):
        while not file.exists() or file.stat().st_mtime_ns <= since:
            await asyncio.sleep(0.05)


async def test_killed_again_and_again(members: Members, start: Starter, compare: Comparison, view: type[View]) -> None:
    """Watchers come back with versions from before and after the snapshot: nothing lost or repeated."""
    data = members.kubeconfig.parent / "data"
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", str(data), "--snapshot-every", "1s")
    service = await start(*arguments)
    file = data / "snapshot" / "KUBEBRAID.snapshot"
    for cluster in members.clusters:
        cluster.churn.rate = 40
    views, followers, early = [], [], []
    for path in PATHS:
        one = view(service.url, path)
        await one.list()
        one.take_in = partial(as_one_who_was_away, one)  # type: ignore[method-assign]
        views.append(one)
        followers.append(asyncio.create_task(one.follow_for_ever()))
        # These come back at the end, from before the first snapshot.
        other = view(service.url, path)
        await other.list()
        other.take_in = partial(as_a_reflector, other)  # type: ignore[method-assign]
        early.append(other)
    prefix = views[0].version.split(".")[0]
    chance = random.Random(5)
    for _ in range(3):
        await written(file, file.stat().st_mtime_ns if file.exists() else 0)
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        await service.kill()
        await asyncio.sleep(chance.uniform(0.0, 1.0))
        await service.start()
        await service.ready()
        version = (await service.get("/api/v1/pods", limit="1"))["metadata"]["resourceVersion"]
        assert version.split(".")[0] == prefix
    assert service.output().count(FROM_SNAPSHOT) == 3, service.output()
    assert IGNORED not in service.output()
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await compare.settle(service.url, members.clusters)
    followers += [asyncio.create_task(one.follow()) for one in early]
    for one in (*views, *early):
        await one.equals(service)
        assert one.events > 0
    # One without a snapshot answers the same.
    await service.stop()
    pods = await whole_list(service, "/api/v1/pods")
    file.unlink()
    await service.stop()
    assert await whole_list(service, "/api/v1/pods") == pods
    for follower in followers:
        follower.cancel()
    for result in await asyncio.gather(*followers, return_exceptions=True):
        assert result is None or isinstance(result, asyncio.CancelledError), result


async def whole_list(service: Service, path: str) -> list[dict[str, Any]]:
    """The list of a service that is started for it; versions too, but for the list's own."""
    assert service.process is not None
    if service.process.returncode is not None:
        await service.start()
        await service.ready()
    return list((await service.get(path))["items"])


async def until_all_are(service: Service, times: int) -> None:
    """Returns when so many workers have said that they are ready."""
    async with asyncio.timeout(PATIENCE):
        while service.output().count("worker is ready") < times:
            await asyncio.sleep(0.05)


async def test_workers_start_from_one_snapshot(
    members: Members, start: Starter, process: StartProcess, compare: Comparison, broker: EmbeddedBroker, tmp_path: Path
) -> None:
    directory = tmp_path / "snapshots"
    await process("produce", "--kubeconfig", str(members.kubeconfig), "--nats", broker.url)
    arguments = ("--nats", broker.url, "--workers", "2", "--snapshot", str(directory))
    service = await start(*arguments, command="serve")
    await until_all_are(service, 2)
    # Long before one is due, so that they have something to share.
    await written(directory / "KUBEBRAID.snapshot")
    async with asyncio.timeout(PATIENCE):
        # A worker that was slower than the other one's snapshot starts from it.
        while service.output().count(SHARED) + service.output().count(FROM_SNAPSHOT) < 2:
            await asyncio.sleep(0.05)
    await compare.settle(service.url, members.clusters)
    before = service.output().count(FROM_SNAPSHOT)
    await service.stop()
    assert [one.name for one in directory.iterdir()] == ["KUBEBRAID.snapshot"]
    for cluster in members.clusters:
        cluster.churn.step(20)
    await service.start()
    await until_all_are(service, 4)
    await compare.settle(service.url, members.clusters)
    assert service.output().count(FROM_SNAPSHOT) == before + 2


async def test_a_damaged_one_and_none(members: Members, start: Starter, compare: Comparison) -> None:
    data = members.kubeconfig.parent / "data"
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", str(data))
    service = await start(*arguments)
    await compare.settle(service.url, members.clusters)
    await service.stop()
    file = data / "snapshot" / "KUBEBRAID.snapshot"
    text = bytearray(file.read_bytes())
    text[len(text) // 2] ^= 1
    file.write_bytes(text)
    await service.start()
    await service.ready()
    await compare.settle(service.url, members.clusters)
    assert service.output().count(IGNORED) == 1
    assert FROM_SNAPSHOT not in service.output()
    await service.stop()
    file.unlink()
    without = await start(*arguments, "--snapshot-every", "0")
    await compare.settle(without.url, members.clusters)
    await without.stop()
    assert not file.exists()


async def test_others_are_answered_while_one_is_written(members: Members, start: Starter, view: type[View]) -> None:
    """A snapshot that never ends to be due takes nothing from a watch."""
    data = members.kubeconfig.parent / "data"
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", str(data), "--snapshot-every", "1s")
    service = await start(*arguments)
    pods = view(service.url, "/api/v1/pods")
    await pods.list()
    connections = 0

    async def follow() -> None:
        nonlocal connections
        while True:
            connections += 1
            await pods.follow()

    follower = asyncio.create_task(follow())
    for cluster in members.clusters:
        cluster.churn.rate = 50
    file = data / "snapshot" / "KUBEBRAID.snapshot"
    for _ in range(3):
        await written(file, file.stat().st_mtime_ns if file.exists() else 0)
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await pods.equals(service)
    assert connections == 1
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/metrics") as answer:
        metrics = await answer.text()
    assert "kubebraid_snapshot_index" in metrics
    follower.cancel()
