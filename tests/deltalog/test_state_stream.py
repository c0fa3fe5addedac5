"""The state stream: the last message of each subject beside the events, made, purged, and taken over with its log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from deltalog import Connection, Log, LogError, LogSettings, open_log
from deltalog.wire.subjects import object_filter, object_subject, type_prefix
from tests.ageing import state_at

PODS = type_prefix("alpha", "", "v1", "pods")
Put = Callable[..., Awaitable[int]]


async def config(connection: Connection, name: str) -> dict[str, Any]:
    return dict(msgspec.json.decode(await connection.api(f"STREAM.INFO.{name}"))["config"])


async def test_a_log_has_a_state_stream(connection: Connection) -> None:
    log = await open_log(connection, LogSettings(name="LOG", tombstone_ttl=77, prefix="mine"))
    found = await config(connection, "LOG_STATE")
    assert found["mirror"] == {"name": "LOG"}
    assert (found["max_msgs_per_subject"], found["max_age"], found["max_bytes"]) == (1, 0, -1)
    assert (found["num_replicas"], found["allow_msg_ttl"], found["allow_direct"]) == (1, True, True)
    metadata = {key: value for key, value in found["metadata"].items() if key.startswith("kubebraid.io/")}
    assert metadata == {
        "kubebraid.io/prefix": "mine",
        "kubebraid.io/format": "1",
        "kubebraid.io/tombstone-ttl": "77",
        "kubebraid.io/created": log.created,
    }
    assert log.state_stream is not None
    assert (log.state_stream.name, log.state_stream.created) == ("LOG_STATE", log.created)


async def test_the_state_has_the_last_message_of_each_subject(log: Log, put: Put) -> None:
    await put("a")
    await put("b")
    last = await put("a", member_version="2")
    await state_at(log, last)
    assert log.state_stream is not None
    state = await log.state_stream.state()
    assert (state.messages, state.subjects, state.first_sequence, state.last_sequence) == (2, 2, 2, 3)
    found = await log.state_stream.last(object_subject(PODS, "x", "a"))
    assert found is not None
    assert found[0] == last


async def test_who_only_reads_makes_none(connection: Connection) -> None:
    log = await open_log(connection, LogSettings())
    await connection.api(f"STREAM.DELETE.{log.name}_STATE")
    reading = await open_log(connection, LogSettings(), make=False)
    assert reading.state_stream is None
    assert (await open_log(connection, LogSettings())).state_stream is not None
    assert (await reading.find_state()) is not None


async def test_a_stream_of_that_name_that_is_no_state_is_left_alone(connection: Connection) -> None:
    await connection.api("STREAM.CREATE.LOG_STATE", {"name": "LOG_STATE", "subjects": ["mine.>"]})
    with pytest.raises(LogError, match="LOG_STATE is there and not the state of LOG"):
        await open_log(connection, LogSettings(name="LOG"))
    assert (await config(connection, "LOG_STATE"))["subjects"] == ["mine.>"]


async def test_those_that_open_a_log_together_make_one(connecting: Callable[[], Awaitable[Connection]]) -> None:
    connections = [await connecting() for _ in range(4)]
    logs = await asyncio.gather(*(open_log(one, LogSettings()) for one in connections))
    assert {log.state_stream is not None and log.state_stream.created for log in logs} == {logs[0].created}


async def test_a_purge_of_the_state_waits_for_it(log: Log, put: Put) -> None:
    """What is purged before it came would come afterwards."""
    await put("a")
    below = await put("b") + 1
    purging = asyncio.create_task(log.purge_state(object_filter("alpha", "", "pods"), below + 1))
    await asyncio.sleep(0.1)
    assert not purging.done()
    assert await put("a", member_version="2") == below
    await purging
    assert log.state_stream is not None
    assert (await log.state_stream.state()).messages == 0
    kept = await put("c")
    await log.purge_state(object_filter("alpha", "", "pods"), kept)
    await state_at(log, kept)
    assert await log.state_stream.message_time(kept) is not None
