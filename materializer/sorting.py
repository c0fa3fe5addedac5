"""Sorting in steps of some milliseconds, between which others can have their turn."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

STEP = 4096
"""So many entries are looked at in a step."""

_T = TypeVar("_T")
# Where items stand in the list that is sorted: pairs with their keys would be garbage that Python's collector looks at.
_Run = list[int]
_KeyOf = Callable[[int], Any]


def sorted_in_steps(items: list[_T], key: Callable[[_T], Any]) -> Iterator[list[_T]]:
    """The items sorted by a key, equal ones in the order they had; what is yielded last is the result.

    Runs are sorted one by one, then merged in pairs, in steps too: of two runs in a row, Python's sort makes one by
    looking at each item once. O(n log n).
    """
    keys: list[Any] = []
    runs: list[_Run] = []
    for begin in range(0, len(items), STEP):
        keys += map(key, items[begin : begin + STEP])
        runs.append(sorted(range(begin, len(keys)), key=keys.__getitem__))
        yield []
    while len(runs) > 1:
        merged = []
        for at in range(0, len(runs) - 1, 2):
            both: _Run = []
            for _ in _merge(runs[at], runs[at + 1], both, keys.__getitem__):
                yield []
            merged.append(both)
        runs = merged + (runs[-1:] if len(runs) % 2 else [])
    yield [items[at] for at in runs[0]] if runs else []


def _merge(one: _Run, other: _Run, both: _Run, key: _KeyOf) -> Iterator[None]:
    """Adds two sorted runs to `both`: at a time what, of the next items of each, is before the end of the other's."""
    at, beside = 0, 0
    while at < len(one) and beside < len(other):
        first, second = min(at + STEP, len(one)), min(beside + STEP, len(other))
        last, last_beside = key(one[first - 1]), key(other[second - 1])
        if last_beside < last:
            first = bisect_right(one, last_beside, at, first, key=key)
        else:
            # What is equal there comes behind all that is equal here.
            second = bisect_left(other, last, beside, second, key=key)
        part = one[at:first] + other[beside:second]
        part.sort(key=key)
        both += part
        at, beside = first, second
        yield
    both += one[at:] + other[beside:]
    yield
