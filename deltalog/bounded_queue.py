"""Messages that were read and wait for their consumer: bounded by asking the reader to stop, never by dropping."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

READ_AHEAD = 4096
"""Messages that may wait before a reader is asked to stop."""
_READ_AHEAD_BYTES = 16 * 1024 * 1024


class BoundedQueue(Generic[T]):
    """A queue from a reader's callback to one consuming task; `pause` and `resume` are the reader's.

    At `limit` items or `limit_bytes` the reader is paused, at half of both it is resumed. What the server had already
    sent when it was paused still comes, so that the queue may exceed its limits by that (`Reader.pause`). Example: with
    `limit=8`, the reader is paused by the eighth item and resumed when the fourth has been taken.
    """

    def __init__(
        self,
        pause: Callable[[], None],
        resume: Callable[[], None],
        *,
        limit: int = READ_AHEAD,
        limit_bytes: int = _READ_AHEAD_BYTES,
    ) -> None:
        self.paused = False
        self._pause = pause
        self._resume = resume
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T, size: int) -> None:
        """Adds an item of `size` bytes."""
        self._items.append((item, size))
        self._size += size
        if not self.paused and (len(self._items) >= self._limit or self._size >= self._limit_bytes):
            self.paused = True
            self._pause()
        self._woken.set()

    def wake(self) -> None:
        """Has `wait` return though nothing came."""
        self._woken.set()

    async def wait(self) -> None:
        """Returns when there is an item, or after `wake`."""
        if not self._items:
            self._woken.clear()
            await self._woken.wait()

    def take(self) -> T:
        """The oldest item. Raises IndexError if there is none."""
        item, size = self._items.popleft()
        self._size -= size
        if self.paused and len(self._items) <= self._limit // 2 and self._size <= self._limit_bytes // 2:
            self.paused = False
            self._resume()
        return item
