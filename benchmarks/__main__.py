"""The command `python -m benchmarks`: runs benchmarks one after the other and prints what they found."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from benchmarks import (
    asking,
    authorizing,
    comparing,
    failing,
    following,
    guarding,
    lists,
    members,
    memory,
    producing,
    replaying,
    resuming,
    searching,
    securing,
    selecting,
    starting,
    watching,
)
from benchmarks.report import Report

_BENCHMARKS: dict[str, Callable[[argparse.Namespace], Awaitable[Report]]] = {
    "list": lambda options: lists.run(
        pods=options.pods, rounds=options.rounds, variety=options.variety, before=options.before
    ),
    "compare": lambda options: comparing.run(pods=options.pods, rounds=options.rounds),
    "watch": lambda options: watching.run(
        pods=options.pods,
        watchers=options.watchers,
        rate=options.rate,
        variety=options.variety,
        before=options.before,
    ),
    "resume": lambda options: resuming.run(pods=options.pods, watchers=options.watchers),
    "failover": lambda options: failing.run(pods=options.pods, watchers=options.watchers, rate=-(-options.rate // 5)),
    "select": lambda options: selecting.run(pods=options.pods * 10),
    "search": lambda options: searching.run(objects=options.pods * 10),
    "secure": lambda options: securing.run(pods=options.pods, watchers=options.watchers, rate=options.rate),
    "access": lambda options: authorizing.run(clusters=max(options.pods // 10, 10)),
    "guard": lambda options: guarding.run(pods=options.pods, watchers=options.watchers, rounds=options.rounds),
    "replay": lambda options: replaying.run(pods=options.pods, rounds=options.rounds),
    "start": lambda options: starting.run(pods=options.pods * 10, rounds=min(options.rounds, 5)),
    "members": lambda options: members.run(clusters=options.clusters, small=options.small),
    "memory": lambda options: memory.run(pods=options.pods * 10, rounds=min(options.rounds, 3), before=options.before),
    "ask": lambda options: asking.run(watchers=max(options.watchers, 100), rounds=min(options.rounds, 3)),
    "produce": lambda options: producing.run(pods=options.pods),
    "follow": lambda options: following.run(pods=options.pods),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmark", nargs="?", default="all", choices=[*_BENCHMARKS, "all"])
    parser.add_argument("--pods", type=int, default=10_000, help="objects in the log (default %(default)s)")
    parser.add_argument("--watchers", type=int, default=200, help="open watches (default %(default)s)")
    parser.add_argument("--rate", type=int, default=500, help="changes a second while watching (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of list and replay (default %(default)s)")
    parser.add_argument(
        "--clusters",
        type=int,
        default=100,
        help="clusters in one kubeconfig, for members (default %(default)s; 0: without that part)",
    )
    parser.add_argument(
        "--small", type=int, default=1000, help="small clusters in one producer, for members (default %(default)s)"
    )
    parser.add_argument(
        "--before",
        type=Path,
        metavar="DIR",
        help="the source tree of another release, measured in turn where it can be",
    )
    parser.add_argument(
        "--variety", choices=["mixed", "uniform"], default="mixed", help="pods as in a real cluster, or all alike"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    options = parser.parse_args()
    if min(options.pods, options.watchers, options.rate, options.rounds) < 1:
        parser.error("--pods, --watchers, --rate and --rounds are at least 1")
    if options.clusters < 0 or options.small < 1:
        parser.error("--clusters is at least 0, --small at least 1")
    return options


async def _run(options: argparse.Namespace) -> list[Report]:
    reports = []
    for name, benchmark in _BENCHMARKS.items():
        if options.benchmark not in (name, "all"):
            continue
        started = time.monotonic()
        report = await benchmark(options)
        report.seconds = round(time.monotonic() - started, 1)
        print(report.text(), flush=True)
        reports.append(report)
    return reports


def main() -> int:
    options = _options()
    if not Path("/proc/self/stat").exists():
        print("benchmarks: CPU time and memory of processes are read from /proc; run them on Linux", file=sys.stderr)
        return 2
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; only ratios within a run can be compared\n")
    reports = asyncio.run(_run(options))
    if options.json is not None:
        options.json.write_text(json.dumps([report.data() for report in reports], indent=2) + "\n")
    return 1 if any(report.failures for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
