"""The storage as a Python API: reading, watching, cleaning, events, what was deleted."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

import pytest

from deltalog.wire.kubernetes import GroupResource
from kubebraid.client.replica import Deleted, Expired, Storage
from materializer.cursor import ShownChange
from materializer.entry import object_key
from materializer.filter import Filter
from materializer.materializer import Materializer
from materializer.versions import BrokenVersions, parse_version
from tests.patience import PATIENCE
from tests.producers.conftest import Rig

T = TypeVar("T")
PATH = "/api/v1/namespaces/default/configmaps"
ONE = Filter(clusters=frozenset({"alpha"}), namespaces=frozenset({"default"}))


@pytest.fixture
async def storage(rig: Rig) -> AsyncIterator[Storage]:
    await rig.produce("configmaps", "pods", "events")
    async with Storage.connect(rig.broker.url) as made:
        yield made


async def upto(watching: AsyncIterator[ShownChange], name: str) -> list[tuple[str, str]]:
    """Changes until one of this name; without those of others' making."""
    found = []
    async with asyncio.timeout(PATIENCE):
        async for change in watching:
            found.append((change.type, change.entry.name))
            if change.entry.name == name:
                return found
    raise AssertionError("the watch ended")


async def test_lists_and_watches(rig: Rig, storage: Storage) -> None:
    config_maps = storage.resource("", "configmaps")
    entries, version = await config_maps.list(ONE)
    held = {entry.name for entry in entries}
    watching = config_maps.watch(ONE, version)
    await rig.request("POST", PATH, {"metadata": {"name": "api"}})
    assert await upto(watching, "api") == [("ADDED", "api")]
    one = await config_maps.get("alpha", "default", "api")
    assert one is not None
    await rig.request("DELETE", f"{PATH}/api")
    assert await upto(watching, "api") == [("DELETED", "api")]
    await watching.aclose()
    deleted = config_maps.convert_deleted_object("alpha", "default", "api")
    assert isinstance(deleted, Deleted)
    assert deleted.final
    assert json.loads(deleted.body)["metadata"]["resourceVersion"] == deleted.version
    assert config_maps.convert_deleted_object("alpha", "default", "never") is None

    present = config_maps.watch(ONE)
    shown = [change async for change, _ in _zip(present, held)]
    assert {change.entry.name for change in shown} == held
    assert {change.type for change in shown} == {"ADDED"}
    await present.aclose()

    for odd in ("nonsense", f"other.{parse_version(version).index}"):
        with pytest.raises(Expired):
            await anext(config_maps.watch(ONE, odd))


async def test_watches_begin_at_any_form_of_version(rig: Rig, storage: Storage) -> None:
    config_maps = storage.resource("", "configmaps")
    held = {entry.name for entry in (await config_maps.list(ONE))[0]}
    present = config_maps.watch(ONE, "0")
    assert {change.entry.name async for change, _ in _zip(present, held)} == held
    await present.aclose()
    there = (await rig.request("GET", "/api/v1/configmaps"))["metadata"]["resourceVersion"]
    text = json.dumps({"alpha": there})
    watches = [config_maps.watch(ONE, form) for form in (text, base64.b64encode(text.encode()).decode())]
    await rig.request("POST", PATH, {"metadata": {"name": "forms"}})
    for watching in watches:
        assert await upto(watching, "forms") == [("ADDED", "forms")]
        await watching.aclose()
    with pytest.raises(Expired):
        await asyncio.wait_for(anext(config_maps.watch(Filter(), '{"nobody":"1"}')), PATIENCE)
    with pytest.raises(BrokenVersions):
        await asyncio.wait_for(anext(config_maps.watch(ONE, '{"alpha":1')), PATIENCE)


async def test_what_fails_in_it_ends_the_block(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch in it would wait for ever otherwise."""
    broken = Materializer(storage.materializer.log)

    class Broken(Exception):
        pass

    async def fails() -> None:
        broken.ready.set()
        await asyncio.sleep(0.05)
        raise Broken

    monkeypatch.setattr(broken, "run", fails)
    with pytest.raises(Broken):
        async with asyncio.timeout(PATIENCE), Storage.over(broken):
            await asyncio.Event().wait()


async def _zip(watching: AsyncIterator[ShownChange], of: Iterable[T]) -> AsyncIterator[tuple[ShownChange, T]]:
    for one in of:
        yield await anext(watching), one


async def test_versions_configuration_and_verbs(rig: Rig, storage: Storage) -> None:
    versions = storage.get_resource_versions("alpha")
    listed = (await rig.request("GET", "/api/v1/pods"))["items"]
    assert versions[GroupResource("", "pods")] == {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["metadata"]["resourceVersion"] for one in listed
    }
    assert storage.get_resource_versions("nobody") == {}
    config = storage.resource("", "pods").get_storage_config()
    assert config is not None
    assert (config.kind, config.namespaced, config.versions) == ("Pod", True, {"alpha": "v1"})
    assert storage.resource("nothing.io", "nothings").get_storage_config() is None
    assert {"get", "list", "watch"} <= set(storage.get_supported_request_verbs())


async def test_writes_are_readable_when_they_return(rig: Rig, storage: Storage) -> None:
    rig.cluster.faults.hang_watches()
    config_maps = storage.resource("", "configmaps")
    made = await rig.request("POST", PATH, {"metadata": {"name": "own"}})
    await config_maps.create("alpha", json.dumps(made).encode())
    kind = storage.materializer.store.types[GroupResource("", "configmaps")]
    own = object_key("default", "own")
    entry = kind.get("alpha", own)
    assert entry is not None
    assert entry.member_version == made["metadata"]["resourceVersion"]
    changed = await rig.request("PATCH", f"{PATH}/own", {"data": {"a": "b"}}, "application/merge-patch+json")
    version = await config_maps.update("alpha", json.dumps(changed).encode())
    entry = kind.get("alpha", own)
    assert entry is not None
    assert entry.index == parse_version(version).index
    changed["metadata"]["resourceVersion"] = str(int(changed["metadata"]["resourceVersion"]) + 1)
    await config_maps.delete("alpha", json.dumps(changed).encode())
    assert kind.get("alpha", own) is None


async def test_events_of_an_object(rig: Rig, storage: Storage) -> None:
    (pod, *_), _ = await storage.resource("", "pods").list()
    event = {
        "metadata": {"name": "pulled.1", "namespace": pod.namespace},
        "involvedObject": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
        "reason": "Pulled",
        "type": "Normal",
    }
    made = await rig.request("POST", f"/api/v1/namespaces/{pod.namespace}/events", event)
    await storage.resource("", "pods").record_event("alpha", json.dumps(made).encode())
    found = storage.resource("", "pods").events(pod)
    assert [json.loads(one.body)["reason"] for one in found][-1] == "Pulled"
    assert all(json.loads(one.body)["involvedObject"]["uid"] == pod.uid for one in found)


async def test_cleaning(rig: Rig, storage: Storage) -> None:
    """Where nobody follows the cluster any more."""
    await storage.prepare_cluster("beta")
    assert "beta" in storage.clusters()
    before = await storage.materializer.log.last("kbc.beta.>")
    assert before is not None
    await storage.prepare_cluster("beta")
    assert storage.materializer.store.clusters["beta"].producer
    assert await storage.materializer.log.last("kbc.beta.>") == before, "it was known"
    await storage.clean_cluster("beta")
    assert "beta" not in storage.clusters()
    assert storage.get_resource_versions("beta") == {}


async def test_cleaning_what_has_objects(rig: Rig) -> None:
    task = await rig.start_producer("configmaps", "pods")
    async with Storage.connect(rig.broker.url) as storage:
        await rig.settled(storage.materializer, "/api/v1/pods", "", "pods")
        await rig.settled(storage.materializer, "/api/v1/configmaps", "", "configmaps")
        task.cancel()
        await asyncio.wait((task,))
        pods = storage.resource("", "pods")
        entries, version = await pods.list()
        watching = pods.watch(Filter(), version)
        await storage.clean_cluster_resource("alpha", "", "pods")
        async with asyncio.timeout(PATIENCE):
            gone = {(await anext(watching)).entry.name for _ in entries}
        assert gone == {entry.name for entry in entries}
        assert (await pods.list())[0] == []
        assert set(storage.get_resource_versions("alpha")) == {("", "configmaps")}
        await storage.clean_cluster("alpha")
        assert storage.clusters() == []
        cold = await rig.materializer()
        assert cold.store.clusters == {}
        await watching.aclose()
