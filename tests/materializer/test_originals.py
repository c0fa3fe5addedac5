"""Resuming by the clusters' own versions, against a naive history of each cluster; and when it is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from deltalog import ADDED, DELETED, MODIFIED, Replaced
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from deltalog.wire.subjects import STATUS, SYNCED
from materializer.burying import bury
from materializer.cursor import Cursor, changes
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.graves import Grave
from materializer.originals import TooOld, changes_since, seen
from materializer.store import Store
from materializer.type_store import TypeStore

SECOND = 1_000_000_000
TTL = 100
PODS = GroupResource("", "pods")
CLUSTERS = ("alpha", "bravo")
Make = Callable[..., Any]
Holds = Callable[[tuple[str, str], dict[str, str]], bool]
LENSES: dict[str, tuple[Filter, Holds]] = {
    "all": (Filter(), lambda name, labels: True),
    "app=a": (Filter(labels=parse_labels("app=a")), lambda name, labels: labels.get("app") == "a"),
    "one namespace": (Filter(namespaces=frozenset({"x"})), lambda name, labels: name[0] == "x"),
}


class Cluster:
    """What one cluster was at each version of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = 10
        self.objects: dict[tuple[str, str], tuple[str, dict[str, str]]] = {}
        self.past: dict[int, dict[tuple[str, str], tuple[str, dict[str, str]]]] = {}
        # Of each name: uid, first, sequence and time of its end, last delta.
        self.known: dict[tuple[str, str], list[Any]] = {}

    def remember(self) -> None:
        self.past[self.version] = dict(self.objects)


class World:
    """Two clusters whose changes go into a compacted log; stores are made of it."""

    def __init__(self, seed: int, delta: Make, control: Make) -> None:
        self.random = random.Random(seed)
        self.delta = delta
        self.control = control
        self.now = 1_000_000 * SECOND
        self.index = 0
        self.uids = 0
        self.log: dict[tuple[Any, ...], tuple[int, int, Any, int]] = {}
        self.clusters = {name: Cluster(name) for name in CLUSTERS}
        self.warm = Store("h", TTL)
        self.warm.finish_loading(0)
        for cluster in self.clusters.values():
            for name in ("m", "n"):
                self.change(cluster, ("x", name))
            cluster.remember()
            data = {"version": str(cluster.version), "objects": 2}
            self.append(("kbc", cluster.name), control(SYNCED, cluster.name, *PODS, data=data))

    def append(self, subject: tuple[Any, ...], record: Any, ttl: bool = False) -> int:
        self.index += 1
        self.log[subject] = (self.index, self.now, record, self.now + TTL * SECOND if ttl else 0)
        if record.__class__.__name__ == "Delta":
            self.warm.apply_delta(record, self.index, self.now)
        else:
            self.warm.apply_control(record, self.index, self.now)
        return self.index

    def change(self, cluster: Cluster, name: tuple[str, str]) -> None:
        cluster.version += self.random.randint(1, 3)
        labels = self.random.choice(({}, {"app": "a"}, {"app": "b"}))
        common = {
            "cluster": cluster.name,
            "namespace": name[0],
            "member_version": str(cluster.version),
            "labels": labels,
        }
        subject = ("kb", cluster.name, *name)
        lives = cluster.objects.get(name)
        known = cluster.known.get(name)
        roll = self.random.random()
        if lives is not None and roll < 0.3:
            assert known is not None
            del cluster.objects[name]
            common["labels"] = lives[1]
            gone = self.delta(name[1], DELETED, uid=lives[0], uid_index=known[1], replaced=known[4], **common)
            at = self.append(subject, gone, ttl=True)
            cluster.known[name] = [lives[0], known[1], at, self.now, known[4], gone]
        elif lives is not None and roll < 0.9:
            assert known is not None
            cluster.objects[name] = (lives[0], labels)
            made = self.delta(name[1], MODIFIED, uid=lives[0], uid_index=known[1], replaced=known[4], **common)
            self.append(subject, made)
            known[5] = made
        else:
            self.uids += 1
            uid = f"u{self.uids}"
            replaced = None
            if known is not None and (not known[3] or known[3] >= self.now - TTL * SECOND):
                replaced = Replaced(
                    uid=known[0],
                    uid_index=known[1],
                    oldest_uid_index=known[4].oldest_uid_index if known[4] else known[1],
                    time=(known[3] or self.now) // 1_000_000,
                    deletion_index=known[2],
                    member_version=known[5].member_version,
                    labels=known[5].labels,
                )
            cluster.objects[name] = (uid, labels)
            made = self.delta(name[1], ADDED, uid=uid, replaced=replaced, **common)
            at = self.append(subject, made)
            cluster.known[name] = [uid, at, 0, 0, replaced, made]
        cluster.remember()

    def step(self) -> None:
        cluster = self.random.choice(list(self.clusters.values()))
        if self.random.random() < 0.2:
            types = {"pods": {"version": str(cluster.version)}}
            self.append(("kbc", cluster.name, "s"), self.control(STATUS, cluster.name, data={"types": types}))
        else:
            self.change(cluster, (self.random.choice("xy"), self.random.choice("mno")))
        self.now += int(self.random.random() * self.random.choice((0, 1, 8)) * SECOND)

    def cold(self) -> Store:
        store = Store("h", TTL)
        for subject, (index, time, record, expires) in sorted(self.log.items(), key=lambda one: one[1][0]):
            if expires and expires <= self.now:
                del self.log[subject]
            elif record.__class__.__name__ == "Delta":
                store.apply_delta(record, index, time)
            else:
                store.apply_control(record, index, time)
        store.finish_loading(self.now, 1_000_000 * SECOND)
        store.check()
        return store


@pytest.mark.parametrize("seed", range(10))
def test_a_resume_ends_in_the_present_state(seed: int, delta: Make, control: Make) -> None:
    world = World(seed, delta, control)
    served = refused = 0
    for _ in range(40):
        for _ in range(world.random.randint(1, 12)):
            world.step()
        world.warm.forget(world.now)
        for store in (world.warm, world.cold()):
            bury(store, world.now - world.random.randrange(TTL * SECOND))
            for wanted, holds in LENSES.values():
                at = {c.name: world.random.choice(list(c.past)[-12:]) for c in world.clusters.values()}
                view = {
                    (c.name, *name): uid
                    for c in world.clusters.values()
                    for name, (uid, labels) in c.past[at[c.name]].items()
                    if holds(name, labels)
                }
                versions = {name: str(version) for name, version in at.items()}
                try:
                    changes = changes_since(store, PODS, wanted, versions)
                except TooOld:
                    refused += 1
                    continue
                served += 1
                assert [change.at for change in changes] == sorted(change.at for change in changes)
                for change in changes:
                    name = (change.entry.cluster, change.entry.namespace, change.entry.name)
                    assert int(change.entry.member_version) > at[name[0]] or change.type == DELETED
                    if change.type == DELETED:
                        view.pop(name, None)
                    else:
                        # A name that another object takes over was told to be free first.
                        assert view.get(name, change.entry.uid) == change.entry.uid
                        view[name] = change.entry.uid
                assert view == {
                    (c.name, *name): uid
                    for c in world.clusters.values()
                    for name, (uid, labels) in c.objects.items()
                    if holds(name, labels)
                }
    assert served > 40
    assert refused > 0


def test_what_was_deleted_before_is_not_dug_up(delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a million objects; what they were at is enough."""
    store = filled(
        control(SYNCED, "alpha", *PODS, data={"version": "1"}),
        *(delta(f"n{at}", ADDED, f"u{at}", str(at)) for at in range(2, 40)),
        *(delta(f"n{at}", DELETED, f"u{at}", str(40 + at), uid_index=at) for at in range(2, 40)),
    )
    while bury(store, 1000 * SECOND):
        pass
    dug: list[str] = []
    dig = TypeStore.as_entry

    def noted(self: TypeStore, of: Entry | Grave) -> Entry:
        dug.append(of.name)
        return dig(self, of)

    monkeypatch.setattr(TypeStore, "as_entry", noted)
    found = changes_since(store, PODS, Filter(), {"alpha": "77"})
    assert [(change.type, change.entry.name) for change in found] == [(DELETED, "n38"), (DELETED, "n39")]
    assert dug == ["n38", "n39"]


def test_nothing_known_is_everything_added(delta: Make, control: Make) -> None:
    world = World(1, delta, control)
    changes = changes_since(world.warm, PODS, Filter(), {"alpha": ""})
    assert [(change.type, change.entry.cluster) for change in changes] == [(ADDED, "alpha")] * 2


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"charlie": "12"}, "no cluster charlie"),
        ({"alpha": "x"}, "no resourceVersion"),
        ({"alpha": "1"}, "followed since"),
    ],
)
def test_what_cannot_be_known_is_refused(versions: dict[str, str], said: str, delta: Make, control: Make) -> None:
    world = World(1, delta, control)
    with pytest.raises(TooOld, match=said):
        changes_since(world.warm, PODS, Filter(), versions)
    outside = Filter(clusters=frozenset({"bravo"}))
    assert changes_since(world.warm, PODS, outside, versions) == []


def test_how_far_a_cluster_is_known(delta: Make, control: Make) -> None:
    world = World(1, delta, control)
    cluster = world.clusters["alpha"]
    assert seen(world.warm, PODS, "alpha") == str(cluster.version)
    types = {"pods": {"version": "5000"}}
    world.append(("kbc", "alpha", "s"), control(STATUS, "alpha", data={"types": types}))
    assert seen(world.warm, PODS, "alpha") == "5000"
    assert seen(world.warm, PODS, "nobody") == ""


def filled(*records: Any) -> Store:
    store = Store("h", TTL)
    store.finish_loading(0)
    for index, record in enumerate(records, 1):
        apply(store, record, index)
    return store


def apply(store: Store, record: Any, index: int) -> None:
    if record.__class__.__name__ == "Delta":
        store.apply_delta(record, index, index * SECOND)
    else:
        store.apply_control(record, index, index * SECOND)


def test_a_list_written_in_the_order_of_names_hides_no_one_who_left_the_selection(delta: Make, control: Make) -> None:
    store = filled(
        control(SYNCED, "alpha", *PODS, data={"version": "5"}),
        delta("a", uid="ua", member_version="3", labels={"x": "1"}),
        delta("b", uid="ub", member_version="4", labels={"x": "1"}),
        delta("a", MODIFIED, uid="ua", uid_index=2, member_version="20"),
        delta("b", MODIFIED, uid="ub", uid_index=3, member_version="15", labels={"x": "1"}),
    )
    wanted = Filter(labels=parse_labels("x=1"))
    shown = changes_since(store, PODS, wanted, {"alpha": "15"})
    assert [(change.type, change.entry.name) for change in shown] == [(DELETED, "a")]


def test_only_what_watches_brought_tells_how_far_a_type_was_followed(delta: Make, control: Make) -> None:
    store = filled(
        control("type", "alpha", *PODS, data={"version": "v1", "kind": "Pod"}),
        delta("a", uid="ua", member_version="900"),
    )
    assert seen(store, PODS, "alpha") == ""
    apply(store, control(SYNCED, "alpha", *PODS, data={"version": "910"}), 3)
    apply(store, delta("b", uid="ub", member_version="950"), 4)
    assert seen(store, PODS, "alpha") == "910"
    apply(store, delta("b", MODIFIED, uid="ub", uid_index=4, member_version="960", in_order=True), 5)
    assert seen(store, PODS, "alpha") == "960"


def test_what_has_no_version_of_its_own_is_shown_past_any_version(delta: Make, control: Make) -> None:
    store = filled(
        control(SYNCED, "alpha", *PODS, data={"version": "100"}),
        delta("a", uid="ua", member_version="90"),
        delta("b", uid="ub", member_version="95"),
        delta("c", uid="uc", member_version="96"),
    )
    wanted = Filter(beyond=(("alpha", "100"),))
    assert changes_since(store, PODS, wanted, {"alpha": "100"}) == []
    after = store.applied
    # What a watch saw go at a version that the client has is known to it; what a list missed may have gone since.
    apply(store, delta("c", DELETED, uid="uc", uid_index=4, member_version="99"), 5)
    apply(store, delta("b", DELETED, uid="ub", uid_index=3, member_version="95", final=False), 6)
    apply(store, control("removed", "alpha"), 7)
    shown, _ = changes(store.types[PODS], Cursor(after).position(store.types[PODS]), wanted, 100)
    assert [(change.type, change.entry.name) for change in shown] == [(DELETED, "b"), (DELETED, "a")]


def test_a_cluster_that_was_set_back_counts_from_then_on(delta: Make, control: Make) -> None:
    store = filled(
        control(SYNCED, "alpha", *PODS, data={"version": "100"}),
        delta("a", uid="ua", member_version="90", in_order=True),
    )
    cluster = store.clusters["alpha"]
    assert cluster.versions_restarted_at == 1
    apply(store, delta("a", MODIFIED, uid="ua", uid_index=2, member_version="90", restored=True), 3)
    # Pruned in another way than before.
    assert cluster.versions_restarted_at == 1
    apply(store, delta("a", MODIFIED, uid="ua", uid_index=2, member_version="50", restored=True), 4)
    assert cluster.versions_restarted_at == 4
    assert seen(store, PODS, "alpha") == "100"


@pytest.mark.parametrize("version", ["\u00b2", "\u0663", "-1", "1.0", "x"])
def test_only_ascii_digits_are_a_number(version: str, delta: Make, control: Make) -> None:
    store = filled(
        control(SYNCED, "alpha", *PODS, data={"version": "1"}), delta("a", uid="ua", member_version="\u00b2")
    )
    with pytest.raises(TooOld):
        changes_since(store, PODS, Filter(), {"alpha": version})
    assert seen(store, PODS, "alpha") == "1"
