"""Members: a hundred clusters with certificates in one kubeconfig, and a thousand small ones, over TLS and HTTP/2.

All of it shares the machine: NATS, kubebraid, nginx and the simulated clusters. What is counted of the thousand is
the producer's process alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from benchmarks import rig
from benchmarks.client import get
from benchmarks.fronts import Fleet, Front, front, write_kubeconfig
from benchmarks.report import Report, median, percentile
from kubebraid.command.broker import child_set_up, free_port
from simulation import SimulatedCluster

_PATIENCE = 1800.0
_IDLE = 30.0
_SETTLING = 45.0
_TOUCHED = 12.0
_EXEC = "client.authentication.k8s.io/v1"
# Types of a small cluster: what a cluster has a few of.
SMALL = (
    "pods", "services", "configmaps", "namespaces", "nodes", "serviceaccounts", "persistentvolumes",
    "persistentvolumeclaims", "endpoints", "secrets", "roles.rbac.authorization.k8s.io",
    "storageclasses.storage.k8s.io", "deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps",
    "jobs.batch", "cronjobs.batch", "ingresses.networking.k8s.io", "endpointslices.discovery.k8s.io",
)  # fmt: skip


async def _simulate(pipe: Pipe, names: list[str], pods: int) -> None:
    """Simulated clusters until told to end; says their ports."""
    async with contextlib.AsyncExitStack() as stack:
        made = [SimulatedCluster(name, pods=pods, seed=number) for number, name in enumerate(names)]
        for cluster in made:
            await stack.enter_async_context(cluster)
        pipe.send([cluster.port for cluster in made])
        await rig.until_closed(pipe)


class _Running:
    """A kubebraid process that serves HTTP at a port."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid


@contextlib.asynccontextmanager
async def _kubebraid(log: Path, *arguments: str, listens: bool = True) -> AsyncIterator[_Running]:
    port = free_port()
    listen = ("--listen", f"127.0.0.1:{port}") if listens else ()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kubebraid", *arguments, *listen, "--log-level", "info"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=child_set_up(),
        )
    try:
        yield _Running(process, port, log)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()


class _Live:
    """Asks /livez again and again: how long its answers take."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.seconds: list[float] = []

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            with contextlib.suppress(OSError):
                await asyncio.to_thread(get, self._port, "/livez")
                self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(0.05)


class _Handshakes:
    """Looks again and again at how many connections are in their handshakes."""

    def __init__(self, made: Front) -> None:
        self._made = made
        self.most = 0

    async def run(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                self.most = max(self.most, await asyncio.to_thread(self._made.in_handshakes))
            await asyncio.sleep(0.01)


def _clusters(port: int) -> list[dict[str, Any]]:
    try:
        answer = get(port, "/clusters", whole=True)
    except OSError:
        return []
    if answer.status != 200:
        return []
    found: list[dict[str, Any]] = msgspec.json.decode(answer.body)["clusters"]
    return found


def _synced(cluster: dict[str, Any]) -> bool:
    return bool(cluster["known"] and not cluster["missing"] and cluster["stale"] is None)


async def _all_synced(running: _Running, count: int) -> float:
    """Seconds until all clusters are served whole. Raises ProcessFailed."""
    began = time.monotonic()
    while time.monotonic() - began < _PATIENCE:
        if running.process.returncode is not None:
            raise rig.ProcessFailed(f"kubebraid ended: {running.log.read_text()[-2000:]}")
        # The whole document is large: it is asked for once the process says that it is ready.
        with contextlib.suppress(OSError):
            if (await asyncio.to_thread(get, running.port, "/readyz")).status == 200:
                found = await asyncio.to_thread(_clusters, running.port)
                if sum(map(_synced, found)) >= count:
                    return time.monotonic() - began
        await asyncio.sleep(0.1)
    found = await asyncio.to_thread(_clusters, running.port)
    stale = [f"{one['name']}: {one['stale']}" for one in found if one["stale"]]
    raise rig.ProcessFailed(f"{sum(map(_synced, found))} of {count} in {_PATIENCE:.0f} s; {stale[:3]}")


async def _cpu(pid: int, seconds: float) -> float:
    """CPU time of a process in so many seconds."""
    before = rig.cpu_seconds(pid)
    await asyncio.sleep(seconds)
    return rig.cpu_seconds(pid) - before


async def _hundred(folder: Path, clusters: int, report: Report) -> None:
    names = [f"cluster-{number:03}" for number in range(clusters)]
    kubeconfig = folder / "kubeconfig"
    runs = folder / "plugin-runs"
    plugin = folder / "plugin"
    credential = {"apiVersion": _EXEC, "kind": "ExecCredential", "status": {"token": "t"}}
    plugin.write_text(f"#!/bin/sh\necho run >>{runs}\necho '{msgspec.json.encode(credential).decode()}'\n")
    plugin.chmod(0o755)
    async with rig.process(_simulate, names, 10) as simulated:
        fleet = Fleet(names, await simulated.receive())
        async with front(folder / "nginx", fleet) as made:
            users = [made.user(name) for name in names]
            # A few that would show whether a touched file runs plugins.
            for number in range(0, clusters, 20):
                entry = {"apiVersion": _EXEC, "command": str(plugin), "args": [str(number)], "interactiveMode": "Never"}
                users[number] = {"exec": entry}
            write_kubeconfig(kubeconfig, fleet, made, users)
            data = folder / "data"
            arguments = ("up", "--kubeconfig", str(kubeconfig), "--data", str(data))
            async with _kubebraid(folder / "up.log", *arguments) as running:
                live = _Live(running.port)
                asking = asyncio.create_task(live.run())
                seconds = await _all_synced(running, clusters)
                cpu = rig.cpu_seconds(running.pid)
                await asyncio.sleep(5)
                idle = await _cpu(running.pid, _TOUCHED)
                before = runs.read_text().count("run")
                os.utime(kubeconfig)
                touched = await _cpu(running.pid, _TOUCHED)
                after = runs.read_text().count("run")
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                slowest = max(live.seconds)
                report.row("clusters", clusters)
                report.row("kubeconfig, KB", round(kubeconfig.stat().st_size / 1000))
                report.row("start to ready, s", seconds)
                report.row("... CPU of kubebraid, s", cpu)
                report.row("... slowest /livez, s", slowest)
                report.row("... median /livez, s", median(live.seconds))
                report.row("idle, CPU in 12 s", idle)
                report.row("file touched, CPU in 12 s", touched)
                report.row("plugin runs at that", after - before)
                report.row("connections to clusters", made.open_connections())
                report.ratio("ready", 30 / seconds, "of 30 s for a hundred clusters", 1.0)
                report.ratio("livez", 0.25 / slowest, "of 0.25 s for the slowest /livez", 1.0)
                report.ratio("touch", 1 / max(touched - idle, 0.01), "of 1 s of CPU for a touched file", 1.0)
                if after != before:
                    report.failures.append(f"touching the kubeconfig ran plugins {after - before} times")
                if made.protocols() != {"HTTP/2.0"}:
                    report.failures.append(f"not all is HTTP/2: {made.protocols()}")


async def _small(folder: Path, clusters: int, types: int, report: Report, title: str) -> tuple[int, int]:
    """Many small clusters in one producer: resident bytes and the number of its watches, once it is idle."""
    names = [f"small-{number:04}" for number in range(clusters)]
    kubeconfig = folder / f"kubeconfig-{clusters}-{types}"
    log = folder / f"produce-{clusters}-{types}.log"
    async with contextlib.AsyncExitStack() as stack:
        # Four simulated clusters stand for all: none of them can hold 20,000 open watches in 20,000 file descriptors.
        ports = []
        for number in range(4):
            simulated = await stack.enter_async_context(rig.process(_simulate, [f"model-{number}"], 2))
            ports += await simulated.receive()
        fleet = Fleet(names, ports)
        made = await stack.enter_async_context(front(folder / f"nginx-{clusters}-{types}", fleet, workers=4))
        write_kubeconfig(kubeconfig, fleet, made, [made.user(f"user-{number}") for number in range(min(clusters, 50))])
        broker = await stack.enter_async_context(rig.broker())
        include = tuple(part for name in SMALL[:types] for part in ("--include", name))
        arguments = ("produce", "--nats", broker.url, "--kubeconfig", str(kubeconfig), *include)
        handshakes = _Handshakes(made)
        looking = asyncio.create_task(handshakes.run())
        began = time.monotonic()
        running = await stack.enter_async_context(_kubebraid(log, *arguments, listens=False))
        await asyncio.sleep(2)
        early = rig.resident_bytes(running.pid)
        serving = await stack.enter_async_context(_kubebraid(folder / "serve.log", "serve", "--nats", broker.url))
        await _all_synced(serving, clusters)
        seconds, cpu = time.monotonic() - began, rig.cpu_seconds(running.pid)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        # OpenAPI documents are asked for a while after the first lists.
        await asyncio.sleep(_SETTLING)
        idle = await _cpu(running.pid, _IDLE) / _IDLE
        resident = rig.resident_bytes(running.pid)
        opened = made.connections()
        each_second: dict[int, int] = {}
        for at in opened:
            each_second[int(at)] = each_second.get(int(at), 0) + 1
        sockets = made.open_connections()
        report.row(f"{title}: clusters", clusters)
        report.row(f"{title}: types of each", types)
        report.row(f"{title}: start to all synced, s", seconds)
        report.row(f"{title}: ... CPU of the producer, s", cpu)
        report.row(f"{title}: ... connections a second, most", max(each_second.values(), default=0))
        report.row(f"{title}: ... connections a second, p90", percentile(sorted(map(float, each_second.values())), 0.9))
        report.row(f"{title}: ... handshakes at once, most seen", handshakes.most)
        report.row(f"{title}: connections when idle", sockets)
        report.row(f"{title}: connections ever", len(opened))
        report.row(f"{title}: idle, of a core", idle)
        report.row(f"{title}: ... ms a second and cluster", idle / clusters * 1000)
        report.row(f"{title}: resident, MB", resident / 1e6)
        report.row(f"{title}: ... before the clusters, MB", early / 1e6)
        report.row(f"{title}: ... a cluster, KB", (resident - early) / clusters / 1000)
        if sockets > clusters:
            report.failures.append(f"{title}: {sockets} connections to {clusters} clusters")
    return resident, clusters * types


async def run(*, clusters: int, small: int) -> Report:
    report = Report("members", "clusters behind TLS and HTTP/2", ("what", "figure"))
    with TemporaryDirectory(prefix="kubebraid-bench-") as directory:
        folder = Path(directory)
        if clusters:
            await _hundred(folder, clusters, report)
        few, few_watches = await _small(folder, max(small // 5, 1), 4, report, "few types")
        many, many_watches = await _small(folder, max(small // 5, 1), 20, report, "twenty types")
        watch = (many - few) / (many_watches - few_watches)
        report.row("an idle watch, KB", watch / 1000)
        report.ratio("watch", 15_000 / watch, "of 15 KB for an idle watch", 1.0)
        await _small(folder, small, 20, report, "small clusters")
    return report


__all__ = ["SMALL", "Front", "run"]
