"""Packing: which types get a dictionary, when another, and what that may take."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random

from deltalog.wire.kubernetes import GroupResource
from materializer.bodies import ALONE, Dictionary, Packing
from tests.materializer.bodies.content import noise, orders, telescopes

ORDERS = GroupResource("shop.example.io", "orders")
OTHERS = GroupResource("other.example.io", "others")

Taken = list[tuple[Dictionary | None, bytes]]


def take(packing: Packing, key: GroupResource, bodies: Sequence[bytes], objects: int | None = None) -> Taken:
    taken = packing.take([(key, body) for body in bodies], None if objects is None else {key: objects})
    assert [rest(held) for held in taken] == list(bodies)
    return taken


def rest(held: tuple[Dictionary | None, bytes]) -> bytes:
    dictionary, frame = held
    return frame if dictionary is None else dictionary.unpack(frame)


def feed(packing: Packing, make: Callable[[Random, int], list[bytes]], batches: int, seed: int = 0) -> Taken:
    random = Random(seed)
    return [held for _ in range(batches) for held in take(packing, ORDERS, make(random, 200))]


def test_a_type_with_enough_has_a_dictionary_from_its_first_batch_on() -> None:
    packing = Packing()
    taken = take(packing, ORDERS, orders(Random(1), 300))
    assert {dictionary for dictionary, _ in taken} == {packing.present(ORDERS)}
    assert packing.present(ORDERS) not in (None, ALONE)
    counts = packing.counts()
    assert counts.plain[ORDERS] > 3 * counts.held[ORDERS] > 0
    assert counts.held[ORDERS] == sum(len(frame) for _, frame in taken)
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
    assert packing.counts().dictionaries == 2
    assert [rest(held)[:8] for held in old] == [b'{"name":'] * len(old) or rest(old[0]).startswith(b"{")
    gone = weakref.ref(first)
    del first, old
    gc.collect()
    assert gone() is None
    assert packing.counts().dictionaries == 1


def test_what_no_dictionary_packs_well_leaves_the_old_one() -> None:
    packing = Packing()
    feed(packing, orders, 5)
    first = packing.present(ORDERS)
    feed(packing, noise, 40)
    assert packing.present(ORDERS) is first
    counts = packing.counts()
    assert counts.trainings == 1
    # Refusals become rarer, counted in bytes.
    assert 1 <= counts.refused <= 3


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
    # What came then is sample enough for the next thread.
    take(packing, ORDERS, bodies[:1])
    assert packing.present(ORDERS) is not None


def test_dictionaries_of_many_types_have_a_budget_and_the_largest_gain_has_room() -> None:
    budget = 32 << 10
    packing = Packing(dictionary_budget=budget)
    for number in range(20):
        take(packing, GroupResource("many.example.io", f"type{number}"), orders(Random(number), 60))
    used = packing.counts().dictionary_bytes
    assert 0 < used <= budget
    assert packing.counts().refused > 0
    take(packing, ORDERS, orders(Random(99), 1500))
    assert packing.present(ORDERS) is not None
    assert used < packing.counts().dictionary_bytes <= budget


def test_samples_have_a_budget() -> None:
    packing = Packing(sample_budget=256 << 10)
    for number in range(30):
        key = GroupResource("many.example.io", f"type{number}")
        packing.take([(key, body) for body in orders(Random(number), 100)], train=False)
        assert 0 < packing._sampled() <= 256 << 10
    # Those that wait longest make way for what comes: each has enough when it comes again.
    take(packing, key, orders(Random(1), 100))
    assert packing.present(key) is not None


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


def test_threads_take_at_once() -> None:
    packing = Packing()
    keys = [GroupResource("many.example.io", f"type{number}") for number in range(4)]

    def work(seed: int) -> bool:
        random = Random(seed)
        batch = [(key, body) for key in keys for body in (orders if seed % 2 else telescopes)(random, 40)]
        random.shuffle(batch)
        return [rest(held) for held in packing.take(batch, train=seed % 3 > 0)] == [body for _, body in batch]

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(work, range(40)))
    counts = packing.counts()
    assert set(counts.plain) == set(keys)
    assert all(packing.present(key) is not None for key in keys)


def test_a_type_that_is_gone_is_forgotten_and_its_bodies_are_read() -> None:
    packing = Packing()
    taken = feed(packing, orders, 1)
    packing.forget(ORDERS)
    assert packing.present(ORDERS) is None
    assert packing.counts().plain == {}
    assert rest(taken[0]).startswith(b"{")
