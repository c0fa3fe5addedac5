"""One cursor: what it shows where the log had lost messages, and what it holds after each read."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from deltalog import ADDED, DELETED, MODIFIED, Replaced
from deltalog.wire.delta import Selectables
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from deltalog.wire.subjects import REMOVED, TYPE
from materializer import cursor as cursor_module
from materializer.burying import bury
from materializer.cursor import Cursor, Position, changes, initial
from materializer.entry import object_key
from materializer.filter import Filter
from materializer.store import Store
from materializer.window import WINDOW_BYTES
from tests.materializer.test_several_types import Everything, Nothing

PODS = GroupResource("", "pods")
ALL = Filter()
A, B = {"app": "a"}, {"app": "b"}
APP_A = parse_labels("app=a")
Make = Callable[..., Any]


def fed(*deltas: tuple[int, Any]) -> Store:
    store = Store("h", 100)
    store.finish_loading(0)
    for index, one in deltas:
        store.apply_delta(one, index, index)
    return store


def shown(store: Store, cursor: Cursor, wanted: Filter = ALL, limit: int = 100) -> list[tuple[str, str, int]]:
    type_store = store.types[PODS]
    found, upto = changes(type_store, cursor.position(type_store), wanted, limit)
    cursor.advance(store, upto)
    return [(change.type, change.entry.uid, change.at) for change in found]


# -- what was superseded before it was read --------------------------------------------------------------------------


def test_a_uid_that_was_never_seen_here_is_not_held_once_all_was_read(delta: Make) -> None:
    """The log lost 3 and 4, one of them the beginning of v, which the watcher was never shown: no DELETED for it."""
    store = fed((1, delta("m", uid="u")), (2, delta("n", uid="w")))
    cursor = Cursor(0, 0)
    shown(store, cursor)
    # v began at 4, superseded unread: the deletion at 5 is all there is.
    store.apply_delta(delta("v", uid="v", member_version="9", type=DELETED, uid_index=4), 5, 5)
    store.settle()
    assert store.unread_through == 4
    assert shown(store, cursor) == []
    # Read to the end with nothing unread left: from here on it is served by this process.
    assert (cursor.read_to, cursor._served_from) == (5, 5)


def test_while_something_may_be_unread_the_watcher_was_not_yet_served_from_here(delta: Make) -> None:
    """Until the log has nothing more, the successor of what was lost may still come: 3 is lost, and 9 replaced it."""
    store = fed((1, delta("m", uid="u")), (2, delta("n", uid="w")))
    cursor = Cursor(2, 2)
    store.apply_delta(delta("m", uid="u", member_version="2"), 4, 4)
    assert (store.unread_through, store.caught_up_at) == (3, 0)
    assert shown(store, cursor) == [("MODIFIED", "u", 4)]
    assert (cursor.read_to, cursor._served_from) == (4, 2)
    # At exactly the index of what was lost the log has been read to its end past it.
    store.caught_up_at = 3
    cursor.advance(store, None)
    assert cursor._served_from == 4


def test_a_deletion_of_what_was_never_seen_here_is_not_shown_to_one_who_was_served_from_here(delta: Make) -> None:
    """v began at 3, which was lost; the watcher has been served by this process from 2 on, and has read up to 4."""
    store = fed((1, delta("m", uid="u")), (2, delta("n", uid="w")))
    cursor = Cursor(2, 2)
    store.apply_delta(delta("m", uid="u", member_version="2"), 4, 4)
    assert shown(store, cursor) == [("MODIFIED", "u", 4)]
    store.apply_delta(delta("v", uid="v", member_version="9", type=DELETED, uid_index=3), 5, 5)
    assert shown(store, cursor) == []


def test_a_late_watcher_is_told_of_a_deletion_whose_object_it_may_hold(delta: Make) -> None:
    """The watcher comes from another instance at 3, which had read what this one lost: uid v at 3."""
    store = fed((1, delta("m", uid="u")))
    store.apply_delta(delta("v", uid="v", member_version="9", type=DELETED, uid_index=3), 5, 5)
    assert shown(store, Cursor(3, 3)) == [("DELETED", "v", 5)]
    # One that was at 2 cannot hold it.
    assert shown(store, Cursor(2, 2)) == []


def gapped(delta: Make) -> Store:
    """Had n of uid u with app=a at 1; what came from 2 to 4 was superseded unread, and it has every event past that."""
    store = Store("h", 100, WINDOW_BYTES)
    store.finish_loading(0)
    store.apply_delta(delta("n", labels=A), 1, 1)
    store.skip(5, 5)
    assert (store.unread_through, store.window.start) == (4, 4)
    return store


def test_of_a_state_that_is_not_here_the_body_is_not_known(delta: Make) -> None:
    """With a condition on bodies, a deletion goes by what the log says of labels, and is counted as doubtful."""

    def told(wanted: Filter, name: str = "n", **given: Any) -> tuple[list[tuple[str, int]], int]:
        store = gapped(delta)
        store.apply_delta(delta(name, member_version="3", **{"uid_index": 1, **given}), 6, 6)
        pods = store.types[PODS]
        found, _ = changes(pods, Cursor(5).position(pods), wanted, 100)
        assert all(change.entry is next(pods.events.after(5)).item for change in found)
        return [(change.type, change.at) for change in found], store.window.doubtful

    none, every = Filter(labels=APP_A, where=Nothing()), Filter(labels=APP_A, where=Everything())
    of_a, of_b = Selectables(A, {}, ""), Selectables(B, {}, "")
    assert told(none, type=MODIFIED, labels=A, was=of_a) == ([(DELETED, 6)], 1)
    assert told(none, type=MODIFIED, labels=A, was=of_b) == ([], 0)
    assert told(every, type=MODIFIED, labels=A, was=of_a) == ([(MODIFIED, 6)], 0)
    assert told(Filter(labels=APP_A), type=MODIFIED, labels=B) == ([(DELETED, 6)], 1)
    # Where the log does not say it of a deletion, what the tombstone has is taken for it.
    assert told(none, "m", type=DELETED, uid_index=3, labels=A) == ([(DELETED, 6)], 1)
    assert told(none, "m", type=DELETED, uid_index=3, labels=B) == ([], 0)
    assert told(Filter(labels=APP_A), "m", type=DELETED, uid_index=3, labels=A) == ([(DELETED, 6)], 0)


def test_a_deletion_is_counted_as_doubtful_where_no_state_is_known_that_was_selected(delta: Make) -> None:
    """Before the window: by what was since the client had everything; another uid's deletion goes by that one."""
    wanted = Filter(labels=APP_A)
    store = fed((1, delta("m", labels=A)), (2, delta("m", member_version="2", labels=B)))
    store.apply_delta(delta("n", uid="w"), 4, 4)
    store.settle()
    store.apply_delta(delta("m", member_version="3", labels=B), 5, 5)
    # It may have had app=a at 3, which was lost; that it had it at 1 is of no matter to who had everything at 2.
    assert shown(store, Cursor(4, 2), wanted) == [(DELETED, "u", 5)]
    assert store.window.doubtful == 1
    assert shown(store, Cursor(4, 1), wanted) == [(DELETED, "u", 5)]
    assert store.window.doubtful == 1
    # u had app=a; what v was before 9 is not known, and it began past what the client has read.
    store = fed((1, delta("m", labels=A)), (9, delta("m", uid="v", member_version="2", labels=B, uid_index=5)))
    assert shown(store, Cursor(2), wanted) == [(DELETED, "u", 9)]
    assert store.window.doubtful == 0


# -- the places of a position ----------------------------------------------------------------------------------------


def test_a_read_in_pieces_and_then_to_the_end(delta: Make) -> None:
    store = fed(*((index, delta(f"n{index}", uid=f"u{index}")) for index in range(1, 6)))
    store.settle()
    cursor = Cursor(0, 0)
    type_store = store.types[PODS]
    assert shown(store, cursor, limit=2) == [("ADDED", "u1", 1), ("ADDED", "u2", 2)]
    assert cursor.position(type_store) == Position(2, 0, 0, 0, 5)
    # What changes between two pieces comes with the later one, once; the head at the first piece stays noted.
    store.apply_delta(delta("n1", uid="u1", member_version="2"), 6, 6)
    assert shown(store, cursor, limit=2) == [("ADDED", "u3", 3), ("ADDED", "u4", 4)]
    assert cursor.position(type_store) == Position(4, 0, 0, 0, 5)
    assert shown(store, cursor) == [("ADDED", "u5", 5), ("MODIFIED", "u1", 6)]
    assert cursor.position(type_store) == Position(6, 6, 0, 6, 0)
    assert cursor._served_from == 6


def test_the_example_of_position(delta: Make) -> None:
    """The table in its docstring."""
    store = fed((90, delta("d", uid="d", member_version="1")))
    store.unread_through = 0
    for index in range(91, 101):
        store.skip(index, index)
    for index, name, fixed in (
        (102, "c", {}),
        (103, "a", {}),
        (104, "b", {}),
        (107, "c", {"member_version": "2"}),
        (108, "x", {"member_version": "3", "uid_index": 101}),
        (110, "d", {"member_version": "2"}),
    ):
        for between in range(store.applied + 1 if store.applied > 100 else 102, index):
            store.skip(between, between)
        store.apply_delta(delta(name, uid=name, **fixed), index, index)
    store.settle()
    type_store = store.types[PODS]
    assert type_store.unread_through == 101
    cursor = Cursor(100)
    assert cursor.position(type_store) == Position(100, 100, 100, 100, 0)
    assert shown(store, cursor, limit=2) == [("ADDED", "a", 103), ("ADDED", "b", 104)]
    before = cursor.position(type_store)
    assert before == Position(104, 100, 100, 100, 110)
    x, c, d = (type_store.clusters["alpha"][object_key("x", name)] for name in ("x", "c", "d"))
    assert [before.may_know(one) for one in (x, c, d)] == [False, False, True]
    assert before.may_match(d, Filter(labels=parse_labels("app=a")), type_store.unread_through)
    elsewhere = Cursor(104).position(type_store)
    assert (elsewhere.served_from, elsewhere.may_know(x)) == (101, True)
    assert shown(store, cursor, limit=2) == [("ADDED", "c", 107), ("ADDED", "x", 108)]
    assert cursor.position(type_store) == Position(108, 100, 100, 100, 110)
    assert shown(store, cursor) == [("MODIFIED", "d", 110)]
    assert cursor.position(type_store) == Position(110, 110, 101, 110, 0)


def test_who_held_everything_at_what_was_lost_knows_what_it_was(delta: Make) -> None:
    """Index 3 was lost. Of one that held the whole state at 3, nothing is unknown: m was never selected."""
    wanted = Filter(labels=parse_labels("app=a"))
    store = fed((1, delta("m")), (2, delta("n", labels={"app": "a"})))
    store.apply_delta(delta("m", member_version="2", type=DELETED), 4, 4)
    assert store.types[PODS].unread_through == 3
    assert shown(store, Cursor(3, 3), wanted) == []
    # One that was last complete before may have been shown, elsewhere, m with that label at 3.
    assert shown(store, Cursor(3, 2), wanted) == [("DELETED", "u", 4)]


def test_served_from_is_no_later_than_what_the_type_has_unread(delta: Make) -> None:
    store = fed((1, delta("a")))
    type_store = store.types[PODS]
    assert Cursor(9, 9).position(type_store).served_from == 0
    type_store.unread_through = 4
    assert Cursor(9, 9).position(type_store).served_from == 4
    assert Cursor(3, 3).position(type_store).served_from == 3


def test_a_cursor_holds_everything_unless_it_is_said_otherwise(delta: Make) -> None:
    type_store = fed((1, delta("a"))).types[PODS]
    assert Cursor(7).position(type_store).complete_at == 7
    assert Cursor(7, 0).position(type_store).complete_at == 0


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_read_ends_at_the_limit_of_changes_or_of_bytes(delta: Make) -> None:
    store = fed(*((index, delta(f"n{index}", uid=f"u{index}")) for index in range(1, 6)))
    type_store = store.types[PODS]
    at = Cursor(0, 0).position(type_store)
    first = type_store.get("alpha", object_key("x", "n1"))
    assert first is not None
    size = len(first.content)
    most: int | None
    upto: int | None
    for limit, most, upto in ((1, None, 1), (3, None, 3), (6, None, None), (5, None, 5)):
        found, end = changes(type_store, at, ALL, limit, most)
        assert (len(found), end) == (upto or 5, upto)
    for most, upto in ((1, 1), (size, 1), (size + 1, 2), (5 * size, 5), (5 * size + 1, None)):
        found, end = changes(type_store, at, ALL, 100, most)
        assert (len(found), end) == (upto or 5, upto)
    # What is not in scope, or not selected, costs nothing of either.
    found, end = changes(type_store, at, Filter(names=frozenset({"n5"})), 1, size)
    assert ([change.entry.name for change in found], end) == (["n5"], 5)
    store.apply_delta(delta("n6", uid="u6", labels={"app": "a"}), 6, 6)
    found, end = changes(type_store, at, Filter(labels=parse_labels("app=a")), 2, 2 * size)
    assert ([change.entry.name for change in found], end) == (["n6"], None)


def test_so_many_are_passed_over_at_one_go(delta: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the dead fewer, as each counts for several; the count begins anew with each piece."""
    monkeypatch.setattr(cursor_module, "_MOST_PASSED", 4)
    monkeypatch.setattr(cursor_module, "_DEAD", 2)
    monkeypatch.setattr(cursor_module, "_MOST_READ", 2)
    monkeypatch.setattr(cursor_module, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    dead = dict.fromkeys((9, 10, 11), DELETED)
    store = fed(
        *((index, delta(f"n{index}", dead.get(index, ADDED), f"u{index}", uid_index=index)) for index in range(1, 15))
    )
    type_store, names = store.types[PODS], frozenset({"other"})
    ends: list[int | None] = [0]
    while ends[-1] is not None:
        found, end = changes(type_store, Cursor(ends[-1], 0).position(type_store), Filter(names=names), 1)
        assert not found
        ends.append(end)
    assert ends == [0, 4, 8, 10, 13, None]
    # With a condition on bodies several pieces are one read, and cost none of its bytes.
    wanted = Filter(names=names, where=Nothing())
    assert changes(type_store, Cursor(0, 0).position(type_store), wanted, 1, 1) == ([], 8)


# -- selections ------------------------------------------------------------------------------------------------------


def test_of_a_selection_an_object_enters_and_leaves(delta: Make) -> None:
    wanted = Filter(labels=parse_labels("app=a"))
    store = fed((1, delta("n", labels={"app": "b"})))
    cursor = Cursor(1, 1)
    store.apply_delta(delta("n", member_version="2", labels={"app": "a"}), 2, 2)
    assert shown(store, cursor, wanted) == [("ADDED", "u", 2)]
    store.apply_delta(delta("n", member_version="3", labels={"app": "a"}), 3, 3)
    assert shown(store, cursor, wanted) == [("MODIFIED", "u", 3)]
    store.apply_delta(delta("n", member_version="4", labels={"app": "b"}), 4, 4)
    assert shown(store, cursor, wanted) == [("DELETED", "u", 4)]
    store.apply_delta(delta("n", member_version="5", labels={}), 5, 5)
    assert shown(store, cursor, wanted) == []
    store.apply_delta(delta("n", member_version="6", type=DELETED), 6, 6)
    assert shown(store, cursor, wanted) == []


def test_another_uid_of_a_name_is_a_deletion_and_an_addition(delta: Make) -> None:
    store = fed((1, delta("n", uid="u")))
    cursor = Cursor(1, 1)
    store.apply_delta(delta("n", uid="v", member_version="2"), 2, 2)
    assert shown(store, cursor) == [("DELETED", "u", 1), ("ADDED", "v", 2)]


def test_another_uid_of_what_the_last_piece_ended_with(delta: Make) -> None:
    store = fed((1, delta("a", uid="u")), (2, delta("b", uid="w")))
    cursor = Cursor(0, 0)
    assert shown(store, cursor, limit=1) == [("ADDED", "u", 1)]
    store.apply_delta(delta("a", uid="v", member_version="2"), 3, 3)
    assert shown(store, cursor) == [("ADDED", "w", 2), ("DELETED", "u", 2), ("ADDED", "v", 3)]


def test_a_name_of_which_no_uid_was_selected_is_not_shown(delta: Make) -> None:
    """The client resumes at an event's version: it may hold any state of n that matched, and none did."""
    wanted = Filter(labels=parse_labels("app=a"))
    store = fed((1, delta("m")), (2, delta("n", uid="u")), (3, delta("m", member_version="2")))
    store.apply_delta(delta("n", uid="v", member_version="3"), 4, 4)
    assert shown(store, Cursor(3, 0), wanted) == []


@pytest.mark.parametrize(("oldest", "expected"), [(0, []), (1, ["u"]), (3, [])])
def test_of_older_uids_it_is_known_where_the_first_began(delta: Make, oldest: int, expected: list[str]) -> None:
    """A cold store: before u, which began at 4, others had the name from `oldest` on; 0: the log does not say."""
    store = Store("h", 100)
    replaced = Replaced(uid="u", uid_index=4, oldest_uid_index=oldest, deletion_index=5, time=0)
    store.apply_delta(delta("n", uid="v", member_version="9", type=DELETED, replaced=replaced), 6, 6)
    assert [uid for _, uid, _ in shown(store, Cursor(2, 2))] == expected


def test_initial_is_the_state_in_the_order_of_lists(delta: Make) -> None:
    store = fed(*((index, delta(name, uid=name)) for index, name in ((1, "b"), (2, "a"), (3, "c"))))
    found = initial(store, store.types[PODS], Filter(names=frozenset({"a", "b"})))
    assert [(change.type, change.entry.name, change.at) for change in found] == [("ADDED", "a", 2), ("ADDED", "b", 1)]


# -- deletions --------------------------------------------------------------------------------------------------------


def test_a_deletion_that_changes_labels_is_of_what_watchers_saw(delta: Make) -> None:
    """The selection and the owner that count are those of the last state before: what a watcher holds matched then."""
    store = fed((1, delta("n", labels={"app": "a"}, fields={"spec.nodeName": "k"}, controller_uid="c")))
    cursor, owned, other = Cursor(1, 1), Cursor(1, 1), Cursor(1, 1)
    store.apply_delta(
        delta("n", member_version="2", type=DELETED, labels={"app": "b"}, fields={"spec.nodeName": "l"}), 2, 2
    )
    tombstone = store.types[PODS].tombstones["alpha"][object_key("x", "n")]
    assert (tombstone.labels, tombstone.fields) == ({"app": "a"}, {"spec.nodeName": "k"})
    assert tombstone.controller_uid == "c"
    assert (tombstone.selectable_since, tombstone.uid_index, tombstone.past) == (1, 1, None)
    assert shown(store, cursor, Filter(labels=parse_labels("app=a"))) == [("DELETED", "u", 2)]
    assert shown(store, owned, Filter(controller_uids=frozenset({"c"}))) == [("DELETED", "u", 2)]
    assert shown(store, other, Filter(labels=parse_labels("app=b"))) == []
    # Who was there before the object was, never held it.
    assert shown(store, Cursor(0, 0)) == []


def test_in_the_window_a_deletion_is_shown_as_the_tombstone(delta: Make) -> None:
    """As the cluster sent it, and not the state before with the version of the change."""
    store = Store("h", 100, WINDOW_BYTES)
    store.finish_loading(0)
    store.apply_delta(delta("n", labels=A), 1, 1)
    store.apply_delta(delta("n", DELETED, member_version="2", labels=B), 2, 2)
    type_store = store.types[PODS]
    [change], _ = changes(type_store, Cursor(1).position(type_store), Filter(labels=APP_A), 100)
    assert change.entry is type_store.tombstone("alpha", object_key("x", "n"))
    assert (change.type, change.at, change.member_version) == (DELETED, 2, None)


# -- versions of the API ---------------------------------------------------------------------------------------------


def stated(store: Store, control: Make, index: int, version: str, cluster: str = "alpha") -> None:
    """A cluster's record of pods, as synced in a version."""
    data = {"kind": "Pod", "version": version, "versions": [version], "namespaced": True}
    store.apply_control(control(TYPE, cluster, resource="pods", data=data), index, index)


def test_before_the_window_what_left_a_version_is_deleted(delta: Make, control: Make) -> None:
    store = Store("h", 100)
    store.finish_loading(0)
    stated(store, control, 1, "v1")
    for index, name in ((2, "a"), (3, "b")):
        store.apply_delta(delta(name, uid=name), index, index)
    stated(store, control, 4, "v2")
    for index, name in ((5, "a"), (6, "c")):
        store.apply_delta(delta(name, uid=name, member_version="2", version="v2"), index, index)
    store.settle()
    of_v1 = Filter(version="v1")
    # c is news in v2; b is in v1 still.
    assert shown(store, Cursor(3), of_v1) == [(DELETED, "a", 5)]
    assert store.window.doubtful == 1
    [change], _ = changes(store.types[PODS], Cursor(3).position(store.types[PODS]), of_v1, 100)
    body = json.loads(change.entry.body)
    assert (body["apiVersion"], change.entry.version, set(body)) == ("v1", "v1", {"kind", "apiVersion", "metadata"})
    assert body["metadata"]["resourceVersion"] == "h.5.2"
    # Who came with the record of v2 holds a as it was; who has read that it left holds nothing of it.
    assert shown(store, Cursor(4), of_v1) == [(DELETED, "a", 5)]
    assert shown(store, Cursor(5), of_v1) == []
    # Nor does a client in another namespace.
    assert shown(store, Cursor(3), Filter(version="v1", namespaces=frozenset({"other"}))) == []
    # Deleted in v2, it is shown so, too.
    store.apply_delta(delta("a", uid="a", member_version="3", version="v2", type=DELETED), 7, 7)
    assert shown(store, Cursor(3), of_v1) == [(DELETED, "a", 7)]
    # Nothing more is left of v1, so later changes are no news there.
    store.apply_delta(delta("b", uid="b", member_version="4", version="v2", type=DELETED, uid_index=3), 8, 8)
    assert shown(store, Cursor(7), of_v1) == [(DELETED, "b", 8)]
    store.apply_delta(delta("c", uid="c", member_version="5", version="v2"), 9, 9)
    assert shown(store, Cursor(8), of_v1) == []


def test_where_nothing_is_known_of_its_version_it_is_deleted(delta: Make) -> None:
    """Of a cluster without a record of the type."""
    store = fed((1, delta("a", uid="a", version="v2")), (2, delta("a", uid="a", version="v2", member_version="2")))
    assert shown(store, Cursor(1), Filter(version="v1")) == [(DELETED, "a", 2)]
    assert shown(store, Cursor(1), Filter(version="v2")) == [("MODIFIED", "a", 2)]


def test_a_version_that_the_log_states_first_counts_from_there(delta: Make, control: Make) -> None:
    """A cold start: the record comes before the first object of the type is here."""
    store = Store("h", 100)
    stated(store, control, 3, "v2")
    store.apply_delta(delta("a", uid="a", version="v2", uid_index=1), 5, 5)
    store.finish_loading(0)
    assert shown(store, Cursor(2, 0), Filter(version="v1")) == [(DELETED, "a", 5)]
    assert shown(store, Cursor(3, 0), Filter(version="v1")) == []


def test_in_the_window_what_leaves_a_version_is_deleted_in_the_state_that_was_there(delta: Make) -> None:
    store = Store("h", 100, WINDOW_BYTES)
    store.finish_loading(0)
    labels = {"app": "a"}
    store.apply_delta(delta("a", uid="a", member_version="7", labels=labels), 1, 1)
    store.apply_delta(delta("b", uid="b", member_version="8"), 2, 2)
    for index, name in ((3, "a"), (4, "b")):
        store.apply_delta(delta(name, uid=name, member_version="9", version="v2", labels=labels), index, index)
    store.apply_delta(delta("a", uid="a", member_version="10", version="v2"), 5, 5)
    type_store = store.types[PODS]

    def left(cursor: Cursor, wanted: Filter) -> list[tuple[str, str, int, str | None]]:
        found, _ = changes(type_store, cursor.position(type_store), wanted, 100)
        return [(one.type, one.entry.member_version, one.at, one.member_version) for one in found]

    assert left(Cursor(2), Filter(version="v1")) == [(DELETED, "7", 3, "9"), (DELETED, "8", 4, "9")]
    # Only what was selected in that version, and only from it.
    assert left(Cursor(2), Filter(version="v1", labels=parse_labels("app=a"))) == [(DELETED, "7", 3, "9")]
    assert left(Cursor(2), Filter(version="v1", names=frozenset({"b"}))) == [(DELETED, "8", 4, "9")]
    assert left(Cursor(4), Filter(version="v1")) == []
    # In the version where they are since, they are new; in a third one they never were.
    came = [(ADDED, "9", 3, None), (ADDED, "9", 4, None), (MODIFIED, "10", 5, None)]
    assert left(Cursor(2), Filter(version="v2")) == came
    assert left(Cursor(0), Filter(version="v3")) == []
    assert store.window.doubtful == 0


def test_in_the_window_what_may_have_left_a_version_unseen_is_deleted(delta: Make) -> None:
    """The state before is not here, or is of another uid, of which the log does not say in which version it was."""

    def left(wanted: Filter, name: str = "n", **given: Any) -> list[tuple[str, str, str, int, str | None]]:
        store = gapped(delta)
        store.apply_delta(delta(name, member_version="9", version="v2", **given), 6, 6)
        # Its cluster has had the type in v2 for long enough, if it was seen to change.
        store.apply_delta(delta("o", uid="o", uid_index=2, version="v2", labels=A), 7, 7)
        pods = store.types[PODS]
        found, _ = changes(pods, Cursor(5).position(pods), wanted, 100)
        assert store.window.doubtful == len(found)
        return [(one.type, one.entry.uid, one.entry.version, one.at, one.member_version) for one in found]

    of_v1 = Filter(version="v1", labels=APP_A, not_names=frozenset({"z"}))
    of_a, of_b = Selectables(A, {}, ""), Selectables(B, {}, "")
    gone = [(DELETED, "u", "v1", 6, "9")]
    since: dict[str, Any] = {"type": MODIFIED, "uid_index": 1}
    assert left(of_v1, labels=B, **since) == gone
    assert left(of_v1, labels=B, was=of_a, **since) == gone
    assert left(of_v1, labels=A, was=of_b, **since) == []
    assert left(of_v1, labels=B, type=DELETED, uid_index=1) == gone
    assert left(of_v1, labels=B, type=DELETED, was=of_b, uid_index=1) == []
    # What is out of scope is not shown; of o, whose cluster was not seen to change, nothing is known.
    assert left(of_v1, "z", uid="z", **since) == [(DELETED, "o", "v1", 7, "1")]
    for created, expected in ((4, []), (5, gone)):
        assert left(Filter(version="v1", since=5), created=created, **since) == expected
    for labels, expected in ((A, [(DELETED, "t", "v1", 6, "9")]), (B, [])):
        other = Replaced(uid="t", uid_index=3, oldest_uid_index=1, time=1, labels=labels)
        assert left(of_v1, uid="v", labels=A, replaced=other) == expected


# -- times, clusters' own versions -----------------------------------------------------------------------------------


def test_what_was_created_at_a_time_that_is_not_known_is_in_no_time(delta: Make) -> None:
    """Before the window: it was never shown, so it is not deleted either."""
    store = fed((1, delta("n")), (2, delta("n", member_version="2")))
    assert shown(store, Cursor(1), Filter(since=5)) == []


def test_all_of_a_removal_is_news_past_a_clusters_own_version(delta: Make, control: Make) -> None:
    """What is removed has the version of its last change, which is older than that of the client."""
    store = Store("h", 100, WINDOW_BYTES)
    store.finish_loading(0)
    store.apply_delta(delta("n", uid="n", member_version="3"), 1, 1)
    store.apply_control(control(REMOVED, "alpha", resource="pods", data={"types": ["pods"]}), 2, 2)
    assert shown(store, Cursor(1), Filter(beyond=(("alpha", "5"),))) == [(DELETED, "n", 2)]
    # Its filter holds all the same.
    assert shown(store, Cursor(1), Filter(beyond=(("alpha", "5"),), names=frozenset({"m"}))) == []


# -- where a cursor stands -------------------------------------------------------------------------------------------


def test_in_the_window_watchers_at_one_index_are_at_one_position(delta: Make) -> None:
    """Whatever they were shown before: so what they are shown is encoded once."""
    store = Store("h", 100, WINDOW_BYTES)
    store.finish_loading(0)
    store.apply_delta(delta("n"), 1, 1)
    type_store = store.types[PODS]
    assert Cursor(1, 0).position(type_store) == Cursor(1).position(type_store) == Position(1, 1, 1, 1, 0)
    store.window.close()
    assert Cursor(1, 0).position(type_store) != Cursor(1).position(type_store)


def test_what_began_where_the_scan_began_is_known(delta: Make) -> None:
    store = fed((2, delta("n")), (5, delta("n", member_version="2", uid_index=2)))
    entry = next(store.types[PODS].live())
    assert [Position(4, 0, 0, begin, 6).may_know(entry) for begin in (1, 2)] == [False, True]


def test_in_the_window_a_piece_that_was_read_leaves_no_scan(delta: Make) -> None:
    store = Store("h", 100, WINDOW_BYTES)
    store.finish_loading(0)
    for index in (1, 2, 3):
        store.apply_delta(delta(f"n{index}", uid=f"u{index}"), index, index)
    type_store = store.types[PODS]
    type_store.unread_through = 9
    cursor = Cursor(0, 0)
    cursor.advance(store, 2)
    store.window.close()
    assert cursor.position(type_store) == Position(2, 2, 2, 2, 0)
    store.window.open(0)
    cursor.advance(store, None)
    store.window.close()
    assert cursor.position(type_store) == Position(3, 3, 3, 3, 0)


def test_who_has_read_up_to_the_window_is_served_from_there(delta: Make) -> None:
    """All that comes past it is read, though what was superseded before it may not have been."""
    store = Store("h", 100, WINDOW_BYTES)
    store.finish_loading(0)
    store.apply_delta(delta("n"), 3, 3)
    store.note_compacted(3)
    assert (store.window.start, store.caught_up_at, store.unread_through) == (3, 0, 3)
    cursor = Cursor(1)
    assert shown(store, cursor) == [("ADDED", "u", 3)]
    assert (cursor.read_to, cursor._served_from) == (3, 3)


@pytest.mark.parametrize("buried", [False, True])
def test_what_shows_nothing_is_passed_over_in_pieces(
    buried: bool, delta: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many deletions a watch comes back to that do not concern it, others have a turn in between."""
    monkeypatch.setattr(cursor_module, "_MOST_PASSED", 160)
    store = Store("h", 86400)
    store.finish_loading(0)
    for number in range(100):
        store.apply_delta(delta(f"n{number}", labels={"app": "other"}), number + 1, 1)
    for number in range(99):
        deleted = delta(f"n{number}", "DELETED", labels={"app": "other"}, uid_index=number + 1, member_version="2")
        store.apply_delta(deleted, number + 101, 1)
    deleted = delta("n99", "DELETED", labels={"app": "other"}, uid_index=100, member_version="2")
    store.apply_delta(deleted, 200, 1)
    store.apply_delta(delta("mine", labels={"app": "mine"}), 201, 1)
    while buried and bury(store, 2):
        pass
    pods = store.types[PODS]
    reading, pieces, shown = Cursor(100), 0, []
    while True:
        found, upto = changes(pods, reading.position(pods), Filter(labels=parse_labels("app=mine")), 10)
        reading.advance(store, upto)
        shown += found
        if upto is None:
            break
        pieces += 1
    assert pieces in (9, 10)
    assert [(change.type, change.entry.name) for change in shown] == [(ADDED, "mine")]
