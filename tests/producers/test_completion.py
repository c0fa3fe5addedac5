"""The log has lost some of what it had: the producer appends that again, as repetitions that show nothing new."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deltalog import DELETED, MODIFIED, UNCHANGED, Appender, Delta, Log, decode_delta, open_log
from deltalog.jetstream.stream import Stream
from deltalog.jetstream.stream_info import STATE_FROM_KEY
from deltalog.wire.kubernetes import GroupResource, ObjectKey, object_key
from deltalog.wire.records import (
    ClusterDocument,
    ClusterRegistered,
    DiscoveryDocument,
    DocumentName,
    Fact,
    HealthChanged,
    OpenApiDocument,
    TypeSynced,
)
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import OBJECTS, encode_token
from materializer.filter import Filter
from materializer.store import Outcome, Store
from producers.follow.normalize import Normalizer
from producers.follow.ownership import append_control, take
from producers.follow.recorded import Recorded
from producers.follow.state_gap import StateGap, find_gap
from producers.follow.writer import Writer
from producers.timing import ProducerTiming
from simulation.faults import InitialEvents
from tests.ageing import forget_events
from tests.patience import eventually_awaited
from tests.producers.conftest import Rig, records, subjects

PODS = ResourceType(group="", resource="pods", version="v1", kind="Pod")
KEY = GroupResource("", "pods")


@pytest.fixture
async def appender(log: Log) -> AsyncIterator[Appender]:
    async with Appender.to(log) as appender:
        yield appender


def pod(name: str, version: int, uid: str = "u", **labels: str) -> bytes:
    metadata: dict[str, Any] = {"name": name, "namespace": "x", "uid": uid, "resourceVersion": str(version)}
    return json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": metadata | {"labels": labels}}).encode()


async def lose(log: Log, *subjects: str) -> None:
    """The log loses these subjects, in events and state."""
    head = await log.head()
    streams: list[Stream] = [log] if log.state_stream is None else [log, log.state_stream]
    for stream in streams:
        for subject in subjects:
            await stream.purge(subject, head + 1)


async def deltas(log: Log, after: int) -> list[tuple[int, Delta]]:
    return [
        (one.sequence, decode_delta(one.data))
        for one in await records(log, after)
        if one.subject.startswith(OBJECTS + ".")
    ]


async def listed(writer: Writer, version: str, *items: bytes) -> None:
    """As a reflector does: one complete list."""
    seen: set[ObjectKey] = set()
    for item in items:
        key = await writer.observe(item, listed=True)
        assert key is not None
        seen.add(key)
    await writer.delete_all_but(seen, version)
    await writer.settle()


async def test_a_list_brings_again_what_is_lacking_and_nothing_else(log: Log, appender: Appender) -> None:
    owner = await take(log, appender, "alpha", "p")
    writer = Writer(log, appender, owner, PODS, Normalizer("alpha", PODS))
    await writer.read_back()
    store = Store("h", 86400)

    def applied(after: int) -> list[tuple[str, Outcome]]:
        return [(delta.name, store.apply_delta(delta, sequence, 1)) for sequence, delta in found if sequence > after]

    names = ["a", "b", "c", "changed", "gone"]
    await listed(writer, "5", *(pod(name, 1, app="web") for name in names))
    found = await deltas(log, 0)
    assert {outcome for _, outcome in applied(0)} == {Outcome.APPLIED}
    first = {delta.name: sequence for sequence, delta in found}
    await lose(log, *(f"kb.alpha.*.*.pods.x.{name}" for name in ("b", "changed", "gone")))
    await writer.find_lacking()
    assert set(writer.lacking) == {object_key("x", name) for name in ("b", "changed", "gone")}
    before = await log.head()
    await listed(writer, "9", *(pod(name, 1, app="web") for name in ("a", "b", "c")), pod("changed", 7, app="api"))
    assert not writer.lacking
    found = await deltas(log, before)
    assert [(delta.name, delta.type, delta.member_version, delta.restored) for _, delta in found] == [
        ("b", MODIFIED, "1", False),
        ("changed", MODIFIED, "7", False),
        ("gone", DELETED, "9", False),
    ]
    assert all(delta.uid_index == first[delta.name] for _, delta in found), "their uids entered when they did"
    assert [delta.was for _, delta in found][:1] == [UNCHANGED]
    gone = found[-1][1]
    assert json.loads(gone.object)["metadata"]["uid"] == "u"
    # Who has it all is shown what is new.
    assert applied(before) == [
        ("b", Outcome.NOT_NEWER),
        ("changed", Outcome.APPLIED),
        ("gone", Outcome.APPLIED),
    ]
    # Who comes now gets it all.
    cold = Writer(log, appender, owner, PODS, Normalizer("alpha", PODS))
    await cold.read_back()
    assert len(cold) == 4


async def test_what_is_on_its_way_is_not_lacking(log: Log, appender: Appender) -> None:
    owner = await take(log, appender, "alpha", "p")
    writer = Writer(log, appender, owner, PODS, Normalizer("alpha", PODS))
    await writer.read_back()
    for number in range(300):
        await writer.observe(pod(f"p{number}", 1), listed=False)
    await writer.find_lacking()
    assert not writer.lacking


async def test_a_change_between_makes_a_repetition_needless(log: Log, appender: Appender) -> None:
    owner = await take(log, appender, "alpha", "p")
    writer = Writer(log, appender, owner, PODS, Normalizer("alpha", PODS))
    await writer.read_back()
    await listed(writer, "1", pod("a", 1), pod("b", 1))
    await lose(log, "kb.alpha.>")
    await writer.find_lacking()
    await writer.observe(pod("a", 2), listed=False)
    # A watch that tells what is known brings nothing again: the next list does.
    await writer.observe(pod("b", 1), listed=False)
    await writer.settle()
    before = await log.head()
    await listed(writer, "3", pod("a", 2), pod("b", 1))
    assert [delta.name for _, delta in await deltas(log, before)] == ["b"]


DOCUMENT = ClusterDocument(hash="A", size=1, body=b"x")
FACTS: list[Fact] = [
    PODS,
    ClusterRegistered(version={"major": "1"}),
    HealthChanged(healthy=True),
    DiscoveryDocument(document=DOCUMENT),
    OpenApiDocument(name=DocumentName("v3", "api/v1"), document=DOCUMENT),
    TypeSynced(resource=KEY, version="7"),
]


@pytest.mark.parametrize("lost", [True, False])
async def test_control_records_that_are_lacking_are_stated_again(log: Log, appender: Appender, lost: bool) -> None:
    owner = await take(log, appender, "alpha", "p")
    for fact in FACTS:
        await append_control(appender, owner, owner.control(fact))
    recorded = Recorded(log, appender, owner)
    await recorded.read()
    if lost:
        lost_records = ("type.>", "cluster", "health", "discovery", "openapi.>", "synced.>")
        await lose(log, *(f"kbc.{encode_token('alpha')}.{record}" for record in lost_records))
    before = await log.head()
    await recorded.state_again()
    again = sorted(one.subject for one in await records(log, before))
    assert again == (["kbc.alpha.cluster", "kbc.alpha.health", "kbc.alpha.type.core.pods"] if lost else [])
    # Documents are read anew, as only their hashes are kept.
    assert bool(recorded.openapi.known) is not lost
    assert bool(recorded._discovery.hash) is not lost


async def test_what_was_synced_before_a_gap_is_not_taken_for_it(log: Log, appender: Appender) -> None:
    owner = await take(log, appender, "alpha", "p")
    at = await append_control(appender, owner, owner.control(TypeSynced(resource=KEY, version="7")))
    stored = await log.message_time(at)
    assert stored is not None
    counts, not_any_more = {KEY}, set[GroupResource]()
    for gap, synced in (
        *((StateGap(at - 1), counts), (StateGap(at), not_any_more)),
        *((StateGap(1, stored - 1), counts), (StateGap(1, stored), not_any_more)),
    ):
        recorded = Recorded(log, appender, owner)
        await recorded.read(gap)
        assert recorded.synced == synced


@pytest.mark.parametrize(
    ("text", "gap"),
    [
        ("", StateGap()),
        ("x", StateGap()),
        ("17", StateGap(17)),
        ("17 1795861823500000000", StateGap(17, 1795861823500000000)),
        ("17 2026-11-28T10:30:23.5Z", StateGap(17, 1795861823500000000)),
        ("17 then", StateGap(17)),
    ],
)
async def test_a_gap_is_read_from_the_metadata(log: Log, text: str, gap: StateGap) -> None:
    await mark(log, text)
    assert await find_gap(log) == gap


async def mark(log: Log, text: str) -> None:
    """The state stream is marked as one that was made anew when the events had forgotten what came before."""
    state = await log.find_state()
    assert state is not None
    config = json.loads(bytes(await log.connection.api(f"STREAM.INFO.{state.name}")))["config"]
    config["metadata"][STATE_FROM_KEY] = text
    await log.connection.api(f"STREAM.UPDATE.{state.name}", config)


@pytest.mark.parametrize("support", ["supported", "refused"])
async def test_the_producer_makes_a_state_with_a_gap_complete(rig: Rig, support: InitialEvents) -> None:
    """All that was lost is there again, objects that went meanwhile are deleted, and each type is synced behind it."""
    rig.cluster.faults.initial_events = support
    rig.timing = ProducerTiming(look_at_history_every=0.2, openapi_after=(0.1,), status_every=0.5)
    producer, _ = await rig.produce()
    alpha = producer.clusters["alpha"]
    log = await open_log(await rig.connection("test"))
    types = set(alpha.informers)

    async def complete() -> bool:
        found = await subjects(log)
        return {f"kbc.alpha.{record}" for record in ("cluster", "discovery", "health", "status")} <= found and any(
            subject.startswith("kbc.alpha.openapi.v2") for subject in found
        )

    await eventually_awaited(complete)
    before = await subjects(log)
    lists = {key: informer.relists for key, informer in alpha.informers.items()}
    gap = await log.head()
    lost = ("kb.alpha.*.*.pods.>", "kb.alpha.*.*.configmaps.>", "kbc.alpha.health.>", "kbc.alpha.health")
    await lose(log, *lost, *(f"kbc.alpha.{one}" for one in ("type.>", "synced.>", "cluster", "discovery", "openapi.>")))
    assert len(await subjects(log)) < len(before) - 60
    await mark(log, str(gap))

    async def again() -> bool:
        return await subjects(log) >= before

    await eventually_awaited(again)
    synced = [one.sequence for one in await records(log) if one.subject.startswith("kbc.alpha.synced.")]
    assert len(synced) == len(types)
    assert min(synced) > gap
    assert {key: informer.relists for key, informer in alpha.informers.items()} == {
        key: count + 1 for key, count in lists.items()
    }
    # Nothing that was there is appended again.
    counts = alpha.state.counts["nodes"]
    assert counts.modified + counts.added <= len(await rig_items(rig, "/api/v1/nodes"))
    warm = await rig.materializer()
    await rig.settled(warm, "/api/v1/pods", "", "pods")
    rig.cluster.churn.step(40)
    await rig.settled(warm, "/api/v1/pods", "", "pods")


async def rig_items(rig: Rig, path: str) -> list[Any]:
    return list((await rig.request("GET", path))["items"])


async def test_instances_are_shown_nothing_of_it(rig: Rig) -> None:
    """The state is lost when the events had forgotten most of it: it is whole again, in the same history."""
    rig.timing = ProducerTiming(look_at_history_every=0.2, openapi_after=(0.1,))
    warm = await rig.materializer()
    await rig.produce("pods", "configmaps", "nodes")
    rig.cluster.churn.step(30)
    entries = await rig.settled(warm, "/api/v1/pods", "", "pods")
    before = {entry.key: entry.index for entry in entries}
    log = await open_log(await rig.connection("test"))
    head = await log.head()

    async def renewed() -> int:
        last = await log.last("kbc.alpha.owner")
        assert last is not None
        return last[0] if 2 * last[0] > head else 0

    gap = await eventually_awaited(renewed) - 1
    assert sum(index <= gap for index in before.values()) > 10
    await forget_events(log, gap)
    name = f"{log.name}_STATE"
    config = json.loads(bytes(await log.connection.api(f"STREAM.INFO.{name}")))["config"]
    config["metadata"][STATE_FROM_KEY] = str(gap)
    await log.connection.api(f"STREAM.DELETE.{name}")
    await log.connection.api(f"STREAM.CREATE.{name}", config)

    async def whole() -> bool:
        found = await subjects(log)
        return (
            sum(subject.startswith("kb.alpha.core.v1.pods.") for subject in found) >= len(before)
            and {f"kbc.alpha.synced.core.{name}" for name in ("pods", "configmaps", "nodes")} <= found
        )

    await eventually_awaited(whole)
    await rig.settled(warm, "/api/v1/pods", "", "pods")
    assert {entry.key: entry.index for entry in await rig.settled(warm, "/api/v1/pods", "", "pods")} == before
    assert not warm.generation
    cold = await rig.materializer()
    assert cold.store.prefix == warm.store.prefix
    shown = [(one.key, one.uid, one.member_version) for one in cold.store.types[KEY].select(Filter())]
    assert shown == [(one.key, one.uid, one.member_version) for one in warm.store.types[KEY].select(Filter())]
    first = {entry.key: entry.uid_index for entry in cold.store.types[KEY].select(Filter())}
    assert first == {entry.key: entry.uid_index for entry in warm.store.types[KEY].select(Filter())}


async def test_no_two_objects_have_one_key(log: Log, appender: Appender) -> None:
    """A NUL parts namespace and name in what is known of objects: a namespace that has one is another's key."""
    owner = await take(log, appender, "alpha", "p")
    writer = Writer(log, appender, owner, PODS, Normalizer("alpha", PODS))
    await writer.read_back()
    metadata = [
        {"namespace": "a", "name": "b\0c", "uid": "1", "resourceVersion": "1"},
        {"namespace": "a\0b", "name": "c", "uid": "2", "resourceVersion": "2"},
        {"namespace": "a\0b", "name": "d", "uid": "3", "resourceVersion": "3"},
    ]
    keys = [await writer.observe(json.dumps({"metadata": one}).encode(), listed=True) for one in metadata]
    await writer.settle()
    assert [(delta.namespace, delta.name) for _, delta in await deltas(log, 0) if delta.uid != "1"] == []
    assert keys[1:] == [None, None]
    assert len(writer.odd) == 2
    assert all("NUL" in line for line in writer.odd.lines())
