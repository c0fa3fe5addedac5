"""Appending: order, window, conflicts, and what a server does that stands still, dies or knows no stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from deltalog import Appender, AppendError, AppendTimeout, Conflict, Connection, Expect, Log
from deltalog.reader import read_to_end
from deltalog.wire.subjects import control_subject, object_subject, type_prefix
from kubebraid.command.broker import EmbeddedBroker
from tests.ageing import state_at
from tests.patience import PATIENCE

PODS = type_prefix("alpha", "", "v1", "pods")
Fate = tuple[int, AppendError | None]


@pytest.fixture(params=[True, False], ids=["fast", "public"])
def fast(request: pytest.FixtureRequest) -> bool:
    """All of this holds without nats-py's private names, too."""
    return bool(request.param)


def subject(name: str) -> str:
    return object_subject(PODS, "x", name)


class Fates:
    """What became of appends, in the order in which it became known."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int, AppendError | None]] = []

    def of(self, name: str) -> Callable[[int, AppendError | None], None]:
        return lambda sequence, error: self.heard.append((name, sequence, error))


async def contents(log: Log) -> list[tuple[str, bytes]]:
    """The last message of each subject, in their order."""
    await state_at(log, await log.head())
    found: list[tuple[str, bytes]] = []
    await read_to_end(log, lambda record: found.append((record.subject.rpartition(".")[2], record.data)))
    return found


async def test_messages_are_stored_in_the_order_they_were_appended(log: Log, appender: Appender) -> None:
    fates = Fates()
    names = [str(number) for number in range(3000)]
    for name in names:
        await appender.append(subject(name), name.encode(), fates.of(name))
    async with asyncio.timeout(PATIENCE):
        await appender.drain()
    assert fates.heard == [(name, number + 1, None) for number, name in enumerate(names)]
    assert await contents(log) == [(name, name.encode()) for name in names]
    assert appender.outstanding == 0


async def test_no_more_is_outstanding_than_the_window(log: Log) -> None:
    most = 0
    fates = Fates()
    async with Appender(log.connection, window=5) as appender:
        for number in range(200):
            await appender.append(subject(str(number)), b"", fates.of(str(number)))
            most = max(most, appender.outstanding)
        async with asyncio.timeout(PATIENCE):
            await appender.drain()
    assert most == 5
    assert [sequence for _, sequence, _ in fates.heard] == list(range(1, 201))


async def test_bytes_bound_the_window_too(log: Log, halted: Callable[[], AbstractAsyncContextManager[None]]) -> None:
    fates = Fates()
    async with Appender(log.connection, window=1000, window_bytes=1000, deadline=PATIENCE) as appender:
        async with halted():
            for number in range(4):
                await appender.append(subject(str(number)), bytes(250), fates.of(str(number)))
            waiting = asyncio.create_task(appender.append(subject("late"), b"", fates.of("late")))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            assert appender.outstanding == 4
        async with asyncio.timeout(PATIENCE):
            await waiting
            await appender.drain()
    assert [(name, error) for name, _, error in fates.heard] == [(n, None) for n in ("0", "1", "2", "3", "late")]


async def test_a_wrong_expectation_of_the_own_subject_is_a_conflict(log: Log, appender: Appender) -> None:
    first = await appender.append_wait(subject("a"), b"1", Expect(0).headers())
    with pytest.raises(Conflict):
        await appender.append_wait(subject("a"), b"not first", Expect(0).headers())
    with pytest.raises(Conflict):
        await appender.append_wait(subject("a"), b"not next", Expect(first + 1).headers())
    assert await contents(log) == [("a", b"1")]
    second = await appender.append_wait(subject("a"), b"2", Expect(first).headers())
    assert await log.last(subject("a")) == (second, b"2")
    assert appender.outstanding == 0


async def test_a_deposed_owner_is_fenced(
    log: Log, appender: Appender, connecting: Callable[[], Awaitable[Connection]]
) -> None:
    record = control_subject("alpha", "owner")
    mine = await appender.append_wait(record, b"epoch 1", Expect(0).headers())
    fence = Expect(mine, record).headers()
    await appender.append_wait(subject("a"), b"mine", fence)
    async with Appender(await connecting()) as successor:
        theirs = await successor.append_wait(record, b"epoch 2", Expect(mine).headers())
        fates = Fates()
        for number in range(20):
            # Those of the deposed owner fall between those of its successor.
            await appender.append(subject("a"), b"stale", fates.of("deposed"), fence)
            await successor.append(subject("b"), b"%d" % number, fates.of("owner"), Expect(theirs, record).headers())
        async with asyncio.timeout(PATIENCE):
            await appender.drain()
            await successor.drain()
    assert [type(error) for name, _, error in fates.heard if name == "deposed"] == [Conflict] * 20
    assert [error for name, _, error in fates.heard if name == "owner"] == [None] * 20
    assert await contents(log) == [("a", b"mine"), ("owner", b"epoch 2"), ("b", b"19")]


async def test_a_silent_server_ends_appends_by_their_deadline(
    log: Log, halted: Callable[[], AbstractAsyncContextManager[None]]
) -> None:
    fates = Fates()
    async with Appender(log.connection, window=10, deadline=0.3) as appender:
        await appender.append_wait(subject("before"), b"")
        async with halted():
            for number in range(10):
                await appender.append(subject(str(number)), b"", fates.of(str(number)))
            async with asyncio.timeout(PATIENCE):
                await appender.drain()
            assert [name for name, _, _ in fates.heard] == [str(number) for number in range(10)]
            assert all(type(error) is AppendTimeout and sequence == 0 for _, sequence, error in fates.heard)
            assert appender.outstanding == 0
            with pytest.raises(AppendTimeout):
                await appender.append_wait(subject("again"), b"")
    # The same connection, and room for everything: nothing of the window has leaked.
    async with Appender(log.connection, window=10, deadline=PATIENCE) as appender:
        for number in range(50):
            await appender.append(subject(f"after-{number}"), b"", fates.of("after"))
        async with asyncio.timeout(PATIENCE):
            await appender.drain()
    assert [error for name, _, error in fates.heard if name == "after"] == [None] * 50


async def test_late_acknowledgements_belong_to_nobody(
    log: Log, halted: Callable[[], AbstractAsyncContextManager[None]]
) -> None:
    """One appender over a standstill: what was told to have failed is told nothing else, and the window is whole."""
    fates = Fates()
    async with Appender(log.connection, window=4, deadline=1.0) as appender:
        async with halted():
            for number in range(4):
                await appender.append(subject(str(number)), b"", fates.of("during"))
            async with asyncio.timeout(PATIENCE):
                await appender.drain()
        assert [type(error) for _, _, error in fates.heard] == [AppendTimeout] * 4
        stored = await appender.append_wait(subject("after"), b"")
        # The acknowledgements of the others came before this one.
        assert stored == 5
        assert len(fates.heard) == 4
        for number in range(20):
            await appender.append_wait(subject(f"more-{number}"), b"")
        assert appender.outstanding == 0


async def test_appends_work_again_after_the_server_was_killed(
    log: Log, broker: EmbeddedBroker, kill: Callable[[], Awaitable[None]]
) -> None:
    fates = Fates()
    async with Appender(log.connection, window=8, deadline=1.0) as appender:
        kept = await appender.append_wait(subject("kept"), b"")
        await kill()
        for number in range(8):
            await appender.append(subject(f"lost-{number}"), b"", fates.of("lost"))
        async with asyncio.timeout(PATIENCE):
            await appender.drain()
        assert [type(error) for _, _, error in fates.heard] == [AppendTimeout] * 8
        await broker.start()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    again = await appender.append_wait(subject("again"), b"")
                    break
                except AppendError:
                    continue
        assert again > kept
        for number in range(40):
            await appender.append(subject(f"after-{number}"), b"", fates.of("after"))
        async with asyncio.timeout(PATIENCE):
            await appender.drain()
    assert [error for name, _, error in fates.heard if name == "after"] == [None] * 40


async def test_without_a_stream_there_is_no_append(connection: Connection, log: Log) -> None:
    await connection.api(f"STREAM.DELETE.{log.name}")
    async with Appender(connection, deadline=PATIENCE) as appender:
        with pytest.raises(AppendError, match="no stream takes this subject") as raised:
            await appender.append_wait(subject("a"), b"")
        assert type(raised.value) is AppendError
        assert appender.outstanding == 0


async def test_a_payload_no_server_takes_is_refused_and_leaves_its_room(log: Log) -> None:
    fates = Fates()
    async with Appender(log.connection, window=1) as appender:
        for _ in range(2):
            with pytest.raises(AppendError, match=r"append to kb\.alpha"):
                await appender.append(subject("huge"), bytes(9 * 1024 * 1024), fates.of("huge"))
        assert appender.outstanding == 0
        assert await appender.append_wait(subject("small"), b"") == 1
    assert fates.heard == []


async def test_closing_tells_what_is_outstanding(
    log: Log, halted: Callable[[], AbstractAsyncContextManager[None]]
) -> None:
    fates = Fates()
    async with halted():
        async with Appender(log.connection, deadline=PATIENCE) as appender:
            await appender.append(subject("a"), b"", fates.of("a"))
        assert [(name, type(error)) for name, _, error in fates.heard] == [("a", AppendTimeout)]


async def test_an_append_on_a_closed_connection_fails(
    connecting: Callable[[], Awaitable[Connection]], log: Log
) -> None:
    connection = await connecting()
    async with Appender(connection) as appender:
        await connection.close()
        with pytest.raises(AppendError):
            await appender.append_wait(subject("a"), b"")
        assert appender.outstanding == 0


async def test_expectations_as_headers() -> None:
    assert Expect(7).headers() == {"Nats-Expected-Last-Subject-Sequence": "7"}
    assert Expect(7, "kbc.a.owner").headers() == {
        "Nats-Expected-Last-Subject-Sequence": "7",
        "Nats-Expected-Last-Subject-Sequence-Subject": "kbc.a.owner",
    }
