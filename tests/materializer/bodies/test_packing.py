"""Packing: which types get a dictionary, when another, and what that may take."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

from deltalog.wire.kubernetes import GroupResource
from materializer.bodies import ALONE, AtRest, Dictionary, Packing, Wanted
from tests.materializer.bodies.content import noise, orders, telescopes

ORDERS = GroupResource("shop.example.io", "orders")
OTHERS = GroupResource("other.example.io", "others")


def take(packing: Packing, key: GroupResource, bodies: Sequence[bytes], objects: int | None = None) -> list[AtRest]:
    taken = packing.take([(key, body) for body in bodies], None if objects is None else {key: objects})
    assert [rest(held) for held in taken] == list(bodies)
    return taken


def rest(held: AtRest) -> bytes:
    dictionary, frame = held
    return bytes(frame) if dictionary is None else dictionary.unpack_many([frame])[0]


def feed(packing: Packing, make: Callable[[Random, int], list[bytes]], batches: int, seed: int = 0) -> list[AtRest]:
    random = Random(seed)
    return [held for _ in range(batches) for held in take(packing, ORDERS, make(random, 200))]


def test_a_type_with_enough_has_a_dictionary_from_its_first_batch_on() -> None:
    packing = Packing()
    taken = take(packing, ORDERS, orders(Random(1), 300))
    assert {dictionary for dictionary, _ in taken} == {packing.present(ORDERS)}
    assert packing.present(ORDERS) not in (None, ALONE)
    counts = packing.counts()
    assert counts.plain > 3 * counts.held > 0
    assert counts.held == sum(len(frame) for _, frame in taken)
    assert (counts.dictionaries, counts.trainings, counts.refused) == (1, 1, 0)
    assert counts.packing_seconds > 0
    assert counts.training_seconds > 0


def test_a_small_type_has_none() -> None:
    packing = Packing()
    for _ in range(100):
        taken = take(packing, ORDERS, orders(Random(1), 10), objects=10)
    assert {dictionary for dictionary, _ in taken} == {ALONE}
    assert packing.present(ORDERS) is None
    assert packing.counts().training_seconds == 0


def test_types_of_one_batch_are_apart() -> None:
    packing = Packing()
    random = Random(3)
    some, others = orders(random, 200), telescopes(random, 200)
    batch = [pair for both in zip(some, others, strict=True) for pair in ((ORDERS, both[0]), (OTHERS, both[1]))]
    taken = packing.take(batch)
    assert [rest(held) for held in taken] == [body for _, body in batch]
    assert {dictionary for dictionary, _ in taken[::2]} == {packing.present(ORDERS)}
    assert {dictionary for dictionary, _ in taken[1::2]} == {packing.present(OTHERS)}
    assert packing.present(ORDERS) is not packing.present(OTHERS)


def test_what_does_not_get_smaller_is_left_plain() -> None:
    packing = Packing()
    for seed in range(10):
        bodies = noise(Random(seed), 100)
        assert take(packing, ORDERS, bodies) == [(None, body) for body in bodies]
    counts = packing.counts()
    assert packing.present(ORDERS) is None
    assert counts.plain == counts.held
    # Tried at first, and then when it had grown.
    assert counts.refused <= 2


def test_bodies_that_stay_alike_keep_their_dictionary() -> None:
    packing = Packing()
    feed(packing, orders, 22)
    present, trainings = packing.present(ORDERS), packing.counts().trainings
    feed(packing, orders, 40, seed=1)
    assert packing.present(ORDERS) is present
    assert packing.counts().trainings == trainings


def test_bodies_of_another_nature_get_another_dictionary_and_the_old_one_goes() -> None:
    packing = Packing()
    old = feed(packing, orders, 5)
    first = packing.present(ORDERS)
    assert first is not None
    before = packing.counts().trainings
    feed(packing, telescopes, 5)
    second = packing.present(ORDERS)
    assert second is not None
    assert second is not first
    assert packing.counts().trainings == before + 1
    telescope = telescopes(Random(9), 1)[0]
    assert len(second.pack(telescope)) * 2 < len(first.pack(telescope))
    # As long as an entry is under it it is there, and can be read.
    assert any(dictionary is first for dictionary, _ in old)
    assert {rest(held)[:1] for held in old} == {b"{"}
    there = packing.counts().dictionaries
    gone = weakref.ref(first)
    del first, old
    gc.collect()
    assert gone() is None
    assert packing.counts().dictionaries < there


def test_what_no_dictionary_packs_well_leaves_the_old_one() -> None:
    packing = Packing()
    feed(packing, orders, 5)
    first, before = packing.present(ORDERS), packing.counts()
    feed(packing, noise, 40)
    assert packing.present(ORDERS) is first
    counts = packing.counts()
    assert counts.trainings == before.trainings
    # Refusals become rarer, counted in bytes.
    assert 1 <= counts.refused - before.refused <= 4


def test_a_type_that_grows_gets_a_larger_dictionary() -> None:
    packing = Packing()
    feed(packing, lambda random, number: orders(random, number // 2), 1)
    small = packing.present(ORDERS)
    feed(packing, orders, 20)
    large = packing.present(ORDERS)
    assert small is not None
    assert large is not None
    assert len(large.content) > 2 * len(small.content)


def test_on_the_event_loop_nothing_is_trained() -> None:
    packing = Packing()
    bodies = orders(Random(1), 300)
    taken = packing.take([(ORDERS, body) for body in bodies], train=False)
    assert {dictionary for dictionary, _ in taken} == {ALONE}
    assert packing.counts().training_seconds == 0
    # The next thread has what samples there are.
    assert packing.wanted({ORDERS: 300}) == {ORDERS: Wanted(300, newest=False)}
    packing.take([(ORDERS, bodies[0])], {ORDERS: 300}, {ORDERS: taken})
    assert packing.present(ORDERS) is not None


def test_dictionaries_of_many_types_have_a_budget_and_the_largest_gain_has_room() -> None:
    budget = 32 << 10
    packing = Packing(budget)
    for number in range(20):
        take(packing, GroupResource("many.example.io", f"type{number}"), orders(Random(number), 60))
    used = packing.counts().dictionary_bytes
    assert 0 < used <= budget
    assert packing.counts().refused > 0
    take(packing, ORDERS, orders(Random(99), 1500))
    assert packing.present(ORDERS) is not None
    assert used < packing.counts().dictionary_bytes <= budget


class Shelf:
    """Bodies of a type as a store has them: the newest last, packed in batches once there is so much that is plain."""

    def __init__(self, packing: Packing, plain: int) -> None:
        self.packing = packing
        self.plain = plain
        self.held: list[AtRest] = []
        self.packed = 0

    def put(self, bodies: Sequence[bytes]) -> None:
        self.held.extend((None, body) for body in bodies)
        while len(self.held) - self.packed > self.plain:
            self.pack(200)

    def pack(self, number: int) -> None:
        objects = {ORDERS: len(self.held)}
        samples = {key: self.samples(wanted) for key, wanted in self.packing.wanted(objects).items()}
        batch = [(ORDERS, body) for _, body in self.held[self.packed : self.packed + number]]
        taken = self.packing.take(batch, objects, samples)
        self.held[self.packed : self.packed + number] = taken
        self.packed += number

    def samples(self, wanted: Wanted) -> list[AtRest]:
        if wanted.newest:
            return self.held[-wanted.bodies :]
        return self.held[:: max(len(self.held) // wanted.bodies, 1)][: wanted.bodies]


def test_a_store_that_is_read_in_gets_a_dictionary_of_all_that_is_there() -> None:
    """Of objects that come sorted by their nature, the first batch is no good sample."""
    random = Random(5)
    packing = Packing()
    shelf = Shelf(packing, plain=3000)
    bodies = [*orders(random, 1500), *telescopes(random, 1500), *orders(random, 500)]
    shelf.put(bodies)
    first = packing.present(ORDERS)
    assert first is not None
    assert len(first.content) > 32 << 10
    for make in (orders, telescopes):
        some = make(random, 100)
        assert sum(map(len, first.pack_many(some))) * 2 < sum(map(len, ALONE.pack_many(some)))
    assert [rest(held) for held in shelf.held] == bodies
    assert packing.counts().trainings == 1


def test_the_newest_are_the_samples_when_bodies_change_their_nature() -> None:
    random = Random(6)
    packing = Packing()
    shelf = Shelf(packing, plain=400)
    shelf.put(orders(random, 2000))
    before = packing.present(ORDERS)
    shelf.put(telescopes(random, 2000))
    after = packing.present(ORDERS)
    assert before is not None
    assert after is not None
    telescope = telescopes(random, 1)[0]
    assert len(after.pack(telescope)) * 2 < len(before.pack(telescope))
    # No more than two live at once are needed: what was packed under the first is still read.
    assert [rest(held)[:1] for held in shelf.held] == [b"{"] * 2000 + [b"<"] * 2000


def test_no_samples_are_wanted_of_small_types_and_of_those_that_stay_alike() -> None:
    packing = Packing()
    assert packing.wanted({ORDERS: 31}) == {}
    assert packing.wanted({ORDERS: 500}) == {ORDERS: Wanted(500, newest=False)}
    shelf = Shelf(packing, plain=400)
    shelf.put(orders(Random(7), 2000))
    for seed in range(20):
        assert packing.wanted({ORDERS: 2000}) == {}
        take(packing, ORDERS, orders(Random(seed), 200), objects=2000)
    assert packing.counts().refused == 0


def test_a_dictionary_of_a_snapshot_is_gone_on_with() -> None:
    packing = Packing()
    feed(packing, orders, 3)
    kept = packing.present(ORDERS)
    assert kept is not None
    again = Packing()
    again.adopt(ORDERS, Dictionary(kept.content))
    assert {dictionary for dictionary, _ in feed(again, orders, 3, seed=4)} == {again.present(ORDERS)}
    assert again.counts().trainings == 0
    # It is judged by how it does from now on.
    feed(again, telescopes, 5)
    assert again.counts().trainings == 1


def test_old_dictionaries_of_a_snapshot_count_as_long_as_they_are_referred_to() -> None:
    packing = Packing()
    old = [Dictionary(bytes([number]) * 5000) for number in range(3)]
    packing.count_in(old)
    assert (packing.counts().dictionaries, packing.counts().dictionary_bytes) == (3, 15000)
    del old[1:]
    gc.collect()
    assert (packing.counts().dictionaries, packing.counts().dictionary_bytes) == (1, 5000)


def test_threads_take_at_once() -> None:
    packing = Packing()
    keys = [GroupResource("many.example.io", f"type{number}") for number in range(4)]

    def work(seed: int) -> bool:
        random = Random(seed)
        batch = [(key, body) for key in keys for body in (orders if seed % 2 else telescopes)(random, 80)]
        random.shuffle(batch)
        return [rest(held) for held in packing.take(batch, train=seed % 3 > 0)] == [body for _, body in batch]

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(work, range(24)))
    assert packing.counts().plain > packing.counts().held
    assert all(packing.present(key) is not None for key in keys)


def test_a_type_that_is_gone_is_forgotten_and_its_bodies_are_read() -> None:
    packing = Packing()
    taken = feed(packing, orders, 1)
    packing.forget(ORDERS)
    assert packing.present(ORDERS) is None
    assert rest(taken[0]).startswith(b"{")
