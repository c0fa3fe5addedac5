"""Conditions on bodies: what a filter with one selects, and what a watcher of one holds, whatever happens."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from deltalog import ADDED, DELETED, MODIFIED
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from materializer import cursor as cursor_module
from materializer.burying import bury
from materializer.cursor import Cursor, changes
from materializer.entry import Entry, entry_of
from materializer.filter import Filter
from materializer.store import Store
from materializer.window import WINDOW_BYTES

PODS = GroupResource("", "pods")
SECOND = 1_000_000_000
Make = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Of:
    """`spec.of`, which is the object's own version, is a multiple of this."""

    number: int

    at_once = 256

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        return [one for one in entries if int(json.loads(one.body).get("spec", {}).get("of", -1)) % self.number == 0]

    def unknown(self, entries: Sequence[Entry]) -> list[str]:
        return []


EVEN = Filter(where=Of(2))


@pytest.fixture
def entry(delta: Make) -> Callable[..., Entry]:
    """Makes an entry at index 9."""

    def made(version: int, **given: Any) -> Entry:
        return entry_of(delta("n", member_version=str(version), **given), 9, 0, "h")

    return made


def test_all_of_a_filter_has_to_hold(entry: Callable[..., Entry]) -> None:
    assert EVEN.selective
    assert not EVEN.narrow
    assert EVEN.matches(entry(4))
    assert not EVEN.matches(entry(3))
    both = Filter(where=Of(2), labels=parse_labels("app=a"))
    assert both.matches(entry(4, labels={"app": "a"}))
    assert not both.matches(entry(4))
    assert both.may_select(entry(3, labels={"app": "a"}))
    assert Filter(where=Of(2)) == EVEN
    assert hash(EVEN) == hash(Filter(where=Of(2)))
    assert Filter(where=Of(3)) != EVEN


def test_what_was_before_is_not_known(entry: Callable[..., Entry]) -> None:
    """Of earlier states labels are remembered, and no bodies."""
    now = entry(4)
    assert [EVEN.matched_at(now, index) for index in (8, 9, 10)] == [None, True, True]
    assert [EVEN.matched_at(entry(3), index) for index in (8, 9)] == [None, False]
    assert EVEN.matched_between(now, 5, 9) is True
    assert EVEN.matched_between(now, 5, 8) is None
    assert EVEN.matched_between(entry(3), 9, 12) is False
    assert EVEN.matched_between(entry(3), 8, 12) is None
    other = Filter(where=Of(2), labels=parse_labels("app=a"))
    assert other.matched_between(now, 9, 12) is False


def followed(store: Store, cursor: Cursor, wanted: Filter, held: dict[tuple[str, str], str]) -> int:
    """Reads all that lies past a cursor as a client does; returns in how many pieces."""
    for pieces in range(1, 10_000):
        type_store = store.types[PODS]
        found, upto = changes(type_store, cursor.position(type_store), wanted, 3)
        for change in found:
            place = (change.entry.cluster, change.entry.name)
            if change.type == DELETED:
                held.pop(place, None)
            else:
                held[place] = change.entry.uid
        cursor.advance(store, upto)
        if upto is None:
            return pieces
    raise AssertionError("it does not come to an end")


@pytest.mark.parametrize("window", [0, 6_000, WINDOW_BYTES])
@pytest.mark.parametrize("seed", range(6))
def test_a_client_holds_what_a_list_has(
    delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch, seed: int, window: int
) -> None:
    """Whether it reads at once or late, in the window or before it, and over removals of clusters."""
    monkeypatch.setattr(cursor_module, "_MOST_READ", 5)
    draw = random.Random(seed)
    store = Store("h", 1000)
    store.finish_loading(0)
    store.window.resize(window)
    store.window.resize(window)
    store.window.open(0)
    wanted = Filter(where=Of(draw.choice([2, 3])), labels=parse_labels(draw.choice(["", "app!=b"])))
    index, live = 0, dict[tuple[str, str], str]()

    def step() -> None:
        nonlocal index
        index += 1
        cluster, name = draw.choice(["alpha", "bravo"]), f"n{draw.randrange(12)}"
        if draw.random() < 0.02:
            store.apply_control(control("removed", cluster, "", "pods"), index, index * SECOND)
            for place in [one for one in live if one[0] == cluster]:
                del live[place]
            return
        known = live.get((cluster, name))
        # Also a successor of which the deletion before was not heard.
        kind = ADDED if known is None or draw.random() < 0.05 else draw.choice([MODIFIED, MODIFIED, DELETED])
        uid = f"{cluster}-{name}-{index}" if kind == ADDED else known
        labels = {"app": draw.choice("ab")}
        made = delta(name, kind, uid=uid, member_version=str(index), cluster=cluster, labels=labels)
        store.apply_delta(made, index, index * SECOND)
        if kind == DELETED:
            del live[cluster, name]
        else:
            assert uid is not None
            live[cluster, name] = uid

    for _ in range(20):
        step()
    clients: list[tuple[Cursor, dict[tuple[str, str], str]]] = []
    pieces = 0
    for turn in range(40):
        for _ in range(draw.randrange(25)):
            step()
        if draw.random() < 0.3:
            bury(store, (index - 20) * SECOND)
        now = {(one.cluster, one.name): one.uid for one in store.types[PODS].select(wanted)}
        assert now == {
            place: uid
            for place, uid in live.items()
            if (one := store.types[PODS].get(place[0], f"x\0{place[1]}")) is not None and wanted.matches(one)  # type: ignore[arg-type]
        }
        if turn % 5 == 0:
            # One that listed, and one that comes with an event's version, from another instance.
            clients += [(Cursor(index), dict(now)), (Cursor(index, 0), dict(now))]
        for cursor, held in clients:
            if draw.random() < 0.6:
                pieces = max(pieces, followed(store, cursor, wanted, held))
                assert held == now
    assert pieces > 2
