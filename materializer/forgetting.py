"""Forgetting: what is remembered of deletions is buried after a while, and bounded in number and bytes.

Whoever finds that there are more of them than may be decides up to where they are forgotten, in the log, and obeys that
record like all others when it comes to it (`deltalog.forgetting`). Where nothing can be decided, on a mirror or without
the permission to write, this instance forgets for itself what is far beyond the limits: then it refuses resumes that
others can answer, and nothing else is different.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from deltalog.forgetting import LEFT, Purging, decide
from deltalog.history import History
from deltalog.timing import DEFAULT_TIMING, LogTiming
from deltalog.wire.errors import LogUnavailable
from materializer import burying
from materializer.burying import RememberedDeletions
from materializer.served import Served
from materializer.timing import Timing

log = structlog.get_logger("materializer")

# So far beyond the limits an instance forgets for itself where nobody decides.
_FAR_BEYOND = 1.25
# How long one that could not decide leaves it to others, in seconds.
_DECIDE_AGAIN = 60.0
# What whole tombstones may take in memory before they are buried early, in bytes.
_WHOLE_BYTES = 16 << 20


class DeletionLimits(msgspec.Struct, frozen=True):
    """How many deletions are remembered, and how many bytes the log may have for them.

    In memory each takes some 100 bytes once it is some minutes old.
    """

    number: int = 1_000_000
    log_bytes: int = 1 << 30

    def within(self, found: RememberedDeletions, factor: float = 1.0) -> bool:
        """Whether so much may be remembered; `factor`: of limits that are so many times as high."""
        return found.number <= self.number * factor and found.log_bytes <= self.log_bytes * factor


class Forgetting:
    """Bounds what one materializer remembers of deletions.

    - `limits`: beyond which somebody decides what is forgotten.
    - `purging`: takes the messages of what was forgotten out of the log; another one for another log.
    """

    def __init__(
        self,
        served: Served,
        history: Callable[[], History],
        imaging: Callable[[], bool],
        limits: DeletionLimits,
        timing: Timing,
        log_timing: LogTiming = DEFAULT_TIMING,
    ) -> None:
        self.limits = limits
        self.purging = Purging(served.log, log_timing)
        self._served = served
        self._history = history
        # An image is of entries that remember what they did when it was taken.
        self._imaging = imaging
        self._timing = timing
        self._log_timing = log_timing
        # Up to where is to be forgotten what was decided while an image was being written.
        self._waiting = 0
        self._decide_at = 0.0

    def remembered(self) -> RememberedDeletions:
        """What is remembered now. O(types, clusters, whole tombstones)."""
        return burying.remembered(self._served.store)

    def obey(self, through: int) -> None:
        """Forgets deletions up to the index `through`, as the log says. To be called where the record is applied."""
        store = self._served.store
        store.floor = max(store.floor, through)
        if self._imaging():
            self._waiting = max(self._waiting, through)
        else:
            self._forget(through)

    def _forget(self, through: int) -> None:
        self.purging.add(burying.forget_through(self._served.store, through), through)

    async def run(self) -> None:
        """Buries and forgets what is due, and decides where there is too much, until cancelled."""
        served = self._served
        if self.purging.log is not served.log:
            self.purging = Purging(served.log, self._log_timing)
        purging = asyncio.create_task(self.purging.run(), name="materializer-purging")
        try:
            while True:
                await asyncio.sleep(self._timing.forget_every)
                try:
                    await self._look()
                    if purging.done():
                        failed, purging = purging, asyncio.create_task(self.purging.run(), name="materializer-purging")
                        failed.result()
                except Exception as problem:
                    # Nothing else ends by it: deletions stay until the next look.
                    log.exception("deletions cannot be looked after", reason=str(problem))
        finally:
            purging.cancel()
            await asyncio.gather(purging, return_exceptions=True)

    async def _look(self) -> None:
        served = self._served
        await self._bury()
        if not served.ready.is_set() or self._imaging():
            return
        served.store.forget(served.log.now())
        if self._waiting:
            through, self._waiting = self._waiting, 0
            self._forget(through)
        await self._bound()

    async def _bury(self) -> None:
        store, now = self._served.store, self._served.log.now()
        before = burying.due(store, now - int(self._timing.bury_after * 1e9), _WHOLE_BYTES)
        while store is self._served.store:
            if not burying.bury(store, before):
                break
            await asyncio.sleep(0)

    async def _bound(self) -> None:
        """Has what is too much forgotten."""
        served, limits = self._served, self.limits
        found = self.remembered()
        if limits.within(found) or served.unconfirmed is not None:
            return
        store = served.store
        through = burying.forgettable(store, int(limits.number * LEFT), int(limits.log_bytes * LEFT))
        if not served.log.mirror and time.monotonic() >= self._decide_at:
            try:
                self.purging.decided(through)
                await decide(served.log, self._history(), through)
                # It comes to be obeyed with all else that the log has.
                return
            except LogUnavailable as cause:
                self._decide_at = time.monotonic() + _DECIDE_AGAIN
                log.warning("it cannot be decided which deletions are forgotten", reason=str(cause))
        if store is served.store and not limits.within(found, _FAR_BEYOND) and not self._imaging():
            # Their messages stay: others may remember them.
            burying.forget_through(store, through)
            log.warning("deletions are forgotten here alone", floor=store.floor, number=found.number)
