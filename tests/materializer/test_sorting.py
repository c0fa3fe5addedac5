"""Sorting in steps: as Python sorts at one go, and stable."""

from __future__ import annotations

import random

import pytest

from materializer.sorting import STEP, sorted_in_steps


@pytest.mark.parametrize("number", [0, 1, STEP, STEP + 1, 5 * STEP + 7])
@pytest.mark.parametrize("spread", [1, 100, 10**9])
def test_as_at_one_go(number: int, spread: int) -> None:
    draw = random.Random(number)
    items = [(draw.randrange(spread), at) for at in range(number)]
    steps = list(sorted_in_steps(items, lambda item: item[0]))
    assert steps[-1] == sorted(items, key=lambda item: item[0])
    # As many as others may have a turn between.
    assert len(steps) >= max(number // STEP, 1)


def test_what_is_sorted_stays_so() -> None:
    items = list(range(3 * STEP))
    for given in (items, items[::-1]):
        *_, found = sorted_in_steps(given, lambda item: item)
        assert found == items
