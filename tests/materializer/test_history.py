"""The history of a log, with real servers: when it is another one, that all agree, and what stays the same history."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from deltalog import Appender, Connection, Delta, Log, LogSettings, encode_control, encode_delta, open_log
from deltalog.history import BUCKET, History, Mark
from deltalog.jetstream.stream_info import nanoseconds
from deltalog.wire import subjects
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.subjects import control_subject, object_filter, object_subject, type_prefix
from deltalog.wire.summary import summary_headers
from kubebraid.command.broker import EmbeddedBroker
from materializer.integrity import Missing
from materializer.materializer import Materializer
from materializer.timing import Timing
from query.discovery.readiness import Readiness
from tests.ageing import cut, forget_events, kept, state_at
from tests.halting import halt
from tests.patience import PATIENCE, eventually

PODS = GroupResource("", "pods")


QUICK = Timing(look_every=0.1, forget_every=0.1)


class Instance:
    """One materializer, running."""

    def __init__(self, log: Log, file: Path | None) -> None:
        self.log = log
        self.materializer = Materializer(log, History(log, file), timing=QUICK)
        self.task = asyncio.create_task(self.materializer.run())

    @property
    def prefix(self) -> str:
        return self.materializer.store.prefix

    @property
    def objects(self) -> dict[str, tuple[int, str]]:
        kind = self.materializer.store.types.get(PODS)
        found = {} if kind is None else kind.clusters.get("alpha", {})
        return {entry.name: (entry.index, entry.member_version) for entry in found.values()}

    async def until(self, holds: Callable[[], bool]) -> None:
        await eventually(lambda: holds() or self.task.done())
        if self.task.done():
            self.task.result()

    async def ready(self) -> Instance:
        await self.until(self.materializer.ready.is_set)
        return self

    async def marked(self) -> None:
        """Returns once what was applied is noted beside the log."""
        store = self.materializer.store
        await self.until(lambda: self.materializer.guard.marked == (store.applied, store.floor))

    async def anew(self, prefix: str) -> None:
        """Returns once another history than `prefix` is served."""
        await self.until(lambda: self.prefix != prefix and self.materializer.ready.is_set())

    async def looks(self, times: int = 5) -> None:
        """Returns when it has looked at the log so many times more, and found nothing."""
        log, before = self.log, self.prefix
        asked, state = 0, log.state

        async def counted() -> Any:
            nonlocal asked
            asked += 1
            return await state()

        log.state = counted  # type: ignore[method-assign]
        try:
            await self.until(lambda: asked > times)
        finally:
            log.state = state  # type: ignore[method-assign]
        assert self.prefix == before

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self.task


@pytest.fixture
async def starting(
    connecting: Callable[[], Awaitable[Connection]],
) -> AsyncIterator[Callable[..., Awaitable[Instance]]]:
    """Starts instances, each with its own connection; returns when they are ready."""
    started: list[Instance] = []

    async def start(file: Path | None = None) -> Instance:
        one = Instance(await open_log(await connecting(), LogSettings(tombstone_ttl=60)), file)
        started.append(one)
        return await one.ready()

    yield start
    for one in started:
        await one.stop()


@pytest.fixture
async def put(
    log: Log, connecting: Callable[[], Awaitable[Connection]], delta: Callable[..., Delta]
) -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Appends one delta of a name; returns its sequence."""
    async with Appender(await connecting(), deadline=2.0) as appender:

        async def append(name: str, ttl: int | None = None, **given: Any) -> int:
            made = delta(name, **given)
            headers = summary_headers(made)
            if ttl is not None:
                headers["Nats-TTL"] = f"{ttl}s"
            prefix = type_prefix("alpha", made.group, made.version, made.resource)
            subject = object_subject(prefix, made.namespace, name)
            return await appender.append_wait(subject, encode_delta(made), headers)

        yield append


@pytest.fixture
async def record(
    connecting: Callable[[], Awaitable[Connection]], control: Callable[..., Any]
) -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Appends one control record; returns its sequence."""
    async with Appender(await connecting()) as appender:

        async def append(what: str, group: str = "", resource: str = "", **data: Any) -> int:
            made = control(what, group=group, resource=resource, data=data)
            return await appender.append_wait(control_subject("alpha", what, group, resource), encode_control(made))

        yield append


async def cut_somewhere(log: Log, way: str) -> None:
    """Takes messages out of a log with ten objects, each written once."""
    state = await log.state()
    await state_at(log, state.last_sequence)
    for name in (f"{log.name}_STATE", log.name):
        if way == "all":
            await log.connection.api(f"STREAM.PURGE.{name}")
        elif way == "beginning":
            await log.connection.api(f"STREAM.PURGE.{name}", {"seq": 4})
        elif way == "end":
            for sequence in range(state.last_sequence - 2, state.last_sequence + 1):
                await log.connection.api(f"STREAM.MSG.DELETE.{name}", {"seq": sequence})
        else:
            await log.connection.api(f"STREAM.MSG.DELETE.{name}", {"seq": 5})


WAYS = ["all", "beginning", "end", "one of the middle"]
Start = Callable[..., Awaitable[Instance]]
Put = Callable[..., Awaitable[int]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("more", [0, 3], ids=["quiet", "written to"])
async def test_a_cut_log_is_another_history_and_all_agree_on_its_name(
    log: Log, put: Put, starting: Start, way: str, more: int
) -> None:
    for number in range(10):
        await put(f"n{number}")
    instances = [await starting() for _ in range(3)]
    (before,) = {one.prefix for one in instances}
    for one in instances:

        def has_all(one: Instance = one) -> bool:
            return len(one.objects) == 10

        await one.until(has_all)
    seen: set[str] = set()

    async def watch() -> None:
        while True:
            seen.add((await log.state()).prefix)
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    await cut_somewhere(log, way)
    for number in range(more):
        await put(f"m{number}")
    for one in instances:
        await one.anew(before)
    # Nothing is renamed again when all have looked at it a few times more.
    for one in instances:
        await one.looks()
    watching.cancel()
    assert seen - {before} == {one.prefix for one in instances}
    assert len(seen) == 2
    for one in instances:
        assert one.objects == instances[0].objects
    (again,) = {(await starting()).prefix, instances[0].prefix}
    assert again == instances[0].prefix


@pytest.mark.parametrize("way", WAYS)
async def test_a_log_that_was_cut_while_nobody_looked_is_another_history(
    log: Log, put: Put, starting: Start, way: str
) -> None:
    for number in range(10):
        await put(f"n{number}")
    first = await starting()
    await first.until(lambda: len(first.objects) == 10)
    await first.marked()
    await first.stop()
    await cut_somewhere(log, way)
    await put("later")
    assert (await starting()).prefix != first.prefix


async def test_one_name_even_when_many_rotate_at_once(connecting: Callable[[], Awaitable[Connection]]) -> None:
    logs = [await open_log(await connecting(), LogSettings(prefix="mine")) for _ in range(5)]
    await asyncio.gather(*(History(log).rotate("mine") for log in logs))
    (prefix,) = {log.prefix for log in logs}
    assert prefix.startswith("mine-")
    await asyncio.gather(*(History(log).rotate("mine") for log in logs))
    assert {log.prefix for log in logs} == {prefix}


async def test_a_rotation_that_died_half_way_is_finished(
    log: Log, connecting: Callable[[], Awaitable[Connection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = log.prefix

    async def dies(prefix: str) -> None:
        raise ConnectionError(prefix)

    monkeypatch.setattr(log, "rename", dies)
    with pytest.raises(ConnectionError) as death:
        await History(log).rotate(before)
    other = await open_log(await connecting())
    await History(other).rotate(before)
    assert other.prefix == str(death.value)


async def test_a_name_that_was_given_up_is_not_used_again(log: Log, starting: Start, put: Put) -> None:
    """A stream put back from a backup has its old name, the bucket beside it knows better."""
    await put("a")
    old = log.prefix
    await History(log).rotate(old)
    new = log.prefix
    await log.rename(old)
    assert (await starting()).prefix not in (old, new)


async def test_a_stream_made_anew_under_a_chosen_prefix(
    connection: Connection, starting: Start, put: Put, log: Log
) -> None:
    await connection.api(f"STREAM.DELETE.{log.name}")
    await open_log(connection, LogSettings(prefix="mine"))
    for number in range(3):
        await put(f"n{number}")
    running = await starting()
    assert running.prefix == "mine"
    await running.until(lambda: len(running.objects) == 3)
    await running.marked()
    await connection.api(f"STREAM.DELETE.{log.name}")
    await open_log(connection, LogSettings(prefix="mine"))
    await running.anew("mine")
    assert running.prefix.startswith("mine-")
    # And where nobody was there to see it.
    await running.until(lambda: running.objects == {})
    await put("a")
    await running.until(lambda: len(running.objects) == 1)
    await running.marked()
    chosen = running.prefix
    await running.stop()
    await connection.api(f"STREAM.DELETE.{log.name}")
    await open_log(connection, LogSettings(prefix=chosen))
    for number in range(5):
        await put(f"k{number}")
    assert (await starting()).prefix != chosen


async def test_a_log_that_came_back_as_another_one_is_reachable(
    connection: Connection, starting: Start, put: Put, log: Log
) -> None:
    """Also where the look at the history finds it out, before the reader tries again."""
    await put("a")
    running = await starting()
    before = running.prefix
    await connection.api(f"STREAM.DELETE.{log.name}")
    await running.until(lambda: running.materializer.outage_seconds() is not None)
    # By then the reader pauses much longer between its attempts than `_LOOK_EVERY`.
    await asyncio.sleep(3)
    await open_log(connection, LogSettings())
    await running.anew(before)
    await running.until(lambda: running.materializer.outage_seconds() is None)


class Backup:
    """A copy of the broker's files."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self._files = broker.data / "nats" / "jetstream"
        self._copy = broker.data / "copy"

    async def take(self) -> None:
        await self._broker.stop()
        shutil.copytree(self._files, self._copy)
        await self._broker.start()

    async def restore(self) -> None:
        await self._broker.stop()
        shutil.rmtree(self._files)
        shutil.copytree(self._copy, self._files)
        await self._broker.start()


@pytest.fixture
def put_surely(put: Put) -> Put:
    """As `put`, over restarts of the broker."""

    async def append(name: str, **given: Any) -> int:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await put(name, **given)
                except Exception:  # noqa: BLE001 - any kind of not yet
                    await asyncio.sleep(0.05)

    return append


@pytest.mark.parametrize("more", [0, 20], ids=["shorter", "longer than before"])
async def test_an_older_copy_behind_a_running_instance(
    broker: EmbeddedBroker, put_surely: Put, starting: Start, more: int
) -> None:
    backup = Backup(broker)
    for number in range(3):
        await put_surely(f"n{number}")
    await backup.take()
    for number in range(5):
        await put_surely(f"m{number}")
    running = await starting()
    await running.until(lambda: len(running.objects) == 8)
    before = running.prefix
    await backup.restore()
    for number in range(more):
        await put_surely(f"k{number}")
    await running.anew(before)
    await running.until(lambda: len(running.objects) == 3 + more)


async def test_an_older_copy_while_nobody_ran(
    broker: EmbeddedBroker, put_surely: Put, starting: Start, tmp_path: Path
) -> None:
    """The bucket is older, too; the file beside is not."""
    backup = Backup(broker)
    await put_surely("n")
    await backup.take()
    for number in range(5):
        await put_surely(f"m{number}")
    first = await starting(tmp_path / "history.json")
    await first.until(lambda: len(first.objects) == 6)
    await first.marked()
    await first.stop()
    await backup.restore()
    for number in range(20):
        await put_surely(f"k{number}")
    assert (await starting()).prefix == first.prefix, "nothing is left that could tell"
    assert (await starting(tmp_path / "history.json")).prefix != first.prefix


async def test_restarts_without_loss_are_the_same_history(
    broker: EmbeddedBroker, put_surely: Put, starting: Start, tmp_path: Path
) -> None:
    running = await starting(tmp_path / "history.json")
    for number in range(3):
        await put_surely(f"n{number}")

        def has_it(number: int = number) -> bool:
            return len(running.objects) == number + 1

        await running.until(has_it)
        await running.marked()
        if number == 1:
            os.kill(broker.pid, signal.SIGKILL)
            await broker.wait()
        else:
            await broker.stop()
        await broker.start()
    await put_surely("last")
    await running.until(lambda: len(running.objects) == 4)
    await running.looks()
    assert running.materializer.generation == 0
    assert (await starting(tmp_path / "history.json")).prefix == running.prefix


async def test_a_server_that_stands_still_is_the_same_history(
    broker: EmbeddedBroker, put: Put, starting: Start
) -> None:
    await put("a")
    running = await starting()
    halt(broker.pid)
    try:
        # Longer than any question to it is given.
        await asyncio.sleep(6)
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    transport = running.log.connection.client._transport
    assert transport is not None
    transport.close()
    await eventually(lambda: running.log.connection.connected)
    await put("b")
    await running.until(lambda: len(running.objects) == 2)
    await running.looks()
    assert running.materializer.generation == 0


async def test_ordinary_life_is_the_same_history(
    log: Log, put: Put, record: Callable[..., Awaitable[int]], starting: Start
) -> None:
    """What supersedes, expires, is purged behind its record: nothing of it is a cut, for who runs and who starts."""
    await record(subjects.OWNER)
    await record(subjects.TYPE, "", "pods", kind="Pod", version="v1")
    await record(subjects.SYNCED, "", "pods", version="1", objects=0)
    for number in range(10):
        await put(f"n{number}")
    running = await starting()
    await running.until(lambda: len(running.objects) == 10)
    await running.marked()
    for number in range(10):
        await put(f"n{number}", member_version=str(number + 2))
    for number in range(5):
        await put(f"n{number}", type="DELETED", member_version="99", ttl=60)
    await running.until(lambda: len(running.objects) == 5)
    await running.looks()
    first = await starting()
    assert first.prefix == running.prefix
    await first.stop()
    removed = await record(subjects.REMOVED, "", "pods")
    await log.purge_state(object_filter("alpha", "", "pods"), removed)
    for kind in (subjects.TYPE, subjects.SYNCED):
        await log.purge_state(control_subject("alpha", kind, "", "pods"), removed)
    await running.until(lambda: not running.objects)
    await running.looks()
    assert running.materializer.store.floor == 0, "the tombstones went with what was removed"
    assert (await starting()).prefix == running.prefix
    await put("again", uid="another")
    await running.until(lambda: len(running.objects) == 1)
    await running.looks()
    assert running.materializer.generation == 0
    assert running.materializer.store.floor == 0


async def test_what_a_removal_took_hides_no_cut(
    log: Log, put: Put, record: Callable[..., Awaitable[int]], starting: Start
) -> None:
    """The tombstones of a removed type are purged, and known to be: one that is missing beside them is noticed."""
    await record(subjects.TYPE, "", "pods", kind="Pod", version="v1")
    for number in range(4):
        await put(f"n{number}")
        await put(f"m{number}", resource="nodes", namespace="")
    running = await starting()
    for number in range(3):
        await put(f"n{number}", type="DELETED", member_version="2", ttl=60)
    gone = await put("m0", resource="nodes", namespace="", type="DELETED", member_version="2", ttl=60)
    removed = await record(subjects.REMOVED, "", "pods")
    await log.purge_state(object_filter("alpha", "", "pods"), removed)
    await log.purge_state(control_subject("alpha", subjects.TYPE, "", "pods"), removed)
    last = await put("m1", resource="nodes", namespace="", member_version="2")
    await running.until(lambda: running.materializer.store.applied == last)
    await running.looks()
    await running.looks()
    assert running.materializer.store.floor < gone
    await cut(log, object_filter("alpha", "", "nodes", name="m0"), last)
    await running.until(lambda: running.materializer.store.floor == gone)
    await cut(log, object_filter("alpha", "", "nodes", name="m2"), last + 1)
    await running.until(lambda: running.materializer.generation == 1)


async def test_versions_that_are_not_synced_any_longer_hide_no_cut(
    log: Log, put: Put, record: Callable[..., Awaitable[int]], starting: Start
) -> None:
    """What was deleted in such a version is purged with it: no deletion that anybody could miss."""
    await record(subjects.TYPE, "", "pods", kind="Pod", version="v1")
    for number in range(4):
        await put(f"n{number}")
    running = await starting()
    gone = await put("n0", type="DELETED", member_version="2", ttl=60)
    await record(subjects.TYPE, "", "pods", kind="Pod", version="v2")
    for number in range(1, 4):
        last = await put(f"n{number}", version="v2")
    await log.purge_state(object_filter("alpha", "", "pods", version="v1"), last + 1)
    await running.until(lambda: running.materializer.store.applied == last)
    await running.looks()
    await running.looks()
    assert running.materializer.store.floor < gone
    assert running.materializer.generation == 0
    await cut(log, object_filter("alpha", "", "pods", name="n1"), last + 1)
    await running.until(lambda: running.materializer.generation == 1)


async def lose_state(log: Log, through: int) -> None:
    """The events up to a sequence go, and the state is deleted, and made anew from the others."""
    await forget_events(log, through)
    await log.connection.api(f"STREAM.DELETE.{log.name}_STATE")
    await open_log(log.connection)
    await state_at(log, await log.head())


async def test_a_state_with_a_gap_is_the_same_history(
    log: Log, put: Put, record: Callable[..., Awaitable[int]], starting: Start
) -> None:
    """Who runs shows nothing new; who starts has to wait for the next lists, and knows no deletion before that."""
    await record(subjects.OWNER)
    await record(subjects.CLUSTER)
    await record(subjects.TYPE, "", "pods", kind="Pod", version="v1")
    await record(subjects.SYNCED, "", "pods", version="1", objects=0)
    for number in range(4):
        await put(f"n{number}")
    running = await starting()
    await running.until(lambda: len(running.objects) == 4)
    await running.marked()
    lacks_to = await put("n3", member_version="2")
    await running.until(lambda: running.materializer.store.applied == lacks_to)
    before = dict(running.objects)
    await lose_state(log, lacks_to - 1)
    await running.looks()
    cold = await starting()
    assert {running.prefix, cold.prefix} == {log.prefix}
    assert list(cold.objects) == ["n3"]
    assert (cold.materializer.lacks_to, cold.materializer.store.floor) == (lacks_to, lacks_to)
    assert running.materializer.lacks_to == 0
    # As producers do: objects and records again, and each type synced behind them.
    await record(subjects.CLUSTER)
    await record(subjects.TYPE, "", "pods", kind="Pod", version="v1")
    for number in range(3):
        await put(f"n{number}", uid_index=before[f"n{number}"][0])
    await cold.until(lambda: len(cold.objects) == 4)
    waits = Readiness(cold.materializer)
    assert not waits.ready()
    assert [one.missing for one in waits.clusters()] == [("pods",)]
    assert any("had lost some of what is older" in check.text for check in waits.checks())
    last = await record(subjects.SYNCED, "", "pods", version="1", objects=0)
    await cold.until(lambda: cold.materializer.store.applied == last)
    assert waits.ready()
    await running.until(lambda: running.materializer.store.applied == last)
    assert running.objects == before, "nothing new"
    await running.looks()
    assert (running.materializer.generation, running.materializer.store.floor) == (0, 0)


async def test_who_was_away_over_a_gap_begins_anew_in_the_same_history(
    log: Log, put: Put, starting: Start, broker: EmbeddedBroker
) -> None:
    """Deletions may be among what it lacks."""
    for number in range(4):
        await put(f"n{number}")
    running = await starting()
    await running.until(lambda: len(running.objects) == 4)
    reader = running.materializer._freshness.reader
    assert reader is not None
    reader.pause()
    running.log.connection._trouble()
    await running.until(lambda: reader.restarts == 1)
    await put("n1", type="DELETED", member_version="2", ttl=60)
    await put("n2", member_version="2")
    last = await put("n3", member_version="2")
    await lose_state(log, last - 1)
    reader.resume()
    await running.until(lambda: running.materializer.generation == 1 and running.materializer.ready.is_set())
    assert running.prefix == log.prefix
    assert list(running.objects) == ["n3"]
    assert running.materializer.lacks_to == last


async def test_purged_deletions_raise_the_floor(log: Log, put: Put, starting: Start) -> None:
    for number in range(4):
        await put(f"n{number}")
    running = await starting()
    await running.until(lambda: len(running.objects) == 4)
    gone = await put("n1", type="DELETED", member_version="2", ttl=60)
    last = await put("n2", member_version="2")
    await running.until(lambda: running.materializer.store.applied == last)
    await running.marked()
    assert running.materializer.store.floor < gone
    await cut(log, object_filter("alpha", "", "pods", name="n1"), gone + 1)
    await running.until(lambda: running.materializer.store.floor == gone)
    await running.marked()
    await running.looks()
    assert running.materializer.generation == 0
    cold = await starting()
    assert (cold.prefix, cold.materializer.store.floor) == (running.prefix, gone)


async def test_expired_deletions_raise_the_floor(connection: Connection, put: Put, starting: Start) -> None:
    await connection.api("STREAM.DELETE.KUBEBRAID")
    short = await open_log(connection, LogSettings(tombstone_ttl=1))
    for number in range(3):
        await put(f"n{number}")
    running = await starting()
    await running.until(lambda: len(running.objects) == 3)
    gone = await put("n1", type="DELETED", member_version="2", ttl=1)
    await running.until(lambda: running.materializer.store.floor == gone)
    async with asyncio.timeout(PATIENCE):
        while (await kept(short)).messages > 2:
            await asyncio.sleep(0.05)
    await running.looks()
    assert running.materializer.generation == 0
    assert (await starting()).prefix == running.prefix


async def test_a_mark_never_goes_back(log: Log) -> None:
    history = History(log)

    def mark(index: int, floor: int) -> Mark:
        return Mark(log.created, log.prefix, index, 5, 5, floor)

    await history.mark(mark(7, 3))
    await history.mark(mark(5, 2))
    (kept,) = await history.marks()
    assert (kept.index, kept.floor) == (7, 3)
    await history.mark(mark(9, 0))
    (kept,) = await history.marks()
    assert (kept.index, kept.floor) == (9, 3)
    await log.connection.api(f"STREAM.DELETE.KV_{BUCKET}")
    assert await history.marks() == []
    await history.mark(mark(1, 0))
    assert [kept.index for kept in await history.marks()] == [1]
    assert nanoseconds(log.created) > 0


async def test_what_only_one_reading_misses_was_not_cut_out(
    log: Log, put: Put, starting: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading may meet a server that stood still and lacks the end of the log; the next one does not."""
    for name in "abc":
        await put(name)
    one = await starting()
    await one.until(lambda: len(one.objects) == 3)
    integrity = one.materializer.guard._served.integrity
    audit, readings = integrity.audit, 0

    async def lacking(*given: Any) -> Missing:
        nonlocal readings
        readings += 1
        found = await audit(*given)
        return Missing(["kb.alpha.*.*.pods.x.c"], 3) if readings == 1 else found

    monkeypatch.setattr(integrity, "audit", lacking)
    integrity.suspicious = True
    one.materializer.guard.look_soon()
    await one.until(lambda: readings == 2)
    await one.looks()
    assert one.materializer.store.floor == 0
    assert one.materializer.generation == 0
