"""Failover: an instance dies under its watchers, who go on at another one; the gap between the last event and the next.

In turn two bare servers write the same events at the same rate, and one of them dies under as many watchers: what
noticing, connecting and waiting for the next event take by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks import bare, rig
from benchmarks.content import Filled, fill
from benchmarks.report import Report, median, percentile
from benchmarks.watchers import Moved, watch_and_move
from benchmarks.watching import PATIENCE, PODS, Round, append_changes
from deltalog import open_log
from deltalog.jetstream.stream import Log

# How long changes go on, and when in it the instance dies, in seconds.
_SECONDS = 4.0
_DIES_AFTER = 1.5
_ROUNDS = 3


def _gaps(seen: Sequence[Moved]) -> list[float]:
    """From the last event on the old instance to the first on the new one, in milliseconds, ascending."""
    return sorted(
        (one.times[one.moved] - one.times[one.moved - 1]) * 1e3 for one in seen if 0 < one.moved < len(one.times)
    )


def _failures(seen: Sequence[Moved], round_: Round) -> list[str]:
    final = set(round_.last.values())
    found = []
    if missing := sum(bool(final - set(one.indexes)) for one in seen):
        found.append(f"{missing} watchers miss the last state of an object")
    if unordered := sum(any(a >= b for a, b in pairwise(one.indexes)) for one in seen):
        found.append(f"{unordered} watchers saw events twice or out of order")
    if unmoved := sum(not 0 < one.moved < len(one.times) for one in seen):
        found.append(f"{unmoved} watchers saw nothing on one of the two")
    return found


async def _fail(
    log: Log, filled: Filled, url: str, number: int, watchers: int, rate: int, how: signal.Signals
) -> tuple[list[Moved], Round, list[bytes]]:
    """One failover: two instances, of which the first ends."""
    round_ = Round()
    async with contextlib.AsyncExitStack() as stack:
        old = await stack.enter_async_context(rig.service(url))
        new = await stack.enter_async_context(rig.service(url))
        arguments = ((old.port, new.port), PODS, log.prefix, await log.head(), watchers, PATIENCE)
        clients = await stack.enter_async_context(rig.process(watch_and_move, *arguments))
        await clients.receive()

        async def end() -> None:
            await asyncio.sleep(_DIES_AFTER)
            os.kill(old.pid, how)

        count = int(rate * _SECONDS)
        ending = asyncio.create_task(end())
        lines = await append_changes(log, filled, round_, rate, 1 + number * count, count)
        await ending
        clients.send(max(round_.last.values()))
        return await clients.receive(), round_, lines


async def _bare(lines: list[bytes], like: Round, watchers: int, rate: int, directory: Path) -> list[Moved]:
    """The same with bare servers."""
    path = directory / "lines"
    path.write_bytes(msgspec.msgpack.encode(lines))
    async with rig.process(bare.serve_lines, path, rate) as old, rig.process(bare.serve_lines, path, rate) as new:
        ports = (await old.receive(), await new.receive())
        async with rig.process(watch_and_move, ports, PODS, "", 0, watchers, PATIENCE) as clients:
            await clients.receive()
            old.send(None)
            new.send(None)
            await asyncio.sleep(_DIES_AFTER)
            os.kill(old.pid, signal.SIGKILL)
            await new.receive()
            clients.send(max(like.last.values()))
            seen: list[Moved] = await clients.receive()
            return seen


async def run(*, pods: int, watchers: int, rate: int) -> Report:
    report = Report(
        "failover",
        f"{watchers:,} watchers of {pods:,} pods, {rate:,} changes/s, an instance ends and they go on at another",
        ("the old instance", "failovers", "gaps", "p50 ms", "p99 ms", "most ms"),
    )
    gaps: dict[str, list[float]] = {"bare, SIGKILL": [], "SIGKILL": [], "SIGTERM": []}
    started = time.monotonic()
    async with rig.broker() as broker, rig.connection(broker.url) as connection:
        log = await open_log(connection)
        filled = await fill(log, pods)
        number = 0
        with TemporaryDirectory(prefix="kubebraid-bench-") as directory:
            for _ in range(_ROUNDS):
                for how in (signal.SIGKILL, signal.SIGTERM):
                    seen, round_, lines = await _fail(log, filled, broker.url, number, watchers, rate, how)
                    gaps[how.name] += _gaps(seen)
                    report.failures += [f"{how.name}: {failure}" for failure in _failures(seen, round_)]
                    number += 1
                gaps["bare, SIGKILL"] += _gaps(await _bare(lines, round_, watchers, rate, Path(directory)))
    for title, found in gaps.items():
        found.sort()
        report.row(title, _ROUNDS, len(found), percentile(found, 0.5), percentile(found, 0.99), found[-1])
    report.notes.append(
        "watchers connect again at once, all of them, with the version of the last event; bare: what is missed is lost"
    )
    lost = "every watcher has every object's last state, in order, nothing twice"
    report.notes.append(lost if not report.failures else "NOT every watcher has every object's last state, in order")
    for title in ("SIGKILL", "SIGTERM"):
        ratio = median(gaps["bare, SIGKILL"]) / median(gaps[title])
        report.ratio(title.lower(), ratio, "of the gap that bare servers leave (p50; 1: as small)")
    report.seconds = time.monotonic() - started
    return report
