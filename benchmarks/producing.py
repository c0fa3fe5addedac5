"""Produce: from a cluster's HTTP LIST into the log, against a bare pipelined publish of the same messages.

The cluster, the producer and the publisher are processes of their own; each run has a new broker, the two kinds
in turn. Then the same producer starts again over the unchanged log, and must append nothing.
"""

from __future__ import annotations

import asyncio
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks import bare, rig
from benchmarks.content import PODS
from benchmarks.report import Report, median
from deltalog import Appender, Record, connect, open_log
from deltalog.reader import read_to_end
from deltalog.wire.subjects import object_filter
from producers.follow.normalize import Normalizer
from producers.follow.ownership import take
from producers.follow.reflector import Reflector
from producers.follow.writer import Writer
from producers.kubeconfig.files import access_of
from producers.upstream.apiserver import ApiServer
from producers.upstream.watching import Target, list_pages
from simulation import SimulatedCluster, write_kubeconfig

_CLUSTER = "bench-1"
_ROUNDS = 3
_GOAL = 0.60
# As many as the appender has in flight, by default.
_WINDOW = 1024


class _Produced(msgspec.Struct):
    """What one start of a producer did. `deltas` is what it appended, by its own count."""

    objects: int
    deltas: int
    seconds: float
    cpu: float


async def _cluster(pipe: Pipe, kubeconfig: Path, pods: int, gzip: bool) -> None:
    """A simulated cluster, until told to end; says when it can be asked."""
    async with SimulatedCluster(_CLUSTER, pods=pods, gzip=gzip) as cluster:
        write_kubeconfig([cluster], kubeconfig)
        pipe.send(None)
        await rig.until_closed(pipe)


async def _produce(pipe: Pipe, url: str, kubeconfig: Path) -> None:
    """One informer, from its start (it reads back what the log has) until its list is in the log."""
    connection = await connect(url, name="kubebraid-bench")
    log = await open_log(connection)
    server = ApiServer(access_of(str(kubeconfig), _CLUSTER))
    # Connecting and reading the kubeconfig is part of no list.
    await server.get("/version")
    synced = asyncio.Event()

    class Informer:
        """Waits for the first list."""

        async def reflector_synced(self) -> None:
            synced.set()

        async def reflector_in_trouble(self, reason: str) -> None:
            raise RuntimeError(reason)

    async with Appender(connection) as appender:
        owner = await take(log, appender, _CLUSTER, "benchmark")
        writer = Writer(log, appender, owner, PODS, Normalizer(_CLUSTER, PODS))
        reflector = Reflector(_CLUSTER, server, Target(PODS.path), writer, Informer())
        started, cpu = time.perf_counter(), time.process_time()
        running = asyncio.create_task(reflector.run())
        waiting = asyncio.create_task(synced.wait())
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        if running.done():
            running.result()
        counts = writer.counts
        deltas = counts.added + counts.modified + counts.deleted
        pipe.send(_Produced(len(writer), deltas, seconds, cpu))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await server.close()
    await connection.close()


async def _observe(pipe: Pipe, url: str, kubeconfig: Path) -> None:
    """The writer alone: the same objects, already fetched, until they are in the log."""
    connection = await connect(url, name="kubebraid-bench")
    log = await open_log(connection)
    server = ApiServer(access_of(str(kubeconfig), _CLUSTER))
    items = [
        msgspec.json.encode(item) async for page in list_pages(server, Target(PODS.path)) for item in page.items or ()
    ]
    async with Appender(connection) as appender:
        owner = await take(log, appender, _CLUSTER, "benchmark")
        writer = Writer(log, appender, owner, PODS, Normalizer(_CLUSTER, PODS))
        started, cpu = time.perf_counter(), time.process_time()
        await writer.read_back()
        for item in items:
            await writer.observe(item, listed=True)
        await writer.settle()
        pipe.send(_Produced(len(writer), writer.counts.added, time.perf_counter() - started, time.process_time() - cpu))
    await server.close()
    await connection.close()


async def stored_deltas(url: str) -> list[tuple[str, bytes]]:
    """Subjects and payloads of the objects in a log."""
    found: list[tuple[str, bytes]] = []

    def keep(record: Record) -> None:
        found.append((record.subject, record.data))

    async with rig.connection(url) as connection:
        await read_to_end(await open_log(connection), keep, subjects=(object_filter(),))
    return found


async def _last_delta(url: str) -> int:
    """The sequence of a log's last delta."""
    async with rig.connection(url) as connection:
        return await read_to_end(await open_log(connection), lambda record: None, subjects=(object_filter(),))


async def run(*, pods: int) -> Report:
    report = Report(
        "produce",
        f"{pods:,} pods from a cluster's LIST into the log, {_ROUNDS} rounds in turn",
        ("writer", "objects", "median ms", "min ms", "objects/s", "CPU us/object"),
    )
    informed: list[_Produced] = []
    plainly: list[_Produced] = []
    costs: list[float] = []
    observed: list[_Produced] = []
    published: list[_Produced] = []
    again: _Produced | None = None
    with TemporaryDirectory(prefix="kubebraid-bench-") as directory:
        kubeconfig, messages = Path(directory) / "kubeconfig", Path(directory) / "messages"
        plain_kubeconfig = Path(directory) / "plain"
        async with (
            rig.process(_cluster, kubeconfig, pods, True) as cluster,
            rig.process(_cluster, plain_kubeconfig, pods, False) as plain_cluster,
        ):
            await cluster.receive()
            await plain_cluster.receive()
            for number in range(_ROUNDS):
                async with rig.broker() as broker:
                    before_list = rig.cpu_seconds(cluster.pid)
                    informed.append(await rig.fresh(_produce, broker.url, kubeconfig))
                    costs.append(rig.cpu_seconds(cluster.pid) - before_list)
                    if not number:
                        deltas = await stored_deltas(broker.url)
                        messages.write_bytes(msgspec.msgpack.encode(deltas))
                        before = await _last_delta(broker.url)
                        again = await rig.fresh(_produce, broker.url, kubeconfig)
                        if (after := await _last_delta(broker.url)) != before:
                            report.failures.append(f"the second start appended: {before} became {after}")
                async with rig.broker() as broker:
                    plainly.append(await rig.fresh(_produce, broker.url, plain_kubeconfig))
                async with rig.broker() as broker:
                    observed.append(await rig.fresh(_observe, broker.url, kubeconfig))
                async with rig.broker() as broker:
                    async with rig.connection(broker.url) as connection:
                        await open_log(connection)
                    count, seconds, cpu = await rig.fresh(bare.publish, broker.url, messages, _WINDOW)
                    published.append(_Produced(count, count, seconds, cpu))
    assert again is not None
    rows = (
        ("bare publish", published),
        ("writer, objects at hand", observed),
        ("informer, HTTP LIST", plainly),
        ("informer, LIST in gzip", informed),
        ("second start, nothing new", [again]),
    )
    for title, runs in rows:
        middle, count = median([one.seconds for one in runs]), runs[0].objects
        cpu = median([one.cpu for one in runs]) / max(count, 1) * 1e6
        report.row(title, count, middle * 1e3, min(one.seconds for one in runs) * 1e3, count / middle, cpu)
    for title, runs in rows:
        if any(one.objects != pods for one in runs):
            report.failures.append(f"{title}: {[one.objects for one in runs]} objects, not {pods}")
    if again.deltas:
        report.failures.append(f"the second start appended {again.deltas} deltas")
    size = sum(len(payload) for _, payload in deltas) / len(deltas)
    report.notes.append(f"a payload has {size:,.0f} bytes")
    report.notes.append(
        f"making a list in gzip costs the simulated cluster {median(costs) / pods * 1e6:.0f} CPU us an object,"
        " on the cores that all of this shares"
    )
    report.notes.append(f"second start over the unchanged log: {again.deltas} deltas in {again.seconds:.2f} s")
    base = median([one.seconds for one in published])
    report.ratio("informer", base / median([one.seconds for one in plainly]), "of a bare publish", _GOAL)
    report.ratio("gzip", base / median([one.seconds for one in informed]), "of a bare publish, with a list in gzip")
    report.ratio("writer", base / median([one.seconds for one in observed]), "of a bare publish")
    return report
