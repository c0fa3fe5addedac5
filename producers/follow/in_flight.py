"""In flight: which of a writer's appends the log has not acknowledged yet, and waiting for them."""

from __future__ import annotations

import asyncio

from deltalog.wire.kubernetes import ObjectKey
from producers.flag import Flag


class InFlight:
    """Counts the appends of one writer. `sent`: how many there were so far.

    Acknowledgements come in the order of the appends, as they are all sent on one connection.
    """

    __slots__ = ("_awaited", "_left", "_objects", "_quiet", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self._left = 0
        self._quiet = Flag()
        self._quiet.set()
        # Objects whose sequence is not known yet, with an event where it is waited for.
        self._objects: dict[ObjectKey, Flag | None] = {}
        self._awaited: list[tuple[int, asyncio.Future[None]]] | None = None

    def begin(self, key: ObjectKey | None) -> None:
        """An append is sent; `key`: the object whose sequence it brings."""
        if key is not None:
            self._objects[key] = None
        self._left += 1
        self.sent += 1
        self._quiet.clear()

    def end(self, key: ObjectKey | None) -> None:
        """An append is acknowledged, or has failed; what came of it is noted already."""
        self._left -= 1
        if not self._left:
            self._quiet.set()
        if self._awaited:
            done = self.sent - self._left
            for awaited in [one for one in self._awaited if one[0] <= done]:
                self._awaited.remove(awaited)
                if not awaited[1].done():
                    awaited[1].set_result(None)
        if key is not None and (pending := self._objects.pop(key, None)) is not None:
            pending.set()

    async def none(self) -> None:
        """Returns when nothing is on its way."""
        await self._quiet.wait()

    async def all_sent(self) -> None:
        """Returns when all that is on its way now is acknowledged, or has failed; later appends do not matter."""
        if self._left:
            arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited = self._awaited or []
            self._awaited.append((self.sent, arrived))
            await arrived

    async def sequence_of(self, key: ObjectKey) -> None:
        """Returns when the append that brings an object's sequence is acknowledged, or has failed."""
        if key in self._objects:
            pending = self._objects[key] = self._objects[key] or Flag()
            await pending.wait()

    def forget_objects(self) -> None:
        """What is known of objects is about to be read again."""
        self._objects.clear()
