"""Persistence: going on from the last snapshot at the start, with NATS or without it, and writing the next ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog

from deltalog.history import History
from deltalog.jetstream.backoff import Backoff
from deltalog.jetstream.stream import Log
from deltalog.reader import HistoryChanged, StateIncomplete
from deltalog.wire.errors import LogUnavailable
from materializer.bodies import CorruptFrame
from materializer.freshness import Freshness
from materializer.history_guard import HistoryGuard, StateOutdated
from materializer.image import Image
from materializer.served import Served
from materializer.snapshot import Restored, Snapshots
from materializer.timing import Timing
from materializer.waiting import Waiting

log = structlog.get_logger("materializer")

# Pauses between attempts at the first snapshot that workers are to share, in seconds.
_FIRST_AGAIN = (0.5, 300.0)
# And between looks whether bodies are packed by then.
_PACKED_AGAIN = (0.1, 2.0)


class Away(NamedTuple):
    """What is known of a log while NATS is away: a snapshot (None: nothing), and how to wait until it can be opened.

    `open` returns it, with its history, whatever it is by then; what it raises, `Materializer.run` raises.
    """

    restored: Restored | None
    open: Callable[[], Awaitable[tuple[Log, History]]]


class Persistence:
    """The snapshots of one materializer; without any (`snapshots` None) it does nothing.

    `imaging`: an image of the store is being written down, so the store must not forget.
    """

    def __init__(
        self,
        served: Served,
        freshness: Freshness,
        waiting: Waiting,
        guard: HistoryGuard,
        snapshots: Snapshots | None,
        timing: Timing,
    ) -> None:
        self.snapshots = snapshots
        self.imaging = False
        self._served = served
        self._freshness = freshness
        self._waiting = waiting
        self._guard = guard
        self._timing = timing

    # -- at the start ----------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Goes on from the last snapshot, if there is one to go on from."""
        served = self._served
        restored = None if self.snapshots is None else await self.snapshots.read(served.log)
        if restored is None:
            return
        served.go_on_from(restored)
        log.info("going on from a snapshot", index=served.store.applied, prefix=served.store.prefix)

    async def serve_until_there(self, away: Away) -> None:
        """NATS is away at the start: what the snapshot holds is served, as after an outage that began at its time.

        Returns when the log can be read, and is the one that the snapshot is of. Without a snapshot nothing is served
        until then.

        Raises:
            HistoryChanged: it is another one.
            StateOutdated: it is the same, but forgets deletions after another time.
        """
        served, freshness = self._served, self._freshness
        if away.restored is None:
            freshness.unreadable_since = time.time()
            served.log, self._guard.history = await away.open()
            served.begin_anew()
            return
        served.go_on_from(away.restored)
        served.snapshot_only = True
        freshness.unreadable_since = away.restored.current / 1e9
        # It may be of a time before this clock's beginning.
        freshness.current_at = time.monotonic() - max(0.0, time.time() - freshness.unreadable_since)
        log.warning(
            "NATS is away: serving what a snapshot holds",
            url=served.log.connection.url,
            age=round(freshness.age()),
            index=served.store.applied,
            prefix=served.store.prefix,
        )
        served.ready.set()
        self._waiting.schedule_flush()
        ttl = served.log.tombstone_ttl
        served.log, self._guard.history = await away.open()
        if served.log.identity != served.identity:
            log.warning("not the log that the snapshot is of: starting anew", prefix=served.log.prefix)
            raise HistoryChanged("not the log that the snapshot is of")
        if served.log.tombstone_ttl != ttl:
            raise StateOutdated("the tombstone time is another one")

    # -- from then on ----------------------------------------------------------------------------------------------

    async def save_regularly(self) -> None:
        """Writes a snapshot every `snapshots.every` seconds, or takes up what another writes, until cancelled.

        As often, and when a body could not be read, the file that records are read from is looked at.

        Raises:
            StateIncomplete: it is damaged.
        """
        snapshots = self.snapshots
        if snapshots is None or not snapshots.every:
            return
        if snapshots.shares and snapshots.writes and not snapshots.index:
            # There is none to share yet. What keeps it from being written, as changes that are just coming, passes.
            await self._served.ready.wait()
            backoff = Backoff(*_PACKED_AGAIN)
            while self._served.store.plain.size > self._served.store.plain.limit:
                # What is plain yet is shared by nobody.
                await backoff.wait()
            backoff = Backoff(*_FIRST_AGAIN)
            await self.save()
            while not snapshots.index:
                await backoff.wait()
                await self.save()
        due, seen = time.monotonic() + snapshots.every, CorruptFrame.seen
        while True:
            look_for = self._timing.look_for_snapshot if snapshots.shares else snapshots.every
            await asyncio.sleep(min(snapshots.every, look_for))
            is_due = time.monotonic() >= due
            if is_due:
                due = time.monotonic() + snapshots.every
            if (is_due or seen != CorruptFrame.seen) and await self._damaged():
                raise StateIncomplete("the snapshot that records were read from is damaged")
            seen = CorruptFrame.seen
            try:
                if not snapshots.writes:
                    await self.share()
                elif is_due:
                    await self._keep()
            except Exception as problem:
                # All else goes on, and the next one may succeed.
                log.exception("no snapshot can be kept", reason=str(problem))

    async def _damaged(self) -> bool:
        """Whether the snapshot that records are read from is not as it was when they were left to it."""
        if self.snapshots is None or (reason := await self.snapshots.damage()) is None:
            return False
        log.error(
            "the snapshot that records are read from is damaged",
            file=str(self.snapshots.file(self._served.log.name)),
            reason=reason,
        )
        return True

    async def share(self) -> None:
        """Leaves records to the last snapshot, if that is another than before."""
        served = self._served
        if self.snapshots is not None and self.snapshots.shares and served.ready.is_set():
            await self.snapshots.share(served.log, served.store)

    async def save(self, *, ended: bool = False) -> None:
        """Writes a snapshot, if there is something new to write and all is well.

        What is damaged is not written again, with checksums that are right. `ended`: nothing feeds the store any more,
        so there is no waiting for what the log has beyond it.
        """
        if self.snapshots is not None and self.snapshots.writes and not await self._damaged():
            await self._keep(ended=ended)

    async def _keep(self, *, ended: bool = False) -> None:
        """As `save`, where the file that records are read from was looked at just now."""
        served, snapshots, reader = self._served, self.snapshots, self._freshness.reader
        if snapshots is None or not served.ready.is_set():
            return
        if reader is None or served.unconfirmed is not None or self._freshness.outage_seconds() is not None:
            return
        if not snapshots.due(served.store, served.log):
            return
        current = 0
        try:
            async with asyncio.timeout(self._timing.audit):
                # Before the question: what the log gets after it has answered, it gets later than that.
                asked = served.log.now()
                state = await served.log.state()
                if self._guard.why_another(state, served.store.applied) is not None:
                    return
                if not ended:
                    await self._waiting.applied(state.last_sequence, None)
                # A mirror is as old as what it last heard of its origin; `outage` has seen that it did.
                current = asked - int(state.silent * 1e9) if served.store.applied >= state.last_sequence else 0
        except (LogUnavailable, TimeoutError) as cause:
            log.debug("the log cannot be asked how current a snapshot is", reason=str(cause))
        if served.store.applied != reader.position:
            return
        self.imaging = True
        try:
            image = Image(served.store, served.integrity, served.assembler)
            created = served.identity.created
            written = await snapshots.write(served.log, image, created=created, latest=reader.latest, current=current)
        finally:
            self.imaging = False
        if written and not ended:
            del image
            await self.share()

    async def save_the_end(self) -> None:
        """Keeps a snapshot of where a run ended, for the next start."""
        try:
            async with asyncio.timeout(self._timing.last_snapshot):
                await self.save(ended=True)
        except TimeoutError:
            log.warning("the last snapshot took too long", seconds=self._timing.last_snapshot)
