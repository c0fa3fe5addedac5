"""NATS away, standing still or slow: what was known is served and said to be old; then it catches up, without loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import Comparison, Members, Starter, StartProcess, View
from tests.nats_cluster import Lone, SlowWay
from tests.patience import PATIENCE

PODS = "/api/v1/pods"
pytestmark = pytest.mark.usefixtures("limited")


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Lone]:
    async with Lone(tmp_path) as started:
        yield started


async def asked(url: str, **query: str) -> tuple[int, str, str]:
    """Status, warnings and text."""
    async with aiohttp.ClientSession() as session, session.get(url, params=query) as answer:
        return answer.status, " ".join(answer.headers.getall("Warning", ())), await answer.text()


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await true():
            await asyncio.sleep(0.1)


async def metric(url: str, name: str) -> float:
    _, _, text = await asked(f"{url}/metrics")
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def annotate(cluster: Any, value: str) -> None:
    """Changes each pod of a cluster."""
    async with aiohttp.ClientSession() as session:
        async with session.get(cluster.url + PODS) as answer:
            pods = (await answer.json())["items"]
        for pod in pods:
            path = f"{cluster.url}/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            patch = {"metadata": {"annotations": {"example.com/turn": value}}}
            headers = {"Content-Type": "application/merge-patch+json"}
            async with session.patch(path, json=patch, headers=headers) as answer:
                assert answer.status == 200, await answer.text()


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_away(
    how: str, nats: Lone, members: Members, start: Starter, view: type[View], compare: Comparison, process: StartProcess
) -> None:
    await start(*("--nats", nats.url, "--kubeconfig", str(members.kubeconfig)), command="produce", ready=False)
    serving = await start("--nats", nats.url, "--not-ready-after", "10s", command="serve")
    await compare.settle(serving.url, members.clusters)
    watcher = view(serving.url, PODS)
    await watcher.list()
    following = asyncio.create_task(watcher.follow())
    assert (await asked(serving.url + PODS))[1] == ""
    assert await metric(serving.url, "kubebraid_log_reachable") == 1.0
    assert await metric(serving.url, "kubebraid_log_age_seconds") < 7.0
    if how == "killed":
        await nats.kill()
    else:
        nats.stop()
    await annotate(members["alpha"], "meanwhile")

    # A consistent read waits a second, then says that it was none.
    async with asyncio.timeout(PATIENCE):
        status, warned, text = await asked(serving.url + PODS)
    assert status == 200
    assert "the log cannot be reached; this state is " in warned
    assert '"items":[{' in text

    async def known() -> bool:
        return "log unreachable for" in (await asked(f"{serving.url}/readyz?verbose"))[2]

    await until(known)
    # Known to be old, each answer says so, also one that was to be quick, and a watch.
    for query in ({"resourceVersion": "0"}, {"watch": "1", "resourceVersion": watcher.version, "timeoutSeconds": "1"}):
        status, warned, _ = await asked(serving.url + PODS, **query)
        assert status == 200
        assert warned.count("the log cannot be reached; this state is ") == 1
        assert "is not ready and the resources obtained may be inaccurate" not in warned

    async def not_ready() -> bool:
        status, _, said = await asked(f"{serving.url}/readyz")
        return status == 503 and "serving what was known then (not ready after 10 s)" in said

    await until(not_ready)
    assert await metric(serving.url, "kubebraid_log_reachable") == 0.0
    assert await metric(serving.url, "kubebraid_log_age_seconds") > 10.0
    asking = await process("status", "--server", serving.url)
    assert await asking.child.wait() == 1
    assert "the log has been unreachable for" in asking.output()
    assert (await asked(serving.url + PODS))[0] == 200, "it serves all the same"
    assert not following.done(), "watches stay open"

    if how == "killed":
        await nats.start()
    else:
        nats.go_on()
    await serving.ready()
    await compare.settle(serving.url, members.clusters)
    await watcher.equals(serving)
    assert not following.done()
    assert {
        item["metadata"]["annotations"].get("example.com/turn")
        for key, item in watcher.objects.items()
        if key[0] == "alpha"
    } == {"meanwhile"}
    assert (await asked(serving.url + PODS))[1] == ""
    assert "unreachable" not in (await asked(f"{serving.url}/readyz?verbose"))[2]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_slow_way(nats: Lone, members: Members, start: Starter, view: type[View], compare: Comparison) -> None:
    """Both sides over a line that is far too slow for what goes on: nothing gets lost, it is late."""
    async with SlowWay(nats.port, 400_000.0) as writing, SlowWay(nats.port, 150_000.0) as reading:
        await start(
            *("--nats", f"nats://127.0.0.1:{writing.port}", "--kubeconfig", str(members.kubeconfig)),
            command="produce",
            ready=False,
        )
        serving = await start("--nats", f"nats://127.0.0.1:{reading.port}", command="serve", ready=False)
        await serving.ready(PATIENCE)
        await compare.settle(serving.url, members.clusters, patience=PATIENCE)
        watcher = view(serving.url, PODS)
        await watcher.list()
        following = asyncio.create_task(watcher.follow())
        for turn in range(3):
            await annotate(members["bravo"], str(turn))
        await compare.settle(serving.url, members.clusters, patience=PATIENCE)
        await watcher.equals(serving)
        assert not following.done()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
