"""What is remembered of deletions is bounded, in the instances and in the log, with real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deltalog import DELETED, Appender, Connection, Delta, Log, LogSettings, encode_delta, open_log
from deltalog.history import History
from deltalog.mirror import Mirror, MirrorSettings
from deltalog.reader import HistoryChanged
from deltalog.timing import LogTiming
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.subjects import object_subject, type_prefix
from deltalog.wire.summary import summary_headers
from materializer.cursor import changes
from materializer.filter import Filter
from materializer.forgetting import DeletionLimits
from materializer.history_guard import StateOutdated
from materializer.materializer import Materializer
from materializer.resume import Expired, from_version
from materializer.snapshot import Snapshots
from materializer.timing import Timing
from materializer.versions import Named
from tests.ageing import forget_events, state_at
from tests.patience import eventually

PODS = GroupResource("", "pods")
QUICK = Timing(look_every=0.1, forget_every=0.05, bury_after=0.0)
LIMITS = DeletionLimits(number=100)
Put = Callable[..., Awaitable[int]]


class Instance:
    """One materializer, running."""

    def __init__(self, log: Log, limits: DeletionLimits, snapshots: Snapshots | None) -> None:
        self.log = log
        self.materializer = Materializer(
            log,
            History(log),
            snapshots,
            window=0,
            deletions=limits,
            timing=QUICK,
            log_timing=LogTiming(purge_after=0.2, purge_others=0.1),
        )
        self.task = asyncio.create_task(self.materializer.run())

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits; ends at once if the instance does."""
        await eventually(lambda: holds() or self.task.done())
        if self.task.done():
            self.task.result()

    async def stop(self) -> None:
        """Ends it."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        await self.materializer.close()

    @property
    def number(self) -> int:
        """How many deletions it remembers."""
        return self.materializer.forgetting.remembered().number

    def resumed(self, index: int) -> list[str] | str:
        """The names whose deletion a watch is shown that comes back with a version; or why it has to list anew."""
        store = self.materializer.store
        versions = Named(store.prefix)
        try:
            resumption = from_version(store, PODS, Filter(), versions.of_list(index), versions)
        except Expired:
            return "Expired"
        pods = store.types[PODS]
        found, upto = changes(pods, resumption.cursor().position(pods), Filter(), 10**9)
        assert upto is None
        return [change.entry.name for change in found if change.type == DELETED]


@pytest.fixture
async def starting(
    log: Log, connecting: Callable[[], Awaitable[Connection]]
) -> AsyncIterator[Callable[..., Awaitable[Instance]]]:
    """Starts instances, each with its own connection; returns when they are ready."""
    started: list[Instance] = []

    async def start(
        limits: DeletionLimits = LIMITS, snapshots: Snapshots | None = None, log_: Log | None = None
    ) -> Instance:
        one = Instance(log_ or await open_log(await connecting()), limits, snapshots)
        started.append(one)
        await one.until(one.materializer.ready.is_set)
        return one

    yield start
    for one in started:
        if not one.task.done():
            await one.stop()


@pytest.fixture
async def put(
    log: Log, connecting: Callable[[], Awaitable[Connection]], delta: Callable[..., Delta]
) -> AsyncIterator[Put]:
    """Appends one delta of a name; returns its sequence."""
    async with Appender(await connecting()) as appender:

        async def append(name: str, **given: Any) -> int:
            made = delta(name, uid=f"u-{name}", **given)
            subject = object_subject(type_prefix("alpha", "", "v1", "pods"), "x", name)
            return await appender.append_wait(subject, encode_delta(made), summary_headers(made))

        yield append


async def churn(put: Put, begin: int, end: int) -> int:
    """So many pods come and go; the sequence of the last message."""
    last = 0
    first = [await put(f"n{number}") for number in range(begin, end)]
    for number, index in zip(range(begin, end), first, strict=True):
        last = await put(f"n{number}", type=DELETED, uid_index=index, member_version="2")
    return last


async def tombstones(log: Log) -> int:
    """How many subjects the state has beside that of the record."""
    state = await log.find_state()
    assert state is not None
    return (await state.state()).subjects - bool(await log.forgotten_through())


async def test_what_is_remembered_is_bounded_everywhere(log: Log, put: Put, starting: Any) -> None:
    """In two instances, one that starts later, and in the log; and all of them answer alike."""
    one, other = await starting(), await starting(DeletionLimits(number=10**6))
    last = await churn(put, 0, 450)
    for instance in (one, other):
        await instance.until(lambda instance=instance: instance.materializer.store.applied >= last)
        await instance.until(lambda instance=instance: 90 <= instance.number <= LIMITS.number)
        assert instance.materializer.store.floor == await log.forgotten_through()
    async with asyncio.timeout(60):
        while await tombstones(log) > LIMITS.number:
            await asyncio.sleep(0.02)
    later = await starting(DeletionLimits(number=10**6))
    floor = one.materializer.store.floor
    assert floor > 700
    for index in (1, floor - 1, floor, floor + 1, floor + 60, last - 1, last):
        answers = [instance.resumed(index) for instance in (one, other, later)]
        assert answers[0] == answers[1] == answers[2]
        assert (answers[0] == "Expired") is (index < floor)
    assert one.resumed(last - 1) == ["n449"]
    assert len(one.resumed(floor)) == one.number
    # Nothing is taken for lost, and the history is the same.
    await asyncio.sleep(0.5)
    assert {instance.materializer.store.prefix for instance in (one, other, later)} == {log.prefix}


async def test_a_buried_deletion_shows_metadata(put: Put, starting: Any) -> None:
    one = await starting()
    await put("lives")
    begin = await put("pod", labels={"app": "a"}, created=1_700_000_000)
    gone = await put(
        "pod", type=DELETED, uid_index=begin, member_version="2", labels={"app": "a"}, created=1_700_000_000
    )
    store = one.materializer.store
    await one.until(lambda: PODS in store.types and len(store.types[PODS].graves) == 1)
    pods = store.types[PODS]
    found, _ = changes(
        pods,
        from_version(store, PODS, Filter(), f"{store.prefix}.{begin}", Named(store.prefix)).cursor().position(pods),
        Filter(),
        10,
    )
    [change] = found
    assert (change.type, change.at) == (DELETED, gone)
    assert change.entry.body == (
        b'{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"%b.%d.2","name":"pod","namespace":"x",'
        b'"uid":"u-pod","creationTimestamp":"2023-11-14T22:13:20Z","labels":{"app":"a"},'
        b'"annotations":{"shadow.clusterpedia.io/cluster-name":"alpha"}}}' % (store.prefix.encode(), gone)
    )


async def test_a_snapshot_of_before_the_decision(log: Log, put: Put, starting: Any, tmp_path: Path) -> None:
    """What it holds was deleted, and the log forgot that: the instance reads the log anew, and serves no ghosts."""
    snapshots = Snapshots(tmp_path, 3600)
    first = await starting(snapshots=snapshots)
    for number in range(10):
        await put(f"ghost{number}")
    last = await put("lives")
    await first.until(lambda: first.materializer.store.applied >= last)
    await first.stop()
    other = await starting()
    for number in range(10):
        last = await put(f"ghost{number}", type=DELETED, uid_index=number + 1, member_version="2")
    last = await churn(put, 0, 200)
    await other.until(lambda: other.materializer.store.floor > 100)
    async with asyncio.timeout(60):
        while await tombstones(log) > LIMITS.number + 1:
            await asyncio.sleep(0.02)
    await state_at(log, await log.head())
    await forget_events(log, await log.head() - 1)
    again = await starting(snapshots=Snapshots(tmp_path, 3600))
    assert [entry.name for entry in again.materializer.store.types[PODS].live()] == ["lives"]
    assert again.materializer.store.prefix == other.materializer.store.prefix == log.prefix
    assert again.materializer.store.floor >= other.materializer.store.floor


async def test_one_that_cannot_decide_forgets_for_itself(log: Log, put: Put, starting: Any, monkeypatch: Any) -> None:
    """What others remember stays in the log."""

    async def refused(*args: Any) -> bool:
        from deltalog.append import AppendError

        raise AppendError("no permission")

    monkeypatch.setattr("materializer.forgetting.decide", refused)
    one, other = await starting(), await starting(DeletionLimits(number=10**6))
    last = await churn(put, 0, 300)
    for instance in (one, other):
        await instance.until(lambda instance=instance: instance.materializer.store.applied >= last)
    await one.until(lambda: one.number <= LIMITS.number * 1.25)
    floor = one.materializer.store.floor
    assert floor
    assert (other.number, other.materializer.store.floor, await tombstones(log)) == (300, 0, 300)
    assert one.resumed(floor - 1) == "Expired"
    assert one.resumed(floor) == other.resumed(floor)


async def test_a_mirror_obeys_and_lets_go(
    log: Log, put: Put, starting: Any, connecting: Callable[[], Awaitable[Connection]]
) -> None:
    """Instances on it decide nothing; what the origin forgot they forget, and take out of their own state."""
    connection = await connecting()
    mirror = Mirror(connection, MirrorSettings(name="COPY"))
    assert await mirror.make()
    copy = await open_log(connection, LogSettings(name="COPY"), make=False)
    one, far = await starting(), await starting(log_=copy, limits=DeletionLimits(number=10**6))
    last = await churn(put, 0, 300)
    for instance in (one, far):
        await instance.until(lambda instance=instance: instance.materializer.store.applied >= last)
        await instance.until(lambda instance=instance: 90 <= instance.number <= LIMITS.number)
    floor = one.materializer.store.floor
    assert far.materializer.store.floor == floor == await copy.forgotten_through()
    async with asyncio.timeout(60):
        while max(await tombstones(log), await tombstones(copy)) > LIMITS.number:
            await asyncio.sleep(0.02)
    for index in (floor - 1, floor, last - 1):
        assert one.resumed(index) == far.resumed(index)
    # What it has too much, its keeper leaves to the instances for a while.
    state = await log.find_state()
    assert state is not None
    assert await state.delete_message(last)
    assert [await mirror._others_purge() for _ in range(5)] == [True, True, True, True, False]


async def test_a_record_that_comes_while_the_state_is_gone_on_with(log: Log, put: Put, starting: Any) -> None:
    """Deletions past where it went on may be gone already: it reads the log from its beginning, in the same history."""
    one = await starting(DeletionLimits(number=10**6))
    last = await churn(put, 0, 20)
    await one.until(lambda: one.materializer.store.applied >= last)
    materializer, generation = one.materializer, one.materializer.generation
    reader = materializer._freshness.reader
    assert reader is not None
    reader.resumed_from = 30
    with pytest.raises(HistoryChanged, match="up to 35 were forgotten while the state past 30 was read"):
        materializer._obey(35, last + 1)
    materializer.ready.clear()
    with pytest.raises(StateOutdated):
        materializer._obey(35, last + 1)
    materializer.ready.set()
    materializer._obey(30, last + 1)
    assert (materializer.store.floor, materializer.generation) == (30, generation)
