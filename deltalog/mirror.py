"""Mirrors of a log: copies with the same sequences, elsewhere, from which instances serve the same versions.

A mirror copies messages, but neither the stream's metadata, which names the history, nor purges: both are kept equal
here. JetStream: nats-server docs "Source and Mirror", ADR-28 (domains).
"""

from __future__ import annotations

import asyncio
import random

import msgspec
import structlog

from deltalog.jetstream.backoff import Once
from deltalog.jetstream.connection import Connection, JetStreamRefused
from deltalog.jetstream.stream import STREAM_NOT_FOUND, LogError
from deltalog.jetstream.stream_info import CREATED_KEY, DEFAULT_NAME, FORMAT_KEY, PREFIX_KEY, TOMBSTONE_TTL_KEY
from deltalog.timing import DEFAULT_TIMING, LogTiming
from deltalog.wire.errors import LogUnavailable

log = structlog.get_logger("deltalog.mirror")

_TOKENS_OF_A_TYPE = 5


class MirrorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: the mirror's; `origin`: the log's stream, in another JetStream domain if `domain` names one."""

    origin: str = DEFAULT_NAME
    domain: str = ""
    name: str = DEFAULT_NAME
    replicas: int = 1

    @property
    def api(self) -> str | None:
        """What subjects of the origin's JetStream API begin with; None: with the same as the mirror's."""
        return f"$JS.{self.domain}.API" if self.domain else None


class _Config(msgspec.Struct):
    metadata: dict[str, str] = {}
    max_msgs_per_subject: int = 1
    mirror: dict[str, object] | None = None


class _State(msgspec.Struct):
    messages: int
    last_seq: int
    subjects: dict[str, int] = {}


class _Info(msgspec.Struct):
    config: _Config
    state: _State
    created: str
    total: int = 0
    limit: int = 0


class Mirror:
    """One mirror; `run` keeps it."""

    def __init__(self, connection: Connection, settings: MirrorSettings, timing: LogTiming = DEFAULT_TIMING) -> None:
        self.settings = settings
        self._connection = connection
        self._timing = timing
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
        try:
            found = await self._info(settings.name)
            if found.config.mirror is None or CREATED_KEY not in found.config.metadata:
                raise LogError(f"stream {settings.name} is there and no mirror of ours; choose another name: `name`")
            if {key: found.config.metadata.get(key) for key in metadata} == metadata:
                return False
            log.warning(
                "the log has another history: making its mirror anew",
                mirror=settings.name,
                prefix=metadata[PREFIX_KEY],
            )
            await self._connection.api(f"STREAM.DELETE.{settings.name}", timeout=30.0)
        except JetStreamRefused as refused:
            if refused.code != STREAM_NOT_FOUND:
                raise LogError(f"stream {settings.name}: {refused.description}") from refused
        mirrored: dict[str, object] = {"name": settings.origin}
        if settings.api is not None:
            mirrored["external"] = {"api": settings.api, "deliver": ""}
        config = {
            "name": settings.name,
            "description": f"kubebraid: mirror of {settings.origin}",
            "mirror": mirrored,
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_msg_size": -1,
            "max_msgs_per_subject": origin.config.max_msgs_per_subject,
            "num_replicas": settings.replicas,
            "allow_direct": True,
            "allow_msg_ttl": True,
            "metadata": metadata,
        }
        try:
            await self._connection.api(f"STREAM.CREATE.{settings.name}", config, timeout=10.0)
        except JetStreamRefused as refused:
            raise LogError(f"mirror {settings.name} cannot be made: {refused.description}") from refused
        log.info("mirror made", mirror=settings.name, origin=settings.origin, prefix=metadata[PREFIX_KEY])
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
                    await self.purge()
                    purges_due = loop.time() + self._timing.purges_every
                say.clear()
            except LogUnavailable as cause:
                say(cause)
            await asyncio.sleep(self._timing.look_every * random.uniform(0.8, 1.2))

    async def purge(self) -> int:
        """Takes out of the mirror what was purged from its origin; how many purges that took.

        Raises BrokerUnavailable, JetStreamRefused.
        """
        # In this order: what is here and, later, not there has been taken out there, and was not just added.
        here = await self._info(self.settings.name)
        there = await self._origin()
        if here.state.messages <= there.state.messages:
            return 0
        mine, upto = await self._subjects(self.settings.name, None)
        theirs, _ = await self._subjects(self.settings.origin, self.settings.api)
        gone = mine - theirs
        # A removed type or cluster is many subjects, but one purge.
        kept = {_kind(subject) for subject in theirs}
        patterns = {subject if (kind := _kind(subject)) in kept or kind == subject else f"{kind}.>" for subject in gone}
        for pattern in sorted(patterns):
            request = {"filter": pattern, "seq": upto + 1}
            await self._connection.api(f"STREAM.PURGE.{self.settings.name}", request, timeout=30.0)
        if patterns:
            log.info("purged as in the origin", mirror=self.settings.name, subjects=len(gone), purges=len(patterns))
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
