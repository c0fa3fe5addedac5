"""Start: a cold materializer to ready, from the log alone and from a snapshot on disk; and what writing one costs.

Each reading has a fresh process, the two kinds in turn. While a snapshot is written a ticker in the same event loop
sees how long others have to wait, in turn with as long a time in which none is.
"""

from __future__ import annotations

import asyncio
import gc
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import rig
from benchmarks.content import fill
from benchmarks.report import Report, median, percentile
from deltalog import connect, open_log
from materializer.materializer import Materializer
from materializer.snapshot import Snapshots

_GOAL = 3.0
_TICK = 0.001


async def _start(pipe: Pipe, url: str, directory: Path | None) -> None:
    """Sends objects, messages read, seconds, CPU seconds, resident bytes before and after, index and prefix."""
    connection = await connect(url, name="kubebraid-bench")
    snapshots = None if directory is None else Snapshots(directory, 3600.0, writes=False)
    materializer = Materializer(await open_log(connection), snapshots=snapshots)
    gc.collect()
    before = rig.resident_bytes()
    started, cpu = time.perf_counter(), time.process_time()
    running = asyncio.create_task(materializer.run())
    ready = asyncio.create_task(materializer.ready.wait())
    await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    store = materializer.store
    objects = sum(len(kind) for kind in store.types.values())
    await asyncio.sleep(0.2)
    gc.collect()
    after = rig.resident_bytes()
    pipe.send((objects, materializer.replayed, seconds, cpu, before, after, store.applied, store.prefix))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await connection.close()


async def _late(over: asyncio.Event) -> list[float]:
    """How much too late a ticker was, each time, in seconds, ascending."""
    loop, found = asyncio.get_running_loop(), []
    while not over.is_set():
        due = loop.time() + _TICK
        await asyncio.sleep(_TICK)
        found.append(loop.time() - due)
    return sorted(found)


async def _write(pipe: Pipe, url: str, directory: Path) -> None:
    """Sends seconds, CPU seconds, bytes, growth of resident bytes, delays while writing and while not."""
    connection = await connect(url, name="kubebraid-bench")
    snapshots = Snapshots(directory, 3600.0)
    materializer = Materializer(await open_log(connection), snapshots=snapshots)
    running = asyncio.create_task(materializer.run())
    await materializer.ready.wait()
    await asyncio.sleep(0.5)
    gc.collect()
    before, over = rig.resident_bytes(), asyncio.Event()
    ticking = asyncio.create_task(_late(over))
    started, cpu = time.perf_counter(), time.process_time()
    await materializer.save()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    over.set()
    grown = rig.resident_bytes() - before
    busy = await ticking
    over.clear()
    ticking = asyncio.create_task(_late(over))
    await asyncio.sleep(max(seconds, 1.0))
    over.set()
    pipe.send((seconds, cpu, snapshots.size, grown, busy, await ticking))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await connection.close()


async def run(*, pods: int, rounds: int) -> Report:
    report = Report(
        "start",
        f"{pods:,} pods, from nothing to ready, {rounds} rounds in turn",
        ("start", "messages read", "median ms", "min ms", "CPU us/object", "bytes/object"),
    )
    whole: list[tuple[int, int, float, float, int, int, int, str]] = []
    quick: list[tuple[int, int, float, float, int, int, int, str]] = []
    with TemporaryDirectory(prefix="kubebraid-bench-") as name:
        directory = Path(name)
        async with rig.broker() as broker:
            async with rig.connection(broker.url) as connection:
                log = await open_log(connection)
                filled = await fill(log, pods)
            written = await rig.fresh(_write, broker.url, directory)
            for _ in range(rounds):
                whole.append(await rig.fresh(_start, broker.url, None))
                quick.append(await rig.fresh(_start, broker.url, directory))
    for title, found in (("the whole log", whole), ("a snapshot", quick)):
        seconds = [one[2] for one in found]
        cpu = median([one[3] for one in found]) / pods * 1e6
        kept = median([(one[5] - one[4]) / pods for one in found])
        report.row(title, found[0][1], median(seconds) * 1e3, min(seconds) * 1e3, cpu, kept)
    if len({(one[0], *one[6:]) for one in (*whole, *quick)}) != 1 or whole[0][0] != pods:
        report.failures.append("not all started with the same objects, index and prefix")
    if quick[0][1]:
        report.failures.append(f"{quick[0][1]} messages were read again")
    seconds_, cpu_, size, grown, busy, idle = written
    report.notes.append(
        f"writing: {seconds_:.2f} s, {cpu_:.2f} CPU s, {size / 1e6:,.1f} MB for {filled.size / 1e6:,.0f} MB of JSON, "
        f"{grown / 1e6:,.1f} MB more resident"
    )
    for title, delays in (("while it is written", busy), ("else", idle)):
        shown = (median(delays) * 1e3, percentile(delays, 0.99) * 1e3, delays[-1] * 1e3)
        report.notes.append(
            f"{title}, others wait {shown[0]:.2f} ms (median), {shown[1]:.2f} (p99), {shown[2]:.2f} (most)"
        )
    ratio = median([one[2] for one in whole]) / median([one[2] for one in quick])
    report.ratio("snapshot", ratio, "times as fast as from the whole log", _GOAL)
    return report
