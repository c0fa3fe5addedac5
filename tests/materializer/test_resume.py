"""From a version to a cursor or Expired: the rule alone, on stores fed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deltalog import DELETED
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from deltalog.wire.subjects import SYNCED
from materializer.cursor import changes
from materializer.filter import Filter
from materializer.resume import (
    Expired,
    ForeignVersion,
    HistoryReplaced,
    from_member_versions,
    from_now,
    from_version,
    own_version,
    unread,
)
from materializer.store import Store
from materializer.versions import Named, Numbered, Version

SECOND = 1_000_000_000
TTL = 100
PODS = GroupResource("", "pods")
ALL = Filter()
OURS = Named("h")
Make = Callable[..., Any]


@pytest.fixture
def store(delta: Make) -> Store:
    """History `h` at index 6: object n was created at 2, changed at 4 and 6."""
    store = Store("h", TTL)
    store.finish_loading(0)
    for index, version in ((2, "12"), (4, "14"), (6, "16")):
        store.skip(index - 1, index)
        store.apply_delta(delta("n", member_version=version), index, index)
    return store


def shown(store: Store, start: Any) -> list[tuple[str, str, int]]:
    """Everything that a watch from `start` shows, read to the end."""
    cursor, found = start.cursor(), []
    while (type_store := unread(store, PODS, start, cursor)) is not None:
        some, upto = changes(type_store, cursor.position(type_store), start.wanted, 100)
        cursor.advance(store, upto)
        found += [(change.type, change.entry.name, change.at) for change in some]
    assert cursor.read_to == max(store.applied, start.read_to)
    return found


# -- our own versions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["h.5", "h.5.14", "h.5."])
def test_own_versions(text: str) -> None:
    assert own_version(text, OURS) == Version("h", 5, "14" if text == "h.5.14" else "")


@pytest.mark.parametrize("text", ["", "0", "5", "h.x", "g.5", "g.5.14"])
def test_what_is_none_of_ours_is_foreign(store: Store, text: str) -> None:
    with pytest.raises(ForeignVersion):
        own_version(text, OURS)
    with pytest.raises(Expired):
        from_version(store, PODS, ALL, text, OURS)


def test_a_foreign_version_is_told_with_both_histories() -> None:
    with pytest.raises(ForeignVersion, match=r"^The resourceVersion g\.5 belongs to history g, this one is h: list"):
        own_version("g.5", OURS)
    with pytest.raises(ForeignVersion) as raised:
        own_version("g.5." + "x" * 1000, OURS)
    assert len(str(raised.value)) < 300


def test_of_a_list_the_client_has_the_whole_state(store: Store) -> None:
    start = from_version(store, PODS, ALL, "h.4", OURS)
    assert (start.read_to, start.complete_at, start.wanted, start.backlog) == (4, 4, ALL, ())


def test_of_an_object_the_client_may_not_have_the_whole_state(store: Store) -> None:
    start = from_version(store, PODS, ALL, "h.4.14", OURS)
    assert (start.read_to, start.complete_at) == (4, 0)
    # A number may be either's.
    start = from_version(store, PODS, ALL, "4", Numbered("h"))
    assert (start.read_to, start.complete_at) == (4, 0)


def test_what_came_behind_the_version_is_shown_once(store: Store, delta: Make) -> None:
    assert shown(store, from_version(store, PODS, ALL, "h.4", OURS)) == [("MODIFIED", "n", 6)]
    assert shown(store, from_version(store, PODS, ALL, "h.6", OURS)) == []
    store.apply_delta(delta("n", member_version="17", type=DELETED), 7, 7)
    assert shown(store, from_version(store, PODS, ALL, "h.4", OURS)) == [("DELETED", "n", 7)]


def test_the_floor_is_the_lowest_index_to_begin_at(store: Store) -> None:
    store.floor = 4
    assert from_version(store, PODS, ALL, "h.4", OURS).read_to == 4
    with pytest.raises(Expired, match=r"^too old resource version: h\.3 \(4\)$"):
        from_version(store, PODS, ALL, "h.3", OURS)


def test_the_floor_is_that_of_the_clusters_asked_for(store: Store) -> None:
    store.types[PODS].floors["bravo"] = 5
    with pytest.raises(Expired):
        from_version(store, PODS, ALL, "h.4", OURS)
    with pytest.raises(Expired):
        from_version(store, PODS, Filter(clusters=frozenset({"alpha", "bravo"})), "h.4", OURS)
    assert from_version(store, PODS, Filter(clusters=frozenset({"alpha"})), "h.4", OURS).read_to == 4
    assert from_version(store, GroupResource("", "secrets"), ALL, "h.4", OURS).read_to == 4


def test_a_version_ahead_of_the_store_shows_nothing_up_to_it(store: Store, delta: Make) -> None:
    start = from_version(store, PODS, ALL, "h.8", OURS)
    cursor = start.cursor()
    assert unread(store, PODS, start, cursor) is None
    assert cursor.read_to == 8
    store.apply_delta(delta("n", member_version="17"), 7, 7)
    store.apply_delta(delta("n", member_version="18"), 8, 8)
    assert unread(store, PODS, start, cursor) is None
    assert cursor.read_to == 8
    store.apply_delta(delta("n", member_version="19"), 9, 9)
    assert shown(store, start) == [("MODIFIED", "n", 9)]


def test_from_now(store: Store, delta: Make) -> None:
    start = from_now(store, ALL)
    assert (start.read_to, start.complete_at, start.backlog) == (6, 6, ())
    assert shown(store, start) == []
    store.apply_delta(delta("m", uid="v"), 7, 7)
    assert shown(store, start) == [("ADDED", "m", 7)]


# -- going on --------------------------------------------------------------------------------------------------------


def test_a_type_that_has_no_objects_yet(store: Store) -> None:
    start = from_version(store, GroupResource("", "secrets"), ALL, "h.4", OURS)
    cursor = start.cursor()
    assert unread(store, GroupResource("", "secrets"), start, cursor) is None
    assert cursor.read_to == 6


def test_changes_of_another_type_move_the_cursor(store: Store, delta: Make) -> None:
    start = from_now(store, ALL)
    cursor = start.cursor()
    store.apply_delta(delta("s", uid="s", resource="secrets"), 7, 7)
    assert unread(store, PODS, start, cursor) is None
    assert cursor.read_to == 7
    # At the very index of the type's last change there is nothing more to read; one before it there is.
    assert unread(store, PODS, from_version(store, PODS, ALL, "h.5", OURS), from_now(store, ALL).cursor()) is None
    before = from_version(store, PODS, ALL, "h.5", OURS)
    assert unread(store, PODS, before, before.cursor()) is store.types[PODS]


def test_a_cursor_that_deletions_were_forgotten_past_is_expired(store: Store, delta: Make) -> None:
    slow, there = from_version(store, PODS, ALL, "h.6", OURS), from_version(store, PODS, ALL, "h.7", OURS)
    store.apply_delta(delta("n", member_version="17", type=DELETED), 7, 7)
    store.apply_delta(delta("m", uid="v"), 8, 8)
    store.forget((TTL + 1) * SECOND)
    assert store.types[PODS].forgotten == 7
    with pytest.raises(Expired, match=r"^too old resource version: 6 \(7\)$"):
        unread(store, PODS, slow, slow.cursor())
    assert shown(store, there) == [("ADDED", "m", 8)]


def test_a_forgotten_deletion_counts_also_where_nothing_stands_behind_it(store: Store, delta: Make) -> None:
    # The order closes its holes: its last index may be lower than that of a deletion which was forgotten.
    slow = from_version(store, PODS, ALL, "h.6", OURS)
    store.apply_delta(delta("m", uid="v"), 7, 7)
    store.apply_delta(delta("m", uid="v", member_version="2", type=DELETED), 8, 8)
    store.forget((TTL + 1) * SECOND)
    order = store.types[PODS].order
    order._close_holes()
    assert order.last() == 6
    with pytest.raises(Expired):
        unread(store, PODS, slow, slow.cursor())


def test_one_who_waits_at_an_events_version_is_not_taken_to_have_held_everything(delta: Make) -> None:
    """The client comes from an instance that was ahead: there n, unselected since 4, was shown only behind 5, at 7."""
    wanted = Filter(labels=parse_labels("app=a"))
    store = Store("h", TTL)
    store.finish_loading(0)
    for index, name, labels in ((1, "n", {"app": "a"}), (4, "n", {"app": "b"}), (5, "m", {"app": "a"})):
        store.apply_delta(delta(name, uid=name, member_version=str(index), labels=labels), index, index)
    start = from_version(store, PODS, wanted, "h.5.5", OURS)
    cursor = start.cursor()
    assert unread(store, PODS, start, cursor) is None
    store.skip(6, 6)
    store.apply_delta(delta("n", uid="n", member_version="7", labels={"app": "b"}), 7, 7)
    assert unread(store, PODS, start, cursor) is store.types[PODS]
    found, _ = changes(store.types[PODS], cursor.position(store.types[PODS]), wanted, 100)
    assert [(change.type, change.entry.name) for change in found] == [(DELETED, "n")]


def test_another_history_is_told() -> None:
    assert isinstance(HistoryReplaced(), Expired)
    assert str(HistoryReplaced()) == "The history that this watch followed was replaced: list anew"


# -- member clusters' versions ---------------------------------------------------------------------------------------


@pytest.fixture
def listed(delta: Make, control: Make) -> Store:
    """alpha's pods: a at 11 and b at 12, listed at 12; then b changed to 15 and c came with 16."""
    store = Store("h", TTL)
    store.finish_loading(0)
    store.apply_delta(delta("a", uid="a", member_version="11"), 1, 1)
    store.apply_delta(delta("b", uid="b", member_version="12"), 2, 2)
    store.apply_control(control(SYNCED, "alpha", *PODS, data={"version": "12", "objects": 2}), 3, 3)
    store.apply_delta(delta("b", uid="b", member_version="15", in_order=True), 4, 4)
    store.apply_delta(delta("c", uid="c", member_version="16", in_order=True), 5, 5)
    return store


def test_member_versions_begin_with_what_changed_since(listed: Store, delta: Make) -> None:
    start = from_member_versions(listed, PODS, ALL, {"alpha": "12", "bravo": ""})
    assert [(change.type, change.entry.name) for change in start.backlog] == [("MODIFIED", "b"), ("ADDED", "c")]
    assert (start.read_to, start.complete_at) == (5, 5)
    # A cluster that the client knows nothing of hides nothing.
    assert start.wanted.beyond == (("alpha", "12"),)
    assert shown(listed, start) == []
    listed.apply_delta(delta("b", uid="b", member_version="17", in_order=True), 6, 6)
    assert shown(listed, start) == [("MODIFIED", "b", 6)]


def test_member_versions_from_before_the_first_list_are_expired(listed: Store) -> None:
    with pytest.raises(
        Expired, match=r"^too old resource version: cluster alpha has been followed since 12, 11 is old"
    ):
        from_member_versions(listed, PODS, ALL, {"alpha": "11"})


def test_a_cluster_that_is_set_back_ends_a_watch_at_its_versions(listed: Store, delta: Make) -> None:
    start, other = from_member_versions(listed, PODS, ALL, {"alpha": "12"}), from_now(listed, ALL)
    listed.apply_delta(delta("c", uid="c", member_version="3", restored=True), 6, 6)
    with pytest.raises(Expired, match=r"^too old resource version: cluster alpha was set back, 12 is none of its"):
        unread(listed, PODS, start, start.cursor())
    assert shown(listed, other) == [("MODIFIED", "c", 6)]
    # One that begins behind it goes on.
    again = from_member_versions(listed, PODS, ALL, {"alpha": "16"})
    listed.apply_delta(delta("c", uid="c", member_version="17"), 7, 7)
    assert shown(listed, again) == [("MODIFIED", "c", 7)]


def test_a_cluster_that_went_ends_no_watch(listed: Store, control: Make, delta: Make) -> None:
    start = from_member_versions(listed, PODS, ALL, {"alpha": "12"})
    listed.apply_control(control("removed", "alpha", data={"types": ["pods"]}), 6, 6)
    assert [type for type, _, _ in shown(listed, start)] == ["DELETED"] * 3
