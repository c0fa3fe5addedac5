"""Indexes of the store: which are made, how long they are kept, and owners over several hops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from deltalog import ADDED, DELETED, MODIFIED
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from materializer import indexes as indexes_module
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.indexes import Attribute
from materializer.store import Store

NOW = 1_000_000_000
PODS = GroupResource("", "pods")
Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes_module, "WORTHWHILE", -1)


def filled(delta: Make, number: int = 40) -> Store:
    store = Store("h", 100)
    for index in range(1, number + 1):
        labels = {"app": f"a{index % 4}", "one": str(index)}
        store.apply_delta(
            delta(f"n{index:03}", uid=f"u{index}", labels=labels, controller_uid=f"o{index % 3}"), index, NOW
        )
    store.finish_loading(NOW)
    return store


def names(store: Store, **given: Any) -> list[str]:
    return [entry.name for entry in store.types[PODS].select(Filter(**given))]


def test_the_smallest_set_of_candidates_is_looked_through(delta: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = filled(delta)
    looked_at: list[str] = []
    chosen = Filter.chosen

    def noted(self: Filter, entries: Sequence[Entry]) -> list[Entry]:
        looked_at.extend(entry.name for entry in entries)
        return chosen(self, entries)

    monkeypatch.setattr(Filter, "chosen", noted)
    # One index is made for a question, and only while those there are leave too much.
    for number in (1, 2, 2):
        looked_at.clear()
        assert names(store, labels=parse_labels("app=a1,one in (5,6,9)")) == ["n005", "n009"]
        assert len(store.types[PODS].indexes) == number
    assert sorted(looked_at) == ["n005", "n006", "n009"]


def test_no_index_for_what_none_can_tell(delta: Make) -> None:
    store = filled(delta)
    assert len(names(store, labels=parse_labels("app!=a1"))) == 30
    assert len(names(store, labels=parse_labels("!app"))) == 0
    assert len(names(store, labels=parse_labels("app in (,a1)"))) == 10
    assert len(store.types[PODS].indexes) == 0


def test_all_that_have_a_label_whatever_it_says(delta: Make) -> None:
    store = filled(delta)
    for index, value in ((41, ""), (42, "x")):
        store.apply_delta(delta(f"n{index:03}", uid=f"u{index}", labels={"rare": value}), index, NOW)
    assert names(store, labels=parse_labels("rare")) == ["n041", "n042"]
    assert len(store.types[PODS].indexes) == 1
    assert names(store, labels=parse_labels("rare,rare!=x")) == ["n041"]
    assert names(store, labels=parse_labels("rare=x")) == ["n042"]


def test_times_of_creation(delta: Make) -> None:
    store = Store("h", 100)
    for index in range(1, 41):
        store.apply_delta(delta(f"n{index:03}", uid=f"u{index}", created=index % 10), index, NOW)
    store.finish_loading(NOW)
    assert names(store, since=8) == [f"n{index:03}" for index in range(1, 41) if index % 10 >= 8]
    assert names(store, since=2, before=3) == ["n002", "n012", "n022", "n032"]
    assert names(store, since=3, before=2) == []
    store.apply_delta(delta("n002", DELETED, uid="u2", member_version="2", uid_index=2), 41, NOW)
    store.apply_delta(delta("n900", ADDED, uid="u900", created=2), 42, NOW)
    assert names(store, since=2, before=3) == ["n012", "n022", "n032", "n900"]
    assert len(store.types[PODS].indexes) == 1
    store.check()


def test_a_question_of_many_keys_makes_one_index(delta: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes_module, "_LIMIT", 3)
    store = filled(delta)
    made = store.types[PODS].indexes
    asked = parse_labels(",".join(f"k{number}=v" for number in range(50)))
    for number in range(1, 6):
        assert names(store, labels=asked) == []
        # Those in use are not given up for others.
        assert len(made) == min(number, 3)


def test_an_index_follows_changes(delta: Make) -> None:
    store = filled(delta)
    wanted = parse_labels("app=a1")
    assert len(names(store, labels=wanted)) == 10
    store.apply_delta(delta("n001", MODIFIED, uid="u1", member_version="2", uid_index=1, labels={"app": "b"}), 41, NOW)
    store.apply_delta(delta("n005", DELETED, uid="u5", member_version="2", uid_index=5, labels={"app": "a1"}), 42, NOW)
    store.apply_delta(delta("n900", ADDED, uid="u900", labels={"app": "a1"}), 43, NOW)
    found = names(store, labels=wanted)
    assert "n001" not in found
    assert "n005" not in found
    assert "n900" in found
    store.check()


def test_indexes_are_few_and_go_when_unused(delta: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes_module, "_LIMIT", 3)
    monkeypatch.setattr(indexes_module, "_UNUSED", 2)
    store = filled(delta)
    made = store.types[PODS].indexes
    for key in "abcdef":
        if key == "d":
            store.forget(NOW)
        names(store, labels=parse_labels(f"{key}=1"))
    assert {attribute.key for attribute in made._made} == set("def")
    store.forget(NOW)
    names(store, labels=parse_labels("f=1"))
    for _ in range(2):
        store.forget(NOW)
    assert list(made._made) == [Attribute("label", "f")]
    store.forget(NOW)
    assert len(made) == 0


def test_owners_over_hops_and_clusters(delta: Make) -> None:
    store = Store("h", 100)
    made = [
        ("deployments", "web", "d1", ""),
        ("replicasets", "web-1", "r1", "d1"),
        ("replicasets", "web-2", "r2", "d1"),
        ("replicasets", "api-1", "r3", "d2"),
        ("pods", "web-1-a", "p1", "r1"),
        ("pods", "web-2-a", "p2", "r2"),
        ("pods", "api-1-a", "p3", "r3"),
    ]
    for index, (resource, name, uid, owner) in enumerate(made, 1):
        group = "" if resource == "pods" else "apps"
        store.apply_delta(delta(name, uid=uid, controller_uid=owner, resource=resource, group=group), index, NOW)
    store.finish_loading(NOW)
    assert store.owned("d1", 0, None) == {"d1"}
    assert store.owned("d1", 1, None) == {"r1", "r2"}
    assert store.owned("d1", 2, None) == {"p1", "p2"}
    assert store.owned("d1", 3, None) == frozenset()
    assert store.owned("d1", 1, frozenset({"bravo"})) == frozenset()
    assert names(store, controller_uids=store.owned("d1", 1, None)) == ["web-1-a", "web-2-a"]
    store.apply_delta(
        delta("web-2", DELETED, uid="r2", member_version="2", uid_index=3, resource="replicasets", group="apps"), 8, NOW
    )
    assert names(store, controller_uids=store.owned("d1", 1, None)) == ["web-1-a"]


@pytest.mark.parametrize(
    "given", [{"labels": parse_labels("app=a1")}, {"since": 5, "before": 30}, {"names": frozenset({"n007", "n011"})}]
)
def test_an_index_made_in_steps_has_what_came_and_went_meanwhile(
    delta: Make, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    """Two make it together, a change between any two steps; the answer is that of looking at every entry."""
    monkeypatch.setattr(indexes_module, "STEP", 4)
    store, wanted = filled(delta), Filter(**given)
    type_store = store.types[PODS]
    index = 40
    one, other = type_store.prepare(wanted), type_store.prepare(wanted)
    steps = 0
    while next(one, 0) is None or next(other, 0) is None:
        steps += 1
        index += 1
        number = index % 17
        kind, uid = (DELETED, f"u{number}") if steps % 3 == 0 else (ADDED, f"u{index}")
        labels = {"app": f"a{index % 4}"}
        store.apply_delta(
            delta(f"n{number:03}", kind, uid=uid, labels=labels, created=index % 40, member_version=str(index)),
            index,
            NOW,
        )
        # Until it is there, all are looked at, or it is made at one go: never is a part of it used.
        assert len(type_store.indexes) in (0, 1)
    assert steps > 2
    assert len(type_store.indexes) == 1
    assert not type_store.indexes._making
    store.check()
    found = type_store.select(wanted)
    assert [entry for entry in type_store.scan(Filter()).entries if wanted.matches(entry)] == found
    assert next(type_store.prepare(wanted), 0) == 0


def test_an_index_that_nobody_goes_on_making_is_given_up(delta: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes_module, "STEP", 4)
    store = filled(delta)
    type_store = store.types[PODS]
    begun = type_store.indexes.prepare_owned(type_store.live)
    next(begun)
    next(begun)
    assert len(type_store.indexes._making) == 1
    for _ in range(2):
        store.forget(NOW)
    assert not type_store.indexes._making
    assert list(begun) == []
    assert names(store, controller_uids=frozenset({"o1"}))
    # Whoever asks at one go makes it at once, and who makes it in steps has it.
    assert list(type_store.indexes.prepare_owned(type_store.live)) == []
