"""The stream that holds the log: made, inspected, named by its history.

The stream's metadata carries the name of the history (the *prefix* of every resourceVersion served from it)
and the tombstone time. JetStream: nats-server docs "Streams", ADR-8 (direct get), ADR-43 (message TTL).
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from nats.errors import NoRespondersError

from deltalog.jetstream.connection import BrokerUnavailable, Connection, JetStreamRefused
from deltalog.wire.errors import LogUnavailable
from deltalog.wire.subjects import STREAM_SUBJECTS

PREFIX_KEY = "kubebraid.io/prefix"
FORMAT_KEY = "kubebraid.io/format"
TOMBSTONE_TTL_KEY = "kubebraid.io/tombstone-ttl"
# Of a mirror: when the stream was made that it mirrors.
CREATED_KEY = "kubebraid.io/created"
COPY_KEY = "kubebraid.io/copy-of"

DEFAULT_NAME = "KUBEBRAID"

STREAM_NOT_FOUND = 10059
_NAME_IN_USE = 10058
# What a stream's configuration says about that stream alone, or about its servers.
_OWN = ("num_replicas", "placement", "mirror", "sources", "republish", "sealed")
_MESSAGE_NOT_FOUND = 10037
# Messages of a batch; the fewer, the sooner each is readable.
_BATCH = 500
# Not clustered, no peers for it.
_NO_ROOM_FOR_REPLICAS = (10074, 10005)
# How long servers may take to agree on a stream that one of them was asked for, in seconds.
_AGREED_WITHIN = 10.0


class LogError(LogUnavailable):
    """The stream exists but cannot serve as this log; the message says what to change.

    It names fields of the settings in backquotes, as `BadAccess` does.
    """


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the stream is made. `tombstone_ttl` in seconds; `prefix` None: 8 random characters.

    `replicas`: servers that hold it; one that has fewer gets them. None: 1, or as many as it has.
    """

    name: str = DEFAULT_NAME
    history: int = 1
    replicas: int | None = None
    tombstone_ttl: int = 24 * 3600
    prefix: str | None = None


class HistoryIdentity(NamedTuple):
    """Which history is meant: when its stream was created, as JetStream writes it, and its prefix."""

    created: str
    prefix: str


class StreamState(msgspec.Struct, frozen=True):
    """The extent of the log now. `last_time` in nanoseconds since 1970, 0 in a stream never written to.

    `silent`: seconds since a mirror heard of the stream that it mirrors, infinite if it never did.
    """

    messages: int
    subjects: int
    first_sequence: int
    last_sequence: int
    last_time: int
    created: str
    prefix: str
    silent: float = 0.0

    @property
    def identity(self) -> HistoryIdentity:
        return HistoryIdentity(self.created, self.prefix)


class _State(msgspec.Struct):
    messages: int
    first_seq: int
    last_seq: int
    last_ts: str = ""
    num_subjects: int = 0


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


class _Config(msgspec.Struct):
    name: str
    mirror: _Mirror | None = None
    discard: str = ""
    max_age: int = 0
    allow_atomic: bool = False
    subjects: list[str] = []
    subject_transform: _Transform | None = None
    metadata: dict[str, str] = {}
    allow_msg_ttl: bool = False
    num_replicas: int = 1
    max_msgs_per_subject: int = -1


class _Info(msgspec.Struct):
    config: _Config
    state: _State
    created: str
    ts: str = ""
    mirror: _Heard | None = None

    @property
    def made(self) -> str:
        """When the history was begun: of a mirror, when its origin was made."""
        return self.config.metadata.get(CREATED_KEY, "") if self.config.mirror is not None else self.created

    def state_now(self) -> StreamState:
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
        )


class _Message(msgspec.Struct):
    subject: str
    seq: int
    time: str
    data: bytes = b""
    hdrs: bytes = b""


class _MessageAnswer(msgspec.Struct):
    message: _Message


def nanoseconds(timestamp: str) -> int:
    """A server's RFC 3339 time with up to nine decimals, as nanoseconds since 1970; 0 for its zero time."""
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
    """What `nanoseconds` reads."""
    whole = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{nanoseconds % 1_000_000_000:09d}Z"


def next_prefix(prefix: str) -> str:
    """Another name for a history: random, or with a random end where somebody chose the name."""
    fresh = secrets.token_hex(4)
    if re.fullmatch("[0-9a-f]{8}", prefix):
        return fresh
    # A prefix has 64 characters at most.
    return f"{re.sub('-[0-9a-f]{8}$', '', prefix)[:55]}-{fresh}"


class Stream:
    """An opened stream: its identity and the questions one may ask it. `prefix` is empty if it is no log."""

    def __init__(self, connection: Connection, info: _Info) -> None:
        self.connection = connection
        self.name = info.config.name
        self.created = info.made
        self.mirror = info.config.mirror is not None
        self.prefix = info.config.metadata.get(PREFIX_KEY, "")
        self._clock_offset = 0
        self._note_clock(info)

    @property
    def identity(self) -> HistoryIdentity:
        """Which history this is, as of when the stream was opened (or opened again)."""
        return HistoryIdentity(self.created, self.prefix)

    @property
    def created_at(self) -> int:
        """When the stream was made, nanoseconds since 1970."""
        return nanoseconds(self.created)

    def now(self) -> int:
        """The time by the server's clock, in nanoseconds since 1970: the one that messages are stored by."""
        return time.time_ns() + self._clock_offset

    def _note_clock(self, info: _Info) -> None:
        if info.ts:
            self._clock_offset = nanoseconds(info.ts) - time.time_ns()

    async def state(self) -> StreamState:
        """The stream's extent and identity, asked of the stream's leader."""
        info = await _info(self.connection, self.name)
        self._note_clock(info)
        return info.state_now()

    async def head(self) -> int:
        """The sequence of the last message."""
        return (await self.state()).last_sequence

    async def last(self, subject: str) -> tuple[int, bytes] | None:
        """Sequence and payload of a subject's last message, from the leader; None if there is none."""
        return await self._message({"last_by_subj": subject})

    async def message(self, sequence: int) -> bytes | None:
        """The payload of message `sequence`; None if it is no more."""
        found = await self._message({"seq": sequence})
        return None if found is None else found[1]

    async def message_time(self, sequence: int) -> int | None:
        """When message `sequence` was stored, nanoseconds since 1970; None if it is no more."""
        try:
            raw = await self.connection.api(f"STREAM.MSG.GET.{self.name}", {"seq": sequence})
        except JetStreamRefused as refused:
            if refused.code == _MESSAGE_NOT_FOUND:
                return None
            raise
        return nanoseconds(msgspec.json.decode(raw, type=_MessageAnswer).message.time)

    async def first_since(self, time: int) -> int | None:
        """The sequence of the first message stored at `time` (ns since 1970) or later; None if there is none."""
        found = await self._message({"start_time": timestamp(time)})
        return None if found is None else found[0]

    async def _message(self, query: dict[str, object]) -> tuple[int, bytes] | None:
        try:
            raw = await self.connection.api(f"STREAM.MSG.GET.{self.name}", query)
        except JetStreamRefused as refused:
            if refused.code == _MESSAGE_NOT_FOUND:
                return None
            raise
        message = msgspec.json.decode(raw, type=_MessageAnswer).message
        return message.seq, message.data

    async def purge(self, subject_filter: str, below: int) -> None:
        """Removes the messages of the subjects in `subject_filter` with a sequence lower than `below`."""
        await self.connection.api(f"STREAM.PURGE.{self.name}", {"filter": subject_filter, "seq": below}, timeout=30.0)


class Log(Stream):
    """The stream that holds the log. `ingest`: what stands before a subject where it is sent, not where it is stored.

    Several logs of one account cannot take in the same subjects; what they hold has the same ones all the same
    (ADR-36, subject transforms), so that only who appends needs to know.
    `origin`: the name of the stream that is appended to, another one than `name` in a mirror.
    """

    def __init__(self, connection: Connection, info: _Info) -> None:
        super().__init__(connection, info)
        self.tombstone_ttl = int(info.config.metadata[TOMBSTONE_TTL_KEY])
        self.ingest = _ingest(info.config)
        self.replicas = info.config.num_replicas
        self.atomic = info.config.allow_atomic
        self._mirrored = info.config.mirror

    @classmethod
    def unreached(cls, url: str, name: str, *, created: str = "", prefix: str = "", tombstone_ttl: int = 0) -> Log:
        """Stands for the log that was so when it was last read, or of which nothing is known, while NATS does not
        answer: all that asks the server raises BrokerUnavailable, and the time is this machine's.
        """
        metadata = {PREFIX_KEY: prefix, TOMBSTONE_TTL_KEY: str(tombstone_ttl)}
        info = _Info(config=_Config(name, metadata=metadata), state=_State(0, 0, 0), created=created)
        return cls(Connection(url), info)

    @property
    def batch(self) -> int:
        """How many messages to append at a time (`Appender`); 0: it takes any number that are on their way."""
        if self.replicas == 1:
            return 0
        return _BATCH if self.atomic else 1

    @property
    def origin(self) -> str:
        return self.name if self._mirrored is None else self._mirrored.name

    async def origin_state(self) -> StreamState:
        """The extent and identity of the stream that is appended to; of a mirror that is another one, maybe far away.

        Raises as `state`.
        """
        if self._mirrored is None:
            return await self.state()
        js = None if self._mirrored.external is None else self._mirrored.external.api
        return (await _info(self.connection, self._mirrored.name, js)).state_now()

    async def reopen(self) -> None:
        """Takes on the identity of the stream as it is now, after it was recreated or its prefix rotated."""
        info = _usable(await _info(self.connection, self.name))
        self._note_clock(info)
        self.created = info.made
        self.prefix = info.config.metadata[PREFIX_KEY]
        self.tombstone_ttl = int(info.config.metadata[TOMBSTONE_TTL_KEY])

    async def rename(self, prefix: str) -> None:
        """Gives the history another name. To be called by `deltalog.history` only, which has all agree on it."""
        raw = await self.connection.api(f"STREAM.INFO.{self.name}")
        config = msgspec.json.decode(raw)["config"]
        config["metadata"] = {**config["metadata"], PREFIX_KEY: prefix}
        await self.connection.api(f"STREAM.UPDATE.{self.name}", config)
        await self.reopen()


async def _info(connection: Connection, name: str, js: str | None = None) -> _Info:
    raw = await connection.api(f"STREAM.INFO.{name}", js=js)
    return msgspec.json.decode(raw, type=_Info)


async def find_stream(connection: Connection, name: str, *, made: bool = False) -> _Info:
    """A stream's configuration and state, also while its servers elect a leader and none of them answers.

    `made`: it was just made, so where it is not found the servers have not yet agreed on it.
    Raises JetStreamRefused (STREAM_NOT_FOUND: there is none), BrokerUnavailable.
    """
    until = time.monotonic() + _AGREED_WITHIN
    while True:
        try:
            raw = await connection.api(f"STREAM.INFO.{name}", timeout=2.0)
            return msgspec.json.decode(raw, type=_Info)
        except JetStreamRefused as refused:
            if not made or refused.code != STREAM_NOT_FOUND or time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)
        except BrokerUnavailable as cause:
            hopeless = isinstance(cause.__cause__, NoRespondersError) or connection.client.is_closed
            if hopeless or time.monotonic() > until or connection.refusal(f"{connection.js}.STREAM.INFO.{name}"):
                raise
            await asyncio.sleep(0.1)


def _ingest(config: _Config) -> str:
    transform = config.subject_transform
    return transform.src.removesuffix(">") if transform is not None and transform.dest == ">" else ""


def _usable(info: _Info) -> _Info:
    root = _ingest(info.config)
    if info.config.mirror is not None and CREATED_KEY not in info.config.metadata:
        raise LogError(
            f"stream {info.config.name} is a mirror that does not say of which history; make it with `kubebraid mirror`"
        )
    # A mirror takes nothing in by itself.
    missing = info.config.mirror is None and any(root + s not in info.config.subjects for s in STREAM_SUBJECTS)
    if missing or PREFIX_KEY not in info.config.metadata or TOMBSTONE_TTL_KEY not in info.config.metadata:
        raise LogError(f"stream {info.config.name} was not made by kubebraid; choose another name with `name`")
    if info.config.metadata.get(FORMAT_KEY) != "1":
        raise LogError(
            f"stream {info.config.name} has format {info.config.metadata.get(FORMAT_KEY)!r}, this is format 1"
        )
    if not info.config.allow_msg_ttl:
        raise LogError(f"stream {info.config.name} does not allow message TTLs; set allow_msg_ttl on it")
    return info


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
        info = _usable(await find_stream(connection, settings.name))
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
        # Where somebody limits the stream, appends are refused and tried again; nothing that lives makes room.
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
    return Log(connection, _usable(await create_stream(connection, config)))


async def change_stream(stream: Stream, changes: dict[str, object]) -> None:
    """Changes settings of a stream (JetStream's own keys). Raises LogError, BrokerUnavailable."""
    raw = await stream.connection.api(f"STREAM.INFO.{stream.name}")
    config = {**msgspec.json.decode(raw)["config"], **changes}
    try:
        await stream.connection.api(f"STREAM.UPDATE.{stream.name}", config, timeout=10.0)
    except JetStreamRefused as refused:
        wanted = changes.get("num_replicas")
        what = f"cannot have {wanted} replicas" if wanted else f"cannot be given {changes}"
        raise LogError(f"stream {stream.name} {what}: {refused.description}{_mend(refused)}") from refused


def _mend(refused: JetStreamRefused) -> str:
    if refused.code in _NO_ROOM_FOR_REPLICAS:
        return "; start more NATS servers with JetStream, or ask for fewer with `replicas`"
    return ""


async def create_stream(connection: Connection, config: dict[str, object]) -> _Info:
    """Makes a stream, or finds that somebody else has. Raises LogError, BrokerUnavailable."""
    name = str(config["name"])
    try:
        await connection.api(f"STREAM.CREATE.{name}", config, timeout=10.0)
    except JetStreamRefused as refused:
        # Another instance may have made it in the meantime: then its settings, and its prefix, hold.
        if refused.code != _NAME_IN_USE:
            raise LogError(f"stream {name} cannot be made: {refused.description}{_mend(refused)}") from refused
    try:
        return await find_stream(connection, name, made=True)
    except JetStreamRefused as refused:
        raise LogError(f"stream {name}: {refused.description}") from refused


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
