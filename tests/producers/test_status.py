"""What a producer says of itself in the log: its types' status, and that it is there at all; lists asked for anew."""

from __future__ import annotations

import asyncio

from deltalog import Log, open_log
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import TypeStatus
from producers.members.membership import Members
from producers.producer import Producer
from producers.rules.configuration import Configuration, Kubeconfig, Source
from producers.rules.rules import Rules
from producers.timing import ProducerTiming
from tests.patience import eventually
from tests.producers.conftest import Rig

PODS = "/api/v1/pods"


OFTEN = ProducerTiming(status_every=0.3)


async def test_status_of_types_and_silence(rig: Rig) -> None:
    rig.timing = OFTEN
    warm = await rig.materializer()
    _, task = await rig.produce("pods", "nodes")

    def synced() -> bool:
        cluster = warm.store.clusters.get("alpha")
        return cluster is not None and cluster.status.get(GroupResource("", "pods"), TypeStatus()).synced

    await eventually(synced)
    status = warm.store.clusters["alpha"].status[GroupResource("", "pods")]
    assert status.objects == 30
    assert status.synced is True
    assert status.listed > 0
    assert not status.error
    # Three statuses that come late are silence, too.
    await eventually(lambda: warm.stale_reason(warm.store.clusters["alpha"]) is None)

    task.cancel()
    reason = await eventually(lambda: warm.stale_reason(warm.store.clusters["alpha"]))
    assert "no producer has been heard of" in reason
    cold = await rig.materializer()
    assert "no producer has been heard of" in (cold.stale_reason(cold.store.clusters["alpha"]) or "")

    await rig.produce("pods", "nodes")
    await eventually(lambda: warm.stale_reason(warm.store.clusters["alpha"]) is None)


async def test_the_status_of_a_type_in_trouble_has_reason_and_time(rig: Rig) -> None:
    rig.timing = OFTEN
    warm = await rig.materializer()
    await rig.produce("pods", "nodes")
    rig.cluster.faults.forbid("pods")
    rig.cluster.faults.compact()
    rig.cluster.faults.cut_watches()

    def told() -> str:
        return warm.store.clusters["alpha"].status.get(GroupResource("", "pods"), TypeStatus()).error

    assert "forbidden" in await eventually(told)
    assert warm.store.clusters["alpha"].status[GroupResource("", "pods")].stale > 0
    assert not warm.store.clusters["alpha"].status[GroupResource("", "nodes")].error
    rig.cluster.faults.clear()
    await eventually(lambda: not told(), 60.0)


async def test_what_a_silent_watch_hid_comes_with_a_list_that_is_asked_for(rig: Rig) -> None:
    warm = await rig.materializer()
    rig.cluster.faults.initial_events = "refused"
    producer, _ = await rig.produce("pods", "nodes")
    rig.cluster.faults.hang_watches()
    rig.cluster.churn.step(30)
    before = producer.clusters["alpha"].informers[GroupResource("", "pods")].relists
    # The watch is open and says nothing: only a list can tell.
    listing = [
        (entry.key, entry.member_version)
        for entry in warm.store.types[GroupResource("", "pods")].objects("alpha").values()
    ]
    assert producer.clusters["alpha"].relist(lambda text: text == "pods") == 1
    await rig.settled(warm, PODS, "", "pods")
    assert [
        (e.key, e.member_version) for e in warm.store.types[GroupResource("", "pods")].objects("alpha").values()
    ] != listing
    assert producer.clusters["alpha"].informers[GroupResource("", "pods")].relists == before + 1
    assert producer.clusters["alpha"].informers[GroupResource("", "nodes")].relists == 1


async def test_lists_are_compared_from_time_to_time(rig: Rig) -> None:
    rig.cluster.faults.initial_events = "refused"
    warm = await rig.materializer()
    writing = await rig.connection("write")

    async def opened() -> Log:
        return await open_log(writing, rig.settings)

    source = Source(Kubeconfig(str(rig.kubeconfig)), Rules.of(("pods",)))
    members = Members(Configuration((source,), relist_every=1.0))
    await members.first()
    producer = Producer(members, opened, writing)
    rig._background(asyncio.create_task(producer.run()))
    await producer.first_lists()
    rig.cluster.faults.hang_watches()
    rig.cluster.churn.step(30)
    await rig.settled(warm, PODS, "", "pods")
    assert producer.clusters["alpha"].informers[GroupResource("", "pods")].relists > 1
    text = producer.metrics.text().decode()
    assert 'kubebraid_producer_lists_total{cluster="alpha",reason="periodic",type="pods"}' in text
