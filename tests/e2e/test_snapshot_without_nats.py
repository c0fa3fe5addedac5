"""Instances that start while NATS does not answer serve a snapshot if they have one, and go on once it does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import Comparison, Members, Starter, View
from tests.e2e.questions import PODS, asked, waits
from tests.nats_cluster import Lone, SlowWay
from tests.patience import PATIENCE, eventually_awaited

AWAY = "NATS is away: serving what a snapshot holds"
pytestmark = pytest.mark.usefixtures("limited")


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Lone]:
    async with Lone(tmp_path) as started:
        yield started


async def change(cluster: Any, value: str) -> None:
    """Changes each pod of a cluster but one, which is deleted."""
    async with aiohttp.ClientSession() as session:
        async with session.get(cluster.url + PODS) as answer:
            pods = (await answer.json())["items"]
        for number, pod in enumerate(pods):
            path = f"{cluster.url}/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
            if not number:
                async with session.delete(path, params={"gracePeriodSeconds": "0"}) as answer:
                    assert answer.status == 200, await answer.text()
                continue
            patch = {"metadata": {"annotations": {"example.com/turn": value}}}
            headers = {"Content-Type": "application/merge-patch+json"}
            async with session.patch(path, json=patch, headers=headers) as answer:
                assert answer.status == 200, await answer.text()


async def objects(cluster: Any) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(cluster.url + PODS) as answer:
        found: list[dict[str, Any]] = (await answer.json())["items"]
        return found


def arguments(nats: Lone, directory: Path) -> tuple[str, ...]:
    return ("--nats", nats.url, "--snapshot", str(directory), "--not-ready-after", "1h")


async def cold(nats: Lone, members: Any, start: Any, compare: Any, directory: Path, *more: str) -> tuple[Any, Any]:
    """A producer, and an instance that was stopped and so has left a snapshot; both on NATS, which is killed."""
    producing = await start("--nats", nats.url, "--kubeconfig", str(members.kubeconfig), command="produce", ready=False)
    serving = await start(*arguments(nats, directory), *more, command="serve")
    await compare.settle(serving.url, members.clusters)
    return producing, serving


async def down(nats: Lone, serving: Any) -> None:
    await serving.stop()
    await nats.kill()


async def caught_up(serving: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while "unreachable" in (await asked(f"{serving.url}/readyz?verbose"))[2]:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["alone", "workers"])
async def test_serves_its_snapshot_and_goes_on(
    workers: tuple[()] | tuple[str, str],
    nats: Lone,
    members: Members,
    start: Starter,
    view: type[View],
    compare: Comparison,
    tmp_path: Path,
) -> None:
    _, serving = await cold(nats, members, start, compare, tmp_path / "snapshot", *workers)
    watcher = view(serving.url, PODS)
    await watcher.list()
    await change(members["alpha"], "before")
    await compare.settle(serving.url, members.clusters)
    await down(nats, serving)
    await change(members["alpha"], "meanwhile")

    await serving.start()
    await serving.ready()
    async with asyncio.timeout(PATIENCE):
        # The first worker that is ready is not the only one.
        while serving.output().count(AWAY) < max(1, 2 * bool(workers)):
            await asyncio.sleep(0.05)
    # Watches go on from before the stop and stay open; what is told is told once.
    following = asyncio.create_task(watcher.follow())
    status, warned, text = await asked(serving.url + PODS)
    assert status == 200
    assert "the log cannot be reached; this state is " in warned
    assert text.count('"example.com/turn":"before"') == 59
    assert "[!]log unreachable for " in (await asked(f"{serving.url}/readyz?verbose"))[2]
    assert "kubebraid_log_reachable" in (await asked(f"{serving.url}/metrics"))[2]
    await watcher.equals(serving)
    # Of a deletion at once a cluster tells two: that it is asked for, and that it has happened.
    assert watcher.events == 61
    assert not following.done()
    status, _, text = await asked(f"{serving.url}/clusters/alpha{PODS}", resourceVersion="0")
    assert status == 200

    await nats.start()
    await compare.settle(serving.url, members.clusters, patience=PATIENCE)
    await caught_up(serving)
    await watcher.equals(serving)
    assert watcher.events == 121, "one deleted and the others changed, each time"
    assert not following.done()

    async def without_warnings() -> bool:
        return not (await asked(serving.url + PODS))[1]

    # The producer waited for NATS, too, and a cluster whose type it reads back again is not ready meanwhile.
    await eventually_awaited(without_warnings)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    # The next snapshot is a good one.
    await serving.stop()
    await serving.start()
    await serving.ready()
    assert "the snapshot is ignored" not in serving.output()
    await compare.settle(serving.url, members.clusters, patience=PATIENCE)


@contextlib.asynccontextmanager
async def accepting(port: int) -> AsyncIterator[None]:
    """As proxies do for a server that is away: takes connections and closes them."""

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", port):
        yield


async def test_behind_a_proxy_and_over_a_slow_way(
    nats: Lone, members: Members, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    """What accepts and closes has refused nothing; and until all is read, no answer claims to be current."""
    async with SlowWay(nats.port, None) as way:
        given = ("--nats", f"nats://127.0.0.1:{way.port}", "--snapshot", str(tmp_path / "snapshot"))
        await start("--nats", nats.url, "--kubeconfig", str(members.kubeconfig), command="produce", ready=False)
        serving = await start(*given, "--not-ready-after", "1h", command="serve")
        await compare.settle(serving.url, members.clusters)
        await serving.stop()
    for turn in range(5):
        await change(members["alpha"], f"meanwhile {turn}")
        await change(members["bravo"], f"meanwhile {turn}")
    left = [one for one in (await objects(members["alpha"])) if one["metadata"].get("annotations")]
    assert left
    async with accepting(way.port):
        await serving.start()
        await serving.ready()
    assert AWAY in serving.output()
    await asyncio.sleep(1)
    way.rate = 400_000.0
    old = 0
    async with way:
        async with asyncio.timeout(PATIENCE):
            while True:
                status, warned, text = await asked(f"{serving.url}/clusters/alpha{PODS}", resourceVersion="0")
                assert status == 200
                if text.count("meanwhile 4") == len(left):
                    break
                old += 1
                assert (found := re.search(r"this state is (\d+) s old", warned)), warned
                assert int(found[1]) >= 1
                await asyncio.sleep(0.05)
        assert old
        await caught_up(serving)
        await compare.settle(serving.url, members.clusters, patience=PATIENCE)


async def test_a_log_that_was_lost_meanwhile(
    nats: Lone, members: Members, start: Starter, view: type[View], compare: Comparison, tmp_path: Path
) -> None:
    """It is another history: 410, once, and then what the producers have filled the new one with."""
    _, serving = await cold(nats, members, start, compare, tmp_path / "snapshot")
    watcher = view(serving.url, PODS)
    await watcher.list()
    before = watcher.version.split(".")[0]
    await down(nats, serving)
    await serving.start()
    await serving.ready()
    following = asyncio.create_task(watcher.follow())
    await watcher.equals(serving)
    shutil.rmtree(nats.directory / "js")
    await nats.start()
    with pytest.raises(AssertionError, match="'type': 'ERROR'"):
        await asyncio.wait_for(following, PATIENCE)
    await compare.settle(serving.url, members.clusters, patience=PATIENCE)
    await caught_up(serving)
    status, _, text = await asked(serving.url + PODS, resourceVersion=watcher.version)
    assert status == 410, text
    assert (await serving.get(PODS))["metadata"]["resourceVersion"].split(".")[0] != before


async def test_a_nats_that_will_not_do_yet_is_waited_for(
    members: Members, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    """What is wrong when NATS is back, and a file that is being replaced, do not end what is served."""
    token = tmp_path / "token"
    token.write_text("secret")
    secured = 'authorization { token: "secret" }\n'
    async with Lone(tmp_path, secured) as nats:
        url = nats.url.replace("//", "//secret@")
        given = ("--nats", nats.url, "--nats-token-file", str(token))
        await start("--nats", url, "--kubeconfig", str(members.kubeconfig), command="produce", ready=False)
        serving = await start(
            *given, "--snapshot", str(tmp_path / "snapshot"), "--not-ready-after", "1h", command="serve"
        )
        await compare.settle(serving.url, members.clusters)
        await down(nats, serving)
        await serving.start()
        await serving.ready()

        async def told(words: str) -> None:
            async with asyncio.timeout(PATIENCE):
                while words not in serving.output():
                    await asyncio.sleep(0.05)

        token.unlink()
        await told("No such file or directory")
        token.write_text("wrong")
        await nats.start()
        await told("cannot be used: ")
        assert "the log cannot be reached" in (await asked(serving.url + PODS))[1]
        token.write_text("secret")
        await compare.settle(serving.url, members.clusters, patience=PATIENCE)
        await caught_up(serving)


async def test_a_snapshot_that_cannot_be_served(
    nats: Lone, members: Members, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    """It is said, and the instance waits as one without a snapshot."""
    directory = tmp_path / "snapshot"
    _, serving = await cold(nats, members, start, compare, directory)
    await down(nats, serving)
    file = directory / "KUBEBRAID.snapshot"
    os.truncate(file, file.stat().st_size - 1)
    await serving.start()
    await waits(serving)
    assert "the snapshot is ignored: there is nothing to serve without NATS" in serving.output()
    assert "it is cut off" in serving.output()
    await nats.start()
    await serving.ready()
    await compare.settle(serving.url, members.clusters, patience=PATIENCE)


async def test_who_is_refused_is_not_served_a_snapshot(
    members: Members, start: Starter, compare: Comparison, tmp_path: Path
) -> None:
    """Wrong credentials are to be mended; nobody is to take what is old for what there is."""
    secured = 'authorization { user: us, password: "right" }\n'
    async with Lone(tmp_path, secured) as nats:
        url = nats.url.replace("//", "//us:right@")
        directory = tmp_path / "snapshot"
        given = ("--snapshot", str(directory))
        await start("--nats", url, "--kubeconfig", str(members.kubeconfig), command="produce", ready=False)
        serving = await start("--nats", url, *given, command="serve")
        await compare.settle(serving.url, members.clusters)
        await serving.stop()
        assert (directory / "KUBEBRAID.snapshot").exists()
        other = await start("--nats", url.replace("right", "wrong"), *given, command="serve", ready=False)
        assert other.process is not None
        assert await asyncio.wait_for(other.process.wait(), PATIENCE) == 1
        assert "cannot be used" in other.output()
        assert AWAY not in other.output()
