"""The store, the entries and the order, case by case; `test_model.py` has them all at random."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from deltalog import ADDED, DELETED, MODIFIED, Delta, Replaced
from deltalog.wire.delta import UnreadableRecord
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from deltalog.wire.subjects import CLUSTER, HEALTH, OWNER, REMOVED, SYNCED, TYPE
from materializer.cursor import Cursor, Position, changes, initial
from materializer.entry import METADATA, Entry, entry_of, object_key
from materializer.filter import Filter
from materializer.order import Order
from materializer.store import Outcome, Store

SECOND = 1_000_000_000
NOW = 1_000_000 * SECOND
TTL = 100
PODS = GroupResource("", "pods")
ALL = Filter()
APP_A = Filter(labels=parse_labels("app=a"))
A, B = {"app": "a"}, {"app": "b"}
Make = Callable[..., Any]


def warm() -> Store:
    store = Store("h", TTL)
    store.finish_loading(NOW)
    return store


def shown(store: Store, after: int, wanted: Filter = ALL, limit: int = 1000) -> list[tuple[str, str, str, int]]:
    """Changes past an index as (type, name, uid, version's index)."""
    type_store = store.types.get(PODS)
    if type_store is None:
        return []
    found, _ = changes(type_store, Cursor(after).position(type_store), wanted, limit)
    return [(change.type, change.entry.name, change.entry.uid, change.at) for change in found]


def resumed(store: Store, after: int, wanted: Filter) -> list[tuple[str, str, str, int]]:
    """What a client is shown that comes back with the version of an event, as `shown`."""
    type_store = store.types[PODS]
    found, _ = changes(type_store, Cursor(after, 0).position(type_store), wanted, 1000)
    return [(change.type, change.entry.name, change.entry.uid, change.at) for change in found]


# -- entries -------------------------------------------------------------------------------------------------------


def test_a_body_is_json_with_the_served_version(delta: Make) -> None:
    entry = entry_of(delta("web", uid="u1", member_version="77", labels=A), 12, NOW, "h")
    body = json.loads(entry.body)
    assert body["metadata"]["resourceVersion"] == "h.12.77"
    assert body == {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "h.12.77", "name": "web", "uid": "u1", "namespace": "x", "labels": A},
        "spec": {"of": "77"},
    }
    assert json.loads(entry.metadata()) == body["metadata"]
    assert entry.opening() == METADATA + b'"resourceVersion":"h.12.77",'
    assert (entry.content, len(entry.content)) == (entry.opening() + entry.rest, entry.size)


def test_a_body_can_bear_another_index(delta: Make) -> None:
    entry = entry_of(delta("web", member_version="77"), 12, NOW, "h")
    for index in (11, 7, 123_456_789):
        body = json.loads(entry.type_meta + entry.content_at(index))
        assert body["metadata"].pop("resourceVersion") == f"h.{index}.77"
        own = json.loads(entry.body)
        del own["metadata"]["resourceVersion"]
        assert body == own


def test_a_predecessor_from_the_log_has_a_body_too(delta: Make) -> None:
    replaced = Replaced(uid="old", uid_index=3, oldest_uid_index=2, time=NOW // 1_000_000, member_version="5", labels=A)
    entry = entry_of(delta("web", uid="new", replaced=replaced), 12, NOW, "h")
    before = entry.replaced
    assert before is not None
    assert (before.uid, before.uid_index, before.oldest_uid_index, before.deleted) == ("old", 3, 2, True)
    assert entry.oldest_uid_index == 2
    body = json.loads(before.type_meta + before.content_at(11))
    assert (body["kind"], body["apiVersion"]) == ("Pod", "v1")
    assert body["metadata"] == {
        "resourceVersion": "h.11.5",
        "name": "web",
        "namespace": "x",
        "uid": "old",
        "labels": A,
        "annotations": {"shadow.clusterpedia.io/cluster-name": "alpha"},
    }
    assert json.loads(before.metadata())["uid"] == "old"


def test_a_deletion_of_which_only_metadata_is_known_keeps_the_last_body(delta: Make) -> None:
    store = warm()
    store.apply_delta(delta("n", member_version="1"), 1, NOW)
    gone = delta("n", DELETED, member_version="2", final=False)
    store.apply_delta(gone, 2, NOW)
    grave = store.types[PODS].tombstones["alpha"][object_key("x", "n")]
    body = json.loads(grave.body)
    assert body["metadata"]["resourceVersion"] == "h.2.2"
    assert body["spec"] == {"of": "1"}
    assert json.loads(grave.metadata()) == body["metadata"]


def test_removed_objects_bear_the_removals_index(delta: Make, control: Make) -> None:
    store = warm()
    for index, name in enumerate("ab", 1):
        store.apply_delta(delta(name, member_version="9"), index, NOW)
    store.apply_control(control(REMOVED, "alpha", *PODS), 5, NOW)
    type_store = store.types[PODS]
    found, _ = changes(type_store, Cursor(2).position(type_store), ALL, 100)
    bodies = [json.loads(change.entry.type_meta + change.entry.content_at(change.at)) for change in found]
    assert [body["metadata"]["resourceVersion"] for body in bodies] == ["h.4.9", "h.5.9"]


# -- the order -----------------------------------------------------------------------------------------------------


def items(order: Order, after: int = 0) -> list[object]:
    return list(order.after(after))


def test_order_keeps_its_memory_in_proportion() -> None:
    order = Order()
    for index in range(1, 10_001):
        order.append(index, str(index))  # type: ignore[arg-type]
    for index in range(1, 10_000):
        order.discard(index)
        assert order.holes <= max(1024, len(order.items) // 2 + 1)
    assert items(order) == ["10000"]
    assert len(order.items) <= 2049
    assert order.last() == 10_000


def test_order_reads_behind_any_index() -> None:
    order = Order()
    assert items(order) == []
    assert order.last() == 0
    for index in (2, 4, 6, 8):
        order.append(index, str(index))  # type: ignore[arg-type]
    order.discard(4)
    order.discard(4)
    order.discard(5)
    assert order.holes == 1
    assert items(order) == ["2", "6", "8"]
    assert items(order, 2) == ["6", "8"]
    assert items(order, 5) == ["6", "8"]
    assert items(order, 8) == []


# -- the beginning -------------------------------------------------------------------------------------------------


def test_a_new_store_has_read_nothing() -> None:
    store = Store("h", TTL)
    assert (store.prefix, store.tombstone_ttl, store.loading) == ("h", TTL, True)
    assert (store.applied, store.applied_time, store.floor, store.unread_through, store.caught_up_at) == (0,) * 5
    assert (store.catalogue, store.documents, store.controls) == (0,) * 3
    assert store.outcomes == dict.fromkeys(Outcome, 0)
    kinds = (store.types, store.clusters, store.dirty, store.fading, store.removals, store.pasts, store.removed)
    assert not any(kinds)


# -- what changes nothing ------------------------------------------------------------------------------------------


def test_outcomes_are_told_and_counted(delta: Make, control: Make) -> None:
    store = warm()
    assert store.apply_control(control(OWNER, epoch=2), 1, NOW) is Outcome.APPLIED
    assert store.apply_delta(delta("n", member_version="5", epoch=2), 2, NOW) is Outcome.APPLIED
    assert store.apply_delta(delta("n", member_version="5", epoch=2), 2, NOW) is Outcome.REDELIVERED
    assert store.apply_delta(delta("n", MODIFIED, member_version="5", epoch=2), 3, NOW) is Outcome.NOT_NEWER
    assert store.apply_delta(delta("n", MODIFIED, member_version="6", epoch=1), 4, NOW) is Outcome.FENCED
    assert store.apply_control(control(SYNCED, "alpha", *PODS, epoch=1), 5, NOW) is Outcome.FENCED
    assert store.apply_delta(delta("n", DELETED, uid="other", member_version="7", epoch=2), 6, NOW) is Outcome.NOT_NEWER
    assert store.apply_delta(delta("m", DELETED, member_version="7", epoch=2), 7, NOW) is Outcome.UNKNOWN_OBJECT
    assert shown(store, 0) == [(ADDED, "n", "u", 2)]
    assert store.applied == 7
    assert store.outcomes[Outcome.FENCED] == 2
    assert sum(store.outcomes.values()) == 8
    store.skip(9, NOW + 1)
    store.skip(8, NOW + 2)
    store.skip(9, NOW + 2)
    assert (store.applied, store.applied_time, store.unread_through) == (9, NOW + 1, 8)
    store.check()


def test_versions_are_compared_as_numbers(delta: Make) -> None:
    store = warm()
    store.apply_delta(delta("n", member_version="9"), 1, NOW)
    assert store.apply_delta(delta("n", MODIFIED, member_version="10"), 2, NOW) is Outcome.APPLIED
    assert store.apply_delta(delta("n", MODIFIED, member_version="9"), 3, NOW) is Outcome.NOT_NEWER


def test_a_finally_deleted_uid_stays_dead_for_stale_news(delta: Make) -> None:
    store = warm()
    store.apply_delta(delta("n", member_version="5"), 1, NOW)
    store.apply_delta(delta("n", DELETED, member_version="6"), 2, NOW)
    assert store.apply_delta(delta("n", MODIFIED, member_version="5"), 3, NOW) is Outcome.NOT_NEWER
    assert store.types[PODS].get("alpha", object_key("x", "n")) is None


# -- what watchers are shown ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [{"created": 2**63}, {"uid_index": -1}, {"metadata_end": 10_000}])
def test_a_deletion_that_cannot_be_kept_takes_nothing_out(odd: dict[str, int], delta: Make) -> None:
    """An unreadable message changes nothing: else the object would be gone, and no watch would have been told."""
    store = warm()
    store.apply_delta(delta("a"), 1, NOW)
    made = msgspec.structs.replace(delta("a", DELETED, member_version="2"), **{"uid_index": 1, **odd})
    with pytest.raises(UnreadableRecord):
        store.apply_delta(made, 2, NOW)
    store.skip(2, NOW)
    store.check()
    assert [entry.name for entry in store.types[PODS].live()] == ["a"]


def test_a_name_used_again_is_not_deleted_twice(delta: Make) -> None:
    """A StatefulSet's pod: whoever was told of the deletion is told of the new one only."""
    store = warm()
    store.apply_delta(delta("n", uid="u1", member_version="1"), 1, NOW)
    store.apply_delta(delta("n", DELETED, uid="u1", member_version="2"), 2, NOW)
    assert shown(store, 1) == [(DELETED, "n", "u1", 2)]
    store.apply_delta(delta("n", uid="u2", member_version="3"), 4, NOW)
    assert shown(store, 2) == [(ADDED, "n", "u2", 4)]
    assert shown(store, 1) == [(DELETED, "n", "u1", 3), (ADDED, "n", "u2", 4)]
    assert shown(store, 0) == [(ADDED, "n", "u2", 4)]


def test_a_replaced_uid_is_deleted_then_added(delta: Make) -> None:
    store = warm()
    store.apply_delta(delta("n", uid="u1", member_version="1"), 1, NOW)
    store.apply_delta(delta("n", uid="u2", member_version="2"), 2, NOW)
    store.apply_delta(delta("n", MODIFIED, uid="u2", member_version="3"), 5, NOW)
    assert shown(store, 1) == [(DELETED, "n", "u1", 4), (ADDED, "n", "u2", 5)]
    assert shown(store, 2) == [(MODIFIED, "n", "u2", 5)]


def test_entering_and_leaving_a_selection(delta: Make) -> None:
    store = warm()
    store.apply_delta(delta("n", member_version="1", labels=B), 1, NOW)
    assert shown(store, 0, APP_A) == []
    store.apply_delta(delta("n", MODIFIED, member_version="2", labels=A), 2, NOW)
    assert shown(store, 1, APP_A) == [(ADDED, "n", "u", 2)]
    store.apply_delta(delta("n", MODIFIED, member_version="3", labels=A), 3, NOW)
    assert shown(store, 2, APP_A) == [(MODIFIED, "n", "u", 3)]
    store.apply_delta(delta("n", MODIFIED, member_version="4", labels=B), 4, NOW)
    assert shown(store, 3, APP_A) == [(DELETED, "n", "u", 4)]
    assert shown(store, 1, APP_A) == []
    store.apply_delta(delta("n", DELETED, member_version="5", labels=B), 5, NOW)
    assert shown(store, 4, APP_A) == []
    assert shown(store, 3, APP_A) == [(DELETED, "n", "u", 5)]


@pytest.mark.parametrize("leaving", ["label", "label, then deleted", "another uid", "another uid, then deleted"])
def test_what_left_a_selection_is_told_to_who_was_cut_off_in_between(delta: Make, leaving: str) -> None:
    """A read shows `m`, which is older than the last state of `n`; the client comes back with `m`'s version.

    It holds `n` as it was before: that `n` had left the selection already when `m` changed, it was not told.
    """
    store = warm()
    store.apply_delta(delta("n", member_version="1", labels=A), 1, NOW)
    store.skip(2, NOW)
    if leaving.startswith("another uid"):
        store.apply_delta(delta("n", uid="u2", member_version="2", labels=B), 3, NOW)
    else:
        store.apply_delta(delta("n", MODIFIED, member_version="2", labels=B), 3, NOW)
    store.apply_delta(delta("m", member_version="3", labels=A), 4, NOW)
    type = DELETED if leaving.endswith("then deleted") else MODIFIED
    uid = "u2" if leaving.startswith("another uid") else "u"
    store.apply_delta(delta("n", type, uid=uid, member_version="4", labels=B), 5, NOW)
    type_store = store.types[PODS]
    first, upto = changes(type_store, Cursor(1).position(type_store), APP_A, 1)
    assert [(change.type, change.entry.name, change.at) for change in first] == [(ADDED, "m", 4)]
    assert upto == 4
    # A deleted uid that the client may know is shown itself; one that lives on, as the uid that it took the name of.
    assert resumed(store, 4, APP_A) == [(DELETED, "n", "u" if leaving == "another uid" else uid, 5)]


def test_a_removal_tells_of_a_predecessor_too(delta: Make, control: Make) -> None:
    store = warm()
    store.apply_delta(delta("n", uid="u1", member_version="1"), 1, NOW)
    store.apply_delta(delta("n", uid="u2", member_version="2"), 2, NOW)
    store.apply_control(control(REMOVED, "alpha", *PODS), 3, NOW)
    assert shown(store, 2) == [(DELETED, "n", "u2", 3)]
    assert [event[:2] for event in shown(store, 1)] == [(DELETED, "n")]
    assert shown(store, 0) == []


def test_deletions_just_before_a_removal_are_not_lost(delta: Make, control: Make) -> None:
    """A CRD is deleted: its objects go first, then the type, all before a watcher reads again."""
    store = warm()
    store.apply_delta(delta("n", member_version="1"), 1, NOW)
    store.apply_delta(delta("n", DELETED, member_version="2"), 2, NOW)
    store.apply_control(control(REMOVED, "alpha", *PODS), 3, NOW)
    store.check()
    assert shown(store, 1) == [(DELETED, "n", "u", 2)]


def test_a_removal_is_one_batch(delta: Make, control: Make) -> None:
    store = warm()
    for index, name in enumerate("abc", 1):
        store.apply_delta(delta(name), index, NOW)
    store.apply_delta(delta("other", cluster="beta"), 4, NOW)
    store.apply_control(control(REMOVED, "alpha"), 9, NOW)
    store.check()
    assert shown(store, 4) == [(DELETED, "a", "u", 8), (DELETED, "b", "u", 8), (DELETED, "c", "u", 9)]
    assert shown(store, 4, limit=1) == shown(store, 4)
    assert shown(store, 8) == shown(store, 4)
    assert shown(store, 9) == []
    assert [entry.name for entry in store.types[PODS].select(ALL)] == ["other"]
    assert "alpha" not in store.clusters
    store.apply_delta(delta("b", uid="again"), 10, NOW)
    assert [event[:3] for event in shown(store, 9)] == [(ADDED, "b", "again")]


# -- forgetting and floors -----------------------------------------------------------------------------------------


def test_forgetting_raises_the_floor(delta: Make) -> None:
    store = warm()
    store.apply_delta(delta("n", member_version="1"), 1, NOW)
    store.apply_delta(delta("n", DELETED, member_version="2"), 2, NOW)
    store.apply_delta(delta("m", member_version="3"), 3, NOW + SECOND)
    store.forget(NOW + TTL * SECOND)
    assert store.floor_of(PODS, None) == 0
    assert shown(store, 1)[0] == (DELETED, "n", "u", 2)
    store.forget(NOW + TTL * SECOND + 1)
    assert store.floor_of(PODS, None) == 2
    assert store.types[PODS].tombstones == {}
    store.check()


def test_forgetting_an_old_life_spares_a_new_one_of_the_same_uid(delta: Make) -> None:
    """Objects that a list missed come back under their uid: each return replaces the life before."""
    store = warm()
    store.apply_delta(delta("n", member_version="1"), 1, NOW)
    store.apply_delta(delta("n", DELETED, member_version="2", final=False), 2, NOW)
    store.apply_delta(delta("n", member_version="3"), 3, NOW)
    later = NOW + 90 * SECOND
    store.apply_delta(delta("n", DELETED, member_version="4", final=False), 4, later)
    store.apply_delta(delta("n", member_version="5"), 5, later)
    before = shown(store, 3)
    assert before == [(DELETED, "n", "u", 4), (ADDED, "n", "u", 5)]
    store.forget(NOW + (TTL + 1) * SECOND)
    assert store.floor == 3
    assert shown(store, 3) == before


def cold(*messages: tuple[Any, int, int], now: int) -> Store:
    """A store that starts on a compacted log: (record, index, time)."""
    store = Store("h", TTL)
    for record, index, time in messages:
        apply: Any = store.apply_delta if hasattr(record, "object") else store.apply_control
        apply(record, index, time)
    store.finish_loading(now)
    store.check()
    return store


def test_a_young_log_can_be_resumed_anywhere(delta: Make) -> None:
    now = NOW + 10 * SECOND
    store = cold((delta("n"), 4, NOW), (delta("m", DELETED, uid_index=3), 7, NOW), now=now)
    assert store.floor_of(PODS, None) < 4
    assert shown(store, 3) == [(ADDED, "n", "u", 4), (DELETED, "m", "u", 7)]


def test_a_cold_floor_is_above_tombstones_the_server_forgot(delta: Make) -> None:
    """`gone` was deleted at 8 and its tombstone has expired; all that is left from then is `old`, at 3."""
    late = NOW + (TTL + 50) * SECOND
    store = cold((delta("old"), 3, NOW), (delta("new"), 20, late), now=late)
    assert store.floor_of(PODS, None) >= 8


def test_a_cold_floor_covers_removals_of_clusters(delta: Make, control: Make) -> None:
    """The type has not been seen yet when the cluster's removal is read: its objects are purged."""
    store = cold((control(REMOVED, "alpha"), 5, NOW), (delta("m", cluster="beta"), 6, NOW), now=NOW + SECOND)
    assert store.floor_of(PODS, None) >= 5
    assert store.floor_of(PODS, frozenset(["alpha"])) >= 5
    assert store.floor_of(GroupResource("apps", "deployments"), None) >= 5
    assert store.floor_of(PODS, frozenset(["beta"])) < 5


def test_a_cold_store_does_not_guess_a_predecessors_labels(delta: Make) -> None:
    """u1 matched at 1 and no longer at its end; who resumes at 1 may hold it."""
    replaced = Replaced(uid="u1", uid_index=1, oldest_uid_index=1, time=NOW // 1_000_000, labels=B)
    store = cold((delta("n", uid="u2", labels=B, replaced=replaced), 6, NOW), now=NOW)
    assert [event[:2] for event in shown(store, 1, APP_A)] == [(DELETED, "n")]


def test_a_cold_store_shows_a_predecessor(delta: Make) -> None:
    replaced = Replaced(uid="u1", uid_index=3, oldest_uid_index=2, time=NOW // 1_000_000)
    store = cold((delta("n", uid="u2", replaced=replaced), 6, NOW), now=NOW)
    assert shown(store, 4) == [(DELETED, "n", "u1", 5), (ADDED, "n", "u2", 6)]
    assert [event[:2] for event in shown(store, 2)] == [(DELETED, "n"), (ADDED, "n")]
    assert shown(store, 1) == [(ADDED, "n", "u2", 6)]
    store.forget(NOW + (TTL + 1) * SECOND)
    assert store.floor >= 4
    assert shown(store, 4) == [(ADDED, "n", "u2", 6)]


# -- lists and clusters --------------------------------------------------------------------------------------------


def test_lists_are_ordered_and_scoped(delta: Make) -> None:
    store = Store("h", TTL)
    places = [("beta", "x"), ("alpha", "y"), ("alpha", "x-y"), ("alpha", "x"), ("alpha", ""), ("beta", "")]
    for index, (cluster, namespace) in enumerate(places, 1):
        store.apply_delta(delta("n", cluster=cluster, namespace=namespace), index, NOW)
    store.apply_delta(delta("m", cluster="alpha", namespace="x"), 9, NOW)
    store.finish_loading(NOW)
    type_store = store.types[PODS]

    def listed(**given: Any) -> list[tuple[str, str, str]]:
        found: list[Entry] = type_store.select(Filter(**given))
        return [(entry.cluster, entry.namespace, entry.name) for entry in found]

    everything = sorted([(cluster, namespace, "n") for cluster, namespace in places] + [("alpha", "x", "m")])
    assert listed() == everything
    assert listed(namespaces=frozenset("x")) == [one for one in everything if one[1] == "x"]
    assert listed(clusters=frozenset(["beta", "gamma"])) == [one for one in everything if one[0] == "beta"]
    assert listed(namespaces=frozenset("x"), names=frozenset("m")) == [("alpha", "x", "m")]
    assert listed(names=frozenset("n"), clusters=frozenset(["beta"])) == [("beta", "", "n"), ("beta", "x", "n")]
    assert [change.type for change in initial(store, type_store, ALL)] == [ADDED] * len(everything)
    assert len(type_store) == len(everything)


def test_control_records_describe_a_cluster(control: Make) -> None:
    store = warm()
    described = {"version": "v1", "kind": "Pod", "short_names": ["po"], "verbs": ["list"], "unheard of": 1}
    records = [
        control(OWNER, epoch=3, producer="p7"),
        control(CLUSTER, epoch=3, data={"version": {"gitVersion": "v1.36"}}),
        control(TYPE, "alpha", *PODS, epoch=3, data=described),
    ]
    for index, record in enumerate(records, 1):
        assert store.apply_control(record, index, NOW) is Outcome.APPLIED
    cluster = store.clusters["alpha"]
    assert (cluster.epoch, cluster.producer, cluster.registered) == (3, "p7", True)
    assert cluster.server_version == {"gitVersion": "v1.36"}
    info = cluster.types[PODS]
    assert (info.version, info.kind, info.short_names, info.group_resource) == ("v1", "Pod", ("po",), PODS)
    assert cluster.missing == [PODS]
    assert store.catalogue == 3
    store.apply_control(control(SYNCED, "alpha", *PODS, epoch=3), 4, NOW)
    assert cluster.missing == []
    assert cluster.synced[PODS] == 4
    # The same again changes no catalogue.
    store.apply_control(control(TYPE, "alpha", *PODS, epoch=3, data=described), 5, NOW)
    assert (store.catalogue, store.controls) == (3, 5)
    store.apply_control(control(HEALTH, epoch=3, data={"healthy": False, "reason": "no route"}), 6, NOW)
    assert cluster.stale_reason(0) == "no route"
    store.apply_control(control(HEALTH, epoch=3, data={"healthy": True}), 7, NOW)
    assert cluster.stale_reason(0) is None
    store.apply_control(control(REMOVED, "alpha", *PODS, epoch=3), 8, NOW)
    assert (cluster.types, cluster.synced, store.catalogue) == ({}, {}, 8)


# -- messages superseded before they were read -------------------------------------------------------------------------


def test_a_deletion_of_a_life_never_seen_ends_the_one_before(delta: Make) -> None:
    """u1 lives here; while the reader lagged, u2 took its name and went: all that the log still has is its end."""
    store = warm()
    store.apply_delta(delta("n", uid="u1", member_version="1"), 1, NOW)
    store.apply_delta(delta("n", DELETED, uid="u2", member_version="9", uid_index=4), 6, NOW)
    store.check()
    assert store.types[PODS].get("alpha", object_key("x", "n")) is None
    assert [event[:2] for event in shown(store, 1)] == [(DELETED, "n")]


def test_where_a_uid_entered_the_log_is_what_the_log_says(delta: Make) -> None:
    """u2 came at 4, which this process never saw; another instance has shown it to a client that comes here at 5."""
    store = warm()
    store.apply_delta(delta("n", uid="u1", member_version="1"), 1, NOW)
    replaced = Replaced(uid="u1", uid_index=1, oldest_uid_index=1, time=NOW // 1_000_000)
    store.apply_delta(delta("n", MODIFIED, uid="u2", member_version="9", uid_index=4, replaced=replaced), 6, NOW)
    store.check()
    assert shown(store, 5) == [(MODIFIED, "n", "u2", 6)]
    assert shown(store, 1) == [(DELETED, "n", "u1", 5), (ADDED, "n", "u2", 6)]


def test_a_resume_over_a_removal_that_hid_objects_is_refused(delta: Make, control: Make) -> None:
    """What came at 2 and 3 was removed and purged before it was read: only another instance's clients know it."""
    store = warm()
    store.apply_delta(delta("n"), 1, NOW)
    store.apply_control(control(REMOVED, "alpha", *PODS), 4, NOW)
    assert store.floor_of(PODS, None) >= 4


def test_a_uid_whose_beginning_was_superseded_unread_is_new_to_those_we_served(delta: Make) -> None:
    """The watcher went on past the place where the uid entered the log, and was never shown it."""
    store = warm()
    store.apply_delta(delta("other", uid="o", member_version="1"), 1, NOW)
    # 2 was ADDED of `n`, superseded by 4 before it was read here.
    store.apply_delta(delta("other", MODIFIED, uid="o", member_version="3"), 3, NOW)
    store.apply_delta(delta("n", MODIFIED, uid="u", member_version="4", uid_index=2), 4, NOW)
    type_store = store.types[PODS]
    served, _ = changes(type_store, Position(3, 3, 1, 3, 0), ALL, 100)
    assert [(change.type, change.entry.name) for change in served] == [(ADDED, "n")]
    # One that came here with version 3 from an instance that had read everything does hold it.
    came, _ = changes(type_store, Position(3, 3, 3, 3, 0), ALL, 100)
    assert [(change.type, change.entry.name) for change in came] == [(MODIFIED, "n")]


def test_the_removal_of_what_had_no_objects_costs_a_cold_store_nothing(delta: Make, control: Make) -> None:
    records = [
        (1, delta("a", cluster="alpha", uid="ua")),
        # 2 was superseded, 3 and 4 purged with what they spoke of.
        (5, control("removed", "bravo", data={"types": ["deployments.apps"]})),
        (6, delta("b", cluster="alpha", uid="ub")),
    ]
    cold = Store("h", 1000)
    for index, record in records:
        (cold.apply_delta if isinstance(record, Delta) else cold.apply_control)(record, index, NOW)
    cold.finish_loading(NOW, NOW)
    assert cold.floor_of(PODS, None) == 0
    assert cold.floor_of(GroupResource("apps", "deployments"), None) == 5
    assert cold.floor_of(GroupResource("apps", "deployments"), frozenset({"alpha"})) == 0
    # Whoever removed it without saying what there was is taken to have had everything.
    apply = Store("h", 1000)
    for index, record in ((1, delta("a", cluster="alpha", uid="ua")), (5, control("removed", "bravo"))):
        (apply.apply_delta if isinstance(record, Delta) else apply.apply_control)(record, index, NOW)
    apply.finish_loading(NOW, NOW)
    assert apply.floor_of(PODS, None) == 5
