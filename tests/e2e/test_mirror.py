"""Mirrors: an instance on one, beside the log or behind a leaf node, serves the same versions; what happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import Comparison, Members, Starter, StartProcess, View
from tests.nats_cluster import NatsCluster
from tests.nats_regions import Regions
from tests.patience import PATIENCE, eventually_awaited

PODS = "/api/v1/pods"
pytestmark = pytest.mark.usefixtures("limited")


@pytest.fixture
async def regions(tmp_path: Path) -> AsyncIterator[Regions]:
    async with Regions(tmp_path) as started:
        yield started


class Mover:
    """A client that watches here and there in turn, with the version it has."""

    def __init__(self, watcher: Any, urls: list[str]) -> None:
        self.watcher = watcher
        self.urls = urls
        self.moves = 0

    async def run(self) -> None:
        await self.watcher.list()
        while True:
            self.watcher.url = self.urls[self.moves % len(self.urls)]
            self.moves += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.4):
                    await self.watcher.follow()


async def annotate(cluster: Any, value: str, limit: int = 20) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(cluster.url + PODS) as answer:
            pods = (await answer.json())["items"][:limit]
        for pod in pods:
            path = f"{cluster.url}/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            headers = {"Content-Type": "application/merge-patch+json"}
            patch = {"metadata": {"annotations": {"example.com/turn": value}}}
            async with session.patch(path, json=patch, headers=headers) as answer:
                assert answer.status == 200


async def version(service: Any) -> str:
    found = await service.get("/api/v1/pods", limit="1")
    return str(found["metadata"]["resourceVersion"])


async def warned(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200
        return " ".join(answer.headers.getall("Warning", ()))


async def same_versions(one: Any, other: Any) -> None:
    """Each object has the same version string here and there. Nothing may change meanwhile."""
    for path in (PODS, "/apis/apps/v1/deployments", "/api/v1/nodes"):
        here, there = [(await service.get(path))["items"] for service in (one, other)]
        assert here == there


async def test_another_region(
    regions: Regions, members: Members, start: Starter, process: StartProcess, compare: Comparison, view: type[View]
) -> None:
    await start(*("--nats", regions.hub.url, "--kubeconfig", str(members.kubeconfig)), command="produce", ready=False)
    hub = await start("--nats", regions.hub.url, command="serve")
    await compare.settle(hub.url, members.clusters)
    mirror = ("mirror", "--nats", regions.west.url, "--from-domain", "hub")
    making = await process(*mirror, "--once")
    assert await making.child.wait() == 0, making.output()
    assert "mirror made" in making.output()
    await process(*mirror)
    west = await start("--nats", regions.west.url, command="serve")
    await compare.settle(west.url, members.clusters)
    assert (await version(west)).split(".")[0] == (await version(hub)).split(".")[0]
    await same_versions(hub, west)

    # A client moves between the two while things change: no 410, nothing lost, nothing twice.
    mover = Mover(view(hub.url, PODS), [hub.url, west.url])
    moving = asyncio.create_task(mover.run())
    turn = 0
    while mover.moves < 6:
        turn += 1
        await annotate(members["alpha"], str(turn))

    async def annotated(url: str) -> int | None:
        """So many pods of an answer have the last turn; None if it is behind, and says so (504)."""
        async with aiohttp.ClientSession() as session, session.get(url + PODS) as answer:
            assert answer.status in (200, 504), await answer.text()
            return json.dumps(await answer.json()).count(f'"example.com/turn": "{turn}"') if answer.ok else None

    async def in_the_log() -> bool:
        return await annotated(hub.url) == 20

    await eventually_awaited(in_the_log)
    # A write that the log has is read in the west at once: a consistent read asks the origin.
    async with asyncio.timeout(PATIENCE):
        while (read := await annotated(west.url)) is None:
            pass
    assert read == 20
    await mover.watcher.equals(west)
    await mover.watcher.equals(hub)
    assert not moving.done(), moving.exception()
    moving.cancel()
    await asyncio.gather(moving, return_exceptions=True)
    assert await warned(west.url + PODS) == ""

    # Cut off, it serves what it has and says so, also after a new start; joined again it catches up.
    before = await version(west)
    regions.west.configure("")
    await regions.west.kill()
    await regions.west.start()
    await annotate(members["bravo"], "meanwhile")
    async with asyncio.timeout(PATIENCE):
        while "the log cannot be reached; this state is" not in await warned(f"{west.url}{PODS}?resourceVersion=0"):
            await asyncio.sleep(0.2)
    assert await version(west) == before
    again = await start("--nats", regions.west.url, command="serve")
    assert await version(again) == before
    regions.west.configure(regions.remote)
    await regions.west.kill()
    await regions.west.start()
    await compare.settle(west.url, members.clusters, patience=PATIENCE)
    await compare.settle(again.url, members.clusters, patience=PATIENCE)
    await same_versions(hub, again)
    async with asyncio.timeout(PATIENCE):
        while await warned(west.url + PODS):
            await asyncio.sleep(0.2)


async def test_beside_the_log_and_with_another_history(
    tmp_path: Path, members: Members, start: Starter, process: StartProcess, compare: Comparison
) -> None:
    """In one cluster of servers; the log is then deleted, the mirror and all on it follow to the new history."""
    async with NatsCluster(tmp_path) as nats:
        await start(
            *("--nats", nats.url, "--replicas", "3", "--kubeconfig", str(members.kubeconfig)),
            command="produce",
            ready=False,
        )
        origin = await start("--nats", nats.url, command="serve")
        await compare.settle(origin.url, members.clusters, patience=PATIENCE)
        wrong = await process("mirror", "--nats", nats.url, "--once")
        assert await wrong.child.wait() == 1
        assert "needs another name; give --stream" in wrong.output()
        await process("mirror", "--nats", nats.url, "--stream", "COPY", "--replicas", "3")
        async with asyncio.timeout(PATIENCE):
            while "error" in await nats.ask("$JS.API.STREAM.INFO.COPY"):
                await asyncio.sleep(0.1)
        copy = await start("--nats", nats.url, "--stream", "COPY", command="serve")
        await compare.settle(copy.url, members.clusters)
        await same_versions(origin, copy)
        info = await nats.ask("$JS.API.STREAM.INFO.COPY")
        assert info["config"]["num_replicas"] == 3

        before = (await version(copy)).split(".")[0]
        await nats.ask("$JS.API.STREAM.DELETE.KUBEBRAID")
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(AssertionError):
                    after = (await version(copy)).split(".")[0]
                    if after not in ("", before):
                        break
                await asyncio.sleep(0.2)
        await compare.settle(copy.url, members.clusters, patience=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            # Who notices first is either's chance.
            while True:
                with contextlib.suppress(AssertionError):
                    if (await version(origin)).split(".")[0] == after:
                        break
                await asyncio.sleep(0.2)
        await compare.settle(origin.url, members.clusters, patience=PATIENCE)
        async with aiohttp.ClientSession() as session:
            query = {"resourceVersion": f"{before}.1"}
            async with session.get(copy.url + PODS, params=query) as answer:
                assert answer.status == 410
        await same_versions(origin, copy)
