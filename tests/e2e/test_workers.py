"""`serve --workers`: several processes behind one address, any of which may die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kubebraid.command.broker import EmbeddedBroker
from tests.e2e.conftest import Comparison, Members, Service, Starter, StartProcess, View
from tests.patience import PATIENCE, eventually_awaited

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and Linux' SO_REUSEPORT")


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[str]:
    async with EmbeddedBroker(tmp_path / "nats") as broker:
        yield broker.url


def workers(service: Service) -> list[int]:
    """The process ids of a service's workers."""
    assert service.process is not None
    pid = service.process.pid
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def sample(service: Service, name: str) -> dict[str, float]:
    """A metric's value by worker."""
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    found: dict[str, float] = {}
    for family in families:
        for one in family.samples:
            if one.name == name:
                found[one.labels["worker"]] = found.get(one.labels["worker"], 0) + one.value
    return found


async def test_workers_die_and_nobody_loses_anything(
    nats: str,
    members: Members,
    process: StartProcess,
    start: Starter,
    compare: Comparison,
    view: type[View],
    tmp_path: Path,
) -> None:
    collections = tmp_path / "collections.yaml"
    collections.write_text("- {name: base, resourceTypes: [{resource: nodes}, {resource: namespaces}]}")
    await process("produce", "--nats", nats, "--kubeconfig", str(members.kubeconfig))
    service = await start("--nats", nats, "--workers", "3", "--collections", str(collections), command="serve")

    async def all_ready() -> bool:
        # A connection that the kernel gave to a worker that was just killed is reset.
        with contextlib.suppress(aiohttp.ClientConnectionError):
            return len(await sample(service, "kubebraid_applied_index")) == 3
        return False

    await eventually_awaited(all_ready)
    await compare.settle(service.url, members.clusters)
    views = [view(service.url, "/api/v1/pods") for _ in range(24)]
    for one in views:
        await one.list()
    followers = [asyncio.create_task(one.follow_for_ever()) for one in views]
    for cluster in members.clusters:
        cluster.churn.rate = 10

    async def all_watching() -> bool:
        return sum((await sample(service, "kubebraid_watches")).values()) == len(views)

    await eventually_awaited(all_watching)
    spread = await sample(service, "kubebraid_watches")
    assert len([count for count in spread.values() if count]) > 1, f"all watches are at one worker: {spread}"
    chance = random.Random(5)
    for _ in range(3):
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        os.kill(chance.choice(workers(service)), signal.SIGKILL)
        # The others answer all the while.
        for _ in range(20):
            with contextlib.suppress(aiohttp.ClientConnectionError):
                assert (await service.get("/api/v1/pods", limit="1"))["items"]
                break
        else:
            pytest.fail("nobody answers")
        await eventually_awaited(all_ready)
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
    # Whichever of them is asked: each request is on a connection of its own.
    for _ in range(6):
        base = await service.get("/apis/clusterpedia.io/v1beta1/collectionresources/base")
        assert {item["kind"] for item in base["items"]} == {"Node", "Namespace"}
    assert await service.stop() == 0
    assert service.output().count("starting it again") == 3


async def test_the_parents_death_is_the_workers_end(nats: str, start: Starter) -> None:
    service = await start("--nats", nats, "--workers", "2", command="serve", ready=False)

    async def started() -> bool:
        return len(workers(service)) == 2

    await eventually_awaited(started)
    children = workers(service)
    await service.kill()

    async def gone() -> bool:
        return not any(Path(f"/proc/{one}/cmdline").exists() and alive(one) for one in children)

    def alive(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
        return False

    await eventually_awaited(gone)


async def test_a_port_in_use_is_one_line(nats: str, start: Starter, process: StartProcess) -> None:
    service = await start("--nats", nats, "--workers", "2", command="serve")
    failed = await process("serve", "--nats", nats, "--listen", f"127.0.0.1:{service.port}", "--workers", "2")
    async with asyncio.timeout(PATIENCE):
        assert await failed.child.wait() == 2
    lines = failed.output().strip().splitlines()
    assert len(lines) == 1, lines
    assert f"port {service.port} of 127.0.0.1 is in use" in lines[0]
