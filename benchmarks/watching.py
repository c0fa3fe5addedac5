"""WATCH fan-out: deliveries for each CPU second of the server, against a bare server that writes the same lines.

Watchers, service and baseline are processes of their own. Changes are appended to the log one by one, evenly
spread; in turn the bare server writes the same events at the same rate, one write for each event and watcher. With
`before`, the service of another release has its turn, too, on the same log.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks import bare, rig
from benchmarks.content import Filled, change_of, fill
from benchmarks.report import Report, median, percentile
from benchmarks.watchers import Seen, watch
from deltalog import Appender, AppendError, decode_delta, open_log
from deltalog.jetstream.stream import Log
from materializer.entry import entry_of
from materializer.versions import list_version
from simulation.content import Variety

PODS = "/api/v1/pods"
_ROUNDS = 2
# Of what another release delivers.
_BEFORE_GOAL = 0.95
_SECONDS = 3.0
# Changes go to this many pods, in turn, so that at the usual rate each changes more than once.
_CHANGED = 1000
# Watchers of the round that measures latency: so few that the machine is not what they wait for.
_FEW = 5
# How long watchers may take after the last change.
PATIENCE = 30.0


@dataclass
class Round:
    """One run of either server. `sent`: when an index was acknowledged (or written); `last`: of each object."""

    cpu: float = 0.0
    seconds: float = 0.0
    sent: dict[int, float] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    @property
    def deliveries(self) -> int:
        return sum(len(one.indexes) for one in self.seen)

    @property
    def per_cpu_second(self) -> float:
        return self.deliveries / self.cpu if self.cpu else 0.0

    def latencies(self) -> list[float]:
        """From the acknowledgement to each arrival, in milliseconds, ascending; what came before it took 0."""
        return sorted(
            max((arrived - self.sent[index]) * 1e3, 0.0)
            for one in self.seen
            for index, arrived in zip(one.indexes, one.times, strict=True)
            if index in self.sent
        )

    def failures(self) -> list[str]:
        """What a watcher missed, or saw twice or out of order."""
        final = set(self.last.values())
        missing = [len(final - set(one.indexes)) for one in self.seen]
        unordered = sum(any(a >= b for a, b in pairwise(one.indexes)) for one in self.seen)
        found = []
        if any(missing):
            found.append(f"{sum(map(bool, missing))} watchers miss the last state of {max(missing)} objects or fewer")
        if unordered:
            found.append(f"{unordered} watchers saw events twice or out of order")
        return found


async def append_changes(log: Log, filled: Filled, round_: Round, rate: float, step: int, count: int) -> list[bytes]:
    """Appends changes at a rate; returns them as the lines that a watch shows."""
    pods = filled.pods[:_CHANGED]
    prepared = []
    for number in range(count):
        pod = pods[number % len(pods)]
        prepared.append((number, *change_of(filled.owners[pod.cluster], pod, step + number)))
    loop = asyncio.get_running_loop()
    sequences: dict[int, int] = {}

    async with Appender(log.connection) as appender:
        started = loop.time()
        for number, subject, payload, headers in prepared:
            if (early := started + number / rate - loop.time()) > 0:
                await asyncio.sleep(early)

            def acknowledged(sequence: int, error: AppendError | None, number: int = number) -> None:
                round_.sent[sequence] = time.monotonic()
                sequences[number] = sequence

            await appender.append(subject, payload, acknowledged, headers)
        await appender.drain()
    for number, sequence in sequences.items():
        pod_number = number % len(pods)
        round_.last[pod_number] = max(sequence, round_.last.get(pod_number, 0))
    return [_line(log.prefix, payload, sequences[number]) for number, _, payload, _ in prepared]


def _line(prefix: str, payload: bytes, sequence: int) -> bytes:
    entry = entry_of(decode_delta(payload), sequence, 0, prefix)
    return b'{"type":"MODIFIED","object":%b%b}\n' % (entry.type_meta, entry.content)


async def _service_round(
    log: Log, filled: Filled, served: rig.Service, watchers: int, rate: int, step: int
) -> tuple[Round, list[bytes]]:
    round_ = Round()
    path = f"{PODS}?watch=1&resourceVersion={list_version(log.prefix, await log.head())}"
    async with rig.process(watch, served.port, path, watchers, PATIENCE) as clients:
        await clients.receive()
        cpu, started = rig.cpu_seconds(served.pid), time.monotonic()
        lines = await append_changes(log, filled, round_, rate, step, int(rate * _SECONDS))
        clients.send(max(round_.sent))
        round_.seen = await clients.receive()
        round_.cpu = rig.cpu_seconds(served.pid) - cpu
        round_.seconds = max(one.times[-1] for one in round_.seen if one.times) - started
    return round_, lines


async def _bare_round(lines: list[bytes], like: Round, watchers: int, rate: int, directory: Path) -> Round:
    """The lines of a service's round, written by the bare server."""
    round_ = Round(last=like.last)
    path = directory / "lines"
    path.write_bytes(msgspec.msgpack.encode(lines))
    async with rig.process(bare.serve_lines, path, rate) as server:
        port = await server.receive()
        async with rig.process(watch, port, PODS, watchers, PATIENCE) as clients:
            await clients.receive()
            cpu, started = rig.cpu_seconds(server.pid), time.monotonic()
            server.send(None)
            written = await server.receive()
            round_.sent = dict(zip(sorted(like.sent), written, strict=True))
            clients.send(max(round_.sent))
            round_.seen = await clients.receive()
            round_.cpu = rig.cpu_seconds(server.pid) - cpu
            round_.seconds = max(one.times[-1] for one in round_.seen if one.times) - started
    return round_


async def run(*, pods: int, watchers: int, rate: int, variety: Variety = "mixed", before: Path | None = None) -> Report:
    report = Report(
        "watch",
        f"{watchers:,} watchers of {pods:,} {variety} pods, {rate:,} changes/s, {_ROUNDS} turns of {_SECONDS:.0f} s",
        ("server", "deliveries", "of all", "seconds", "CPU s", "deliveries/CPU s", "p50 ms", "p99 ms"),
    )
    ours: list[Round] = []
    theirs: list[Round] = []
    formers: list[Round] = []
    async with rig.broker() as broker, rig.connection(broker.url) as connection:
        log = await open_log(connection)
        filled = await fill(log, pods, variety)
        with TemporaryDirectory(prefix="kubebraid-bench-") as directory:
            async with contextlib.AsyncExitStack() as stack:
                served = await stack.enter_async_context(rig.service(broker.url))
                former = await stack.enter_async_context(rig.service(broker.url, tree=before)) if before else None
                # Versions of a pod only grow.
                steps = itertools.count(1, int(rate * _SECONDS))
                for _ in range(_ROUNDS):
                    round_, lines = await _service_round(log, filled, served, watchers, rate, next(steps))
                    ours.append(round_)
                    if former is not None:
                        formers.append((await _service_round(log, filled, former, watchers, rate, next(steps)))[0])
                    theirs.append(await _bare_round(lines, round_, watchers, rate, Path(directory)))
                few, _ = await _service_round(log, filled, served, _FEW, rate, next(steps))
    for title, rounds, count in (
        ("bare writes", theirs, watchers),
        ("service", ours, watchers),
        *([("service, before", formers, watchers)] if formers else []),
        (f"service, {_FEW} watchers", [few], _FEW),
    ):
        deliveries, cpu = sum(one.deliveries for one in rounds), sum(one.cpu for one in rounds)
        possible = sum(len(one.sent) for one in rounds) * count
        latencies = sorted(late for one in rounds for late in one.latencies())
        times = (percentile(latencies, 0.5), percentile(latencies, 0.99))
        seconds = sum(one.seconds for one in rounds)
        report.row(title, deliveries, deliveries / possible, seconds, cpu, deliveries / cpu, *times)
        report.failures += [f"{title}: {failure}" for one in rounds for failure in one.failures()]
    size = sum(map(len, lines)) / len(lines)
    report.notes.append(f"an event has {size:,.0f} bytes; ms from the log's ack (bare: from the write) to the watcher")
    quick = few.latencies()
    late = (percentile(quick, 0.5), percentile(quick, 0.99))
    report.notes.append(
        f"{_FEW} watchers, {rate:,} changes/s: p50 {late[0]:.1f} ms, p99 {late[1]:.1f} ms behind the ack"
    )
    report.notes.append("a watcher that falls behind gets an object's latest state only: less than 1 of all is no loss")
    lost = "every watcher has every object's last state, in order, nothing twice"
    report.notes.append(lost if not report.failures else "NOT every watcher has every object's last state, in order")
    if formers:
        ratio = median([one.per_cpu_second for one in ours]) / median([one.per_cpu_second for one in formers])
        report.ratio("before", ratio, "of the deliveries of before for each CPU second", _BEFORE_GOAL)
    ratio = median([one.per_cpu_second for one in ours]) / median([one.per_cpu_second for one in theirs])
    report.ratio("fan-out", ratio, "of the deliveries of bare writes for each CPU second")
    return report
