"""The order of one type by index: what is appended, discarded, read; and that holes do not accumulate."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from materializer.entry import Entry, entry_of
from materializer.order import Order, Removal

Make = Callable[..., Any]


@pytest.fixture
def entry(delta: Make) -> Callable[[int], Entry]:
    return lambda index: entry_of(delta(f"n{index}"), index, 0, "h")


def indexes_after(order: Order, index: int) -> list[int]:
    return [item.index for item in order.after(index)]


def test_an_empty_order() -> None:
    order = Order()
    assert order.last() == 0
    assert indexes_after(order, 0) == []
    order.discard(7)
    assert order.holes == 0


def test_what_is_after_an_index(entry: Make) -> None:
    order = Order()
    for index in (2, 5, 9):
        order.append(index, Removal(index, {}) if index == 5 else entry(index))
    assert [indexes_after(order, index) for index in (0, 1, 2, 4, 5, 8, 9, 10)] == [
        *([2, 5, 9], [2, 5, 9], [5, 9], [5, 9]),
        *([9], [9], [], []),
    ]
    assert order.last() == 9


def test_discarding_leaves_a_hole_that_is_passed_over(entry: Make) -> None:
    order = Order()
    for index in (2, 5, 9):
        order.append(index, entry(index))
    for missing in (1, 3, 10):
        order.discard(missing)
    assert order.holes == 0
    order.discard(5)
    assert (order.holes, indexes_after(order, 0)) == (1, [2, 9])
    # Once only, and the first and the last as well.
    order.discard(5)
    assert order.holes == 1
    order.discard(2)
    order.discard(9)
    assert (order.holes, indexes_after(order, 0), order.last()) == (3, [], 9)


def test_holes_are_closed_when_they_are_many_and_the_majority(entry: Make) -> None:
    order = Order()
    for index in range(1, 2048):
        order.append(index, entry(index))
    # The majority of few are kept.
    for index in range(1, 1025):
        order.discard(index)
    assert (order.holes, len(order.items)) == (1024, 2047)
    order.discard(1025)
    assert (order.holes, len(order.items), len(order.indexes)) == (0, 1022, 1022)
    assert indexes_after(order, 0) == list(range(1026, 2048))
    assert indexes_after(order, 1500) == list(range(1501, 2048))
    # Many that are no majority are kept; exactly half is none.
    for index in range(2048, 5000):
        order.append(index, entry(index))
    for index in range(1026, 1026 + 1987):
        order.discard(index)
    assert (order.holes, len(order.items)) == (1987, 3974)
    order.discard(1026 + 1987)
    assert (order.holes, len(order.items)) == (0, 1986)


@pytest.mark.parametrize("seed", range(3))
def test_as_a_plain_dictionary(seed: int, entry: Make) -> None:
    rng = random.Random(seed)
    plain: dict[int, Any] = {}
    order = Order()
    for index in range(1, 6000):
        if rng.random() < 0.6 or not plain:
            plain[index] = entry(index)
            order.append(index, plain[index])
        else:
            gone = rng.choice(list(plain)) if rng.random() < 0.3 else max(plain)
            del plain[gone]
            order.discard(gone)
    assert list(order.after(0)) == list(plain.values())
    assert order.holes == len(order.items) - len(plain)
    assert order.holes <= max(1024, len(order.items) // 2)
