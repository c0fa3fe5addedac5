"""Processes that start while NATS does not answer: they wait, say so, serve a snapshot if they have one, and go on."""

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
from tests.nats_cluster import Lone, SlowWay
from tests.patience import PATIENCE

PODS = "/api/v1/pods"
AWAY = "NATS is away: serving what a snapshot holds"
pytestmark = pytest.mark.usefixtures("limited")


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Lone]:
    async with Lone(tmp_path) as started:
        yield started


async def asked(url: str, **query: str) -> tuple[int, str, str]:
    """Status, warnings and text."""
    async with aiohttp.ClientSession() as session, session.get(url, params=query) as answer:
        return answer.status, " ".join(answer.headers.getall("Warning", ())), await answer.text()


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


async def probe(serving: Any, path: str) -> tuple[int, str]:
    """Status and text; a process that does not listen yet is waited for."""
    async with asyncio.timeout(PATIENCE):
        while True:
            assert serving.process.returncode is None, serving.output()
            with contextlib.suppress(aiohttp.ClientError):
                status, _, text = await asked(serving.url + path)
                return status, text
            await asyncio.sleep(0.1)


async def waits(serving: Any, reason: str = "does not answer") -> None:
    """Returns when a process waits for NATS as it has to: alive, not ready for a reason that is said."""
    async with asyncio.timeout(PATIENCE):
        while True:
            status, text = await probe(serving, "/readyz")
            assert status == 503, text
            if re.search(rf"^\[-\]NATS at nats://\S+ .*{reason}", text, re.MULTILINE):
                break
            await asyncio.sleep(0.1)
    assert await probe(serving, "/livez") == (200, "ok")
    assert "the log cannot be opened" in serving.output()
    assert reason in serving.output()


async def tells_clients_to_wait(serving: Any) -> None:
    """What clients are answered while there is nothing to read: as by an instance that replays."""
    for path in (
        PODS,
        "/api",
        "/apis",
        "/api/v1",
        "/clusters",
        f"/clusters/alpha{PODS}",
        "/openapi/v2",
        PODS + "?watch=1",
    ):
        async with aiohttp.ClientSession() as session, session.get(serving.url + path) as answer:
            assert (answer.status, answer.headers.get("Retry-After")) == (429, "1"), path
            status = await answer.json()
        assert (status["kind"], status["code"], status["reason"]) == ("Status", 429, "TooManyRequests")
    assert (await probe(serving, "/version"))[0] == 200
    metrics = (await probe(serving, "/metrics"))[1]
    assert re.search(r"^kubebraid_log_reachable(\{.*\})? 0\.0$", metrics, re.MULTILINE), metrics


@contextlib.asynccontextmanager
async def silent(port: int) -> AsyncIterator[None]:
    """Takes connections at a port and never says a word."""
    held: list[asyncio.StreamWriter] = []

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(hold, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for writer in held:
            writer.close()


@pytest.fixture
async def later(tmp_path: Path) -> AsyncIterator[Lone]:
    """A NATS that has not been started yet."""
    server = Lone(tmp_path)
    try:
        yield server
    finally:
        await server.kill()


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["alone", "workers"])
async def test_serve_without_a_snapshot(
    workers: tuple[()] | tuple[str, str], later: Lone, members: Members, start: Starter, compare: Comparison
) -> None:
    serving = await start("--nats", later.url, *workers, command="serve", ready=False)
    await waits(serving)
    await tells_clients_to_wait(serving)
    await later.start()
    await start("--nats", later.url, "--kubeconfig", str(members.kubeconfig), command="produce", ready=False)
    await serving.ready()
    await compare.settle(serving.url, members.clusters, patience=PATIENCE)
    async with asyncio.timeout(PATIENCE):
        # It may be another worker that answers.
        while "NATS at" in (await probe(serving, "/readyz?verbose"))[1]:
            await asyncio.sleep(0.1)


async def test_produce(later: Lone, members: Members, start: Starter, compare: Comparison) -> None:
    producing = await start(
        "--nats", later.url, "--kubeconfig", str(members.kubeconfig), command="produce", ready=False
    )
    await waits(producing)
    assert "kubebraid_producer_log_refusing" in (await probe(producing, "/metrics"))[1]
    await later.start()
    await producing.ready()
    serving = await start("--nats", later.url, command="serve")
    await compare.settle(serving.url, members.clusters, patience=PATIENCE)
    assert "the log is open" in producing.output()


async def test_up(later: Lone, members: Members, start: Starter, compare: Comparison) -> None:
    both = await start("--nats", later.url, "--kubeconfig", str(members.kubeconfig), command="up", ready=False)
    await waits(both)
    await tells_clients_to_wait(both)
    await later.start()
    await both.ready()
    await compare.settle(both.url, members.clusters, patience=PATIENCE)
    assert "list is in the log" in both.output(), "progress is shown as in any other start"
    assert await both.stop() == 0


async def test_a_nats_that_takes_connections_and_says_nothing(
    later: Lone, members: Members, start: Starter, compare: Comparison
) -> None:
    async with silent(later.port):
        both = await start("--nats", later.url, "--kubeconfig", str(members.kubeconfig), command="up", ready=False)
        await waits(both)
        await tells_clients_to_wait(both)
    await later.start()
    await both.ready()
    await compare.settle(both.url, members.clusters, patience=PATIENCE)


async def test_a_nats_that_answers_late(nats: Lone, members: Members, start: Starter, compare: Comparison) -> None:
    """Connected or not, its answers come only when it goes on."""
    nats.stop()
    both = await start("--nats", nats.url, "--kubeconfig", str(members.kubeconfig), command="up", ready=False)
    await waits(both)
    nats.go_on()
    await both.ready()
    await compare.settle(both.url, members.clusters, patience=PATIENCE)


async def test_a_nats_whose_jetstream_comes_later(
    later: Lone, members: Members, start: Starter, compare: Comparison
) -> None:
    configuration = later.directory / "nats.conf"
    complete = configuration.read_text()
    configuration.write_text("\n".join(line for line in complete.splitlines() if "jetstream" not in line))
    await later.start()
    both = await start("--nats", later.url, "--kubeconfig", str(members.kubeconfig), command="up", ready=False)
    await waits(both, "has no JetStream")
    await tells_clients_to_wait(both)
    await later.kill()
    configuration.write_text(complete)
    await later.start()
    await both.ready()
    await compare.settle(both.url, members.clusters, patience=PATIENCE)


async def test_a_name_that_does_not_resolve_is_waited_for(start: Starter) -> None:
    serving = await start("--nats", "nats://nats.invalid:4222", command="serve", ready=False)
    await waits(serving)


@pytest.mark.parametrize("command", ["serve", "workers", "produce", "up"])
async def test_who_is_refused_ends(command: str, members: Members, start: Starter, tmp_path: Path) -> None:
    """One line with the mend, also where NATS had to be waited for."""
    nats = Lone(tmp_path, 'authorization { user: us, password: "right" }\n')
    url = nats.url.replace("//", "//us:wrong@")
    arguments = {
        "serve": ("serve",),
        "workers": ("serve", "--workers", "2"),
        "produce": ("produce", "--kubeconfig", str(members.kubeconfig)),
        "up": ("up", "--kubeconfig", str(members.kubeconfig)),
    }[command]
    waiting = await start(*arguments[1:], "--nats", url, command=arguments[0], ready=False)
    await waits(waiting)
    async with nats:
        assert await asyncio.wait_for(waiting.child.wait(), PATIENCE) == 1
        told = [line for line in waiting.output().splitlines() if line.startswith("kubebraid: ")]
        assert "cannot be used: it refuses who we are" in told[0]
        at_once = await start(*arguments[1:], "--nats", url, command=arguments[0], ready=False)
        assert await asyncio.wait_for(at_once.child.wait(), PATIENCE) == 1
        lines = [line for line in at_once.output().splitlines() if line.startswith("kubebraid: ")]
        assert len(lines) == 1, lines
        assert "check --nats-creds" in lines[0]


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
    assert (await asked(serving.url + PODS))[1] == ""
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
