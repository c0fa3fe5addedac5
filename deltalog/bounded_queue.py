"""What was read and waits for its consumer: bounded by asking the reader to stop, never by dropping."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# How much may wait before the reader is asked to stop; it goes on at half of it.
MANY = 4096
LARGE = 16 * 1024 * 1024


class Waiting(Generic[T]):
    """A line from a reader's callback to one consuming task; `pause` and `resume` are the reader's."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.paused = False
        self._pause = pause
        self._resume = resume
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, size: int) -> None:
        """`size` in bytes."""
        self._items.append((item, size))
        self._size += size
        if not self.paused and (len(self._items) >= MANY or self._size >= LARGE):
            self.paused = True
            self._pause()
        self._woken.set()

    def wake(self) -> None:
        """Has `wait` return though nothing came."""
        self._woken.set()

    async def wait(self) -> None:
        """Returns when something is there, or after `wake`."""
        if not self._items:
            self._woken.clear()
            await self._woken.wait()

    def take(self) -> T:
        item, size = self._items.popleft()
        self._size -= size
        if self.paused and len(self._items) <= MANY // 2 and self._size <= LARGE // 2:
            self.paused = False
            self._resume()
        return item
