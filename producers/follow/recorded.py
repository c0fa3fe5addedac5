"""Recorded: what the log's control records state of one cluster, and appending what they do not state yet."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
import structlog

from deltalog import Appender, Record, UnreadableRecord
from deltalog.jetstream.stream import Log
from deltalog.reader import read_to_end
from deltalog.wire.kubernetes import GroupResource, GroupVersion
from deltalog.wire.parts import payload_limit
from deltalog.wire.records import (
    ClusterRegistered,
    DiscoveryDocument,
    Fact,
    HealthChanged,
    OpenApiDocument,
    StatusReport,
    TypeSynced,
    decode_control,
    encode_control,
)
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import CONTROL, encode_token
from producers.follow.discovery_document import RecordedDiscovery
from producers.follow.documents import RecordedDocuments, fits
from producers.follow.ownership import Owner, append_control
from producers.follow.removal import append_removed_type
from producers.follow.state_gap import NO_GAP, StateGap
from producers.upstream.discovery import Discovered
from producers.upstream.shared_types import shared

log = structlog.get_logger("producers.follow.recorded")

# Characters of why something cannot be read.
_LONGEST_REASON = 1000
_VERSION_KEYS = ("major", "minor", "gitVersion", "platform")


class Recorded:
    """The control records of one cluster under one ownership, kept current with what is appended here.

    `types`, `synced` and `unhealthy` are what the log states of types, `openapi` of documents. Appending raises Deposed
    and AppendError throughout.
    """

    def __init__(self, log_: Log, appender: Appender, owner: Owner, limit: int | None = None) -> None:
        self.log = log_
        self.appender = appender
        self.owner = owner
        self.types: dict[GroupResource, ResourceType] = {}
        self.synced: set[GroupResource] = set()
        self.unhealthy: set[GroupResource] = set()
        self.openapi = RecordedDocuments()
        self._cluster: ClusterRegistered | None = None
        self._health: HealthChanged | None = None
        self._discovery = RecordedDiscovery()
        self._limit = limit
        # Subjects of records that the log does without.
        self._left_out: set[str] = set()

    async def read(self, gap: StateGap = NO_GAP) -> None:
        """Reads what the log has. O(control records of the cluster). Raises HistoryChanged.

        `gap`: what the log has said before that to be synced, it may have lost since.
        """
        pattern = f"{CONTROL}.{encode_token(self.owner.cluster)}.>"
        async with self.log.turns:
            await read_to_end(self.log, partial(self._take_in, gap), subjects=(pattern,))

    def _take_in(self, gap: StateGap, record: Record) -> None:
        try:
            fact = decode_control(record.data).fact
        except UnreadableRecord as problem:
            # As if it were not there: what it should state is recorded again.
            log.warning("unreadable record", subject=record.subject, sequence=record.sequence, problem=str(problem))
            return
        match fact:
            case ResourceType():
                self.types[fact.group_resource] = shared(fact)
            case TypeSynced():
                if not gap.concerns(record):
                    self.synced.add(fact.resource)
            case ClusterRegistered():
                self._cluster = fact
            case HealthChanged(resource=GroupResource() as resource, healthy=False):
                self.unhealthy.add(resource)
            case HealthChanged(resource=None):
                self._health = fact
            case OpenApiDocument():
                self.openapi.take_in(fact)
            case DiscoveryDocument():
                self._discovery.take_in(fact.document)

    @property
    def limit(self) -> int:
        """Bytes that a record may have."""
        if self._limit is not None:
            return self._limit
        return payload_limit(self.log.message_limit)

    @property
    def groups(self) -> frozenset[str]:
        """Groups that the log has types of, or the cluster's discovery document."""
        return frozenset(group for group, _ in self.types) | self._discovery.groups

    def versions(self) -> set[GroupVersion]:
        """The versions that the cluster serves the log's types in."""
        return {GroupVersion(known.group, version) for known in self.types.values() for version in known.versions}

    async def append(self, fact: Fact, *, ttl: int | None = None) -> int:
        """Appends a record of a fact; `ttl` in seconds. Returns its sequence.

        One that is too large for a message says less; 0: the log does without.
        """
        control = self.owner.control(fact)
        if len(encode_control(control)) > self.limit:
            less = self.owner.control(_less(fact))
            if not fits(less, self.limit, control.record, logged=control.subject in self._left_out):
                self._left_out.add(control.subject)
                return 0
            control = less
        return await append_control(self.appender, self.owner, control, ttl=ttl)

    # -- what differs only ---------------------------------------------------------------------------------------

    async def state_type(self, resource: ResourceType) -> None:
        """Records a type as it is synced now."""
        if self.types.get(resource.group_resource) != resource:
            await self.append(resource)
            self.types[resource.group_resource] = resource

    async def state_again(self) -> None:
        """States again what the log has lost of what it had; the documents with the next looks at the cluster.

        `synced` is not looked at: what is appended again is to be followed by that. Raises HistoryChanged.
        """
        held = Recorded(self.log, self.appender, self.owner, self._limit)
        await held.read()
        for key, resource in list(self.types.items()):
            if held.types.get(key) != resource and self.types.get(key) == resource:
                await self.append(resource)
        if self._cluster is not None and held._cluster != self._cluster:
            await self.append(self._cluster)
        if self._health is not None and held._health is None:
            await self.append(self._health)
        # Whoever found it so finds it again.
        self.unhealthy &= held.unhealthy
        if held._discovery.hash != self._discovery.hash:
            self._discovery.lost()
        for name in self.openapi.known.keys() - held.openapi.known.keys():
            del self.openapi.known[name]

    async def state_health(self, reason: str | None) -> None:
        """Records whether the cluster can be read; `reason`: why not."""
        self._health = HealthChanged(healthy=reason is None, reason=_shortened(reason or ""))
        await self.append(self._health)

    async def state_synced(self, key: GroupResource, version: str, objects: int) -> None:
        """Records that a type's complete list is in the log; once, until it cannot be read any more."""
        if key in self.synced and key not in self.unhealthy:
            return
        self.synced.add(key)
        self.unhealthy.discard(key)
        await self.append(TypeSynced(resource=key, version=version, objects=objects))

    async def state_unhealthy(self, key: GroupResource, reason: str) -> None:
        """Records that a type cannot be read; once, until it can."""
        if key not in self.unhealthy:
            self.unhealthy.add(key)
            await self.append(HealthChanged(resource=key, reason=_shortened(reason)))

    async def state_cluster(self, version: dict[str, Any]) -> None:
        """Records that the cluster's types are known, with its server's version."""
        fact = ClusterRegistered(version=version)
        if self._cluster != fact:
            await self.append(fact)
            self._cluster = fact

    async def state_discovery(self, found: Discovered) -> None:
        """Records all that the cluster serves, unless it is too large for a message."""
        # Of a cluster with thousands of custom types it is megabytes.
        document = await asyncio.to_thread(self._discovery.news, found)
        if document is None:
            return
        control = self.owner.control(DiscoveryDocument(document=document))
        if fits(control, self.limit, control.record, logged=self._discovery.left_out(document)):
            await append_control(self.appender, self.owner, control)
            self._discovery.take_in(document)
        else:
            self._discovery.leave_out(document)

    async def remove_type(self, key: GroupResource) -> None:
        """Removes a type and its objects from the log: first the record, then its messages."""
        log.info("type removed", cluster=self.owner.cluster, type=str(key))
        await append_removed_type(self.log, self.appender, self.owner, key)
        self.types.pop(key, None)
        self.synced.discard(key)
        self.unhealthy.discard(key)


def _shortened(reason: str) -> str:
    """A reason that fits into any message, and that UTF-8 can have: some come from servers."""
    text = reason.encode(errors="replace").decode()
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def _less(fact: Fact) -> Fact:
    """A fact without what may be large in it."""
    match fact:
        case StatusReport():
            return msgspec.structs.replace(fact, types={})
        case ResourceType():
            return msgspec.structs.replace(fact, columns=None, short_names=(), categories=(), subresources=())
        case ClusterRegistered():
            short = {key: text for key, text in fact.version.items() if isinstance(text, str) and len(text) < 100}
            return msgspec.structs.replace(fact, version={key: short[key] for key in _VERSION_KEYS if key in short})
    return fact
