"""Is this still the history that was read? Asked of a stream's identity, its extent and single messages of it.

A stream can be deleted and made again, renamed by another instance, put back to an older copy or cut: its sequences
then mean other changes than those that were read. Everybody who reads or serves a log asks here.
"""

from __future__ import annotations

from typing import NamedTuple

from deltalog.jetstream.stream import Stream
from deltalog.jetstream.stream_info import HistoryIdentity, StreamState


class Progress(NamedTuple):
    """How far a log was read: the last sequence, when that was stored, and the latest time of any message up to it.

    Times in nanoseconds since 1970; `time` 0: not known. `latest` is mostly `time`, but a server's clock may have been
    set back: messages 7, 8, 9 stored at 100, 130 and 110 make `Progress(9, 110, 130)`.
    """

    sequence: int
    time: int
    latest: int


def why_another(name: str, state: StreamState, known: HistoryIdentity, read_to: int = 0) -> str | None:
    """Why a stream in this state is not the known one, of which everything up to `read_to` was read; None if it may be.

    Asks nothing of NATS, so a stream that was put back and has grown past `read_to` again is not noticed here.
    """
    if state.created != known.created:
        return f"stream {name} was made anew at {state.created}"
    if state.prefix != known.prefix:
        return f"the history was renamed from {known.prefix} to {state.prefix}"
    if state.last_sequence < read_to:
        return f"the stream ends at {state.last_sequence}, {read_to} was applied"
    return None


async def why_not_continued(stream: Stream, progress: Progress, state: StreamState | None = None) -> str | None:
    """Why what was read is not the beginning of what the stream holds now; None if it is, as far as can be told.

    Whether something was cut out of it is another question: a message that is not there may have been superseded.
    `state`: as it was just asked for by `Stream.state_read_to`; None: it is asked for here.
    Raises BrokerUnavailable, JetStreamRefused.
    """
    sequence, time, latest = progress
    state = state or await stream.state_read_to(sequence)
    if state.last_sequence < sequence:
        if stream.mirror:
            # Made again, it is filled with the same messages as before.
            return None
        return f"the stream ends at {state.last_sequence}, {sequence} was applied"
    if not time:
        return None
    last = state.last_sequence == sequence
    stored = state.last_time if last else await stream.message_time(sequence)
    if stored == time:
        return None
    if stored is not None:
        return f"message {sequence} is not the one that was applied"
    # A newer message of the same subject replaced it, or its TTL passed, or it was cut out. In a stream that was set
    # back and went on, what is in the place of that which was read is younger than all that was read.
    first = await stream.first_since(latest + 1)
    if first is not None and first <= sequence:
        return f"message {first} is younger than {sequence}, which was applied"
    return None
