"""The stream: how it is made, taken on, inspected, and what it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from deltalog import BrokerUnavailable, Connection, Log, LogError, LogSettings, connect, decode_delta, open_log
from deltalog.history import History
from deltalog.jetstream.connection import JetStreamRefused, printable
from deltalog.jetstream.opening import next_prefix
from deltalog.jetstream.stream_info import nanoseconds, timestamp
from deltalog.wire.subjects import object_filter, object_subject, type_prefix
from kubebraid.command.broker import EmbeddedBroker
from tests.ageing import forget_events
from tests.patience import PATIENCE

PODS = type_prefix("alpha", "", "v1", "pods")
Put = Callable[..., Awaitable[int]]


async def info(connection: Connection, name: str) -> dict[str, Any]:
    return dict(msgspec.json.decode(await connection.api(f"STREAM.INFO.{name}")))


async def test_the_stream_is_made_as_documented(connection: Connection) -> None:
    log = await open_log(connection, LogSettings(name="LOG", tombstone_ttl=77, prefix="mine", events_bytes=10_000_000))
    found = await info(connection, "LOG")
    config = found["config"]
    assert config["subjects"] == ["LOG.kb.>", "LOG.kbc.>", "LOG.kbp.>"]
    assert config["subject_transform"] == {"src": "LOG.>", "dest": ">"}
    assert config["storage"] == "file"
    assert config["retention"] == "limits"
    assert config["discard"] == "old"
    assert config["allow_atomic"]
    assert [config[key] for key in ("max_msgs_per_subject", "max_msgs", "max_msg_size")] == [-1, -1, -1]
    assert [config[key] for key in ("max_age", "max_bytes")] == [77_000_000_000, 10_000_000]
    assert config["num_replicas"] == 1
    assert config["allow_msg_ttl"] is True
    assert config["allow_direct"] is True
    metadata = {key: value for key, value in config["metadata"].items() if key.startswith("kubebraid.io/")}
    assert metadata == {
        "kubebraid.io/prefix": "mine",
        "kubebraid.io/format": "1",
        "kubebraid.io/tombstone-ttl": "77",
        "kubebraid.io/events-from": "0",
    }
    assert (log.name, log.prefix, log.tombstone_ttl, log.created) == ("LOG", "mine", 77, found["created"])
    assert (log.window, log.events_from) == (77, 0), "events that are older than tombstones would lack those"


async def test_events_are_kept_for_an_hour_in_two_gibibytes(connection: Connection) -> None:
    log = await open_log(connection)
    config = (await info(connection, "KUBEBRAID"))["config"]
    assert (config["max_age"], config["max_bytes"]) == (3_600_000_000_000, 2 * 1024**3)
    assert log.window == 3600


async def test_a_history_gets_a_name_of_its_own(connection: Connection) -> None:
    first = await open_log(connection, LogSettings())
    assert len(first.prefix) == 8
    assert int(first.prefix, 16) >= 0
    await connection.api("STREAM.DELETE.KUBEBRAID")
    second = await open_log(connection, LogSettings())
    assert second.prefix != first.prefix
    assert second.created != first.created


async def test_a_second_opening_takes_what_is_there(connection: Connection) -> None:
    first = await open_log(connection, LogSettings(tombstone_ttl=500, events=60))
    before = await info(connection, "KUBEBRAID")
    second = await open_log(connection, LogSettings(tombstone_ttl=99, prefix="other"))
    assert (second.prefix, second.created, second.tombstone_ttl) == (first.prefix, first.created, 500)
    assert second.window == 60
    assert (await info(connection, "KUBEBRAID"))["config"] == before["config"]


async def test_a_second_opening_may_want_another_window(connection: Connection) -> None:
    """With what is said, and nothing else: what went by the old limits does not come back."""
    await open_log(connection, LogSettings(events=3))
    for number in range(4):
        await connection.client.jetstream().publish(object_subject(PODS, "x", f"n{number}"), b"")
    log = await open_log(connection, LogSettings(events=60, events_bytes=20_000_000))
    config = (await info(connection, "KUBEBRAID"))["config"]
    assert (config["max_age"], config["max_bytes"]) == (60_000_000_000, 20_000_000)
    assert (log.window, log.events_from) == (60, 0)
    async with asyncio.timeout(PATIENCE):
        while await log.events.first_since(log.now() - 1_000_000_000) is not None:
            await asyncio.sleep(0.1)
    assert (await open_log(connection, LogSettings(events=50))).events_from in (0, 4)
    await open_log(connection, LogSettings(events=1))
    async with asyncio.timeout(PATIENCE):
        while (await log.state()).messages:
            await asyncio.sleep(0.1)
    log = await open_log(connection, LogSettings(events=60))
    assert (log.window, log.events_from) == (60, 4)
    assert (await open_log(connection, make=False)).events_from == 4


async def test_instances_that_start_together_share_one_history(
    connecting: Callable[[], Awaitable[Connection]],
) -> None:
    connections = [await connecting() for _ in range(4)]
    logs = await asyncio.gather(*(open_log(one, LogSettings()) for one in connections))
    assert len({(log.prefix, log.created) for log in logs}) == 1


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"subjects": ["orders.>"]}, "was not made by kubebraid"),
        ({"subjects": ["kb.>", "kbc.>", "kbp.>"]}, "was not made by kubebraid"),
        (
            {
                "subjects": ["kb.>", "kbc.>", "kbp.>"],
                "metadata": {
                    "kubebraid.io/prefix": "p",
                    "kubebraid.io/tombstone-ttl": "1",
                    "kubebraid.io/format": "2",
                },
            },
            "format '2'",
        ),
        (
            {
                "subjects": ["kb.>", "kbc.>", "kbp.>"],
                "metadata": {
                    "kubebraid.io/prefix": "p",
                    "kubebraid.io/tombstone-ttl": "1",
                    "kubebraid.io/format": "1",
                },
            },
            "allow_msg_ttl",
        ),
    ],
)
async def test_a_foreign_stream_is_left_alone(connection: Connection, config: dict[str, object], problem: str) -> None:
    await connection.api("STREAM.CREATE.KUBEBRAID", {"name": "KUBEBRAID", **config})
    before = (await info(connection, "KUBEBRAID"))["config"]
    with pytest.raises(LogError, match=problem):
        await open_log(connection, LogSettings())
    assert (await info(connection, "KUBEBRAID"))["config"] == before


async def test_subjects_that_another_stream_has_are_a_problem_of_the_log(connection: Connection) -> None:
    await connection.api("STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["kb.alpha.>"]})
    with pytest.raises(LogError, match="cannot be made: subjects overlap"):
        await open_log(connection, LogSettings())


async def test_the_log_keeps_every_message_and_then_the_last_of_each_object(log: Log, put: Put) -> None:
    for original in ("1", "2", "3"):
        await put("a", member_version=original)
    await put("b")
    last = await put("a", member_version="4")
    found = await log.last(object_subject(PODS, "x", "a"))
    assert found is not None
    assert (found[0], decode_delta(found[1]).member_version) == (last, "4")
    state = await log.state()
    assert (state.messages, state.first_sequence, state.last_sequence) == (5, 1, 5)
    assert (state.created, state.prefix) == (log.created, log.prefix)
    assert state.last_time == await log.message_time(last)
    assert await log.head() == 5
    assert await log.message_time(1) is not None
    await forget_events(log, 4)
    assert await log.message_time(1) is None
    assert await log.message_time(4) is not None, "the state has it"
    kept = await log.kept()
    assert kept is not None
    assert (kept.messages, kept.subjects, kept.first_sequence, kept.last_sequence) == (2, 2, 4, 5)
    assert await log.last(object_subject(PODS, "x", "nobody")) is None


async def test_an_empty_log_has_no_time(log: Log) -> None:
    state = await log.state()
    assert (state.messages, state.last_sequence, state.last_time) == (0, 0, 0)


async def test_a_tombstone_expires(log: Log, put: Put) -> None:
    await put("gone", type="DELETED", ttl=1)
    kept = await put("kept")
    async with asyncio.timeout(PATIENCE):
        while await log.last(object_subject(PODS, "x", "gone")) is not None:
            await asyncio.sleep(0.1)
    state = await log.state()
    assert (state.messages, state.first_sequence, state.last_sequence) == (1, kept, kept)


async def test_an_expired_last_message_does_not_turn_the_head_back(log: Log, put: Put) -> None:
    last = await put("gone", type="DELETED", ttl=1)
    async with asyncio.timeout(PATIENCE):
        while (await log.state()).messages:
            await asyncio.sleep(0.1)
    assert await log.head() == last
    assert await put("next") == last + 1


async def test_a_purge_takes_what_is_older_and_matches(log: Log, put: Put) -> None:
    old = await put("old")
    other = await put("other")
    below = await put("new")
    await log.purge(object_filter("alpha", "", "pods", name="old"), below)
    assert await log.events.message_time(old) is None
    assert await log.message_time(other) is not None
    await log.purge(object_filter("alpha", "", "pods"), below)
    assert await log.events.message_time(other) is None
    assert await log.message_time(below) is not None
    assert await log.head() == below


async def test_a_rotation_changes_the_prefix_only(connection: Connection, log: Log, put: Put) -> None:
    await put("a")
    other = await open_log(connection)
    before = await info(connection, log.name)
    old = log.prefix
    await History(log).rotate(old)
    after = await info(connection, log.name)
    assert log.prefix != old
    assert log.created == before["created"]
    assert after["state"]["messages"] == 1
    changed = {key for key in before["config"] if before["config"][key] != after["config"][key]}
    assert changed == {"metadata"}
    assert other.prefix == old
    await other.reopen()
    assert other.prefix == log.prefix


async def test_no_server_is_told_in_one_line() -> None:
    with pytest.raises(BrokerUnavailable, match=r"^NATS at nats://127\.0\.0\.1:9 does not answer: \S.*$"):
        await connect("nats://127.0.0.1:9", name="test", patience=0.5)


async def test_a_server_that_takes_its_time_is_connected_to(broker: EmbeddedBroker) -> None:
    """It has said who it is in time: what is left of the attempt may take longer than `patience`."""
    patience = 1.0
    ways: set[asyncio.Task[None]] = set()

    async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wait: float) -> None:
        while data := await reader.read(8192):
            await asyncio.sleep(wait)
            writer.write(data)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", broker.port)
        for one in (passing(far_reader, writer, 0), passing(reader, far_writer, patience * 1.2)):
            ways.add(asyncio.create_task(one))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        connection = await connect(f"nats://127.0.0.1:{port}", name="test", patience=patience)
        assert connection.connected
        await connection.close()
        for one in ways:
            one.cancel()


def test_no_secret_is_printed() -> None:
    assert printable("nats://user:secret@host:4222/x") == "nats://host:4222/x"
    assert printable("nats://host:4222") == "nats://host:4222"


async def test_a_refusal_bears_its_code(connection: Connection) -> None:
    with pytest.raises(JetStreamRefused) as refused:
        await connection.api("STREAM.INFO.NOBODY")
    assert refused.value.code == 10059


async def test_a_broker_that_is_gone_is_unavailable(
    broker: EmbeddedBroker, log: Log, kill: Callable[[], Awaitable[None]]
) -> None:
    await kill()
    with pytest.raises(BrokerUnavailable):
        await log.connection.api(f"STREAM.INFO.{log.name}", timeout=0.5)


async def test_a_connection_to_a_dead_broker_can_be_closed(
    broker: EmbeddedBroker, connecting: Callable[[], Awaitable[Connection]], kill: Callable[[], Awaitable[None]]
) -> None:
    connection = await connecting()
    await kill()
    with pytest.raises(BrokerUnavailable):
        await connection.api("INFO", timeout=0.5)
    await connection.close()
    assert connection.client.is_closed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2024-02-29T12:34:56.123456789Z", 1_709_210_096_123_456_789),
        ("2024-02-29T13:34:56.000000001+01:00", 1_709_210_096_000_000_001),
        ("2024-02-29T07:04:56-05:30", 1_709_210_096_000_000_000),
    ],
)
def test_server_times_keep_their_nanoseconds(text: str, expected: int) -> None:
    assert nanoseconds(text) == expected
    if expected:
        assert nanoseconds(timestamp(expected)) == expected


@pytest.mark.parametrize("chosen", ["mine", "mine-0123abcd", "x" * 64])
def test_a_prefix_somebody_chose_stays_recognisable(chosen: str) -> None:
    following = next_prefix(chosen)
    base, _, end = following.rpartition("-")
    assert chosen.startswith(base)
    assert base == "mine" or len(following) == 64
    assert len(end) == 8
    assert following != chosen


def test_a_random_prefix_is_followed_by_a_random_one() -> None:
    # Those of older releases may begin with a digit: to a console that parses versions as numbers they were some.
    for before in ("0123abcd", "12345678", "abcdef01", "chosen", "chosen-0123abcd"):
        after = [next_prefix(before) for _ in range(50)]
        assert all(one[0] in "abcdef" or one.startswith("chosen-") for one in after), after
        assert all(one.rpartition("-")[2][0] in "abcdef" for one in after), after
        assert {len(one) for one in after} == {len("chosen-abcdef01") if "chosen" in before else 8}
        assert len(set(after)) == 50
        assert before not in after
    assert len(next_prefix("0123abcd")) == 8
    assert next_prefix("0123abcd") != "0123abcd"


async def test_the_next_message_that_is_still_there(log: Log, put: Callable[..., Awaitable[int]]) -> None:
    assert await log.next_after(0) is None
    first = await put("a")
    second = await put("b")
    third = await put("a", member_version="2")
    assert await log.next_after(0) == first
    await log.connection.api(f"STREAM.MSG.DELETE.{log.name}", {"seq": first})
    assert await log.next_after(0) == second
    assert await log.next_after(first) == second
    assert await log.next_after(second) == third
    assert await log.next_after(third) is None


async def test_the_next_message_of_the_subjects_that_match(log: Log, put: Callable[..., Awaitable[int]]) -> None:
    first = await put("a")
    second = await put("b")
    of_a, of_b = (object_subject(PODS, "x", name) for name in ("a", "b"))
    assert await log.next_after(0, [of_b]) == second
    assert await log.next_after(0, [of_b, of_a]) == first
    assert await log.next_after(first, [of_a]) is None
    assert await log.next_after(first, [of_a, of_b]) == second
