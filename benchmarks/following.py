"""Follow: a cluster's watch at full speed into the log, and the memory that it takes to know what the log has.

The watch's lines are made beforehand and served as fast as they are read, by a process of their own. Against them a
client that reads the same lines and does nothing with them, and a bare pipelined publish of what the producer made
of them.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Mapping
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import msgspec
import yaml
from aiohttp import web

from benchmarks import bare, rig
from benchmarks.content import PODS
from benchmarks.producing import stored_deltas
from benchmarks.report import Report, median
from deltalog import Appender, connect, open_log
from kubebraid.command.broker import free_port
from producers.follow.normalize import Normalizer
from producers.follow.ownership import take
from producers.follow.reflector import Reflector
from producers.follow.writer import Writer
from producers.kubeconfig.files import access_of
from producers.upstream.apiserver import ApiServer
from producers.upstream.watching import Target
from simulation import SimulatedCluster

_CLUSTER = "bench-1"
_ROUNDS = 3
_GOAL = 0.60
_WINDOW = 1024
# Bytes in one write of a server at full speed.
_WRITE = 64 * 1024
_KEYS = 100_000


class _Followed(msgspec.Struct):
    deltas: int
    seconds: float
    cpu: float


class _Held(msgspec.Struct):
    """What a map of so many objects takes; `traced` is Python's own count, without what allocators keep."""

    objects: int
    resident: int
    traced: int


# -- a watch with many changes -------------------------------------------------------------------------------------


def _made(pods: int) -> tuple[list[bytes], int, list[bytes]]:
    """The pods of a list, its version, and the lines of a watch behind it in which each of them changes once."""
    stored = list(SimulatedCluster(_CLUSTER, pods=pods).storage.collections["", "pods"].in_order())
    items = [b"{" + one.tail for one in stored]
    versions = [int(msgspec.json.decode(item)["metadata"]["resourceVersion"]) for item in items]
    last = max(versions)
    lines = []
    for at, (item, version) in enumerate(zip(items, versions, strict=True), 1):
        name = b'"resourceVersion":"%d"'
        changed = item.replace(name % version, name % (last + at), 1)
        lines.append(b'{"type":"MODIFIED","object":' + changed + b"}\n")
    return items, last, lines


def _page(items: list[bytes], version: int, query: Mapping[str, str]) -> bytes:
    """A page of the list, of as many pods as are asked for; its continue token is the number of those before it."""
    begin = int(query.get("continue", 0))
    end = min(begin + (int(query.get("limit", 0)) or len(items)), len(items))
    more = b',"continue":"%d","remainingItemCount":%d' % (end, len(items) - end) if end < len(items) else b""
    head = b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"%d"%b},"items":[' % (version, more)
    return head + b",".join(items[begin:end]) + b"]}\n"


async def _serve(pipe: Pipe, kubeconfig: Path, pods: int) -> None:
    """A cluster that has one list, by pages, and one watch, at full speed, for all that ask."""
    items, version, lines = await asyncio.to_thread(_made, pods)
    body = b"".join(lines)
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.Response(body=_page(items, version, request.query), content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for begin in range(0, len(body), _WRITE):
            await response.write(body[begin : begin + _WRITE])
        await over.wait()
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    kubeconfig.write_text(yaml.safe_dump(_kubeconfig(f"http://127.0.0.1:{port}")))
    pipe.send(port)
    await rig.until_closed(pipe)
    over.set()
    await runner.cleanup()


def _kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": _CLUSTER, "cluster": {"server": url}}],
        "users": [{"name": _CLUSTER, "user": {}}],
        "contexts": [{"name": _CLUSTER, "context": {"cluster": _CLUSTER, "user": _CLUSTER}}],
        "current-context": _CLUSTER,
    }


async def _read(pipe: Pipe, port: int, lines: int) -> None:
    """Reads the lines of the watch, and counts them."""
    async with aiohttp.ClientSession() as session:
        started, cpu = time.perf_counter(), time.process_time()
        async with session.get(f"http://127.0.0.1:{port}/api/v1/pods?watch=true") as response:
            count = 0
            async for chunk in response.content.iter_any():
                count += chunk.count(b"\n")
                if count == lines:
                    break
            pipe.send(_Followed(count, time.perf_counter() - started, time.process_time() - cpu))
            response.close()


async def _follow(pipe: Pipe, url: str, kubeconfig: Path, changes: int) -> None:
    """One informer, from the end of its list until all changes of its watch are in the log."""
    connection = await connect(url, name="kubebraid-bench")
    log = await open_log(connection)
    server = ApiServer(access_of(str(kubeconfig), _CLUSTER))
    started = cpu = 0.0
    over = asyncio.Event()

    class Informer:
        """Takes the time from the first list on."""

        async def reflector_synced(self) -> None:
            nonlocal started, cpu
            gc.collect()
            started, cpu = time.perf_counter(), time.process_time()

        async def reflector_in_trouble(self, reason: str) -> None:
            raise RuntimeError(reason)

    def on_change() -> None:
        if writer.counts.modified == changes:
            over.set()

    async with Appender(connection) as appender:
        owner = await take(log, appender, _CLUSTER, "benchmark")
        writer = Writer(log, appender, owner, PODS, Normalizer(_CLUSTER, PODS))
        reflector = Reflector(
            *(_CLUSTER, server, Target(PODS.path), writer, Informer()),
            on_change=on_change,
        )
        running = asyncio.create_task(reflector.run())
        waiting = asyncio.create_task(over.wait())
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        await appender.drain()
        pipe.send(_Followed(writer.counts.modified, time.perf_counter() - started, time.process_time() - cpu))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await server.close()
    await connection.close()


# -- what is known of each object ----------------------------------------------------------------------------------


def _object(number: int) -> bytes:
    """A pod with little more than its identity."""
    name, uid = f"service-{number % 997}-6b9c7d5f48-{number:06}", f"{number:08x}-7f3a-4f51-9c1e-{number * 7:012x}"
    return (
        b'{"metadata":{"name":"%b","namespace":"namespace-%d","uid":"%b","resourceVersion":"%d"},"spec":{},"status":{}}'
        % (name.encode(), number % 50, uid.encode(), 2_986_835_000_000 + number)
    )


async def _know(pipe: Pipe, url: str, objects: int, traced: bool) -> None:
    """A writer that learns of so many objects, and keeps what it must."""
    connection = await connect(url, name="kubebraid-bench")
    log = await open_log(connection)
    async with Appender(connection) as appender:
        # What buffers take that the first appends make is no part of the map.
        other = await take(log, appender, "other", "benchmark")
        warm = Writer(log, appender, other, PODS, Normalizer("other", PODS))
        await _fill(warm, 5_000)
        owner = await take(log, appender, _CLUSTER, "benchmark")
        writer = Writer(log, appender, owner, PODS, Normalizer(_CLUSTER, PODS))
        before = _memory(traced)
        await _fill(writer, objects)
        pipe.send(_Held(len(writer), *_growth(before)))
    await connection.close()


async def _fill(writer: Writer, objects: int) -> None:
    await writer.read_back()
    for number in range(objects):
        await writer.observe(_object(number), listed=True)
    await writer.settle()


async def _hold_keys(pipe: Pipe, objects: int, traced: bool) -> None:
    """The same objects' keys as a dict, and nothing about them."""
    before = _memory(traced)
    held: dict[tuple[str, str], None] = {}
    for number in range(objects):
        metadata = msgspec.json.decode(_object(number))["metadata"]
        held[metadata["namespace"], metadata["name"]] = None
    pipe.send(_Held(len(held), *_growth(before)))


def _memory(traced: bool) -> int:
    gc.collect()
    if traced:
        tracemalloc.start()
    return rig.resident_bytes()


def _growth(before: int) -> tuple[int, int]:
    gc.collect()
    return rig.resident_bytes() - before, tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0


# -- the benchmark -------------------------------------------------------------------------------------------------


async def run(*, pods: int) -> Report:
    report = Report(
        "follow",
        f"{pods:,} changes of a watch at full speed into the log, {_ROUNDS} rounds in turn",
        ("reader", "changes", "median ms", "min ms", "changes/s", "CPU s per 10,000"),
    )
    followed: list[_Followed] = []
    read: list[_Followed] = []
    published: list[_Followed] = []
    with TemporaryDirectory(prefix="kubebraid-bench-") as directory:
        kubeconfig, messages = Path(directory) / "kubeconfig", Path(directory) / "messages"
        async with rig.process(_serve, kubeconfig, pods) as cluster:
            port = await cluster.receive()
            for number in range(_ROUNDS):
                async with rig.broker() as broker:
                    followed.append(await rig.fresh(_follow, broker.url, kubeconfig, pods))
                    if not number:
                        messages.write_bytes(msgspec.msgpack.encode(await stored_deltas(broker.url)))
                read.append(await rig.fresh(_read, port, pods))
                async with rig.broker() as broker:
                    async with rig.connection(broker.url) as connection:
                        await open_log(connection)
                    published.append(_Followed(*await rig.fresh(bare.publish, broker.url, messages, _WINDOW)))
    for title, runs in (
        ("bare publish", published),
        ("bare reader of the lines", read),
        ("informer, watch to log", followed),
    ):
        seconds, count = median([one.seconds for one in runs]), runs[0].deltas
        cpu = median([one.cpu for one in runs]) / max(count, 1) * 10_000
        report.row(title, count, seconds * 1e3, min(one.seconds for one in runs) * 1e3, count / seconds, cpu)
        if any(one.deltas != pods for one in runs):
            report.failures.append(f"{title}: {[one.deltas for one in runs]} changes, not {pods}")
    ours = median([one.seconds for one in followed])
    report.ratio("publish", median([one.seconds for one in published]) / ours, "of a bare publish", _GOAL)
    report.ratio("read", median([one.seconds for one in read]) / ours, "of a bare reader of the watch's lines")
    async with rig.broker() as broker:
        known: _Held = await rig.fresh(_know, broker.url, _KEYS, False)
    async with rig.broker() as broker:
        traced: _Held = await rig.fresh(_know, broker.url, _KEYS, True)
    keys: _Held = await rig.fresh(_hold_keys, _KEYS, False)
    traced_keys: _Held = await rig.fresh(_hold_keys, _KEYS, True)
    for one in (known, traced, keys, traced_keys):
        if one.objects != _KEYS:
            report.failures.append(f"{one.objects} objects known, not {_KEYS}")
    report.notes.append(
        f"bytes for each of {_KEYS:,} known objects: {known.resident / _KEYS:.0f} resident, {traced.traced / _KEYS:.0f}"
        f" traced; a dict of their keys alone: {keys.resident / _KEYS:.0f} and {traced_keys.traced / _KEYS:.0f}"
    )
    report.ratio("memory", traced.traced / traced_keys.traced, "of a dict of the keys alone, traced (less is better)")
    return report
