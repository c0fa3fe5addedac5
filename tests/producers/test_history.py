"""The log cut, restored from an older copy or made anew behind running instances: one new name, all of the state."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from deltalog import LogSettings
from deltalog.wire.kubernetes import GroupResource
from kubebraid.command.broker import EmbeddedBroker
from materializer import timing as materializer_timing
from materializer.filter import Filter
from materializer.materializer import Materializer
from producers.timing import ProducerTiming
from tests.ageing import cut, cut_one
from tests.patience import eventually
from tests.producers.conftest import Rig

PODS = "/api/v1/pods"
KEY = GroupResource("", "pods")


@pytest.fixture(autouse=True)
def attentive(rig: Rig) -> None:
    rig.materializer_timing = materializer_timing.Timing(look_every=0.5)
    rig.timing = ProducerTiming(look_at_history_every=0.5)


async def running(rig: Rig) -> list[Materializer]:
    """Two instances and a producer, with everything in the log and changes behind them."""
    await rig.produce("pods", "nodes", "configmaps")
    instances = [await rig.materializer(), await rig.materializer()]
    rig.cluster.churn.step(30)
    await rig.settled(instances[0], PODS, "", "pods")
    return instances


async def renamed(rig: Rig, instances: list[Materializer], old: str) -> str:
    """Waits until all instances have one new name and the whole state; what a newcomer sees is the same."""
    await eventually(lambda: all(one.generation and one.ready.is_set() for one in instances))
    await eventually(lambda: len({one.store.prefix for one in instances}) == 1)
    for one in instances:
        await rig.settled(one, PODS, "", "pods", 60.0)
    await asyncio.sleep(1.5)
    (new,) = {one.store.prefix for one in instances}
    assert new != old
    cold = await rig.materializer()
    assert cold.store.prefix == new
    listed = [entry.body for entry in cold.store.types[KEY].select(Filter())]
    for one in instances:

        def caught_up(one: Materializer = one) -> bool:
            return one.store.applied >= cold.store.applied

        await eventually(caught_up)
        assert [entry.body for entry in one.store.types[KEY].select(Filter())] == listed
    return new


async def test_a_purge_of_everything(rig: Rig) -> None:
    instances = await running(rig)
    old = instances[0].store.prefix
    log = instances[0].log
    await cut(log, ">", await log.head() + 1)
    await renamed(rig, instances, old)


async def test_a_purge_of_objects_alone(rig: Rig) -> None:
    """The owner's record stays, so that no append is refused: the producers notice by the name."""
    instances = await running(rig)
    old = instances[0].store.prefix
    log = instances[0].log
    await cut(log, "kb.alpha.*.*.pods.>", await log.head() + 1)
    await renamed(rig, instances, old)


async def test_one_message_that_is_deleted(rig: Rig) -> None:
    instances = await running(rig)
    old = instances[0].store.prefix
    log = instances[0].log
    entry = instances[0].store.types[KEY].select(Filter())[3]
    await cut_one(log, entry.index)
    await renamed(rig, instances, old)


@pytest.mark.parametrize("chosen", [None, "prod"])
async def test_a_stream_that_is_made_anew(rig: Rig, chosen: str | None) -> None:
    """Under the same chosen name too: versions of the old one must not be taken for its own."""
    rig.settings = LogSettings(prefix=chosen)
    instances = await running(rig)
    old = instances[0].store.prefix
    log = instances[0].log
    await log.connection.api(f"STREAM.DELETE.{log.name}")
    await renamed(rig, instances, old)


async def test_an_older_copy_of_the_files(rig: Rig, tmp_path: Path) -> None:
    instances = await running(rig)
    data = tmp_path / "data"
    broker: EmbeddedBroker = rig.broker
    await broker.stop()
    shutil.copytree(data / "nats", tmp_path / "copy")
    await broker.start()
    rig.cluster.churn.step(60)
    await rig.settled(instances[0], PODS, "", "pods")
    assert not any(one.generation for one in instances), "a restart without loss is no other history"
    old = instances[0].store.prefix
    await broker.stop()
    shutil.rmtree(data / "nats")
    shutil.copytree(tmp_path / "copy", data / "nats")
    await broker.start()
    await renamed(rig, instances, old)


async def test_what_expires_or_is_superseded_is_no_loss(rig: Rig) -> None:
    rig.settings = LogSettings(tombstone_ttl=2)
    instances = await running(rig)
    path = "/api/v1/namespaces/default/configmaps"
    for name in "abc":
        await rig.request("POST", path, {"metadata": {"name": name}})
        await rig.request("DELETE", f"{path}/{name}")
    for _ in range(6):
        rig.cluster.churn.step(20)
        await asyncio.sleep(1)
    await rig.settled(instances[0], PODS, "", "pods")
    assert not any(one.generation for one in instances)
