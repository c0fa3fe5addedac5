"""Resuming by the clusters' own versions, against a naive history of each cluster; and when it is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from deltalog import ADDED, DELETED, MODIFIED, Replaced
from deltalog.delta import STATUS, SYNCED
from materializer.filter import Filter
from materializer.originals import TooOld, changes_since, seen
from materializer.selectors import parse_labels
from materializer.store import Store

SECOND = 1_000_000_000
TTL = 100
PODS = ("", "pods")
CLUSTERS = ("alpha", "bravo")
Make = Callable[..., Any]
LENSES = {
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
        common = {"cluster": cluster.name, "namespace": name[0], "original": str(cluster.version), "labels": labels}
        subject = ("kb", cluster.name, *name)
        lives = cluster.objects.get(name)
        known = cluster.known.get(name)
        roll = self.random.random()
        if lives is not None and roll < 0.3:
            del cluster.objects[name]
            common["labels"] = lives[1]
            gone = self.delta(name[1], DELETED, uid=lives[0], first=known[1], replaced=known[4], **common)
            at = self.append(subject, gone, ttl=True)
            cluster.known[name] = [lives[0], known[1], at, self.now, known[4], gone]
        elif lives is not None and roll < 0.9:
            cluster.objects[name] = (lives[0], labels)
            made = self.delta(name[1], MODIFIED, uid=lives[0], first=known[1], replaced=known[4], **common)
            self.append(subject, made)
            known[5] = made
        else:
            self.uids += 1
            uid = f"u{self.uids}"
            replaced = None
            if known is not None and (not known[3] or known[3] >= self.now - TTL * SECOND):
                replaced = Replaced(
                    uid=known[0],
                    first=known[1],
                    oldest=known[4].oldest if known[4] else known[1],
                    time=(known[3] or self.now) // 1_000_000,
                    gone=known[2],
                    original=known[5].original,
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
                    assert int(change.entry.original) > at[name[0]] or change.type == DELETED
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
