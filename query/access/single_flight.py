"""Single flight: what several ask for at the same time is done once, and goes on when one of them leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class SingleFlight(Generic[Result]):
    """Work by key, at most one for each at a time. Who makes it ends it with `close`."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Result]] = {}

    def __len__(self) -> int:
        """How much is being done."""
        return len(self._running)

    async def run(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """The result of the key's work, which begins unless it goes on. Raises what the work raises."""
        return await asyncio.shield(self.start(key, work))

    def start(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, Result]]) -> asyncio.Task[Result]:
        """Begins the key's work unless it goes on, and does not wait for it. What it raises may be left alone."""
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.create_task(work())
            running.add_done_callback(lambda done: self._end(key, done))
        return running

    def _end(self, key: Hashable, done: asyncio.Task[Result]) -> None:
        del self._running[key]
        if not done.cancelled():
            # Looked at, so that asyncio does not report it where those who waited have left.
            done.exception()

    async def close(self) -> None:
        """Cancels what goes on, and waits until that has ended."""
        running = list(self._running.values())
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
