"""The state stream: a mirror of a log's stream on the same servers that keeps the last message of each subject.

The log's own stream, the events, keeps every message for a while; the state keeps what is, for ever, under the same
sequences. JetStream: nats-server docs "Source and Mirror", ADR-43 (message TTL: tombstones expire in the state, too).
"""

from __future__ import annotations

import time

import msgspec
import structlog

from deltalog.jetstream.backoff import Backoff
from deltalog.jetstream.connection import JetStreamRefused
from deltalog.jetstream.making import KEEPS_LAST, NO_STORAGE, change_stream, create_stream, find_stream
from deltalog.jetstream.stream import STREAM_NOT_FOUND, Log, LogError, Stream
from deltalog.jetstream.stream_info import (
    CREATED_KEY,
    EVENTS_FROM_KEY,
    FORMAT_KEY,
    PREFIX_KEY,
    STATE_FROM_KEY,
    STATE_SUFFIX,
    TOMBSTONE_TTL_KEY,
    StreamConfig,
    StreamInfo,
    timestamp,
)

log = structlog.get_logger("deltalog.state")

USUAL_SECONDS = 3600
USUAL_BYTES = 2 * 1024**3
# The usual limit is not lowered below this where the servers have less room.
_FEWEST_BYTES = 1024**2
# How often it is tried to set the limits, where others set them at the same time.
_ATTEMPTS = 5
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
    """Sees to it that a log has its state stream, on as many servers and under its name; makes it where there is none.

    One that is of a stream which was deleted is made anew. Where the events have lost their beginning by then, it says
    up to where it may lack messages (`StreamState.lacks_to`), so that producers append them again.
    Raises LogError if the stream of that name is another one; BrokerRefuses if that is not permitted;
    BrokerUnavailable.
    """
    connection, name = opened.connection, state_name(opened.name)
    opened.state_stream = None
    try:
        info = checked_state(await find_stream(connection, name), opened.name)
        if info.made != opened.created:
            if (await find_stream(connection, opened.name)).made != opened.created:
                # It is this log that is out of date.
                return
            await delete_state(opened, "it is of a stream that was deleted")
            info = await _made(opened)
    except JetStreamRefused as refused:
        if refused.code != STREAM_NOT_FOUND:
            raise LogError(f"stream {name}: {refused.description}") from refused
        info = await _made(opened)
    state = Stream(connection, info)
    if info.config.num_replicas < opened.replicas:
        await change_stream(state, {"num_replicas": opened.replicas})
    if info.config.discard != "new" or info.config.max_age or info.config.max_msgs_per_subject != 1:
        # Set to forget what lives, be it by age or to make room.
        await change_stream(state, {"discard": "new", "max_age": 0, "max_msgs_per_subject": 1})
    if state.prefix != opened.prefix:
        await change_stream(state, {}, {PREFIX_KEY: opened.prefix})
    opened.state_stream = state


async def delete_state(opened: Log, reason: str) -> None:
    """Deletes a state stream that cannot be right, so that it is made anew. Raises as `make_state`."""
    name = state_name(opened.name)
    log.warning("the state stream is made anew", stream=name, reason=reason)
    try:
        await opened.connection.api(f"STREAM.DELETE.{name}", timeout=30.0)
    except JetStreamRefused as refused:
        if refused.code != STREAM_NOT_FOUND:
            raise LogError(f"stream {name}: {refused.description}") from refused


async def _made(opened: Log) -> StreamInfo:
    config = state_config(opened)
    events = await find_stream(opened.connection, opened.name)
    opened.note(events)
    state = events.state_now()
    if opened.window and not await opened.kept_until(0, state):
        lacks_to = state.last_sequence
        config["metadata"] = {**state_metadata(opened), **lacking(opened, lacks_to)}
        log.warning("the events have lost their beginning: producers append it again", up_to=lacks_to)
    info = checked_state(await create_stream(opened.connection, config), opened.name)
    log.info("state stream made", stream=info.config.name, prefix=opened.prefix)
    return info


def lacking(opened: Log, lacks_to: int) -> dict[str, str]:
    """The metadata of a state stream that may lack messages up to a sequence, found now."""
    return {STATE_FROM_KEY: f"{lacks_to} {timestamp(opened.now())}"}


async def take_over(opened: Log, limits: Limits) -> None:
    """Has the log keep every message for a while, once its state stream has all that it has, and as `limits` say.

    A log of before kept the last message of each subject itself. Any number of processes may do this at once. Where the
    state does not come as far in time, the log stays as it is: good, but without a window.
    Raises LogError if the servers refuse the limits; BrokerRefuses if it is not permitted; BrokerUnavailable.
    """
    if opened.state_stream is None:
        return
    for _ in range(_ATTEMPTS):
        config = await _config(opened)
        if config.events_from is not None:
            break
        if not await _has_everything(opened.state_stream, opened):
            log.warning("the state stream does not come to its end: no events are kept yet", stream=opened.name)
            return
        config = await _config(opened)
        if config.events_from is not None:
            break
        if config.max_msgs_per_subject != -1:
            await change_stream(opened, {"max_msgs_per_subject": -1})
        # From here on nothing is superseded, and what came before that is not exact.
        since = (await find_stream(opened.connection, opened.name)).state.last_seq
        await _limit(opened, config, limits, {EVENTS_FROM_KEY: str(since)})
        # Who changes the same at the same time may have taken it back: neither knows of the other.
        log.info("the log keeps events", stream=opened.name, since=since, seconds=opened.window)
    if limits.differ(config, opened.tombstone_ttl) and opened.window:
        # What has gone already does not come back with a longer window.
        first = await opened.events.first_since(opened.now() - opened.window * 1_000_000_000 + opened.margin)
        since = await opened.head() if first is None else first - 1
        await _limit(opened, config, limits, {EVENTS_FROM_KEY: str(max(since, opened.events_from))})


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
            full = isinstance(cause, JetStreamRefused) and cause.code == NO_STORAGE
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
        **KEEPS_LAST,
        "num_replicas": opened.replicas,
        "metadata": state_metadata(opened),
    }


def state_metadata(opened: Log) -> dict[str, str]:
    """Which history a state stream is of."""
    return {
        PREFIX_KEY: opened.prefix,
        FORMAT_KEY: "1",
        TOMBSTONE_TTL_KEY: str(opened.tombstone_ttl),
        CREATED_KEY: opened.created,
    }


def checked_state(info: StreamInfo, events: str) -> StreamInfo:
    """The stream, if it is the state of `events`. Raises LogError."""
    mirrored = info.config.mirror
    if mirrored is None or mirrored.name != events or CREATED_KEY not in info.config.metadata:
        raise LogError(
            f"stream {info.config.name} is there and not the state of {events}; choose another name with `name`"
        )
    return info
