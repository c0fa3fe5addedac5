"""Whole last bodies are bounded in bytes, whatever it was that ended the objects, and wherever they are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deltalog.wire.delta import ADDED, DELETED
from deltalog.wire.kubernetes import GroupResource
from materializer.burying import bury, due
from materializer.entry import Entry
from materializer.store import Store
from materializer.window import WINDOW_BYTES
from tests.materializer.conftest import SECOND

PODS = GroupResource("", "pods")


def test_what_was_replaced_without_a_deletion_is_stripped_early_too(delta: Callable[..., Any]) -> None:
    """A cluster that was built anew has the same names with other uids: as many last bodies as it has objects."""
    store = Store("h", 1000)
    store.finish_loading(0)
    for round_ in range(2):
        for number in range(500):
            index = 500 * round_ + number + 1
            store.apply_delta(delta(f"n{number}", uid=f"u{index}", member_version=str(index)), index, index * SECOND)
    before = due(store, 0, 100_000)
    assert 500 * SECOND < before < 1000 * SECOND
    while bury(store, before):
        pass
    whole = [entry for entry in store.types[PODS].live() if entry.replaced and b'"spec"' in entry.replaced.rest]
    assert 50 < len(whole) < 250
    store.check()


def test_a_clock_that_was_ahead_does_not_keep_bodies(delta: Callable[..., Any]) -> None:
    """Another server of NATS leads the stream, whose clock is hours behind that of the one before."""
    store = Store("h", 100_000)
    store.finish_loading(0)
    for number in range(500):
        index, time = 2 * number + 1, (10_000 if number == 0 else number) * SECOND
        store.apply_delta(delta(f"n{number}", ADDED, f"u{number}", "1"), index, time)
        store.apply_delta(delta(f"n{number}", DELETED, f"u{number}", "2", uid_index=index), index + 1, time)
    while bury(store, due(store, 100 * SECOND, 100_000)):
        pass
    assert store.types[PODS].remembered() == 500
    assert sum(map(len, store.types[PODS].tombstones.values())) < 250
    store.check()


def test_nothing_stays_of_clusters_that_came_and_went(delta: Callable[..., Any], control: Callable[..., Any]) -> None:
    """Not even an empty dict for each of their types."""
    for buries in (True, False):
        store = Store("h", 1000)
        store.finish_loading(0)
        for number in range(20):
            index, cluster = 4 * number, f"c{number}"
            for at, (name, type) in enumerate((("a", ADDED), ("b", ADDED), ("a", DELETED))):
                store.apply_delta(delta(name, type, name, str(at + 1), cluster=cluster), index + at + 1, SECOND)
            store.apply_control(control("removed", cluster), index + 4, SECOND)
        pods = store.types[PODS]
        assert pods.remembered() == 40
        while buries and bury(store, 2 * SECOND):
            pass
        store.forget(2000 * SECOND)
        assert (pods.remembered(), pods.clusters, pods.tombstones) == (0, {}, {})


def test_the_window_counts_tombstones_which_it_alone_keeps_once_they_are_buried(delta: Callable[..., Any]) -> None:
    store = Store("h", 1000, WINDOW_BYTES)
    store.finish_loading(0)
    for number in range(200):
        for at, type in enumerate((ADDED, DELETED)):
            made = delta(f"n{number}", type, f"u{number}", str(at + 1), uid_index=2 * number + 1 if at else 0)
            store.apply_delta(made, 2 * number + at + 1, SECOND)
    while bury(store, 2 * SECOND):
        pass
    pods = store.types[PODS]
    assert (len(pods.graves), pods.tombstones) == (200, {})
    kept = {id(one): one for event in pods.events.after(0) for one in (event.item, event.before) if one is not None}
    assert len(kept) == 400
    assert store.window.size > sum(200 + len(one.record) for one in kept.values() if isinstance(one, Entry))
