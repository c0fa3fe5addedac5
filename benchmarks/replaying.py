"""Replay: a cold materializer from the log to ready, against nats-py's ordered consumer on the same stream.

Each reading has a fresh process, the two kinds in turn.
"""

from __future__ import annotations

import asyncio
import gc
import time
from multiprocessing.connection import Connection as Pipe

from benchmarks import bare, rig
from benchmarks.content import fill
from benchmarks.report import Report, median
from deltalog import connect, open_log
from materializer.materializer import Materializer

_GOAL = 0.60


async def _materialize(pipe: Pipe, url: str) -> None:
    """Sends messages, seconds, CPU seconds, objects, and resident bytes before and after."""
    connection = await connect(url, name="kubebraid-bench")
    materializer = Materializer(await open_log(connection))
    gc.collect()
    before = rig.resident_bytes()
    started, cpu = time.perf_counter(), time.process_time()
    running = asyncio.create_task(materializer.run())
    ready = asyncio.create_task(materializer.ready.wait())
    await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    messages = materializer.replayed
    objects = sum(len(kind) for kind in materializer.store.types.values())
    # The connection's buffers are given back by now, or never.
    await asyncio.sleep(0.2)
    gc.collect()
    pipe.send((messages, seconds, cpu, objects, before, rig.resident_bytes()))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await connection.close()


async def run(*, pods: int, rounds: int) -> Report:
    report = Report(
        "replay",
        f"log of {pods:,} pods read from the start, {rounds} rounds in turn",
        ("reader", "messages", "median ms", "min ms", "messages/s", "CPU us/message"),
    )
    read: list[tuple[int, float, float]] = []
    replayed: list[tuple[int, float, float, int, int, int]] = []
    async with rig.broker() as broker:
        async with rig.connection(broker.url) as connection:
            log = await open_log(connection)
            filled = await fill(log, pods)
            messages = (await log.state()).messages
        for _ in range(rounds):
            read.append(await rig.fresh(bare.read_ordered, broker.url, log.name, messages))
            replayed.append(await rig.fresh(_materialize, broker.url))
    for title, found in (
        ("bare ordered consumer", [one[:3] for one in read]),
        ("materializer, to ready", [one[:3] for one in replayed]),
    ):
        count, seconds, cpu = found[0][0], [one[1] for one in found], median([one[2] for one in found])
        middle = median(seconds)
        report.row(title, count, middle * 1e3, min(seconds) * 1e3, count / middle, cpu / count * 1e6)
    if replayed[0][3] != pods or replayed[0][0] != messages:
        report.failures.append(f"{replayed[0][3]} objects of {replayed[0][0]} messages, not {pods} of {messages}")
    kept = median([(after - before) / objects for _, _, _, objects, before, after in replayed])
    body = filled.size / len(filled.pods)
    report.notes.append(
        f"resident after the replay: {kept:,.0f} bytes an object, {kept / body:.2f} of its JSON ({body:,.0f} bytes)"
    )
    rate = median([one[1] for one in read]) / median([one[1] for one in replayed])
    report.ratio("rate", rate, "of a bare ordered consumer", _GOAL)
    report.ratio("memory", kept / body, "resident bytes for each byte of JSON")
    return report
