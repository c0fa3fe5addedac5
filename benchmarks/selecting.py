"""Selecting: a label that one object in a hundred has, by an index and by looking at every object."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection as Pipe

from benchmarks import rig
from benchmarks.report import Report, median
from deltalog import ADDED, Delta
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from materializer import indexes
from materializer.filter import Filter
from materializer.store import Store

_ROUNDS = 15
_CHANGES = 5_000


def _delta(number: int, original: int, type_: str = ADDED) -> Delta:
    body = b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p%d"}}' % number
    return Delta(
        type=type_,
        cluster=f"c{number % 10}",
        group="",
        version="v1",
        resource="pods",
        namespace=f"n{number % 50}",
        name=f"p{number}",
        uid=f"u{number}",
        member_version=str(original),
        time=0,
        producer="",
        epoch=0,
        labels={"app": f"a{number % 100}", "tier": f"t{number % 3}", "pod": str(number)},
        version_offset=44,
        metadata_end=len(body) - 1,
        object=body,
    )


async def _measure(pipe: Pipe, pods: int) -> None:
    store = Store("bench", 3600)
    for number in range(pods):
        store.apply_delta(_delta(number, number + 1), number + 1, 0)
    store.finish_loading(1)
    type_store = store.types[GroupResource("", "pods")]
    wanted = Filter(labels=parse_labels("app=a7,tier=t1"))

    def timed() -> tuple[float, int]:
        started = time.perf_counter()
        found = type_store.select(wanted)
        return time.perf_counter() - started, len(found)

    def changes(start: int) -> float:
        deltas = [_delta(number % pods, start + number) for number in range(_CHANGES)]
        started = time.perf_counter()
        for number, delta in enumerate(deltas):
            store.apply_delta(delta, start + number, 0)
        return time.perf_counter() - started

    plain = changes(pods + 1)
    worthwhile, indexes.WORTHWHILE = indexes.WORTHWHILE, 2**62
    scans = [timed() for _ in range(_ROUNDS)]
    indexes.WORTHWHILE = worthwhile
    first = timed()
    indexed = [timed() for _ in range(_ROUNDS)]
    assert {count for _, count in (*scans, first, *indexed)} == {scans[0][1]}
    with_indexes = changes(pods + 1 + _CHANGES)
    found = (median([one for one, _ in scans]), first[0], median([one for one, _ in indexed]), scans[0][1])
    pipe.send((*found, plain, with_indexes, len(type_store.indexes)))


async def run(*, pods: int) -> Report:
    scanned, first, indexed, count, plain, with_indexes, indexes = await rig.fresh(_measure, pods)
    report = Report("select", f"{count:,} of {pods:,} pods by two labels", ("way", "ms"))
    report.row("all looked at", scanned * 1e3)
    report.row("first by index, which is made", first * 1e3)
    report.row("by index", indexed * 1e3)
    report.notes.append(
        f"a change costs {plain / _CHANGES * 1e6:.1f} us without and {with_indexes / _CHANGES * 1e6:.1f} us with "
        f"{indexes} indexes"
    )
    report.ratio("select", scanned / indexed, "times as fast as looking at every object")
    return report
