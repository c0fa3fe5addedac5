"""Turns: long work of many requests, one slice of one of them between two turns of the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TypeVar

# About how long a slice takes; the last step of one may take longer.
_SLICE_SECONDS = 0.005
_T = TypeVar("_T")


def at_once(steps: Iterable[_T]) -> _T | None:
    """Runs few steps to their end; returns what the last one yields, None if there is none."""
    last: _T | None = None
    for last in steps:  # noqa: B007  # it is the result
        pass
    return last


async def in_slices(turns: asyncio.Lock, steps: Iterable[_T]) -> _T | None:
    """Runs steps of some milliseconds each to their end; returns what the last one yields, None if there is none.

    `turns`: the lock that all who do so share, so that the loop serves others between any two slices.
    """
    remaining = iter(steps)
    last: _T | None = None
    while True:
        async with turns:
            until = time.perf_counter() + _SLICE_SECONDS
            for last in remaining:  # noqa: B007  # it is the result
                if time.perf_counter() >= until:
                    break
            else:
                return last
            await asyncio.sleep(0)
