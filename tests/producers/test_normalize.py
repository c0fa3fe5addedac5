"""Normalisation and pruning: what stays, what goes, and that nothing pruned comes in by another door."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalog.wire.kubernetes import CLUSTER_ANNOTATION
from deltalog.wire.resource_type import ResourceType
from producers.follow.normalize import Normalizer
from producers.rules.pruning import LAST_APPLIED, BadPointer, Pruning, blank, prune, segments
from producers.upstream.objects import Unusable, identify, raw_object

SECRETS = ResourceType(group="", resource="secrets", version="v1", kind="Secret")
PODS = ResourceType(group="", resource="pods", version="v1", kind="Pod")
WIDGETS = ResourceType(
    group="example.org", resource="widgets", version="v1", kind="Widget", selectable=(".spec.color", ".spec.size")
)


def secret(**more: Any) -> dict[str, Any]:
    metadata = {
        "name": "s",
        "namespace": "x",
        "uid": "u",
        "resourceVersion": "7",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"app": "a"},
        "ownerReferences": [{"uid": "o", "controller": True}],
        "annotations": {LAST_APPLIED: '{"data":{"password":"aHVudGVyMg=="}}', "note": "n"},
        "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:data": {"f:password": {}}}}],
    }
    data = {"password": "aHVudGVyMg==", "user": "YQ=="}
    return {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "type": "Opaque", "data": data, **more}


def normalized(of: dict[str, Any], kind: ResourceType = SECRETS, pruning: Pruning | None = None) -> Any:
    found = Normalizer("alpha", kind, pruning)(json.dumps(of, indent=2).encode())
    whole, metadata = json.loads(found.object), json.loads(found.object[found.version_offset - 1 : found.metadata_end])
    assert whole["metadata"] == metadata
    assert b"\n" not in found.object
    return found, whole


def only(*pointers: str, pattern: str = "secrets", **more: Any) -> Pruning:
    return Pruning(pointers=((pattern, pointers),), **more)


def test_the_usual_way() -> None:
    found, whole = normalized(secret())
    assert (found.namespace, found.name, found.uid, found.member_version, found.controller_uid) == (
        "x",
        "s",
        "u",
        "7",
        "o",
    )
    assert (found.created, found.labels, found.fields) == (1767323045, {"app": "a"}, {"type": "Opaque"})
    assert "managedFields" not in whole["metadata"]
    assert "resourceVersion" not in whole["metadata"]
    assert whole["metadata"]["annotations"][CLUSTER_ANNOTATION] == "alpha"
    assert LAST_APPLIED in whole["metadata"]["annotations"]
    assert whole["data"] == secret()["data"]
    assert Normalizer("alpha", SECRETS).mark == ""


def test_managed_fields_and_last_applied_on_request() -> None:
    _, whole = normalized(secret(), pruning=Pruning(managed_fields=False))
    assert whole["metadata"]["managedFields"] == secret()["metadata"]["managedFields"]
    _, whole = normalized(secret(), pruning=Pruning(last_applied=True))
    assert whole["metadata"]["annotations"] == {"note": "n", CLUSTER_ANNOTATION: "alpha"}


@pytest.mark.parametrize("pointer", ["/data", "/data/*"])
def test_keys_stay_and_values_go(pointer: str) -> None:
    found, whole = normalized(secret(), pruning=only(pointer, managed_fields=False))
    assert whole["data"] == {"password": "", "user": ""}
    assert b"aHVudGVyMg" not in found.object
    assert whole["metadata"]["annotations"] == {"note": "n", CLUSTER_ANNOTATION: "alpha"}
    # They hold values too: the keys of lists of objects.
    assert "managedFields" not in whole["metadata"]
    assert whole["type"] == "Opaque"


def test_other_types_are_left_alone() -> None:
    _, whole = normalized(secret(), PODS, only("/data"))
    assert whole["data"] == secret()["data"]
    assert LAST_APPLIED in whole["metadata"]["annotations"]
    assert Normalizer("alpha", PODS, only("/data")).mark == ""


def test_an_empty_value_of_each_type() -> None:
    spec = {"s": "x", "n": -1.5, "t": True, "f": False, "o": {"a": {"b": 1}}, "l": [1], "z": None, "left": 1}
    pointers = tuple(f"/spec/{key}" for key in spec if key != "left")
    _, whole = normalized(secret(spec=spec), pruning=only(*pointers))
    empty = {"s": "", "n": 0, "t": False, "f": False, "o": {"a": {"b": 0}}, "l": [], "z": None, "left": 1}
    assert whole["spec"] == empty


def test_annotations_may_be_pruned_and_lists_walked() -> None:
    spec = {"containers": [{"name": "a", "env": [{"name": "K", "value": "v"}]}, {"name": "b"}]}
    pointers = ("/spec/containers/*/env/*/value", "/spec/containers/1/name", "/nowhere/x")
    pruning = only("/metadata/annotations/note", *pointers)
    _, whole = normalized(secret(spec=spec), pruning=pruning)
    assert whole["metadata"]["annotations"] == {"note": "", CLUSTER_ANNOTATION: "alpha"}
    assert whole["spec"] == {"containers": [{"name": "a", "env": [{"name": "K", "value": ""}]}, {"name": ""}]}
    _, whole = normalized(secret(), pruning=only("/metadata/annotations/kubectl.kubernetes.io~1other", "/*/note"))
    assert whole["metadata"]["annotations"]["note"] == "n"


def test_a_pruned_field_selects_nothing() -> None:
    spec = {"nodeName": "node-1", "restartPolicy": "Always"}
    pod = {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": "Running"}}
    found, _ = normalized(pod, PODS, only("/spec/nodeName", pattern="pods"))
    assert found.fields == {"spec.restartPolicy": "Always", "spec.hostNetwork": "false", "status.phase": "Running"}
    widget = {"metadata": {"name": "w"}, "spec": {"color": "red", "size": 3}}
    found, _ = normalized(widget, WIDGETS, only("/*/size", pattern="*.example.org"))
    assert found.fields == {"spec.color": "red"}
    found, _ = normalized(widget, WIDGETS, only("/spec", pattern="widgets.*"))
    assert found.fields == {}


@pytest.mark.parametrize(
    "pointer",
    [
        *("", "data", "/~2", "/data~", "/kind", "/apiVersion", "/*", "/metadata", "/metadata/*", "/metadata/name"),
        *("/metadata/labels/app", "/metadata/ownerReferences/0/uid", "/*/uid", "/*/*", "/metadata/deletionTimestamp"),
    ],
)
def test_the_error_of_a_bad_pointer_names_the_remedy(pointer: str) -> None:
    with pytest.raises(BadPointer, match=r": (it begins with|write|begin with)") as raised:
        only(pointer)
    assert "\n" not in str(raised.value)


def test_marks_differ_between_ways_of_pruning() -> None:
    ways = [
        Pruning(last_applied=True),
        Pruning(managed_fields=False),
        only("/data"),
        only("/data/*"),
        only("/data", "/stringData"),
    ]
    marks = [Normalizer("alpha", SECRETS, way).mark for way in ways]
    assert len(set(marks)) == len(ways)
    assert all(len(mark) == 8 for mark in marks)
    both = Pruning(pointers=(("secrets", ("/stringData",)), ("*", ("/data", "/data"))))
    assert Normalizer("alpha", SECRETS, both).mark == marks[-1]


def test_what_is_no_object_is_unusable() -> None:
    for raw in (b"", b"[]", b"{}", b'{"metadata":[]}', b'{"metadata":{"name":3}}', b'{"metadata":{"name":null}}', b"{"):
        with pytest.raises(Unusable):
            Normalizer("alpha", PODS)(raw)
    with pytest.raises(Unusable):
        identify(raw_object(b"{}"))
    assert identify(raw_object(b' {"metadata" : {"name": "n"} }\n')).name == "n"


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc*/~0"), inner, max_size=4),
    max_leaves=12,
)
steps = st.lists(st.sampled_from(["a", "b", "c", "*", "/", "~", "0", "1"]), min_size=1, max_size=4).map(tuple)


def emptied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: emptied(inner) for key, inner in value.items()}
    return None if value is None else type(value)()


def expected(value: Any, paths: set[tuple[str, ...]]) -> Any:
    """The definition, as plainly as can be: each place in the value asks each pointer."""
    if any(not path for path in paths):
        return emptied(value)

    def below(key: str) -> set[tuple[str, ...]]:
        return {path[1:] for path in paths if path[0] in (key, "*")}

    if isinstance(value, dict):
        return {key: expected(inner, below(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [expected(inner, below(str(at))) for at, inner in enumerate(value)]
    return value


def tree_of(paths: set[tuple[str, ...]]) -> Any:
    pointers = tuple("/spec/" + "/".join(step.replace("~", "~0").replace("/", "~1") for step in path) for path in paths)
    assert {segments(pointer)[1:] for pointer in pointers} == paths
    return Pruning(pointers=(("*", pointers),)).of(PODS)


@given(values, st.sets(steps, min_size=1, max_size=4), st.booleans())
def test_pointers_walk_as_defined(value: Any, paths: set[tuple[str, ...]], spaced: bool) -> None:
    pruned = tree_of(paths)
    raw = msgspec.Raw(json.dumps(value, indent=1 if spaced else None).encode())
    assert json.loads(bytes(prune(raw, pruned.tree["spec"]))) == expected(value, paths)
    assert json.loads(bytes(blank(raw))) == emptied(value)


@given(st.sets(steps, min_size=1, max_size=4), steps)
def test_a_field_is_covered_where_its_value_is_pruned(paths: set[tuple[str, ...]], field: tuple[str, ...]) -> None:
    value: Any = "text"
    for step in reversed(field):
        value = {step: value}
    gone = "text" not in json.dumps(expected(value, paths))
    assert tree_of(paths).covers(("spec", *field)) == gone
