"""Places in the log: where a consumer is, as text it can store, and where it wants to begin."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

import msgspec

from deltalog.jetstream.same_history import Progress, why_not_continued
from deltalog.jetstream.stream import Log
from deltalog.jetstream.stream_info import StreamState
from deltalog.reader import HistoryChanged
from deltalog.wire.errors import BadInput, HistoryEnded

_PLACE = re.compile(r"([A-Za-z0-9_-]{1,64})\.([0-9]{1,19})(\.[^@]*)?(@([0-9]{1,19}))?", re.ASCII | re.DOTALL)
_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
# Sequences are of 64 bits; larger ones no server takes.
_LIMIT = 2**63
# How much sooner than they may have been, deletions count as forgotten: by so much clocks and expiry may be off, in
# seconds, but never by more than this part of the tombstone time.
_MARGIN = 60
_MARGIN_PART = 0.1


class BadPlace(BadInput):
    """Text that names no place in a log; one line with the remedy."""


class Forgotten(HistoryEnded):
    """Deletions behind this place may have been forgotten: a consumer that goes on may keep objects that are deleted.

    Read from the beginning, and drop what did not come.
    """


class Place(msgspec.Struct, frozen=True):
    """Everything up to message `sequence` has been read. `time`: when it was stored, ns since 1970; 0: not known.

    `prefix`: the history that the sequence belongs to; empty: not known. As text `<prefix>.<sequence>@<time>`, which
    is to be stored whole: only with the time can be told that nothing was missed in a log where little happens.
    """

    prefix: str
    sequence: int
    time: int = 0

    def __str__(self) -> str:
        if not self.prefix:
            return str(self.sequence)
        return f"{self.prefix}.{self.sequence}" + (f"@{self.time}" if self.time else "")


def parse_place(text: str) -> Place:
    """Reads a sequence, a resourceVersion (`<prefix>.<index>[.<original>]`) or a `Place` as text. Raises BadPlace."""
    if _NUMBER.fullmatch(text):
        place = Place("", int(text))
    elif (found := _PLACE.fullmatch(text)) is not None:
        place = Place(found[1], int(found[2]), int(found[5] or 0))
    else:
        raise BadPlace(f"{text[:128]!r} is no place in the log; write a sequence, or a version: <prefix>.<index>")
    if place.sequence >= _LIMIT:
        raise BadPlace(f"{text[:128]!r}: the index is out of range")
    return place


class StartingPlace(NamedTuple):
    """Where reading begins: behind `place`. `resuming`: the consumer may know what was there up to it."""

    place: Place
    resuming: bool


BEGINNING = "beginning"
NOW = "now"
# A word, a sequence, a version or Place as text, or a time.
Start = str | int | Place | datetime


async def locate(log: Log, start: Start, state: StreamState, *, fresh: bool = False) -> StartingPlace:
    """Where reading begins; `fresh`: for a consumer that holds nothing yet, wherever that is.

    Raises BadPlace, HistoryChanged, Forgotten, BrokerUnavailable.
    """
    if start == BEGINNING:
        return StartingPlace(Place(log.prefix, 0), False)
    if start == NOW:
        return StartingPlace(Place(log.prefix, state.last_sequence, state.last_time), False)
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise BadPlace(f"{start} has no time zone; say datetime(..., tzinfo=UTC)")
        first = await log.first_since(max(0, int(start.timestamp() * 1_000_000) * 1000))
        if first is None:
            return StartingPlace(Place(log.prefix, state.last_sequence, state.last_time), False)
        return StartingPlace(Place(log.prefix, first - 1), False)
    if isinstance(start, bool) or (isinstance(start, int) and start < 0):
        raise BadPlace(f"{start!r} is no place in the log; a sequence is not negative")
    place = start if isinstance(start, Place) else parse_place(str(start))
    await same_history(log, place, state)
    if not fresh:
        await nothing_forgotten(log, place, state)
    return StartingPlace(place, not fresh)


async def same_history(log: Log, place: Place, state: StreamState) -> None:
    """Raises HistoryChanged if `place` is not one of what the stream holds now."""
    if place.prefix and place.prefix != state.prefix:
        raise HistoryChanged(
            f"{place} is of the history {place.prefix}; stream {log.name} now holds {state.prefix}: "
            "read from the beginning"
        )
    # One that seems to end before that is asked again.
    known = state if state.last_sequence >= place.sequence else None
    reason = await why_not_continued(log, Progress(place.sequence, place.time, place.time), known)
    if reason is not None:
        raise HistoryChanged(f"{place} is of another history: {reason}; read from the beginning")


async def nothing_forgotten(log: Log, place: Place, state: StreamState) -> None:
    """Raises Forgotten if a consumer that has everything up to `place` may have missed a deletion since."""
    if place.sequence in (0, state.last_sequence):
        return
    forgotten = await log.forgotten_through()
    if place.sequence < forgotten and not await log.kept_until(place.sequence, state):
        raise Forgotten(
            f"{place} is older than deletions up to {forgotten}, which were forgotten as there were too many: "
            "read from the beginning, and drop what does not come"
        )
    ttl = log.tombstone_ttl
    oldest = log.now() - int((ttl - min(_MARGIN, ttl * _MARGIN_PART)) * 1_000_000_000)
    if log.created_at >= oldest or place.time >= oldest:
        return
    stored = await log.message_time(place.sequence)
    if stored is not None and stored >= oldest:
        return
    # What the server may have forgotten lies below the first message that is young enough.
    first = await log.first_since(oldest)
    if first is None or first > place.sequence + 1:
        raise Forgotten(
            f"{place} may be older than deletions that were forgotten (they are kept for {ttl} s): "
            "read from the beginning, and drop what does not come"
        )
