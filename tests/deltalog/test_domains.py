"""A log in another JetStream domain: what is kept beside it in buckets is written and read there, too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deltalog import (
    ADDED,
    Access,
    Appender,
    Change,
    Connection,
    Delta,
    Log,
    LogSettings,
    TakenOver,
    connect,
    encode_delta,
    open_log,
    subscribe,
)
from deltalog.history import History, Mark
from deltalog.jetstream.bucket import Bucket
from deltalog.wire.subjects import object_subject, type_prefix
from tests.nats_regions import Regions

PODS = type_prefix("alpha", "", "v1", "pods")
pytestmark = pytest.mark.usefixtures("limited")


@pytest.fixture
async def regions(tmp_path: Path) -> AsyncIterator[Regions]:
    async with Regions(tmp_path) as started:
        yield started


@pytest.fixture
async def far(regions: Regions) -> AsyncIterator[Connection]:
    """Connected to the leaf node, to use the hub's JetStream."""
    connection = await connect(regions.west.url, name="test", access=Access(domain="hub"))
    yield connection
    await connection.close()


@pytest.fixture
async def log(far: Connection) -> Log:
    return await open_log(far, LogSettings(tombstone_ttl=60))


async def append(log: Log, delta: Callable[..., Delta], *names: str) -> None:
    async with Appender.to(log) as appender:
        for name in names:
            subject = object_subject(PODS, "x", name)
            await appender.append_wait(subject, encode_delta(delta(name, ADDED, uid=name)))


async def names(log: Log, count: int, **options: object) -> list[str]:
    found = []
    async with subscribe(log, type="pods", durable="billing", **options) as subscription:  # type: ignore[arg-type]
        async for event in subscription:
            assert isinstance(event, Change)
            found.append(event.delta.name)
            await subscription.ack(event)
            if len(found) == count:
                break
    return found


async def test_a_durable_subscription_goes_on_where_it_was(log: Log, delta: Callable[..., Delta]) -> None:
    await append(log, delta, "a", "b", "c")
    assert await names(log, 2, start="beginning") == ["a", "b"]
    assert await names(log, 1) == ["c"]


async def test_a_durable_subscription_is_taken_over(log: Log, delta: Callable[..., Delta]) -> None:
    await append(log, delta, "a", "b")
    async with subscribe(log, type="pods", durable="billing", start="beginning") as first:
        event = await anext(first)
        async with subscribe(log, type="pods", durable="billing"):
            with pytest.raises(TakenOver):
                await first.ack(event)


async def test_the_history_is_renamed_once_and_marks_are_kept(log: Log) -> None:
    history, before = History(log), log.prefix
    mark = Mark(created=log.created, prefix=before, index=0, time=0, latest=0)
    await history.mark(mark)
    assert await history.marks() == [mark]
    await history.rotate(before)
    assert log.prefix != before
    other = await open_log(log.connection, LogSettings(tombstone_ttl=60))
    await History(other).rotate(before)
    assert other.prefix == log.prefix


async def test_a_bucket_compares_before_it_sets(far: Connection) -> None:
    bucket = await Bucket.open(far, "test", "test", marker_ttl=1)
    first = await bucket.put("key", b"1", 0)
    assert first is not None
    assert await bucket.put("key", b"2", 0) is None
    assert await bucket.get("key") == (first, b"1")
    second = await bucket.put("key", b"2", first, ttl=60)
    assert second is not None
    assert await bucket.get("key") == (second, b"2")
    gone = await bucket.put("key", b"", second)
    assert await bucket.get("key") == (gone, b"")
    await bucket.purge("key")
    assert await bucket.get("key") == (0, b"")
