"""What a store keeps in bounds and in proportion, and what a search asks it for: owners, and what names select."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deltalog import DELETED
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.subjects import REMOVED
from materializer import store as store_module
from materializer.bodies import Packing
from materializer.burying import bury
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.plain import PlainEntries
from materializer.store import Store
from materializer.window import WINDOW_BYTES

PODS, NODES = GroupResource("", "pods"), GroupResource("", "nodes")
Make = Callable[..., Any]


def filled(delta: Make, **given: Any) -> Store:
    """Three pods and two nodes in two clusters."""
    store = Store("h", 100, WINDOW_BYTES, **given)
    store.finish_loading(0)
    places = [
        ("pods", "alpha", "a"),
        ("pods", "beta", "a"),
        ("pods", "beta", "b"),
        *[("nodes", "alpha", n) for n in "ab"],
    ]
    for index, (resource, cluster, name) in enumerate(places, 1):
        made = delta(name, uid=f"{resource}-{cluster}-{name}", cluster=cluster, resource=resource, controller_uid="o")
        store.apply_delta(made, index, index)
    return store


@pytest.mark.parametrize("fits", [False, True])
def test_bodies_and_window_are_in_proportion_to_what_is_held(
    fits: bool, delta: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = filled(delta, packing=Packing(), fits_window=fits)
    for number, type_store in enumerate(store.types.values(), 1):
        # As if bodies were packed.
        type_store.held -= number
        type_store.saved += number
    plain: list[int] = []
    monkeypatch.setattr(PlainEntries, "bound", lambda _, size: plain.append(size))
    monkeypatch.setattr(store_module, "in_proportion", lambda size: size)
    store.fit()
    records = sum(len(entry.record) for type_store in store.types.values() for entry in type_store.live())
    assert plain == [records]
    assert store.window.limit == (records - 3 + 5 * 350 if fits else WINDOW_BYTES)


def test_what_is_never_packed_does_not_wait_for_it(delta: Make, control: Make) -> None:
    """Nothing is held of what has gone."""
    store = filled(delta)
    store.apply_delta(delta("a", DELETED, "pods-beta-a", "2", cluster="beta", uid_index=2), 6, 6)
    store.apply_control(control(REMOVED, "beta"), 7, 7)
    assert (len(store.plain), store.plain.size) == (0, 0)


def test_what_is_plain_waits_to_be_packed(delta: Make) -> None:
    """A state of which another copy is made waits with each; a deletion's own as well."""
    store = Store("h", 100, packing=Packing())
    store.finish_loading(0)
    for index in (1, 2, 3):
        store.apply_delta(delta("m", uid=f"u{index}"), index, index)
    live = next(store.types[PODS].live())
    assert live.replaced is not None
    assert (live.replaced.uid, live.replaced.replaced) == ("u2", None)
    assert [entry.uid for entry, _ in store.plain.take()] == ["u1", "u2", "u2", "u3"]
    store.apply_delta(delta("m", DELETED, "u3", "2", uid_index=3), 4, 4)
    assert [entry.index for entry, _ in store.plain.take()] == [4]


def test_who_is_buried_and_comes_again_is_not_dead(delta: Make) -> None:
    store = filled(delta)
    store.apply_delta(delta("b", DELETED, "pods-beta-b", "2", cluster="beta", uid_index=3), 6, 6)
    assert not bury(store, 7)
    pods = store.types[PODS]
    assert (len(pods.graves), pods.remembered()) == (1, 1)
    store.apply_delta(delta("b", uid="again", cluster="beta"), 7, 7)
    assert (len(pods.graves), pods.remembered()) == (0, 0)
    store.check()
    # Forgotten, it raises the floor all the same.
    store.forget(200_000_000_000)
    assert (store.floor, pods.forgotten) == (7, 7)


def test_the_size_of_a_message_is_noted_with_the_tombstone_that_is_its(delta: Make) -> None:
    store = filled(delta)

    def deleted(name: str, index: int, size: int, member_version: str = "2") -> None:
        made = delta(name, DELETED, f"pods-beta-{name}", member_version, cluster="beta", uid_index=2)
        store.apply_delta(made, index, index, size)

    # Of a uid that was replaced: there is no tombstone yet.
    stale = delta("a", DELETED, "before", cluster="beta", uid_index=1)
    store.apply_delta(stale, 6, 6, 50)
    deleted("a", 7, 60)
    deleted("b", 8, 0)
    # One that is there already.
    deleted("a", 9, 80)
    store.apply_delta(delta("c", uid="c"), 10, 10, 90)
    assert store.deletion_sizes == {7: 60}
    assert [index for _, index, _, _ in store.fading] == [7, 8]


def test_what_a_filter_selects_of_one_type_or_of_all(delta: Make) -> None:
    store = filled(delta)
    wanted = Filter(names=frozenset({"a"}))
    assert store.called(wanted, NODES) == {"nodes-alpha-a"}
    assert store.called(wanted, None) == {"pods-alpha-a", "pods-beta-a", "nodes-alpha-a"}
    assert store.called(wanted, GroupResource("", "services")) == frozenset()

    def seen(resource: GroupResource, entry: Entry) -> bool:
        return resource == PODS and entry.cluster == "beta"

    assert store.called(wanted, None, seen) == {"pods-beta-a"}


def test_owners_that_may_be_seen(delta: Make) -> None:
    store = filled(delta)
    every = {"pods-alpha-a", "pods-beta-a", "pods-beta-b", "nodes-alpha-a", "nodes-alpha-b"}
    assert store.owned_by({"o", "p"}, 1, None) == every
    assert store.owned_by({"o"}, 1, frozenset({"alpha"})) == {"pods-alpha-a", "nodes-alpha-a", "nodes-alpha-b"}

    def seen(resource: GroupResource, entry: Entry) -> bool:
        return resource == PODS and entry.name == "a"

    assert store.owned("o", 1, None, seen) == {"pods-alpha-a", "pods-beta-a"}
    assert store.owned("o", 1, frozenset({"alpha"}), seen) == {"pods-alpha-a"}
