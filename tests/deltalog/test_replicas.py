"""The log on three servers: replicas, and the loss of any one of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from deltalog import Appender, AppendError, Conflict, Connection, Expect, Log, LogError, LogSettings, connect, open_log
from deltalog.history import BUCKET
from deltalog.jetstream.bucket import Bucket
from deltalog.reader import Reader
from tests.ageing import forget_events
from tests.nats_cluster import NatsCluster
from tests.patience import PATIENCE

pytestmark = pytest.mark.processes


@pytest.fixture
async def cluster(limited: None, tmp_path: Path) -> AsyncIterator[NatsCluster]:
    async with NatsCluster(tmp_path) as started:
        yield started


async def replicas(cluster: NatsCluster, stream: str) -> int:
    return int((await cluster.ask(f"$JS.API.STREAM.INFO.{stream}"))["config"]["num_replicas"])


async def test_a_log_gets_the_replicas_that_are_wanted(
    cluster: NatsCluster, connecting: Callable[[], Awaitable[Connection]]
) -> None:
    connection = await connect(cluster.url, name="test")
    alone = await connect((await connecting()).url, name="alone")
    try:
        assert (await open_log(connection)).replicas == 1
        # One that has fewer gets them, one that has more keeps them.
        assert (await open_log(connection, LogSettings(replicas=3))).replicas == 3
        assert await replicas(cluster, "KUBEBRAID") == 3
        assert (await open_log(connection, LogSettings(replicas=1))).replicas == 3
        assert (await open_log(connection)).replicas == 3
        shard = await open_log(connection, LogSettings(name="SHARD", replicas=3))
        assert await replicas(cluster, "SHARD") == 3
        await Bucket.open(connection, BUCKET, "test")
        await Bucket.open(connection, BUCKET, "test", replicas=3)
        assert await replicas(cluster, f"KV_{BUCKET}") == 3
        # A shard stores what it is sent under the log's own subjects, and its fence holds there.
        async with Appender(connection, ingest=shard.ingest) as appender:
            first = await appender.append_wait("kbc.alpha.owner", b"1")
            fence = {
                "Nats-Expected-Last-Subject-Sequence": str(first),
                "Nats-Expected-Last-Subject-Sequence-Subject": "kbc.alpha.owner",
            }
            assert await appender.append_wait("kb.alpha.core.v1.pods.a.b", b"x", fence) == first + 1
            assert await shard.last("kb.alpha.core.v1.pods.a.b") == (first + 1, b"x")
            await appender.append_wait("kbc.alpha.owner", b"2")
            with pytest.raises(AppendError, match="wrong last sequence"):
                await appender.append_wait("kb.alpha.core.v1.pods.a.b", b"y", fence)
        with pytest.raises(LogError, match="cannot be made: replicas > 1 not supported in non-clustered mode"):
            await open_log(alone, LogSettings(replicas=3))
        await open_log(alone)
        with pytest.raises(LogError, match="cannot have 3 replicas"):
            await open_log(alone, LogSettings(replicas=3))
    finally:
        await connection.close()
        await alone.close()


async def test_an_owner_appends_many_at_a_time(
    cluster: NatsCluster, connecting: Callable[[], Awaitable[Connection]]
) -> None:
    """Though such a log takes one fenced message at a time; in order, and a deposed owner's are refused whole."""
    connection = await connect(cluster.url, name="test")
    try:
        log = await open_log(connection, LogSettings(replicas=3))
        await cluster.healthy(("KUBEBRAID",))
        told: list[tuple[int, int, Exception | None]] = []
        async with Appender.to(log) as appender:
            owner = await appender.append_wait("kbc.alpha.owner", b"1", Expect(0).headers())
            fence = Expect(owner, "kbc.alpha.owner").headers()
            for number in range(2000):
                last = {"Nats-TTL": "3600s"} if number % 7 == 0 else {}

                def acknowledged(sequence: int, error: Exception | None, number: int = number) -> None:
                    told.append((number, sequence, error))

                name = f"kb.alpha.core.v1.pods.a.p{number % 900}"
                await appender.append(name, str(number).encode() * 100, acknowledged, fence | last)
            async with asyncio.timeout(PATIENCE):
                await appender.drain()
            assert told == [(number, owner + 1 + number, None) for number in range(2000)]
            assert await log.last("kb.alpha.core.v1.pods.a.p0") == (owner + 1 + 1800, b"1800" * 100)
            # Another one, of the same owner at the same time: both get through.
            async with Appender.to(log) as other:
                both = [one.append_wait("kb.alpha.core.v1.pods.a.x", b"x", fence) for one in (appender, other) * 20]
                async with asyncio.timeout(PATIENCE):
                    assert len(set(await asyncio.gather(*both))) == 40
            await appender.append_wait("kbc.alpha.owner", b"2")
            before = await log.head()
            late = [appender.append_wait(f"kb.alpha.core.v1.pods.a.p{number}", b"late", fence) for number in range(9)]
            assert {type(one) for one in await asyncio.gather(*late, return_exceptions=True)} == {Conflict}
            assert await log.head() == before
    finally:
        await connection.close()


@pytest.mark.parametrize("how", ["kill", "stop", "stepdown"])
async def test_no_leader_takes_anything_along(cluster: NatsCluster, how: str) -> None:
    """What was acknowledged is read once, in order, by a reader that was there all the while."""
    writing, reading = [await connect(cluster.url, name=name) for name in ("write", "read")]
    try:
        log = await open_log(writing, LogSettings(replicas=3))
        await cluster.healthy(("KUBEBRAID",))
        read: list[tuple[int, bytes]] = []
        reader = Reader(await open_log(reading), lambda record: read.append((record.sequence, record.data)))
        running = asyncio.create_task(reader.run())
        acknowledged: list[tuple[int, bytes]] = []

        async def write() -> None:
            number = 0
            while True:
                number += 1
                data = str(number).encode()
                with contextlib.suppress(AppendError):
                    async with Appender(writing, deadline=2.0) as appender:
                        while True:
                            # Each its own subject: nothing is compacted away.
                            sequence = await appender.append_wait(f"kb.alpha.core.v1.pods.a.p{number}", data)
                            acknowledged.append((sequence, data))
                            number += 1
                            data = str(number).encode()
                await asyncio.sleep(0.05)

        writer = asyncio.create_task(write())
        for _ in range(2):
            before = len(acknowledged)
            while len(acknowledged) < before + 50:
                await asyncio.sleep(0.01)
            leader = await cluster.leader("KUBEBRAID")
            if how == "kill":
                await leader.kill()
            elif how == "stop":
                leader.stop()
            else:
                await cluster.ask("$JS.API.STREAM.LEADER.STEPDOWN.KUBEBRAID")
            before = len(acknowledged)
            while len(acknowledged) < before + 50:
                await asyncio.sleep(0.01)
            if how == "kill":
                await leader.start()
            elif how == "stop":
                leader.go_on()
            await cluster.healthy(("KUBEBRAID",))
        writer.cancel()
        await asyncio.wait((writer,))
        head = (await log.state()).last_sequence
        while reader.position < head:
            await asyncio.sleep(0.01)
            assert not running.done(), running.exception()
        running.cancel()
        # What was on its way when the writer ended may have come since.
        assert [sequence for sequence, _ in read] == list(range(1, reader.position + 1))
        assert set(acknowledged) <= set(read)
    finally:
        await writing.close()
        await reading.close()


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_the_state_outlives_its_leader(cluster: NatsCluster, how: str) -> None:
    """What the events have forgotten is read whole, while a server is away and once it is back."""
    connection = await connect(cluster.url, name="test")
    try:
        log = await open_log(connection, LogSettings(replicas=3))
        assert await replicas(cluster, "KUBEBRAID_STATE") == 3
        await cluster.healthy(("KUBEBRAID", "KUBEBRAID_STATE"))
        held = {}
        async with Appender.to(log) as appender:
            for number in range(300):
                name = f"kb.alpha.core.v1.pods.a.p{number % 40}"
                held[name] = await appender.append_wait(name, b"%d" % number)
            await forget_events(log, 290)
            leader = await cluster.leader("KUBEBRAID_STATE")
            if how == "kill":
                await leader.kill()
            else:
                leader.stop()
            async with asyncio.timeout(PATIENCE):
                found = await read_all(log)
            assert found == sorted(held.values())
            if how == "kill":
                await leader.start()
            else:
                leader.go_on()
            for number in range(20):
                name = f"kb.alpha.core.v1.pods.a.p{number % 40}"
                while True:
                    with contextlib.suppress(AppendError):
                        held[name] = await appender.append_wait(name, b"later")
                        break
                    await asyncio.sleep(0.1)
        await cluster.healthy(("KUBEBRAID", "KUBEBRAID_STATE"))
        async with asyncio.timeout(PATIENCE):
            assert set(held.values()) <= set(await read_all(log))
    finally:
        await connection.close()


async def read_all(log: Log) -> list[int]:
    """What a reader from the beginning reads."""
    sequences: list[int] = []
    await Reader(log, lambda record: sequences.append(record.sequence), stop_when_caught_up=True).run()
    return sequences


async def test_many_make_a_stream_at_once(cluster: NatsCluster) -> None:
    """One makes it, and to all others it is there: also to those that hear of it before the servers have agreed."""
    async with contextlib.AsyncExitStack() as stack:
        connections = []
        for server in (*cluster.servers, *cluster.servers):
            connection = await connect(server.url, name="test")
            stack.push_async_callback(connection.close)
            connections.append(connection)
        for number in range(5):
            settings = LogSettings(name=f"SHARD{number}", replicas=3)
            logs = await asyncio.gather(*(open_log(one, settings) for one in connections))
            assert len({(one.prefix, one.created) for one in logs}) == 1
            name = f"bucket-{number}"
            made = await asyncio.gather(*(Bucket.open(one, name, "test", replicas=3) for one in connections))
            assert len({one.stream.created for one in made}) == 1
