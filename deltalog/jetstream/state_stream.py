"""The state stream: a mirror of a log's stream on the same servers that keeps the last message of each subject.

The log's own stream, the events, keeps every message for a while; the state keeps what is, for ever, under the same
sequences. JetStream: nats-server docs "Source and Mirror", ADR-43 (message TTL: tombstones expire in the state, too).
"""

from __future__ import annotations

import structlog

from deltalog.jetstream.connection import BrokerRefuses, JetStreamRefused
from deltalog.jetstream.making import change_stream, create_stream, find_stream
from deltalog.jetstream.stream import STREAM_NOT_FOUND, Log, LogError, Stream
from deltalog.jetstream.stream_info import (
    CREATED_KEY,
    FORMAT_KEY,
    PREFIX_KEY,
    STATE_SUFFIX,
    TOMBSTONE_TTL_KEY,
    StreamInfo,
)

log = structlog.get_logger("deltalog.state")


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
        if state.created == opened.created:
            opened.state_stream = state
    except BrokerRefuses as refused:
        log.warning("the state stream cannot be made here", stream=name, reason=str(refused))


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
