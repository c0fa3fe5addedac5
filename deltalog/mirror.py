"""Mirrors of a log: copies with the same sequences, elsewhere, from which instances serve the same versions.

Both streams are mirrored, the events with the limits they have, and the state. A mirror copies messages, but neither
the stream's metadata, which names the history, nor purges: both are kept equal here. JetStream: nats-server docs
"Source and Mirror", ADR-28 (domains).
"""

from __future__ import annotations

import asyncio
import random

import msgspec
import structlog

from deltalog.jetstream.backoff import Once
from deltalog.jetstream.compression import Compression, compress, compression_for
from deltalog.jetstream.connection import Connection, JetStreamRefused
from deltalog.jetstream.making import KEEPS_LAST, change_stream
from deltalog.jetstream.state_stream import Limits, take_over
from deltalog.jetstream.stream import STREAM_NOT_FOUND, Log, LogError, Stream, checked_log
from deltalog.jetstream.stream_info import (
    CREATED_KEY,
    DEFAULT_NAME,
    EVENTS_FROM_KEY,
    FORMAT_KEY,
    PREFIX_KEY,
    STATE_CREATED_KEY,
    STATE_FROM_KEY,
    STATE_SUFFIX,
    TOMBSTONE_TTL_KEY,
    StreamExtent,
    StreamInfo,
)
from deltalog.timing import DEFAULT_TIMING, LogTiming
from deltalog.wire.errors import LogUnavailable

log = structlog.get_logger("deltalog.mirror")

_TOKENS_OF_A_TYPE = 5
# At so many looks in a row, what is more than in the origin may be what instances are about to take out.
_LEFT_TO_OTHERS = 4


class MirrorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: the mirror's; `origin`: the log's stream, in another JetStream domain if `domain` names one.

    `compression`: how the servers keep its events, as in `LogSettings`, whatever those of the origin do.
    """

    origin: str = DEFAULT_NAME
    domain: str = ""
    name: str = DEFAULT_NAME
    replicas: int = 1
    compression: Compression | None = None

    @property
    def api(self) -> str | None:
        """What subjects of the origin's JetStream API begin with; None: with the same as the mirror's."""
        return f"$JS.{self.domain}.API" if self.domain else None


class _State(StreamExtent):
    subjects: dict[str, int] = msgspec.field(default_factory=dict)


class _Info(StreamInfo):
    state: _State
    total: int = 0


class Mirror:
    """One mirror; `run` keeps it."""

    def __init__(self, connection: Connection, settings: MirrorSettings, timing: LogTiming = DEFAULT_TIMING) -> None:
        self.settings = settings
        self._connection = connection
        self._timing = timing
        self._surplus_looks = 0
        if not settings.domain and settings.name == settings.origin:
            raise LogError(f"a mirror of {settings.origin} beside it needs another name; give `name`")

    async def make(self) -> bool:
        """Makes the mirror, anew if it is of another history; whether that was needed.

        Raises LogError, BrokerUnavailable.
        """
        settings = self.settings
        origin = await self._origin()
        metadata = {key: origin.config.metadata[key] for key in (PREFIX_KEY, FORMAT_KEY, TOMBSTONE_TTL_KEY)}
        metadata[CREATED_KEY] = origin.created
        config: dict[str, object] = {"max_msgs_per_subject": origin.config.max_msgs_per_subject}
        since = origin.config.events_from
        if since is not None:
            config |= {"max_age": origin.config.max_age, "max_bytes": origin.config.max_bytes, "discard": "old"}
            config["metadata"] = {**metadata, EVENTS_FROM_KEY: str(since)}
            config["compression"] = compression_for(self._connection, settings.compression)
        made = await self._make(settings.name, settings.origin, metadata, config)
        state = await self._origin_state()
        if state is None:
            return made
        metadata[STATE_CREATED_KEY] = state.created
        name = settings.name + STATE_SUFFIX
        config = {"max_msgs_per_subject": 1}
        made = await self._make(name, settings.origin + STATE_SUFFIX, metadata, config) or made
        mine = await self._info(name)
        mark = state.config.metadata.get(STATE_FROM_KEY, "")
        if mine.config.metadata.get(STATE_FROM_KEY, "") != mark:
            await change_stream(Stream(self._connection, mine), {}, {STATE_FROM_KEY: mark})
        if since is not None:
            # One of before kept the last of each subject itself; and the limits of the origin may have been changed.
            opened = Log(self._connection, checked_log(await self._info(settings.name)))
            await opened.find_state()
            await take_over(opened, Limits(origin.config.max_age // 1_000_000_000, origin.config.max_bytes))
            await compress(opened, settings.compression)
        return made

    async def _make(self, name: str, origin: str, metadata: dict[str, str], more: dict[str, object]) -> bool:
        """Makes one stream, the mirror of `origin`, anew if its metadata is other; whether that was needed."""
        settings = self.settings
        try:
            found = await self._info(name)
            if found.config.mirror is None or CREATED_KEY not in found.config.metadata:
                raise LogError(f"stream {name} is there and no mirror of ours; choose another name: `name`")
            if {key: found.config.metadata.get(key) for key in metadata} == metadata:
                return False
            log.warning("the log has another history: making its mirror anew", mirror=name, prefix=metadata[PREFIX_KEY])
            await self._connection.api(f"STREAM.DELETE.{name}", timeout=30.0)
        except JetStreamRefused as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise LogError(f"stream {name}: {refused.description}") from refused
        mirrored: dict[str, object] = {"name": origin}
        if settings.api is not None:
            mirrored["external"] = {"api": settings.api, "deliver": ""}
        config = {
            "name": name,
            "description": f"kubebraid: mirror of {origin}",
            "mirror": mirrored,
            **KEEPS_LAST,
            "num_replicas": settings.replicas,
            "metadata": metadata,
            **more,
        }
        try:
            await self._connection.api(f"STREAM.CREATE.{name}", config, timeout=10.0)
        except JetStreamRefused as refused:
            raise LogError(f"mirror {name} cannot be made: {refused.description}") from refused
        log.info("mirror made", mirror=name, origin=origin, prefix=metadata[PREFIX_KEY])
        return True

    async def run(self) -> None:
        """Keeps the mirror equal to its origin until cancelled."""
        loop = asyncio.get_running_loop()
        purges_due = loop.time()
        say = Once(
            lambda reason: log.warning("the mirror cannot be looked after", mirror=self.settings.name, reason=reason)
        )
        while True:
            try:
                await self.make()
                if loop.time() >= purges_due:
                    if not await self._others_purge():
                        await self.purge()
                    purges_due = loop.time() + self._timing.purges_every
                say.clear()
            except LogUnavailable as cause:
                say(cause)
            await asyncio.sleep(self._timing.look_every * random.uniform(0.8, 1.2))

    async def _others_purge(self) -> bool:
        """Whether it is left to instances on the mirror to take out what was purged, for a while.

        Forgotten deletions are single messages, which those who forget them know (`deltalog.forgetting`); all subjects
        of both streams need not be compared for that.
        """
        suffix = "" if await self._origin_state() is None else STATE_SUFFIX
        here = await self._info(self.settings.name + suffix)
        there = await self._info(self.settings.origin + suffix, self.settings.api)
        if here.state.messages <= there.state.messages:
            self._surplus_looks = 0
            return True
        opened = Log(self._connection, checked_log(await self._info(self.settings.name)))
        self._surplus_looks += 1
        return self._surplus_looks <= _LEFT_TO_OTHERS and bool(await opened.forgotten_through())

    async def purge(self) -> int:
        """Takes out of the mirror what was purged from its origin; how many purges that took.

        Raises BrokerUnavailable, JetStreamRefused.
        """
        # Of the state alone, once there is one: the events go by their age.
        suffix = "" if await self._origin_state() is None else STATE_SUFFIX
        name, origin, api = self.settings.name + suffix, self.settings.origin + suffix, self.settings.api
        # In this order: what is here and, later, not there has been taken out there, and was not just added.
        here = await self._info(name)
        there = await self._info(origin, api)
        if here.state.messages <= there.state.messages:
            return 0
        mine, upto = await self._subjects(name, None)
        theirs, _ = await self._subjects(origin, api)
        gone = mine - theirs
        # A removed type or cluster is many subjects, but one purge.
        kept = {_kind(subject) for subject in theirs}
        patterns = {subject if (kind := _kind(subject)) in kept or kind == subject else f"{kind}.>" for subject in gone}
        for pattern in sorted(patterns):
            request = {"filter": pattern, "seq": upto + 1}
            await self._connection.api(f"STREAM.PURGE.{name}", request, timeout=30.0)
        if patterns:
            log.info("purged as in the origin", mirror=name, subjects=len(gone), purges=len(patterns))
        return len(patterns)

    async def _subjects(self, name: str, api: str | None) -> tuple[set[str], int]:
        """All subjects of a stream, asked page by page, and its last sequence before that."""
        found: set[str] = set()
        last: int | None = None
        while True:
            info = await self._info(name, api, {"subjects_filter": ">", "offset": len(found)})
            last = info.state.last_seq if last is None else last
            before = len(found)
            found |= info.state.subjects.keys()
            if len(found) == before or len(found) >= info.total:
                return found, last

    async def _info(self, name: str, api: str | None = None, request: object = None) -> _Info:
        raw = await self._connection.api(f"STREAM.INFO.{name}", request, timeout=10.0, js=api)
        return msgspec.json.decode(raw, type=_Info)

    async def _origin_state(self) -> _Info | None:
        """The state stream of the origin; None: it has none."""
        try:
            return await self._info(self.settings.origin + STATE_SUFFIX, self.settings.api)
        except JetStreamRefused as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise
            return None

    async def _origin(self) -> _Info:
        try:
            info = await self._info(self.settings.origin, self.settings.api)
        except JetStreamRefused as refused:
            where = f" in domain {self.settings.domain}" if self.settings.domain else ""
            raise LogError(f"stream {self.settings.origin}{where}: {refused.description}") from refused
        if FORMAT_KEY not in info.config.metadata:
            raise LogError(f"stream {self.settings.origin} was not made by kubebraid; name its log with `origin`")
        return info


def _kind(subject: str) -> str:
    """What the subjects of a type's objects begin with; of a record about a type or cluster, the record itself."""
    return ".".join(subject.split(".")[:_TOKENS_OF_A_TYPE])
