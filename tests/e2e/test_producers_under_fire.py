"""The producers under fire: clusters, NATS and producers as processes that are killed; then the log says what is.

The steps are drawn from a seed. `KUBEBRAID_SOAK_STEPS` makes it longer, `KUBEBRAID_SOAK_SEEDS` (`1,2,3`) says which
seeds (`make soak`). A run prints one line with its seed and counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from deltalog import Log, LogSettings, Reader, Record, connect, decode_delta, open_log
from deltalog.wire.kubernetes import GroupResource
from kubebraid.command.broker import EmbeddedBroker
from materializer.materializer import Materializer
from tests import processes
from tests.e2e.conftest import Comparison
from tests.ports import free_port

STEPS = int(os.environ.get("KUBEBRAID_SOAK_STEPS", "25"))
SEEDS = [int(seed) for seed in os.environ.get("KUBEBRAID_SOAK_SEEDS", "1,2").split(",")]
# How long the end may take: leases run out, backoffs of half a minute too.
PATIENCE = 120.0
OPT_IN = ("/api/v1/secrets", "/api/v1/events")
CLUSTERS = ("alpha", "bravo")


class Child:
    """A process of the test's, dead with it at the latest."""

    def __init__(self, log: Path, module: str, *arguments: str) -> None:
        self.log = log
        self.module = module
        self.arguments = arguments
        self.process: processes.Child | None = None
        self.stopped = False
        self.begun_at = 0

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self.begun_at = self.log.stat().st_size
            self.process = await processes.start(*self.arguments, module=self.module, output=output, dies_with_us=True)

    def send(self, number: signal.Signals) -> None:
        if self.running:
            assert self.process is not None
            self.process.send_signal(number)

    def stop(self) -> None:
        self.send(signal.SIGSTOP)
        self.stopped = True

    def go_on(self) -> None:
        self.send(signal.SIGCONT)
        self.stopped = False

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.stopped = False
        if self.process is not None:
            await self.process.wait()

    async def end(self) -> None:
        """SIGTERM, and a code that says that nothing went wrong."""
        self.go_on()
        self.send(signal.SIGTERM)
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
        # Before it has come so far as to catch the signal, and to say anything, it ends by it.
        silent = self.log.stat().st_size == self.begun_at
        assert code == 0 or (silent and code == -signal.SIGTERM), f"code {code}: {self.log}"


class Recorder:
    """Sees every message as it is stored, and that none goes back in time for its object."""

    def __init__(self) -> None:
        self.last: dict[str, tuple[str, int, int]] = {}
        self.sequence = 0
        self.seen = 0

    def __call__(self, record: Record) -> None:
        self.sequence = record.sequence
        if not record.subject.startswith("kb.") or not record.data or "Nats-Marker-Reason" in (record.headers or {}):
            return
        self.seen += 1
        delta = decode_delta(record.data)
        uid, original, epoch = self.last.get(record.subject, ("", 0, 0))
        assert delta.epoch >= epoch, f"{record.subject}: epoch {delta.epoch} after {epoch}"
        if uid == delta.uid:
            assert int(delta.member_version) >= original, f"{record.subject}: {delta.member_version} after {original}"
        self.last[record.subject] = (delta.uid, int(delta.member_version), delta.epoch)


class Battlefield:
    """All processes of a run, and what can be done to them."""

    def __init__(self, directory: Path, seed: int, broker: EmbeddedBroker) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.directory = directory
        self.broker = broker
        self.counts: Counter[str] = Counter()
        self.ports = {name: free_port() for name in CLUSTERS}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        self.clusters = {
            name: Child(
                directory / f"{name}.log",
                *("simulation", "--clusters", "1", "--first", str(number), "--pods", "25", "--churn", "0"),
                *("--base-port", str(self.ports[name]), "--state", str(directory / "state")),
                *("--write-kubeconfig", str(directory / f"{name}.kubeconfig")),
            )
            for number, name in enumerate(CLUSTERS, 1)
        }
        kubeconfig = directory / "kubeconfig"
        kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": name, "cluster": {"server": url}} for name, url in self.urls.items()],
                    "users": [{"name": name, "user": {}} for name in CLUSTERS],
                    "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in CLUSTERS],
                    "current-context": "alpha",
                }
            )
        )
        self.producers = {
            name: Child(
                directory / f"{name}.producer.log",
                *("kubebraid", "produce", "--id", name, "--kubeconfig", str(kubeconfig), "--nats", broker.url),
                *("--log-level", "debug", "--log-json"),
            )
            for name in ("a", "b")
        }
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3))
        self.made = 0

    async def close(self) -> None:
        await self.session.close()
        for child in (*self.clusters.values(), *self.producers.values()):
            await child.kill()

    async def ask(self, cluster: str, method: str, path: str, body: Any = None) -> Any:
        """The answer, or None: a cluster under fire may refuse, and a write may have been done all the same."""
        try:
            kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
            async with self.session.request(
                method,
                self.urls[cluster] + path,
                data=None if body is None else json.dumps(body),
                headers={"Content-Type": kind},
            ) as answer:
                return await answer.json() if answer.status < 300 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def up(self, cluster: str) -> None:
        """Starts a cluster if it is down, and returns when it answers."""
        child = self.clusters[cluster]
        child.go_on()
        if not child.running:
            await child.start()
        async with asyncio.timeout(PATIENCE):
            while await self.ask(cluster, "GET", "/_simulation/state") is None:
                assert child.running, child.log.read_text()
                await asyncio.sleep(0.05)

    # -- what happens ----------------------------------------------------------------------------------------------

    async def churn(self, cluster: str) -> None:
        await self.ask(cluster, "POST", "/_simulation/churn", {"now": self.chance.randint(1, 40)})

    async def set_rate(self, cluster: str) -> None:
        await self.ask(cluster, "POST", "/_simulation/churn", {"rate": self.chance.choice((0, 5, 50))})

    async def name_used_again(self, cluster: str) -> None:
        """The same few names come and go, so that deletions and new uids follow each other closely."""
        path = "/api/v1/namespaces/default/configmaps"
        name = f"again-{self.chance.randint(0, 4)}"
        for _ in range(self.chance.randint(1, 3)):
            await self.ask(cluster, "DELETE", f"{path}/{name}")
            self.made += 1
            body = {"metadata": {"name": name, "labels": {"made": str(self.made)}}, "data": {"made": str(self.made)}}
            await self.ask(cluster, "POST", path, body)
        if self.chance.random() < 0.3:
            await self.ask(cluster, "DELETE", f"{path}/{name}")

    async def namespace(self, cluster: str) -> None:
        name = f"team-{self.chance.randint(0, 1)}"
        if self.chance.random() < 0.5:
            await self.ask(cluster, "DELETE", f"/api/v1/namespaces/{name}")
            return
        await self.ask(cluster, "POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        for number in range(3):
            body = {"metadata": {"name": f"c{number}"}, "data": {"a": "b"}}
            await self.ask(cluster, "POST", f"/api/v1/namespaces/{name}/configmaps", body)

    async def fault(self, cluster: str) -> None:
        chance = self.chance
        wanted = chance.choice(
            (
                {"cut_watches": True},
                {"cut_watches": True},
                {"compact": True, "cut_watches": True},
                {
                    "fail_next": {
                        "count": chance.randint(1, 10),
                        "code": chance.choice((429, 500, 503)),
                        "retry_after": 1,
                    }
                },
                {"refuse_seconds": chance.uniform(0.1, 2.0)},
                {"initial_events": chance.choice(("supported", "ignored", "refused"))},
                {"watch_lifetime": chance.choice((None, [0.1, 1.0]))},
                {"hang_watches": chance.random() < 0.5},
                {"skip_bookmarks": chance.random() < 0.5},
                {"aggregated_discovery": chance.random() < 0.5},
                {"clear": True},
            )
        )
        await self.ask(cluster, "POST", "/_simulation/faults", wanted)

    async def kill_cluster(self, cluster: str) -> None:
        await self.clusters[cluster].kill()
        await asyncio.sleep(self.chance.uniform(0, 1))
        await self.up(cluster)

    async def stop_cluster(self, cluster: str) -> None:
        self.clusters[cluster].stop()
        await asyncio.sleep(self.chance.uniform(0.2, 2))
        self.clusters[cluster].go_on()

    async def kill_broker(self, _: str) -> None:
        assert self.broker._process is not None
        self.broker._process.kill()
        await self.broker.wait()
        await asyncio.sleep(self.chance.uniform(0, 1))
        await self.broker.start()

    async def stop_broker(self, _: str) -> None:
        os.kill(self.broker.pid, signal.SIGSTOP)
        await asyncio.sleep(self.chance.uniform(0.2, 3))
        os.kill(self.broker.pid, signal.SIGCONT)

    async def _some(self) -> Child:
        child = self.producers[self.chance.choice(("a", "b"))]
        if not child.running:
            await child.start()
        return child

    async def kill_producer(self, _: str) -> None:
        await (await self._some()).kill()

    async def end_producer(self, _: str) -> None:
        await (await self._some()).end()

    async def stop_producer(self, _: str) -> None:
        """Stopped; a later step lets it go on, sometimes long after its leases have run out."""
        (await self._some()).stop()

    async def let_go_on(self, _: str) -> None:
        for child in self.producers.values():
            child.go_on()

    async def restart_producer(self, _: str) -> None:
        for child in self.producers.values():
            if not child.running:
                await child.start()

    def steps(self) -> list[tuple[Callable[[str], Any], int]]:
        return [
            (self.churn, 30),
            (self.set_rate, 4),
            (self.name_used_again, 12),
            (self.namespace, 4),
            (self.fault, 20),
            (self.kill_cluster, 3),
            (self.stop_cluster, 2),
            (self.kill_broker, 3),
            (self.stop_broker, 2),
            (self.kill_producer, 4),
            (self.end_producer, 3),
            (self.stop_producer, 4),
            (self.let_go_on, 6),
            (self.restart_producer, 8),
        ]

    async def quiet(self) -> None:
        """Everything runs, nothing is wrong, nothing changes any more."""
        for name in CLUSTERS:
            await self.up(name)
            await self._surely(name, "faults", {"clear": True})
            await self._surely(name, "churn", {"rate": 0})
        await self.let_go_on("")
        await self.restart_producer("")

    async def _surely(self, cluster: str, control: str, body: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.ask(cluster, "POST", f"/_simulation/{control}", body) is None:
                await asyncio.sleep(0.1)

    # -- what the producers say of themselves --------------------------------------------------------------------

    def said(self, since: dict[str, int]) -> dict[str, tuple[str, set[str]]]:
        """For each cluster: who produces it and which types it has synced, by the logs from `since` (offsets) on."""
        found: dict[str, tuple[float, str, set[str]]] = {}
        for name, child in self.producers.items():
            with child.log.open("rb") as file:
                file.seek(since[name])
                for line in file:
                    with contextlib.suppress(ValueError):
                        one = json.loads(line)
                        cluster = one.get("cluster")
                        if one["event"] == "producing":
                            found[cluster] = max(
                                found.get(cluster, (0, "", set())), (one["epoch"], name, set()), key=lambda it: it[0]
                            )
                        elif one["event"] == "synced" and cluster in found and found[cluster][1] == name:
                            found[cluster][2].add(one["type"])
        return {cluster: (name, types) for cluster, (_, name, types) in found.items()}


@pytest.fixture
async def battlefield(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Battlefield]:
    async with EmbeddedBroker(tmp_path / "nats") as broker:
        made = Battlefield(tmp_path, request.param, broker)
        try:
            yield made
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(broker.pid, signal.SIGCONT)
            await made.close()


async def differences(field: Battlefield, compare: Any, of: Materializer) -> list[str]:
    """What the store has otherwise than the clusters."""
    store = of.store
    found = []
    for name, url in field.urls.items():
        paths = [path for path in await compare.types(url) if path not in OPT_IN]
        have = store.clusters[name].types if name in store.clusters else {}
        titles = {
            f"/apis/{info.group}/{info.version}/{key[1]}" if key[0] else f"/api/{info.version}/{key[1]}"
            for key, info in have.items()
        }
        found += [f"{name}: type {path} only on one side" for path in titles ^ set(paths)]
        stale = of.stale_reason(store.clusters[name]) if name in store.clusters else "unknown"
        if stale:
            found.append(f"{name} is stale: {stale}")
        for path in titles & set(paths):
            *_, group, _, resource = f"/{path}".split("/")
            group = "" if path.startswith("/api/") else group
            items, versions = await compare.items(url + path)
            kind = store.types.get(GroupResource(group, resource))
            held = [] if kind is None else list(kind.objects(name).values())
            entries = {(entry.namespace, entry.name): entry for entry in held}
            for key in items.keys() ^ entries.keys():
                found.append(f"{name}: {path} {key} only in the {'cluster' if key in items else 'store'}")
            for key in items.keys() & entries.keys():
                entry = entries[key]
                ours = json.loads(entry.body)
                if entry.member_version != versions[key]:
                    found.append(f"{name}: {path} {key} is at {entry.member_version}, not {versions[key]}")
                elif compare.comparable(ours) != items[key] or entry.uid != items[key]["metadata"]["uid"]:
                    found.append(f"{name}: {path} {key} has another content")
                elif ours["apiVersion"] != path.removeprefix("/apis/").removeprefix("/api/").rpartition("/")[0]:
                    found.append(f"{name}: {path} {key} is of {ours['apiVersion']}")
    return found


async def eventually_same(field: Battlefield, compare: Any, of: Materializer, check: Callable[[], None]) -> None:
    limit = asyncio.get_running_loop().time() + PATIENCE
    while found := await differences(field, compare, of):
        check()
        assert asyncio.get_running_loop().time() < limit, "\n".join(found[:20])
        await asyncio.sleep(0.3)
    of.store.check()


@pytest.mark.parametrize("battlefield", SEEDS, indirect=True)
async def test_after_quiet_the_log_equals_the_clusters(
    battlefield: Battlefield, compare: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    field, chance = battlefield, battlefield.chance
    async with contextlib.AsyncExitStack() as stack:

        async def opened(name: str) -> Log:
            connection = await connect(field.broker.url, name=name)
            stack.push_async_callback(connection.close)
            return await open_log(connection, LogSettings())

        def background(task: asyncio.Task[None]) -> asyncio.Task[None]:
            async def end() -> None:
                task.cancel()
                await asyncio.wait((task,))

            stack.push_async_callback(end)
            return task

        async def materializer(name: str) -> Materializer:
            made = Materializer(await opened(name))
            background(asyncio.create_task(made.run()))
            await made.ready.wait()
            return made

        recorder = Recorder()
        reading = background(asyncio.create_task(Reader(await opened("recorder"), recorder).run()))

        def check() -> None:
            if reading.done():
                reading.result()

        warm = await materializer("warm")
        generation = warm.generation
        for name in CLUSTERS:
            await field.up(name)
        await field.producers["a"].start()
        choices, weights = zip(*field.steps(), strict=True)
        for _ in range(STEPS):
            check()
            step = chance.choices(choices, weights)[0]
            field.counts[step.__name__] += 1
            await step(chance.choice(CLUSTERS))
            await asyncio.sleep(chance.choice((0.0, 0.05, 0.3, 1.0)))
        await field.quiet()
        await eventually_same(field, compare, warm, check)
        cold = await materializer("cold")
        assert not await differences(field, compare, cold)
        cold.store.check()
        assert warm.generation == generation, "the history was said to have changed"

        # Both producers anew: they find nothing to say.
        for child in field.producers.values():
            await child.end()
        since = {name: child.log.stat().st_size for name, child in field.producers.items()}
        await cold.wait_current(PATIENCE)
        objects = recorder.seen
        for child in field.producers.values():
            await child.start()
        limit = asyncio.get_running_loop().time() + PATIENCE
        wanted = {
            name: {".".join(filter(None, reversed(key))) for key in cold.store.clusters[name].types}
            for name in CLUSTERS
        }
        while True:
            said = field.said(since)
            owners = {said[name][0] for name in CLUSTERS if name in said}
            if len(owners) == 2 and all(said[name][1] >= wanted[name] for name in CLUSTERS):
                break
            assert asyncio.get_running_loop().time() < limit, said
            await asyncio.sleep(0.2)
        head = await cold.log.head()
        async with asyncio.timeout(PATIENCE):
            while recorder.sequence < head:
                check()
                await asyncio.sleep(0.05)
        assert recorder.seen == objects, "deltas after a restart in which nothing had changed"
        outcomes = {outcome.value: number for outcome, number in warm.store.outcomes.items() if number}
        for child in (*field.producers.values(), *field.clusters.values()):
            output = child.log.read_text()
            assert "Traceback" not in output, f"{child.log}: {output[output.index('Traceback') :][:5000]}"
    with capsys.disabled():
        steps = " ".join(f"{name}={number}" for name, number in sorted(field.counts.items()))
        print(f"\nunder fire: seed={field.seed} steps={STEPS} deltas={recorder.seen} warm={outcomes} {steps}")
