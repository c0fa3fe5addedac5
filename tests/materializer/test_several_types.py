"""Changes of several types past one position: all of them, in the order of the log, whatever a read is cut at."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from deltalog import DELETED
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import parse_labels
from materializer import cursor as cursor_module
from materializer.cursor import Cursor, ShownChange, changes, changes_of
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.store import Store
from tests.materializer.test_model import EVERYTHING, LENSES, TYPES, Lens, Name, World, feed, name_of, warm_store

Make = Callable[..., Any]
LARGE = 1 << 30
Held = dict[tuple[GroupResource, Name], tuple[str, int]]


class Nothing:
    """A condition on bodies that holds for none."""

    at_once = 256

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        return []

    def unknown(self, entries: Sequence[Entry]) -> list[str]:
        return []


class Everything(Nothing):
    """One that holds for all."""

    at_once = 256

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        return list(entries)


def pieces(store: Store, after: int, wanted: Filter, limit: int, most: int) -> list[list[ShownChange]]:
    """All reads from an index to the end."""
    found: list[list[ShownChange]] = []
    while True:
        parts = [(one, Cursor(after).position(one), wanted) for one in store.types.values()]
        events, upto = changes_of(parts, limit, most)
        found.append(events)
        if upto is None:
            return found
        assert upto > after
        assert all(event.at <= upto for event in events)
        after = upto


def held(world: World, lens: Lens, index: int) -> Held:
    return {(of, name): state for of in TYPES for name, state in world.view_at(of, lens, index).items()}


def taken(world: World, view: Held, events: list[ShownChange]) -> Held:
    """What a client holds that held `view` and was shown these."""
    view = dict(view)
    types = {state.uid: of for (of, _), states in world.history.items() for _, state in states if state is not None}
    for event in events:
        entry = event.entry
        of = types[entry.uid]
        if event.type == DELETED:
            view.pop((of, name_of(entry)), None)
        else:
            view[of, name_of(entry)] = (entry.uid, entry.index)
    return view


@pytest.mark.parametrize("seed", range(3))
def test_whoever_is_cut_off_anywhere_ends_up_with_what_there_is(seed: int, delta: Make, control: Make) -> None:
    world = World(seed, delta, control)
    store = warm_store(LARGE)
    chance = random.Random(seed)
    shown = resumed = 0
    for _ in range(80):
        for _ in range(chance.randint(1, 20)):
            feed(store, world.step())
        lens = chance.choice(LENSES)
        after = chance.randint(max(0, store.applied - 40), store.applied)
        if any(after < store.floor_of(of, None) or after < one.forgotten for of, one in store.types.items()):
            continue
        begin, target = held(world, lens, after), held(world, lens, store.applied)
        limit, most = chance.choice(((EVERYTHING, LARGE), (1, LARGE), (3, LARGE), (EVERYTHING, 1)))
        read = pieces(store, after, lens.filter, limit, most)
        events = [event for piece in read for event in piece]
        assert [event.at for event in events] == sorted(event.at for event in events)
        if limit == 1:
            # One index each.
            assert all(event.at in (piece[-1].at - 1, piece[-1].at) for piece in read for event in piece)
        each = [changes(one, Cursor(after).position(one), lens.filter, EVERYTHING)[0] for one in store.types.values()]
        assert Counter((one.type, one.entry.uid, one.entry.index) for one in events) == Counter(
            (one.type, one.entry.uid, one.entry.index) for some in each for one in some
        )
        assert taken(world, begin, events) == target
        shown += len(events)
        for at in range(0, len(events), 3):
            rest = pieces(store, events[at].at, lens.filter, limit, most)
            view = taken(world, begin, events[: at + 1])
            assert taken(world, view, [event for piece in rest for event in piece]) == target
            resumed += 1
    assert shown > 200
    assert resumed > 100


@pytest.mark.parametrize("in_window", [True, False])
@pytest.mark.parametrize(("most", "seconds", "expected"), [(2, 1e9, 2), (3, 1e9, 3), (256, 0.0, 1), (256, 1e9, None)])
def test_a_read_of_bodies_ends_after_so_many_or_so_long(
    most: int, seconds: float, expected: int | None, in_window: bool, delta: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor_module, "_MOST_READ", most)
    monkeypatch.setattr(cursor_module, "_READ_SECONDS", seconds)
    monkeypatch.setattr(cursor_module, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    wanted = Filter(where=Nothing())
    store = warm_store(LARGE if in_window else 0)
    for index in range(1, 7):
        store.apply_delta(delta(f"n{index}", uid=f"u{index}", member_version="1"), index, index)
    [pods] = store.types.values()
    at = Cursor(0).position(pods)
    # What is not shown has no bytes to send; without a condition on bodies there is no such end.
    assert changes(pods, at, wanted, EVERYTHING) == changes(pods, at, wanted, EVERYTHING, 1) == ([], expected)
    assert [one.at for one in changes(pods, at, Filter(), EVERYTHING)[0]] == [*range(1, 7)]
    for index in range(7, 13):
        of = {"group": "apps", "resource": "deployments"} if index % 2 else {}
        store.apply_delta(delta(f"n{index}", uid=f"u{index}", member_version="1", **of), index, index)
    parts = [(one, Cursor(6).position(one), wanted) for one in store.types.values()]
    assert changes_of(parts, EVERYTHING, LARGE) == ([], expected and 6 + expected)


@pytest.mark.parametrize("in_window", [True, False])
@pytest.mark.parametrize("removed", [2, 3])
def test_of_a_removal_of_many_no_bodies_are_read(
    in_window: bool, removed: int, delta: Make, control: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be shown a deletion of what one does not have does no harm."""
    monkeypatch.setattr(cursor_module, "_MOST_READ", 2)
    monkeypatch.setattr(cursor_module, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    store = warm_store(LARGE if in_window else 0)
    for index in range(1, removed + 1):
        store.apply_delta(delta(f"n{index}", uid=f"u{index}", member_version="1"), index, index)
    store.apply_control(control("removed", "alpha"), 5, 5)
    store.apply_delta(delta("m", uid="m", member_version="1"), 6, 6)
    [pods] = store.types.values()
    # Before the window it is not known what the body was.
    asked = 0 if in_window and removed == 2 else removed
    for wanted, deleted, doubtful in ((Filter(), removed, 0), (Filter(where=Nothing()), asked, removed)):
        store.window.doubtful = 0
        events, _ = changes(pods, Cursor(4).position(pods), wanted, EVERYTHING)
        assert [one.type for one in events] == [DELETED] * deleted + ["ADDED"] * (wanted.where is None)
        assert (store.window.doubtful >= 3) is (doubtful > 2)


def test_time_counts_once_a_body_was_read_of_any_type(delta: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = warm_store(LARGE)
    for index in range(1, 6):
        of = {"group": "apps", "resource": "deployments"} if index % 2 else {}
        store.apply_delta(delta(f"n{index}", uid=f"u{index}", member_version="1", **of), index, index)
    wanted = {"deployments": Filter(), "pods": Filter(where=Nothing())}
    parts = [(one, Cursor(0).position(one), wanted[of.resource]) for of, one in store.types.items()]
    # It is asked for at the beginning, and before the items at 3, 4 and 5: time is over at the second of these.
    clock = SimpleNamespace(perf_counter=iter((0.0, 0.0, 1.0)).__next__)
    monkeypatch.setattr(cursor_module, "time", clock)
    events, upto = changes_of(parts, EVERYTHING, LARGE)
    assert ([one.at for one in events], upto) == ([1, 3], 3)


@pytest.mark.parametrize("most", [2, 3])
def test_others_have_a_turn_where_many_are_passed_over(most: int, delta: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cursor_module, "_MOST_PASSED", most)
    monkeypatch.setattr(cursor_module, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    store = warm_store()
    for index in range(1, 31):
        of = {"group": "apps", "resource": "deployments"} if index % 2 else {}
        labels = {"app": "a"} if index % 5 == 0 else {}
        store.apply_delta(delta(f"n{index}", uid=f"u{index}", member_version="1", labels=labels, **of), index, index)
    read = pieces(store, 0, Filter(labels=parse_labels("app=a")), EVERYTHING, LARGE)
    assert [event.at for piece in read for event in piece] == [5, 10, 15, 20, 25, 30]
    assert len(read) > 30 // most // 2
    # With bodies to be read the bound is another one.
    [every] = pieces(store, 0, Filter(where=Everything()), EVERYTHING, LARGE)
    assert [event.at for event in every] == [*range(1, 31)]


def test_a_read_ends_where_it_has_so_many_bytes(delta: Make) -> None:
    store = warm_store(LARGE)
    for index in range(1, 5):
        of = {"group": "apps", "resource": "deployments"} if index % 2 else {}
        store.apply_delta(delta(f"n{index}", uid=f"u{index}", member_version="1", **of), index, index)
    parts = [(one, Cursor(0).position(one), Filter()) for one in store.types.values()]
    every, upto = changes_of(parts, EVERYTHING, LARGE)
    assert ([one.at for one in every], upto) == ([1, 2, 3, 4], None)
    two = every[0].entry.size + every[1].entry.size
    assert [changes_of(parts, EVERYTHING, most)[1] for most in (1, two, two + 1)] == [1, 2, 3]
    # Before the window, by the latest states.
    store.window.close()
    parts = [(one, Cursor(0).position(one), Filter()) for one in store.types.values()]
    assert changes_of(parts, EVERYTHING, LARGE) == (every, None)
