"""Reading in two phases: every event as far as events reach back, before that the state, and never a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from deltalog import Appender, Connection, Log, LogSettings, Reader, open_log
from deltalog.jetstream.making import change_stream
from deltalog.jetstream.same_history import Progress
from deltalog.reader import WHOLE_STATE, read_to_end
from deltalog.timing import LogTiming
from deltalog.wire.subjects import object_filter, object_subject, type_prefix
from kubebraid.command.broker import EmbeddedBroker
from tests.ageing import forget_events, state_at
from tests.patience import PATIENCE, eventually

PODS = type_prefix("alpha", "", "v1", "pods")
Put = Callable[..., Awaitable[int]]
Follow = Callable[..., Any]


async def read(log: Log, **options: Any) -> tuple[Reader, list[int]]:
    """What a reader reads to the log's end, and the reader."""
    sequences: list[int] = []
    reader = Reader(log, lambda record: sequences.append(record.sequence), stop_when_caught_up=True, **options)
    async with asyncio.timeout(PATIENCE):
        await reader.run()
    return reader, sequences


async def several(put: Put) -> None:
    """Ten messages of three objects: the last ones of a, b and c are 7, 9 and 10."""
    for name in "abcabcabbc":
        await put(name)


async def test_every_event_is_read_live_and_from_before(log: Log, put: Put, follow: Follow) -> None:
    live = follow(log)
    for number in range(60):
        await put("a", member_version=str(number))
    await live.until(lambda: len(live.records) == 60)
    assert live.sequences == list(range(1, 61))
    reader, sequences = await read(log, after=20)
    assert sequences == list(range(21, 61))
    assert reader.compacted_through == live.reader.compacted_through == 0
    assert (await read(log))[1] == list(range(1, 61))


async def test_what_the_events_no_longer_have_the_state_has(log: Log, put: Put) -> None:
    await several(put)
    await forget_events(log, 8)
    told: list[tuple[int, int]] = []
    reader = Reader(
        log,
        lambda record: told.append((record.sequence, reader.compacted_through)),
        stop_when_caught_up=True,
    )
    await reader.run()
    assert told == [(7, 10), (9, 10), (10, 10)], "and that is known before the first one is applied"
    assert (reader.position, reader.pending) == (10, 0)
    assert reader.position_time == await log.message_time(10)


async def test_who_comes_back_after_the_window_reads_on_with_the_state(log: Log, put: Put, follow: Follow) -> None:
    await put("a")
    await put("b")
    reading = follow(log)
    await reading.until(lambda: reading.reader.position == 2)
    reading.reader.pause()
    log.connection._trouble()
    await reading.until(lambda: reading.reader.restarts == 1)
    for name in "aabbcc":
        await put(name)
    await forget_events(log, 5)
    reading.reader.resume()
    await reading.until(lambda: reading.reader.position == 8)
    assert reading.sequences == [1, 2, 4, 6, 8]
    assert reading.reader.compacted_through == 8
    await put("a")
    await put("a")
    await reading.until(lambda: reading.reader.position == 10)
    assert reading.sequences[-2:] == [9, 10]
    assert reading.reader.compacted_through == 8


async def test_the_state_up_to_a_sequence_then_every_event(log: Log, put: Put) -> None:
    await several(put)
    await state_at(log, 10)
    for start, expected in (
        (0, list(range(1, 11))),
        (8, [7, 9, 10]),
        (7, [7, 8, 9, 10]),
        (6, [7, 8, 9, 10]),
        (10, [7, 9, 10]),
        (WHOLE_STATE, [7, 9, 10]),
    ):
        reader, sequences = await read(log, state_to=start)
        assert sequences == expected, start
        assert reader.compacted_through == min(start, 10)


async def test_pending_is_not_0_while_events_are_to_come(log: Log, put: Put) -> None:
    await several(put)
    await state_at(log, 10)
    told: list[tuple[int, int]] = []
    reader = Reader(
        log, lambda record: told.append((record.sequence, reader.pending)), stop_when_caught_up=True, state_to=7
    )
    await reader.run()
    assert [sequence for sequence, _ in told] == [7, 8, 9, 10]
    assert [pending == 0 for _, pending in told] == [False, False, False, True]
    told.clear()
    reader = Reader(
        log, lambda record: told.append((record.sequence, reader.pending)), stop_when_caught_up=True, state_to=10
    )
    await reader.run()
    assert told[-1] == (10, 0), "nothing lay behind it"


async def test_a_hole_in_the_events_is_not_passed_over(log: Log, put: Put, follow: Follow) -> None:
    """Whatever took messages out, and wherever the reader is when it meets that: what they said is in the state."""
    await several(put)
    await state_at(log, 10)
    for sequence in (4, 9):
        await log.connection.api(f"STREAM.MSG.DELETE.{log.name}", {"seq": sequence})
    reading = follow(log)
    await reading.until(lambda: reading.reader.caught_up.is_set())
    assert reading.sequences == [1, 2, 3, 7, 9, 10]
    assert reading.reader.compacted_through == 10
    await put("d")
    await reading.until(lambda: reading.reader.position == 11)


async def test_owner_records_do_not_make_events_reach_back(connection: Connection, put: Put) -> None:
    """They never age, so the stream's first message says nothing of the others."""
    log = await open_log(connection, LogSettings(events=2))
    async with Appender.to(log) as appender:
        await appender.append_wait("kbc.alpha.owner", b"1", {"Nats-TTL": "never"})
        for name in ("a", "b", "a"):
            await put(name)
        async with asyncio.timeout(PATIENCE):
            while (await log.state()).messages > 1:
                await asyncio.sleep(0.1)
        state = await log.state()
        assert (state.first_sequence, state.last_sequence) == (1, 4)
        assert [await log.kept_until(sequence, state) > 0 for sequence in range(5)] == [False] * 4 + [True]
        reader, sequences = await read(log)
        assert sequences == [1, 3, 4]
        assert reader.compacted_through == 4
        await put("c")
        assert (await read(log, after=4))[1] == [5]
        # Deleted long ago, and still the fence.
        fence = {
            "Nats-Expected-Last-Subject-Sequence": "1",
            "Nats-Expected-Last-Subject-Sequence-Subject": "kbc.alpha.owner",
        }
        assert await appender.append_wait(object_subject(PODS, "x", "d"), b"x", fence) == 6


async def test_who_reads_some_subjects_slowly_loses_nothing(
    connection: Connection, put: Put, follow: Follow, connecting: Callable[[], Awaitable[Connection]]
) -> None:
    """Of some subjects only, no gap in the sequences shows that what was not read has aged away."""
    log = await open_log(connection, LogSettings(events=2))
    subjects = (object_filter("alpha"),)
    reading = follow(await open_log(await connecting()), subjects=subjects)
    await put("a")
    await reading.until(lambda: reading.reader.position == 1)
    reading.reader.pause()
    # More than is on the way to a reader that stands still.
    body = b"x" * 4_000_000
    last = {}
    for number in range(24):
        name = f"n{number % 5}"
        last[name] = await put(name, object=body)
    async with asyncio.timeout(PATIENCE):
        while (await log.state()).messages:
            await asyncio.sleep(0.1)
    last["z"] = await put("z")
    reading.reader.resume()
    await reading.until(lambda: reading.reader.position == last["z"])
    assert set(last.values()) <= set(reading.sequences)
    assert reading.sequences == sorted(set(reading.sequences))
    assert reading.reader.compacted_through


async def test_what_makes_room_is_not_lost(
    connection: Connection, put: Put, follow: Follow, connecting: Callable[[], Awaitable[Connection]]
) -> None:
    log = await open_log(connection, LogSettings(events_bytes=8_000_000))
    timing = LogTiming(silence=1.0, heartbeat=0.3)
    reading = follow(await open_log(await connecting()), subjects=(object_filter("alpha"),), timing=timing)
    await put("a")
    await reading.until(lambda: reading.reader.position == 1)
    reading.reader.pause()
    body = b"x" * 1_000_000
    last = {}
    for number in range(64):
        name = f"n{number % 5}"
        last[name] = await put(name, object=body)
    state = await log.state()
    assert state.first_sequence > 50
    reading.reader.resume()
    await reading.until(lambda: reading.reader.position == state.last_sequence)
    assert set(last.values()) <= set(reading.sequences)


async def test_quiet_subjects_keep_up_with_the_events(log: Log, put: Put, follow: Follow) -> None:
    """Nothing of them comes, all else ages away: a reader that begins again reads on with the events."""
    timing = LogTiming(silence=1.5, heartbeat=0.3)
    reading = follow(log, subjects=(object_filter("alpha", name="a"),), timing=timing)
    await put("a")
    for _ in range(5):
        await put("b")
    await reading.until(lambda: reading.reader._looked_to == 6)
    await forget_events(log, 6)
    reading.reader.log.connection._trouble()
    await reading.until(lambda: reading.reader.restarts == 1)
    await put("a")
    await put("a")
    await reading.until(lambda: reading.reader.position == 8)
    assert reading.sequences == [1, 7, 8]
    assert reading.reader.compacted_through == 0


async def test_events_serve_while_the_state_is_lost(log: Log, put: Put) -> None:
    await several(put)
    await log.connection.api(f"STREAM.DELETE.{log.name}_STATE")
    assert (await read(log))[1] == list(range(1, 11))
    assert (await read(log, state_to=8))[1] == list(range(1, 11))
    sequences: list[int] = []
    assert await read_to_end(log, lambda record: sequences.append(record.sequence)) == 10
    assert sequences == list(range(1, 11))
    found = await log.last(object_subject(PODS, "x", "a"))
    assert found is not None
    assert found[0] == 7


async def test_a_state_that_is_needed_is_waited_for(
    log: Log, put: Put, follow: Follow, connecting: Callable[[], Awaitable[Connection]]
) -> None:
    await several(put)
    await forget_events(log, 8)
    await log.connection.api(f"STREAM.DELETE.{log.name}_STATE")
    reading = follow(log)
    await reading.until(lambda: reading.outages == [True])
    assert not reading.records
    await open_log(await connecting())
    await reading.until(lambda: reading.reader.caught_up.is_set())
    assert reading.outages == [True, False]


async def test_what_was_acknowledged_just_now_is_read_back(log: Log, put: Put) -> None:
    """However far the state has come."""
    for number in range(30):
        last = await put(f"n{number % 3}")
        seen: list[int] = []
        assert await read_to_end(log, lambda record: seen.append(record.sequence)) == last  # noqa: B023
        assert seen[-1] == last
        assert seen == sorted(set(seen))


async def test_where_the_window_starts(connection: Connection, put: Put) -> None:
    log = await open_log(connection, LogSettings(events=3))
    assert await log.window_start(10_000) == 0
    for _ in range(20):
        await put("a", object=b"x" * 1000)
    state = await log.state()
    assert await log.window_start(state.bytes) == 0
    assert await log.window_start(state.bytes // 2) == 10
    assert await log.window_start(0) == 20
    async with asyncio.timeout(PATIENCE):
        while await log.events.first_since(log.now() - 2_250_000_000) is not None:
            await asyncio.sleep(0.05)
    assert await log.window_start(state.bytes) == 20, "soon they are gone"


async def test_a_log_without_a_window_says_what_it_may_lack(connection: Connection, put: Put) -> None:
    """As one of before is, to those that may not change it: where something is missing, it was superseded."""
    log = await open_log(connection)
    await change_stream(log, {"max_msgs_per_subject": 1, "max_age": 0}, {"kubebraid.io/events-from": "no"})
    log = await open_log(connection, make=False)
    assert log.window == 0
    await several(put)
    told: list[tuple[int, int]] = []
    reader = Reader(
        log, lambda record: told.append((record.sequence, reader.compacted_through)), stop_when_caught_up=True
    )
    await reader.run()
    assert told == [(7, 6), (9, 8), (10, 8)]


async def test_a_log_of_before_is_taken_over_under_load(
    connection: Connection, connecting: Callable[[], Awaitable[Connection]], follow: Follow
) -> None:
    """By several at once: nothing lost to those who read, and from a sequence on every message is kept."""
    old = {
        "name": "KUBEBRAID",
        "subjects": ["kb.>", "kbc.>", "kbp.>"],
        "storage": "file",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "duplicate_window": 100_000_000,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
        "metadata": {
            "kubebraid.io/prefix": "before",
            "kubebraid.io/format": "1",
            "kubebraid.io/tombstone-ttl": "86400",
        },
    }
    await connection.api("STREAM.CREATE.KUBEBRAID", old)
    held: dict[str, int] = {}
    going = True
    appender = Appender(connection)
    await appender.__aenter__()

    async def write() -> None:
        number = 0
        while going:
            number += 1
            name = object_subject(PODS, "x", f"n{number % 40}")
            held[name] = await appender.append_wait(name, b"%d" % number)

    for number in range(300):
        name = object_subject(PODS, "x", f"old{number}")
        held[name] = await appender.append_wait(name, b"x")
    reading = follow(await open_log(connection, make=False))
    writing = asyncio.create_task(write())
    logs = await asyncio.gather(*[open_log(await connecting()) for _ in range(4)])
    await asyncio.sleep(0.3)
    going = False
    await writing
    assert {(log.prefix, log.window > 0) for log in logs} == {("before", True)}
    log = await open_log(connection, make=False)
    head = await log.head()
    # Each says where it saw that all is kept; whichever was written last holds.
    assert log.events_from in {one.events_from for one in logs} - {0}
    await reading.until(lambda: reading.reader.position == head)
    assert set(held.values()) <= set(reading.sequences)
    # Past what is said every message is there.
    exact = (await read(log, after=log.events_from))[1]
    assert exact == list(range(log.events_from + 1, head + 1))
    await forget_events(log, head)
    reader, sequences = await read(log)
    assert sorted(held.values()) == sequences
    assert reader.compacted_through == head


async def test_no_gap_over_a_killed_server(
    log: Log, put: Put, follow: Follow, broker: EmbeddedBroker, kill: Callable[[], Awaitable[None]]
) -> None:
    reading = follow(log)
    sequences = []
    for round_ in range(3):
        sequences += [await put("a", member_version=str(number)) for number in range(20)]
        await kill()
        await broker.start()
        await eventually(lambda: log.connection.connected)
        assert round_ < 3
    sequences.append(await put("a"))
    await reading.until(lambda: reading.reader.position == sequences[-1])
    assert reading.sequences == sequences == list(range(1, 62))
    assert reading.reader.compacted_through == 0


async def test_another_history_is_noticed_without_its_events(log: Log, put: Put) -> None:
    await several(put)
    await forget_events(log, 10)
    time = await log.message_time(10)
    assert time is not None
    assert (await read(log, after=Progress(10, time, time)))[1] == []
    stale = Reader(log, lambda record: None, after=Progress(9, 5, 5), stop_when_caught_up=True)
    with pytest.raises(Exception, match="message 9 is not the one that was applied"):
        await stale.run()
