"""The gap of a state stream: what it lacks, since it was made anew when the events had forgotten that."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import msgspec

from deltalog import Record
from deltalog.jetstream.stream import Log
from deltalog.jetstream.stream_info import STATE_FROM_KEY, StreamInfo, nanoseconds


class StateGap(NamedTuple):
    """Up to which sequence a state lacks messages that it should have, and when that was found (ns since 1970)."""

    up_to: int = 0
    found: int = 0

    def concerns(self, record: Record) -> bool:
        """Whether a record was stored before the gap was found, so that the state may lack what it speaks of."""
        return record.sequence <= self.up_to or record.time <= self.found


NO_GAP = StateGap()


async def find_gap(log_: Log) -> StateGap:
    """The gap that the log's state has by its metadata, `<sequence> <time>`; empty where it has none.

    Raises LogUnavailable.
    """
    state = await log_.find_state()
    if state is None:
        return NO_GAP
    raw = await state.connection.api(f"STREAM.INFO.{state.name}")
    mark = msgspec.json.decode(raw, type=StreamInfo).config.metadata.get(STATE_FROM_KEY, "")
    sequence, _, found = mark.partition(" ")
    if not sequence.isdecimal():
        return NO_GAP
    time = 0
    with contextlib.suppress(ValueError):
        time = int(found) if found.isdecimal() else nanoseconds(found)
    return StateGap(int(sequence), time)
