"""Resume: many watchers come back at once to a version that lies thousands of changes back.

In turn a bare server writes the same events to as many watchers as fast as they take them. Of an object that changed
several times a resume shows the latest state, so both write one event for each changed object.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from benchmarks import bare, rig
from benchmarks.content import fill
from benchmarks.report import Report
from benchmarks.watchers import watch
from benchmarks.watching import PATIENCE, PODS, Round, append_changes
from deltalog import open_log
from materializer.versions import list_version

_CHANGES = 10_000
_SECONDS = 5.0
_AT_ONCE = 1e9


async def run(*, pods: int, watchers: int) -> Report:
    report = Report(
        "resume",
        f"{watchers:,} watchers of {pods:,} pods resume {_CHANGES:,} changes back",
        ("server", "deliveries", "seconds", "CPU s", "deliveries/CPU s", "first event ms"),
    )
    round_, bare_round = Round(), Round()
    async with rig.broker() as broker, rig.connection(broker.url) as connection:
        log = await open_log(connection)
        filled = await fill(log, pods)
        async with rig.service(broker.url) as served:
            version = list_version(log.prefix, await log.head())
            lines = await append_changes(log, filled, round_, _CHANGES / _SECONDS, 1, _CHANGES)
            last = max(round_.sent)
            path = f"{PODS}?watch=1&resourceVersion={version}"
            cpu, started = rig.cpu_seconds(served.pid), time.monotonic()
            async with rig.process(watch, served.port, path, watchers, PATIENCE) as clients:
                await clients.receive()
                clients.send(last)
                round_.seen = await clients.receive()
                round_.cpu = rig.cpu_seconds(served.pid) - cpu
            round_.seconds = max(one.times[-1] for one in round_.seen if one.times) - started
            ours = min(one.times[0] for one in round_.seen if one.times) - started
    # What each was shown: the last event of each object, in order.
    final = sorted(round_.last.values())
    shown = [line for index, line in zip(sorted(round_.sent), lines, strict=True) if index in set(final)]
    with TemporaryDirectory(prefix="kubebraid-bench-") as directory:
        file = Path(directory) / "lines"
        file.write_bytes(msgspec.msgpack.encode(shown))
        async with rig.process(bare.serve_lines, file, _AT_ONCE) as server:
            port = await server.receive()
            async with rig.process(watch, port, PODS, watchers, PATIENCE) as clients:
                await clients.receive()
                cpu, started = rig.cpu_seconds(server.pid), time.monotonic()
                server.send(None)
                await server.receive()
                clients.send(final[-1])
                bare_round.seen = await clients.receive()
                bare_round.cpu = rig.cpu_seconds(server.pid) - cpu
            bare_round.seconds = max(one.times[-1] for one in bare_round.seen if one.times) - started
            theirs = min(one.times[0] for one in bare_round.seen if one.times) - started
    bare_round.last = round_.last
    for title, one, first in (("bare writes", bare_round, theirs), ("service", round_, ours)):
        report.row(title, one.deliveries, one.seconds, one.cpu, one.per_cpu_second, first * 1e3)
        report.failures += [f"{title}: {failure}" for failure in one.failures()]
    report.notes.append("service: with opening the watches; bare: they are open")
    ratio = round_.per_cpu_second / bare_round.per_cpu_second
    report.ratio("resume", ratio, "of the deliveries of bare writes for each CPU second")
    return report
