"""Objects larger than a message: compressed, then in parts; exact on the other side, and nothing left over."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from deltalog.wire.kubernetes import GroupResource
from materializer.entry import Entry, object_key
from materializer.materializer import Materializer
from tests.ageing import state_at
from tests.producers.conftest import Rig

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def max_payload() -> int:
    return 64 * 1024


def object_without_version(item: dict[str, Any]) -> dict[str, Any]:
    item = dict(json.loads(json.dumps(item)))
    for key in ("resourceVersion", "managedFields"):
        item["metadata"].pop(key, None)
    item["metadata"].pop("annotations", None)
    return item


def config_map(name: str, content: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"content": content},
    }


def noise(size: int, seed: int) -> str:
    return random.Random(seed).randbytes(size // 2).hex()


async def parts_in(rig: Rig) -> int:
    """How many the state has; the events keep them for a while."""
    log = (await rig.materializer()).log
    await state_at(log, await log.head())
    info = await log.connection.api(f"STREAM.INFO.{log.name}_STATE", {"subjects_filter": "kbp.>"})
    return len(json.loads(bytes(info))["state"].get("subjects") or {})


async def entry_of(rig: Rig, materializer: Materializer, name: str) -> Entry:
    entries = await rig.settled(materializer, "/api/v1/configmaps", "", "configmaps")
    return next(entry for entry in entries if entry.name == name)


async def test_round_trip_of_every_size(rig: Rig) -> None:
    await rig.request("POST", CONFIG_MAPS, config_map("repetitive", "x" * 500_000))
    await rig.request("POST", CONFIG_MAPS, config_map("noisy", noise(900_000, 1)))
    await rig.produce("configmaps")
    warm = await rig.materializer()
    for name in ("repetitive", "noisy"):
        theirs = await rig.request("GET", f"{CONFIG_MAPS}/{name}")
        ours = json.loads((await entry_of(rig, warm, name)).body)
        assert object_without_version(ours) == object_without_version(theirs)
    assert await parts_in(rig) > 3

    # Changed while followed: a new set of parts, the old one purged.
    await rig.request("PUT", f"{CONFIG_MAPS}/noisy", config_map("noisy", noise(700_000, 2)))
    changed = await entry_of(rig, warm, "noisy")
    assert json.loads(changed.body)["data"]["content"] == noise(700_000, 2)
    cold = await rig.materializer()
    assert (await entry_of(rig, cold, "noisy")).body == changed.body

    # Small again: no parts.
    await rig.request("PUT", f"{CONFIG_MAPS}/noisy", config_map("noisy", "little"))
    await entry_of(rig, warm, "noisy")
    await rig.request("PUT", f"{CONFIG_MAPS}/repetitive", config_map("repetitive", "little"))
    await entry_of(rig, warm, "repetitive")
    assert await parts_in(rig) == 0


async def test_a_large_object_deleted_leaves_a_tombstone_and_no_parts(rig: Rig) -> None:
    await rig.request("POST", CONFIG_MAPS, config_map("noisy", noise(900_000, 3)))
    producer, task = await rig.produce("configmaps")
    warm = await rig.materializer()
    await entry_of(rig, warm, "noisy")
    await rig.request("DELETE", f"{CONFIG_MAPS}/noisy")
    await rig.settled(warm, "/api/v1/configmaps", "", "configmaps")
    grave = warm.store.types[GroupResource("", "configmaps")].tombstones["alpha"][object_key("default", "noisy")]
    assert json.loads(grave.body)["metadata"]["name"] == "noisy"
    # A restart reads back by headers, also of what was in parts, and appends nothing.
    await rig.request("POST", CONFIG_MAPS, config_map("again", noise(200_000, 4)))
    await entry_of(rig, warm, "again")
    task.cancel()
    producer, _ = await rig.produce("configmaps")
    informer = producer.clusters["alpha"].informers[GroupResource("", "configmaps")]
    assert (informer.counts.added, informer.counts.modified, informer.counts.deleted) == (0, 0, 0)
