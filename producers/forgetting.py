"""Forgetting: a producer remembers deletions no longer than the log does, and bounds those of its own clusters.

What it remembers of a deleted object is for the next one of that name. It goes with the tombstone: after its time, or
when the log says that deletions up to a sequence are forgotten. Mostly an instance that serves decides that, as it
knows all deletions; a producer decides when those of its own clusters alone are more than may be, so that a log that
nobody serves is bounded, too.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Iterable

import structlog

from deltalog.forgetting import LEFT, Purging, decide
from deltalog.history import History
from deltalog.jetstream.backoff import Once
from deltalog.jetstream.stream import Log
from deltalog.timing import DEFAULT_TIMING, LogTiming
from deltalog.wire.errors import LogUnavailable
from producers.follow.writer import Writer

log = structlog.get_logger("producers.forgetting")

MOST_DELETIONS = 1_000_000
"""How many deletions are remembered if nothing else is said."""


class OwnDeletions:
    """Bounds what the writers of one process remember of deletions, together.

    - `limit`: how many deletions they may remember. `remembered`: how many they did when they were last looked at.
    """

    def __init__(
        self,
        open_log: Callable[[], Awaitable[Log]],
        writers: Callable[[], Iterable[Writer]],
        limit: int = MOST_DELETIONS,
        *,
        every: float = 60.0,
        log_timing: LogTiming = DEFAULT_TIMING,
    ) -> None:
        self.limit = limit
        self.remembered = 0
        self._open_log = open_log
        self._writers = writers
        self._every = every
        self._log_timing = log_timing
        self._purging: Purging | None = None
        self._task: asyncio.Task[None] | None = None
        # Up to where this process has decided, and who is to take the messages out first.
        self._decided = 0

    async def run(self) -> None:
        """Looks from time to time, until cancelled."""
        say = Once(lambda reason: log.warning("deletions cannot be forgotten as the log has it", reason=reason))
        try:
            while True:
                await asyncio.sleep(self._every)
                try:
                    await self.look()
                    say.clear()
                except LogUnavailable as cause:
                    say(cause)
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Forgets what is due; where there is too much, decides up to where it is forgotten. Raises LogUnavailable."""
        log_ = await self._open_log()
        purging = self._purging_of(log_)
        await self._forget(purging, await log_.forgotten_through())
        if self.remembered <= self.limit or log_.mirror:
            return
        through = await self._excess(self.remembered - int(self.limit * LEFT))
        if not through:
            return
        purging.decided(through)
        await decide(log_, History(log_), through)
        await self._forget(purging, await log_.forgotten_through())

    def _purging_of(self, log_: Log) -> Purging:
        if self._purging is None or self._purging.log.identity != log_.identity:
            if self._task is not None:
                self._task.cancel()
            self._purging = Purging(log_, self._log_timing)
            self._task = asyncio.create_task(self._purging.run(), name="producer-purging")
        return self._purging

    async def _forget(self, purging: Purging, through: int) -> None:
        remembered = 0
        forgotten = array("Q")
        for writer in list(self._writers()):
            found = writer.forget_deleted(through)
            forgotten.extend(found.sequences)
            remembered += found.left
            await asyncio.sleep(0)
        self.remembered = remembered
        purging.add(array("Q", sorted(forgotten)), through)

    async def _excess(self, number: int) -> int:
        """The sequence of the last of the oldest `number` deletions; 0 if there are not so many."""
        sequences = array("Q")
        for writer in list(self._writers()):
            sequences.extend(writer.deletions())
            await asyncio.sleep(0)
        return sorted(sequences)[number - 1] if number <= len(sequences) else 0
