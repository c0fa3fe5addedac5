"""What the log may have purged is counted without looking at each buried deletion."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deltalog.wire import subjects
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.subjects import control_subject
from materializer.burying import bury
from materializer.graves import Grave, Graves
from materializer.integrity import Integrity
from materializer.store import Store

PODS = GroupResource("", "pods")
SECOND = 1_000_000_000
Make = Callable[..., Any]


@pytest.mark.parametrize("seed", range(6))
def test_what_may_be_purged_is_counted_as_one_by_one(seed: int, delta: Make, control: Make) -> None:
    """Clusters lose objects, are removed, come back, and serve the type in another version."""
    chance = random.Random(seed)
    store = Store("h", 10_000)
    store.finish_loading(0)
    integrity = Integrity(store)
    counted = 0
    for index in range(1, 401):
        cluster, step = chance.choice("abc"), chance.randrange(40)
        if step == 0:
            removed = control("removed", cluster)
            store.apply_control(removed, index, index * SECOND)
            integrity.take_control(removed, control_subject(cluster, subjects.REMOVED), index, index * SECOND)
        elif step < 3:
            made = control("type", cluster, "", "pods", data={"kind": "Pod", "version": chance.choice(("v1", "v2"))})
            store.apply_control(made, index, index * SECOND)
        else:
            version, name = chance.choice(("v1", "v1", "v2")), f"n{chance.randrange(30)}"
            type = chance.choice(("ADDED", "DELETED"))
            one = delta(name, type, f"u{index}", str(index), cluster=cluster, version=version)
            store.apply_delta(one, index, index * SECOND, 100)
        if chance.random() < 0.2:
            bury(store, chance.randrange(index) * SECOND)
        graves = [grave for of in store.types.values() for grave in of.graves.entries() if not grave.removal]
        whole = [entry for of in store.types.values() for some in of.tombstones.values() for entry in some.values()]
        expected = sum(integrity._may_be_purged(one, PODS) for one in graves)
        expected += sum(integrity._may_be_purged(one, PODS) for one in whole)
        assert integrity._purged_tombstones(0) == expected
        counted += expected
    assert counted > 1000


def test_a_removal_of_a_cluster_does_not_have_all_buried_deletions_read_again(
    delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a day the log has fewer subjects than there are tombstones, and that is compared every few seconds."""
    store = Store("h", 100_000)
    store.finish_loading(0)
    integrity = Integrity(store)
    for number in range(600):
        for at, type in enumerate(("ADDED", "DELETED")):
            made = delta(f"n{number}", type, f"u{number}", str(number + 1), cluster="ab"[number % 2], uid_index=0)
            store.apply_delta(made, 2 * number + at + 1, SECOND, 100)
    while bury(store, 2 * SECOND):
        pass
    removed = control("removed", "a")
    store.apply_control(removed, 2000, SECOND)
    integrity.take_control(removed, control_subject("a", subjects.REMOVED), 2000, SECOND)

    def never(self: Graves, cluster: str | None = None) -> Iterator[Grave]:
        raise AssertionError("all buried deletions are read")

    monkeypatch.setattr(Graves, "entries", never)
    assert len(store.types[PODS].graves) == 600
    assert integrity._purged_tombstones(0) == 300
