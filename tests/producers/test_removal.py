"""A removed cluster leaves no control record but that of its removal and its last owner's; the events keep the rest."""

from __future__ import annotations

import json

import pytest

from deltalog import ADDED, Appender, Log, Reader, Record, decode_delta
from deltalog.reader import read_to_end
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import (
    FACTS,
    ClusterDocument,
    ClusterRegistered,
    DiscoveryDocument,
    DocumentName,
    Fact,
    HealthChanged,
    ObjectsRemoved,
    OpenApiDocument,
    OwnerChanged,
    StatusReport,
    TypeSynced,
)
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import object_subject, type_prefix
from producers.follow.normalize import Normalizer
from producers.follow.ownership import append_control, take
from producers.follow.removal import remove_cluster, remove_type
from producers.follow.writer import Writer

PODS = GroupResource("", "pods")
POD = ResourceType(group="", resource="pods", version="v1", kind="Pod")
DOCUMENT = ClusterDocument(hash="A", size=1, body=b"x")
OF_TYPE: tuple[Fact, ...] = (
    ResourceType(group="", resource="pods", version="v1", kind="Pod"),
    TypeSynced(resource=PODS, version="7"),
    HealthChanged(resource=PODS, reason="why"),
)
OF_CLUSTER: tuple[Fact, ...] = (
    ClusterRegistered(),
    DiscoveryDocument(document=DOCUMENT),
    OpenApiDocument(name=DocumentName("v3", "api/v1"), document=DOCUMENT),
    HealthChanged(reason="why"),
    StatusReport(),
)


def pod(name: str, version: int) -> bytes:
    metadata = {"name": name, "namespace": "x", "uid": name, "resourceVersion": str(version)}
    return json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": metadata}).encode()


async def subjects_of(log: Log) -> list[str]:
    found: list[str] = []

    def note(record: Record) -> None:
        found.append(record.subject)

    await read_to_end(log, note)
    return sorted(found)


async def produced(log: Log) -> list[str]:
    """Every fact about cluster alpha, appended by its owner; their subjects."""
    async with Appender.to(log) as appender:
        owner = await take(log, appender, "alpha", "test")
        for fact in (*OF_CLUSTER, *OF_TYPE):
            await append_control(appender, owner, owner.control(fact))
    return await subjects_of(log)


def test_each_class_of_facts_is_tried() -> None:
    tried = {type(fact) for fact in (*OF_CLUSTER, *OF_TYPE)}
    assert tried | {OwnerChanged, ObjectsRemoved} == set(FACTS)


async def test_of_a_cluster(log: Log) -> None:
    assert len(await produced(log)) == 9
    await remove_cluster(log, "test", "alpha")
    assert await subjects_of(log) == ["kbc.alpha.owner", "kbc.alpha.removed"]


async def test_of_a_type(log: Log) -> None:
    before = await produced(log)
    await remove_type(log, "test", "alpha", PODS)
    gone = {f"kbc.alpha.{record}.core.pods" for record in ("type", "synced", "health")}
    assert gone < set(before)
    assert await subjects_of(log) == sorted((set(before) - gone) | {"kbc.alpha.removed.core.pods"})


@pytest.mark.parametrize("again", [False, True])
async def test_a_removal_of_nothing_is_one_record(log: Log, again: bool) -> None:
    await remove_cluster(log, "test", "alpha")
    if again:
        await remove_cluster(log, "test", "alpha")
    assert await subjects_of(log) == ["kbc.alpha.owner", "kbc.alpha.removed"]


async def produced_pods(log: Log) -> list[str]:
    """Two pods and one that is gone, in the log; their subjects."""
    async with Appender.to(log) as appender:
        writer = await writer_of(log, appender)
        for name in ("a", "b", "gone"):
            await writer.observe(pod(name, 1), listed=False)
        await writer.observe_deleted(pod("gone", 2))
        await writer.settle()
    return [object_subject(type_prefix("alpha", "", "v1", "pods"), "x", name) for name in ("a", "b", "gone")]


async def writer_of(log: Log, appender: Appender) -> Writer:
    owner = await take(log, appender, "alpha", "test")
    writer = Writer(log, appender, owner, POD, Normalizer("alpha", POD))
    await writer.read_back()
    return writer


@pytest.mark.parametrize("whole", [True, False], ids=["cluster", "type"])
async def test_the_events_keep_what_is_removed_and_then_the_record(log: Log, whole: bool) -> None:
    subjects = await produced_pods(log)
    if whole:
        at = await remove_cluster(log, "test", "alpha")
    else:
        at = await remove_type(log, "test", "alpha", PODS)
    assert log.state_stream is not None
    for subject in subjects:
        assert await log.events.last(subject) is not None
        assert await log.state_stream.last(subject) is None
        assert await log.last(subject) is None, "what is, and not what was"
    read: list[Record] = []
    await Reader(log, read.append, stop_when_caught_up=True).run()
    objects = [record.sequence for record in read if record.subject in subjects]
    assert len(objects) == 4, "every event"
    assert max(objects) < at
    assert [record.sequence for record in read].index(at) > 4
    # Who comes now begins with what is.
    assert not set(subjects) & set(await subjects_of(log))


async def test_what_was_removed_is_not_read_back_before_it_is_purged(log: Log) -> None:
    """A producer died between the record and the purge."""
    await produced_pods(log)
    async with Appender.to(log) as appender:
        owner = await take(log, appender, "alpha", "test")
        await append_control(appender, owner, owner.control(ObjectsRemoved(resource=PODS, types=(PODS,))))
        writer = await writer_of(log, appender)
        assert len(writer) == 0
        await writer.observe(pod("b", 1), listed=True)
        await writer.settle()
        assert len(await writer_of(log, appender)) == 1
    last = await log.last(object_subject(type_prefix("alpha", "", "v1", "pods"), "x", "b"))
    assert last is not None
    assert decode_delta(last[1]).type == ADDED


async def test_another_version_leaves_the_state_alone(log: Log) -> None:
    await produced_pods(log)
    async with Appender.to(log) as appender:
        owner = await take(log, appender, "alpha", "test")
        newer = ResourceType(group="", resource="pods", version="v2", kind="Pod")
        writer = Writer(log, appender, owner, newer, Normalizer("alpha", newer))
        await writer.read_back()
        assert len(writer) == 2
        seen = {await writer.observe(pod(name, 1), listed=True) for name in ("a", "b")}
        await writer.delete_all_but({key for key in seen if key is not None}, "9")
        await writer.settle()
        await writer.purge_other_versions()
    assert {subject for subject in await subjects_of(log) if subject.startswith("kb.")} == {
        object_subject(type_prefix("alpha", "", "v2", "pods"), "x", name) for name in ("a", "b")
    }
    old = object_subject(type_prefix("alpha", "", "v1", "pods"), "x", "a")
    assert await log.events.last(old) is not None
