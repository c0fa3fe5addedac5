"""Keeping a log's state stream while processes run: that it is there, of this history, and lacks nothing.

The mirror is NATS' own work. What it cannot do is looked after here: a state that was deleted, or is of a stream that
was deleted, is made anew; so is one that has messages which the events have not (they lost their end in a crash, and
go on under the same sequences); one that fell behind until the events had forgotten what it lacks, says so; and what a
removal took is taken out again where a new mirror has copied it.
"""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

import structlog

from deltalog.jetstream.backoff import Once
from deltalog.jetstream.connection import Connection
from deltalog.jetstream.making import change_stream, find_stream
from deltalog.jetstream.state_stream import Limits, delete_state, lacking, make_state, state_name, take_over
from deltalog.jetstream.stream import ASKED_AFTER, Log, Stream, checked_log
from deltalog.jetstream.stream_info import StreamState, nanoseconds
from deltalog.reader import Reader, Record
from deltalog.timing import DEFAULT_TIMING, LogTiming
from deltalog.wire.delta import UnreadableRecord
from deltalog.wire.errors import HistoryEnded, LogUnavailable
from deltalog.wire.records import ObjectsRemoved, decode_control
from deltalog.wire.removal import removed_subjects
from deltalog.wire.subjects import CONTROL, REMOVED

log = structlog.get_logger("deltalog.state")


# In how many looks one after the other a state has to be found of another past before it is deleted: a server that
# stood still answers as the leader that it was, once.
_SUSPICIONS = 3


class _Seen(NamedTuple):
    """The last message that the state had, when it was looked at: of which stream, its sequence and its time."""

    created: str
    sequence: int
    time: int


class StateKeeper:
    """Keeps the state stream of one log; any number of processes may do so at once.

    Its own `Log` is opened at each look: nothing here depends on what others know of it.
    """

    def __init__(self, connection: Connection, name: str, timing: LogTiming = DEFAULT_TIMING) -> None:
        self._connection = connection
        self._name = name
        self._timing = timing
        self._seen: _Seen | None = None
        self._suspected = 0
        # When the state stream was made from which what removals took is out again.
        self._tidied = ""

    async def run(self) -> None:
        """Looks after it until cancelled."""
        say = Once(lambda reason: log.warning("the state stream cannot be looked after", log=self._name, reason=reason))
        while True:
            try:
                await self.look()
                say.clear()
            except (LogUnavailable, HistoryEnded) as cause:
                # The history may have been renamed under the reader of removals.
                say(cause)
            await asyncio.sleep(self._timing.look_every * random.uniform(0.8, 1.2))

    async def look(self) -> None:
        """Looks at both streams, and mends the state where it is not what it should be.

        Raises LogError, JetStreamRefused, BrokerRefuses, BrokerUnavailable.
        """
        opened = Log(self._connection, checked_log(await find_stream(self._connection, self._name)))
        if opened.mirror:
            return
        await make_state(opened)
        if opened.state_stream is None:
            return
        # In this order: what the state has, the events had before.
        kept = await opened.state_stream.state()
        events = await opened.state()
        if (reason := await self._why_diverged(opened, kept, events)) is not None:
            self._suspected += 1
            log.debug("the state stream may be of another past", log=self._name, reason=reason, times=self._suspected)
            if self._suspected >= _SUSPICIONS:
                self._seen, self._suspected = None, 0
                await delete_state(opened, reason)
                await make_state(opened)
            return
        self._suspected = 0
        await self._note_gap(opened, kept, events)
        await take_over(opened, Limits())
        await self._tidy(opened, events)

    async def _why_diverged(self, opened: Log, kept: StreamState, events: StreamState) -> str | None:
        """Why the state is not of these events; None if nothing says so."""
        if kept.last_sequence > events.last_sequence:
            return f"it has come to {kept.last_sequence}, the events end at {events.last_sequence}"
        state = opened.state_stream
        assert state is not None
        seen = self._seen
        if seen is not None and seen.created == opened.created:
            stored = await opened.events.message_time(seen.sequence)
            if stored not in (None, seen.time):
                return f"message {seen.sequence} is another one in the events"
        self._seen = None
        if not kept.last_sequence:
            return None
        has = await state.message_time(kept.last_sequence)
        stored = await opened.events.message_time(kept.last_sequence)
        if None not in (has, stored) and has != stored:
            return f"message {kept.last_sequence} is another one in the events"
        if has is not None:
            self._seen = _Seen(opened.created, kept.last_sequence, has)
        return None

    async def _note_gap(self, opened: Log, kept: StreamState, events: StreamState) -> None:
        """Says in the state's metadata that it lacks messages, where the events have forgotten what it did not copy."""
        if not opened.window or kept.last_sequence < max(kept.lacks_to, opened.events_from):
            # It keeps the last messages itself; or the state is being filled, and that has been said.
            return
        for pause in ASKED_AFTER:
            await asyncio.sleep(pause)
            if await opened.kept_until(kept.last_sequence, events):
                return
        assert opened.state_stream is not None
        await change_stream(opened.state_stream, {}, lacking(opened, events.last_sequence))
        log.warning(
            "the state stream fell behind: producers append again what it may lack",
            stream=opened.state_stream.name,
            had=kept.last_sequence,
            up_to=events.last_sequence,
        )

    async def _tidy(self, opened: Log, events: StreamState) -> None:
        """Takes out of a new state what was removed before it was made: the events have that for a window."""
        info = await find_stream(self._connection, state_name(self._name))
        if self._tidied == info.created:
            return
        made, state = nanoseconds(info.created), Stream(self._connection, info)
        if not opened.window or info.state.last_seq < events.last_sequence:
            # It is being filled: records of removals may be among what is to come.
            return
        removals: list[tuple[int, ObjectsRemoved, str]] = []

        def note(record: Record) -> None:
            if record.time > made:
                # Whoever appended it took out what it speaks of.
                return
            try:
                control = decode_control(record.data)
            except UnreadableRecord:
                return
            if isinstance(control.fact, ObjectsRemoved):
                removals.append((record.sequence, control.fact, control.cluster))

        subjects = (f"{CONTROL}.*.{REMOVED}", f"{CONTROL}.*.{REMOVED}.*.*")
        reader = Reader(state, note, subjects=subjects, stop_when_caught_up=True, timing=self._timing)
        reading = asyncio.ensure_future(reader.run())
        try:
            # A reader waits for its stream to come back; one that was deleted is for the next look to make anew.
            while not (await asyncio.wait([reading], timeout=self._timing.look_every))[0]:
                if (await find_stream(self._connection, state_name(self._name))).created != info.created:
                    return
            reading.result()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        for sequence, removal, cluster in removals:
            for pattern in removed_subjects(cluster, removal.resource):
                await opened.purge_state(pattern, sequence)
        self._tidied = info.created
