"""How many connections may be coming about at once: a thousand clusters do not begin in the same second."""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import WeakKeyDictionary


class Handshakes:
    """Places for connections that are coming about, in the order in which they are asked for.

    `counted`: seconds after which one counts no more. A handshake costs time here while both sides calculate; one that
    waits for its server costs none, so servers that do not answer hold up no others.
    """

    def __init__(self, at_once: int = 32, counted: float = 2.0) -> None:
        self._free = at_once
        self._counted = counted
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def begin(self) -> Handshake:
        """Waits for a place."""
        loop = asyncio.get_running_loop()
        if self._free > 0:
            self._free -= 1
        else:
            place: asyncio.Future[None] = loop.create_future()
            self._waiting.append(place)
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self.end()
                raise
        return Handshake(self, loop, self._counted)

    def end(self) -> None:
        """Gives a place to the next one."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


class Handshake:
    """One place; it is given back once, by who has it or by time."""

    __slots__ = ("_of", "_timer")

    def __init__(self, of: Handshakes, loop: asyncio.AbstractEventLoop, counted: float) -> None:
        self._of: Handshakes | None = of
        self._timer = loop.call_later(counted, self.end)

    def end(self) -> None:
        """Gives it back."""
        of, self._of = self._of, None
        if of is not None:
            self._timer.cancel()
            of.end()


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Handshakes] = WeakKeyDictionary()


def handshakes_of_process() -> Handshakes:
    """The places of all connections that the running event loop makes."""
    return _of_loops.setdefault(asyncio.get_running_loop(), Handshakes())
