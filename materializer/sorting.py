"""Sorting in steps of some milliseconds, between which others can have their turn."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

STEP = 4096
"""So many entries are looked at in a step."""

_T = TypeVar("_T")
# Keys, and where what has them stood.
_Run = list[tuple[Any, int]]


def sorted_in_steps(items: list[_T], key: Callable[[_T], Any]) -> Iterator[list[_T]]:
    """The items sorted by a key, equal ones in the order they had; what is yielded last is the result.

    Runs are sorted one by one, then merged in pairs, in steps too: of two runs in a row, Python's sort makes one by
    looking at each item once. O(n log n).
    """
    runs: list[_Run] = []
    for begin in range(0, len(items), STEP):
        run = [(key(item), at) for at, item in enumerate(items[begin : begin + STEP], begin)]
        run.sort()
        runs.append(run)
        yield []
    while len(runs) > 1:
        merged = []
        for at in range(0, len(runs) - 1, 2):
            both: _Run = []
            for _ in _merge(runs[at], runs[at + 1], both):
                yield []
            merged.append(both)
        runs = merged + (runs[-1:] if len(runs) % 2 else [])
    yield [items[at] for _, at in runs[0]] if runs else []


def _merge(one: _Run, other: _Run, both: _Run) -> Iterator[None]:
    """Adds two sorted runs to one, a part of the first and what comes before its end at a time."""
    begun = 0
    for begin in range(0, len(one), STEP):
        end = begin + STEP
        upto = bisect_left(other, one[end], begun) if end < len(one) else len(other)
        part = one[begin:end] + other[begun:upto]
        part.sort()
        both += part
        begun = upto
        yield
