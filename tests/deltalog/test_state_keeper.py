"""The state stream looked after: made anew with its log, of the events' past, and what it lacks is said."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from deltalog import Appender, Connection, Log, LogSettings, Reader, open_log
from deltalog.history import History, Mark, Probe
from deltalog.jetstream.making import change_stream
from deltalog.jetstream.stream_info import STATE_FROM_KEY
from deltalog.reader import StateIncomplete
from deltalog.state_keeper import StateKeeper
from deltalog.timing import LogTiming
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import ControlRecord, ObjectsRemoved, encode_control
from deltalog.wire.subjects import REMOVED, control_subject, object_subject, type_prefix
from kubebraid.command.broker import EmbeddedBroker
from tests.ageing import forget_events, kept, state_at
from tests.patience import PATIENCE, eventually

PODS = type_prefix("alpha", "", "v1", "pods")
QUICK = LogTiming(look_every=0.05)
Put = Callable[..., Awaitable[int]]
Follow = Callable[..., Any]


@pytest.fixture
async def keeper(connecting: Callable[[], Awaitable[Connection]]) -> AsyncIterator[StateKeeper]:
    """One that runs all the while."""
    keeper = StateKeeper(await connecting(), "KUBEBRAID", QUICK)
    task = asyncio.create_task(keeper.run())
    yield keeper
    assert not task.done(), task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def whole(log: Log) -> list[int]:
    """What a reader from the beginning reads."""
    sequences: list[int] = []
    async with asyncio.timeout(PATIENCE):
        await Reader(log, lambda record: sequences.append(record.sequence), stop_when_caught_up=True).run()
    return sequences


async def remade(log: Log, before: str) -> None:
    """Returns once the state stream is another one than that made at `before`, and has all."""
    async with asyncio.timeout(PATIENCE):
        while await made(log) in ("", before):
            await asyncio.sleep(0.02)
    await state_at(log, await log.head())


async def made(log: Log) -> str:
    """When the state stream was made; empty: there is none."""
    try:
        raw = await log.connection.api(f"STREAM.INFO.{log.name}_STATE")
    except Exception:  # noqa: BLE001 - it was just deleted
        return ""
    return str(json.loads(bytes(raw))["created"])


async def test_a_state_that_was_deleted_is_made_anew(log: Log, put: Put, keeper: StateKeeper) -> None:
    for name in "aab":
        await put(name)
    before = await made(log)
    await log.connection.api(f"STREAM.DELETE.{log.name}_STATE")
    await remade(log, before)
    state = await kept(log)
    assert (state.messages, state.last_sequence, state.lacks_to) == (2, 3, 0), "the events had it all"


async def test_a_state_that_is_deleted_while_it_is_tidied_is_made_anew(
    log: Log, put: Put, connecting: Callable[[], Awaitable[Connection]], monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[str] = []

    class Deleting(Reader):
        async def run(self, on_outage: Callable[[bool], None] | None = None) -> None:
            if not deleted:
                deleted.append(log.name)
                await log.connection.api(f"STREAM.DELETE.{log.name}_STATE")
            await super().run(on_outage)

    await put("a")
    monkeypatch.setattr("deltalog.state_keeper.Reader", Deleting)
    before = await made(log)
    task = asyncio.create_task(StateKeeper(await connecting(), "KUBEBRAID", QUICK).run())
    try:
        await remade(log, before)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert deleted


async def test_what_it_lacks_is_said(log: Log, put: Put, keeper: StateKeeper) -> None:
    for name in "aabc":
        await put(name)
    await forget_events(log, 3)
    before = await made(log)
    await log.connection.api(f"STREAM.DELETE.{log.name}_STATE")
    await remade(log, before)
    state = await kept(log)
    assert (state.messages, state.last_sequence, state.lacks_to) == (1, 4, 4)
    # One who has read that far misses nothing, and one who begins is told.
    records: list[int] = []
    reader = Reader(log, lambda record: records.append(record.sequence), stop_when_caught_up=True)
    await reader.run()
    assert (records, reader.lacks_to) == ([4], 4)
    assert await whole(log) == [4]
    assert (await read_after(log, 3)).lacks_to == 0
    with pytest.raises(StateIncomplete, match="may lack messages up to 4, 2 was applied"):
        await read_after(log, 2)
    # It stays so, and is not said again with each look.
    await put("d")
    await asyncio.sleep(0.3)
    assert (await kept(log)).lacks_to == 4


async def test_who_begins_goes_on_over_a_hole_in_the_events(log: Log, put: Put, keeper: StateKeeper) -> None:
    """With what there is in a state that lacks something: not from the beginning again and again."""
    for name in "abcd":
        await put(name)
    await state_at(log, 4)
    assert log.state_stream is not None
    await log.connection.api(f"STREAM.MSG.DELETE.{log.name}", {"seq": 2})
    await change_stream(log.state_stream, {}, {STATE_FROM_KEY: "4 2026-01-01T00:00:00Z"})
    assert await whole(log) == [1, 2, 3, 4]
    assert (await read_after(log, 0)).lacks_to == 4


async def read_after(log: Log, sequence: int) -> Reader:
    reader = Reader(log, lambda record: None, after=sequence, stop_when_caught_up=True)
    async with asyncio.timeout(PATIENCE):
        await reader.run()
    return reader


async def test_a_log_that_was_made_anew_gets_a_state_of_its_own(
    log: Log, put: Put, keeper: StateKeeper, connecting: Callable[[], Awaitable[Connection]]
) -> None:
    for name in "abc":
        await put(name)
    await state_at(log, 3)
    await log.connection.api(f"STREAM.DELETE.{log.name}")
    again = await open_log(await connecting(), LogSettings(tombstone_ttl=60))
    assert again.state_stream is not None
    async with asyncio.timeout(PATIENCE):
        # Both set it up at once.
        while not again.window:
            await again.state()
    assert again.window == 60
    async with Appender.to(again) as appender:
        await appender.append_wait(object_subject(PODS, "x", "z"), b"z")
    await state_at(again, 1)
    state = await kept(again)
    assert (state.created, state.messages, state.lacks_to) == (again.created, 1, 0)


async def test_a_state_of_another_past_is_made_anew(
    log: Log, put: Put, broker: EmbeddedBroker, keeper: StateKeeper
) -> None:
    """The events lost their end, as in a crash, and went on: the state has messages that never were."""
    for name in "abc":
        await put(name)
    await state_at(log, 3)
    files = broker.data / "nats" / "jetstream"
    stream = next(files.rglob("streams/KUBEBRAID"))
    await broker.stop()
    shutil.copytree(stream, broker.data / "copy")
    await broker.start()
    await eventually(lambda: log.connection.connected)
    for name in "def":
        await put(name)
    await state_at(log, 6)
    before = await made(log)
    await broker.stop()
    shutil.rmtree(stream)
    shutil.copytree(broker.data / "copy", stream)
    await broker.start()
    await eventually(lambda: log.connection.connected)
    await remade(log, before)
    for name in "xyz":
        await put(name)
    await state_at(log, 6)
    assert log.state_stream is not None
    for name in "abcxyz":
        assert await log.state_stream.last(object_subject(PODS, "x", name)) is not None, name
    for name in "def":
        assert await log.state_stream.last(object_subject(PODS, "x", name)) is None, name


async def test_a_state_that_fell_behind_says_so(log: Log, put: Put, connection: Connection) -> None:
    """While it did not copy, the events forgot what it lacks."""
    for name in "abc":
        await put(name)
    await state_at(log, 3)
    # A state that stands still: of a stream that takes nothing more in.
    state = await kept(log)
    behind = StateKeeper(connection, log.name)
    await behind.look()
    assert (await kept(log)).lacks_to == 0
    for name in "abcd":
        await put(name)
    await forget_events(log, 6)
    await behind._note_gap(log, state, await log.state())
    assert (await kept(log)).lacks_to == 7


async def test_what_was_removed_stays_out_of_a_state_that_is_made_anew(
    log: Log, put: Put, appender: Appender, keeper: StateKeeper
) -> None:
    for name in "ab":
        await put(name)
    fact = ObjectsRemoved(resource=GroupResource("", "pods"))
    record = ControlRecord(cluster="alpha", time=1_700_000_000_000, producer="p", epoch=1, fact=fact)
    subject = control_subject("alpha", REMOVED, "", "pods")
    removed = await appender.append_wait(subject, encode_control(record), {"Nats-TTL": "60s"})
    await put("c")
    before = await made(log)
    await log.connection.api(f"STREAM.DELETE.{log.name}_STATE")
    await remade(log, before)
    async with asyncio.timeout(PATIENCE):
        while (await kept(log)).messages > 2:
            await asyncio.sleep(0.02)
    assert log.state_stream is not None
    assert await log.state_stream.message_time(removed) is not None
    assert await log.state_stream.last(object_subject(PODS, "x", "c")) is not None


async def test_a_log_of_before_is_taken_over_while_it_runs(log: Log, put: Put, keeper: StateKeeper) -> None:
    """Whoever opened it could not, or did not wait."""
    await put("a")
    await change_stream(
        log, {"max_msgs_per_subject": 1, "max_age": 0, "discard": "new"}, {"kubebraid.io/events-from": ""}
    )
    async with asyncio.timeout(PATIENCE):
        while True:
            await log.state()
            if log.window:
                break
            await asyncio.sleep(0.02)
    assert log.window == 60


async def test_a_renamed_history_is_that_of_its_state_too(log: Log, put: Put, keeper: StateKeeper) -> None:
    await put("a")
    await History(log).rotate(log.prefix)
    async with asyncio.timeout(PATIENCE):
        while (await kept(log)).prefix != log.prefix:
            await asyncio.sleep(0.02)


async def test_what_a_state_lacks_was_not_cut_out_of_the_history(log: Log, put: Put, keeper: StateKeeper) -> None:
    for name in "abc":
        await put(name)
    time = await log.message_time(3)
    assert time is not None
    probes = (Probe(1, object_subject(PODS, "x", "a")),)
    await History(log).mark(Mark(log.created, log.prefix, 3, time, time, 0, probes))
    assert await History(log).why_not_served() is None
    await forget_events(log, 2)
    before = await made(log)
    await log.connection.api(f"STREAM.DELETE.{log.name}_STATE")
    await remade(log, before)
    assert await log.message_time(1) is None
    assert await History(log).why_not_served() is None
