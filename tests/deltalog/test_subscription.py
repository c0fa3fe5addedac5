"""Subscriptions: what is shown from each start, by labels, durably; and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

import deltalog
from deltalog import (
    DELETED,
    MODIFIED,
    Appender,
    BadDurable,
    BadPlace,
    BadSelection,
    Bookmark,
    Change,
    Connection,
    Event,
    Forgotten,
    HistoryChanged,
    Log,
    LogError,
    LogSettings,
    LogTiming,
    Place,
    Removed,
    StreamGone,
    Subscription,
    TakenOver,
    UnreadableRecord,
    encode_delta,
    open_log,
)
from deltalog.history import History
from deltalog.place import parse_place
from deltalog.wire.delta import UNCHANGED, Selectables
from deltalog.wire.parts import fit, part_subject
from deltalog.wire.selection import select
from deltalog.wire.subjects import control_subject, object_subject, type_prefix
from deltalog.wire.summary import summary_headers
from kubebraid.command.broker import EmbeddedBroker
from tests.ageing import cut, forget_events, state_at
from tests.patience import PATIENCE, eventually

Put = Callable[..., Awaitable[int]]
QUICK = LogTiming(look_every=0.1)
subscribe = functools.partial(deltalog.subscribe, timing=QUICK)


@pytest.fixture
def place(appender: Appender, delta: Callable[..., Any]) -> Put:
    """Appends one delta anywhere; returns its sequence."""

    async def append(name: str = "n", **given: Any) -> int:
        made = delta(name, **given)
        prefix = type_prefix(made.cluster, made.group, made.version, made.resource)
        subject = object_subject(prefix, made.namespace, name)
        return await appender.append_wait(subject, encode_delta(made), summary_headers(made))

    return append


@pytest.fixture
def tell(appender: Appender) -> Put:
    """Appends one control record; returns its sequence."""

    async def append(record: str, cluster: str = "alpha", group: str = "", resource: str = "", **data: Any) -> int:
        made = {"v": 1, "record": record, "cluster": cluster, "group": group, "resource": resource, "data": data}
        payload = msgspec.msgpack.encode({**made, "time": 1, "producer": "p", "epoch": 1})
        return await appender.append_wait(control_subject(cluster, record, group, resource), payload)

    return append


async def following(opened: Subscription) -> Event:
    async with asyncio.timeout(PATIENCE):
        return await anext(opened)


async def take(opened: Subscription, count: int) -> list[Change]:
    found = []
    for _ in range(count):
        event = await following(opened)
        assert isinstance(event, Change), event
        found.append(event)
    return found


def told(events: Sequence[Event]) -> list[tuple[int, str, str]]:
    found = []
    for event in events:
        assert isinstance(event, Change), event
        found.append((event.sequence, event.type, event.delta.name))
    return found


async def until_caught_up(opened: Subscription) -> list[Event]:
    found: list[Event] = []
    while True:
        event = await following(opened)
        if isinstance(event, Bookmark) and event.caught_up:
            return found
        found.append(event)


# -- where it begins ---------------------------------------------------------------------------------------------------


async def test_from_the_beginning_and_on(log: Log, put: Put) -> None:
    for name in "abc":
        await put(name)
    await put("a", type=MODIFIED, uid_index=1, member_version="2")
    await state_at(log, 4)
    async with subscribe(log, start="beginning", bookmarks=True) as opened:
        changes = await until_caught_up(opened)
        # What is there comes, and not how it came to be: the first state of `a` is not shown, so that is ADDED.
        assert told(changes) == [(2, "ADDED", "b"), (3, "ADDED", "c"), (4, "ADDED", "a")]
        assert opened.compacted_through == 4
        await put("a", type=MODIFIED, uid_index=1, member_version="3")
        await put("b", type=DELETED, uid_index=2, member_version="4")
        await put("b", uid="another")
        assert told(await take(opened, 3)) == [(5, "MODIFIED", "a"), (6, "DELETED", "b"), (7, "ADDED", "b")]
        assert str(opened.place).startswith(f"{log.prefix}.7@")


async def test_an_object_modified_before_it_was_read_is_added_once(log: Log, put: Put) -> None:
    """While a subscription is behind, it remembers what it has shown."""
    for number in range(50):
        await put(f"n{number}")
    async with subscribe(log, start="beginning") as opened:
        first = await take(opened, 50)
        await put("n0", type=MODIFIED, uid_index=1, member_version="2")
        await put("late")
        await put("late", type=MODIFIED, uid_index=52, member_version="2")
        assert {change.type for change in first} == {"ADDED"}
        assert (await take(opened, 1))[0].type == "MODIFIED"
        rest = [await take(opened, 1)]
        while rest[-1][0].sequence < 53:
            rest.append(await take(opened, 1))
        assert rest[0][0].type == "ADDED"
        assert [one[0].type for one in rest[1:]] == ["MODIFIED"] * (len(rest) - 1)


async def test_from_now(log: Log, put: Put) -> None:
    await put("a")
    async with subscribe(log) as opened:
        await put("a", type=MODIFIED, uid_index=1, member_version="2")
        await put("b")
        assert told(await take(opened, 2)) == [(2, "MODIFIED", "a"), (3, "ADDED", "b")]


async def test_from_an_index_a_version_and_a_place(log: Log, put: Put) -> None:
    for name in "abcd":
        await put(name)
    await put("a", type=MODIFIED, uid_index=1, member_version="2")
    stored = await log.message_time(3)
    for start in (3, "3", f"{log.prefix}.3", f"{log.prefix}.3.1", f"{log.prefix}.3@{stored}", Place(log.prefix, 3)):
        async with subscribe(log, start=start) as opened:
            assert told(await take(opened, 2)) == [(4, "ADDED", "d"), (5, "MODIFIED", "a")]


async def test_from_a_time(log: Log, put: Put) -> None:
    await put("a")
    await put("b")
    stored = await log.message_time(2)
    assert stored is not None
    async with subscribe(log, start=datetime.fromtimestamp(stored // 1000 / 1e6, UTC)) as opened:
        found = await take(opened, 1)
        assert told(found)[0][2] in ("a", "b")
    async with subscribe(log, start=datetime(2100, 1, 1, tzinfo=UTC)) as opened:
        await put("c")
        assert told(await take(opened, 1)) == [(3, "ADDED", "c")]


@pytest.mark.parametrize("start", ["yesterday", "", "-3", "a.b", -1, str(2**70), datetime(2026, 1, 1), "x.1.2@y"])
async def test_a_start_that_is_none(log: Log, start: Any) -> None:
    with pytest.raises(BadPlace):
        async with subscribe(log, start=start):
            pass


async def test_another_history(log: Log, put: Put) -> None:
    await put("a")
    await put("b")
    for start in ("deadbeef.1", f"{log.prefix}.99", 99, f"{log.prefix}.1@17"):
        with pytest.raises(HistoryChanged, match=r"read from the beginning|applied"):
            async with subscribe(log, start=start):
                pass


async def test_deletions_that_may_be_forgotten(connection: Connection, delta: Callable[..., Any]) -> None:
    """A tombstone that has expired is missed by who was away; so the place is refused, unless it is young enough."""
    log = await open_log(connection, LogSettings(tombstone_ttl=2))
    async with Appender(connection) as appender:
        pods = type_prefix("alpha", "", "v1", "pods")

        async def put(name: str, **given: Any) -> int:
            return await appender.append_wait(object_subject(pods, "x", name), encode_delta(delta(name, **given)))

        await put("a")
        begin = await put("b")
        began = await log.message_time(begin)
        await put("a", type=DELETED, uid_index=1)
        await asyncio.sleep(2.5)
        head = await put("c")
        for start in (begin, f"{log.prefix}.{begin}@{began}"):
            with pytest.raises(Forgotten, match="drop what does not come"):
                async with subscribe(log, start=start):
                    pass
        for start in (head - 1, head, f"{log.prefix}.{begin}@{log.now()}"):
            with contextlib.suppress(HistoryChanged):
                async with subscribe(log, start=start):
                    pass


# -- what is selected --------------------------------------------------------------------------------------------------


async def test_what_subjects_express(log: Log, place: Put) -> None:
    await place("a")
    await place("b", cluster="bravo")
    await place("c", group="apps", resource="deployments")
    await place("d", namespace="y.z")
    await place("e", group="apps", resource="replicasets", cluster="bravo")
    await place("f", resource="nodes", namespace="")

    async def names(**selected: Any) -> str:
        async with subscribe(log, start="beginning", bookmarks=True, **selected) as opened:
            return "".join(event.delta.name for event in await until_caught_up(opened) if isinstance(event, Change))

    assert await names() == "abcdef"
    assert await names(cluster="bravo") == "be"
    assert await names(cluster=["bravo", "alpha", "none"], type="pods") == "abd"
    assert await names(type="deployments.apps") == "c"
    assert await names(type=["*.apps", "deployments.apps", "nodes"]) == "cef"
    assert await names(type="*.") == "abdf"
    assert await names(type=["*", "pods"]) == "abcdef"
    assert await names(namespace="y.z") == "d"
    assert await names(namespace="") == "f"
    assert await names(name=["a", "e"], namespace="x") == "ae"
    # More than a consumer should have filters for.
    many = [f"n{number}" for number in range(300)]
    assert await names(name=[*many, "a"], cluster=[*many[:50], "alpha"], namespace=["x", "y.z"]) == "a"


def test_selections_that_cannot_be() -> None:
    for selected in ({"type": "Pods!"}, {"labels": "a b"}, {"cluster": ""}, {"name": [""]}):
        with pytest.raises(BadSelection):
            subscribe("nats://127.0.0.1:1", **selected)
    assert str(select(cluster=["b", "a"], labels="x")) == str(select(cluster=["a", "b"], labels="x"))


async def test_labels_like_a_watch(log: Log, put: Put) -> None:
    web, other = {"app": "web"}, {"app": "other"}
    await put("in", labels=web)
    await put("out", labels=other)
    async with subscribe(log, labels="app=web", start="beginning", bookmarks=True) as opened:
        assert told(await until_caught_up(opened)) == [(1, "ADDED", "in")]
        await put("in", type=MODIFIED, uid_index=1, member_version="2", labels=web)
        await put("in", type=MODIFIED, uid_index=1, member_version="3", labels=other)
        await put("in", type=MODIFIED, uid_index=1, member_version="4", labels=other)
        await put("out", type=MODIFIED, uid_index=2, member_version="2", labels=web)
        await put("out", type=DELETED, uid_index=2, member_version="3", labels=web)
        await put("in", type=DELETED, uid_index=1, member_version="5", labels=other)
        await put("end", labels=web)
        found = await take(opened, 5)
        assert told(found) == [
            (3, "MODIFIED", "in"),
            (4, "DELETED", "in"),
            (6, "ADDED", "out"),
            (7, "DELETED", "out"),
            (9, "ADDED", "end"),
        ]
        assert [change.left for change in found] == [False, True, False, False, False]
        assert found[1].delta.labels == other


async def test_labels_from_now_know_what_was_selected(log: Log, put: Put) -> None:
    web, other = {"app": "web"}, {"app": "other"}
    await put("in", labels=web)
    await put("out", labels=other)
    async with subscribe(log, labels="app=web") as opened:
        await put("out", type=MODIFIED, uid_index=2, member_version="2", labels=other)
        await put("in", type=MODIFIED, uid_index=1, member_version="2", labels=other)
        assert told(await take(opened, 1)) == [(4, "DELETED", "in")]


async def test_labels_of_one_that_resumes(log: Log, put: Put) -> None:
    """What changed while it was away and doesn't match now may have matched: it is told so, once."""
    web, other = {"app": "web"}, {"app": "other"}
    await put("left", labels=web)
    await put("never", labels=other)
    await put("stays", labels=web)
    await put("gone", labels=web)
    await put("new", labels=web)
    resumed = 4
    await put("left", type=MODIFIED, uid_index=1, member_version="2", labels=other)
    await put("gone", type=DELETED, uid_index=4, member_version="2", labels=web)
    await put("never", type=MODIFIED, uid_index=2, member_version="2", labels=other)
    async with subscribe(log, labels="app=web", start=resumed) as opened:
        await put("never", type=MODIFIED, uid_index=2, member_version="3", labels=other)
        await put("stays", type=MODIFIED, uid_index=3, member_version="2", labels=web)
        found = [(change.type, change.delta.name) for change in await take(opened, 5)]
    assert found == [
        ("ADDED", "new"),
        ("DELETED", "left"),
        ("DELETED", "gone"),
        ("DELETED", "never"),
        ("MODIFIED", "stays"),
    ] or found == [
        # The newer state of `never` came before the older one was read.
        ("ADDED", "new"),
        ("DELETED", "left"),
        ("DELETED", "gone"),
        ("MODIFIED", "stays"),
        ("DELETED", "never"),
    ]


async def test_removals(log: Log, place: Put, tell: Put) -> None:
    await place("a", labels={"app": "web"})
    async with subscribe(log, type="pods", labels="app", start="beginning") as opened:
        await take(opened, 1)
        await tell("removed", resource="nodes")
        await tell("removed", cluster="bravo")
        await tell("removed", resource="pods")
        removed = await following(opened)
        assert isinstance(removed, Removed)
        assert (removed.cluster, removed.resource) == ("bravo", "")
        removed = await following(opened)
        assert isinstance(removed, Removed)
        assert (removed.sequence, removed.cluster, removed.resource) == (4, "alpha", "pods")
        # It is no longer shown, so this says nothing.
        await place("a", type=MODIFIED, uid_index=1, member_version="2")
        await place("a", type=MODIFIED, uid_index=1, member_version="3", labels={"app": "web"})
        assert told(await take(opened, 1)) == [(6, "ADDED", "a")]


# -- what is handed out ------------------------------------------------------------------------------------------------


async def test_objects_with_their_version(log: Log, put: Put) -> None:
    await put("n")
    async with subscribe(log, start="beginning") as opened:
        (change,) = await take(opened, 1)
    assert change.object["metadata"] == {"resourceVersion": f"{log.prefix}.1.1", "name": "n"}
    assert change.version == change.object["metadata"]["resourceVersion"]
    assert parse_place(str(change.place)) == change.place
    assert change.time == await log.message_time(1)
    assert not change.supersedes("u", "1")
    assert change.supersedes("u", "0")
    assert change.supersedes("another", "1")


async def test_large_objects_are_whole(log: Log, appender: Appender, delta: Callable[..., Any], put: Put) -> None:
    """Compressed, and in parts; also for who begins between the parts and the object's message."""
    import random

    chance = random.Random(1)
    head = b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"n"},"spec":{"x":"'
    subject = object_subject(type_prefix("alpha", "", "v1", "pods"), "x", "large")
    limit = 20_000
    for body in (head + b"a" * 100_000 + b'"}}', head + chance.randbytes(60_000).hex().encode() + b'"}}'):
        made, payload, parts = fit(delta("large", object=body, member_version=str(len(body))), limit)
        sequences = [
            await appender.append_wait(part_subject(subject, made.member_version, number), part)
            for number, part in enumerate(parts)
        ]
        between = await put("between")
        if parts:
            made = msgspec.structs.replace(made, parts=tuple(sequences))
            payload = encode_delta(made)
        at = await appender.append_wait(subject, payload, summary_headers(made))
        for start in (between, at - 1):
            async with subscribe(log, start=start, name="large") as opened:
                (change,) = await take(opened, 1)
            assert change.sequence == at
            assert change.delta.object == body
            assert json.loads(change.body)["spec"]["x"]
    assert parts
    await cut(log, part_subject(subject, made.member_version, 1), 2**60)
    async with subscribe(log, start=at - 1, name="large") as opened:
        with pytest.raises(UnreadableRecord, match=f"message {at} .* part"):
            await following(opened)
        await put("large", member_version="9")
        assert [change.delta.member_version for change in await take(opened, 1)] == ["9"]


async def test_an_unreadable_message_can_be_passed_over(log: Log, appender: Appender, put: Put) -> None:
    subject = object_subject(type_prefix("alpha", "", "v1", "pods"), "x", "odd")
    await appender.append_wait(subject, b"\x81\xa1v\x09")
    await put("n")
    async with subscribe(log, start="beginning") as opened:
        with pytest.raises(UnreadableRecord, match=r"message 1 .* version 9"):
            await following(opened)
        assert told(await take(opened, 1)) == [(2, "ADDED", "n")]


async def test_a_slow_consumer_gets_all_and_holds_little(
    log: Log, put: Put, appender: Appender, delta: Callable[..., Any]
) -> None:
    count, body = 3000, b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"n"},"x":"' + b"y" * 8000 + b'"}'
    prefix = type_prefix("alpha", "", "v1", "pods")
    for number in range(count):
        payload = encode_delta(delta(f"n{number}", object=body))
        await appender.append(object_subject(prefix, "x", f"n{number}"), payload, lambda *_: None)
    await appender.drain()
    most = 0
    async with subscribe(log, start="beginning", read_ahead=8) as opened:
        sequences = []
        for number in range(count):
            sequences += [change.sequence for change in await take(opened, 1)]
            if number % 100 == 0:
                # Time enough for the server to send whatever it would.
                await asyncio.sleep(0.02)
            most = max(most, len(opened._queue))
        assert sequences == list(range(1, count + 1))
        assert opened._reader.restarts == 0
    assert most < count


async def test_a_consumer_that_stands_still_is_not_cut_off(log: Log, put: Put) -> None:
    """Paused for longer than silence is allowed to be: heartbeats go on."""
    timing = LogTiming(heartbeat=0.2, silence=1.0, look_every=0.1)
    for number in range(10):
        await put(f"n{number}")
    async with subscribe(log, start="beginning", read_ahead=2, timing=timing) as opened:
        await take(opened, 1)
        await asyncio.sleep(3 * timing.silence)
        assert len(await take(opened, 9)) == 9
        assert opened._reader.restarts == 0


async def test_nothing_is_lost_when_nats_is_killed(
    log: Log, put: Put, broker: EmbeddedBroker, kill: Callable[[], Awaitable[None]]
) -> None:
    async with subscribe(broker.url, start="beginning") as opened:
        for number in range(5):
            await put(f"a{number}")
        await take(opened, 5)
        await kill()
        await broker.start()
        async with asyncio.timeout(PATIENCE):
            while not log.connection.connected:
                await asyncio.sleep(0.05)
        for number in range(5):
            await put(f"b{number}")
        assert [change.sequence for change in await take(opened, 5)] == [6, 7, 8, 9, 10]


# -- durable ones ------------------------------------------------------------------------------------------------------


async def test_a_durable_one_goes_on_behind_what_was_acknowledged(log: Log, put: Put) -> None:
    for name in "abcdef":
        await put(name)
    async with subscribe(log, durable="table", start="beginning") as opened:
        changes = await take(opened, 5)
        await opened.ack(changes[2])
        # Going back is nothing.
        await opened.ack(changes[0])
    async with subscribe(log, durable="table") as opened:
        again = await take(opened, 3)
        assert told(again) == [(4, "ADDED", "d"), (5, "ADDED", "e"), (6, "ADDED", "f")]
        await opened.ack(again[-1])
    async with subscribe(log, durable="table", start="beginning") as opened:
        await put("g")
        assert told(await take(opened, 1)) == [(7, "ADDED", "g")]
    async with subscribe(log, durable="table", start="beginning", reset=True) as opened:
        assert (await take(opened, 1))[0].sequence == 1


async def test_a_durable_one_from_now_keeps_where_it_began(log: Log, put: Put) -> None:
    await put("a")
    async with subscribe(log, durable="later"):
        await put("b")
    await put("c")
    async with subscribe(log, durable="later") as opened:
        assert [change.delta.name for change in await take(opened, 2)] == ["b", "c"]


@pytest.mark.parametrize("forgotten", [False, True])
async def test_what_happened_while_away_comes_in_order(log: Log, put: Put, forgotten: bool) -> None:
    """Every event; of those that the log has forgotten, the last state of each object, at its own place."""
    for name in "abc":
        await put(name)
    async with subscribe(log, durable="away", start="beginning") as opened:
        (first,) = await take(opened, 1)
        await opened.ack(first)
    await put("b", type=MODIFIED, uid_index=2, member_version="2")
    await put("b", type=MODIFIED, uid_index=2, member_version="3")
    if forgotten:
        await forget_events(log, 4)
    async with subscribe(log, durable="away", bookmarks=True) as opened:
        found = await until_caught_up(opened)
    if forgotten:
        assert told(found) == [(3, "ADDED", "c"), (5, "ADDED", "b")]
    else:
        assert told(found) == [(2, "ADDED", "b"), (3, "ADDED", "c"), (4, "MODIFIED", "b"), (5, "MODIFIED", "b")]


async def test_from_before_the_events_the_state_comes_and_then_every_event(log: Log, put: Put) -> None:
    for name in "abc":
        await put(name)
    await put("a", type=MODIFIED, uid_index=1, member_version="2")
    await forget_events(log, 4)
    await put("c", type=MODIFIED, uid_index=3, member_version="2")
    async with subscribe(log, start="beginning", bookmarks=True) as opened:
        changes = await until_caught_up(opened)
        # It never saw the first state of `a`, so that is ADDED whatever the message says.
        assert told(changes) == [(2, "ADDED", "b"), (4, "ADDED", "a"), (5, "ADDED", "c")]
        for version in "345":
            await put("a", type=MODIFIED, uid_index=1, member_version=version)
        assert told(await take(opened, 3)) == [(6, "MODIFIED", "a"), (7, "MODIFIED", "a"), (8, "MODIFIED", "a")]


async def test_it_says_from_where_on_every_event_comes(log: Log, put: Put) -> None:
    await put("a")
    for version in "234":
        await put("a", type=MODIFIED, uid_index=1, member_version=version)
    async with subscribe(log, start=1, bookmarks=True) as opened:
        found = await until_caught_up(opened)
        assert told(found) == [(2, "MODIFIED", "a"), (3, "MODIFIED", "a"), (4, "MODIFIED", "a")]
        assert opened.compacted_through == 0
    await forget_events(log, 3)
    async with subscribe(log, start=1, bookmarks=True) as opened:
        found = await until_caught_up(opened)
        assert told(found) == [(4, "MODIFIED", "a")]
        assert opened.compacted_through == 4
        for version in "56":
            await put("a", type=MODIFIED, uid_index=1, member_version=version)
        assert told(await take(opened, 2)) == [(5, "MODIFIED", "a"), (6, "MODIFIED", "a")]


async def test_by_labels_each_event_says_what_they_were_before(log: Log, put: Put) -> None:
    """One enters, one leaves, one never matched, and of one only the deletion changes the labels."""
    web, api = {"app": "web"}, {"app": "api"}
    was_web, was_api, was_db = (Selectables({"app": one}, {}, "") for one in ("web", "api", "db"))
    for name, labels in (("enters", api), ("leaves", web), ("never", api), ("goes", web)):
        await put(name, labels=labels)
    start = await put("begin")
    await put("never", type=MODIFIED, uid_index=3, member_version="2", labels={"app": "db"}, was=was_api)
    await put("enters", type=MODIFIED, uid_index=1, member_version="2", labels=web, was=was_api)
    await put("enters", type=MODIFIED, uid_index=1, member_version="3", labels=web, was=UNCHANGED)
    await put("leaves", type=MODIFIED, uid_index=2, member_version="2", labels=api, was=was_web)
    await put("leaves", type=DELETED, uid_index=2, member_version="3", labels=api, was=UNCHANGED)
    await put("goes", type=DELETED, uid_index=4, member_version="2", labels=api, was=was_web)
    last = await put("never", type=DELETED, uid_index=3, member_version="3", labels=web, was=was_db)
    for fresh in (False, True):
        async with subscribe(log, start=start, labels="app=web", fresh=fresh, bookmarks=True) as opened:
            found = await until_caught_up(opened)
            assert told(found) == [
                (start + 2, "ADDED", "enters"),
                (start + 3, "MODIFIED", "enters"),
                (start + 4, "DELETED", "leaves"),
                (start + 6, "DELETED", "goes"),
            ]
            assert [event.left for event in found if isinstance(event, Change)] == [False, False, True, False]
    assert last == start + 7


async def test_the_last_one_to_open_goes_on(log: Log, put: Put) -> None:
    await put("a")
    async with subscribe(log, durable="one", start="beginning") as first:
        (change,) = await take(first, 1)
        async with subscribe(log, durable="one") as second:
            with pytest.raises(TakenOver, match="another process"):
                await first.ack(change)
            with pytest.raises(TakenOver):
                await following(first)
            (again,) = await take(second, 1)
            assert again.sequence == change.sequence
            await second.ack(again)


async def test_a_durable_one_of_another_selection_or_history(log: Log, put: Put, connection: Connection) -> None:
    await put("a")
    async with subscribe(log, durable="mine", type="pods", start="beginning") as opened:
        await opened.ack((await take(opened, 1))[0])
    with pytest.raises(BadDurable, match="type=pods"):
        async with subscribe(log, durable="mine"):
            pass
    with pytest.raises(BadDurable):
        async with subscribe(log, durable=""):
            pass
    async with subscribe(log) as opened:
        with pytest.raises(TypeError, match="durable"):
            await opened.ack(Bookmark(1, 1, "p"))
    await connection.api(f"STREAM.DELETE.{log.name}")
    log = await open_log(connection, LogSettings(tombstone_ttl=60))
    with pytest.raises(HistoryChanged, match="read from the beginning"):
        async with subscribe(log, durable="mine", type="pods"):
            pass
    async with subscribe(log, durable="mine", type="pods", start="beginning", reset=True):
        pass


async def test_a_quiet_durable_one_moves_with_the_log(log: Log, put: Put, tell: Put) -> None:
    """Else it would be told one day that deletions may have been forgotten, although none of its own was."""
    async with subscribe(log, durable="quiet", cluster="alpha", type="nodes") as opened:
        waiting = asyncio.ensure_future(anext(opened))
        await put("a")
        at = await tell("status")
        durable = opened._durable
        assert durable is not None
        await eventually(lambda: durable.place is not None and durable.place.sequence == at)
        waiting.cancel()
    async with subscribe(log, durable="quiet", cluster="alpha", type="nodes") as opened:
        assert opened.start.sequence == at


# -- what ends it ------------------------------------------------------------------------------------------------------


async def test_no_stream(connection: Connection) -> None:
    with pytest.raises(LogError, match="no stream NONE"):
        async with subscribe(connection, stream="NONE"):
            pass


async def test_the_stream_is_deleted(log: Log, put: Put) -> None:
    await put("a")
    async with subscribe(log, start="beginning") as opened:
        await take(opened, 1)
        await log.connection.api(f"STREAM.DELETE.{log.name}")
        with pytest.raises(StreamGone, match="was deleted"):
            await following(opened)
        with pytest.raises(StreamGone):
            await following(opened)


async def test_the_history_is_renamed_or_made_anew(log: Log, put: Put, connection: Connection) -> None:
    await put("a")
    other = await open_log(connection, LogSettings(tombstone_ttl=60))
    async with subscribe(log, start="beginning") as opened:
        await take(opened, 1)
        await History(other).rotate(other.prefix)
        with pytest.raises(HistoryChanged, match="renamed"):
            await following(opened)
    async with subscribe(other, start="beginning") as opened:
        await take(opened, 1)
        await connection.api(f"STREAM.DELETE.{log.name}")
        await open_log(connection, LogSettings(tombstone_ttl=60))
        with pytest.raises((HistoryChanged, StreamGone)):
            await following(opened)


@pytest.mark.parametrize("seed", [5, 6, 7])
async def test_a_random_history_read_in_pieces_ends_as_the_state(log: Log, put: Put, seed: int) -> None:
    """A table kept by a durable consumer that is cut off at random, by labels: always what the log says."""
    import random

    chance = random.Random(seed)
    web, other = {"app": "web"}, {"app": "other"}
    truth: dict[str, tuple[int, str, dict[str, str]]] = {}
    table: dict[str, str] = {}
    for _ in range(12):
        for _ in range(chance.randrange(30)):
            name = f"n{chance.randrange(12)}"
            labels = chance.choice((web, other))
            if name not in truth:
                uid = f"u{chance.random()}"
                at = await put(name, uid=uid, labels=labels, member_version="1")
                truth[name] = (at, uid, labels)
            elif chance.random() < 0.3:
                first, uid, labels = truth.pop(name)
                await put(name, type=DELETED, uid_index=first, uid=uid, labels=labels, member_version="9")
            else:
                first, uid, _ = truth[name]
                await put(name, type=MODIFIED, uid_index=first, uid=uid, labels=labels, member_version="2")
                truth[name] = (first, uid, labels)
        async with subscribe(log, durable="t", labels="app=web", start="beginning", bookmarks=True) as opened:
            stop = chance.random() < 0.5
            while True:
                event = await following(opened)
                if isinstance(event, Change):
                    if event.type == DELETED:
                        table.pop(event.delta.name, None)
                    else:
                        table[event.delta.name] = event.delta.uid
                    if chance.random() < 0.5:
                        await opened.ack(event)
                    if stop and chance.random() < 0.2:
                        break
                elif isinstance(event, Bookmark) and event.caught_up:
                    assert table == {name: uid for name, (_, uid, labels) in truth.items() if labels == web}
                    break
