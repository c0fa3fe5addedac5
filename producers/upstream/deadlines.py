"""Deadlines of very many, with one timer of the event loop: a watch puts its own off at each event, at no cost."""

from __future__ import annotations

import asyncio
import math
from heapq import heapify, heappop, heappush
from itertools import count

CLOCK = 1e-3
"""How coarse the event loop's clock may be, in seconds: what is so near has passed."""

# So many looks that are passed over are always held.
_DEAD = 64


class Deadline:
    """What something happens to at a time: at `deadline`, by the event loop's clock; infinite: at none.

    To put it off, set it. To give it one, or to bring it forward, call `Deadlines.note` after that. `looked_at`: when
    it is looked at next; for `Deadlines` alone.
    """

    __slots__ = ("deadline", "looked_at")

    def __init__(self) -> None:
        self.deadline = math.inf
        self.looked_at = math.inf

    def passed(self) -> None:
        """The deadline has passed; called once for each. Must not raise."""
        raise NotImplementedError


class Deadlines:
    """Those of one event loop. `note` costs O(log n) where it brings something forward, else O(1).

    Two timers of the loop for each of 20,000 watches, with what these hold, would take 14 MB.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # When one is looked at, a number that no other look has, and it. Of one that was brought forward there are
        # two, of which the later is passed over.
        self._looks: list[tuple[float, int, Deadline]] = []
        self._number = count()
        # How many of them are passed over.
        self._dead = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._looks)

    def note(self, one: Deadline) -> None:
        """A deadline has been set."""
        if one.deadline < one.looked_at:
            if one.looked_at != math.inf:
                self._dead += 1
            one.looked_at = one.deadline
            heappush(self._looks, (one.deadline, next(self._number), one))
            if self._looks[0][2] is one:
                self._wait()

    def forget(self, one: Deadline) -> None:
        """It has no deadline any more, and is not held. O(1), now and then O(n)."""
        one.deadline = math.inf
        if one.looked_at != math.inf:
            one.looked_at = math.inf
            self._dead += 1
        if self._dead > _DEAD and 2 * self._dead > len(self._looks):
            self._looks = [look for look in self._looks if look[0] == look[2].looked_at]
            heapify(self._looks)
            self._dead = 0
            self._wait()

    def close(self) -> None:
        """Nothing is looked at any more."""
        self._looks.clear()
        self._dead = 0
        self._wait()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._looks[0][0], self._look) if self._looks else None

    def _look(self) -> None:
        now = self._loop.time() + CLOCK
        try:
            while self._looks and self._looks[0][0] <= now:
                at, _, one = heappop(self._looks)
                if at != one.looked_at:
                    self._dead -= 1
                    continue
                one.looked_at = math.inf
                if one.deadline <= now:
                    one.deadline = math.inf
                    one.passed()
                else:
                    self.note(one)
        finally:
            self._wait()
