"""Killed and started again: the same history goes on, and nothing is missing, repeated or left over."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal

import aiohttp


class View:
    """What a client holds: a list, then watches from its version; each event is checked against the view."""

    def __init__(self, url: str, path: str) -> None:
        self.url = url
        self.path = path
        self.objects: dict[tuple[str, str, str], dict] = {}
        self.version = ""
        self.index = 0
        self.events = 0

    @staticmethod
    def key(item):
        metadata = item["metadata"]
        cluster = metadata["annotations"]["shadow.clusterpedia.io/cluster-name"]
        return (cluster, metadata.get("namespace", ""), metadata["name"])

    async def list(self) -> None:
        async with aiohttp.ClientSession() as session, session.get(self.url + self.path) as answer:
            assert answer.status == 200, await answer.text()
            found = await answer.json()
        self.version = found["metadata"]["resourceVersion"]
        self.index = int(self.version.split(".")[1])
        self.objects = {self.key(item): item for item in found["items"]}

    def take_in(self, event) -> None:
        item = event["object"]
        assert event["type"] != "ERROR", event
        version = item["metadata"]["resourceVersion"]
        index = int(version.split(".")[1])
        assert index >= self.index, f"version {version} after index {self.index}"
        self.version, self.index = version, index
        if event["type"] == "BOOKMARK":
            return
        self.events += 1
        key = self.key(item)
        known = self.objects.get(key)
        if event["type"] == "ADDED":
            assert known is None, f"ADDED for {key}, which is known"
            self.objects[key] = item
        elif event["type"] == "MODIFIED":
            assert known is not None, f"MODIFIED for {key}, which is unknown"
            assert known["metadata"]["uid"] == item["metadata"]["uid"]
            assert known["metadata"]["resourceVersion"] != version, f"{key} twice at {version}"
            self.objects[key] = item
        else:
            assert known is not None, f"DELETED for {key}, which is unknown"
            del self.objects[key]

    async def follow(self) -> None:
        """Watches until the connection ends."""
        query = {"watch": "1", "resourceVersion": self.version, "allowWatchBookmarks": "true"}
        timeout = aiohttp.ClientTimeout(total=None)
        with contextlib.suppress(aiohttp.ClientError):
            async with (
                aiohttp.ClientSession(timeout=timeout, read_bufsize=2**22) as session,
                session.get(self.url + self.path, params=query) as answer,
            ):
                if answer.status == 429:
                    return
                assert answer.status == 200, await answer.text()
                async for line in answer.content:
                    if not line.endswith(b"\n"):
                        return
                    self.take_in(json.loads(line))

    async def follow_for_ever(self) -> None:
        while True:
            await self.follow()
            await asyncio.sleep(0.05)


async def test_kill_and_start_again(members, start, compare):
    """SIGKILL again and again under churn: one prefix, growing indexes, watches that go on from before."""
    data = str(members.kubeconfig.parent / "data")
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", data)
    service = await start(*arguments)
    views = [
        View(service.url, path) for path in ("/api/v1/pods", "/apis/apps/v1/deployments", "/clusters/bravo/api/v1/pods")
    ]
    for view in views:
        await view.list()
    prefix = views[0].version.split(".")[0]
    followers = [asyncio.create_task(view.follow_for_ever()) for view in views]
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
    for view in views:
        fresh = View(service.url, view.path)
        await fresh.list()
        for _ in range(200):
            if view.objects == fresh.objects:
                break
            await asyncio.sleep(0.05)
        assert view.objects == fresh.objects
        assert view.events > 0
    for follower in followers:
        follower.cancel()
    for result in await asyncio.gather(*followers, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), result


async def test_kill_during_the_first_lists(members, start, compare):
    data = str(members.kubeconfig.parent / "data")
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", data, ready=False)
    chance = random.Random(3)
    for _ in range(4):
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        await service.kill()
        await service.start()
    await service.ready()
    await compare.settle(service.url, members.clusters)


async def test_restart_appends_only_what_changed_meanwhile(members, start, compare):
    data = str(members.kubeconfig.parent / "data")
    arguments = ("--kubeconfig", str(members.kubeconfig), "--data", data)
    service = await start(*arguments)
    await compare.settle(service.url, members.clusters)
    pods = await service.get("/api/v1/pods")
    before = {View.key(item): item["metadata"]["resourceVersion"] for item in pods["items"]}
    await service.stop()
    alpha = members["alpha"]
    gone = next(item for item in pods["items"] if View.key(item)[0] == "alpha")
    async with aiohttp.ClientSession() as session:
        path = f"/api/v1/namespaces/{gone['metadata']['namespace']}/pods/{gone['metadata']['name']}"
        async with session.delete(f"{alpha.url}{path}?gracePeriodSeconds=0") as answer:
            assert answer.status == 200, await answer.text()
    await service.start()
    await service.ready()
    await compare.settle(service.url, members.clusters)
    after = {
        View.key(item): item["metadata"]["resourceVersion"] for item in (await service.get("/api/v1/pods"))["items"]
    }
    assert View.key(gone) not in after
    assert {key: version for key, version in before.items() if key in after} == after, "unchanged objects keep versions"
    # The deletion during the gap reaches a client that watches from before it.
    view = View(service.url, "/api/v1/pods")
    view.objects = {View.key(item): item for item in pods["items"]}
    view.version = pods["metadata"]["resourceVersion"]
    follower = asyncio.create_task(view.follow())
    for _ in range(100):
        if View.key(gone) not in view.objects:
            break
        await asyncio.sleep(0.05)
    assert View.key(gone) not in view.objects
    assert view.events == 1
    follower.cancel()


async def test_stops_cleanly(members, start):
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(members.kubeconfig.parent / "data"))
    view = View(service.url, "/api/v1/pods")
    await view.list()
    following = asyncio.create_task(view.follow())
    await asyncio.sleep(0.3)
    assert await service.stop() == 0, service.output()
    await asyncio.wait_for(following, 10)
    assert "Traceback" not in service.output()


async def test_the_log_server_killed_under_watchers(members, start, compare):
    """SIGKILL to the embedded NATS alone: it is started again, watches stay open and lose and repeat nothing."""
    data = members.kubeconfig.parent / "data"
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(data))
    view = View(service.url, "/api/v1/pods")
    await view.list()
    connections = 0

    async def follow() -> None:
        nonlocal connections
        while True:
            connections += 1
            await view.follow()

    follower = asyncio.create_task(follow())
    for cluster in members.clusters:
        cluster.churn.rate = 40
    for _ in range(2):
        await asyncio.sleep(2.5)
        os.kill(int((data / "nats" / "nats.pid").read_text()), signal.SIGKILL)
    await asyncio.sleep(2)
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await compare.settle(service.url, members.clusters, patience=60)
    fresh = View(service.url, "/api/v1/pods")
    await fresh.list()
    for _ in range(200):
        if view.objects == fresh.objects:
            break
        await asyncio.sleep(0.05)
    assert view.objects == fresh.objects
    assert connections == 1, "the watch stayed open"
    assert not follower.done()
    follower.cancel()
