"""The parts of the registry that work without one: validation, garbage collection, managedFields, patches."""

from __future__ import annotations

from typing import Any

import pytest

from simulation.registry import WriteOptions
from simulation.registry.garbage import GarbageCollector
from simulation.registry.managed_fields import field_set, record_write
from simulation.registry.patches import patched
from simulation.registry.validation import checked_body, validate_name
from simulation.resources import BUILT_IN, SimulatedType
from simulation.status import StatusError
from simulation.storage import ClusterStorage, StoredObject

TYPES = {type.resource: type for type in BUILT_IN}
MAPS = TYPES["configmaps"]


@pytest.mark.parametrize(
    ("resource", "name", "valid"),
    [
        ("configmaps", "a.b-c", True),
        ("configmaps", "A", False),
        ("configmaps", "a" * 254, False),
        ("namespaces", "a.b", False),
        ("namespaces", "a" * 64, False),
        ("clusterroles", "system:Node%", False),
        ("clusterroles", "system:Node", True),
        ("clusterroles", "..", False),
    ],
)
def test_names(resource: str, name: str, valid: bool) -> None:
    if valid:
        validate_name(TYPES[resource], name)
    else:
        with pytest.raises(StatusError) as refused:
            validate_name(TYPES[resource], name)
        assert refused.value.code == 422


def test_a_body_takes_namespace_and_name_of_its_path() -> None:
    given = {"metadata": {"labels": {}, "annotations": {"a": "b"}}, "spec": None, "data": {"x": "1"}}
    checked = checked_body(MAPS, "shop", given, WriteOptions(), "a")
    assert checked == {"metadata": {"annotations": {"a": "b"}, "namespace": "shop", "name": "a"}, "data": {"x": "1"}}
    assert given["metadata"] == {"labels": {}, "annotations": {"a": "b"}}


class Owners:
    """A storage of ConfigMaps that own each other, and a collector that deletes in it."""

    def __init__(self) -> None:
        self.storage = ClusterStorage()
        self.maps = self.storage.add_type(MAPS)
        self.garbage = GarbageCollector(self.storage, self._delete)

    def _delete(self, type: SimulatedType, namespace: str, name: str) -> None:
        removed = self.storage.remove(self.storage.collections[type.key], namespace, name)
        assert removed is not None
        self.garbage.cascade(removed.uid)

    def add(self, name: str, *owners: StoredObject, namespace: str = "shop") -> StoredObject:
        references = [{"kind": "ConfigMap", "name": owner.name, "uid": owner.uid} for owner in owners]
        metadata: dict[str, Any] = {"name": name, "namespace": namespace, "uid": self.storage.new_uid()}
        return self.storage.put(self.maps, {"metadata": {**metadata, "ownerReferences": references}})

    def remove(self, stored: StoredObject) -> None:
        self.storage.remove(self.maps, *stored.key)

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.maps.objects]


def test_dependents_go_with_their_last_owner() -> None:
    owners = Owners()
    first, second = owners.add("first"), owners.add("second")
    child = owners.add("child", first)
    owners.add("grandchild", child)
    owners.add("shared", first, second)
    owners.remove(first)
    owners.garbage.cascade(first.uid)
    assert owners.names == ["second", "shared"]
    assert list(owners.maps.objects[("shop", "shared")].owners) == [second.uid]
    owners.remove(second)
    owners.garbage.orphan(second.uid)
    assert list(owners.maps.objects[("shop", "shared")].owners) == []
    owners.storage.check()


def test_a_namespace_is_emptied_with_what_depends_on_it() -> None:
    owners = Owners()
    inside = owners.add("inside")
    owners.add("outside", inside, namespace="other")
    owners.add("apart", namespace="other")
    owners.garbage.empty_namespace("shop")
    assert owners.names == ["apart"]
    owners.storage.check()


def test_the_fields_of_keyed_lists() -> None:
    assert field_set({"ports": [{"port": 80}], "args": ["a"], "empty": {}}) == {
        "f:ports": {".": {}, 'k:{"port":80}': {".": {}, "f:port": {}}},
        "f:args": {},
        "f:empty": {},
    }


def test_a_manager_has_one_entry_for_each_way_of_writing() -> None:
    deployments = TYPES["deployments"]
    body: dict[str, Any] = {"metadata": {"name": "a"}, "spec": {"replicas": 1}, "status": {"replicas": 1}}
    record_write(deployments, body, None, WriteOptions("me"), "t1")
    record_write(deployments, body, body, WriteOptions("me"), "t2", subresource="status")
    record_write(deployments, body, body, WriteOptions("me"), "t3", applying=True)
    record_write(deployments, body, body, WriteOptions("me"), "t4")
    entries = body["metadata"]["managedFields"]
    assert [(one["operation"], one.get("subresource"), one["time"]) for one in entries] == [
        ("Update", "status", "t2"),
        ("Apply", None, "t3"),
        ("Update", None, "t4"),
    ]
    assert entries[0]["fieldsV1"] == {"f:status": {".": {}, "f:replicas": {}}}
    assert entries[2]["fieldsV1"] == {"f:spec": {".": {}, "f:replicas": {}}}


def test_patches_by_content_type() -> None:
    before = {"spec": {"a": 1, "containers": [{"name": "x", "image": "1"}, {"name": "y"}]}}
    patch = {"spec": {"a": None, "containers": [{"name": "x", "image": "2"}]}}
    merged = patched("application/merge-patch+json", before, patch, custom=True)
    assert merged == {"spec": {"containers": [{"name": "x", "image": "2"}]}}
    strategic = patched("application/strategic-merge-patch+json", before, patch, custom=False)
    assert strategic == {"spec": {"containers": [{"name": "x", "image": "2"}, {"name": "y"}]}}
    for content_type, given, custom, code in (
        ("application/strategic-merge-patch+json", patch, True, 415),
        ("application/json", patch, False, 415),
        ("application/merge-patch+json", [], False, 400),
        ("application/json-patch+json", {}, False, 400),
        ("application/json-patch+json", [{"op": "remove", "path": "/absent"}], False, 422),
    ):
        with pytest.raises(StatusError) as refused:
            patched(content_type, before, given, custom=custom)
        assert refused.value.code == code
