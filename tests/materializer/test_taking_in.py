"""What one message makes of the store: where it is in the log, what counts as news, and each fact about a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import structs

from deltalog import DELETED, MODIFIED, ControlRecord, Replaced
from deltalog.wire.delta import UNCHANGED, Selectables, UnreadableRecord
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import (
    ClusterDocument,
    ClusterRegistered,
    DiscoveryDocument,
    DocumentName,
    Fact,
    HealthChanged,
    ObjectsRemoved,
    OpenApiDocument,
    OwnerChanged,
    StatusReport,
    TypeStatus,
    TypeSynced,
)
from deltalog.wire.resource_type import ResourceType
from materializer.entry import Entry, entry_of, envelope_of, life_of, new_entry, object_key
from materializer.order import Removal
from materializer.record import uid_bytes
from materializer.store import Outcome, Store
from materializer.type_store import TypeStore
from materializer.window import Window
from tests.stable_ids import stable

SECOND = 1_000_000_000
TTL = 100
NOW = 1_000_000 * SECOND
PODS, DEPLOYMENTS = GroupResource("", "pods"), GroupResource("apps", "deployments")
N = object_key("x", "n")
Make = Callable[..., Any]


@pytest.fixture
def store() -> Store:
    """Empty, past its first replay."""
    store = Store("h", TTL)
    store.finish_loading(NOW)
    return store


def state(fact: Fact, epoch: int = 0, cluster: str = "alpha", time: int = 7) -> ControlRecord:
    return ControlRecord(cluster=cluster, time=time, producer="p", epoch=epoch, fact=fact)


def document(text: str = "text") -> ClusterDocument:
    return ClusterDocument(hash=text, size=4, body=text.encode())


def live(store: Store) -> Entry:
    found = store.types[PODS].get("alpha", N)
    assert found is not None
    return found


# -- the place in the log ----------------------------------------------------------------------------------------------


def test_each_message_moves_the_place_in_the_log_and_a_repetition_does_not(store: Store, delta: Make) -> None:
    places = []
    for index, time in ((2, 20), (2, 21), (1, 22)):
        store.apply_delta(delta(), index, time)
        places.append((store.applied, store.applied_time, store.unread_through))
    for index, time in ((4, 40), (4, 41), (3, 42)):
        store.apply_control(state(ClusterRegistered()), index, time)
        places.append((store.applied, store.applied_time, store.unread_through))
    for index, time in ((6, 60), (6, 61), (5, 62)):
        store.skip(index, time)
        places.append((store.applied, store.applied_time, store.unread_through))
    assert places == [(2, 20, 1)] * 3 + [(4, 40, 3)] * 3 + [(6, 60, 5)] * 3
    assert store.controls == 4
    # One that follows the last hides nothing.
    store.skip(7, 70)
    store.apply_control(state(ClusterRegistered()), 8, 80)
    store.apply_delta(delta(member_version="2"), 9, 90)
    assert store.unread_through == 5
    assert store.types[PODS].unread_through == 5
    assert store.caught_up_at == 0
    store.settle()
    assert store.caught_up_at == 9
    assert store.outcomes[Outcome.REDELIVERED] == 4
    assert store.outcomes[Outcome.APPLIED] == 4


def test_a_type_notes_what_was_unread_at_its_last_change(store: Store, delta: Make) -> None:
    store.apply_delta(delta(), 3, NOW)
    store.apply_delta(delta(group="apps", resource="deployments"), 7, NOW)
    assert (store.types[PODS].unread_through, store.types[DEPLOYMENTS].unread_through) == (2, 6)
    store.apply_control(state(ObjectsRemoved(resource=PODS)), 8, NOW)
    assert store.types[PODS].unread_through == 6


def test_a_new_type_has_lost_nothing() -> None:
    type_store = TypeStore(PODS, False, Window(0), "h")
    assert (type_store.key, type_store.forgotten, type_store.unread_through, len(type_store)) == (PODS, 0, 0, 0)
    assert (type_store.floors, type_store.tombstones, type_store.order.last()) == ({}, {}, 0)


def test_past_the_first_replay_what_no_type_has_is_not_kept(store: Store) -> None:
    store.skip(1, NOW)
    store.apply_control(state(ClusterRegistered()), 2, NOW)
    assert store._others == []


# -- what counts as news -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ({"member_version": "10"}, Outcome.NOT_NEWER),
        ({"member_version": "9"}, Outcome.NOT_NEWER),
        ({"member_version": "11"}, Outcome.APPLIED),
        # Another life, another API version, a cluster that was set back.
        ({"member_version": "10", "uid": "v"}, Outcome.APPLIED),
        ({"member_version": "9", "version": "v2"}, Outcome.APPLIED),
        ({"member_version": "9", "restored": True}, Outcome.APPLIED),
    ],
    ids=stable,
)
def test_news_of_a_live_object(store: Store, delta: Make, given: dict[str, Any], outcome: Outcome) -> None:
    store.apply_delta(delta(member_version="10"), 1, NOW)
    store.dirty.clear()
    assert store.apply_delta(delta(type=MODIFIED, **given), 2, NOW) is outcome
    assert live(store).index == (2 if outcome is Outcome.APPLIED else 1)
    assert store.dirty == ({PODS} if outcome is Outcome.APPLIED else set())
    store.check()


@pytest.mark.parametrize(
    ("given", "final", "outcome"),
    [
        ({"member_version": "10"}, True, Outcome.NOT_NEWER),
        ({"member_version": "9"}, True, Outcome.NOT_NEWER),
        ({"member_version": "11"}, True, Outcome.APPLIED),
        ({"member_version": "9", "uid": "v"}, True, Outcome.APPLIED),
        ({"member_version": "9", "restored": True}, True, Outcome.APPLIED),
        # It was only missed in a list: its version is that of its last change.
        ({"member_version": "10"}, False, Outcome.APPLIED),
    ],
    ids=stable,
)
def test_news_of_a_deleted_object(
    store: Store, delta: Make, given: dict[str, Any], final: bool, outcome: Outcome
) -> None:
    store.apply_delta(delta(member_version="9"), 1, NOW)
    store.apply_delta(delta(type=DELETED, member_version="10", final=final), 2, NOW)
    assert store.apply_delta(delta(type=MODIFIED, **given), 3, NOW) is outcome
    assert (store.types[PODS].get("alpha", N) is not None) is (outcome is Outcome.APPLIED)
    assert (N in store.types[PODS].tombstones["alpha"]) is (outcome is not Outcome.APPLIED)
    store.check()


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ({"uid": "u", "uid_index": 3}, Outcome.APPLIED),
        # Of another uid: only if that began after what is here.
        ({"uid": "v", "uid_index": 3}, Outcome.NOT_NEWER),
        ({"uid": "v", "uid_index": 4}, Outcome.NOT_NEWER),
        ({"uid": "v", "uid_index": 5}, Outcome.APPLIED),
    ],
    ids=stable,
)
def test_deletions_of_a_live_name(store: Store, delta: Make, given: dict[str, Any], outcome: Outcome) -> None:
    store.apply_delta(delta(member_version="3"), 3, NOW)
    store.apply_delta(delta(member_version="4", type=MODIFIED), 4, NOW)
    store.dirty.clear()
    assert store.apply_delta(delta(type=DELETED, member_version="9", **given), 6, NOW + 1) is outcome
    if outcome is Outcome.APPLIED:
        tombstone = store.types[PODS].tombstones["alpha"][N]
        assert (tombstone.index, tombstone.uid, tombstone.deleted) == (6, given["uid"], True)
        assert tombstone.observed_from == (3 if given["uid"] == "u" else 6)
        assert [(time, index, key) for time, index, key, _ in store.fading] == [(NOW + 1, 6, PODS)]
        assert store.dirty == {PODS}
    else:
        assert not store.fading
        assert store.dirty == set()
    store.check()


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ({"uid": "u", "uid_index": 1}, Outcome.NOT_NEWER),
        ({"uid": "u", "uid_index": 2}, Outcome.NOT_NEWER),
        ({"uid": "u", "uid_index": 3}, Outcome.UNKNOWN_OBJECT),
        ({"uid": "v", "uid_index": 1}, Outcome.UNKNOWN_OBJECT),
    ],
    ids=stable,
)
def test_deletions_of_a_deleted_name(store: Store, delta: Make, given: dict[str, Any], outcome: Outcome) -> None:
    store.apply_delta(delta(member_version="1"), 1, NOW)
    store.apply_delta(delta(type=DELETED, member_version="2"), 2, NOW)
    assert store.apply_delta(delta(type=DELETED, member_version="9", **given), 6, NOW) is outcome
    tombstone = store.types[PODS].tombstones["alpha"][N]
    assert tombstone.index == (2 if outcome is Outcome.NOT_NEWER else 6)
    assert (tombstone.replaced and tombstone.replaced.index) == (None if outcome is Outcome.NOT_NEWER else 2)
    assert [index for _, index, _, _ in store.fading] == ([2] if outcome is Outcome.NOT_NEWER else [2, 6])
    store.check()


def test_a_deletion_of_what_was_never_here_is_applied_while_loading(delta: Make) -> None:
    store = Store("h", TTL)
    assert store.apply_delta(delta(type=DELETED), 1, NOW) is Outcome.APPLIED
    store.finish_loading(NOW)
    assert store.apply_delta(delta("m", type=DELETED), 2, NOW) is Outcome.UNKNOWN_OBJECT


@pytest.mark.parametrize("was", [None, UNCHANGED])
@pytest.mark.parametrize("final", [True, False])
def test_the_body_of_a_tombstone(store: Store, delta: Make, final: bool, was: Selectables | None) -> None:
    """The last state that came with the deletion; where none came, the last one that is here."""
    store.apply_delta(delta(member_version="1", created=3), 1, NOW)
    store.apply_delta(delta(type=DELETED, member_version="2", final=final, uid_index=1, was=was), 2, NOW)
    tombstone = store.types[PODS].tombstones["alpha"][N]
    assert (b'"of":"2"' in tombstone.body, b'"of":"1"' in tombstone.body) == (final, not final)
    assert tombstone.created == (0 if final else 3)


@pytest.mark.parametrize(
    "uids", [("u", "w"), ("0a-u", "0A-u"), tuple(f"{n}f020304-0506-0708-090a-0b0c0d0e0f10" for n in "12")]
)
def test_uids_are_told_apart_however_they_are_held(store: Store, delta: Make, uids: tuple[str, str]) -> None:
    one, other = uids
    store.apply_delta(delta(uid=one), 1, NOW)
    assert store.apply_delta(delta(uid=one), 2, NOW) == Outcome.NOT_NEWER
    assert store.apply_delta(delta(uid=other), 3, NOW) == Outcome.APPLIED
    before = live(store).replaced
    assert before is not None
    assert (live(store).uid, before.uid) == (other, one)
    assert store.apply_delta(delta(type=DELETED, uid=one, uid_index=1), 4, NOW) == Outcome.NOT_NEWER
    assert store.apply_delta(delta(type=DELETED, uid=other, uid_index=3), 5, NOW) == Outcome.APPLIED


@pytest.mark.parametrize("type", [MODIFIED, DELETED])
def test_a_cluster_and_the_type_know_since_when_objects_are_in_a_version(store: Store, delta: Make, type: str) -> None:
    store.apply_delta(delta(), 1, NOW)
    assert (store.clusters["alpha"].version_since, store.types[PODS].version_since) == ({}, {})
    store.apply_delta(delta(type=type, version="v2", uid_index=1, member_version="2"), 2, NOW)
    assert (store.clusters["alpha"].version_since, store.types[PODS].version_since) == ({PODS: 2}, {"alpha": 2})
    # The next in that version says nothing new.
    store.apply_delta(delta(type=type, version="v2", uid_index=1, member_version="3"), 3, NOW)
    store.apply_delta(delta("m", uid="m", version="v2"), 4, NOW)
    store.apply_delta(delta("m", type=DELETED, uid="m", version="v2", uid_index=4, member_version="4"), 5, NOW)
    assert (store.clusters["alpha"].version_since, store.types[PODS].version_since) == ({PODS: 2}, {"alpha": 2})


def test_a_name_that_is_used_again_fades_once(store: Store, delta: Make) -> None:
    store.apply_delta(delta(uid="u"), 1, NOW)
    store.apply_delta(delta(uid="u", type=DELETED, member_version="2"), 2, NOW + 1)
    replaced = Replaced(uid="u", uid_index=1, oldest_uid_index=1, time=NOW // 1_000_000)
    store.apply_delta(delta(uid="v", member_version="3", replaced=replaced), 3, NOW + 2)
    assert [(time, index) for time, index, _, _ in store.fading] == [(NOW + 1, 2), (NOW + 2, 3)]
    assert store.types[PODS].tombstones["alpha"] == {}
    before = live(store).replaced
    assert before is not None
    assert (before.index, before.uid) == (2, "u")


# -- versions of the cluster -------------------------------------------------------------------------------------------


def test_a_cluster_is_followed_by_what_comes_in_order(store: Store, delta: Make) -> None:
    store.apply_delta(delta(member_version="5"), 1, NOW)
    cluster = store.clusters["alpha"]
    assert (cluster.followed, cluster.versions_restarted_at) == ({}, 1)
    store.apply_delta(delta(member_version="6", in_order=True), 2, NOW)
    assert cluster.followed == {PODS: "6"}
    # Also if the state is known already.
    assert store.apply_delta(delta(member_version="6", in_order=True), 3, NOW) is Outcome.NOT_NEWER
    store.apply_delta(delta("m", uid="m", member_version="7", in_order=True, restored=True), 4, NOW)
    assert (cluster.followed, cluster.versions_restarted_at) == ({PODS: "7"}, 1)


@pytest.mark.parametrize(
    ("given", "restarted"),
    [
        ({"member_version": "4", "restored": True}, True),
        ({"member_version": "6", "restored": True}, False),
        ({"member_version": "5", "restored": True}, False),
        ({"member_version": "4"}, False),
        ({"member_version": "4", "restored": True, "name": "m"}, False),
    ],
    ids=stable,
)
def test_a_restored_object_that_is_older_says_that_the_cluster_was_set_back(
    store: Store, delta: Make, given: dict[str, Any], restarted: bool
) -> None:
    store.apply_delta(delta(member_version="5", in_order=True), 1, NOW)
    store.apply_delta(delta(type=MODIFIED, **given), 2, NOW)
    cluster = store.clusters["alpha"]
    assert cluster.versions_restarted_at == (2 if restarted else 1)
    assert cluster.followed == ({} if restarted else {PODS: "5"})


# -- what is handed on from state to state -----------------------------------------------------------------------------


def test_what_a_state_takes_over_from_the_one_before(store: Store, delta: Make) -> None:
    content: dict[str, Any] = {"labels": {"app": "a"}, "fields": {"f": "1"}, "controller_uid": "o"}
    store.apply_delta(delta(member_version="1", **content), 1, NOW)
    first = live(store)
    again = {key: dict(value) if isinstance(value, dict) else value for key, value in content.items()}
    store.apply_delta(delta(type=MODIFIED, member_version="2", uid_index=1, **again), 2, NOW)
    second = live(store)
    assert (second.uid_index, second.observed_from, second.selectable_since, second.past) == (1, 1, 1, None)
    assert (second.first_known_version, second.oldest_uid_index) == ("1", 1)
    # Equal ones are one object.
    assert second.labels is first.labels
    assert second.envelope is first.envelope
    for index, changed in ((3, {"labels": {}}), (4, {"fields": {}}), (5, {"controller_uid": ""})):
        before = live(store)
        content |= changed
        store.apply_delta(delta(type=MODIFIED, member_version=str(index), uid_index=1, **content), index, NOW)
        past = live(store).past
        assert past is not None
        assert past is store.pasts[-1]
        assert (past.selectable_since, past.labels, past.fields) == (
            before.selectable_since,
            before.labels,
            before.fields,
        )
        assert (past.controller_uid, past.before) == (before.controller_uid, before.past)
        assert live(store).selectable_since == index
        assert not past.forgotten
    store.apply_delta(delta(type=MODIFIED, member_version="6", uid_index=1, **content), 6, NOW)
    assert (live(store).selectable_since, live(store).past) == (5, store.pasts[-1])


def test_so_many_earlier_states_are_remembered(store: Store, delta: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("materializer.store._PAST_LIMIT", 2)
    for index in range(1, 6):
        store.apply_delta(delta(member_version=str(index), labels={"app": str(index)}), index, NOW)
    assert [past.selectable_since for past in store.pasts] == [3, 4]
    oldest = live(store).past
    assert oldest is not None
    assert oldest.before is not None
    assert (oldest.before.forgotten, oldest.before.before) == (False, None) or oldest.before.before is not None
    beyond = oldest.before.before
    assert beyond is not None
    assert beyond.forgotten


def test_where_a_life_begins(store: Store, delta: Make) -> None:
    """Of one that begins with its message all is known; of one that began before, only from here on."""
    store.apply_delta(delta(member_version="7"), 5, NOW)
    one = live(store)
    assert (one.uid_index, one.observed_from, one.selectable_since, one.first_known_version) == (5, 5, 5, "7")
    store.apply_delta(delta("m", uid="m", member_version="8", uid_index=2), 6, NOW)
    other = store.types[PODS].clusters["alpha"][object_key("x", "m")]
    assert (other.uid_index, other.observed_from, other.selectable_since) == (2, 6, 6)
    assert (other.first_known_version, other.oldest_uid_index) == ("", 2)
    assert not store.fading


def test_a_predecessor_from_the_log_fades_when_its_time_is_over(store: Store, delta: Make) -> None:
    replaced = Replaced(uid="old", uid_index=1, oldest_uid_index=1, time=(NOW - 50 * SECOND) // 1_000_000)
    store.apply_delta(delta(uid="new", replaced=replaced), 6, NOW)
    assert [(time, index) for time, index, _, _ in store.fading] == [(NOW - 50 * SECOND, 6)]
    assert live(store).replaced is not None
    store.forget(NOW + 50 * SECOND)
    assert live(store).replaced is not None
    store.forget(NOW + 50 * SECOND + 1)
    assert live(store).replaced is None
    assert (store.floor, store.types[PODS].forgotten) == (6, 6)


def test_of_a_names_beginning_the_log_may_know_more_than_the_store(store: Store, delta: Make) -> None:
    store.apply_delta(delta(uid="u", member_version="1", uid_index=3), 4, NOW)
    replaced = Replaced(uid="u", uid_index=3, oldest_uid_index=2, time=NOW // 1_000_000)
    store.apply_delta(delta(uid="v", member_version="2", replaced=replaced), 5, NOW)
    assert live(store).oldest_uid_index == 2
    before = live(store).replaced
    assert before is not None
    assert (before.uid, before.index, before.deleted) == ("u", 4, False)


def test_a_uid_that_was_never_here_stands_between(store: Store, delta: Make) -> None:
    """u was here; v, from 6 on, was superseded unread; w says of v that it had the name before."""
    store.apply_delta(delta(uid="u", member_version="1"), 4, NOW)
    replaced = Replaced(uid="v", uid_index=6, oldest_uid_index=4, time=NOW // 1_000_000)
    store.apply_delta(delta(uid="w", member_version="3", replaced=replaced), 8, NOW)
    before = live(store).replaced
    assert before is not None
    assert (before.uid, before.uid_index) == ("v", 6)
    assert before.replaced is not None
    assert (before.replaced.uid, before.replaced.replaced) == ("u", None)
    assert live(store).oldest_uid_index == 4


def test_a_live_predecessor_fades_with_the_state_that_took_its_place(store: Store, delta: Make) -> None:
    store.apply_delta(delta(uid="old"), 1, NOW)
    store.apply_delta(delta(uid="new", member_version="2"), 2, NOW + SECOND)
    store.apply_delta(delta(uid="new", type=MODIFIED, member_version="3"), 3, NOW + 2 * SECOND)
    assert [(time, index) for time, index, _, _ in store.fading] == [(NOW + SECOND, 2)]
    store.forget(NOW + (TTL + 1) * SECOND)
    assert live(store).replaced is not None
    store.forget(NOW + (TTL + 1) * SECOND + 1)
    assert live(store).replaced is None
    assert live(store).oldest_uid_index == 1


# -- facts about a cluster ---------------------------------------------------------------------------------------------


def test_every_record_is_a_sign_of_life(store: Store) -> None:
    store.apply_control(state(ClusterRegistered(version={"gitVersion": "v1"}), epoch=2), 1, NOW)
    cluster = store.clusters["alpha"]
    assert (cluster.heard, cluster.registered, cluster.server_version) == (NOW, True, {"gitVersion": "v1"})
    assert (store.catalogue, store.documents) == (1, 0)
    assert cluster.epoch == 0
    assert store.apply_control(state(OwnerChanged(), epoch=2), 2, NOW + 1) is Outcome.APPLIED
    assert (cluster.epoch, cluster.producer, cluster.heard) == (2, "p", NOW + 1)
    assert store.apply_control(state(StatusReport(), epoch=1), 3, NOW + 2) is Outcome.FENCED
    assert cluster.heard == NOW + 1
    assert store.catalogue == 1


def test_the_last_record_of_a_cluster(store: Store) -> None:
    store.apply_control(state(ClusterRegistered()), 1, NOW)
    store.apply_control(state(ClusterRegistered(), cluster="beta"), 2, NOW)
    store.apply_control(state(OwnerChanged(removed=True), epoch=1), 3, NOW)
    assert list(store.clusters) == ["beta"]
    assert (store.catalogue, store.documents) == (3, 3)


def test_a_status_report(store: Store) -> None:
    types = {PODS: TypeStatus(objects=3, version="9")}
    store.apply_control(state(StatusReport(types=types, every=30_000)), 4, NOW)
    cluster = store.clusters["alpha"]
    assert (cluster.status, cluster.status_index, cluster.every) == (types, 4, 30_000)
    assert (store.catalogue, store.documents) == (0, 0)


def test_a_type_changes_the_catalogue_if_it_is_another_one(store: Store, delta: Make) -> None:
    def pods(kind: str) -> ResourceType:
        return ResourceType(group="", resource="pods", version="v1", kind=kind)

    for index, kind in ((1, "Pod"), (2, "Pod"), (3, "Pods"), (4, "Pods")):
        store.apply_control(state(pods(kind)), index, NOW)
        assert store.catalogue == (1 if index < 3 else 3)
    assert store.clusters["alpha"].types == {PODS: pods("Pods")}
    # Since when it is had in which version.
    assert store.clusters["alpha"].version_since == {PODS: 1}
    store.apply_delta(delta(), 5, NOW)
    assert store.types[PODS].version_since == {"alpha": 1}
    for index, version in ((6, "v2"), (7, "v2")):
        store.apply_control(state(ResourceType(group="", resource="pods", version=version, kind="Pod")), index, NOW)
        assert (store.clusters["alpha"].version_since, store.types[PODS].version_since) == ({PODS: 6}, {"alpha": 6})


def test_documents(store: Store) -> None:
    name = DocumentName("v3", "api/v1")
    store.apply_control(state(OpenApiDocument(name=name, document=document())), 1, NOW)
    store.apply_control(state(OpenApiDocument(name=name, document=document()), cluster="beta"), 2, NOW)
    alpha, beta = store.clusters["alpha"], store.clusters["beta"]
    assert store.documents == 2
    assert alpha.documents[name] is beta.documents[name], "equal ones are kept once"
    store.apply_control(state(DiscoveryDocument(document=document("other"))), 3, NOW)
    store.apply_control(state(DiscoveryDocument(document=document("other")), cluster="beta"), 4, NOW)
    assert alpha.discovery == document("other")
    assert alpha.discovery is beta.discovery
    assert (store.documents, store.catalogue) == (2, 0)
    store.apply_control(state(DiscoveryDocument(document=None)), 5, NOW)
    assert alpha.discovery is None
    for index in (6, 7):
        store.apply_control(state(OpenApiDocument(name=name, document=None)), index, NOW)
        assert (alpha.documents, store.documents) == ({}, index)
    # The same hash of another text is another document.
    altered = ClusterDocument(hash="text", size=5, body=b"altered")
    assert store.share(altered) is altered
    assert store.share(ClusterDocument(hash="text", size=5, body=b"altered")) is altered


def test_health_of_a_cluster_and_of_a_type(store: Store) -> None:
    store.apply_control(state(HealthChanged(resource=PODS, healthy=False, reason="forbidden"), time=8), 1, NOW)
    cluster = store.clusters["alpha"]
    assert cluster.health is None
    health = cluster.type_health[PODS]
    assert (health.healthy, health.reason) == (False, "forbidden")
    store.apply_control(state(HealthChanged(healthy=False, reason="no route")), 2, NOW)
    assert cluster.health is not None
    assert (cluster.health.healthy, cluster.health.reason) == (False, "no route")
    assert set(cluster.type_health) == {PODS}
    store.apply_control(state(TypeSynced(resource=PODS, version="12")), 3, NOW)
    assert (cluster.type_health, cluster.synced, cluster.synced_version) == ({}, {PODS: 3}, {PODS: "12"})
    assert (store.catalogue, store.documents) == (0, 0)


def test_a_removed_type_leaves_nothing_of_itself(store: Store, delta: Make) -> None:
    for resource in (PODS, DEPLOYMENTS):
        store.apply_control(
            state(ResourceType(group=resource[0], resource=resource[1], version="v1", kind="K")), store.applied + 1, NOW
        )
        store.apply_control(state(TypeSynced(resource=resource, version="12")), store.applied + 1, NOW)
        store.apply_control(state(HealthChanged(resource=resource)), store.applied + 1, NOW)
        given = {"group": resource[0], "resource": resource[1], "in_order": True}
        store.apply_delta(delta(**given), store.applied + 1, NOW)
    store.dirty.clear()
    store.apply_control(state(ObjectsRemoved(resource=PODS)), 9, NOW)
    cluster = store.clusters["alpha"]
    facts = (cluster.types, cluster.synced, cluster.synced_version, cluster.followed, cluster.type_health)
    assert [set(one) for one in (*facts, cluster.version_since)] == [{DEPLOYMENTS}] * 6
    assert [len(store.types[one].version_since) for one in (PODS, DEPLOYMENTS)] == [0, 1]
    assert (store.catalogue, store.documents) == (9, 0)
    assert store.dirty == {PODS}
    assert [len(store.types[one]) for one in (PODS, DEPLOYMENTS)] == [0, 1]
    # What it does not know is no error.
    store.apply_control(state(ObjectsRemoved(resource=GroupResource("g", "others"))), 10, NOW)
    assert store.catalogue == 10


def test_a_removed_cluster_leaves_tombstones(store: Store, delta: Make) -> None:
    content = {"labels": {"app": "a"}, "controller_uid": "o", "created": 3}
    store.apply_delta(delta(member_version="5", **content), 1, NOW)
    store.apply_delta(delta(cluster="beta"), 2, NOW)
    entry = live(store)
    store.dirty.clear()
    store.apply_control(state(ObjectsRemoved()), 3, NOW + 1)
    assert list(store.clusters) == ["beta"]
    assert (store.catalogue, store.documents, store.dirty) == (3, 3, {PODS})
    tombstone = store.types[PODS].tombstones["alpha"][N]
    assert (tombstone.index, tombstone.time, tombstone.deleted, tombstone.final) == (3, NOW + 1, True, False)
    assert (tombstone.uid, tombstone.labels, tombstone.controller_uid, tombstone.created) == ("u", {"app": "a"}, "o", 3)
    assert (tombstone.uid_index, tombstone.selectable_since) == (1, 1)
    assert tombstone.content == entry.content_at(3)
    [removal] = store.removals
    assert isinstance(removal, Removal)
    assert (removal.index, removal.entries) == (3, {("alpha", N): tombstone})
    assert list(store.fading) == [(NOW + 1, 3, PODS, removal)]
    assert (store.floor_of(PODS, None), store.removed, store.types[PODS].floors) == (0, {}, {})
    # The name is used again, then the removal is forgotten: what lives stays.
    store.apply_delta(delta(uid="v", member_version="9"), 4, NOW + 2)
    assert removal.entries == {}
    store.check()
    store.forget(NOW + TTL * SECOND + 1)
    assert len(store.removals) == 1
    store.forget(NOW + TTL * SECOND + 2)
    assert (list(store.removals), store.floor, store.types[PODS].forgotten) == ([], 3, 3)
    assert live(store).uid == "v"
    store.check()


def test_the_removal_of_a_type_without_objects_is_no_change_of_it(store: Store) -> None:
    store.apply_control(state(ObjectsRemoved(resource=PODS)), 1, NOW)
    assert store.dirty == set()
    assert not store.removals
    assert not store.fading
    assert list(store.types) == [PODS]


@pytest.mark.parametrize("types", [None, (), (PODS,)], ids=stable)
@pytest.mark.parametrize("unread", [False, True])
def test_floors_of_a_removal(store: Store, types: tuple[GroupResource, ...] | None, unread: bool) -> None:
    """It may have hidden objects of the types that it names, or of all if it names none; but only what was not read."""
    store.apply_control(state(ClusterRegistered()), 2 if unread else 1, NOW)
    store.apply_control(state(ObjectsRemoved(types=types)), 3 if unread else 2, NOW)
    floors = [store.floor_of(one, None) for one in (PODS, DEPLOYMENTS)]
    assert floors == [3 if unread and types != () else 0, 3 if unread and types is None else 0]
    assert store.floor_of(PODS, frozenset({"alpha"})) == floors[0]
    assert store.floor_of(PODS, frozenset({"beta"})) == 0
    assert store.removed == ({"alpha": 3} if unread and types is None else {})


def test_the_removal_of_a_type_says_nothing_of_others(store: Store) -> None:
    store.apply_control(state(ObjectsRemoved(resource=PODS)), 3, NOW)
    assert (store.floor_of(PODS, None), store.floor_of(DEPLOYMENTS, None), store.removed) == (3, 0, {})
    assert list(store.clusters) == ["alpha"]


# -- the first replay --------------------------------------------------------------------------------------------------


def test_a_removal_in_the_first_replay(delta: Make) -> None:
    """What it removed is purged, or about to be: a store that begins later would not know of it either."""
    store = Store("h", TTL)
    store.apply_delta(delta("a", uid="a"), 1, NOW)
    store.apply_delta(delta("b", uid="b", type=DELETED), 2, NOW)
    store.apply_delta(delta("c", uid="c", cluster="beta"), 3, NOW)
    store.dirty.clear()
    store.apply_control(state(ObjectsRemoved(resource=PODS)), 4, NOW)
    type_store = store.types[PODS]
    assert store.dirty == {PODS}
    assert (type_store.floors, type_store.tombstones["alpha"]) == ({"alpha": 4}, {})
    assert [item.index for item in type_store.order.after(0)] == [3]
    assert not store.removals
    store.check()
    store.apply_control(state(ObjectsRemoved(types=(DEPLOYMENTS,)), cluster="beta"), 5, NOW)
    assert type_store.floors == {"alpha": 4}
    assert [item.index for item in type_store.order.after(0)] == []


def test_a_removal_in_the_first_replay_takes_tombstones_alone(delta: Make) -> None:
    store = Store("h", TTL)
    store.apply_delta(delta(type=DELETED), 1, NOW)
    store.apply_control(state(ObjectsRemoved(resource=PODS)), 2, NOW)
    assert (store.types[PODS].tombstones["alpha"], store.types[PODS].floors) == ({}, {"alpha": 2})
    assert list(store.types[PODS].order.after(0)) == []


@pytest.mark.parametrize("kind", ["object", "control record", "skipped"])
def test_the_floor_is_below_what_the_log_surely_still_has(delta: Make, kind: str) -> None:
    """The first message since the tombstone time began; the clocks may be a second apart."""
    begin = NOW - TTL * SECOND

    def loaded(time: int) -> Store:
        store = Store("h", TTL)
        store.apply_delta(delta("old", uid="o"), 4, begin)
        store.apply_delta(delta("old", uid="o", member_version="2"), 5, begin)
        if kind == "object":
            store.apply_delta(delta("new", uid="n"), 9, time)
        elif kind == "skipped":
            store.skip(9, time)
        else:
            store.apply_control(state(ClusterRegistered()), 9, time)
        store.apply_delta(delta("newest", uid="m"), 12, NOW)
        store.finish_loading(NOW)
        return store

    assert loaded(begin + SECOND).floor == 8
    assert loaded(begin + SECOND - 1).floor == 11
    assert loaded(NOW)._others == []


def test_the_floor_is_the_end_where_the_log_has_nothing_of_the_tombstone_time(delta: Make) -> None:
    store = Store("h", TTL)
    store.apply_delta(delta("old", uid="o"), 5, NOW - TTL * SECOND)
    store.apply_delta(delta("m", uid="m", group="apps", resource="deployments"), 7, NOW - TTL * SECOND)
    store.finish_loading(NOW)
    assert store.floor == 7


def test_the_floor_is_the_lowest_of_all_types(delta: Make) -> None:
    store = Store("h", TTL)
    store.apply_delta(delta("a"), 5, NOW)
    store.apply_delta(delta("b", group="apps", resource="deployments"), 7, NOW)
    store.finish_loading(NOW)
    assert store.floor == 4


@pytest.mark.parametrize(("created", "floor"), [(-1, 8), (0, 0), (5, 0)])
def test_a_stream_younger_than_the_tombstone_time_has_forgotten_nothing(delta: Make, created: int, floor: int) -> None:
    store = Store("h", TTL)
    store.apply_delta(delta(), 9, NOW)
    store.finish_loading(NOW, NOW - TTL * SECOND + SECOND + created)
    assert (store.floor, store.loading) == (floor, False)
    # Once.
    store.finish_loading(NOW + 1000 * SECOND)
    assert store.floor == floor


def test_the_floor_is_never_lower_than_what_was_forgotten(delta: Make) -> None:
    store = Store("h", TTL)
    store.apply_delta(delta(type=DELETED), 3, NOW - (TTL + 1) * SECOND)
    store.apply_delta(delta("m"), 4, NOW)
    store.finish_loading(NOW, NOW)
    assert (store.floor, store.types[PODS].forgotten) == (3, 3)
    assert store.types[PODS].tombstones == {}
    store.check()


# -- forgetting --------------------------------------------------------------------------------------------------------


def test_tombstones_that_will_be_forgotten_are_counted(store: Store, delta: Make) -> None:
    for index, name in enumerate("abcd", 1):
        store.apply_delta(delta(name, uid=name), index, NOW)
    for index, name in enumerate("abc", 5):
        store.apply_delta(delta(name, uid=name, type=DELETED, member_version="2"), index, NOW + index)
    # Another uid is no tombstone; a name that is used again has none.
    store.apply_delta(delta("d", uid="other", member_version="3"), 8, NOW + 8)
    store.apply_delta(delta("a", uid="again", member_version="4"), 9, NOW + 9)
    assert [store.fading_before(NOW + at) for at in (5, 6, 7, 8, 100)] == [0, 0, 1, 2, 2]
    store.apply_control(state(ObjectsRemoved(resource=PODS)), 10, NOW + 10)
    assert store.fading_before(NOW + 100) == 2


def test_a_tombstone_that_was_replaced_is_not_forgotten_in_place_of_its_successor(store: Store, delta: Make) -> None:
    store.apply_delta(delta(uid="u"), 1, NOW)
    store.apply_delta(delta(uid="u", type=DELETED, member_version="2"), 2, NOW)
    store.apply_delta(delta(uid="v", member_version="3"), 3, NOW)
    store.apply_delta(delta(uid="v", type=DELETED, member_version="4"), 4, NOW + 10)
    store.forget(NOW + TTL * SECOND + 5)
    assert store.floor == 3
    assert store.types[PODS].tombstones["alpha"][N].index == 4
    store.check()
    store.forget(NOW + TTL * SECOND + 11)
    assert (store.floor, store.types[PODS].tombstones, len(store.fading)) == (4, {}, 0)
    store.check()


def test_forgetting_a_replaced_uid_spares_a_later_life(store: Store, delta: Make) -> None:
    for index, uid in enumerate(("u", "v", "w"), 1):
        store.apply_delta(delta(uid=uid, member_version=str(index)), index, NOW + index)
    # Only the one before is kept, and where the first one began.
    before = live(store).replaced
    assert before is not None
    assert (before.uid, before.replaced, live(store).oldest_uid_index) == ("v", None, 1)
    store.forget(NOW + TTL * SECOND + 3)
    replaced = live(store).replaced
    assert replaced is not None
    assert (replaced.uid, store.floor) == ("v", 2)
    store.forget(NOW + TTL * SECOND + 4)
    assert (live(store).replaced, store.floor) == (None, 3)


# -- owners ------------------------------------------------------------------------------------------------------------


def test_owners_by_seniority(store: Store, delta: Make) -> None:
    def made(index: int, resource: str, uid: str, owner: str, cluster: str = "alpha") -> None:
        given = {"resource": resource, "uid": uid, "controller_uid": owner, "cluster": cluster}
        store.apply_delta(delta(uid, **given), index, NOW)

    made(1, "deployments", "d", "")
    made(2, "replicasets", "r1", "d")
    made(3, "replicasets", "r2", "d", cluster="beta")
    made(4, "pods", "p", "r1")
    assert store.owned("d", 0, None) == {"d"}
    assert store.owned("d", 1, None) == {"r1", "r2"}
    assert store.owned("d", 1, frozenset({"alpha"})) == {"r1"}
    assert store.owned("d", 2, None) == {"p"}
    assert store.owned("d", 3, None) == frozenset()
    assert store.owned("d", 10**12, None) == frozenset()


@pytest.mark.parametrize(
    "uid", ["00000000-0000-4000-8000-00000000000a", "plain", "AAAAAAAA-0000-4000-8000-00000000000A", ""]
)
@pytest.mark.parametrize("version", ["17", "", 'a"b', "x-1"])
@pytest.mark.parametrize("first", [0, 7, 9])
def test_the_short_way_of_a_new_object_makes_what_the_long_one_does(
    delta: Make, uid: str, version: str, first: int
) -> None:
    """Most objects of a first replay take it; those that took another one's place, and all later states, do not."""
    fields = {"spec.nodeName": "n1", "status.phase": "Running"} if first else {}
    made = delta(
        "n",
        uid=uid,
        member_version=version,
        uid_index=first,
        fields=fields,
        labels={"a": "b"},
        controller_uid="o",
        created=-5,
        final=first != 7,
    )
    life = life_of(made, 9, "h", PODS)
    if life.uid_index == 9:
        life.first_known_version = version
    long = entry_of(made, 9, 11, "h", life, PODS)
    alike = envelope_of(PODS, "h", b'"kind":"Pod","apiVersion":"v2",', long.envelope.field_names)
    for like in (None, long.envelope, alike, envelope_of(PODS, "h", long.envelope.type_meta, ("other",))):
        short = new_entry(made, 9, 11, "h", PODS, uid_bytes(uid), like)
        assert structs.astuple(short) == structs.astuple(long)
        assert short.envelope is long.envelope


def test_a_new_object_with_a_number_out_of_range_is_unreadable_either_way(delta: Make, store: Store) -> None:
    for odd in ({"created": 2**63}, {"uid_index": 2**64}, {"metadata_end": 10**6}):
        with pytest.raises(UnreadableRecord):
            store.apply_delta(msgspec.structs.replace(delta("n"), **odd), 3, NOW)
    assert store.types[PODS].get("alpha", N) is None
