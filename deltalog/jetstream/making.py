"""Streams are looked up, made and changed by JetStream's API, also while its servers still agree on them.

JetStream: nats-server docs "Streams", `STREAM.INFO`, `STREAM.CREATE`, `STREAM.UPDATE`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import msgspec
from nats.errors import NoRespondersError

from deltalog.jetstream.connection import BrokerUnavailable, Connection, JetStreamRefused
from deltalog.jetstream.stream import STREAM_NOT_FOUND, LogError, Stream
from deltalog.jetstream.stream_info import StreamInfo

_NAME_IN_USE = 10058
# Not clustered, no peers for it.
_NO_ROOM_FOR_REPLICAS = (10074, 10005)
NO_STORAGE = 10047
"""JetStream's code: less than the stream's max_bytes is left of the servers' storage."""
# How long servers may take to agree on a stream that one of them was asked for, in seconds.
_AGREED_WITHIN = 10.0
KEEPS_LAST: Mapping[str, object] = {
    "retention": "limits",
    "storage": "file",
    # Where it is full, it refuses: nothing that lives makes room.
    "discard": "new",
    "max_consumers": -1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msg_size": -1,
    "max_msgs_per_subject": 1,
    "allow_direct": True,
    "allow_msg_ttl": True,
}
"""Of a stream's configuration: it keeps the last message of each subject for ever, whatever that takes."""
# How long one request that makes or changes a stream may take, in seconds.
_ANSWER_WITHIN = 3.0


async def find_stream(connection: Connection, name: str, *, made: bool = False) -> StreamInfo:
    """A stream's configuration and state, also while its servers elect a leader and none of them answers.

    `made`: it was just made, so where it is not found the servers have not yet agreed on it.
    Raises JetStreamRefused (STREAM_NOT_FOUND: there is none), BrokerUnavailable.
    """
    return msgspec.json.decode(await _found(connection, name, made=made), type=StreamInfo)


async def _found(connection: Connection, name: str, *, made: bool = False) -> msgspec.Raw:
    until = time.monotonic() + _AGREED_WITHIN
    while True:
        try:
            return await connection.api(f"STREAM.INFO.{name}", timeout=2.0)
        except JetStreamRefused as refused:
            if not made or refused.code != STREAM_NOT_FOUND or time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)
        except BrokerUnavailable as cause:
            hopeless = isinstance(cause.__cause__, NoRespondersError) or connection.client.is_closed
            if hopeless or time.monotonic() > until or connection.refusal(f"{connection.js}.STREAM.INFO.{name}"):
                raise
            await asyncio.sleep(0.1)


async def create_stream(connection: Connection, config: dict[str, object]) -> StreamInfo:
    """Makes a stream, or finds that another process has. Raises LogError, BrokerUnavailable."""
    name = str(config["name"])
    until = time.monotonic() + _AGREED_WITHIN
    while True:
        try:
            await connection.api(f"STREAM.CREATE.{name}", config, timeout=_ANSWER_WITHIN)
        except JetStreamRefused as refused:
            # Another instance may have made it in the meantime: then its settings, and its prefix, hold.
            if refused.code != _NAME_IN_USE:
                raise LogError(f"stream {name} cannot be made: {refused.description}{_remedy(refused)}") from refused
        except BrokerUnavailable:
            if time.monotonic() > until or not _left_unanswered(connection, f"STREAM.CREATE.{name}"):
                raise
            continue
        break
    try:
        return await find_stream(connection, name, made=True)
    except JetStreamRefused as refused:
        raise LogError(f"stream {name}: {refused.description}") from refused


async def change_stream(stream: Stream, changes: dict[str, object], metadata: dict[str, str] | None = None) -> None:
    """Changes settings of a stream (JetStream's own keys), some of its metadata. Raises LogError, BrokerUnavailable.

    The servers do not compare before: of two that change other settings at once, one may have to do it again.
    """
    connection, name = stream.connection, stream.name
    until = time.monotonic() + _AGREED_WITHIN
    while True:
        config = {**msgspec.json.decode(await _found(connection, name))["config"], **changes}
        if metadata:
            config["metadata"] = {**config["metadata"], **metadata}
        try:
            await connection.api(f"STREAM.UPDATE.{name}", config, timeout=_ANSWER_WITHIN)
        except JetStreamRefused as refused:
            wanted = changes.get("num_replicas")
            what = f"cannot have {wanted} replicas" if wanted else f"cannot be given {changes}"
            raise LogError(f"stream {name} {what}: {refused.description}{_remedy(refused)}") from refused
        except BrokerUnavailable:
            if time.monotonic() > until or not _left_unanswered(connection, f"STREAM.UPDATE.{name}"):
                raise
            continue
        return


def _left_unanswered(connection: Connection, verb: str) -> bool:
    """Whether a request can be repeated: servers drop one whose stream another process makes or changes meanwhile."""
    return connection.connected and not connection.refusal(f"{connection.js}.{verb}")


def _remedy(refused: JetStreamRefused) -> str:
    if refused.code in _NO_ROOM_FOR_REPLICAS:
        return "; start more NATS servers with JetStream, or ask for fewer with `replicas`"
    if refused.code == NO_STORAGE:
        return "; give the servers more of the disk (`max_file_store`), or ask for less with `events_bytes`"
    return ""
