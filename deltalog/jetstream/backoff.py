"""Backoff: pauses between attempts that grow and are spread, and each reason said once while it lasts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable


class Backoff:
    """Pauses that double from `first` to at most `last` seconds, each spread by `jitter` of itself in both directions.

    Owned by the task that waits. Example: `Backoff(0.5, 10.0)` pauses for about 0.5, 1, 2, 4, 8, 10, 10 seconds, the
    first of them between 0.25 and 0.75. (client-go's wait.Backoff has the same parameters.)
    """

    __slots__ = ("_jitter", "_next", "first", "last")

    def __init__(self, first: float, last: float, *, jitter: float = 0.5) -> None:
        self.first = first
        self.last = last
        self._jitter = jitter
        self._next = first

    def pause(self) -> float:
        """The next pause in seconds; the one after it is twice as long."""
        now, self._next = self._next, min(self._next * 2, self.last)
        return now * random.uniform(1 - self._jitter, 1 + self._jitter)

    async def wait(self) -> None:
        """Sleeps for the next pause."""
        await asyncio.sleep(self.pause())

    def reset(self) -> None:
        """What was attempted has succeeded: the next pause is `first` again."""
        self._next = self.first


class Once:
    """Hands a reason on where it differs from the last one: what fails again and again for one reason is said once.

    Example: `Once(lambda reason: log.warning("the log cannot be read", reason=reason))`, then call it with each failure
    and `clear()` after a success.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.last = ""
        self._say = say

    def __call__(self, reason: object) -> None:
        text = str(reason)
        if text != self.last:
            self.last = text
            self._say(text)

    def clear(self) -> None:
        """Forgets the last reason, after a success: the next one is said even if it is the same."""
        self.last = ""
