"""One type's objects: which of them a selection is answered with, and from what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sortedcontainers import SortedDict

from deltalog.wire.delta import DELETED
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from deltalog.wire.subjects import REMOVED
from materializer import burying, indexes
from materializer.burying import bury
from materializer.entry import Entry, object_key
from materializer.filter import Filter, Spaces
from materializer.order import Removal
from materializer.store import Store
from materializer.type_store import TypeStore, _many
from materializer.window import WINDOW_BYTES
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


@pytest.mark.parametrize("loading", [False, True])
def test_selections_by_spaces_and_by_parts_of_names(delta: Make, loading: bool) -> None:
    type_store = filled(delta, loading=loading)
    few, many = frozenset({"x"}), frozenset({"x", "w", "u", "v"})
    for spaces in (few, many):
        found = type_store.select(Filter(spaces=Spaces({"alpha": spaces})))
        assert sorted(places(found)) == [one for one in sorted(PLACES) if one[0] == "beta" or one[1] in spaces]
    for part in ("o", "x"):
        found = type_store.select(Filter(parts=(part,)))
        assert sorted(places(found)) == [one for one in sorted(PLACES) if part in one[2]]


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
        ({"labels": parse_labels("app"), "spaces": Spaces({"alpha": frozenset({"x"})})}, 6),
        # Of many namespaces among few objects it is not worth while to count.
        ({"labels": parse_labels("app"), "namespaces": frozenset({"x", "w", "", "u"})}, 14),
    ],
    ids=stable,
)
@pytest.mark.parametrize("prepared", [False, True])
def test_an_index_is_made_where_many_would_have_to_be_looked_through(
    delta: Make, given: dict[str, Any], covered: int, prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_store = filled(delta, loading=False)

    def asked(wanted: Filter) -> int:
        made = list(type_store.prepare(wanted)) if prepared else type_store.select(wanted)
        assert isinstance(made, list)
        return len(type_store.indexes)

    monkeypatch.setattr(indexes, "WORTHWHILE", covered)
    assert asked(Filter(**given)) == 0
    # What is all there is needs none, nor what is called by name.
    monkeypatch.setattr(indexes, "WORTHWHILE", -1)
    assert asked(Filter()) == 0
    named = Filter(names=frozenset({"n"}), namespaces=frozenset({"x"}), labels=parse_labels("app"))
    assert asked(named) == 0
    monkeypatch.setattr(indexes, "WORTHWHILE", covered - 1)
    assert asked(Filter(**given)) == 1


def test_while_names_are_in_no_order_namespaces_are_not_counted(delta: Make) -> None:
    wanted = Filter(names=frozenset({"n"}), spaces=Spaces({"alpha": frozenset({"x"})}))
    assert len(filled(delta, loading=True).select(wanted)) == 3


@pytest.mark.parametrize(("namespaces", "objects", "many"), [(3, 1, False), (4, 128, True), (4, 129, False)])
def test_many_namespaces_among_few_objects(namespaces: int, objects: int, many: bool) -> None:
    assert _many(frozenset(map(str, range(namespaces))), range(objects)) is many


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
        # By the first part, and the namespaces have that letter, too, or not.
        ({"parts": ("m", "u")}, 5),
        ({"parts": ("x",)}, 6),
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
    scanned = type_store.scan(Filter(**given))
    assert (scanned.whole, scanned.ordered) == (not looked_through, True)
    type_store.select(Filter(**given))
    assert len(looked) == looked_through


@pytest.mark.parametrize("changed", [64, 65])
@pytest.mark.parametrize("indexed", [False, True])
def test_a_list_of_then_is_in_order(delta: Make, changed: int, indexed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few are put into their places; with more, or among what is in no order, all are sorted."""
    monkeypatch.setattr(indexes, "WORTHWHILE", -1 if indexed else 2000)
    store = Store("h", 100, WINDOW_BYTES)
    store.finish_loading(0)
    for index in range(1, 201):
        labels = {"app": "a"} if index % 2 else {}
        store.apply_delta(delta(f"n{index * 77 % 211:03}", uid=str(index), labels=labels), index, 0)
    for number in range(1, changed + 1):
        made = delta(f"n{number * 77 % 211:03}", uid=str(number), uid_index=number, member_version="2")
        store.apply_delta(made, 200 + number, 0)
    pods = store.types[PODS]
    wanted = Filter(labels=parse_labels("app=a"))
    found = pods.as_of(200, wanted)
    names = [entry.name for entry in found]
    assert (len(names), names) == (100, sorted(names))
    assert max(entry.index for entry in found) <= 200
    scanned = pods.scan_as_of(200, wanted)
    assert (scanned.whole, scanned.ordered) == (False, changed == 64 and not indexed)
    scanned = pods.scan_as_of(200, Filter())
    assert (len(scanned.entries), scanned.whole, scanned.ordered) == (200, changed == 64, changed == 64)


def test_bodies_of_the_newest_states_or_of_all_ages(delta: Make, control: Make) -> None:
    store = Store("h", 100)
    store.finish_loading(0)
    for index in range(1, 10):
        store.apply_delta(delta(f"n{index}", uid=str(index), member_version=str(index)), index, 0)
    store.apply_delta(delta("m", uid="m", cluster="beta"), 10, 0)
    pods = store.types[PODS]
    rests = {bytes(pods.bodies(10, newest=True)[at][1]): at + 1 for at in range(10)}

    def ages(number: int, *, newest: bool) -> list[int]:
        return [rests[bytes(body)] for _, body in pods.bodies(number, newest=newest)]

    assert (ages(3, newest=True), ages(3, newest=False)) == ([8, 9, 10], [1, 4, 7])
    assert ages(4, newest=False) == [1, 3, 5, 7]
    assert ages(20, newest=True) == ages(20, newest=False) == [*range(1, 11)]
    store.apply_control(control(REMOVED, "beta"), 11, 0)
    # Neither a removal nor what was discarded has a body.
    assert ages(3, newest=True) == [9]


def test_the_dead_by_cluster_buried_and_not(delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("h", 100)
    store.finish_loading(0)
    for index, cluster in enumerate(("alpha", "beta", "alpha", "beta", "beta"), 1):
        store.apply_delta(delta(f"n{index}", uid=str(index), cluster=cluster), index, index)
    for index in (1, 2):
        cluster = "alpha" if index == 1 else "beta"
        made = delta(f"n{index}", DELETED, str(index), "2", cluster=cluster, uid_index=index)
        store.apply_delta(made, index + 5, index + 5)
    assert not bury(store, 8)
    made = delta("n3", DELETED, "3", "2", uid_index=3)
    store.apply_delta(made, 8, 8)
    store.apply_control(control(REMOVED, "beta"), 9, 9)
    pods = store.types[PODS]

    def names(cluster: str | None) -> list[str]:
        return sorted(entry.name for entry in pods.dead(cluster))

    def read(after: int) -> list[tuple[int, list[str]]]:
        found = pods.after(after)
        return [
            (one.index, sorted(two.name for two in one.entries.values()) if isinstance(one, Removal) else [one.name])
            for one in found
        ]

    assert (names(None), names("alpha"), names("beta")) == (
        ["n1", "n2", "n3", "n4", "n5"],
        ["n1", "n3"],
        ["n2", "n4", "n5"],
    )
    assert pods.remembered() == 5
    expected = [(6, ["n1"]), (7, ["n2"]), (8, ["n3"]), (9, ["n4", "n5"])]
    assert [read(after) for after in range(5, 10)] == [expected[at:] for at in range(5)]
    # One of the removal is left: it is being buried.
    monkeypatch.setattr(burying, "SLICE", 2)
    while bury(store, 10) and len(pods.graves) < 4:
        pass
    assert (len(pods.graves), pods.remembered()) == (4, 5)
    assert [read(after) for after in range(5, 10)] == [expected[at:] for at in range(5)]
    bury(store, 10)
    assert (len(pods.graves), pods.tombstones) == (5, {})
    assert [read(after) for after in range(5, 10)] == [expected[at:] for at in range(5)]
    store.apply_delta(delta("m", uid="m"), 10, 10)
    assert [read(after) for after in range(5, 11)] == [[*expected, (10, ["m"])][at:] for at in range(6)]
