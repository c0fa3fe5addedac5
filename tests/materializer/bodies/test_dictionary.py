"""Dictionary: frames give back exactly what was packed, in any thread; dictionaries go when they are not needed."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializer.bodies import ALONE, CorruptFrame, Dictionary
from materializer.bodies.training import train_candidate
from tests.materializer.bodies.content import orders

TRAINING = orders(Random(1), 400)


def trained() -> Dictionary:
    candidate = train_candidate(ALONE, TRAINING, 1 << 30, newest=False)
    assert candidate is not None
    return candidate.dictionary


UNDER_ORDERS = trained()


@given(st.lists(st.binary(max_size=3000)), st.sampled_from([ALONE, UNDER_ORDERS]))
def test_any_bytes_come_back(bodies: list[bytes], dictionary: Dictionary) -> None:
    assert dictionary.unpack_many(dictionary.pack_many(bodies)) == bodies


@given(st.binary(max_size=2000), st.integers(1, 400))
def test_one_body_at_a_time_as_many_at_once(body: bytes, times: int) -> None:
    body *= times
    for dictionary in (ALONE, UNDER_ORDERS):
        frame = dictionary.pack(body)
        assert [frame] == dictionary.pack_many([body])
        assert dictionary.unpack(frame) == body


def test_bodies_like_those_it_was_trained_from_are_small() -> None:
    bodies = orders(Random(2), 100)
    under, alone = UNDER_ORDERS.pack_many(bodies), ALONE.pack_many(bodies)
    assert sum(map(len, under)) * 3 < sum(map(len, alone)) < sum(map(len, bodies))
    assert UNDER_ORDERS.unpack_many(under) == ALONE.unpack_many(alone) == bodies


def test_one_with_the_same_content_reads_the_frames() -> None:
    again = Dictionary(UNDER_ORDERS.content)
    assert again.id == UNDER_ORDERS.id != ALONE.id
    assert again.unpack(UNDER_ORDERS.pack(TRAINING[0])) == TRAINING[0]
    assert again.pack(TRAINING[0]) == UNDER_ORDERS.pack(TRAINING[0])


def test_what_is_no_frame_is_refused_and_the_next_is_read() -> None:
    frame = UNDER_ORDERS.pack(TRAINING[0])
    for wrong in (b"", b"\xff" * 40, frame[:-1], frame[: len(frame) // 2]):
        with pytest.raises(CorruptFrame):
            UNDER_ORDERS.unpack(wrong)
        assert UNDER_ORDERS.unpack(frame) == TRAINING[0]


@pytest.mark.parametrize("dictionary", [ALONE, UNDER_ORDERS])
def test_beside_the_loop_the_same_is_read_and_refused(dictionary: Dictionary) -> None:
    bodies = [*orders(Random(3), 50), b"x"]
    frames, sizes = dictionary.pack_many(bodies), [len(body) for body in bodies]
    assert dictionary.unpack_apart(frames, sizes) == bodies
    for wrong in (b"\xff" * 40, frames[7][:-1]):
        with pytest.raises(CorruptFrame):
            dictionary.unpack_apart([*frames[:7], wrong], sizes[:8])
    with pytest.raises(CorruptFrame):
        dictionary.unpack_apart(frames[:2], [sizes[0], sizes[1] + 1])


def test_threads_use_it_at_once() -> None:
    dictionary = Dictionary(UNDER_ORDERS.content)

    def round_trips(seed: int) -> bool:
        bodies = orders(Random(seed), 60)
        return all(dictionary.unpack_many(dictionary.pack_many(bodies)) == bodies for _ in range(10))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(round_trips, range(40)))


def test_more_than_there_is_room_to_work_with_at_once() -> None:
    many = [Dictionary(UNDER_ORDERS.content) for _ in range(200)]

    def round_trips(seed: int) -> bool:
        random = Random(seed)
        bodies = random.sample(TRAINING, 20)
        frames = [(dictionary := random.choice(many), dictionary.pack(body)) for body in bodies]
        return [dictionary.unpack(frame) for dictionary, frame in frames] == bodies

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(round_trips, range(60)))
    assert 0 < sum(dictionary._packing is not None for dictionary in many) < 100
    assert 0 < sum(dictionary._reading is not None for dictionary in many) < 150


def test_one_that_is_not_referred_to_is_freed() -> None:
    dictionary = Dictionary(UNDER_ORDERS.content)
    dictionary.pack(b"{}")
    gone = weakref.ref(dictionary)
    del dictionary
    gc.collect()
    assert gone() is None
