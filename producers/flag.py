"""A flag that tasks wait for: `asyncio.Event` for what there are very many of."""

from __future__ import annotations

import asyncio
from typing import Literal


class Flag:
    """As `asyncio.Event`, in 48 bytes instead of 830 while no one waits. Belongs to one event loop."""

    __slots__ = ("_set", "_waiting")

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def set(self) -> None:
        """Wakes all who wait."""
        self._set = True
        waiting, self._waiting = self._waiting, None
        for one in waiting or ():
            if not one.done():
                one.set_result(None)

    def clear(self) -> None:
        """From now on who asks waits for the next `set`."""
        self._set = False

    async def wait(self) -> Literal[True]:
        """Returns once it is set, if only for a moment."""
        if self._set:
            return True
        if self._waiting is None:
            self._waiting = []
        one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(one)
        try:
            await one
        finally:
            if self._waiting is not None and one in self._waiting:
                self._waiting.remove(one)
                if not self._waiting:
                    self._waiting = None
        return True
