"""History guard: whether the log still is, and holds, what is served of it; and what is noted beside it for others.

A log can be made anew, put back to an older copy, cut, or renamed by another instance. What was served then is another
history, whose versions mean nothing in this one: everything is read anew under a new prefix.
"""

from __future__ import annotations

import asyncio
import random
import time

import structlog

from deltalog.history import History, Mark
from deltalog.jetstream.backoff import Backoff
from deltalog.jetstream.connection import BrokerUnavailable
from deltalog.jetstream.same_history import why_another
from deltalog.jetstream.stream import ASKED_AFTER
from deltalog.jetstream.stream_info import StreamState
from deltalog.reader import HistoryChanged, Reader
from deltalog.wire.errors import LogUnavailable
from materializer.errors import MaterializerError
from materializer.freshness import Freshness
from materializer.integrity import Missing
from materializer.served import Served
from materializer.snapshot import too_old
from materializer.streams import LogStreams
from materializer.timing import Timing
from materializer.waiting import NotThereYet, Waiting

log = structlog.get_logger("materializer")


# How often it is tried to find the store as far as the state, and the pauses between, in seconds.
_COMPARISONS = 10
_COMPARE_AGAIN = (0.01, 0.2)


class StateOutdated(HistoryChanged, MaterializerError):
    """The history is the same, but too little is known of it here to go on: deletions may have been forgotten."""


class HistoryGuard:
    """Asks what the log is, at the start, from time to time, and when something gives a reason to.

    - `marked`: index and floor that were last noted beside the log.
    - `floor`: up to where deletions are known to be lost, by what others noted or an audit found.
    - `streams`: what the log's streams were like at the last look; None before the first one.
    """

    def __init__(
        self, served: Served, freshness: Freshness, waiting: Waiting, history: History, timing: Timing
    ) -> None:
        self.history = history
        self.marked = (0, 0)
        self.floor = 0
        self.streams: LogStreams | None = None
        self._served = served
        self._freshness = freshness
        self._waiting = waiting
        self._timing = timing
        self._look = asyncio.Event()
        self._confirmed = asyncio.Event()

    def begin_anew(self, *, renamed: bool) -> None:
        """The store was emptied; `renamed`: for another history, so that nothing known of the old one counts."""
        self.marked = (0, 0)
        self.streams = None
        if renamed:
            self.floor = 0

    def look_soon(self) -> None:
        """Has the log looked at now, and not only when it is time to."""
        self._look.set()

    async def confirmed(self) -> None:
        """Returns once the log was found to hold what a snapshot says."""
        await self._confirmed.wait()

    def snapshot_outdated(self) -> bool:
        """Whether what is served comes from a snapshot that deletions may be missing in, and is unconfirmed."""
        restored = self._served.unconfirmed
        return restored is not None and too_old(self._served.log, restored.current)

    def why_another(self, state: StreamState, applied: int) -> str | None:
        """Why a stream in this state, asked for when `applied` was, is not the one that is served; None if it is."""
        return why_another(self._served.log.name, state, self._served.identity, applied)

    # -- at the start ----------------------------------------------------------------------------------------------

    async def recall(self) -> str | None:
        """Why the log is not what others have served before under its name; None if it is, or nothing can tell.

        Waits while NATS is away. Also finds out the `floor` that others noted.
        """
        while True:
            try:
                reason = await self.history.why_not_served()
                for mark in await self.history.marks():
                    if (mark.created, mark.prefix) == self._served.identity:
                        self.floor = max(self.floor, mark.floor)
                return reason
            except BrokerUnavailable as cause:
                log.warning("the log cannot be read", reason=str(cause))
                await asyncio.sleep(self._timing.retry)
            except LogUnavailable as cause:
                log.error("nobody can say whether this history was served before", reason=str(cause))
                return None

    async def rename(self) -> None:
        """Gives the log's history another prefix, or takes the one that another instance gave it; waits for NATS."""
        said = ""
        while True:
            try:
                await self.history.rotate(self._served.store.prefix)
                return
            except LogUnavailable as cause:
                if said != str(cause):
                    said = str(cause)
                    log.warning("the history cannot be renamed", reason=said)
                await asyncio.sleep(self._timing.retry)

    # -- from then on ----------------------------------------------------------------------------------------------

    async def watch(self, reader: Reader) -> None:
        """Looks from time to time, and when there is a reason to, whether the log is still what was read of it.

        Raises:
            HistoryChanged: it is not.
        """
        while True:
            try:
                async with asyncio.timeout(self._timing.look_every * random.uniform(0.8, 1.2)):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            try:
                await self._look_at_log(reader)
            except (LogUnavailable, NotThereYet) as cause:
                # The reader says so, too, and looks at the history when it can read again.
                log.debug("the history cannot be looked at", reason=str(cause))

    async def _look_at_log(self, reader: Reader) -> None:
        served = self._served
        applied = reader.position
        state = await served.log.state_read_to(applied)
        if served.log.mirror:
            self._freshness.origin_heard = time.monotonic() - state.silent
            if state.last_sequence < applied and state.prefix == served.identity.prefix:
                # It was made anew and is being filled.
                return
        if (other := self.why_another(state, applied)) is not None:
            raise HistoryChanged(other)
        if served.log.mirror and (other := self.why_another(await served.log.origin_state(), applied)) is not None:
            raise HistoryChanged(f"of the mirrored stream, {other}")
        if served.unconfirmed is not None and reader.caught_up.is_set():
            await self._confirm()
        elif served.ready.is_set() and served.unconfirmed is None:
            if (kept := await served.log.kept()) is not None:
                served.integrity.compare(kept, served.log.now())
            window, oldest = served.log.window, await served.log.oldest_change()
            self.streams = LogStreams(window, state, kept if window else None, oldest or 0)
            if served.integrity.suspicious:
                await self._audit()
            await self._mark(reader)

    async def _confirm(self) -> None:
        """Finds out whether the log's state holds what a store from a snapshot says.

        Raises:
            HistoryChanged: it does not.
            NotThereYet: the store did not come as far as the state was, or there is no state now.
        """
        served = self._served
        if self.snapshot_outdated():
            reason = "deletions since the snapshot may have been forgotten while it was read"
            # What was served meanwhile may have lacked them, in versions that are good everywhere.
            raise HistoryChanged(reason) if served.snapshot_only else StateOutdated(reason)
        integrity = served.integrity
        backoff = Backoff(*_COMPARE_AGAIN)
        for _ in range(_COMPARISONS):
            kept = await served.log.kept()
            if kept is None:
                raise NotThereYet("the state stream is not there")
            if integrity.compare(kept, served.log.now()):
                break
            # Where much happens, the state is never as far as what was applied when it answers.
            await backoff.wait()
        if (due := integrity.due) is not None:
            # Settled by what comes behind it, or here.
            await self._waiting.applied(due.last_sequence, self._timing.audit)
            if integrity.due is due:
                integrity.settle(due, served.log.now())
        if integrity.suspicious:
            await self._audit()
        served.unconfirmed = None
        served.snapshot_only = False
        self._confirmed.set()

    async def _audit(self) -> None:
        served = self._served
        missing = await self._missing()
        if missing.living or missing.tombstone > served.store.floor:
            # Read once, perhaps where a server lacked what the stream has.
            await asyncio.sleep(ASKED_AFTER[-1])
            again = await self._missing()
            still = set(again.living)
            missing = Missing([one for one in missing.living if one in still], min(missing.tombstone, again.tombstone))
        if missing.living:
            few = ", ".join(missing.living[:3])
            raise HistoryChanged(f"{len(missing.living)} messages were cut out of the stream: {few}")
        if missing.tombstone > served.store.floor:
            log.warning("deletions were cut out of the stream", floor=missing.tombstone)
            served.store.floor = missing.tombstone

    async def _missing(self) -> Missing:
        return await self._served.integrity.audit(
            self._served.log, lambda index: self._waiting.applied(index, self._timing.audit)
        )

    # -- what is noted beside the log ------------------------------------------------------------------------------

    async def _mark(self, reader: Reader) -> None:
        """Notes beside the log how far it was served."""
        store = self._served.store
        marked = (store.applied, store.floor)
        if marked == self.marked or store.applied != reader.position:
            return
        created, prefix = self._served.identity
        await self.history.mark(
            Mark(
                created=created,
                prefix=prefix,
                index=reader.position,
                time=reader.position_time,
                latest=reader.latest,
                floor=store.floor,
                probes=self._served.integrity.probes(),
            )
        )
        self.marked = marked

    async def mark_the_end(self) -> None:
        """Notes how far the log was served at the end of the run, and not only up to the last look."""
        served, reader = self._served, self._freshness.reader
        if reader is None or not served.ready.is_set() or served.unconfirmed is not None:
            return
        if self._freshness.outage_seconds() is not None:
            return
        try:
            async with asyncio.timeout(self._timing.last_mark):
                await self._mark(reader)
        except (LogUnavailable, TimeoutError) as cause:
            log.debug("the end cannot be marked", reason=str(cause))
