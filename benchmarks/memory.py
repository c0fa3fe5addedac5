"""Memory: what an object costs a process that serves, everything included, and what that costs where objects are read.

A materializer as `serve` has it reads a real log in a process of its own (see `holding`); with `before`, a source tree
of another release, in turn with one of that. The pods are `uniform`, all of one template, or `mixed`, as in real
clusters. What a process holds before it reads is left out; all else counts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, get_args
from uuid import uuid4

import msgspec

from benchmarks import bare, rig
from benchmarks.content import Filled, Pod, deletion_of, delta_of, fill, message, remember
from benchmarks.holding import holding
from benchmarks.report import Cell, Report, median
from deltalog import ADDED, Appender, LogSettings, open_log
from deltalog.jetstream.stream import Log
from simulation.content import Variety

_TREE = Path(__file__).resolve().parents[1]
_GOALS: dict[Variety, int] = {"uniform": 1_200, "mixed": 1_500}
_REPLAY_GOAL = 0.66
_DELETION_GOAL = 300
# So often pods come and go before it is measured what a deletion takes.
_ROUNDS = 3
_EVENTS_BYTES = 8 << 30
# Seconds for an instance with so many objects to be ready, beside what the first needs.
_READY = 120.0
_READY_EACH = 0.001


class _Log(NamedTuple):
    log: Log
    filled: Filled
    url: str
    messages: int


@contextlib.asynccontextmanager
async def _filled(pods: int, variety: Variety, deletions: int) -> AsyncIterator[_Log]:
    async with rig.broker() as broker, rig.connection(broker.url) as connection:
        # All of them are kept: owners are fenced by their records, which nobody here appends again.
        log = await open_log(connection, LogSettings(events_bytes=_EVENTS_BYTES))
        filled = await fill(log, pods, variety, keep=deletions)
        yield _Log(log, filled, broker.url, (await log.state()).messages)


async def _once(tree: Path, url: str, snapshots: Path | None = None, *, writes: bool = False) -> dict[str, Any]:
    async with holding(tree, url, snapshots=snapshots, writes=writes) as holder:
        return await holder.state()


async def _held_by_deletions(tree: Path, made: _Log, *, limit: int = 0) -> float:
    """What a running materializer holds for each pod that came and was deleted while it ran, in bytes.

    With a `limit` of so many, they are remembered without bodies, and what counts is what comes after.
    """
    async with holding(tree, made.url, deletions=limit) as holder:
        await holder.state()
        # What is kept of the newest events for a while, as buffers and free memory, has its size by then.
        for _ in range(_ROUNDS):
            await _come_and_go(made)
            before = await holder.again()
        count = await _come_and_go(made)
        after = await holder.again()
    return float(after["held"] - before["held"]) / count


async def _come_and_go(made: _Log) -> int:
    """Bring as many pods as are kept into the log, by other names, and delete them; how many."""
    tag = uuid4().hex[:8]
    others, names = [], set()
    for pod in made.filled.pods:
        name, uid = f"{pod.content.name}-{tag}", tag + pod.content.uid[8:]
        if (at := (pod.cluster, pod.content.namespace, name)) in names:
            # Of a hundred thousand simulated pods one may have another one's name.
            continue
        names.add(at)
        others.append(Pod(pod.cluster, msgspec.structs.replace(pod.content, name=name, uid=uid)))
    owners = made.filled.owners
    async with Appender(made.log.connection) as appender:
        for other in others:
            owner = owners[other.cluster]
            subject, payload, headers = message(owner, delta_of(ADDED, owner, other.content, 0))
            await appender.append(subject, payload, remember(other), headers)
        await appender.drain()
        for other in others:
            subject, payload, headers = deletion_of(owners[other.cluster], other)
            await appender.append(subject, payload, remember(other), headers)
        await appender.drain()
    return len(others)


async def _proportional(tree: Path, url: str, pods: int, workers: int, snapshot: Path) -> float:
    """What `serve` with so many workers takes of memory, what they share counted once (Linux: Pss)."""
    arguments = ("--workers", str(workers), "--snapshot", str(snapshot))
    async with rig.service(url, *arguments, tree=tree, patience=_READY + pods * _READY_EACH) as served:
        size, last = 0, -(2**40)
        # Until it stays as it is.
        while abs(size - last) > max(size // 500, 200_000):
            await asyncio.sleep(3.0)
            size, last = sum(map(rig.proportional_bytes, rig.family(served.pid))), size
        return float(size)


async def run(*, pods: int, rounds: int, before: Path | None = None) -> Report:
    report = Report(
        "memory",
        f"{pods:,} pods, {rounds} rounds in turn" + (f", before: {before}" if before else ""),
        ("what", "before", "now", "goal"),
    )
    trees = {"before": before, "now": _TREE} if before else {"now": _TREE}
    for variety in get_args(Variety):
        await _measure(report, trees, pods, variety, rounds)
    report.notes.append("bytes are resident ones beside those of a process that has read nothing")
    return report


async def _measure(report: Report, trees: dict[str, Path], pods: int, variety: Variety, rounds: int) -> None:
    # More bytes than are kept of the newest events, so that those have their size before what is measured comes.
    deletions = min(pods, 20_000)

    def row(what: str, found: dict[str, float], goal: Cell = None) -> None:
        report.row(f"{variety}: {what}", found.get("before"), found["now"], goal)

    async with _filled(pods, variety, deletions) as made:
        read: list[float] = []
        whole: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
        quick: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
        saved: dict[str, dict[str, Any]] = {}
        with TemporaryDirectory(prefix="kubebraid-bench-") as directory:
            places = {name: Path(directory) / name for name in trees}
            for name, tree in trees.items():
                saved[name] = await _once(tree, made.url, places[name], writes=True)
            for _ in range(rounds):
                read.append((await rig.fresh(bare.read_ordered, made.url, made.log.name, made.messages))[1])
                for name, tree in trees.items():
                    whole[name].append(await _once(tree, made.url))
                    quick[name].append(await _once(tree, made.url, places[name]))
            workers = {}
            for name, tree in trees.items() if variety == "mixed" else ():
                one = await _proportional(tree, made.url, pods, 1, places[name])
                workers[name] = (await _proportional(tree, made.url, pods, 2, places[name]) - one) / 1e6
        for state in (one for found in (*whole.values(), *quick.values()) for one in found):
            # Of a million simulated pods one may have another one's name.
            if state["objects"] != made.filled.objects:
                report.failures.append(f"{variety}: {state['objects']} objects, not {made.filled.objects}")

        def middle(found: dict[str, list[dict[str, Any]]], key: str, share: float = 1.0) -> dict[str, float]:
            return {name: median([float(one[key]) for one in all_found]) * share for name, all_found in found.items()}

        held = middle(whole, "held", 1 / pods)
        row("resident bytes an object", held, _GOALS[variety])
        row("the same after a start from a snapshot", middle(quick, "held", 1 / pods))
        row(
            "most resident bytes an object meanwhile",
            {name: median([one["most"] - one["before"] for one in found]) / pods for name, found in whole.items()},
        )
        seconds = middle(whole, "seconds")
        rates = {name: median(read) / one for name, one in seconds.items()}
        row("replay, of a bare ordered consumer's rate", rates, _REPLAY_GOAL)
        row("processor time of replay, us an object", middle(whole, "cpu", 1e6 / pods))
        row("with what goes on after it, us an object", middle(whole, "cpu_settled", 1e6 / pods))
        starts = {name: seconds[name] / one for name, one in middle(quick, "seconds").items()}
        row("start from a snapshot, times as fast", starts, 3.0 if pods < 500_000 else 6.0)
        row("seconds to write a snapshot", {name: one["saving"] for name, one in saved.items()})
        row("bytes of it an object", {name: one["file"] / pods for name, one in saved.items()})
        if workers:
            row("a further worker, MB", workers, 500.0 if pods >= 500_000 else None)
        if variety == "mixed":
            whole_ones = {name: await _held_by_deletions(tree, made) for name, tree in trees.items()}
            row("a deletion that is remembered, in its first minutes", whole_ones)
            now = trees["now"]
            row("after them", {"now": await _held_by_deletions(now, made, limit=10**9)}, _DELETION_GOAL)
            limited = await _held_by_deletions(now, made, limit=len(made.filled.pods))
            row("one more, where as many are remembered as may be", {"now": limited}, 0)
    body = made.filled.size / pods
    report.notes.append(f"{variety}: {body:,.0f} bytes of JSON an object")
    report.ratio(f"{variety}", body / held["now"], "bytes of JSON for each resident byte", body / _GOALS[variety])
    report.ratio(f"{variety}/replay", rates["now"], "of a bare ordered consumer", _REPLAY_GOAL)
