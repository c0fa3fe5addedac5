"""Cluster facts: what the control records say of one member cluster: types, documents, health, who follows it."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from deltalog.wire.kubernetes import GroupResource


class Subresource(msgspec.Struct, frozen=True, kw_only=True):
    """A subresource as the cluster serves it: `kind`, `group` and `version` of what it answers with."""

    name: str
    kind: str = ""
    group: str = ""
    version: str = ""
    verbs: tuple[str, ...] = ()


class TypeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A resource type as one cluster serves it (its APIResource, and printer columns of a CRD).

    `versions` are all versions of the group that have it there, the preferred one first; `version` is the one
    whose objects are in the log: all of them, or those of `namespaces` (patterns) and the label `selector`. `pruned`:
    JSON pointers to values that are not there.
    """

    group: str
    resource: str
    version: str
    kind: str
    singular: str = ""
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    columns: tuple[Mapping[str, Any], ...] | None = None
    selectable: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    selector: str = ""
    pruned: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()

    @property
    def group_resource(self) -> GroupResource:
        return GroupResource(self.group, self.resource)

    def covers(self, namespace: str) -> bool:
        """Whether the objects of a namespace are in the log, if the selector takes them."""
        wanted = [one for one in self.namespaces if not one.startswith("!")]
        if any(fnmatchcase(namespace, one[1:]) for one in self.namespaces if one.startswith("!")):
            return False
        return not wanted or any(fnmatchcase(namespace, one) for one in wanted)


# A producer that has not told its status so many times is taken for gone.
_SILENT = 3.5


class Health(msgspec.Struct, frozen=True):
    """What the producers last said of a cluster or type. `since`: milliseconds since 1970."""

    healthy: bool
    reason: str = ""
    since: int = 0


class Document(msgspec.Struct, frozen=True, weakref=True):
    """A document of a cluster: OpenAPI or discovery. `body` is compressed by gzip; `hash` and `size` are its text's.

    `paths`: how many it describes, of OpenAPI version 2.
    """

    hash: str
    body: bytes
    size: int = 0
    paths: int = 0


class Cluster:
    """What the control records say of one cluster. Owned by the store."""

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.epoch = 0
        self.producer = ""
        self.registered = False
        self.server_version: dict[str, Any] = {}
        # Its OpenAPI documents: `v2` or `v3`, and their names there.
        self.documents: dict[tuple[str, str], Document] = {}
        # All that it serves, synced or not.
        self.discovery: Document | None = None
        self.types: dict[GroupResource, TypeInfo] = {}
        self.synced: dict[GroupResource, int] = {}
        # The cluster's version that the first list was of, from which on the type has been followed.
        self.synced_version: dict[GroupResource, str] = {}
        # The last version that a watch brought: watches come in the cluster's order.
        self.followed: dict[GroupResource, str] = {}
        # Since which index its versions count from where they do now: a cluster may be set back, or be another one.
        self.versions_restarted_at = index
        self.health: Health | None = None
        self.type_health: dict[GroupResource, Health] = {}
        # What its producer last told of its types, by title; when it last told anything, by the server's clock in
        # nanoseconds; how often it does, in milliseconds (0: not known).
        self.status: dict[str, dict[str, Any]] = {}
        self.status_index = 0
        self.heard = 0
        self.every = 0

    def stale(self, now: int) -> str | None:
        """Why the cluster's objects may be out of date; None if they are current.

        `now`: nanoseconds by the server's clock; 0: silence doesn't count.
        """
        if self.health is not None and not self.health.healthy:
            return self.health.reason or "unreachable"
        silent = (now - self.heard) / 1e9
        if now and self.every and silent > _SILENT * self.every / 1e3:
            return f"no producer has been heard of for {silent:.0f} s"
        return None

    @property
    def missing(self) -> list[GroupResource]:
        """Types whose first complete list is not in the log, and is not known to be impossible."""
        return [
            key
            for key in self.types
            if key not in self.synced and not (key in self.type_health and not self.type_health[key].healthy)
        ]
