"""Compression: the events are kept compressed where the servers can do it, in logs of before, too; the state is not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from deltalog import Connection, Log, LogError, LogSettings, open_log
from deltalog.jetstream import compression
from deltalog.jetstream.stream_info import COMPRESSION_KEY
from deltalog.mirror import Mirror, MirrorSettings
from kubebraid.command.broker import EmbeddedBroker
from tests.patience import eventually

Connecting = Callable[[], Awaitable[Connection]]
# Blocks have 8 MB: of so many messages some are full.
_MESSAGES = 400
_BYTES = 50_000


async def kept(connection: Connection, name: str) -> str:
    config: dict[str, Any] = msgspec.json.decode(await connection.api(f"STREAM.INFO.{name}"))["config"]
    return str(config["compression"])


def compressed_blocks(broker: EmbeddedBroker, name: str) -> int:
    """How many blocks of a stream are compressed, by how their files begin."""
    blocks = broker.data.glob(f"nats/jetstream/**/streams/{name}/msgs/*.blk")
    return sum(block.read_bytes()[:4] == b"cmp\x01" for block in blocks)


async def fill(connection: Connection) -> None:
    """Appends more than two blocks of text, under subjects of their own."""
    words = [b"%x" % random.Random(seed).getrandbits(200) for seed in range(200)]
    choice = random.Random(7).choices
    for number in range(_MESSAGES):
        await connection.client.publish(f"kb.a.core.v1.pods.x.n{number}", b" ".join(choice(words, k=_BYTES // 50)))
    await connection.client.flush()


async def test_the_events_are_compressed_and_the_state_is_not(connection: Connection, broker: EmbeddedBroker) -> None:
    log = await open_log(connection)
    assert (await kept(connection, "KUBEBRAID"), await kept(connection, "KUBEBRAID_STATE")) == ("s2", "none")
    await fill(connection)
    await eventually(lambda: compressed_blocks(broker, "KUBEBRAID") >= 2)
    await head_at(log, _MESSAGES)
    assert compressed_blocks(broker, "KUBEBRAID_STATE") == 0
    assert (await log.state()).messages == _MESSAGES


async def test_what_was_said_once_holds_for_those_that_say_nothing(connection: Connection) -> None:
    await open_log(connection, LogSettings(compression="none"))
    assert await kept(connection, "KUBEBRAID") == "none"
    await open_log(connection)
    assert await kept(connection, "KUBEBRAID") == "none"
    await open_log(connection, LogSettings(compression="s2"), make=False)
    assert await kept(connection, "KUBEBRAID") == "none"
    await open_log(connection, LogSettings(compression="s2"))
    assert await kept(connection, "KUBEBRAID") == "s2"
    log = await open_log(connection, LogSettings(compression="none"))
    assert (await kept(connection, "KUBEBRAID"), log.compression_wanted) == ("none", "none")


async def test_a_log_of_before_goes_on_and_is_compressed_from_the_next_start_on(
    connection: Connection, connecting: Connecting, broker: EmbeddedBroker
) -> None:
    before = await open_log(connection, LogSettings(compression="none"))
    # As a release wrote it that knew nothing of compression.
    raw = msgspec.json.decode(await connection.api("STREAM.INFO.KUBEBRAID"))["config"]
    del raw["metadata"][COMPRESSION_KEY], raw["compression"]
    await connection.api("STREAM.UPDATE.KUBEBRAID", raw)
    await fill(connection)
    await head_at(before, _MESSAGES)
    plain = [await before.message(number) for number in (1, _MESSAGES // 2, _MESSAGES)]

    log = await open_log(await connecting())
    assert (log.prefix, log.created, log.window) == (before.prefix, before.created, before.window)
    assert await kept(connection, "KUBEBRAID") == "s2"
    assert compressed_blocks(broker, "KUBEBRAID") == 0

    await broker.stop()
    await broker.start()
    log = await open_log(await connecting())
    await fill(log.connection)
    await eventually(lambda: compressed_blocks(broker, "KUBEBRAID") >= 2)
    await head_at(log, 2 * _MESSAGES)
    assert [await log.message(number) for number in (1, _MESSAGES // 2, _MESSAGES)] == plain
    assert [await log.message(number + _MESSAGES) for number in (1, _MESSAGES // 2, _MESSAGES)] == plain


async def head_at(log: Log, sequence: int) -> None:
    """Returns when the log has come to a sequence."""
    while await log.head() != sequence:
        await asyncio.sleep(0.05)


async def test_servers_that_lose_messages_of_compressed_streams_are_not_asked_for_it(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "SOUND_SINCE", (99, 0, 0))
    with pytest.raises(LogError, match=r"servers before 99\.0\.0 lose messages of compressed streams"):
        await open_log(connection, LogSettings(compression="s2"))
    await open_log(connection)
    assert await kept(connection, "KUBEBRAID") == "none"
    with pytest.raises(LogError, match=r"leave out `compression`"):
        await open_log(connection, LogSettings(compression="s2"))
    assert await kept(connection, "KUBEBRAID") == "none"


async def test_a_mirror_is_kept_as_its_own_process_says(connection: Connection) -> None:
    await open_log(connection, LogSettings(compression="none"))
    await Mirror(connection, MirrorSettings(name="COPY")).make()
    assert (await kept(connection, "COPY"), await kept(connection, "COPY_STATE")) == ("s2", "none")
    mirror = Mirror(connection, MirrorSettings(name="COPY", compression="none"))
    assert not await mirror.make()
    assert (await kept(connection, "COPY"), await kept(connection, "COPY_STATE")) == ("none", "none")
    assert not await Mirror(connection, MirrorSettings(name="COPY")).make()
    assert await kept(connection, "COPY") == "none"
