"""Anything but a majority of NATS dies, hangs or is cut off, at random, under 300 watchers; then everything must fit.

KUBEBRAID_FAULT_SECONDS makes it longer, KUBEBRAID_FAULT_SEED another one. Prints one line with what was counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from simulation import SimulatedCluster
from tests.e2e.conftest import Comparison, Members, Process, Service, members
from tests.faults.cuttable import CuttableWay
from tests.faults.watching import COLLECTED, COLLECTION, Key
from tests.nats_cluster import NatsCluster, Server
from tests.patience import eventually_awaited
from tests.ports import free_port

__all__ = ["members"]

SECONDS = float(os.environ.get("KUBEBRAID_FAULT_SECONDS", "25"))
SEED = int(os.environ.get("KUBEBRAID_FAULT_SEED", "3"))
# So many faults at least, however slow the machine is.
FEWEST = max(1, int(SECONDS / 5))
RAW, REAL = 288, 12
# What the watchers with the client watch.
WHOLE = {"path": "/api/v1/pods", "selector": ""}


class Part:
    """A process that may be killed, stopped and started, with its own ways to NATS."""

    def __init__(self, process: Process, ways: list[CuttableWay]) -> None:
        self.process = process
        self.ways = ways
        self.busy = False

    def signal(self, number: int) -> None:
        assert self.process.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.process.send_signal(number)


class Scene:
    """Three NATS servers, two producers, three serving instances, and what is done to them."""

    def __init__(self, nats: NatsCluster, producers: list[Part], serving: list[Part], chance: random.Random) -> None:
        self.nats = nats
        self.producers = producers
        self.serving = serving
        self.chance = chance
        self.done: Counter[str] = Counter()
        self._healing: list[asyncio.Task[None]] = []

    def urls(self) -> list[str]:
        return [part.process.url for part in self.serving if isinstance(part.process, Service)]

    async def strike(self) -> None:
        """One fault; it is mended by itself after a while."""
        what = self.chance.choice(("kill", "kill", "stop", "cut", "hold"))
        where = self.chance.choice(("serve", "serve", "produce", "nats"))
        if where == "nats":
            if self._healing_nats or what in ("cut", "hold"):
                return
            server = self.chance.choice(self.nats.servers)
            self._start(f"{what} nats", self._nats(server, what))
            return
        parts = [part for part in (self.serving if where == "serve" else self.producers) if not part.busy]
        if not parts:
            return
        part = self.chance.choice(parts)
        part.busy = True
        self._start(f"{what} {where}", self._part(part, what))

    @property
    def _healing_nats(self) -> bool:
        return any(task.get_name().endswith(" nats") and not task.done() for task in self._healing)

    def _start(self, name: str, mending: Coroutine[Any, Any, None]) -> None:
        self.done[name] += 1
        task = asyncio.create_task(mending)
        task.set_name(name)
        self._healing.append(task)

    async def _nats(self, server: Server, what: str) -> None:
        pause = self.chance.uniform(1, 8)
        if what == "kill":
            await server.kill()
            await asyncio.sleep(pause)
            await server.start()
        else:
            server.stop()
            await asyncio.sleep(pause)
            server.go_on()
        # A majority has to have everything before the next one goes.
        await self.nats.healthy(("KUBEBRAID", "KV_kubebraid-leases", "KV_kubebraid-history"), patience=180)

    async def _part(self, part: Part, what: str) -> None:
        try:
            pause = self.chance.uniform(0.2, 8)
            if what == "kill":
                await part.process.kill()
                await asyncio.sleep(pause / 2)
                await part.process.start()
                if isinstance(part.process, Service):
                    await part.process.ready(180)
            elif what == "stop":
                part.signal(signal.SIGSTOP)
                await asyncio.sleep(pause)
                part.signal(signal.SIGCONT)
            elif what == "cut":
                for way in part.ways:
                    way.cut()
            else:
                for way in part.ways:
                    way.hold()
                await asyncio.sleep(pause)
                for way in part.ways:
                    way.let_go()
        finally:
            part.busy = False

    async def healed(self) -> None:
        """Returns when everything that was struck is mended. What was not killed has to live."""
        await asyncio.gather(*self._healing)
        for part in (*self.producers, *self.serving):
            assert part.process.process is not None
            assert part.process.process.returncode is None, part.process.output()


@pytest.fixture
async def scene(tmp_path: Path, members: Members) -> AsyncIterator[Scene]:
    chance = random.Random(SEED)
    async with contextlib.AsyncExitStack() as stack:
        nats = await stack.enter_async_context(NatsCluster(tmp_path))

        async def ways() -> list[CuttableWay]:
            return [await stack.enter_async_context(CuttableWay(server.port)) for server in nats.servers]

        def url(of: list[CuttableWay]) -> str:
            return ",".join(f"nats://127.0.0.1:{way.port}" for way in of)

        async def started(process: Process, of: list[CuttableWay]) -> Part:
            async def end() -> None:
                part.signal(signal.SIGCONT)
                await process.kill()

            await process.start()
            part = Part(process, of)
            stack.push_async_callback(end)
            return part

        producers, serving = [], []
        for number in range(2):
            of = await ways()
            arguments = ("--nats", url(of), "--kubeconfig", str(members.kubeconfig), "--replicas", "3")
            producers.append(await started(Process("produce", *arguments, log=tmp_path / f"produce-{number}.log"), of))
        for number in range(3):
            of = await ways()
            process = Service(
                "serve", "--nats", url(of), "--replicas", "3", log=tmp_path / f"serve-{number}.log", port=free_port()
            )
            serving.append(await started(process, of))
        for part in serving:
            assert isinstance(part.process, Service)
            await part.process.ready()
        yield Scene(nats, producers, serving, chance)


async def wanted(cluster: SimulatedCluster, path: str, selector: str) -> dict[tuple[str, str], str]:
    """What a member has: its own versions by namespace and name."""
    query = {"labelSelector": selector} if selector else {}
    async with aiohttp.ClientSession() as session, session.get(cluster.url + path, params=query) as answer:
        assert answer.status == 200
        items = (await answer.json())["items"] or []
    return {
        (one["metadata"].get("namespace", ""), one["metadata"]["name"]): one["metadata"]["resourceVersion"]
        for one in items
    }


class Truth:
    """What the members have, asked once for each scope."""

    def __init__(self, clusters: list[SimulatedCluster]) -> None:
        self._clusters = clusters
        self._known: dict[tuple[str, str], dict[Key, str]] = {}

    async def of(self, path: str, selector: str) -> dict[Key, str]:
        if path == COLLECTION and (path, selector) not in self._known:
            self._known[path, selector] = {
                (cluster, namespace, f"{kind}:{name}"): version
                for kind, one in COLLECTED.items()
                for (cluster, namespace, name), version in (await self.of(one, selector)).items()
            }
        if (path, selector) not in self._known:
            named, rest = "", path
            if path.startswith("/clusters/"):
                _, _, named, rest = path.split("/", 3)
                rest = f"/{rest}"
            found = {}
            for cluster in self._clusters:
                if named in ("", cluster.name):
                    for (namespace, name), version in (await wanted(cluster, rest, selector)).items():
                        found[(cluster.name, namespace, name)] = version
            self._known[(path, selector)] = found
        return self._known[(path, selector)]


def own(held: dict[str, str]) -> dict[Key, str]:
    """The members' versions in what a watcher holds, whose keys are written with slashes."""
    found = {}
    for key, version in held.items():
        cluster, namespace, name = key.split("/")
        found[cluster, namespace, name] = version.split(".", 2)[2]
    return found


class Apart:
    """Watchers in a process of their own, a program beside this file: `raw_watchers.py`, `kubernetes_watchers.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, program: str, count: int, urls: list[str]) -> AsyncIterator[Apart]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"tests.faults.{program}", str(count), str(SEED), *urls),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            limit=256 * 1024 * 1024,
        )
        try:
            yield cls(process)
        finally:
            process.kill()
            await process.wait()

    async def ask(self, question: str) -> Any:
        """What it answers to a question, see there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{question}\n".encode())
        answer = await self._process.stdout.readline()
        assert answer, "the watchers have ended"
        return json.loads(answer)


async def test_nothing_is_lost_whatever_dies(
    scene: Scene, members: Members, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED + 1)
    async with (
        Apart.started("raw_watchers", RAW, scene.urls()) as raw,
        Apart.started("kubernetes_watchers", REAL, scene.urls()) as real,
    ):
        for cluster in members.clusters:
            cluster.churn.rate = 6
        await eventually_awaited(lambda: raw.ask("listed"), 180)
        loop = asyncio.get_running_loop()
        end = loop.time() + SECONDS
        while loop.time() < end or sum(scene.done.values()) < FEWEST:
            await scene.strike()
            await asyncio.sleep(chance.uniform(0.5, 3))
        await scene.healed()
        for cluster in members.clusters:
            cluster.churn.rate = 0
        for part in scene.serving:
            assert isinstance(part.process, Service)
            await part.process.ready(180)
            await Comparison().settle(part.process.url, members.clusters, patience=180)
        truth = Truth(members.clusters)
        limit = loop.time() + 180
        while True:
            watchers = [*await raw.ask("held"), *({**one, **WHOLE} for one in await real.ask("held"))]
            differing = [one for one in watchers if own(one["held"]) != await truth.of(one["path"], one["selector"])]
            if not differing or loop.time() > limit:
                break
            await asyncio.sleep(0.5)
        missed = await raw.ask("untold")
    counts: Counter[str] = Counter()
    problems = []
    for one in watchers:
        counts += Counter(one["counts"])
        problems += one["problems"]
    faults = ", ".join(f"{what} {count}" for what, count in sorted(scene.done.items()))
    versions = await asyncio.gather(*(_prefix(url) for url in scene.urls()))
    summary = (
        f"faults: seed {SEED}, {SECONDS:g} s, {sum(scene.done.values())} faults ({faults}); "
        f"{RAW + REAL} watchers, {counts['events']} events, {counts['moves']} moves, {counts['relists']} relists, "
        f"{counts['twice']} twice, {counts['backwards']} backwards, {counts['wrong']} wrong, "
        f"{counts['needless']} of {counts['deletions']} deletions needless, {len(missed)} events untold, "
        f"{len(differing)} differing, {len(set(versions))} histories"
    )
    with capsys.disabled():
        print(f"\n{summary}")
    assert not problems, "\n".join(problems[:20])
    assert not differing, [
        (
            *(one["path"], one["selector"]),
            set(own(one["held"]).items()) ^ set((await truth.of(one["path"], one["selector"])).items()),
        )
        for one in differing[:3]
    ]
    assert not missed, missed[:20]
    assert counts["needless"] * 1000 <= counts["deletions"]
    assert counts["events"] > RAW
    assert len(set(versions)) == 1


async def _prefix(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/namespaces?limit=1") as answer:
        return str((await answer.json())["metadata"]["resourceVersion"]).split(".")[0]
