"""Several producers: they share clusters, replace one that dies, and one that slept cannot do harm."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from kubebraid.command.broker import EmbeddedBroker
from tests.e2e.conftest import Comparison, Members, Process, Service, Starter, StartProcess, View
from tests.halting import halt
from tests.patience import eventually_awaited


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[str]:
    async with EmbeddedBroker(tmp_path / "nats") as broker:
        yield broker.url


StartProducer = Callable[[str], Awaitable[Process]]


@pytest.fixture
async def producers(members: Members, nats: str, process: StartProcess) -> StartProducer:
    """Starts `produce` processes by name."""

    async def start_one(name: str) -> Process:
        return await process("produce", "--kubeconfig", str(members.kubeconfig), "--nats", nats, "--id", name)

    return start_one


async def owners(service: Service) -> dict[str, tuple[str, int]]:
    return {one["name"]: (one["producer"], one["epoch"]) for one in (await service.get("/clusters"))["clusters"]}


async def test_producers_share_and_replace_each_other(
    members: Members, nats: str, producers: StartProducer, start: Starter, compare: Comparison, view: type[View]
) -> None:
    first = await producers("first")
    service = await start("--nats", nats, command="serve")

    async def owned_by(*names: str) -> bool:
        found = await owners(service)
        return len(found) == 2 and {owner for owner, _ in found.values()} == set(names)

    await eventually_awaited(lambda: owned_by("first"))
    await service.ready()
    pods = view(service.url, "/api/v1/pods")
    await compare.settle(service.url, members.clusters)
    await pods.list()
    following = asyncio.create_task(pods.follow_for_ever())
    for cluster in members.clusters:
        cluster.churn.rate = 30
    await producers("second")
    await eventually_awaited(lambda: owned_by("first", "second"))
    before = await owners(service)
    await first.kill()
    await eventually_awaited(lambda: owned_by("second"))
    after = await owners(service)
    assert all(after[name][1] >= before[name][1] for name in before)
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await compare.settle(service.url, members.clusters)
    await pods.equals(service)
    assert not following.done()
    following.cancel()


async def test_a_producer_that_slept_changes_nothing(
    members: Members, nats: str, producers: StartProducer, start: Starter, compare: Comparison
) -> None:
    first = await producers("first")
    service = await start("--nats", nats, command="serve")
    await compare.settle(service.url, members.clusters)
    for cluster in members.clusters:
        cluster.churn.rate = 30
    await asyncio.sleep(1)
    halt(first.child.pid)
    await producers("second")

    async def taken_over() -> bool:
        return all(owner == "second" for owner, _ in (await owners(service)).values())

    await eventually_awaited(taken_over)
    epochs = {name: epoch for name, (_, epoch) in (await owners(service)).items()}
    await asyncio.sleep(2)
    os.kill(first.child.pid, signal.SIGCONT)
    await asyncio.sleep(5)
    for cluster in members.clusters:
        cluster.churn.rate = 0
    await compare.settle(service.url, members.clusters)
    assert all(epoch >= epochs[name] for name, (_, epoch) in (await owners(service)).items())
    assert "Traceback" not in first.output()


async def test_all_producers_slept_longer_than_anything_lasts(
    members: Members, nats: str, producers: StartProducer, start: Starter, compare: Comparison
) -> None:
    """Longer than their leases, and than the marks by which NATS tells that those ran out."""
    both = [await producers("first"), await producers("second")]
    service = await start("--nats", nats, command="serve")
    await compare.settle(service.url, members.clusters)

    async def shared() -> bool:
        return {owner for owner, _ in (await owners(service)).values()} == {"first", "second"}

    await eventually_awaited(shared)
    epochs = {name: epoch for name, (_, epoch) in (await owners(service)).items()}
    for one in both:
        halt(one.child.pid)
    members["alpha"].churn.step(20)
    await asyncio.sleep(15)
    for one in both:
        os.kill(one.child.pid, signal.SIGCONT)
    members["bravo"].churn.step(20)

    async def taken_anew() -> bool:
        found = await owners(service)
        return all(epoch > epochs[name] for name, (_, epoch) in found.items())

    await eventually_awaited(taken_anew)
    await compare.settle(service.url, members.clusters)


async def test_a_graceful_stop_hands_over_at_once(
    members: Members, nats: str, producers: StartProducer, start: Starter
) -> None:
    first = await producers("first")
    service = await start("--nats", nats, command="serve")

    async def all_of(name: str) -> bool:
        found = await owners(service)
        return len(found) == 2 and all(owner == name for owner, _ in found.values())

    await eventually_awaited(lambda: all_of("first"))
    await producers("second")

    async def shared() -> bool:
        return {owner for owner, _ in (await owners(service)).values()} == {"first", "second"}

    await eventually_awaited(shared)
    assert await first.stop() == 0, first.output()
    # Given back, not run out: the other one need not wait for the lease's time.
    assert "could not be given back" not in first.output()
    await eventually_awaited(lambda: all_of("second"))
