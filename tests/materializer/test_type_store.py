"""One type's objects: which of them a selection is answered with, and from what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sortedcontainers import SortedDict

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from materializer import indexes
from materializer.entry import Entry, object_key
from materializer.filter import Filter
from materializer.store import Store
from materializer.type_store import TypeStore
from tests.stable_ids import stable

PODS = GroupResource("", "pods")
Make = Callable[..., Any]
# Neighbours of namespace x in the order of texts.
PLACES = [
    *[("alpha", namespace, name) for namespace in ("", "w", "x", "x-y", "y") for name in ("m", "n")],
    *[("beta", namespace, name) for namespace in ("x", "y") for name in ("n", "o")],
]


def filled(delta: Make, *, loading: bool) -> TypeStore:
    store = Store("h", 100)
    if not loading:
        store.finish_loading(0)
    for index, (cluster, namespace, name) in enumerate(reversed(PLACES), 1):
        labels = {"app": "a"} if name == "n" else {}
        store.apply_delta(delta(name, cluster=cluster, namespace=namespace, uid=str(index), labels=labels), index, 0)
    return store.types[PODS]


def places(entries: list[Entry]) -> list[tuple[str, str, str]]:
    return [(entry.cluster, entry.namespace, entry.name) for entry in entries]


@pytest.mark.parametrize("loading", [False, True])
@pytest.mark.parametrize("worthwhile", [-1, 2000])
def test_selections(delta: Make, loading: bool, worthwhile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "WORTHWHILE", worthwhile)
    type_store = filled(delta, loading=loading)
    if loading:
        type_store.sort()
    for given in (
        {},
        {"clusters": {"alpha"}},
        {"clusters": {"beta", "gamma"}},
        {"namespaces": {"x"}},
        {"namespaces": {"y", "x"}},
        {"namespaces": {""}},
        {"namespaces": {"x", "z"}, "clusters": {"alpha"}},
        {"names": {"n"}},
        {"names": {"n", "m"}, "namespaces": {"y", "x"}},
        {"names": {"n", "m"}, "namespaces": {"y", "x"}, "clusters": {"beta", "gamma"}},
    ):
        sets: dict[str, Any] = {key: frozenset(value) for key, value in given.items()}
        wanted = Filter(**sets)
        expected = [
            (cluster, namespace, name)
            for cluster, namespace, name in sorted(PLACES)
            if cluster in given.get("clusters", {cluster})
            and namespace in given.get("namespaces", {namespace})
            and name in given.get("names", {name})
        ]
        assert places(type_store.select(wanted)) == expected, given
        labelled = Filter(**sets, labels=parse_labels("app=a"))
        assert places(type_store.select(labelled)) == [one for one in expected if one[2] == "n"], given


def test_in_the_first_replay_a_selection_has_no_order(delta: Make) -> None:
    type_store = filled(delta, loading=True)
    found = places(type_store.select(Filter(namespaces=frozenset({"x"}))))
    assert sorted(found) == [one for one in PLACES if one[1] == "x"]


def test_names_are_sorted_once_the_first_replay_is_over(delta: Make) -> None:
    type_store = filled(delta, loading=True)
    assert [type(objects) for objects in type_store.clusters.values()] == [dict, dict]
    type_store.sort()
    assert [type(objects) for objects in type_store.clusters.values()] == [SortedDict, SortedDict]
    assert isinstance(type_store.objects("gamma"), SortedDict)
    alpha = type_store.clusters["alpha"]
    type_store.sort()
    assert type_store.clusters["alpha"] is alpha
    assert type_store.objects("alpha") is alpha
    assert list(alpha) == [object_key(namespace, name) for cluster, namespace, name in PLACES if cluster == "alpha"]
    assert len(type_store) == len(PLACES) == len(list(type_store.live()))


def test_one_object(delta: Make) -> None:
    type_store = filled(delta, loading=False)
    found = type_store.get("beta", object_key("x", "o"))
    assert found is not None
    assert places([found]) == [("beta", "x", "o")]
    assert type_store.get("beta", object_key("x", "m")) is None
    assert type_store.get("gamma", object_key("x", "n")) is None


@pytest.mark.parametrize(
    ("given", "covered"),
    [
        ({"labels": parse_labels("app")}, 14),
        ({"labels": parse_labels("app"), "clusters": frozenset({"alpha"})}, 10),
        ({"labels": parse_labels("app"), "namespaces": frozenset({"x"})}, 4),
        ({"labels": parse_labels("app"), "namespaces": frozenset({"x", "w", ""}), "clusters": frozenset({"alpha"})}, 6),
    ],
    ids=stable,
)
def test_an_index_is_made_where_many_would_have_to_be_looked_through(
    delta: Make, given: dict[str, Any], covered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_store = filled(delta, loading=False)
    monkeypatch.setattr(indexes, "WORTHWHILE", covered)
    type_store.select(Filter(**given))
    assert len(type_store.indexes) == 0
    monkeypatch.setattr(indexes, "WORTHWHILE", covered - 1)
    type_store.select(Filter(**given))
    assert len(type_store.indexes) == 1
    # What is all there is needs none.
    monkeypatch.setattr(indexes, "WORTHWHILE", -1)
    type_store.select(Filter())
    assert len(type_store.indexes) == 1


@pytest.mark.parametrize(("selected", "looked_through"), [(7, 7), (8, 14)])
def test_an_index_is_used_where_it_leaves_at_most_half(
    delta: Make, selected: int, looked_through: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "WORTHWHILE", -1)
    store = Store("h", 100)
    store.finish_loading(0)
    for index in range(1, 15):
        labels = {"app": "a"} if index <= selected else {}
        store.apply_delta(delta(f"n{index:02}", uid=str(index), labels=labels), index, 0)
    looked: list[str] = []

    def noted(wanted: Filter, entries: Sequence[Entry]) -> list[Entry]:
        looked.extend(entry.name for entry in entries)
        return [entry for entry in entries if wanted.selects(entry)]

    monkeypatch.setattr(Filter, "chosen", noted)
    found = store.types[PODS].select(Filter(labels=parse_labels("app=a")))
    assert [entry.name for entry in found] == [f"n{index:02}" for index in range(1, selected + 1)]
    assert len(looked) == looked_through


@pytest.mark.parametrize(
    ("given", "looked_through"),
    [
        ({}, 0),
        ({"clusters": frozenset({"beta"})}, 0),
        ({"namespaces": frozenset({"x"})}, 0),
        ({"namespaces": frozenset({"x", "w"}), "clusters": frozenset({"alpha"})}, 0),
        ({"namespaces": frozenset({"x"}), "not_names": frozenset({"m"})}, 4),
        ({"namespaces": frozenset({"x"}), "names": frozenset({"m", "o"})}, 2),
        ({"names": frozenset({"m"})}, 14),
    ],
    ids=stable,
)
def test_how_many_are_looked_through(
    delta: Make, given: dict[str, Any], looked_through: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_store = filled(delta, loading=False)
    looked: list[str] = []

    def noted(_: Filter, entries: Sequence[Entry]) -> list[Entry]:
        looked.extend(entry.name for entry in entries)
        return []

    monkeypatch.setattr(Filter, "chosen", noted)
    type_store.select(Filter(**given))
    assert len(looked) == looked_through
