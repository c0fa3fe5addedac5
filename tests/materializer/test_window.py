"""The window: every event within it is shown as it happened, to whomever; before it, the latest states are."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import pytest

from deltalog import ADDED, DELETED, MODIFIED, Replaced
from deltalog.wire.delta import UNCHANGED, Selectables
from deltalog.wire.kubernetes import GroupResource
from materializer.bodies import ALONE
from materializer.cursor import Cursor, ShownChange, changes
from materializer.entry import Entry, object_key
from materializer.filter import Filter
from materializer.order import Removal
from materializer.store import Store
from materializer.type_store import BeforeWindow
from materializer.window import CLOSED, Event, TypeWindow, Window, in_proportion
from tests.entries import made_entry
from tests.materializer.test_model import (
    EVERYTHING,
    LENSES,
    SECOND,
    TYPES,
    Client,
    Lens,
    Make,
    Name,
    State,
    World,
    every_client,
    feed,
    name_of,
    pieces,
    run,
    take_in_strictly,
    warm_store,
)

LARGE = 1 << 30


class Told(NamedTuple):
    """One event as a watch shows it: the state shown is that of a uid from an index on."""

    at: int
    type: str
    name: Name
    uid: str
    state: int


def told(change: ShownChange) -> Told:
    entry = change.entry
    # A tombstone's body is the last state's, with the index of the deletion.
    return Told(change.at, change.type, name_of(entry), entry.uid, 0 if change.type == DELETED else entry.index)


def reference(world: World, kind: GroupResource, lens: Lens, after: int, upto: int) -> list[Told]:
    """All that a kube-apiserver would show of the model's history, in order; of one index, by name."""
    found: list[Told] = []
    for (of, name), states in world.history.items():
        if of != kind:
            continue
        before = None
        for index, state in states:
            if after < index <= upto:
                had = before is not None and lens.holds(name, before)
                has = state is not None and lens.holds(name, state)
                replaced = before is not None and state is not None and before.uid != state.uid
                if had and before is not None and (replaced or not has):
                    found.append(Told(index - 1 if replaced and has else index, DELETED, name, before.uid, 0))
                    had = False
                if has and state is not None:
                    found.append(Told(index, MODIFIED if had else ADDED, name, state.uid, index))
            before = state
    return found


def as_happened(world: World, kind: GroupResource, events: list[ShownChange]) -> list[Told]:
    """What was shown, the deletions of a removal at its own index: all but the last are shown at the one before."""
    found = []
    for change in events:
        one = told(change)
        if one.type == DELETED and not change.entry.deleted and change.member_version is None:
            states = world.history[kind, one.name]
            gone = {
                index for (_, state), (index, after) in pairwise(states) if after is None and of_uid(state, one.uid)
            }
            gone &= world.removals
            one = one._replace(at=next((index for index in (one.at, one.at + 1) if index in gone), one.at))
        found.append(one)
    return found


def of_uid(state: State | None, uid: str) -> bool:
    return state is not None and state.uid == uid


def read_all(store: Store, client: Client, chance: random.Random | None = None) -> list[ShownChange]:
    """All that lies past a client's cursor, in one piece or in small ones."""
    found: list[ShownChange] = []
    while True:
        events, complete = client.pull(store, EVERYTHING if chance is None else chance.randint(1, 4))
        found += events
        if complete:
            return found


@pytest.mark.parametrize("seed", range(8))
def test_in_the_window_every_watcher_is_shown_exactly_what_happened(seed: int, delta: Make, control: Make) -> None:
    """Live and resumed, whatever the selector, read at once or in pieces."""
    world = World(seed, delta, control)
    clients = every_client()
    count = 0

    def each(store: Store) -> None:
        nonlocal count
        for client in clients:
            if world.random.random() > 0.05:
                continue
            if client.behind(store):
                client.relist(store)
            if world.random.random() < 0.5:
                # It comes back, maybe from elsewhere, from any version.
                after = world.random.randint(max(0, store.applied - 80), store.applied)
                client.at = Cursor(after, world.random.choice((0, after)))
                client.view = world.view_at(client.kind, client.lens, after)
                client.seen.clear()
                if client.behind(store) or client.refused(store):
                    continue
            after, held = client.cursor, dict(client.view)
            found = read_all(store, client, world.random.choice((None, world.random)))
            for change in found:
                take_in_strictly(held, change)
            expected = reference(world, client.kind, client.lens, after, store.applied)
            assert sorted(as_happened(world, client.kind, found)) == sorted(expected), (after, client.lens.filter)
            assert client.view == world.view_at(client.kind, client.lens, store.applied)
            count += len(found)

    store = warm_store(LARGE)
    run(world, store, 1200, each)
    assert count > 3000
    assert not store.window.doubtful
    assert not store.window.dropped


@pytest.mark.parametrize("limit", [1, 3_000, 20_000])
@pytest.mark.parametrize("seed", range(4))
def test_before_the_window_the_latest_states_are_shown(seed: int, limit: int, delta: Make, control: Make) -> None:
    """However little memory there is, each watcher converges; one in the window is shown what happened."""
    world = World(seed, delta, control)
    clients = every_client()
    counts = {True: 0, False: 0}

    def each(store: Store) -> None:
        assert store.window.size <= limit
        for client in clients:
            if world.random.random() > 0.1:
                continue
            if client.behind(store):
                client.relist(store)
            after, exact = client.cursor, client.cursor >= store.window.start
            found = read_all(store, client)
            if exact:
                expected = reference(world, client.kind, client.lens, after, store.applied)
                assert sorted(as_happened(world, client.kind, found)) == sorted(expected)
            counts[exact] += 1
            assert client.view == world.view_at(client.kind, client.lens, store.applied)

    store = warm_store(limit)
    run(world, store, 1000, each)
    assert counts[False]
    assert counts[True] or limit == 1
    assert store.window.dropped


@pytest.mark.parametrize("seed", range(4))
def test_small_pieces_before_and_in_the_window_converge(seed: int, delta: Make, control: Make) -> None:
    """A watcher that falls out of the window while it reads, and comes into it, loses nothing."""
    pieces(World(seed, delta, control), every_client(), 12_000)


@pytest.mark.parametrize("seed", range(6))
def test_a_list_as_of_an_index_in_the_window_is_what_was_there(seed: int, delta: Make, control: Make) -> None:
    world = World(seed, delta, control)
    told_apart = {True: 0, False: 0}

    def each(store: Store) -> None:
        for kind in store.types:
            lens = world.random.choice(LENSES)
            index = world.random.randint(max(0, store.applied - 60), store.applied)
            type_store = store.types[kind]
            before = index < store.window.start
            told_apart[before] += 1
            if before:
                with pytest.raises(BeforeWindow, match=f"too old resource version: {index} "):
                    type_store.as_of(index, lens.filter)
                continue
            found = type_store.as_of(index, lens.filter)
            places = [name_of(entry) for entry in found]
            assert places == sorted(places)
            assert {name_of(one): (one.uid, one.index) for one in found} == world.view_at(kind, lens, index)

    run(world, warm_store(16_000), 1200, each)
    assert min(told_apart.values()) > 50


def resumed(world: World, store: Store, begin: int, *, times: int, exact_from: int) -> Counter[bool]:
    """Each client comes with versions around `begin`: how often what it was shown had to be exact, and was, or not."""
    counts: Counter[bool] = Counter()
    for client in every_client():
        target = world.view_at(client.kind, client.lens, store.applied)
        for _ in range(times):
            after = world.random.randint(max(0, begin - 10), world.index)
            client.at = Cursor(after, world.random.choice((0, after)))
            client.seen.clear()
            if client.refused(store):
                continue
            client.view = world.view_at(client.kind, client.lens, after)
            found = read_all(store, client, world.random.choice((None, world.random)))
            assert client.view == target
            counts[after >= exact_from] += 1
            if after >= exact_from:
                expected = reference(world, client.kind, client.lens, after, store.applied)
                assert sorted(as_happened(world, client.kind, found)) == sorted(expected), (begin, after)
    return counts


@pytest.mark.parametrize("seed", range(8))
def test_an_instance_that_started_later_shows_what_happened_as_well(seed: int, delta: Make, control: Make) -> None:
    """It read the state up to somewhere, and every event from there: a resume from there on is exact."""
    world = World(seed, delta, control)
    served = before = 0
    for _ in range(30):
        for _ in range(world.random.randint(1, 40)):
            world.step()
            world.now += int(world.random.random() * world.random.choice((0, 3)) * SECOND)
        begin = world.random.randint(max(0, world.index - 80), world.index)
        store = world.later_store(begin)
        counts = resumed(world, store, begin, times=3, exact_from=begin)
        served += counts[True]
        before += counts[False]
    assert served > 500
    assert before > 50


@pytest.mark.parametrize("settled", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_an_instance_that_was_away_shows_what_happened_since_it_reads_events_again(
    seed: int, settled: bool, delta: Make, control: Make
) -> None:
    """What it holds of an object may be older than the state that an event changed: the event says what that was."""
    world = World(seed, delta, control)
    # Where it has to begin anew, there is no gap.
    world.forgets = False
    store = warm_store(LARGE)
    served = 0
    for _ in range(60):
        for _ in range(world.random.randint(0, 10)):
            feed(store, world.step())
        if settled:
            store.settle()
        for _ in range(world.random.randint(1, 40)):
            world.step()
            world.now += int(world.random.random() * world.random.choice((0, 1)) * SECOND)
        begin = world.random.randint(store.applied, world.index)
        world.catch_up_later(store, begin)
        store.check()
        served += resumed(world, store, begin, times=2, exact_from=store.window.start)[True]
    assert served > 500


@pytest.mark.parametrize("seed", range(4))
def test_a_gap_in_what_is_read_begins_the_window_anew(seed: int, delta: Make, control: Make) -> None:
    """What was superseded unread cannot be told: watchers from before it get the latest states."""
    world = World(seed, delta, control)
    world.forgets = False
    store = warm_store(LARGE)
    clients = every_client()
    for _ in range(150):
        for _ in range(world.random.choice((1, 2, 5, 20))):
            world.step()
        world.catch_up(store)
        store.check()
        for client in clients:
            if world.random.random() > 0.4:
                continue
            if client.behind(store):
                client.relist(store)
            client.pull(store)
            assert client.view == world.view_at(client.kind, client.lens, store.applied)
    assert store.unread_through <= store.window.start


def entry_of_size(size: int, index: int) -> Entry:
    """An entry that takes so many bytes, as the window counts it."""
    small = made_entry("a", index, rest=b"}")
    return made_entry("a", index, rest=b"x" * (size - 200 - len(small.record)) + b"}")


def test_the_oldest_events_of_all_types_go_first() -> None:
    window, pods, nodes = Window(5_000), TypeWindow(), TypeWindow()
    assert (window.start, len(window)) == (0, 0)
    before = entry_of_size(1_000, 1)
    for index in range(2, 11):
        window.add(pods if index % 2 else nodes, index, before, before)
    # Each counts for its state before, and for what it takes itself.
    assert window.size == 4 * 1_150
    assert [event.index for event in pods.after(0)] == [7, 9]
    assert [event.index for event in nodes.after(0)] == [8, 10]
    assert (window.start, window.dropped, len(window)) == (6, 5, 4)
    assert (pods.last(), nodes.last()) == (9, 10)
    assert list(pods.after(9)) == []


def test_a_window_that_is_begun_anew_has_nothing_of_before() -> None:
    window, pods, nodes = Window(5_000), TypeWindow(), TypeWindow()
    assert (pods.last(), len(pods)) == (0, 0)
    before = entry_of_size(1_000, 1)
    for index in range(2, 11):
        window.add(pods if index % 2 else nodes, index, before, before)
    window.open(20)
    assert (window.start, window.size, len(window), len(pods), len(nodes)) == (20, 0, 0, 0, 0)
    assert (pods.last(), list(nodes.after(0))) == (0, [])
    window.add(pods, 21, before, None)
    assert [event.index for event in pods.after(0)] == [21]
    assert (window.start, window.size, len(window), len(pods)) == (20, 150, 1, 1)
    window.close()
    assert (window.start, window.size, len(window), len(pods)) == (CLOSED, 0, 0, 0)
    window.add(pods, 22, before, None)
    assert len(pods) == 0


def test_a_window_can_become_smaller_and_larger() -> None:
    window, pods = Window(5_000), TypeWindow()
    before = entry_of_size(850, 1)
    for index in range(1, 6):
        window.add(pods, index, before, before)
    assert (window.start, len(pods)) == (0, 5)
    window.resize(2_500)
    assert (window.start, window.size, len(pods), window.dropped) == (3, 2_000, 2, 3)
    window.resize(10_000)
    window.add(pods, 6, before, before)
    assert (window.start, len(pods)) == (3, 3)
    window.resize(0)
    assert (window.start, window.size, len(pods)) == (CLOSED, 0, 0)
    window.resize(5_000)
    window.add(pods, 7, before, before)
    assert (window.start, len(pods)) == (CLOSED, 0), "it is begun anew by who knows from where on every event comes"
    window.open(7)
    window.add(pods, 8, before, before)
    assert (window.start, len(pods)) == (7, 1)


@pytest.mark.parametrize(("created", "shown"), [(0, [DELETED, ADDED]), (1, [ADDED]), (3, [DELETED, ADDED])])
@pytest.mark.parametrize("limit", [0, LARGE])
def test_a_predecessor_may_have_been_created_in_time_where_the_log_does_not_say_when(
    limit: int, created: int, shown: list[str], delta: Make
) -> None:
    store = warm_store(limit)
    store.skip(1, 1)
    store.skip(4, 1)
    replaced = Replaced(uid="old", uid_index=2, oldest_uid_index=2, time=1, created=created)
    store.apply_delta(delta("m", uid="new", type=ADDED, created=9, replaced=replaced), 5, 5)
    pods = store.types[TYPES[0]]
    assert [one.type for one in changes(pods, Cursor(4).position(pods), Filter(since=2), EVERYTHING)[0]] == shown


def test_a_removal_that_is_larger_than_the_window_leaves_nothing_in_it() -> None:
    window, pods = Window(5_000), TypeWindow()
    removed = tuple(entry_of_size(1_000, index) for index in range(1, 6))
    window.add(pods, 9, Removal(9, {}), None, removed=removed)
    assert (window.start, window.size, len(window)) == (9, 0, 0)


def test_a_window_without_bytes_is_never_open() -> None:
    window, pods = Window(0), TypeWindow()
    window.open(5)
    window.add(pods, 6, entry_of_size(1, 6), None)
    assert (window.start, window.size, len(pods)) == (CLOSED, 0, 0)


def test_what_is_dropped_from_the_beginning_is_freed() -> None:
    window, pods = Window(100 * 1_150), TypeWindow()
    before = entry_of_size(1_000, 1)
    for index in range(2, 5_000):
        window.add(pods, index, before, before)
        assert len(pods) <= 100
    assert len(pods._events) < 1_000
    assert [event.index for event in pods.after(0)] == list(range(4_900, 5_000))


@pytest.mark.parametrize(("held", "bytes_"), [(0, 8 << 20), (20 << 20, 20 << 20), (1 << 30, 64 << 20)])
def test_a_window_is_in_proportion_to_what_is_held(held: int, bytes_: int) -> None:
    assert in_proportion(held) == bytes_


def unsettled(window: Window) -> list[int]:
    return [event.index for event in window._unsettled]


def test_what_was_plain_is_weighed_anew_once_it_is_packed() -> None:
    window, pods = Window(LARGE), TypeWindow()
    plain, packed = entry_of_size(1_000, 1), entry_of_size(1_000, 1)
    packed.dictionary = ALONE
    dead, buried = entry_of_size(1_000, 1), entry_of_size(1_000, 1)
    dead.deleted = buried.deleted = True
    buried.dictionary = ALONE
    # A live object's state counts with the event that changes it.
    given: list[tuple[Entry, Entry | None]] = [(plain, plain)]
    given += [(plain, packed), (dead, packed), (buried, packed), (buried, plain), (plain, None)]
    for index, (item, before) in enumerate(given, 1):
        window.add(pods, index, item, before)
    window.add(pods, 7, entry_of_size(1_000, 7), None, fresh=True)
    window.add(pods, 8, Removal(8, {}), None, removed=(packed,))
    assert [event.weight for event in pods.after(0)] == [1_150, 1_150, 2_150, 2_150, 2_150, 150, 32, 1_150]
    assert window.size == 1_150 * 3 + 2_150 * 3 + 150 + 32
    assert unsettled(window) == [1, 3, 5]
    # As an image has it, and as it is when some are dropped.
    other, again = Window(LARGE), TypeWindow()
    other.restore([(again, event) for event in reversed(list(pods.after(0)))], 0)
    assert unsettled(other) == [1, 3, 5]
    assert [isinstance(one, Event) for one in again.copy()] == [isinstance(one, Event) for one in pods.copy()]
    other.resize(other.size - 1_150)
    assert (other.start, unsettled(other)) == (1, [3, 5])
    other.close()
    assert unsettled(other) == []
    size = window.size
    for entry in (plain, dead):
        entry.record = entry.record[:-100]
    window.settle(5)
    assert (size - window.size, unsettled(window)) == (200, [5])
    assert [event.weight for event in pods.after(0)][:5] == [1_050, 1_150, 2_050, 2_150, 2_150]
    window.settle(6)
    assert (size - window.size, unsettled(window)) == (300, [])


def test_a_state_that_left_the_selection_is_the_last_that_matched(delta: Make) -> None:
    """With the version of the change, as a kube-apiserver's watch has it."""
    store = warm_store(LARGE)
    kind = TYPES[0]
    for number, app in enumerate(("a", "a", "b"), 1):
        given = {"type": ADDED} if number == 1 else {"type": MODIFIED, "uid_index": 1}
        made = delta("m", uid="u", member_version=str(100 + number), labels={"app": app}, **given)
        store.apply_delta(made, number, number)
    lens = LENSES[1]
    found, upto = changes(store.types[kind], Cursor(0).position(store.types[kind]), lens.filter, EVERYTHING)
    assert upto is None
    assert [(one.type, one.at, one.entry.index, one.member_version) for one in found] == [
        (ADDED, 1, 1, None),
        (MODIFIED, 2, 2, None),
        (DELETED, 3, 2, "103"),
    ]


def test_as_of_an_index_a_name_that_is_not_known_any_more_cannot_be_told(delta: Make) -> None:
    """The log was read from past an object's last state but one: what it was then is not here."""
    store = warm_store(LARGE)
    store.skip(5, 5)
    store.note_compacted(5)
    store.apply_delta(delta("m", uid="u", type=MODIFIED, uid_index=2, member_version="9"), 6, 6)
    pods = store.types[TYPES[0]]
    with pytest.raises(BeforeWindow):
        pods.as_of(5, Filter())
    assert pods.as_of(5, Filter(names=frozenset({"n"}))) == []
    assert [one.index for one in pods.as_of(6, Filter())] == [6]
    assert pods.get("alpha", object_key("x", "m")) is not None


# -- what was superseded unread ----------------------------------------------------------------------------------------

PODS = TYPES[0]
A, B = {"app": "a"}, {"app": "b"}
APP_A = LENSES[1].filter


def told_past(store: Store, after: int, wanted: Filter = APP_A) -> list[tuple[int, str]]:
    pods = store.types[PODS]
    found, upto = changes(pods, Cursor(after).position(pods), wanted, EVERYTHING)
    assert upto is None
    return [(change.at, change.type) for change in found]


@pytest.fixture
def gapped(delta: Make) -> Store:
    """Had m, with app=a, at 1; what came from 2 to 4 was superseded, and the log is read event by event past that."""
    store = warm_store(LARGE)
    store.apply_delta(delta("m", labels=A, member_version="1"), 1, 1)
    store.settle()
    store.skip(5, 5)
    assert (store.unread_through, store.caught_up_at, store.window.start) == (4, 1, 4)
    return store


@pytest.mark.parametrize(
    ("was", "now", "expected"),
    [
        (UNCHANGED, A, [(6, MODIFIED)]),
        (UNCHANGED, B, []),
        (Selectables(B, {}, ""), A, [(6, ADDED)]),
        (Selectables(A, {}, ""), B, [(6, DELETED)]),
        # An older release does not say: a deletion too many rather than one too few.
        (None, B, [(6, DELETED)]),
        (None, A, [(6, MODIFIED)]),
    ],
)
def test_the_state_before_an_event_is_not_an_older_one(
    gapped: Store, was: Selectables | None, now: dict[str, str], expected: list[tuple[int, str]], delta: Make
) -> None:
    """m may have been changed between 2 and 4: only the event says what it was."""
    gapped.apply_delta(delta("m", type=MODIFIED, uid_index=1, member_version="3", labels=now, was=was), 6, 6)
    assert told_past(gapped, 5) == expected
    assert gapped.window.doubtful == (was is None and now is B)
    # What selectors saw before is unknown to whoever comes from before the window, too.
    (event,) = gapped.types[PODS].events.after(0)
    entry = event.item
    assert isinstance(entry, Entry)
    assert (event.before, event.fresh, entry.selectable_since, entry.past) == (None, False, 6, None)
    assert APP_A.matched_between(entry, 2, 5) is None
    # The next one is right behind it.
    gapped.apply_delta(delta("m", type=MODIFIED, uid_index=1, member_version="4", labels=A, was=None), 7, 7)
    assert [event.before for event in gapped.types[PODS].events.after(6)] == [entry]


@pytest.mark.parametrize("known", [True, False])
def test_once_everything_was_read_the_state_before_is_known(known: bool, gapped: Store, delta: Make) -> None:
    if known:
        gapped.settle()
    before = gapped.types[PODS].get("alpha", object_key("x", "m"))
    gapped.apply_delta(delta("m", type=MODIFIED, uid_index=1, member_version="3", labels=B), 6, 6)
    (event,) = gapped.types[PODS].events.after(0)
    assert event.before is (before if known else None)


def test_what_came_past_the_gap_is_known_though_not_everything_was_read(gapped: Store, delta: Make) -> None:
    gapped.apply_delta(delta("n", uid="n", member_version="1", labels=A), 6, 6)
    gapped.apply_delta(delta("n", type=MODIFIED, uid="n", uid_index=6, member_version="2", labels=B), 7, 7)
    first, second = gapped.types[PODS].events.after(0)
    assert (first.before, first.fresh) == (None, True)
    assert (second.before, second.fresh) == (first.item, False)
    assert told_past(gapped, 5) == [(6, ADDED), (7, DELETED)]


@pytest.mark.parametrize("type", [MODIFIED, DELETED])
def test_what_selectors_saw_is_held_where_the_state_is_not_here(type: str, gapped: Store, delta: Make) -> None:
    was = Selectables(B, {}, "")
    gapped.apply_delta(delta("m", type=type, uid_index=1, member_version="3", labels=A, was=was), 6, 6)
    gapped.apply_delta(delta("n", uid="n", member_version="3", labels=A), 7, 7)
    gapped.apply_delta(delta("n", type=type, uid="n", uid_index=7, member_version="4", labels=A, was=was), 8, 8)
    events = gapped.types[PODS].events.after(0)
    assert [(event.before is None, event.was) for event in events] == [(True, was), (True, None), (False, None)]
    # What came before that is not known, and A is not what it was until then.
    last = next(gapped.types[PODS].order.after(5))
    assert isinstance(last, Entry)
    assert (last.selectable_since, last.past) == (6, None)
    assert APP_A.matched_between(last, 2, 5) is None


@pytest.mark.parametrize(("read", "settled"), [(1, False), (5, True)])
def test_a_state_that_cannot_have_been_superseded_unread_is_known(read: int, settled: bool, delta: Make) -> None:
    """It is the newest that was read, or of all that were superseded the successors have come."""
    store = warm_store(LARGE)
    store.apply_delta(delta("m", member_version="1"), 1, 1)
    store.skip(read, read)
    store.note_compacted(read)
    if settled:
        store.settle()
    assert (store.unread_through, store.caught_up_at) == (read, read if settled else 0)
    store.apply_delta(delta("m", type=MODIFIED, uid_index=1, member_version="2"), read + 1, 0)
    (event,) = store.types[PODS].events.after(read)
    assert event.before is not None
    assert event.before.index == 1


@pytest.mark.parametrize(
    ("was", "labels", "expected"),
    [(UNCHANGED, A, [(6, DELETED)]), (UNCHANGED, B, []), (Selectables(B, {}, ""), A, []), (None, B, [(6, DELETED)])],
)
@pytest.mark.parametrize("final", [True, False])
def test_a_deletion_is_of_the_state_before_it_and_not_of_an_older_one(
    gapped: Store,
    final: bool,
    was: Selectables | None,
    labels: dict[str, str],
    expected: list[tuple[int, str]],
    delta: Make,
) -> None:
    """Without a word on what was before, what is here has to do."""
    made = delta("m", type=DELETED, uid_index=1, member_version="3", labels=labels, was=was, final=final)
    gapped.apply_delta(made, 6, 6)
    assert told_past(gapped, 5) == expected
    tombstone = gapped.types[PODS].tombstones["alpha"][object_key("x", "m")]
    if was is None:
        assert tombstone.labels == A
    else:
        assert tombstone.labels == (labels if was is UNCHANGED else was.labels)
    # The body of an older state is not that of the last one.
    stale = not final and was is None
    assert (b'"of":"1"' in tombstone.content) is stale
    gapped.check()


def test_a_deletion_says_who_the_controller_was(gapped: Store, delta: Make) -> None:
    made = delta("m", type=DELETED, uid_index=1, member_version="3", was=Selectables({}, {"node": "1"}, "o1"))
    gapped.apply_delta(made, 6, 6)
    tombstone = gapped.types[PODS].tombstones["alpha"][object_key("x", "m")]
    assert (tombstone.labels, tombstone.fields, tombstone.controller_uid) == ({}, {"node": "1"}, "o1")
    assert told_past(gapped, 5, Filter(controller_uids=frozenset({"o1"}))) == [(6, DELETED)]


@pytest.mark.parametrize("known", [True, False])
def test_another_uid_takes_the_place_of_what_was_there(known: bool, gapped: Store, delta: Make) -> None:
    """Of one that is not here, the log says what it was."""
    if known:
        gapped.settle()
    replaced = Replaced(uid="u2", uid_index=3, oldest_uid_index=1, time=1, labels=A, created=1)
    gapped.apply_delta(delta("m", uid="u3", member_version="9", labels=B, replaced=None if known else replaced), 6, 6)
    (event,) = gapped.types[PODS].events.after(0)
    assert event.before is not None
    assert (event.before.uid, event.fresh) == ("u" if known else "u2", False)
    assert told_past(gapped, 5) == [(6, DELETED)]


def test_what_is_here_is_the_state_before_whatever_the_log_says_of_it(gapped: Store, delta: Make) -> None:
    gapped.settle()
    current = gapped.types[PODS].get("alpha", object_key("x", "m"))
    replaced = Replaced(uid="u", uid_index=1, oldest_uid_index=1, time=1)
    gapped.apply_delta(delta("m", uid="u3", member_version="9", replaced=replaced), 6, 6)
    # One that had been deleted before that is none.
    deleted = Replaced(uid="u", uid_index=1, oldest_uid_index=1, time=1, deletion_index=3)
    gapped.apply_delta(delta("n", uid="n", member_version="9", replaced=deleted), 7, 7)
    first, second = gapped.types[PODS].events.after(0)
    assert (first.before, first.fresh) == (current, False)
    assert (second.before, second.fresh) == (None, True)


def test_an_object_of_another_uid_is_no_state_before(gapped: Store, delta: Make) -> None:
    """Its own beginning was superseded unread."""
    gapped.settle()
    gapped.apply_delta(
        delta("m", type=MODIFIED, uid="u2", uid_index=3, member_version="9", labels=A, was=UNCHANGED), 6, 6
    )
    (event,) = gapped.types[PODS].events.after(0)
    assert (event.before, event.fresh) == (None, False)
    assert told_past(gapped, 5) == [(6, MODIFIED)]


def test_a_uid_that_came_back_unread_begins_again(gapped: Store, delta: Make) -> None:
    """It was deleted between 2 and 4."""
    gapped.apply_delta(delta("m", member_version="9", labels=A), 6, 6)
    (event,) = gapped.types[PODS].events.after(0)
    assert (event.before, event.fresh) == (None, True)
    assert told_past(gapped, 5) == [(6, ADDED)]
    assert [entry.index for entry in gapped.types[PODS].as_of(5, Filter())] == []


def test_the_log_is_read_event_by_event_from_somewhere_on(delta: Make) -> None:
    store = warm_store(LARGE)
    store.window.close()
    for index in range(1, 4):
        store.apply_delta(delta(f"n{index}", uid=f"u{index}", member_version="1"), index, index)
    store.skip(9, 9)
    assert (store.unread_through, store.window.start, len(store.window)) == (8, CLOSED, 0)
    # The state was read up to 5, and this came past it.
    store.note_compacted(5)
    assert (store.unread_through, store.window.start) == (8, 9)
    store.note_compacted(20)
    assert (store.unread_through, store.window.start) == (20, 20)


def test_a_list_as_of_then_has_what_was_replaced_since(delta: Make) -> None:
    store = warm_store(LARGE)
    store.apply_delta(delta("m", member_version="1", labels=A), 1, 1)
    store.apply_delta(delta("m", type=MODIFIED, uid_index=1, member_version="2", labels=B), 2, 2)
    store.apply_delta(delta("m", uid="u2", member_version="3", labels=A), 3, 3)
    store.apply_delta(delta("m", type=DELETED, uid="u2", uid_index=3, member_version="4", labels=A), 4, 4)
    store.apply_delta(delta("m", uid="u3", member_version="5", labels=A), 5, 5)
    pods = store.types[PODS]
    assert [[(one.uid, one.index) for one in pods.as_of(index, Filter())] for index in range(6)] == [
        [],
        [("u", 1)],
        [("u", 2)],
        [("u2", 3)],
        [],
        [("u3", 5)],
    ]
    assert [[one.index for one in pods.as_of(index, APP_A)] for index in range(6)] == [[], [1], [], [3], [], [5]]


def test_a_list_as_of_then_needs_the_states_of_then(delta: Make) -> None:
    """Not only of what is there now, but of what that took the place of, and of that only the log knows."""
    store = warm_store(LARGE)
    store.skip(5, 5)
    store.note_compacted(5)
    for index in (6, 7):
        # A message that cannot be read.
        store.skip(index, index)
    replaced = Replaced(uid="old", uid_index=6, oldest_uid_index=6, time=1)
    store.apply_delta(delta("m", uid="new", replaced=replaced), 8, 8)
    store.apply_delta(delta("n", type=MODIFIED, uid="n", uid_index=7, member_version="2"), 9, 9)
    pods = store.types[PODS]
    assert pods.as_of(5, Filter()) == []
    m, n = Filter(names=frozenset({"m"})), Filter(names=frozenset({"n"}))
    assert pods.as_of(6, n) == []
    for index, wanted in ((6, m), (7, m), (7, n)):
        with pytest.raises(BeforeWindow):
            pods.as_of(index, wanted)
    assert [one.uid for one in pods.as_of(8, m)] == ["new"]


def test_deletions_that_may_be_needless_are_counted(delta: Make) -> None:
    """Before the window, where what an object was is not known any more; not where it is."""
    store = warm_store(0)
    store.apply_delta(delta("m", member_version="1", labels=B), 1, 1)
    store.skip(3, 3)
    store.apply_delta(delta("m", type=MODIFIED, uid_index=1, member_version="3", labels=B), 5, 5)
    assert told_past(store, 3) == [(5, DELETED)]
    assert store.window.doubtful == 1
    store.settle()
    store.apply_delta(delta("n", uid="n", member_version="1", labels=A), 6, 6)
    store.settle()
    store.apply_delta(delta("n", type=MODIFIED, uid="n", uid_index=6, member_version="2", labels=B), 7, 7)
    assert told_past(store, 6) == [(7, DELETED)]
    assert store.window.doubtful == 1
