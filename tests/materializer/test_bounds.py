"""What a store keeps in bounds and in proportion, and what a search asks it for: owners, and what names select."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deltalog import DELETED, Replaced
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.subjects import REMOVED
from materializer import indexes
from materializer import store as store_module
from materializer.bodies import ALONE, Packing, Wanted
from materializer.burying import bury, forget_through, forgettable, remembered
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.plain import PlainEntries
from materializer.store import Store
from materializer.window import WINDOW_BYTES, weight_of
from tests.materializer.conftest import SECOND

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


def test_what_is_made_of_a_type_goes_with_its_last_objects(
    delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its dictionary, and with any of its objects its indexes."""
    monkeypatch.setattr(indexes, "WORTHWHILE", -1)
    store = filled(delta, packing=Packing())
    forgotten: list[GroupResource] = []
    monkeypatch.setattr(Packing, "forget", lambda _, key: forgotten.append(key))
    wanted = Filter(names=frozenset({"a"}))
    assert len(store.types[PODS].select(wanted)) == 2
    store.plain.take()
    store.apply_control(control(REMOVED, "beta"), 6, 6)
    assert (forgotten, len(store.types[PODS].indexes)) == ([], 0)
    assert [entry.cluster for entry in store.types[PODS].select(wanted)] == ["alpha"]
    # The tombstones, which are plain as the objects were.
    assert [entry.index for entry, _ in store.plain.take()] == [6, 6]
    store.apply_control(control(REMOVED, "alpha"), 7, 7)
    assert sorted(forgotten) == [NODES, PODS]


def test_a_removal_in_the_first_replay_takes_graves_too(delta: Make, control: Make) -> None:
    store = filled(delta)
    store.apply_delta(delta("b", DELETED, "pods-beta-b", "2", cluster="beta", uid_index=3), 6, 6)
    assert not bury(store, 7)
    store.loading = True
    store.apply_control(control(REMOVED, "beta"), 7, 7)
    assert store.types[PODS].remembered() == 0


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


def test_what_is_buried_is_forgotten_in_its_time_and_raises_the_floor(delta: Make) -> None:
    """A tombstone's grave, and what of an object is left that another one has replaced."""
    store = filled(delta, fits_window=True)
    store.apply_delta(delta("b", DELETED, "pods-beta-b", "2", cluster="beta", uid_index=3), 6, 6)
    store.apply_delta(delta("a", uid="other", cluster="alpha"), 7, 7)
    store.apply_delta(delta("a", uid="another", cluster="beta"), 8, 8)
    assert not bury(store, 9)
    pods = store.types[PODS]
    assert (pods.remembered(), len(store.faded), len(store.fading)) == (1, 2, 0)
    store.window.resize(WINDOW_BYTES)
    ago = 100 * SECOND
    store.forget(6 + ago)
    assert (pods.remembered(), store.floor, store.window.limit < WINDOW_BYTES) == (1, 0, True)
    store.forget(7 + ago)
    assert (pods.remembered(), len(store.faded), store.floor, pods.forgotten) == (0, 2, 6, 6)
    store.forget(8 + ago)
    assert ([one.index for one in store.faded.values()], store.floor, pods.forgotten) == ([8], 7, 7)
    replaced = {entry.uid: entry.replaced is not None for entry in pods.live() if entry.name == "a"}
    assert replaced == {"other": False, "another": True}


def test_a_name_that_is_used_again_and_again_counts_once(delta: Make) -> None:
    """One predecessor is remembered of it; those before are not, and raise no floor."""
    store = Store("h", 100)
    store.finish_loading(0)
    for index in range(1, 51):
        store.apply_delta(delta("n", uid=f"u{index}"), index, index * SECOND)
        assert not bury(store, (index + 1) * SECOND)
    assert (remembered(store).number, store.types[PODS].remembered()) == (1, 0)
    assert forgettable(store, 1, 1 << 30) == 0
    store.apply_delta(delta("n", DELETED, "u50", "2", uid_index=50), 51, 51 * SECOND)
    assert not bury(store, 52 * SECOND)
    assert (remembered(store).number, store.types[PODS].remembered(), len(store.faded)) == (1, 1, 0)
    store.check()
    store.forget((51 + 100) * SECOND)
    assert (store.floor, remembered(store).number) == (0, 1)
    store.forget((51 + 100) * SECOND + 1)
    assert (store.floor, remembered(store).number) == (51, 0)


def test_how_far_back_deletions_go_is_told_by_the_floor(delta: Make) -> None:
    """An object's predecessor may have been deleted long before what a watch can come back from."""
    store = Store("h", 1000)
    store.finish_loading(0)
    for index in (2, 4, 6, 8):
        store.apply_delta(delta(f"n{index}", uid=f"u{index}"), index, index * SECOND)
    replaced = Replaced(uid="before", uid_index=1, oldest_uid_index=1, time=1_000, deletion_index=3)
    store.apply_delta(delta("again", uid="after", replaced=replaced), 10, 10 * SECOND)
    assert not bury(store, 11 * SECOND)
    assert remembered(store).since == 1 * SECOND
    forget_through(store, 5)
    assert remembered(store).since == 6 * SECOND
    store.apply_delta(delta("n6", DELETED, "u6", "2", uid_index=6), 12, 12 * SECOND)
    assert remembered(store).since == 8 * SECOND


def test_the_floor_of_the_first_replay_is_below_what_is_buried(delta: Make) -> None:
    """Of an instance that starts from what another one has written."""
    store = filled(delta)
    store.apply_delta(delta("b", DELETED, "pods-beta-b", "2", cluster="beta", uid_index=3), 6, 200 * SECOND)
    store.apply_delta(delta("c", uid="c"), 7, 201 * SECOND)
    assert not bury(store, 201 * SECOND)
    store.loading = True
    store.finish_loading(250 * SECOND)
    assert store.floor == 5


def test_what_is_whole_is_forgotten_in_its_time(delta: Make, control: Make) -> None:
    store = filled(delta)
    store.apply_delta(delta("b", DELETED, "pods-beta-b", "2", cluster="beta", uid_index=3), 6, 6, 60)
    store.apply_control(control(REMOVED, "beta"), 7, 7)
    pods = store.types[PODS]
    assert (pods.remembered(), len(store.removals), store.deletion_sizes) == (2, 1, {6: 60})
    store.forget(8 + 100 * SECOND)
    assert (pods.remembered(), len(store.removals), store.deletion_sizes, pods.tombstones) == (0, 0, {}, {})
    assert ([item.index for item in pods.order.after(0)], store.floor) == ([1], 7)
    store.check()


def test_which_message_said_what_is_forgotten_first(delta: Make, control: Make) -> None:
    """A removal has none that is to be taken out, nor has what was replaced; a tombstone has."""
    store = filled(delta)
    store.apply_delta(delta("b", DELETED, "pods-beta-b", "2", cluster="beta", uid_index=3), 6, 6)
    store.apply_control(control(REMOVED, "beta"), 7, 7)
    store.apply_delta(delta("a", uid="other"), 8, 8)
    assert [store.forget_first() for _ in range(3)] == [6, 0, 0]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("packs", [True, False])
def test_what_is_taken_to_be_packed(
    train: bool, packs: bool, delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With samples of the types that are wanted, if it is to be trained by them."""
    store = filled(delta, packing=Packing())
    monkeypatch.setattr(Packing, "wanted", lambda _, objects: {key: Wanted(1, newest=True) for key in objects})
    if not packs:
        store.packing = None
    del store.types[NODES]
    taken, objects, samples = store.take_plain(train=train)
    assert ([entry.index for entry, _ in taken], objects) == ([1, 2, 3, 4, 5], {PODS: 3})
    assert {key: len(some) for key, some in samples.items()} == ({PODS: 1} if train and packs else {})


def test_what_has_changed_while_it_was_packed_stays(delta: Make) -> None:
    store = filled(delta, packing=Packing())
    pods = store.types[PODS]
    first, second, third = sorted(pods.live(), key=lambda entry: entry.index)
    held = pods.held
    taken = dict(store.take_plain().taken)
    store.apply_delta(delta("b", uid="pods-beta-b", cluster="beta", uid_index=3, member_version="2"), 6, 6)
    first.record = bytes(bytearray(first.record))
    small = {entry: record[:-10] for entry, record in taken.items()}
    held = pods.held
    del store.types[NODES]
    store.settle_packed([(entry, record, ALONE, small[entry]) for entry, record in taken.items()])
    # The first has another record by now; the third is not live any more; nodes are gone.
    assert [entry.record is small[entry] for entry in (first, second, third)] == [False, True, True]
    assert [entry.dictionary for entry in (first, second, third)] == [None, ALONE, ALONE]
    assert (held - pods.held, pods.saved) == (10, 10)


def test_events_are_weighed_when_what_was_before_them_is_packed(delta: Make) -> None:
    store = Store("h", 100, WINDOW_BYTES, Packing())
    store.finish_loading(0)
    for index in range(1, 5):
        given = {"uid_index": 1} if index > 1 else {}
        store.apply_delta(delta("m", member_version=str(index), **given), index, index)
    for _ in range(4):
        store.settle_packed([(entry, record, ALONE, record[:-10]) for entry, record in store.plain.take(1)])
    changed = list(store.types[PODS].events.after(1))
    assert [weight_of(event.item, event.before, ()) for event in changed] == [event.weight for event in changed]
    assert store.window.size == 32 + sum(event.weight for event in changed)


def test_packing_ends(delta: Make) -> None:
    """At so many bytes; and if they were counted before a record was another one, with the last one."""
    store = filled(delta, packing=Packing())
    store.pack(store.plain.size)
    assert len(store.plain) == 5
    store.plain.size += 1
    packing, store.packing = store.packing, None
    store.pack()
    assert len(store.plain) == 5
    store.packing = packing
    store.pack()
    assert len(store.plain) == 0


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
    # What takes the place of another one is no deletion's message.
    store.apply_delta(delta("a", uid="other"), 11, 11, 99)
    assert store.deletion_sizes == {7: 60}
    assert [index for _, index, _, _ in store.fading] == [7, 8, 11]


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
