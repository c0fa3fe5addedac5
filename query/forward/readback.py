"""Read back: after a write that a cluster has accepted, the client is answered when it can read here what it wrote.

The cluster's answer is the second source of the log: the object in it is handed over to the producer of the cluster,
and is in the log before the cluster's watch has brought it. What an answer says only in part is waited for. Where it
says nothing of the object that was written (a Status, as of an eviction or a binding), that is read from the cluster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import structlog

from deltalog.handover import NotTaken
from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.kubernetes import GroupVersion, newer
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.selectors import BadSelector, matches, parse_labels
from materializer.entry import ObjectKey, object_key
from materializer.materializer import Materializer
from materializer.type_store import TypeStore
from materializer.waiting import NotThereYet
from query.discovery.catalogue import ServedType
from query.discovery.paths import RequestTarget
from query.errors import QueryError

log = structlog.get_logger("query.forward.readback")


NOT_YET = "has done it, but it cannot be read here yet"
"""A warning, behind the cluster's name: what was written is not readable here so far."""
UNKNOWN = "has done it; whether it can be read here yet is not known"
"""The same where nothing says what was written."""

# Subresources that write nothing of the object that they are below.
_WRITE_NOTHING = frozenset({"token"})


class NotRead(QueryError):
    """An object could not be read from its cluster; one line that says why."""


# Reads the object of a request from its cluster, in the version named: None if the cluster has none. Raises NotRead.
ReadObject = Callable[[str], Awaitable[bytes | None]]


class _ObjectMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: list[str] | None = None
    labels: dict[str, str] | None = None


class _Details(msgspec.Struct):
    uid: str = ""


class Answered(msgspec.Struct, rename="camel"):
    """What a cluster's answer to a write may be: an object, a list of deleted ones, or a Status."""

    kind: str = ""
    api_version: str = ""
    metadata: _ObjectMeta = msgspec.field(default_factory=_ObjectMeta)
    details: _Details | None = None
    items: list[Answered] | None = None


@dataclass(frozen=True, slots=True)
class _Expected:
    """What must be readable here: an object at least as new as `version`, or that the one with `uid` is gone.

    `gone` with a version: it is gone, or newer than that. `labels`: what the cluster's answer shows it with.
    """

    namespace: str
    name: str
    uid: str
    version: str
    gone: bool
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> ObjectKey:
        """Its key in a `TypeStore`."""
        return object_key(self.namespace, self.name)

    def is_synced(self, info: ResourceType) -> bool:
        """Whether a type's rules have it here as it is now."""
        if info.namespaces and self.namespace not in info.namespaces:
            return False
        try:
            return not info.selector or matches(parse_labels(info.selector), self.labels)
        except BadSelector:
            return False

    def is_met(self, type_store: TypeStore | None, cluster: str) -> bool:
        entry = None if type_store is None else type_store.get(cluster, self.key)
        if self.gone and (entry is None or entry.uid != self.uid):
            return True
        if self.gone:
            return bool(self.version and entry is not None and newer(entry.member_version, self.version))
        known = entry
        if known is None and type_store is not None:
            known = type_store.tombstone(cluster, self.key)
        return known is not None and not newer(self.version, known.member_version)


class Readback:
    """Waits until what clusters have answered can be read here, for at most `patience` seconds."""

    def __init__(self, materializer: Materializer, patience: float) -> None:
        self._materializer = materializer
        self._patience = patience

    async def wait(
        self,
        method: str,
        cluster: str,
        target: RequestTarget,
        served: ServedType,
        text: bytes,
        found: Answered,
        before: str,
        read: ReadObject,
    ) -> str:
        """Returns when what a cluster has answered can be read here: "", or NOT_YET or UNKNOWN if that takes too long.

        `text` is the answer, `found` what was read of it; `before`: the uid of the object that was here when the
        cluster was asked, "" if there was none. `read` is called where the answer does not say what was written.
        """
        expected = list(_expected(method, target, found, before))
        whole = method != "DELETE" and is_object(found, target, served)
        if not expected and found.items is None and target.subresource not in _WRITE_NOTHING:
            if not target.name:
                return UNKNOWN
            try:
                async with asyncio.timeout(self._patience):
                    current = await read(served.stored.get(cluster, target.version))
            except (NotRead, TimeoutError) as reason:
                log.debug("what was written cannot be read", cluster=cluster, reason=str(reason))
                return UNKNOWN
            if current is None:
                gone = _Expected(target.namespace, target.name, before, "", gone=True)
                expected = [gone] if before else []
            else:
                text, whole = current, True
                expected = list(_expected("GET", target, parse_answer(current) or Answered(), before))
        elif whole:
            whole = served.stored.get(cluster) == target.version
        if not expected:
            return ""
        return "" if await self._readable(cluster, served, expected, text if whole else None) else NOT_YET

    async def _readable(self, cluster: str, served: ServedType, expected: list[_Expected], state: bytes | None) -> bool:
        """Returns when what is expected can be read here; False if that takes too long. `state`: to be handed over."""
        key = served.resource
        if state is not None:
            try:
                await self._materializer.append(cluster, *key, state, timeout=self._patience)
            except NotTaken as reason:
                log.debug("the cluster's watch has to bring it", cluster=cluster, reason=str(reason))
            except NotThereYet:
                return False
            else:
                return True
        store = self._materializer.store
        type_store = store.types.get(key)
        if served.info.namespaces or served.info.selector:
            # An object that is not here may be one that is not synced.
            expected = [
                one
                for one in expected
                if one.is_synced(served.info)
                or (type_store is not None and type_store.get(cluster, one.key) is not None)
            ]

        def readable() -> bool:
            type_store = store.types.get(key)
            return all(one.is_met(type_store, cluster) for one in expected)

        try:
            await self._materializer.wait_until(key, readable, self._patience)
        except NotThereYet:
            return False
        return True


def parse_answer(text: bytes) -> Answered | None:
    """What a cluster has answered; None if that is not JSON of such a form."""
    try:
        return msgspec.json.decode(text, type=Answered, strict=False)
    except UNDECODABLE:
        return None


def is_object(found: Answered, target: RequestTarget, served: ServedType) -> bool:
    """Whether the answer is a whole object of the type that the request is about."""
    api_version = str(GroupVersion(target.group, target.version))
    return (found.kind, found.api_version) == (served.info.kind, api_version)


def _expected(method: str, target: RequestTarget, found: Answered, before: str) -> Iterator[_Expected]:
    if found.items is not None:
        for item in found.items:
            one = item.metadata
            if one.uid and one.resource_version and one.name:
                # As it was before or after, and it may have gone at once, or have got a time until which it goes.
                namespace = one.namespace or target.namespace
                gone = one.deletion_timestamp is None
                yield _Expected(namespace, one.name, one.uid, one.resource_version, gone, one.labels or {})
        return
    meta = found.metadata
    if found.kind == "Status":
        # That of a deletion says that the object is gone. Others say nothing of it.
        uid = found.details.uid if found.details is not None and found.details.uid else before
        if method == "DELETE" and target.name and not target.subresource and uid:
            yield _Expected(target.namespace, target.name, uid, "", gone=True)
        return
    name = meta.name or target.name
    if not (meta.uid and meta.resource_version and name):
        return
    gone = method == "DELETE" and (
        meta.deletion_timestamp is None or (meta.deletion_grace_period_seconds == 0 and not meta.finalizers)
    )
    yield _Expected(meta.namespace or target.namespace, name, meta.uid, meta.resource_version, gone, meta.labels or {})
