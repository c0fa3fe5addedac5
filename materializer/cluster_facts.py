"""Cluster facts: what the control records say of one member cluster: types, documents, health, who follows it."""

from __future__ import annotations

from typing import Any

import msgspec

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import ClusterDocument, DocumentName, TypeStatus
from deltalog.wire.resource_type import ResourceType

# A producer that missed so many of its status reports is taken for gone.
_SILENT = 3.5


class Health(msgspec.Struct, frozen=True):
    """What the producers last said of a cluster or type. `since`: milliseconds since 1970."""

    healthy: bool
    reason: str = ""
    since: int = 0


class ClusterFacts:
    """What the control records say of one cluster. Owned by the store."""

    def __init__(self, name: str, index: int) -> None:
        self.name = name
        self.epoch = 0
        self.producer = ""
        self.registered = False
        self.server_version: dict[str, Any] = {}
        # Its OpenAPI documents.
        self.documents: dict[DocumentName, ClusterDocument] = {}
        # All that it serves, synced or not.
        self.discovery: ClusterDocument | None = None
        self.types: dict[GroupResource, ResourceType] = {}
        # Since which index each type is synced in its version, as far as is known; see `TypeStore.version_since`.
        self.version_since: dict[GroupResource, int] = {}
        self.synced: dict[GroupResource, int] = {}
        # The cluster's version that the first list was of, from which on the type has been followed.
        self.synced_version: dict[GroupResource, str] = {}
        # The last version that a watch brought: watches come in the cluster's order.
        self.followed: dict[GroupResource, str] = {}
        # Since which index its versions count from where they do now: a cluster may be set back, or be another one.
        self.versions_restarted_at = index
        self.health: Health | None = None
        self.type_health: dict[GroupResource, Health] = {}
        # What its producer last reported of its types; when its last control record came, by the server's clock in
        # nanoseconds; how often it reports, in milliseconds (0: not known).
        self.status: dict[GroupResource, TypeStatus] = {}
        self.status_index = 0
        self.heard = 0
        self.every = 0

    def stale_reason(self, now: int) -> str | None:
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
        return self.missing_past(0)

    def missing_past(self, index: int) -> list[GroupResource]:
        """Types that have no complete list past an index in the log, and none that is known to be impossible."""
        return [
            key
            for key in self.types
            if self.synced.get(key, 0) <= index and not (key in self.type_health and not self.type_health[key].healthy)
        ]
