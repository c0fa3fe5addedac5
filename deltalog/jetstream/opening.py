"""Streams are found, made and changed: that of the log, those of copies, and those of buckets.

JetStream: nats-server docs "Streams", ADR-36 (subject transforms), ADR-43 (message TTL), ADR-50 (atomic batches).
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time

import msgspec
from nats.errors import NoRespondersError

from deltalog.jetstream.connection import BrokerUnavailable, Connection, JetStreamRefused
from deltalog.jetstream.stream import STREAM_NOT_FOUND, Log, LogError, Stream, checked_log
from deltalog.jetstream.stream_info import COPY_KEY, DEFAULT_NAME, FORMAT_KEY, PREFIX_KEY, TOMBSTONE_TTL_KEY, StreamInfo
from deltalog.wire.subjects import STREAM_SUBJECTS

_NAME_IN_USE = 10058
# What a stream's configuration says about that stream alone, or about its servers.
_OWN = ("num_replicas", "placement", "mirror", "sources", "republish", "sealed")
# Not clustered, no peers for it.
_NO_ROOM_FOR_REPLICAS = (10074, 10005)
# How long servers may take to agree on a stream that one of them was asked for, in seconds.
_AGREED_WITHIN = 10.0


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the stream is made. `tombstone_ttl` in seconds; `prefix` None: 8 random characters.

    `replicas`: servers that hold it; one that has fewer gets them. None: 1, or as many as it has.
    """

    name: str = DEFAULT_NAME
    history: int = 1
    replicas: int | None = None
    tombstone_ttl: int = 24 * 3600
    prefix: str | None = None


def next_prefix(prefix: str) -> str:
    """Another name for a history: random, or with a random end where the name was chosen."""
    fresh = secrets.token_hex(4)
    if re.fullmatch("[0-9a-f]{8}", prefix):
        return fresh
    # A prefix has 64 characters at most.
    return f"{re.sub('-[0-9a-f]{8}$', '', prefix)[:55]}-{fresh}"


async def open_log(
    connection: Connection, settings: LogSettings | None = None, *, make: bool = True, mend: bool = False
) -> Log:
    """Opens the log's stream, making it first where there is none, unless `make` says that there has to be one.

    `mend`: where it is set to forget objects that live, be it by age or to make room, that is changed.
    Raises LogError if a stream of that name or with these subjects is not ours, or the servers cannot hold it as
    wanted; BrokerUnavailable if NATS doesn't answer.
    """
    settings = settings or LogSettings()
    try:
        info = checked_log(await find_stream(connection, settings.name))
        opened = Log(connection, info)
        changes: dict[str, object] = {}
        if make and (settings.replicas or 0) > opened.replicas:
            changes["num_replicas"] = opened.replicas = settings.replicas or 1
        forgets = info.config.discard != "new" or bool(info.config.max_age)
        if mend and not opened.mirror and (forgets or not info.config.allow_atomic):
            changes |= {"discard": "new", "max_age": 0, "allow_atomic": True}
        if changes:
            await change_stream(opened, changes)
            opened.atomic = opened.atomic or "allow_atomic" in changes
        return opened
    except JetStreamRefused as refused:
        if refused.code != STREAM_NOT_FOUND:
            raise LogError(f"stream {settings.name}: {refused.description}") from refused
    if not make:
        raise LogError(f"there is no stream {settings.name} at {connection.url}; name it with `name`")
    # The first log takes in subjects as they are; others, shards, below their name.
    root = "" if settings.name == DEFAULT_NAME else f"{settings.name}."
    config: dict[str, object] = {
        "name": settings.name,
        "description": "kubebraid: deltas of Kubernetes clusters, one subject per object",
        "subjects": [root + subject for subject in STREAM_SUBJECTS],
        "retention": "limits",
        "storage": "file",
        # Where the stream is limited, appends are refused and tried again; nothing that lives makes room.
        "discard": "new",
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_age": 0,
        "max_msg_size": -1,
        "max_msgs_per_subject": settings.history,
        "num_replicas": settings.replicas or 1,
        # Compare-and-set makes message ids needless; a window of ids costs the server memory per message.
        "duplicate_window": 100_000_000,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "allow_atomic": True,
        "metadata": {
            PREFIX_KEY: settings.prefix or secrets.token_hex(4),
            FORMAT_KEY: "1",
            TOMBSTONE_TTL_KEY: str(settings.tombstone_ttl),
        },
    }
    if root:
        config["subject_transform"] = {"src": f"{root}>", "dest": ">"}
    return Log(connection, checked_log(await create_stream(connection, config)))


async def find_stream(connection: Connection, name: str, *, made: bool = False) -> StreamInfo:
    """A stream's configuration and state, also while its servers elect a leader and none of them answers.

    `made`: it was just made, so where it is not found the servers have not yet agreed on it.
    Raises JetStreamRefused (STREAM_NOT_FOUND: there is none), BrokerUnavailable.
    """
    until = time.monotonic() + _AGREED_WITHIN
    while True:
        try:
            raw = await connection.api(f"STREAM.INFO.{name}", timeout=2.0)
            return msgspec.json.decode(raw, type=StreamInfo)
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
    try:
        await connection.api(f"STREAM.CREATE.{name}", config, timeout=10.0)
    except JetStreamRefused as refused:
        # Another instance may have made it in the meantime: then its settings, and its prefix, hold.
        if refused.code != _NAME_IN_USE:
            raise LogError(f"stream {name} cannot be made: {refused.description}{_remedy(refused)}") from refused
    try:
        return await find_stream(connection, name, made=True)
    except JetStreamRefused as refused:
        raise LogError(f"stream {name}: {refused.description}") from refused


async def change_stream(stream: Stream, changes: dict[str, object]) -> None:
    """Changes settings of a stream (JetStream's own keys). Raises LogError, BrokerUnavailable."""
    raw = await stream.connection.api(f"STREAM.INFO.{stream.name}")
    config = {**msgspec.json.decode(raw)["config"], **changes}
    try:
        await stream.connection.api(f"STREAM.UPDATE.{stream.name}", config, timeout=10.0)
    except JetStreamRefused as refused:
        wanted = changes.get("num_replicas")
        what = f"cannot have {wanted} replicas" if wanted else f"cannot be given {changes}"
        raise LogError(f"stream {stream.name} {what}: {refused.description}{_remedy(refused)}") from refused


def _remedy(refused: JetStreamRefused) -> str:
    if refused.code in _NO_ROOM_FOR_REPLICAS:
        return "; start more NATS servers with JetStream, or ask for fewer with `replicas`"
    return ""


async def open_copy(connection: Connection, name: str, log: Log) -> Stream:
    """Opens the stream that holds a copy of a log's messages, making it first, as that log's is, where there is none.

    It takes subjects in below its name and stores them without, as a shard does, so it may be beside the log. It is no
    log itself: its sequences are its own, and payloads speak of those of `log`. Raises LogError, BrokerUnavailable.
    """
    root = f"{name}."
    try:
        info = await find_stream(connection, name)
    except JetStreamRefused as refused:
        if refused.code != STREAM_NOT_FOUND:
            raise LogError(f"stream {name}: {refused.description}") from refused
        raw = await log.connection.api(f"STREAM.INFO.{log.name}")
        config = msgspec.json.decode(raw)["config"]
        config = {
            **{key: value for key, value in config.items() if key not in _OWN},
            "name": name,
            "description": f"kubebraid: a copy of stream {log.name}",
            # Two that copy the same at the same time.
            "duplicate_window": 120_000_000_000,
            "metadata": {COPY_KEY: log.prefix},
            "subjects": [root + subject for subject in STREAM_SUBJECTS],
            "subject_transform": {"src": f"{root}>", "dest": ">"},
        }
        info = await create_stream(connection, config)
    if COPY_KEY not in info.config.metadata or any(root + one not in info.config.subjects for one in STREAM_SUBJECTS):
        raise LogError(f"stream {name} at {connection.url} was not made for copies; choose another name")
    return Stream(connection, info)
