"""Deletions that are forgotten for the sake of room: decided once, written down, taken out, and never missed."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from deltalog import DELETED, Connection, Forgotten, Log, LogSettings, Reader, open_log, subscribe
from deltalog.forgetting import Purging, decide
from deltalog.history import History, Mark
from deltalog.reader import StateIncomplete
from deltalog.timing import LogTiming
from deltalog.wire.forgotten import FORGOTTEN_SUBJECT, MARKER_HEADER, forgotten_headers, forgotten_through
from tests.ageing import forget_events, state_at
from tests.patience import PATIENCE, eventually

AT_ONCE = LogTiming(purge_after=0.0, purge_others=0.01)
Put = Callable[..., Awaitable[int]]


async def subjects(log: Log) -> int:
    """How many the state has."""
    state = await log.find_state()
    assert state is not None
    return (await state.state()).subjects


async def deleted(log: Log, put: Put, *names: str) -> list[int]:
    """Objects that came and went; the sequences of their tombstones, which the state has."""
    for name in names:
        await put(name)
    sequences = [await put(name, type=DELETED, final=False) for name in names]
    await state_at(log, sequences[-1])
    return sequences


@asynccontextmanager
async def purging(log: Log, timing: LogTiming = AT_ONCE) -> AsyncIterator[Purging]:
    """Runs all the while."""
    made = Purging(log, timing)
    task = asyncio.create_task(made.run())
    try:
        yield made
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("headers", "through"),
    [
        ({}, 0),
        ({MARKER_HEADER: "MaxAge"}, 0),
        ({"Kb-Forgotten": "x"}, 0),
        ({"Kb-Forgotten": "-4"}, 0),
        ({"Kb-Forgotten": "9" * 30}, 0),
        (forgotten_headers(4711), 4711),
    ],
)
def test_what_the_record_says(headers: dict[str, str], through: int) -> None:
    assert forgotten_through(headers) == through


async def test_it_is_decided_once(
    log: Log, put: Put, connecting: Callable[[], Awaitable[Connection]], follow: Callable[..., Any]
) -> None:
    """By several at the same time, who all mean to; and it only ever grows."""
    sequences = await deleted(log, put, *"abcd")
    assert await log.forgotten_through() == 0
    others = [await open_log(await connecting()) for _ in range(3)]
    decided = await asyncio.gather(*(decide(one, History(one), sequences[1]) for one in (log, *others)))
    assert sorted(decided) == [False, False, False, True]
    assert not await decide(log, History(log), sequences[0])
    assert await decide(others[0], History(others[0]), sequences[2])
    assert await log.forgotten_through() == sequences[2]
    # Readers come to the record in its place, behind all that it speaks of.
    following = follow(log, stop_when_caught_up=True)
    await following.ended()
    told = [forgotten_through(one.headers) for one in following.records if one.subject == FORGOTTEN_SUBJECT]
    assert told == [sequences[1], sequences[2]]
    assert all(not one.data and MARKER_HEADER in one.headers for one in following.records[-2:])


async def test_it_is_known_when_the_events_have_forgotten_the_record(log: Log, put: Put) -> None:
    sequences = await deleted(log, put, *"abc")
    await decide(log, History(log), sequences[0])
    await put("e")
    await state_at(log, await log.head())
    await forget_events(log, await log.head())
    assert await log.forgotten_through() == sequences[0]
    assert await decide(log, History(log), sequences[1])
    assert await log.forgotten_through() == sequences[1]


async def test_the_mark_says_so_too(log: Log, put: Put) -> None:
    """To instances of releases that do not know the record: they take their floor from it."""
    history = History(log)
    sequences = await deleted(log, put, *"ab")
    created, prefix = log.identity
    await history.mark(Mark(created=created, prefix=prefix, index=sequences[1], time=0, latest=0, floor=1))
    await decide(log, history, sequences[0])
    assert [mark.floor for mark in await history.marks()] == [sequences[0]]
    await history.raise_floor(1)
    assert [(mark.floor, mark.index) for mark in await history.marks()] == [(sequences[0], sequences[1])]


async def test_forgotten_deletions_leave_the_state_and_nothing_else(log: Log, put: Put) -> None:
    await put("lives")
    sequences = await deleted(log, put, *(f"n{number}" for number in range(200)))
    await decide(log, History(log), sequences[149])
    async with purging(log) as purge:
        purge.decided(sequences[149])
        purge.add(array("Q", sequences[:150]), sequences[149])
        await eventually(lambda: purge.purged == 150 and not len(purge))
    # What lives, 50 tombstones and the record.
    assert await subjects(log) == 52
    state = await log.find_state()
    assert state is not None
    assert await state.message_time(sequences[149]) is None
    assert await state.message_time(sequences[150]) is not None
    assert (await log.events.state()).messages == 402, "the events keep theirs for the window"


async def test_who_decided_may_die_before_the_purge(log: Log, put: Put) -> None:
    sequences = await deleted(log, put, *"abcdef")
    await decide(log, History(log), sequences[3])
    async with purging(log) as other:
        other.add(array("Q", sequences[:4]), sequences[3])
        await eventually(lambda: other.purged == 4)
        # Whoever comes later finds that it was done.
        other.add(array("Q", sequences[:4]), sequences[3])
        await eventually(lambda: not len(other))
        assert other.purged == 4
    assert await subjects(log) == 3


async def test_what_was_half_done_is_finished(log: Log, put: Put) -> None:
    """The oldest go first, so that one of the newest tells whether all have gone."""
    sequences = await deleted(log, put, *(f"n{number}" for number in range(100)))
    await decide(log, History(log), sequences[-1])
    state = await log.find_state()
    assert state is not None
    for sequence in sequences[:60]:
        assert await state.delete_message(sequence)
    assert not await state.delete_message(sequences[0])
    async with purging(log) as other:
        other.add(array("Q", sequences), sequences[-1])
        await eventually(lambda: other.purged == 40)


# -- who reads ---------------------------------------------------------------------------------------------------------


async def read_after(log: Log, sequence: int, **options: Any) -> list[int]:
    """What a reader reads that has applied everything up to a sequence."""
    sequences: list[int] = []
    reader = Reader(
        log, lambda record: sequences.append(record.sequence), after=sequence, stop_when_caught_up=True, **options
    )
    async with asyncio.timeout(PATIENCE):
        await reader.run()
    return sequences


@pytest.fixture
async def forgetful(log: Log, put: Put) -> list[int]:
    """A log that has forgotten the second of four deletions, and all events before the last one."""
    sequences = await deleted(log, put, *"abcd")
    await decide(log, History(log), sequences[1])
    await put("e")
    await state_at(log, await log.head())
    state = await log.find_state()
    assert state is not None
    for sequence in sequences[:2]:
        await state.delete_message(sequence)
    await forget_events(log, await log.head())
    return sequences


async def test_who_has_not_read_so_far_reads_anew(log: Log, forgetful: list[int]) -> None:
    with pytest.raises(StateIncomplete, match=f"up to {forgetful[1]} were forgotten, {forgetful[1] - 1} was applied"):
        await read_after(log, forgetful[1] - 1)
    assert await read_after(log, forgetful[1]) == [*forgetful[2:], forgetful[-1] + 1, forgetful[-1] + 2]
    # Who begins, or remembers nothing from before, misses nothing.
    assert await read_after(log, 0) == [*forgetful[2:], forgetful[-1] + 1, forgetful[-1] + 2]
    assert await read_after(log, forgetful[1] - 1, fresh=True)


async def test_a_consumer_that_has_not_read_so_far_is_told(log: Log, forgetful: list[int]) -> None:
    with pytest.raises(Forgotten, match="drop what does not come"):
        async with subscribe(log, start=forgetful[1] - 1):
            pass
    for start, fresh in ((forgetful[1], False), (forgetful[1] - 1, True)):
        async with asyncio.timeout(PATIENCE), subscribe(log, start=start, fresh=fresh) as subscription:
            assert (await anext(subscription)).sequence == forgetful[2]


async def test_what_the_events_still_have_is_not_missed(log: Log, put: Put) -> None:
    """The window is not touched: who stands in it reads every event, deletions too."""
    sequences = await deleted(log, put, *"abcd")
    await decide(log, History(log), sequences[1])
    state = await log.find_state()
    assert state is not None
    for sequence in sequences[:2]:
        await state.delete_message(sequence)
    assert await read_after(log, 4) == [*sequences, sequences[-1] + 1]
    async with asyncio.timeout(PATIENCE), subscribe(log, start=sequences[0] - 1) as subscription:
        assert (await anext(subscription)).sequence == sequences[0]


async def test_a_log_that_keeps_no_events(connection: Connection, put: Put, log: Log) -> None:
    """A shard's log beside another one: the record is its own."""
    shard = await open_log(connection, LogSettings(name="PODS", tombstone_ttl=60))
    assert await decide(shard, History(shard), 7)
    assert (await shard.forgotten_through(), await log.forgotten_through()) == (7, 0)


async def test_who_goes_on_with_the_state_knows_from_where(log: Log, put: Put, follow: Callable[..., Any]) -> None:
    """So that a record which comes while it reads tells it that deletions past that may be gone."""
    sequences = await deleted(log, put, *"abcd")
    await forget_events(log, sequences[-1])
    await put("e")
    seen: list[tuple[int, int]] = []
    reader = Reader(log, lambda record: seen.append((record.sequence, reader.resumed_from)), after=sequences[1])
    task = asyncio.create_task(reader.run())
    await eventually(lambda: len(seen) == 3 and not reader.resumed_from)
    assert [one[0] for one in seen] == [*sequences[2:], sequences[-1] + 1]
    assert {one[1] for one in seen} == {sequences[1]}
    last = await put("f")
    await eventually(lambda: seen[-1] == (last, 0))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    # Who begins has nothing that may have been deleted meanwhile.
    beginning = follow(log, stop_when_caught_up=True)
    await beginning.ended()
    assert beginning.reader.resumed_from == 0
