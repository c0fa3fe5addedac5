"""What producers remember of deletions: as long as the log does, and not more of their own than may be."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from deltalog import DELETED, Appender, Delta, Log, Record, decode_delta
from deltalog.forgetting import decide
from deltalog.history import History
from deltalog.reader import read_to_end
from deltalog.timing import LogTiming
from deltalog.wire.resource_type import ResourceType
from producers.follow.normalize import Normalizer
from producers.follow.ownership import take
from producers.follow.writer import Writer
from producers.forgetting import OwnDeletions
from tests.ageing import state_at
from tests.patience import eventually

PODS = ResourceType(
    group="",
    resource="pods",
    version="v1",
    kind="Pod",
    singular="pod",
    namespaced=True,
    short_names=(),
    categories=(),
    verbs=("get", "list", "watch"),
    versions=("v1",),
)


def pod(name: str, version: int, uid: str = "") -> bytes:
    """A pod as its cluster sends it."""
    metadata = {"name": name, "namespace": "x", "uid": uid or f"u-{name}", "resourceVersion": str(version)}
    return json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": metadata}).encode()


async def writing(log: Log, appender: Appender, cluster: str) -> Writer:
    """The writer of a cluster's pods."""
    owner = await take(log, appender, cluster, "p")
    writer = Writer(log, appender, owner, PODS, Normalizer(cluster, PODS))
    await writer.read_back()
    return writer


async def gone(writer: Writer, begin: int, end: int) -> None:
    """Pods that came and went."""
    for number in range(begin, end):
        await writer.observe(pod(f"n{number}", 10 * number + 1), listed=False)
        await writer.observe_deleted(pod(f"n{number}", 10 * number + 2))
    await writer.settle()


async def last_of(log: Log, cluster: str, name: str) -> Delta:
    """What the log last says of a pod."""
    found: list[Record] = []
    await read_to_end(log, found.append, subjects=(f"kb.{cluster}.core.v1.pods.x.{name}",))
    return decode_delta(found[-1].data)


@pytest.fixture
async def appender(log: Log) -> AsyncIterator[Appender]:
    """One that is closed with the test."""
    async with Appender(log.connection) as opened:
        yield opened


def forgetting(log: Log, *writers: Writer, limit: int) -> OwnDeletions:
    """Of these writers."""

    async def opened() -> Log:
        return log

    timing = LogTiming(purge_after=0.0, purge_others=0.01)
    return OwnDeletions(opened, lambda: writers, limit, log_timing=timing)


async def test_it_forgets_what_the_log_says(log: Log, appender: Appender) -> None:
    """A pod that comes again under such a name has no predecessor: nobody can resume from before that."""
    writer = await writing(log, appender, "alpha")
    await writer.observe(pod("lives", 1), listed=False)
    await gone(writer, 0, 10)
    one = forgetting(log, writer, limit=1000)
    await one.look()
    assert one.remembered == 10
    through = sorted(writer.deletions())[5]
    await decide(log, History(log), through)
    await one.look()
    assert (one.remembered, min(writer.deletions()) > through, len(writer)) == (4, True, 1)
    await writer.observe(pod("n3", 901, uid="again"), listed=False)
    await writer.observe(pod("n8", 902, uid="again"), listed=False)
    await writer.settle()
    assert (await last_of(log, "alpha", "n3")).replaced is None
    assert (again := await last_of(log, "alpha", "n8")).replaced is not None
    assert again.replaced.uid == "u-n8"


async def test_a_log_that_nobody_serves_is_bounded_too(log: Log, appender: Appender) -> None:
    """By the producers: each for its own clusters, of all types together."""
    alpha, beta = await writing(log, appender, "alpha"), await writing(log, appender, "beta")
    await alpha.observe(pod("lives", 1), listed=False)
    one, other = forgetting(log, alpha, beta, limit=100), forgetting(log, limit=100)
    await gone(alpha, 0, 80)
    await one.look()
    assert await log.forgotten_through() == 0
    await gone(beta, 0, 80)
    await state_at(log, await log.head())
    await one.look()
    await other.look()
    assert one.remembered == 95
    through = await log.forgotten_through()
    assert min((*alpha.deletions(), *beta.deletions())) > through
    assert len(list(alpha.deletions())) == 15
    state = await log.find_state()
    assert state is not None

    async def subjects() -> int:
        return (await state.state()).subjects

    # 95 tombstones, what lives, two owners, the record.
    purging = one._purging
    assert purging is not None
    await eventually(lambda: purging.purged == 65)
    assert await subjects() == 99
    assert (await last_of(log, "alpha", "n79")).type == DELETED


async def test_what_was_read_back_is_forgotten_as_well(log: Log, appender: Appender) -> None:
    """A producer that starts knows by the log's headers what was deleted, and obeys a record of before."""
    writer = await writing(log, appender, "alpha")
    await gone(writer, 0, 20)
    await decide(log, History(log), sorted(writer.deletions())[9])
    again = await writing(log, appender, "alpha")
    one = forgetting(log, again, limit=1000)
    await one.look()
    assert one.remembered == 10
    purging = one._purging
    assert purging is not None
    await eventually(lambda: purging.purged == 10)
