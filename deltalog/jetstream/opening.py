"""The log is opened, and made where there is none; so are copies of its messages.

JetStream: nats-server docs "Streams", ADR-36 (subject transforms), ADR-43 (message TTL), ADR-50 (atomic batches).
"""

from __future__ import annotations

import re
import secrets

import msgspec
import structlog

from deltalog.jetstream.compression import Compression, compress, compression_for
from deltalog.jetstream.connection import BrokerRefuses, Connection, JetStreamRefused
from deltalog.jetstream.making import KEEPS_LAST, change_stream, create_stream, find_stream
from deltalog.jetstream.state_stream import Limits, make_state, take_over
from deltalog.jetstream.stream import STREAM_NOT_FOUND, Log, LogError, Stream, checked_log
from deltalog.jetstream.stream_info import (
    COMPRESSION_KEY,
    COPY_KEY,
    DEFAULT_NAME,
    FORMAT_KEY,
    PREFIX_KEY,
    TOMBSTONE_TTL_KEY,
)
from deltalog.wire.subjects import STREAM_SUBJECTS

log = structlog.get_logger("deltalog.state")

# Random prefixes; those of older releases may begin with a digit.
_RANDOM = "[0-9a-f]{8}"
# What a stream's configuration says about that stream alone, or about its servers.
_OWN = ("num_replicas", "placement", "mirror", "sources", "republish", "sealed")


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the stream is made. `tombstone_ttl` in seconds; `prefix` None: 8 random characters.

    `replicas`: servers that hold it; one that has fewer gets them. None: 1, or as many as it has.
    `events`: for how many seconds every message is kept, but not longer than tombstones; `events_bytes`: in how many
    bytes at most, so that the oldest go first. None: as it is; an hour and 2 GiB where it is made.
    `compression`: how the servers keep the events (`deltalog.jetstream.compression`). None: as was wanted before, or
    else compressed, where they can do that.
    """

    name: str = DEFAULT_NAME
    replicas: int | None = None
    tombstone_ttl: int = 24 * 3600
    prefix: str | None = None
    events: int | None = None
    events_bytes: int | None = None
    compression: Compression | None = None


def random_prefix() -> str:
    """A name for a history: 8 random hexadecimal digits, the first of them a letter.

    Some consoles read versions as numbers, as far as they are one, and drop an event whose number is not above the
    list's: of `8b187de1.3087` that would be 8, of `b187de15.3087` it is none.
    """
    return secrets.choice("abcdef") + secrets.token_hex(4)[1:]


def next_prefix(prefix: str) -> str:
    """Another name for a history: random, or with a random end where the name was chosen."""
    fresh = random_prefix()
    if re.fullmatch(_RANDOM, prefix):
        return fresh
    # A prefix has 64 characters at most.
    return f"{re.sub(f'-{_RANDOM}$', '', prefix)[:55]}-{fresh}"


async def open_log(
    connection: Connection, settings: LogSettings | None = None, *, make: bool = True, mend: bool = False
) -> Log:
    """Opens the log's stream, making it first where there is none, unless `make` says that there has to be one.

    `mend`: where it is set to forget objects that live, be it by age or to make room, that is changed.
    Raises LogError if a stream of that name or with these subjects is not ours, or the servers cannot hold it as
    wanted; BrokerUnavailable if NATS doesn't answer.
    """
    settings = settings or LogSettings()
    opened = await _found(connection, settings, make=make, mend=mend)
    if opened is None:
        if not make:
            raise LogError(f"there is no stream {settings.name} at {connection.url}; name it with `name`")
        opened = await _made(connection, settings)
    if make and not opened.mirror:
        try:
            await make_state(opened)
            await take_over(opened, Limits(settings.events, settings.events_bytes))
            await compress(opened, settings.compression)
        except BrokerRefuses as refused:
            # Another process has to.
            log.warning("the log's streams cannot be set up here", stream=opened.name, reason=str(refused))
            await opened.find_state()
    else:
        await opened.find_state()
    return opened


async def _found(connection: Connection, settings: LogSettings, *, make: bool, mend: bool) -> Log | None:
    """The log that there is, changed as it is wanted; None if there is none."""
    try:
        info = checked_log(await find_stream(connection, settings.name))
        opened = Log(connection, info)
        changes: dict[str, object] = {}
        if make and (settings.replicas or 0) > opened.replicas:
            changes["num_replicas"] = opened.replicas = settings.replicas or 1
        forgets = info.config.discard != "new" or bool(info.config.max_age)
        # With a state stream the events may forget: nothing that lives goes with them.
        if mend and not opened.mirror and not opened.window and (forgets or not info.config.allow_atomic):
            changes |= {"discard": "new", "max_age": 0, "allow_atomic": True}
        if changes:
            await change_stream(opened, changes)
            opened.atomic = opened.atomic or "allow_atomic" in changes
        return opened
    except JetStreamRefused as refused:
        if refused.code != STREAM_NOT_FOUND:
            raise LogError(f"stream {settings.name}: {refused.description}") from refused
    return None


async def _made(connection: Connection, settings: LogSettings) -> Log:
    # The first log takes in subjects as they are; others, shards, below their name.
    root = "" if settings.name == DEFAULT_NAME else f"{settings.name}."
    config: dict[str, object] = {
        "name": settings.name,
        "description": "kubebraid: deltas of Kubernetes clusters, one subject per object",
        "subjects": [root + subject for subject in STREAM_SUBJECTS],
        # Until it has a state stream (`take_over`): then what is oldest makes room.
        **KEEPS_LAST,
        "num_replicas": settings.replicas or 1,
        # Compare-and-set makes message ids needless; a window of ids costs the server memory per message.
        "duplicate_window": 100_000_000,
        "allow_atomic": True,
        "compression": compression_for(connection, settings.compression),
        "metadata": {
            PREFIX_KEY: settings.prefix or random_prefix(),
            FORMAT_KEY: "1",
            TOMBSTONE_TTL_KEY: str(settings.tombstone_ttl),
            **({COMPRESSION_KEY: settings.compression} if settings.compression else {}),
        },
    }
    if root:
        config["subject_transform"] = {"src": f"{root}>", "dest": ">"}
    return Log(connection, checked_log(await create_stream(connection, config)))


async def open_copy(connection: Connection, name: str, source: Log) -> Stream:
    """Opens the stream that holds a copy of a log's messages, making it first, as that log's is, where there is none.

    It takes subjects in below its name and stores them without, as a shard does, so it may be beside the log. It is no
    log itself: its sequences are its own, and payloads speak of those of `source`. Raises LogError, BrokerUnavailable.
    """
    root = f"{name}."
    try:
        info = await find_stream(connection, name)
    except JetStreamRefused as refused:
        if refused.code != STREAM_NOT_FOUND:
            raise LogError(f"stream {name}: {refused.description}") from refused
        raw = await source.connection.api(f"STREAM.INFO.{source.name}")
        config = msgspec.json.decode(raw)["config"]
        config = {
            **{key: value for key, value in config.items() if key not in _OWN},
            "name": name,
            "description": f"kubebraid: a copy of stream {source.name}",
            # What is, and not what happened: as the log's state stream.
            "max_msgs_per_subject": 1,
            "max_age": 0,
            "max_bytes": -1,
            "discard": "new",
            # Of the events only (`deltalog.jetstream.compression`).
            "compression": "none",
            # Two that copy the same at the same time.
            "duplicate_window": 120_000_000_000,
            "metadata": {COPY_KEY: source.prefix},
            "subjects": [root + subject for subject in STREAM_SUBJECTS],
            "subject_transform": {"src": f"{root}>", "dest": ">"},
        }
        info = await create_stream(connection, config)
    if COPY_KEY not in info.config.metadata or any(root + one not in info.config.subjects for one in STREAM_SUBJECTS):
        raise LogError(f"stream {name} at {connection.url} was not made for copies; choose another name")
    return Stream(connection, info)
