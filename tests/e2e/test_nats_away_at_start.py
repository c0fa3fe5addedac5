"""Processes that start while NATS does not answer: they wait, say so, and go on."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import Comparison, Members, Starter
from tests.e2e.questions import PODS, probe, waits
from tests.nats_cluster import Lone
from tests.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("limited")


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


async def test_a_nats_that_answers_late(later: Lone, members: Members, start: Starter, compare: Comparison) -> None:
    """Connected or not, its answers come only when it goes on."""
    await later.start()
    later.stop()
    both = await start("--nats", later.url, "--kubeconfig", str(members.kubeconfig), command="up", ready=False)
    await waits(both)
    later.go_on()
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
