"""What JetStream says of a stream: its configuration, its extent, and which history it holds.

The stream's metadata carries the name of the history (the *prefix* of every resourceVersion served from it) and the
tombstone time. JetStream: nats-server docs "Streams", `STREAM.INFO`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

PREFIX_KEY = "kubebraid.io/prefix"
FORMAT_KEY = "kubebraid.io/format"
TOMBSTONE_TTL_KEY = "kubebraid.io/tombstone-ttl"
# Of a mirror: when the stream was made that it mirrors.
CREATED_KEY = "kubebraid.io/created"
COPY_KEY = "kubebraid.io/copy-of"
# Of a stream of events: it has had every message since this sequence; before that it kept the last of each subject.
EVENTS_FROM_KEY = "kubebraid.io/events-from"
# Of a state stream that was made anew, or fell behind, when the events had forgotten what it needs: up to which
# sequence it may lack messages, and when that was found.
STATE_FROM_KEY = "kubebraid.io/state-from"
# Of the mirror of a state stream: when that was made.
STATE_CREATED_KEY = "kubebraid.io/state-created"
# Of a stream of events: how the servers are to keep it, where that was said: "s2" or "none".
COMPRESSION_KEY = "kubebraid.io/compression"
DEFAULT_NAME = "KUBEBRAID"
# What the name of the state stream has behind that of its events.
STATE_SUFFIX = "_STATE"


class HistoryIdentity(NamedTuple):
    """Which history is meant: when its stream was created, as JetStream writes it, and its prefix."""

    created: str
    prefix: str


class StreamState(msgspec.Struct, frozen=True):
    """The extent of a stream now. `last_time` in nanoseconds since 1970, 0 in a stream never written to.

    `silent`: seconds since a mirror heard of the stream that it mirrors, infinite if it never did. `lacks_to`: of a
    state stream that had to be made anew from events that had lost their beginning: up to which sequence it may lack
    messages; 0: it lacks none.
    """

    messages: int
    subjects: int
    first_sequence: int
    last_sequence: int
    last_time: int
    created: str
    prefix: str
    silent: float = 0.0
    bytes: int = 0
    lacks_to: int = 0

    @property
    def identity(self) -> HistoryIdentity:
        """Which history the stream held when it was asked."""
        return HistoryIdentity(self.created, self.prefix)


class StreamExtent(msgspec.Struct):
    """`state` of `STREAM.INFO`: how many messages and subjects a stream has, its first and last sequence."""

    messages: int
    first_seq: int
    last_seq: int
    last_ts: str = ""
    num_subjects: int = 0
    bytes: int = 0


class _Transform(msgspec.Struct):
    src: str = ""
    dest: str = ""


class _External(msgspec.Struct):
    api: str = ""


class _Mirror(msgspec.Struct):
    name: str
    external: _External | None = None


class _Heard(msgspec.Struct):
    """How a mirror does; `active` in nanoseconds, negative if it never heard of its origin."""

    active: int = -1


class StreamConfig(msgspec.Struct):
    """`config` of `STREAM.INFO`, as far as it is read here; the keys are JetStream's, `max_age` in nanoseconds."""

    name: str
    mirror: _Mirror | None = None
    discard: str = ""
    max_age: int = 0
    max_bytes: int = -1
    allow_atomic: bool = False
    subjects: list[str] = []
    subject_transform: _Transform | None = None
    metadata: dict[str, str] = {}
    allow_msg_ttl: bool = False
    num_replicas: int = 1
    max_msgs_per_subject: int = -1
    max_msg_size: int = -1
    compression: str = "none"

    @property
    def lacks_to(self) -> int:
        """Up to which sequence a state stream may lack messages; 0: it lacks none."""
        text = self.metadata.get(STATE_FROM_KEY, "").partition(" ")[0]
        return int(text) if text.isdecimal() else 0

    @property
    def events_from(self) -> int | None:
        """From which sequence on every message was kept; None: it keeps the last of each subject, as of old."""
        text = self.metadata.get(EVENTS_FROM_KEY, "")
        return int(text) if text.isdecimal() else None


class StreamInfo(msgspec.Struct):
    """The answer to `STREAM.INFO`; `created` and `ts`, the server's time, as RFC 3339."""

    config: StreamConfig
    state: StreamExtent
    created: str
    ts: str = ""
    mirror: _Heard | None = None

    @property
    def made(self) -> str:
        """When the history was begun: of a mirror, when its origin was made."""
        return self.config.metadata.get(CREATED_KEY, "") if self.config.mirror is not None else self.created

    def state_now(self) -> StreamState:
        """The extent and identity that the answer tells."""
        silent = 0.0
        if self.config.mirror is not None:
            active = -1 if self.mirror is None else self.mirror.active
            silent = active / 1e9 if active >= 0 else float("inf")
        return StreamState(
            self.state.messages,
            self.state.num_subjects,
            self.state.first_seq,
            self.state.last_seq,
            nanoseconds(self.state.last_ts),
            self.made,
            self.config.metadata.get(PREFIX_KEY, ""),
            silent,
            self.state.bytes,
            self.config.lacks_to,
        )


def nanoseconds(timestamp: str) -> int:
    """A server's RFC 3339 time with up to nine decimals, as nanoseconds since 1970; 0 for its zero time.

    Example: `2026-11-28T10:30:23.5Z` is 1795861823500000000.
    """
    if not timestamp or timestamp.startswith("0001-"):
        return 0
    whole, _, rest = timestamp.partition(".")
    if not rest:
        return int(datetime.fromisoformat(timestamp).timestamp()) * 1_000_000_000
    digits = len(rest) - len(rest.lstrip("0123456789"))
    zone = rest[digits:] or "Z"
    seconds = int(datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).timestamp())
    return seconds * 1_000_000_000 + int(rest[:digits].ljust(9, "0")[:9])


def timestamp(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC, with nine decimals; the inverse of `nanoseconds`."""
    whole = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{nanoseconds % 1_000_000_000:09d}Z"
