"""Bodies packed in place: whenever that happens, and whatever dictionaries there are, they are the log's bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from deltalog.wire.delta import DELETED, MODIFIED, Delta
from deltalog.wire.kubernetes import GroupResource, newer
from materializer import reading
from materializer.bodies import CorruptFrame, Packing
from materializer.entry import Entry, entry_of
from materializer.filter import Filter
from materializer.plain import packed
from materializer.record import is_newer, with_body
from materializer.store import Store
from materializer.window import WINDOW_BYTES, weight_of
from tests.materializer.renewing import Renewing
from tests.materializer.test_model import World, feed, warm_store

PODS = GroupResource("", "pods")
Make = Callable[..., Any]


def pod(delta: Make, number: int, version: int = 0) -> Delta:
    """A pod like others, of some 3 KB."""
    chance = random.Random(number)
    containers = ",".join(
        f'{{"name":"c{at}","image":"registry.example.io/team/app:{chance.randrange(9)}","env":"{chance.getrandbits(64):x}",'
        f'"resources":{{"requests":{{"cpu":"{chance.randrange(1000)}m"}}}},"terminationMessagePolicy":"File"}}'
        for at in range(16)
    )
    made: Delta = delta(
        f"web-{number}",
        type=MODIFIED if version else "ADDED",
        uid=f"u{number}",
        uid_index=number + 1 if version else 0,
        member_version=str(1000 * version + number + 1),
        fields={"status.phase": "Running"},
    )
    status = f',"status":{{"version":{version},"containers":[{containers}]}}}}'
    return msgspec.structs.replace(made, object=made.object[:-1] + status.encode())


@pytest.fixture
def store() -> Store:
    store = Store("h", 1000, WINDOW_BYTES, Packing())
    store.finish_loading(0)
    return store


def bodies(store: Store) -> dict[str, bytes]:
    return {entry.name: entry.body for entry in store.types[PODS].select(Filter())}


def states(store: Store) -> Iterator[Entry]:
    for type_store in store.types.values():
        yield from type_store.live()
        yield from (one for one in type_store.order.after(0) if isinstance(one, Entry))
        for event in type_store.events.after(0):
            yield from (one for one in (event.item, event.before, *event.removed) if isinstance(one, Entry))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("window", [0, 20_000, 1 << 30])
def test_every_state_is_the_logs_bytes(seed: int, window: int, delta: Make, control: Make) -> None:
    world = World(seed, delta, control)
    store = warm_store(window)
    for _ in range(600):
        feed(store, world.step())
    store.check()
    assert isinstance(store.packing, Renewing)
    assert store.packing.renewed > 10
    written = {message.index: message.record for message in world.sent if isinstance(message.record, Delta)}
    in_frames = 0
    for entry in states(store):
        made = written.get(entry.index)
        if made is None or not made.final:
            continue
        in_frames += entry.dictionary is not None
        assert entry.rest == made.object[made.version_offset :]
        assert (entry.uid, entry.member_version, entry.created) == (made.uid, made.member_version, made.created)
        if made.type != DELETED:
            assert (dict(entry.labels), entry.fields) == (made.labels, made.fields)
    assert in_frames >= 10


def test_what_is_held_and_what_is_read(store: Store, delta: Make) -> None:
    for number in range(400):
        store.apply_delta(pod(delta, number), number + 1, number)
    type_store = store.types[PODS]
    plain, before = type_store.held, bodies(store)
    size = store.plain.size
    assert (type_store.saved, size, len(store.plain)) == (0, plain, 400)
    store.pack(size // 2)
    assert size // 2 - 1_100_000 < store.plain.size <= size // 2
    store.pack()
    assert (store.plain.size, len(store.plain), type_store.held + type_store.saved) == (0, 0, plain)
    assert type_store.held < plain / 3
    assert bodies(store) == before
    for number in range(400, 600):
        store.apply_delta(pod(delta, number), number + 1, number)
    entries = type_store.select(Filter())
    assert {entry.dictionary for entry in entries} == {None, store.packing and store.packing.present(PODS)}
    some = random.Random(1).sample(entries, 100)
    assert reading.rests(some) == [entry.rest for entry in some]
    assert reading.contents(some) == [entry.content for entry in some]
    assert reading.size(some) == sum(map(len, reading.contents(some)))
    assert reading.rests([]) == []
    store.check()


def test_the_window_counts_what_is_held(store: Store, delta: Make) -> None:
    for version in range(3):
        for number in range(100):
            store.apply_delta(pod(delta, number, version), 100 * version + number + 1, number)
    plain = store.window.size
    store.pack()
    assert store.window.size < plain / 2
    events = list(store.types[PODS].events.after(0))
    assert [event.fresh for event in events] == [True] * 100 + [False] * 200
    assert store.window.size == sum(event.weight for event in events)
    store.window.resize(store.window.size // 2)
    assert store.window.size == sum(event.weight for event in store.types[PODS].events.after(0))
    store.check()


def test_the_window_counts_what_a_thread_packs_while_more_is_packed_beside_it(store: Store, delta: Make) -> None:
    """The thread does not keep up, so newer bodies are packed before the older ones that it has."""
    assert store.packing is not None
    for version in range(3):
        for number in range(200):
            store.apply_delta(pod(delta, number, version), 200 * version + number + 1, number)
    batch = store.take_plain()
    store.pack(train=False)
    store.settle_packed(packed(store.packing, batch))
    events = store.types[PODS].events.after(0)
    assert store.window.size == sum(
        event.weight if event.fresh else weight_of(event.item, event.before, event.removed) for event in events
    )
    store.check()


def test_a_body_that_cannot_be_read_ends_no_training_for_good(store: Store, delta: Make) -> None:
    """It may have been mapped, and its disk have changed it: the instance goes on, and packs what comes."""
    assert store.packing is not None
    for number in range(100):
        store.apply_delta(pod(delta, number), number + 1, number)
    store.pack()
    entry = next(store.types[PODS].live())
    rest = entry.rest
    entry.record = with_body(entry.record, b"not a frame")
    with pytest.raises(CorruptFrame):
        _ = entry.rest
    before = store.packing.present(PODS)
    for number in range(100, 2000):
        store.apply_delta(pod(delta, number), number + 1, number)
    store.pack()
    assert store.packing.present(PODS) is before
    entry.record, entry.dictionary = with_body(entry.record, rest), None
    assert len(bodies(store)) == 2000


def test_what_is_not_packed_in_the_end_is_given_back(store: Store, delta: Make) -> None:
    for number in range(10):
        store.apply_delta(pod(delta, number), number + 1, number)
    size = store.plain.size
    taken, objects, _ = store.take_plain()
    assert ([entry.index for entry, _ in taken], objects, store.plain.size) == ([*range(1, 11)], {PODS: 10}, 0)
    store.plain.give_back(taken[3:])
    store.plain.give_back(taken[:3])
    assert (store.plain.size, [entry.index for entry, _ in store.plain.take()]) == (size, [*range(1, 11)])


def test_tombstones_of_a_removal_hold_their_bodies_as_the_objects_did(store: Store, delta: Make, control: Make) -> None:
    for number in range(400):
        store.apply_delta(pod(delta, number), number + 1, number)
    store.pack()
    before = {entry.name: (entry.rest, entry.dictionary) for entry in store.types[PODS].live()}
    store.apply_control(control("removed", "alpha"), 500, 500)
    assert store.plain.size == 0
    dead = list(store.types[PODS].dead())
    assert {entry.name: (entry.rest, entry.dictionary) for entry in dead} == before
    assert (store.types[PODS].held, store.types[PODS].saved) == (0, 0)
    store.check()


def test_a_type_without_objects_is_packed_anew_when_it_comes_again(store: Store, delta: Make, control: Make) -> None:
    assert store.packing is not None
    for number in range(400):
        store.apply_delta(pod(delta, number), number + 1, number)
    store.pack()
    before = store.packing.present(PODS)
    assert before is not None
    store.apply_control(control("removed", "alpha"), 500, 500)
    assert store.packing.present(PODS) is None
    assert {entry.dictionary for entry in store.types[PODS].dead()} == {before}
    assert all(entry.rest for entry in store.types[PODS].dead())


def test_versions_are_compared_in_records_as_they_are_anywhere(delta: Make) -> None:
    versions = ("", "0", "9", "10", "09", "a", "10a", "\u0661", "\u00b2", "9" * 30)
    for than in versions:
        record = entry_of(delta("one", member_version=than), 1, 0, "h").record
        for version in versions:
            assert is_newer(version, record) == newer(version, than)
