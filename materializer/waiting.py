"""Waiting: for an index, for a control record, for changes of a type.

Waking is for each turn of the event loop, not for each message. Listeners, which are mostly watches, rest between two
wakings for about the time that the first one took, so that what changes meanwhile goes out together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from deltalog.wire.kubernetes import GroupResource
from materializer.errors import MaterializerError
from materializer.served import Served
from materializer.timing import Timing


class NotThereYet(MaterializerError):
    """The index asked for was not applied within the time allowed."""


class Waiting:
    """Everyone who waits for something to happen in the store that is served."""

    def __init__(self, served: Served, timing: Timing) -> None:
        self._served = served
        self._timing = timing
        self._listeners: dict[GroupResource, set[Callable[[], None]]] = {}
        self._for_index: set[tuple[int, asyncio.Future[None]]] = set()
        # Whether `flush` is due in this turn of the event loop.
        self.flush_due = False
        # When listeners may be woken again (time.perf_counter), and what will wake them then.
        self._rested_at = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._controls = (0, 0)
        self._catalogue = (0, 0)
        self._control_event = asyncio.Event()

    # -- those who wait --------------------------------------------------------------------------------------------

    async def applied(self, index: int, timeout: float | None) -> None:
        """Returns once `index` is applied; `timeout` in seconds, None: none.

        Raises:
            NotThereYet: it is not within the time.
        """
        if self._served.store.applied >= index:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = (index, future)
        self._for_index.add(waiting)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise NotThereYet(f"index {index} is not here; the last one is {self._served.store.applied}") from None
        finally:
            self._for_index.discard(waiting)

    async def control(self) -> None:
        """Returns at the next control record, or when the log was replayed."""
        if self._served.ready.is_set():
            await self._control_event.wait()
        else:
            await self._served.ready.wait()

    def listen(self, key: GroupResource, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` after changes of a type; returns what ends that.

        Also when any type comes, changes or goes, and when the history changes.
        """
        listeners = self._listeners.setdefault(key, set())
        listeners.add(wake)

        def stop() -> None:
            listeners.discard(wake)
            if not listeners and self._listeners.get(key) is listeners:
                del self._listeners[key]

        return stop

    async def until(self, key: GroupResource, true: Callable[[], bool], timeout: float) -> None:
        """Returns once `true()`, asked again at changes of a type and at control records; `timeout` in seconds.

        Raises:
            NotThereYet: it is not within the time.
        """
        changed = asyncio.Event()
        stop = self.listen(key, changed.set)
        try:
            async with asyncio.timeout(timeout):
                while not true():
                    changed.clear()
                    waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(self.control())]
                    try:
                        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for one in waits:
                            one.cancel()
        except TimeoutError:
            raise NotThereYet("what is waited for has not come") from None
        finally:
            stop()

    # -- waking them -----------------------------------------------------------------------------------------------

    def schedule_flush(self) -> None:
        """Wakes whoever has reason to be, behind all messages that the event loop hands over in this turn."""
        self.flush_due = True
        asyncio.get_running_loop().call_soon(self._flush)

    def became_ready(self) -> None:
        """Wakes whoever waits for control records: one who found the store ready may have found one of long ago."""
        self._controls = (-1, -1)
        self.schedule_flush()

    def wake_all(self) -> None:
        """Calls every listener: the store is another one."""
        for listeners in list(self._listeners.values()):
            for wake in list(listeners):
                wake()

    def _flush(self) -> None:
        self.flush_due = False
        served = self._served
        applied = served.store.applied
        for waiting in [one for one in self._for_index if one[0] <= applied]:
            self._for_index.discard(waiting)
            if not waiting[1].done():
                waiting[1].set_result(None)
        if not served.ready.is_set():
            return
        controls = (served.generation, served.store.controls)
        if controls != self._controls:
            self._controls = controls
            self._control_event.set()
            self._control_event = asyncio.Event()
        catalogue = (served.generation, served.store.catalogue)
        if catalogue != self._catalogue:
            self._catalogue = catalogue
            self.wake_all()
        if served.store.dirty and self._alarm is None:
            rest = self._rested_at - time.perf_counter()
            if rest < self._timing.shortest_rest:
                self._wake()
            else:
                self._alarm = asyncio.get_running_loop().call_later(rest, self._wake)

    def _wake(self) -> None:
        """Wakes who listens to what has changed; not again before they have rested."""
        self._alarm = None
        store = self._served.store
        if not self._served.ready.is_set():
            return
        for key in store.dirty:
            for wake in tuple(self._listeners.get(key, ())):
                wake()
        store.dirty.clear()
        # Comes behind those that were woken.
        asyncio.get_running_loop().call_soon(self._woken, time.perf_counter())

    def _woken(self, began: float) -> None:
        now = time.perf_counter()
        self._rested_at = now + min(self._timing.rest_factor * (now - began), self._timing.longest_rest)
