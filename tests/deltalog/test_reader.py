"""Reading: in order, without gap or repetition, whatever happens to the server, the connection or the consumer."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deltalog import (
    Appender,
    AppendError,
    Connection,
    HistoryChanged,
    Log,
    LogSettings,
    LogTiming,
    Reader,
    Record,
    open_log,
)
from deltalog.history import History
from deltalog.jetstream.client import Receiver
from deltalog.jetstream.making import find_stream
from deltalog.reader import read_to_end
from deltalog.wire.subjects import object_filter, object_subject, type_prefix
from kubebraid.command.broker import EmbeddedBroker
from tests.ageing import forget_events
from tests.patience import PATIENCE, eventually

PODS = type_prefix("alpha", "", "v1", "pods")
Put = Callable[..., Awaitable[int]]
Follow = Callable[..., Any]
Kill = Callable[[], Awaitable[None]]
# A consumer's silence is noticed within a second or two.
QUICK = LogTiming(heartbeat=0.2, silence=1.0)


@pytest.fixture(params=[True, False], ids=["fast", "public"])
def fast(request: pytest.FixtureRequest) -> bool:
    """All of this holds without nats-py's private names, too."""
    return bool(request.param)


async def consumers(log: Log) -> list[str]:
    raw = await log.connection.api(f"CONSUMER.NAMES.{log.name}")
    return msgspec.json.decode(raw).get("consumers") or []


def break_connection(log: Log) -> None:
    transport = log.connection.client._transport
    assert transport is not None
    transport.close()


async def test_records_come_in_order_with_their_times(log: Log, put: Put, follow: Follow) -> None:
    sequences = [await put(f"n{number}") for number in range(5)]
    reading = follow(log)
    await reading.until(lambda: reading.reader.caught_up.is_set())
    sequences += [await put(f"m{number}") for number in range(5)]
    await reading.until(lambda: len(reading.records) == 10)
    assert reading.sequences == sequences
    assert reading.reader.position == sequences[-1]
    for record in reading.records:
        assert record.time == await log.message_time(record.sequence)
        assert record.data
    assert reading.records[0].subject == object_subject(PODS, "x", "n0")


async def test_a_reader_starts_behind_any_sequence(log: Log, put: Put) -> None:
    for number in range(6):
        await put(f"n{number}")
    await put("n1")
    records: list[Record] = []
    assert await read_to_end(log, records.append, after=3) == 7
    assert [record.sequence for record in records] == [4, 5, 6, 7]
    assert await read_to_end(log, records.append, after=7) == 7
    assert len(records) == 4


async def test_caught_up_is_what_the_leader_has_and_not_what_a_lagging_replica_sent(log: Log, put: Put) -> None:
    """Of three replicas the consumer's may lack messages: it says that there is nothing more, and more comes."""

    class Leader(Log):
        """Has one message more than the consumer's replica, as long as that is `lagging`."""

        lagging = True
        asked: list[tuple[int, tuple[str, ...]]]

        async def head(self) -> int:
            return await super().head() + self.lagging

        async def next_after(self, sequence: int, filters: Sequence[str] = ()) -> int | None:
            self.asked.append((sequence, tuple(filters)))
            return await super().next_after(sequence, filters) or (await self.head() if self.lagging else None)

    await put("a")
    leader = Leader(log.connection, await find_stream(log.connection, log.name))
    leader.replicas, leader.asked = 3, []
    records: list[Record] = []
    subject = object_filter("alpha")
    reading = asyncio.create_task(read_to_end(leader, records.append, subjects=[subject]))
    await eventually(lambda: len(leader.asked) >= 3)
    assert not reading.done(), "the leader has more"
    assert leader.asked[0] == (1, (subject,))
    # The one that lagged has it now.
    second = await put("b")
    leader.lagging = False
    async with asyncio.timeout(PATIENCE):
        assert await reading == second
    assert [record.sequence for record in records] == [1, second]


async def test_who_reads_to_the_end_ends_though_the_connection_was_lost_at_the_last_message(log: Log, put: Put) -> None:
    """It had caught up, and what said so was lost: more has come since then."""
    await put("a")
    records: list[Record] = []

    def apply(record: Record) -> None:
        records.append(record)
        if record.sequence == 1:
            log.connection._trouble()

    reader = Reader(log, apply, stop_when_caught_up=True)
    reading = asyncio.create_task(reader.run())
    await eventually(lambda: bool(records))
    await put("b")
    async with asyncio.timeout(PATIENCE):
        await reading
    assert [record.sequence for record in records][:1] == [1]
    assert reader.restarts == 1


async def test_headers_only(log: Log, put: Put) -> None:
    await put("a", uid="the-uid")
    records: list[Record] = []
    await read_to_end(log, records.append, headers_only=True)
    assert records[0].data == b""
    assert records[0].headers is not None
    assert records[0].headers["Kb"].split()[1] == "the-uid"


async def test_a_filter_keeps_the_rest_away(log: Log, put: Put, follow: Follow) -> None:
    await put("a")
    await put("b")
    reading = follow(log, subjects=(object_filter(name="b"), object_filter(name="c")))
    await reading.until(lambda: reading.reader.caught_up.is_set())
    await put("a")
    last = await put("c")
    await reading.until(lambda: reading.reader.position == last)
    assert [record.subject.rpartition(".")[2] for record in reading.records] == ["b", "c"]


async def test_an_empty_log_is_read_to_its_end(log: Log) -> None:
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        assert await read_to_end(log, records.append) == 0
    assert records == []


async def test_a_filter_without_messages_is_read_to_its_end(log: Log, put: Put) -> None:
    await put("a")
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE):
        assert await read_to_end(log, records.append, subjects=(object_filter("nowhere"),)) in (0, 1)
    assert records == []


async def test_what_the_callback_raises_comes_out(log: Log, put: Put) -> None:
    await put("a")
    await put("b")
    seen: list[int] = []

    def apply(record: Record) -> None:
        seen.append(record.sequence)
        raise LookupError("not today")

    reader = Reader(log, apply)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(LookupError, match="not today"):
            await reader.run()
    assert seen == [1]
    # What was not applied is not passed over.
    assert reader.position == 0


async def test_no_consumer_is_left_behind(log: Log, put: Put) -> None:
    await put("a")
    await read_to_end(log, lambda record: None)
    async with asyncio.timeout(PATIENCE):
        while await consumers(log):
            await asyncio.sleep(0.02)


class Churn:
    """A writer that goes on over anything, and keeps what was surely stored."""

    def __init__(self, appender: Appender) -> None:
        self.stored: dict[int, str] = {}
        self._appender = appender
        self._task = asyncio.create_task(self._run())
        self._pause = asyncio.Event()

    async def _run(self) -> None:
        number = 0
        while not self._pause.is_set():
            number += 1
            name = object_subject(PODS, "x", f"n{number}")
            with suppress(AppendError):
                self.stored[await self._appender.append_wait(name, b"%d" % number)] = name

    async def stop(self) -> None:
        self._pause.set()
        async with asyncio.timeout(PATIENCE):
            await self._task


async def assert_whole(reading: Any, log: Log, churn: Churn) -> None:
    """Everything stored was read once, in order: what the log holds now, and what was acknowledged."""
    await churn.stop()
    head = await log.head()
    await reading.until(lambda: reading.reader.position >= head)
    assert reading.sequences == list(range(1, head + 1))
    read = {record.sequence: record.subject for record in reading.records}
    assert churn.stored.items() <= read.items()


async def test_a_killed_and_restarted_server_leaves_no_gap(
    log: Log, connecting: Callable[[], Awaitable[Connection]], broker: EmbeddedBroker, kill: Kill, follow: Follow
) -> None:
    reading = follow(log)
    async with Appender(await connecting(), deadline=1.0) as appender:
        churn = Churn(appender)
        for _ in range(2):
            stored, read = len(churn.stored), len(reading.records)

            def more_is_stored(stored: int = stored) -> bool:
                return len(churn.stored) > stored + 50

            await eventually(more_is_stored)
            # It reads this server, not what the one before left: else one restart would mend both kills.
            await reading.until(lambda read=read: len(reading.records) > read + 20)
            await kill()
            await broker.start()
        stored = len(churn.stored)
        await eventually(lambda: len(churn.stored) > stored + 50)
        await assert_whole(reading, log, churn)
    assert reading.reader.restarts >= 2


async def test_a_forced_reconnect_leaves_no_gap(
    log: Log, connecting: Callable[[], Awaitable[Connection]], follow: Follow
) -> None:
    reading = follow(log)
    async with Appender(await connecting()) as appender:
        churn = Churn(appender)
        for _ in range(3):
            before = log.connection.disconnections
            await reading.until(lambda: len(reading.records) > 50)
            # The reader's connection alone breaks, in the middle of the stream.
            break_connection(log)

            def is_disconnected(before: int = before) -> bool:
                return log.connection.disconnections > before

            await eventually(is_disconnected)
            await eventually(lambda: log.connection.connected)
            read = len(reading.records)
            await reading.until(lambda read=read: len(reading.records) > read + 50)
        await assert_whole(reading, log, churn)
    assert reading.reader.restarts >= 3


async def test_a_consumer_deleted_behind_the_readers_back_is_replaced(log: Log, put: Put, follow: Follow) -> None:
    await put("a")
    reading = follow(log, timing=QUICK)
    await reading.until(lambda: reading.reader.caught_up.is_set())
    (consumer,) = await consumers(log)
    await log.connection.api(f"CONSUMER.DELETE.{log.name}.{consumer}")
    last = await put("b")
    await reading.until(lambda: reading.reader.position == last)
    assert reading.sequences == [1, 2]
    assert reading.reader.restarts == 1
    assert consumer not in await consumers(log)


async def test_a_server_that_falls_silent_is_noticed(
    log: Log, put: Put, follow: Follow, halted: Callable[[], Any]
) -> None:
    await put("a")
    reading = follow(log, timing=QUICK)
    await reading.until(lambda: reading.reader.caught_up.is_set())
    async with halted():
        await eventually(lambda: reading.reader.restarts == 1)
    last = await put("b")
    await reading.until(lambda: reading.reader.position == last)
    assert reading.sequences == [1, 2]


async def test_heartbeats_keep_a_quiet_reader_where_it_is(log: Log, put: Put, follow: Follow) -> None:
    await put("a")
    reading = follow(log, timing=QUICK)
    await reading.until(lambda: reading.reader.caught_up.is_set())
    (before,) = await consumers(log)
    # Longer than the silence that counts as a loss.
    await asyncio.sleep(1.6)
    assert await consumers(log) == [before]
    assert reading.reader.restarts == 0


async def test_an_outage_is_told_once_and_its_end_too(
    log: Log, put: Put, broker: EmbeddedBroker, kill: Kill, follow: Follow
) -> None:
    await put("a")
    reading = follow(log)
    await reading.until(lambda: reading.reader.caught_up.is_set())
    await kill()
    await eventually(lambda: reading.outages == [True])
    await broker.start()
    await eventually(lambda: reading.outages == [True, False])


async def recreate(connection: Connection, log: Log) -> Log:
    await connection.api(f"STREAM.DELETE.{log.name}")
    return await open_log(connection, LogSettings(name=log.name, prefix=log.prefix))


@pytest.mark.parametrize("more", [0, 5], ids=["shorter", "longer than before"])
async def test_a_recreated_stream_is_another_history(
    log: Log, connecting: Callable[[], Awaitable[Connection]], put: Put, follow: Follow, more: int
) -> None:
    """Even under the same prefix."""
    for number in range(3):
        await put(f"n{number}")
    reading = follow(log, timing=QUICK)
    await reading.until(lambda: reading.reader.position == 3)
    await recreate(await connecting(), log)
    for number in range(more):
        await put(f"m{number}")
    with pytest.raises(HistoryChanged, match="made anew"):
        await reading.ended()
    assert reading.sequences == [1, 2, 3]


async def test_a_renamed_history_is_another_one(log: Log, put: Put, connecting: Any, follow: Follow) -> None:
    await put("a")
    other = await open_log(await connecting())
    await History(other).rotate(other.prefix)
    with pytest.raises(HistoryChanged, match="renamed"):
        await follow(log).ended()


async def test_a_position_past_the_end_is_another_history(log: Log, put: Put, follow: Follow) -> None:
    await put("a")
    with pytest.raises(HistoryChanged, match="ends at 1, 2 was applied"):
        await follow(log, after=2).ended()


async def test_a_purge_is_the_same_history(log: Log, put: Put, follow: Follow) -> None:
    for number in range(5):
        await put(f"n{number}")
    reading = follow(log)
    await reading.until(lambda: reading.reader.position == 5)
    await log.connection.api(f"STREAM.PURGE.{log.name}")
    break_connection(log)
    await reading.until(lambda: reading.reader.restarts == 1 and log.connection.connected)
    last = await put("next")
    assert last == 6
    await reading.until(lambda: reading.reader.position == 6)
    assert reading.sequences == [1, 2, 3, 4, 5, 6]


async def test_a_superseded_position_is_the_same_history(
    log: Log, put: Put, connecting: Callable[[], Awaitable[Connection]], follow: Follow
) -> None:
    await put("a")
    records: list[Record] = []
    other = await open_log(await connecting())
    reader = Reader(other, records.append, stop_when_caught_up=True)
    await reader.run()
    await put("a")
    await put("b")
    await forget_events(log, 2)
    assert await log.message_time(1) is None
    going_on = asyncio.create_task(reader.run())
    async with asyncio.timeout(PATIENCE):
        while reader.position < 3 and not going_on.done():
            await asyncio.sleep(0.01)
    going_on.cancel()
    assert [record.sequence for record in records] == [1, 2, 3]


class Backup:
    """Copies of the broker's files: taken, and put back in their place."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        self._broker = broker
        self._files = broker.data / "nats" / "jetstream"
        self._copy: Path = broker.data / "copy"

    async def take(self) -> None:
        await self._broker.stop()
        shutil.copytree(self._files, self._copy)
        await self._broker.start()

    async def restore(self) -> None:
        await self._broker.stop()
        shutil.rmtree(self._files)
        shutil.copytree(self._copy, self._files)
        await self._broker.start()


async def settled(log: Log) -> None:
    """Returns once the log answers again."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await log.state()
            except Exception:  # noqa: BLE001 - any kind of not yet
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_log_restored_from_an_older_copy_is_another_history(
    log: Log, put: Put, broker: EmbeddedBroker, follow: Follow
) -> None:
    backup = Backup(broker)
    for number in range(3):
        await put(f"n{number}")
    await backup.take()
    await settled(log)
    for number in range(3):
        await put(f"m{number}")
    reading = follow(log)
    await reading.until(lambda: reading.reader.position == 6)
    await backup.restore()
    with pytest.raises(HistoryChanged, match="ends at 3, 6 was applied"):
        await reading.ended()


async def test_a_restored_log_that_went_on_differently_is_another_history(
    log: Log, put: Put, broker: EmbeddedBroker, connecting: Callable[[], Awaitable[Connection]]
) -> None:
    """It is as long as before when the reader comes back, but the message at the reader's position is another."""
    backup = Backup(broker)
    await put("n")
    await backup.take()
    await settled(log)
    for number in range(3):
        await put(f"m{number}")
    records: list[Record] = []
    reader = Reader(log, records.append, stop_when_caught_up=True)
    await reader.run()
    assert reader.position == 4
    await backup.restore()
    await settled(log)
    for number in range(5):
        await put(f"k{number}")
    with pytest.raises(HistoryChanged, match="message 4 is not the one that was applied"):
        await reader.run()
    assert len(records) == 4


async def test_a_restored_log_whose_message_at_the_position_was_superseded_is_another_history(
    log: Log, put: Put, broker: EmbeddedBroker
) -> None:
    """What is left of the sequences the reader knows is younger than what it applied there."""
    backup = Backup(broker)
    await put("n")
    await backup.take()
    await settled(log)
    for number in range(3):
        await put(f"m{number}")
    reader = Reader(log, lambda record: None, stop_when_caught_up=True)
    await reader.run()
    assert reader.position == 4
    await backup.restore()
    await settled(log)
    for name in ("k0", "k1", "k2", "k2", "k3"):
        await put(name)
    await forget_events(log, 5)
    assert await log.message_time(4) is None
    going_on = asyncio.create_task(reader.run())
    async with asyncio.timeout(PATIENCE):
        while reader.position < 6 and not going_on.done():
            await asyncio.sleep(0.01)
    if not going_on.done():
        going_on.cancel()
    with pytest.raises(HistoryChanged):
        await going_on


def tamper(log: Log, monkeypatch: pytest.MonkeyPatch, way: Callable[..., Awaitable[None] | None]) -> None:
    """Has what comes to the log's receivers go through `way`, which is given the receiver and the message."""
    receive = log.connection.client.receive

    async def receive_tampered(subject: str, receiver: Receiver) -> Any:
        return await receive(subject, partial(way, receiver))

    monkeypatch.setattr(log.connection.client, "receive", receive_tampered)


async def test_nothing_pending_is_no_end_while_there_is_more(
    log: Log, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nats-server counts where messages are deleted while it is read: 0 before the last one was sent."""
    for number in range(5):
        await put(f"n{number}")

    def miscount(receiver: Receiver, subject: bytes, reply: bytes, block: bytes, data: bytes) -> Awaitable[None] | None:
        head, _, pending = reply.rpartition(b".")
        if pending == b"1" and reply.startswith(b"$JS.ACK."):
            return receiver(subject, head + b".0", block, data)
        if pending == b"0" and reply.startswith(b"$JS.ACK."):

            async def later() -> None:
                await asyncio.sleep(0.2)
                receiver(subject, reply, block, data)

            return later()
        return receiver(subject, reply, block, data)

    tamper(log, monkeypatch, miscount)
    for subjects in ((), (object_filter("alpha", "", "pods"),)):
        records: list[Record] = []
        async with asyncio.timeout(PATIENCE):
            assert await read_to_end(log, records.append, subjects=subjects) == 5
        assert [record.sequence for record in records] == [1, 2, 3, 4, 5]


async def test_what_is_there_and_does_not_come_is_asked_for_anew(
    log: Log, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await put(f"n{number}")
    lost = 0

    def lose(receiver: Receiver, subject: bytes, reply: bytes, block: bytes, data: bytes) -> Awaitable[None] | None:
        nonlocal lost
        head, _, pending = reply.rpartition(b".")
        if lost < 2 and reply.startswith(b"$JS.ACK.") and pending == b"1":
            return receiver(subject, head + b".0", block, data)
        if lost < 2 and (pending == b"0" or b"Nats-Last-Consumer" in block):
            # As if the server had sent nothing, and took it for all that there is.
            lost += pending == b"0"
            return None
        return receiver(subject, reply, block, data)

    tamper(log, monkeypatch, lose)
    records: list[Record] = []
    reader = Reader(log, records.append, stop_when_caught_up=True, timing=LogTiming(heartbeat=0.2, silence=1.0))
    async with asyncio.timeout(PATIENCE):
        await reader.run()
    assert [record.sequence for record in records] == [1, 2, 3, 4, 5]
    assert reader.restarts
