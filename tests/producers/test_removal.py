"""A removed cluster leaves no control record in the log but that of its removal and its last owner's."""

from __future__ import annotations

import pytest

from deltalog import Appender, Log, Record
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
from producers.follow.ownership import append_control, take
from producers.follow.removal import remove_cluster, remove_type

PODS = GroupResource("", "pods")
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
