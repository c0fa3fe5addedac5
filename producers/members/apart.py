"""Looking at many files, one after the other, of which some may hang: those hold up no others.

One thread does it all, as each look takes microseconds where all is well. A look that takes longer than a limit is left
to that thread, and the rest are done by another one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic, TypeVar

from producers.threads import reading

T = TypeVar("T")


class _Run(Generic[T]):
    """One thread's way through things; given up by the event loop where one of them hangs."""

    def __init__(self, things: Sequence[str], look: Callable[[str], T]) -> None:
        self.things = things
        self.found: dict[str, T | Exception] = {}
        # Which one it is at, and since when.
        self.at: tuple[int, float] | None = None
        self.given_up = False
        self.lock = threading.Lock()
        self._look = look

    def __call__(self) -> None:
        for number, thing in enumerate(self.things):
            with self.lock:
                if self.given_up:
                    return
                self.at = (number, time.monotonic())
            try:
                found: T | Exception = self._look(thing)
            except Exception as cause:  # noqa: BLE001 - whoever asked gets it
                found = cause
            with self.lock:
                if self.given_up:
                    return
                self.found[thing] = found
                self.at = None

    def hangs(self, limit: float) -> int | None:
        """Which thing is looked at for so long; the run is given up then."""
        with self.lock:
            if self.at is None or time.monotonic() - self.at[1] < limit:
                return None
            self.given_up = True
            return self.at[0]


class Apart:
    """Looks at things of one source: paths, or names that lead to some. Used by one task at a time.

    `path`: the source's, for the threads' share (`producers.threads`); `limit`: seconds that one look may take.
    """

    def __init__(self, path: str, limit: float) -> None:
        self._path = path
        self._limit = limit
        # Things whose look has not ended, with what runs it.
        self._hanging: dict[str, asyncio.Future[None]] = {}

    @property
    def hanging(self) -> frozenset[str]:
        """Things whose look has not ended; they are passed over until it has."""
        return frozenset(self._hanging)

    async def each(self, things: Iterable[str], look: Callable[[str], T]) -> dict[str, T | Exception]:
        """What `look` returned or raised for each thing, in their order, without those that hang."""
        found: dict[str, T | Exception] = {}
        left = [thing for thing in things if thing not in self._hanging]
        while left:
            run = _Run(left, look)
            running = asyncio.ensure_future(reading(self._path, run))
            try:
                at = await self._watched(run, running)
            except asyncio.CancelledError:
                with run.lock:
                    run.given_up = True
                raise
            found |= run.found
            if at is None:
                # Of what the run itself raises nothing is expected.
                running.result()
                return found
            hanging, left = left[at], left[at + 1 :]
            self._hanging[hanging] = running
            running.add_done_callback(partial(self._answered, hanging))
        return found

    def _answered(self, thing: str, _: asyncio.Future[None]) -> None:
        self._hanging.pop(thing, None)

    async def _watched(self, run: _Run[T], running: asyncio.Future[None]) -> int | None:
        """Waits until a run has ended (None), or hangs: at which of its things."""
        while True:
            done, _ = await asyncio.wait((running,), timeout=self._limit / 4)
            if done:
                return None
            if (at := run.hangs(self._limit)) is not None:
                return at
