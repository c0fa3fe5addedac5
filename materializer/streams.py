"""Streams: what the log's two streams were like when they were last looked at, for those who operate them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from deltalog.jetstream.stream_info import StreamState, timestamp

# For how long in seconds a state stream may hear nothing of the events before it counts as behind.
_SILENT = 10.0


class LogStreams(msgspec.Struct, frozen=True):
    """The events, and the state as it was right after; `state` None: there was none.

    - `window`: for how many seconds the log keeps events; 0: it is of an older release, and keeps none.
    - `oldest`: when the oldest change that the events have was stored, ns since 1970; 0: they have none.

    Example: the events end at 900 and the state at 880, so `lag` is 20.
    """

    window: int
    events: StreamState
    state: StreamState | None
    oldest: int

    @property
    def lag(self) -> int:
        """How many messages the state had still to copy. What came between the two looks does not count."""
        return 0 if self.state is None else max(self.events.last_sequence - self.state.last_sequence, 0)

    @property
    def lacks_to(self) -> int:
        """Up to which sequence the state has lost what the events had forgotten; 0: nothing was lost.

        It stays when all was appended again: deletions from before are still unknown to instances that start.
        """
        return 0 if self.state is None else self.state.lacks_to

    def trouble(self, incomplete: Sequence[str] = ()) -> str | None:
        """What is wrong with the state stream, in words; None: nothing.

        `incomplete`: clusters that have not been listed again since the state lost what is older than `lacks_to`.
        """
        if not self.window:
            return None
        if self.state is None:
            return "the log's state stream is not there"
        if self.lag and self.state.silent > _SILENT:
            return f"the log's state stream is {self.lag} messages behind the events"
        if self.lacks_to and incomplete:
            few = ", ".join(incomplete[:5]) + (", ..." if len(incomplete) > 5 else "")
            return (
                f"the log's state stream may lack what {few} had before index {self.lacks_to}, until it is listed again"
            )
        return None

    @property
    def text(self) -> str:
        """A line of it: `log's events since 2026-11-28T10:30:23Z: 812 messages, 3,200,000 bytes; state: 520, ...`."""
        since = f" since {timestamp(self.oldest)[:19]}Z" if self.oldest else ""
        kept = "none" if self.state is None else _size(self.state)
        return f"log's events{since}: {_size(self.events)}; state: {kept}"

    def document(self, trouble: str | None = None) -> dict[str, Any]:
        """All of it as JSON; times as RFC 3339, sequences and sizes as numbers."""
        return {
            "events": {**_extent(self.events), "since": timestamp(self.oldest) if self.oldest else None},
            "state": None if self.state is None else {**_extent(self.state), "lag": self.lag, "lacksTo": self.lacks_to},
            "window": self.window,
            "trouble": trouble,
        }


def _size(stream: StreamState) -> str:
    return f"{stream.messages:,} messages, {stream.bytes:,} bytes"


def _extent(stream: StreamState) -> dict[str, int]:
    return {
        "messages": stream.messages,
        "bytes": stream.bytes,
        "first": stream.first_sequence,
        "last": stream.last_sequence,
    }
