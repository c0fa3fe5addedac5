"""How much may be coming about at once: connections of a process, requests of a connection."""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import WeakKeyDictionary


class Turns:
    """Turns for what is coming about, taken in the order in which they are asked for.

    `counted`: seconds after which one counts no more: what waits for a server for so long costs nothing here, and must
    not hold up what is for others. A handshake, for example, takes a processor's time while both sides calculate.
    """

    def __init__(self, at_once: int = 32, counted: float = 2.0) -> None:
        self._free = at_once
        self._counted = counted
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def begin(self) -> Turn:
        """Waits for a turn."""
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
        return Turn(self, loop, self._counted)

    def end(self) -> None:
        """Gives a turn to the next one."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


class Turn:
    """One turn; it is given back once, by who has it or by time."""

    __slots__ = ("_of", "_timer")

    def __init__(self, of: Turns, loop: asyncio.AbstractEventLoop, counted: float) -> None:
        self._of: Turns | None = of
        self._timer = loop.call_later(counted, self.end)

    def end(self) -> None:
        """Gives it back."""
        of, self._of = self._of, None
        if of is not None:
            self._timer.cancel()
            of.end()


_handshakes: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()
_beginnings: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()
# Lists that begin together: each takes some tenths of a millisecond of a turn of the loop, and all else waits for it.
_LISTS = 128


def handshakes_of_process() -> Turns:
    """The turns of all connections that the running event loop makes."""
    return _handshakes.setdefault(asyncio.get_running_loop(), Turns())


def beginnings_of_process() -> Turns:
    """The turns of all lists that begin in the running event loop."""
    return _beginnings.setdefault(asyncio.get_running_loop(), Turns(_LISTS))
