"""The state stream: a mirror of a log's stream on the same servers that keeps the last message of each subject.

The log's own stream, the events, keeps every message for a while; the state keeps what is, for ever, under the same
sequences. JetStream: nats-server docs "Source and Mirror", ADR-43 (message TTL: tombstones expire in the state, too).
"""

from __future__ import annotations

import time

import msgspec
import structlog

from deltalog.jetstream.backoff import Backoff
from deltalog.jetstream.connection import BrokerRefuses, JetStreamRefused
from deltalog.jetstream.making import change_stream, create_stream, find_stream
from deltalog.jetstream.stream import STREAM_NOT_FOUND, Log, LogError, Stream
from deltalog.jetstream.stream_info import (
    CREATED_KEY,
    EVENTS_FROM_KEY,
    FORMAT_KEY,
    PREFIX_KEY,
    STATE_SUFFIX,
    TOMBSTONE_TTL_KEY,
    StreamConfig,
    StreamInfo,
)

log = structlog.get_logger("deltalog.state")

USUAL_SECONDS = 3600
USUAL_BYTES = 2 * 1024**3
# The usual limit is not lowered below this where the servers have less room.
_FEWEST_BYTES = 1024**2
_NO_STORAGE = 10047
# How long a state stream may take to be filled before the log goes on as it was, in seconds.
_FILLED_WITHIN = 120.0


class Limits(msgspec.Struct, frozen=True):
    """How long the events are kept, in seconds, and in how many bytes; None: as it is, or as is usual."""

    seconds: int | None = None
    bytes: int | None = None

    def age(self, tombstone_ttl: int) -> int | None:
        """For how long in nanoseconds: not longer than tombstones, which are not kept longer by the events either."""
        return None if self.seconds is None else min(self.seconds, tombstone_ttl) * 1_000_000_000

    def differ(self, config: StreamConfig, tombstone_ttl: int) -> bool:
        """Whether a stream has others."""
        age = self.age(tombstone_ttl)
        return (age is not None and age != config.max_age) or (
            self.bytes is not None and self.bytes != config.max_bytes
        )


def state_name(events: str) -> str:
    """The name of the state stream of a stream of events. Example: `KUBEBRAID_STATE`."""
    return events + STATE_SUFFIX


async def make_state(opened: Log) -> None:
    """Sees to it that a log has its state stream, on as many servers; makes it where there is none.

    Where that is not permitted, another process has to: then it stays without.
    Raises LogError if the stream of that name is another one; BrokerUnavailable.
    """
    connection = opened.connection
    name = state_name(opened.name)
    try:
        try:
            info = await find_stream(connection, name)
        except JetStreamRefused as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise LogError(f"stream {name}: {refused.description}") from refused
            info = await create_stream(connection, state_config(opened))
            log.info("state stream made", stream=name, prefix=opened.prefix)
        checked_state(info, opened.name)
        state = Stream(connection, info)
        if info.config.num_replicas < opened.replicas:
            await change_stream(state, {"num_replicas": opened.replicas})
        if info.config.discard != "new" or info.config.max_age or info.config.max_msgs_per_subject != 1:
            # Set to forget what lives, be it by age or to make room.
            await change_stream(state, {"discard": "new", "max_age": 0, "max_msgs_per_subject": 1})
        if state.created == opened.created:
            opened.state_stream = state
    except BrokerRefuses as refused:
        log.warning("the state stream cannot be made here", stream=name, reason=str(refused))


async def take_over(opened: Log, limits: Limits) -> None:
    """Has the log keep every message for a while, once its state stream has all that it has, and as `limits` say.

    A log of before kept the last message of each subject itself. Any number of processes may do this at once. Where it
    is not permitted, or the state does not come as far in time, the log stays as it is: good, but without a window.
    Raises LogError if the servers refuse the limits; BrokerUnavailable.
    """
    if opened.state_stream is None:
        return
    try:
        config = await _config(opened)
        if config.events_from is None:
            if not await _has_everything(opened.state_stream, opened):
                log.warning("the state stream does not come to its end: no events are kept yet", stream=opened.name)
                return
            # From here on nothing is superseded, and what came before that is not exact.
            if (await _config(opened)).events_from is not None:
                # Another process did it meanwhile.
                return
            await change_stream(opened, {"max_msgs_per_subject": -1})
            since = (await find_stream(opened.connection, opened.name)).state.last_seq
            await _limit(opened, config, limits, {EVENTS_FROM_KEY: str(since)})
            log.info("the log keeps events", stream=opened.name, since=since, seconds=opened.window)
        elif limits.differ(config, opened.tombstone_ttl):
            # What has gone already does not come back with a longer window.
            first = await opened.events.first_since(opened.now() - opened.window * 1_000_000_000 + opened.margin)
            since = await opened.head() if first is None else first - 1
            await _limit(opened, config, limits, {EVENTS_FROM_KEY: str(max(since, opened.events_from))})
    except BrokerRefuses as refused:
        log.warning("the log's window cannot be set here", stream=opened.name, reason=str(refused))


async def _config(opened: Log) -> StreamConfig:
    """The configuration of the events now, which is noted in `opened`."""
    info = await find_stream(opened.connection, opened.name)
    opened.note(info)
    return info.config


async def _limit(opened: Log, config: StreamConfig, limits: Limits, metadata: dict[str, str]) -> None:
    """Sets the limits of the events; those that are not wanted otherwise stay, or are the usual ones."""
    age = limits.age(opened.tombstone_ttl) or config.max_age
    if config.events_from is None and limits.seconds is None:
        age = Limits(USUAL_SECONDS).age(opened.tombstone_ttl) or 0
    most = limits.bytes or (config.max_bytes if config.max_bytes > 0 else USUAL_BYTES)
    lowered = False
    while True:
        changes: dict[str, object] = {
            "max_msgs_per_subject": -1,
            "max_age": age,
            "max_bytes": most,
            "discard": "old",
        }
        if not opened.mirror:
            changes["allow_atomic"] = True
        try:
            await change_stream(opened, changes, metadata)
            break
        except LogError as refused:
            # The server sets as much aside; with a small disk the usual limit may be more than it has.
            cause = refused.__cause__
            full = isinstance(cause, JetStreamRefused) and cause.code == _NO_STORAGE
            if not full or limits.bytes is not None or config.max_bytes > 0 or most <= _FEWEST_BYTES:
                raise
            most //= 2
            lowered = True
    if lowered:
        # It was nearly all that they have, and the state needs room, too.
        await change_stream(opened, {"max_bytes": max(most // 4, _FEWEST_BYTES)})
    opened.atomic = not opened.mirror
    await _config(opened)


async def _has_everything(state: Stream, opened: Log) -> bool:
    """Whether the state has, or soon gets, all that the log has. Example: 1,000 subjects of 5,000 messages in both."""
    backoff = Backoff(0.01, 1.0)
    until = time.monotonic() + _FILLED_WITHIN
    said = time.monotonic() + 1.0
    while True:
        # In this order: what has gone from the log by now does not count, and what comes meanwhile is more there.
        had = (await find_stream(opened.connection, opened.name)).state
        has = (await find_stream(opened.connection, state.name)).state
        if has.last_seq >= had.last_seq and has.num_subjects >= had.num_subjects:
            return True
        if time.monotonic() > until:
            return False
        if time.monotonic() > said:
            said = until
            log.info("the state stream is being filled", stream=state.name, has=has.num_subjects, of=had.num_subjects)
        await backoff.wait()


def state_config(opened: Log) -> dict[str, object]:
    """The configuration of a log's state stream."""
    return {
        "name": state_name(opened.name),
        "description": f"kubebraid: the last message of each subject of {opened.name}",
        "mirror": {"name": opened.name},
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "max_msgs_per_subject": 1,
        "num_replicas": opened.replicas,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "metadata": {
            PREFIX_KEY: opened.prefix,
            FORMAT_KEY: "1",
            TOMBSTONE_TTL_KEY: str(opened.tombstone_ttl),
            CREATED_KEY: opened.created,
        },
    }


def checked_state(info: StreamInfo, events: str) -> StreamInfo:
    """The stream, if it is the state of `events`. Raises LogError."""
    mirrored = info.config.mirror
    if mirrored is None or mirrored.name != events or CREATED_KEY not in info.config.metadata:
        raise LogError(
            f"stream {info.config.name} is there and not the state of {events}; choose another name with `name`"
        )
    return info
