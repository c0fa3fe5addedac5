"""The informer on clusters as they are: streamed and paged lists, broken, silent and refusing ones, huge lines."""

from __future__ import annotations

import asyncio
import json

import pytest

from deltalog import open_log
from deltalog.wire.kubernetes import GroupResource, ObjectKey
from deltalog.wire.subjects import encode_token
from materializer.materializer import Materializer
from producers.follow.writer import Writer
from producers.timing import ProducerTiming
from producers.upstream.watching import PAGE
from simulation.faults import InitialEvents
from tests.patience import eventually, eventually_awaited
from tests.producers.conftest import Rig, subjects

PODS = "/api/v1/pods"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


# Silence is noticed sooner than an operator would want it.
IMPATIENT = ProducerTiming(initial_silence=1.5, bookmark_silence=1.5, watch_grace=1.0, watch=(2, 3))


async def follows(rig: Rig, materializer: Materializer) -> None:
    """Changes made now arrive."""
    rig.cluster.churn.step(30)
    await rig.settled(materializer, PODS, "", "pods")


@pytest.mark.parametrize("support", ["supported", "ignored", "refused"])
async def test_lists_by_stream_and_by_pages(rig: Rig, support: InitialEvents) -> None:
    rig.timing = IMPATIENT
    rig.cluster.faults.initial_events = support
    producer, _ = await rig.produce("pods", "nodes")
    warm = await rig.materializer()
    assert len(await rig.settled(warm, PODS, "", "pods")) == 30
    assert producer.clusters["alpha"].server.streams_lists is (support == "supported")
    await follows(rig, warm)


@pytest.mark.parametrize("pods", [PAGE + 7])
async def test_more_objects_than_a_page(rig: Rig, pods: int) -> None:
    rig.cluster.faults.initial_events = "refused"
    await rig.produce("pods")
    warm = await rig.materializer()
    assert len(await rig.settled(warm, PODS, "", "pods")) == pods


async def test_a_silent_watch_is_replaced(rig: Rig) -> None:
    rig.timing = IMPATIENT
    producer, _ = await rig.produce("pods")
    warm = await rig.materializer()
    await rig.settled(warm, PODS, "", "pods")
    rig.cluster.faults.hang_watches()
    rig.cluster.churn.step(20)
    await asyncio.sleep(5)
    rig.cluster.faults.hang_watches(False)
    await follows(rig, warm)
    assert producer.clusters["alpha"].informers[GroupResource("", "pods")].relists == 1, "its version still held"


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_refusals_pass(rig: Rig, code: int) -> None:
    rig.cluster.faults.fail_next(40, code)
    await rig.produce("pods", "configmaps")
    warm = await rig.materializer()
    rig.cluster.faults.clear()
    await follows(rig, warm)
    rig.cluster.faults.fail_next(5, code)
    rig.cluster.faults.cut_watches()
    await follows(rig, warm)


async def test_an_expired_version_is_listed_again(rig: Rig) -> None:
    producer, _ = await rig.produce("pods")
    warm = await rig.materializer()
    await rig.settled(warm, PODS, "", "pods")
    informer = producer.clusters["alpha"].informers[GroupResource("", "pods")]
    for _ in range(3):
        rig.cluster.faults.cut_watches()
        rig.cluster.churn.step(20)
        rig.cluster.faults.compact()
    await follows(rig, warm)
    assert informer.relists > 1


async def test_a_list_that_is_asked_for_under_another_one_comes_behind_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the list under way has read may be older than what it is asked for."""
    producer, _ = await rig.produce("pods")
    await rig.settled(await rig.materializer(), PODS, "", "pods")
    informer = producer.clusters["alpha"].informers[GroupResource("", "pods")]
    real = Writer.delete_all_but
    asked: list[int] = []

    async def asking(writer: Writer, seen: set[ObjectKey], version: str) -> None:
        if not asked:
            asked.append(informer.relists)
            informer.relist()
        await real(writer, seen, version)

    monkeypatch.setattr(Writer, "delete_all_but", asking)
    informer.relist()
    await eventually(lambda: informer.relists == 3)
    assert asked == [2]


async def test_a_line_of_several_megabytes(rig: Rig) -> None:
    await rig.produce("configmaps")
    warm = await rig.materializer()
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "large", "namespace": "default"},
        "data": {"content": '\u00e4\n"x" ' * 90_000},
    }
    await rig.request("POST", CONFIG_MAPS, body)
    entries = await rig.settled(warm, "/api/v1/configmaps", "", "configmaps")
    ours = json.loads(next(entry.body for entry in entries if entry.name == "large"))
    assert ours["data"] == body["data"]


async def test_a_restart_appends_nothing_for_what_is_the_same(rig: Rig) -> None:
    _, task = await rig.produce()
    log = await open_log(await rig.connection("test"))
    documents = [f"v3.{encode_token(name)}" for name in (await rig.request("GET", "/openapi/v3"))["paths"]]

    async def all_written() -> bool:
        """The last of what a start reads are OpenAPI's documents, which follow the lists."""
        return {f"kbc.alpha.openapi.{name}" for name in (*documents, "v2.json", "v2.protobuf")} <= await subjects(log)

    await eventually_awaited(all_written)
    warm = await rig.materializer()
    await rig.settled(warm, PODS, "", "pods")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    before = await log.head()
    deltas = {key: len(kind) for key, kind in warm.store.types.items()}
    producer, _ = await rig.produce()
    appended = [
        (str(informer.resource.group_resource), informer.counts)
        for informer in producer.clusters["alpha"].informers.values()
        if informer.counts.added or informer.counts.modified or informer.counts.deleted
    ]
    assert not appended
    assert sum(informer.counts.suppressed for informer in producer.clusters["alpha"].informers.values()) > 100
    assert deltas == {key: len(kind) for key, kind in warm.store.types.items()}
    # A new owner record and how its cluster is: no other control record is written again, no document.
    assert await subjects(log, before) <= {f"kbc.alpha.{record}" for record in ("owner", "health", "status")}
