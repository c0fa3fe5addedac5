"""Every event within the log's window, at whichever instance: one that was there, one that started later, one that went
on from a snapshot, one whose memory holds few of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from deltalog import ADDED, DELETED, MODIFIED, Appender, Delta, Log, encode_delta
from deltalog.wire.delta import UNCHANGED, Selectables
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from deltalog.wire.subjects import object_subject, type_prefix
from deltalog.wire.summary import summary_headers
from materializer.cursor import Cursor, ShownChange, changes
from materializer.filter import Filter
from materializer.materializer import Materializer
from materializer.snapshot import Snapshots
from tests.materializer.conftest import made_delta
from tests.patience import PATIENCE

PODS = type_prefix("alpha", "", "v1", "pods")
KEY = GroupResource("", "pods")
FILTERS = (Filter(), Filter(labels=parse_labels("app=a")), Filter(labels=parse_labels("app!=a")))
Told = tuple[int, str, str, str]


class Cluster:
    """Appends as a producer does, and knows what a kube-apiserver would have shown for each of the filters."""

    def __init__(self, log: Log, seed: int) -> None:
        self.log = log
        self.chance = random.Random(seed)
        self.now: dict[str, Delta] = {}
        self.told: dict[Filter, list[Told]] = {wanted: [] for wanted in FILTERS}
        self.version = 0

    async def churn(self, count: int) -> int:
        """So many changes; the index of the last one."""
        async with asyncio.timeout(PATIENCE), Appender.to(self.log) as appender:
            for _ in range(count):
                index = await self._change(appender)
        return index

    async def _change(self, appender: Appender) -> int:
        name = self.chance.choice("abcde")
        before = self.now.get(name)
        self.version += 1
        labels = {"app": self.chance.choice("ab")}
        version = str(self.version)
        if before is None:
            made = made_delta(name, ADDED, f"{name}{version}", version, labels=labels)
        elif self.chance.random() < 0.2:
            made = made_delta(
                name,
                DELETED,
                before.uid,
                version,
                labels=before.labels,
                uid_index=before.uid_index,
                was=UNCHANGED,
            )
        else:
            was = UNCHANGED if labels == before.labels else Selectables(before.labels, {}, "")
            made = made_delta(name, MODIFIED, before.uid, version, labels=labels, uid_index=before.uid_index, was=was)
        headers = summary_headers(made)
        if made.type == DELETED:
            headers["Nats-TTL"] = f"{self.log.tombstone_ttl}s"
        index = await appender.append_wait(object_subject(PODS, "x", name), encode_delta(made), headers)
        for wanted, told in self.told.items():
            had = before is not None and _matches(wanted, before)
            has = made.type != DELETED and _matches(wanted, made)
            if had or has:
                told.append((index, (MODIFIED if had else ADDED) if has else DELETED, name, version))
        if made.type == DELETED:
            del self.now[name]
        else:
            self.now[name] = made if before is not None else msgspec.structs.replace(made, uid_index=index)
        return index


def _matches(wanted: Filter, delta: Delta) -> bool:
    return not wanted.labels or (delta.labels["app"] == "a") is (wanted is FILTERS[1])


@contextlib.asynccontextmanager
async def instance(log: Log, window: int = 1 << 20, snapshots: Snapshots | None = None) -> AsyncIterator[Materializer]:
    made = Materializer(log, snapshots=snapshots, window=window)
    running = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(PATIENCE):
            await made.ready.wait()
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.close()


def read(one: Materializer, after: int, wanted: Filter, limit: int) -> list[Told]:
    """What a watch that resumes past an index is shown."""
    cursor, found = Cursor(after), []
    type_store = one.store.types[KEY]
    upto: int | None = after
    while upto is not None:
        some, upto = changes(type_store, cursor.position(type_store), wanted, limit)
        cursor.advance(one.store, upto)
        found += some
    return [told(change) for change in found]


def told(change: ShownChange) -> Told:
    entry = change.entry
    return change.at, change.type, entry.name, change.member_version or entry.member_version


def assert_exact(one: Materializer, cluster: Cluster, indexes: range) -> None:
    for after in indexes:
        for wanted, happened in cluster.told.items():
            expected = [event for event in happened if event[0] > after]
            assert read(one, after, wanted, cluster.chance.choice((1, 3, 1000))) == expected, (after, wanted.labels)


@pytest.mark.parametrize("seed", range(3))
async def test_at_whichever_instance(log: Log, seed: int, tmp_path: Path) -> None:
    cluster = Cluster(log, seed)
    snapshots = Snapshots(tmp_path, 3600)
    await cluster.churn(40)
    async with instance(log) as warm, instance(log, window=12_000) as small:
        async with instance(log, snapshots=snapshots):
            last = await cluster.churn(60)
        middle = last
        last = await cluster.churn(60)
        for one in (warm, small):
            await one.wait_applied(last, PATIENCE)
        assert_exact(warm, cluster, range(0, last + 1, 7))
        # Past what its memory holds, too, it has what comes to be.
        assert 0 < small.store.window.start < last
        assert_exact(small, cluster, range(small.store.window.start, last + 1))
        async with instance(log) as later, instance(log, snapshots=snapshots) as restored:
            assert restored.replayed < 80, "it went on from the snapshot"
            for one in (later, restored):
                await one.wait_applied(last, PATIENCE)
                assert one.store.window.start < middle
                assert_exact(one, cluster, range(one.store.window.start, last + 1, 5))
            last = await cluster.churn(30)
            for one in (warm, small, later, restored):
                await one.wait_applied(last, PATIENCE)
                assert_exact(one, cluster, range(max(one.store.window.start, last - 40), last + 1))
                assert not one.store.window.doubtful
                one.store.check()


async def test_an_instance_that_starts_reads_no_more_events_than_its_window_has(log: Log) -> None:
    cluster = Cluster(log, 7)
    last = await cluster.churn(400)
    async with instance(log, window=20_000) as one:
        await one.wait_applied(last, PATIENCE)
        assert one.store.window.start > last - 120
        assert one.replayed < 150
        assert_exact(one, cluster, range(one.store.window.start, last + 1, 3))


async def test_without_a_window_the_latest_states_are_shown(log: Log) -> None:
    cluster = Cluster(log, 3)
    last = await cluster.churn(60)
    async with instance(log, window=0) as one:
        await one.wait_applied(last, PATIENCE)
        shown = read(one, 0, Filter(), 1000)
        assert {name: version for _, kind, name, version in shown if kind != DELETED} == {
            name: delta.member_version for name, delta in cluster.now.items()
        }
        assert len(shown) <= 10
