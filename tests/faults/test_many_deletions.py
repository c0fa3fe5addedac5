"""More and more pods come and go: what is remembered of that stays level, in an instance, in NATS and in a producer.

KUBEBRAID_SOAK_STEPS makes it longer (`make soak`), so that levels of memory and disk can be compared, and prints them;
a short run looks at what is counted alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest

from deltalog import Appender, Connection, Log, LogSettings, open_log
from deltalog.timing import LogTiming
from kubebraid.command.broker import EmbeddedBroker
from producers.follow.normalize import Normalizer
from producers.follow.ownership import renew, take
from producers.follow.writer import Writer
from producers.forgetting import OwnDeletions
from tests.patience import PATIENCE
from tests.producers.test_forgetting import PODS

STEPS = int(os.environ.get("KUBEBRAID_SOAK_STEPS", "0"))
ROUNDS = max(5, STEPS // 60)
LIMIT = 2000
# Pods that come and go in each round.
EACH = 1000
# Of a pod's 4.5 KB, those that say nothing here.
_FILLING = " ".join(f"{number:x}" for number in range(900))


def pod(number: int, version: int) -> bytes:
    """One of a job's pods as its cluster sends it."""
    metadata = {
        "name": f"job-{number // 10}-{number:08x}",
        "namespace": f"team-{number % 7}",
        "uid": f"{number:08x}-0000-4000-8000-{number * 7919:012x}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-11-28T10:00:00Z",
        "labels": {"job-name": f"job-{number // 10}", "team": f"team-{number % 7}"},
    }
    spec = {"nodeName": f"node-{number % 50}", "filling": _FILLING}
    return json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec}).encode()


class Levels(NamedTuple):
    """Bytes once a round was over: of the instance's and the server's memory, and of the state's files."""

    instance: int
    server: int
    disk: int


@asynccontextmanager
async def instance(url: str) -> AsyncIterator[Callable[[], Awaitable[dict[str, Any]]]]:
    """An instance in a process of its own, and how to ask it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.deletions_instance", url, str(LIMIT)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asking, answers = process.stdin, process.stdout

    async def ask() -> dict[str, Any]:
        asking.write(b"\n")
        async with asyncio.timeout(PATIENCE):
            while not (line := await answers.readline()).startswith(b"said "):
                assert line, "it has ended"
        found: dict[str, Any] = json.loads(line[5:])
        return found

    try:
        yield ask
    finally:
        asking.close()
        await process.wait()


def resident(pid: int) -> int:
    """Bytes of a process's memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def disk(broker: EmbeddedBroker, name: str) -> int:
    """Bytes of a stream's files."""
    return sum(
        file.stat().st_size for file in broker.data.rglob("*.blk") if f"streams{os.sep}{name}{os.sep}" in str(file)
    )


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory a process has")
async def test_deletions_stay_level(broker: EmbeddedBroker, connection: Connection) -> None:
    log = await open_log(connection, LogSettings(events_bytes=16 << 20))
    levels: list[Levels] = []

    async def opened() -> Log:
        return log

    async with Appender(connection) as appender, instance(broker.url) as ask:
        owner = await take(log, appender, "alpha", "p")
        writer = Writer(log, appender, owner, PODS, Normalizer("alpha", PODS))
        await writer.read_back()
        for number in range(50):
            await writer.observe(pod(10**7 + number, 1), listed=False)
        forgetting = OwnDeletions(opened, lambda: [writer], LIMIT, log_timing=LogTiming(purge_after=600.0))
        for round_ in range(ROUNDS):
            for number in range(round_ * EACH, (round_ + 1) * EACH):
                await writer.observe(pod(number, 2 * number + 2), listed=False)
            for number in range(round_ * EACH, (round_ + 1) * EACH):
                await writer.observe_deleted(pod(number, 2 * number + 3))
            await writer.settle()
            # The events have room for not quite two rounds.
            await renew(appender, owner)
            said, subjects = await settled(log, ask, await log.head())
            await forgetting.look()
            assert said["number"] <= LIMIT
            assert said["bytes"] < LIMIT * 300
            assert forgetting.remembered <= LIMIT
            # 50 that live, an owner and the record.
            assert subjects <= LIMIT + 52
            if round_ >= 2:
                assert said["floor"] == await log.forgotten_through() > 0
            levels.append(Levels(said["resident"], resident(broker.pid), disk(broker, "KUBEBRAID_STATE")))
    if not STEPS:
        return
    third = len(levels) // 3
    print(f"{ROUNDS * EACH:,} deletions, {LIMIT:,} remembered; bytes after two thirds and at the end:")
    for at, what in enumerate(Levels._fields):
        middle, end = (median(one[at] for one in some) for some in (levels[third : 2 * third], levels[2 * third :]))
        print(f"  {what}: {middle / 1e6:.1f} MB, {end / 1e6:.1f} MB")
        assert end < 1.1 * middle + (8 << 20), what


async def settled(log: Log, ask: Callable[[], Awaitable[dict[str, Any]]], head: int) -> tuple[dict[str, Any], int]:
    """What the instance says once it has applied all, buried what is due, and taken out what it has forgotten.

    And how many subjects the state has by then.
    """
    state = await log.find_state()
    assert state is not None
    async with asyncio.timeout(PATIENCE):
        while True:
            said = await ask()
            done = said["applied"] >= head and not said["whole"] and not said["waiting"] and said["number"] <= LIMIT
            subjects = (await state.state()).subjects
            if done and subjects <= LIMIT + 52:
                return said, subjects
            await asyncio.sleep(0.1)
