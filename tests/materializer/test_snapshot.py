"""Snapshots with real servers: an instance that starts from one is as one that read the log, or it reads the log."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from deltalog import DELETED, Appender, Connection, Delta, Log, LogSettings, encode_control, encode_delta, open_log
from deltalog.history import History
from deltalog.wire import subjects
from deltalog.wire.subjects import control_subject, object_filter, object_subject, type_prefix
from deltalog.wire.summary import summary_headers
from kubebraid.command.broker import EmbeddedBroker
from materializer import history_guard as guard_module
from materializer import reading, snapshot_file
from materializer import snapshot as module
from materializer.bodies import CorruptFrame
from materializer.entry import object_key
from materializer.filter import Filter
from materializer.freshness import LogUnreachable
from materializer.mapped import MappedEntry
from materializer.materializer import Materializer
from materializer.persistence import Away
from materializer.snapshot import Restored, Snapshots
from materializer.timing import Timing
from tests.ageing import cut, cut_one
from tests.materializer.test_snapshot_file import frames_of, written
from tests.patience import PATIENCE, eventually

TTL = 60
SECOND = 1_000_000_000
Make = Callable[..., Any]
Logged = list[Any]


QUICK = Timing(look_every=0.1, look_for_snapshot=0.2)


@pytest.fixture(autouse=True)
def logged() -> Iterator[Logged]:
    """What was logged."""
    capture = LogCapture()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[capture])
    yield capture.entries
    structlog.configure(processors=before)


def said(logged: Logged, event: str) -> list[str]:
    return [str(one.get("reason")) for one in logged if one["event"].startswith(event)]


IGNORED = "the snapshot is ignored"
RESUMED = "going on from a snapshot"


class Instance:
    """One materializer, running."""

    def __init__(self, materializer: Materializer) -> None:
        self.materializer = materializer
        self.task = asyncio.create_task(materializer.run())

    @property
    def store(self) -> Any:
        return self.materializer.store

    async def ready(self) -> Instance:
        await eventually(lambda: self.materializer.ready.is_set() or self.task.done())
        if self.task.done():
            self.task.result()
        self.store.check()
        return self

    def state(self) -> Any:
        """What it answers: all objects of all types, and what the control records say."""
        return {
            "prefix": self.store.prefix,
            "applied": self.store.applied,
            "types": {
                key: [
                    (one.cluster, one.key, one.index, one.uid_index, one.uid, one.body) for one in kind.select(Filter())
                ]
                for key, kind in self.store.types.items()
                if len(kind)
            },
            "clusters": {
                name: (cluster.epoch, cluster.registered, cluster.types, cluster.synced, cluster.health)
                for name, cluster in self.store.clusters.items()
            },
        }

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def stop(self) -> None:
        """In order: with a last snapshot."""
        await self.kill()
        await self.materializer.close()


Start = Callable[..., Awaitable[Instance]]
Meanwhile = Callable[[], Awaitable[None]]


async def nothing() -> None:
    pass


@pytest.fixture
async def start(connecting: Callable[[], Awaitable[Connection]]) -> AsyncIterator[Start]:
    """Starts instances, each with its own connection; returns when they are ready.

    `away`: as if NATS were away for some time, if there is a snapshot to serve meanwhile; `meanwhile` happens then.
    """
    started: list[Instance] = []

    async def opened() -> tuple[Log, History]:
        log = await open_log(await connecting(), LogSettings(tombstone_ttl=TTL))
        return log, History(log)

    async def make(
        directory: Path | None = None,
        every: float = 3600.0,
        *,
        away: bool = False,
        meanwhile: Meanwhile = nothing,
        shares: bool = False,
        writes: bool = True,
    ) -> Instance:
        snapshots = None if directory is None else Snapshots(directory, every, shares=shares, writes=writes)
        if away and snapshots is not None:
            alone = await snapshots.read_alone("nats://127.0.0.1:1", "KUBEBRAID")
            if alone is not None:
                return await make_alone(snapshots, *alone, meanwhile)
        one = Instance(Materializer(*await opened(), snapshots, timing=QUICK))
        started.append(one)
        return await one.ready()

    async def make_alone(snapshots: Snapshots, assumed: Log, restored: Restored, meanwhile: Meanwhile) -> Instance:
        back = asyncio.Event()

        async def open_when_there() -> tuple[Log, History]:
            await back.wait()
            return await opened()

        materializer = Materializer(assumed, None, snapshots, Away(restored, open_when_there), timing=QUICK)
        one = Instance(materializer)
        started.append(one)
        await one.ready()
        assert one.store is restored.store, "it is served"
        assert (one.store.applied, materializer.replayed) == (snapshots.index, 0)
        assert materializer.outage_seconds() is not None
        with pytest.raises(LogUnreachable) as unreachable:
            await materializer.wait_current()
        assert 0 <= unreachable.value.age < PATIENCE
        await meanwhile()
        back.set()
        await eventually(lambda: (materializer.confirmed and materializer.log is not assumed) or one.task.done())
        await one.ready()
        await materializer.wait_current(PATIENCE)
        assert materializer.outage_seconds() is None
        return one

    yield make
    for one in started:
        await one.kill()


class Writer:
    """Appends as a producer does."""

    def __init__(self, appender: Appender, delta: Make, control: Make) -> None:
        self.appender, self.delta, self.control = appender, delta, control
        self.version = 0

    async def put(self, name: str, ttl: int | None = None, **given: Any) -> int:
        self.version += 1
        made: Delta = self.delta(name, **{"uid": name, "member_version": str(self.version), **given})
        headers = summary_headers(made)
        if made.type == DELETED:
            headers["Nats-TTL"] = f"{ttl or TTL}s"
        prefix = type_prefix(made.cluster, made.group, made.version, made.resource)
        return await self.appender.append_wait(object_subject(prefix, "x", name), encode_delta(made), headers)

    async def record(self, what: str, cluster: str = "alpha", group: str = "", resource: str = "", **data: Any) -> int:
        made = self.control(what, cluster, group, resource, data=data)
        headers = {"Nats-TTL": f"{TTL}s"} if what == subjects.REMOVED else {}
        subject = control_subject(cluster, what, group, resource)
        return await self.appender.append_wait(subject, encode_control(made), headers)


@pytest.fixture
async def writer(connecting: Callable[[], Awaitable[Connection]], delta: Make, control: Make) -> AsyncIterator[Writer]:
    async with Appender(await connecting(), deadline=2.0) as appender:
        yield Writer(appender, delta, control)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


@pytest.fixture(params=[False, True], ids=["there", "away"])
def away(request: pytest.FixtureRequest) -> bool:
    """Whether NATS is away when an instance starts."""
    return bool(request.param)


def file_of(directory: Path) -> Path:
    (found,) = directory.glob("*")
    return found


async def ten(writer: Writer) -> None:
    await writer.record(subjects.OWNER)
    await writer.record(subjects.TYPE, "alpha", "", "pods", version="v1", kind="Pod")
    for number in range(10):
        await writer.put(f"n{number}", labels={"app": "a"})


async def test_a_start_goes_on_where_the_last_one_ended(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, away: bool
) -> None:
    await ten(writer)
    first = await start(directory)
    assert not said(logged, IGNORED), "that there is none yet is nothing to tell"
    await first.stop()
    assert file_of(directory).stat().st_mode & 0o777 == 0o600
    await writer.put("n3", type="MODIFIED", uid_index=6)
    gone = await writer.put("n4", type=DELETED, uid_index=7)
    await writer.put("late")
    whole, quick = await start(), await start(directory, away=away)
    assert quick.materializer.replayed == 3
    # All that happened, the log still has every event.
    assert whole.materializer.replayed == 15
    assert quick.state() == whole.state()
    assert quick.store.types["", "pods"].tombstones["alpha"][object_key("x", "n4")].index == gone
    # It goes on as any other, and another snapshot follows.
    await writer.put("later")
    for one in (whole, quick):
        await one.materializer.wait_applied(gone + 2, PATIENCE)
    assert quick.state() == whole.state()
    await quick.stop()
    third = await start(directory)
    assert third.materializer.replayed == 0
    assert third.state() == whole.state()
    assert len(said(logged, RESUMED)) == 2 - away
    assert not said(logged, IGNORED)


async def test_written_from_time_to_time_and_while_changes_come(
    log: Log, writer: Writer, start: Start, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 1)
    monkeypatch.setattr(snapshot_file, "BATCH", 1)
    monkeypatch.setattr(snapshot_file, "_LARGE", 1)
    await ten(writer)
    first = await start(directory, every=0.02)
    for number in range(200):
        await writer.put(f"n{number % 13}")

    def far() -> bool:
        snapshots = first.materializer.snapshots
        return snapshots is not None and snapshots.index > 100

    await eventually(far)
    await first.kill()
    whole, quick = await start(), await start(directory)
    assert quick.materializer.replayed < whole.store.applied
    assert quick.state() == whole.state()
    assert [one.name for one in directory.iterdir()] == ["KUBEBRAID.snapshot"]


@pytest.mark.parametrize("seed", range(3))
async def test_any_history(log: Log, writer: Writer, start: Start, directory: Path, seed: int, away: bool) -> None:
    """Changes, deletions, removed types and clusters, purges behind their records; a start now and then."""
    chance = random.Random(seed)
    instance = await start(directory)
    lives: dict[tuple[str, str, str], tuple[str, int]] = {}
    for _ in range(8):
        for _ in range(chance.choice((0, 5, 40))):
            what = chance.random()
            cluster = chance.choice(("alpha", "beta"))
            resource = chance.choice(("pods", "nodes"))
            name = chance.choice("abcdef")
            at = (cluster, resource, name)
            where: dict[str, Any] = {"cluster": cluster, "resource": resource}
            if what < 0.03:
                index = await writer.record(subjects.REMOVED, cluster, types=["pods", "nodes"])
                await log.purge_state(object_filter(cluster), index)
                lives = {one: life for one, life in lives.items() if one[0] != cluster}
            elif what < 0.06:
                index = await writer.record(subjects.REMOVED, cluster, "", resource, types=[resource])
                await log.purge_state(object_filter(cluster, "", resource), index)
                lives = {one: life for one, life in lives.items() if one[:2] != (cluster, resource)}
            elif what < 0.1:
                await writer.record(subjects.TYPE, cluster, "", resource, version="v1", kind=resource)
            elif what < 0.3 and at in lives:
                uid, first = lives.pop(at)
                await writer.put(name, type=DELETED, uid=uid, uid_index=first, **where)
            elif what < 0.7 and at in lives:
                uid, first = lives[at]
                labels = {"at": chance.choice("xyz")}
                await writer.put(name, type="MODIFIED", uid=uid, uid_index=first, labels=labels, **where)
            else:
                uid = f"{name}{writer.version}"
                lives[at] = (uid, await writer.put(name, uid=uid, **where))
        await instance.materializer.wait_applied(await log.head(), PATIENCE)
        if chance.random() < 0.7:
            await instance.materializer.save()
        if chance.random() < 0.5:
            await instance.kill()
            instance = await start(directory, away=away)
            whole = await start()
            assert instance.state()["types"] == whole.state()["types"]
            assert instance.store.prefix == whole.store.prefix
            assert instance.store.applied == whole.store.applied
            await whole.kill()


async def test_an_object_in_parts_whose_end_is_still_to_come(
    log: Log, writer: Writer, start: Start, directory: Path, delta: Make
) -> None:
    made = delta("large")
    halves = made.object[:50], made.object[50:]
    root = type_prefix("alpha", "", "v1", "pods")
    subject = object_subject(root, "x", "large")
    parts = []
    for number, half in enumerate(halves):
        parts.append(await writer.appender.append_wait(f"kbp{subject[2:]}.1.{number}", half, {}))
    first = await start(directory)
    await first.stop()
    await writer.put("large", uid="u", parts=tuple(parts))
    quick = await start(directory)
    assert quick.store.types["", "pods"].get("alpha", object_key("x", "large")) is not None
    assert quick.materializer.unreadable == 0


# -- what is not to be gone on from ------------------------------------------------------------------------------------


def cut_off(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def without_its_end(file: Path) -> None:
    os.truncate(file, file.stat().st_size - snapshot_file._FRAME.size)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def flipped(at: float) -> Callable[[Path], None]:
    def flip(file: Path) -> None:
        text = bytearray(file.read_bytes())
        text[int(len(text) * at)] ^= 0x10
        file.write_bytes(text)

    return flip


def lengthened(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


def of_another_version(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"snapshot %d" % snapshot_file.FORMAT, b"snapshot 9"))


def of_something_else(file: Path) -> None:
    file.write_text("dear diary")


def a_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def without_a_header(file: Path) -> None:
    written(file)


def with_another_header(file: Path) -> None:
    written(file, b'{"of": "tomorrow"}')


WAYS = [
    *(cut_off, without_its_end, emptied, lengthened, without_a_header, with_another_header),
    *(of_another_version, of_something_else, a_directory),
    *(pytest.param(flipped(at), id=f"flipped at {at}") for at in (0.1, 0.3, 0.5, 0.8, 0.99)),
]


@pytest.mark.parametrize("damage", WAYS)
async def test_a_damaged_one_is_ignored_with_one_line(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, damage: Callable[[Path], None]
) -> None:
    await ten(writer)
    first = await start(directory)
    await first.stop()
    damage(file_of(directory))
    again = await start(directory)
    assert len(said(logged, IGNORED)) == 1
    assert again.materializer.replayed == 12
    assert again.state() == first.state()
    # Unless it cannot be, the next one takes its place.
    await writer.put("more")
    await again.materializer.wait_applied(13, PATIENCE)
    if damage is not a_directory:
        await again.stop()
        third = await start(directory)
        assert third.materializer.replayed == 0


async def packed_frames(file: Path) -> list[tuple[int, int]]:
    """Where in a snapshot the packed bodies are: begin and length."""
    return [(frame.at, len(frame.stored)) for frame in await frames_of(file) if frame.in_place]


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
async def test_packed_bodies_that_are_damaged_are_found_and_never_served(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, part: float
) -> None:
    await ten(writer)
    for number in range(100):
        await writer.put(f"n{number}", labels={f"label-{at}": "value" * 8 for at in range(40)})
    first = await start(directory)
    first.store.pack()
    assert all(entry.dictionary is not None for entry in first.store.types["", "pods"].live())
    await first.stop()
    file = file_of(directory)
    [(begin, length), *_] = await packed_frames(file)
    text = bytearray(file.read_bytes())
    text[begin + int(length * part)] ^= 0x01
    file.write_bytes(text)
    again = await start(directory)
    [reason] = said(logged, IGNORED)
    assert "checksum" in reason
    assert again.materializer.replayed > 0
    assert again.state() == first.state()


def read_anew(instance: Instance) -> bool:
    return instance.materializer.replayed > 100


@pytest.mark.parametrize("read", [False, True])
async def test_a_shared_file_that_is_damaged_is_neither_written_again_nor_gone_on_with(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, read: bool
) -> None:
    """Bytes that a disk changes after they were found to be good: seen when it is looked at, or a body is none.

    `read`: somebody asks for that body meanwhile, long before it would be looked at.
    """
    for number in range(100):
        await writer.put(f"n{number}", labels={f"label-{at}": "value" * 8 for at in range(40)})
    first = await start(directory)
    first.store.pack()
    await first.materializer.save()
    good, whole = file_of(directory).read_bytes(), first.state()
    await first.stop()
    one = await start(directory, every=3600.0 if read else 0.3, shares=True)
    other = await start(directory, every=3600.0 if read else 0.3, shares=True, writes=False)
    entries = list(one.store.types["", "pods"].live())
    assert all(isinstance(entry, MappedEntry) for entry in entries)
    [(begin, length), *_] = await packed_frames(file_of(directory))
    with file_of(directory).open("r+b") as file:
        # In place: it is mapped.
        file.seek(begin + length - 3000)
        file.write(bytes(3000))
    await writer.put("new")
    if read:
        with suppress(CorruptFrame):
            reading.contents(entries)
    for instance in (one, other):
        await instance.materializer.wait_applied(101, PATIENCE)
        await eventually(partial(read_anew, instance))
        await instance.ready()
        await instance.materializer.wait_applied(101, PATIENCE)
        live = instance.store.types["", "pods"].live()
        assert [entry.content for entry in live if entry.name != "new"] == [
            entry.content for entry in first.store.types["", "pods"].live()
        ]
    assert (
        said(logged, "the snapshot that records are read from is damaged") == ["the checksum of frame 2 is wrong"] * 2
    )
    assert whole == first.state()
    one.store.pack()
    await one.materializer.save()
    assert file_of(directory).read_bytes() != good
    assert await frames_of(file_of(directory))


async def test_of_another_shape(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ten(writer)
    await (await start(directory)).stop()
    monkeypatch.setattr(module, "_SHAPE", 7)
    assert (await start(directory)).materializer.replayed == 12
    assert said(logged, IGNORED) == ["another version of kubebraid wrote it"]


async def test_of_a_stream_made_anew(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, away: bool
) -> None:
    await ten(writer)
    await (await start(directory)).stop()
    await log.connection.api(f"STREAM.DELETE.{log.name}")
    await open_log(log.connection, LogSettings(tombstone_ttl=TTL))
    await writer.put("other")
    again = await start(directory, away=away)
    assert len(said(logged, IGNORED)) == 1
    assert [one.name for one in again.store.types["", "pods"].clusters["alpha"].values()] == ["other"]


async def test_of_a_history_that_was_renamed(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, away: bool
) -> None:
    await ten(writer)
    first = await start(directory)
    await first.stop()
    await History(log).rotate(first.store.prefix)
    again = await start(directory, away=away)
    assert len(said(logged, IGNORED)) == 1
    assert again.materializer.replayed == 12


async def test_one_that_is_too_old(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted since then, and whose tombstone has gone, would live on."""
    await ten(writer)
    first = await start(directory)
    await first.stop()
    await writer.put("n4", type=DELETED, uid_index=7, ttl=1)
    async with asyncio.timeout(PATIENCE):
        while await log.last(object_subject(type_prefix("alpha", "", "v1", "pods"), "x", "n4")) is not None:
            await asyncio.sleep(0.05)
    # Nobody but the snapshot knows what there was.
    await log.connection.api("STREAM.DELETE.KV_kubebraid-history")
    now = Log.now
    monkeypatch.setattr(Log, "now", lambda self: now(self) + int(TTL * 0.95) * SECOND)
    again = await start(directory)
    assert said(logged, IGNORED) == ["deletions since then may have been forgotten"]
    assert object_key("x", "n4") not in again.store.types["", "pods"].clusters["alpha"]


async def test_one_that_became_too_old_while_it_was_read(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """Served already, what lacks deletions has versions that are good everywhere: it has to be another history."""
    await ten(writer)
    first = await start(directory)
    before = first.store.prefix
    await first.stop()
    answers = iter((False, True) if away else (True,))
    monkeypatch.setattr(guard_module, "too_old", lambda *_: next(answers, False))
    again = await start(directory, away=away)
    assert again.materializer.replayed == 12
    assert said(logged, "the history changed") == [
        "deletions since the snapshot may have been forgotten while it was read"
    ]
    await again.materializer.log.reopen()
    assert again.store.prefix == again.materializer.log.prefix
    assert (again.store.prefix != before) is away


async def test_one_that_became_too_old_while_nats_was_away(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one record is read on top of it: it is the same history, without what was deleted."""
    await ten(writer)
    first = await start(directory)
    before = first.store.prefix
    await first.stop()

    async def meanwhile() -> None:
        await writer.put("n4", type=DELETED, uid_index=7, ttl=1)
        async with asyncio.timeout(PATIENCE):
            while await log.last(object_subject(type_prefix("alpha", "", "v1", "pods"), "x", "n4")) is not None:
                await asyncio.sleep(0.05)
        await writer.put("later")
        # Its witness is not as old as it would be.
        await log.connection.api("STREAM.DELETE.KV_kubebraid-history")
        now = Log.now
        monkeypatch.setattr(Log, "now", lambda self: now(self) + int(TTL * 0.95) * SECOND)

    again = await start(directory, away=True, meanwhile=meanwhile)
    assert said(logged, "deletions since the snapshot may have been forgotten: starting anew")
    assert not said(logged, "the history changed")
    assert again.store.prefix == before == log.prefix
    names = [one.name for one in again.store.types["", "pods"].clusters["alpha"].values()]
    assert "n4" not in names
    assert "later" in names


@pytest.mark.parametrize("what", ["ghost", "all", "end"])
async def test_a_log_that_was_cut_meanwhile_is_another_history(
    log: Log, writer: Writer, start: Start, directory: Path, what: str, away: bool
) -> None:
    """What was served is gone without a word: not one object of it is served again under the old name."""
    await ten(writer)
    first = await start(directory)
    before = first.store.prefix
    await first.stop()
    # Nobody but the snapshot knows how far it was.
    await log.connection.api("STREAM.DELETE.KV_kubebraid-history")
    if what == "ghost":
        await cut_one(log, 7)
    elif what == "all":
        await cut(log, ">", await log.head() + 1)
    else:
        await cut_one(log, 12)
    await writer.put("more")
    again, whole = await start(directory, away=away), await start()
    assert again.store.prefix == whole.store.prefix != before
    assert again.state() == whole.state()


async def test_a_log_that_was_put_back_meanwhile_is_another_history(
    broker: EmbeddedBroker, log: Log, writer: Writer, start: Start, directory: Path, tmp_path: Path, away: bool
) -> None:
    await ten(writer)
    files = broker.data / "nats" / "jetstream"
    await broker.stop()
    shutil.copytree(files, tmp_path / "copy")
    await broker.start()
    await writer.put("served")
    first = await start(directory)
    before = first.store.prefix
    await first.stop()
    await broker.stop()
    shutil.rmtree(files)
    shutil.copytree(tmp_path / "copy", files)
    await broker.start()
    for number in range(5):
        await writer.put(f"other{number}")
    again, whole = await start(directory, away=away), await start()
    assert again.store.prefix == whole.store.prefix != before
    assert again.state() == whole.state()
    assert object_key("x", "served") not in again.store.types["", "pods"].clusters["alpha"]


# -- writing fails -----------------------------------------------------------------------------------------------------


async def test_a_full_disk_is_one_line_and_leaves_the_last_one(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged
) -> None:
    await ten(writer)
    first = await start(directory)
    await first.materializer.save()
    good = file_of(directory).read_bytes()
    await writer.put("more")
    await first.materializer.wait_applied(13, PATIENCE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        await first.materializer.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert said(logged, "the snapshot cannot be written") == ["File too large"]
    assert [one.name for one in directory.iterdir()] == ["KUBEBRAID.snapshot"]
    assert file_of(directory).read_bytes() == good
    assert not first.task.done()
    await first.materializer.save()
    assert (await start(directory)).materializer.replayed == 0


async def test_some_of_the_disk_is_left_to_others(
    log: Log, writer: Writer, start: Start, directory: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_file, "_RESERVE", 1 << 80)
    await ten(writer)
    first = await start(directory)
    await first.materializer.save()
    assert len(said(logged, "the snapshot cannot be written")) == 1
    assert list(directory.iterdir()) == []


async def test_what_was_deleted_is_remembered_and_the_floor_stays(
    log: Log, writer: Writer, start: Start, directory: Path
) -> None:
    """A cold start does not know what it did not see, and refuses; one from a snapshot goes on as before."""
    await ten(writer)
    first = await start(directory)
    await writer.put("n1", type=DELETED, uid_index=4)
    gone = await writer.record(subjects.REMOVED, "alpha", "", "pods", types=["pods"])
    await log.purge_state(object_filter("alpha", "", "pods"), gone)
    await first.materializer.wait_applied(gone, PATIENCE)
    await first.stop()
    quick, whole = await start(directory), await start()
    key = ("", "pods")
    assert first.store.floor_of(key, None) == quick.store.floor_of(key, None) < gone
    assert whole.store.floor_of(key, None) == gone
    assert len(quick.store.types[key].tombstones["alpha"]) == 10
