"""Filter: which entries of a type a request asks for: clusters, namespace, name, labels, fields."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from materializer.entry import Entry
from materializer.selectors import Requirement, matches


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """A request's selection within one type. Hashable: equal filters share their encodings.

    `clusters` None means all. `selective` filters look at what may change during an object's life (labels,
    fields), so that an object can enter and leave their set.
    """

    clusters: frozenset[str] | None = None
    namespace: str | None = None
    name: str | None = None
    version: str | None = None
    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    @property
    def selective(self) -> bool:
        return bool(self.labels or self.fields)

    def covers(self, entry: Entry) -> bool:
        """Whether the entry's identity is in scope, whatever its labels."""
        return (
            (self.clusters is None or entry.cluster in self.clusters)
            and (self.namespace is None or entry.namespace == self.namespace)
            and (self.name is None or entry.name == self.name)
            and (self.version is None or entry.version == self.version)
        )

    def selects(self, labels: Mapping[str, str], fields: Mapping[str, str]) -> bool:
        """Whether a covered object with these labels and fields is in the set."""
        if self.labels and not matches(self.labels, labels):
            return False
        for key, operator, values in self.fields:
            # An absent field reads as empty (k8s.io/apimachinery/pkg/fields: Set.Get).
            if (fields.get(key, "") in values) is (operator == "notin"):
                return False
        return True

    def matches(self, entry: Entry) -> bool:
        return self.covers(entry) and self.selects(entry.labels, entry.fields)

    def matched_at(self, entry: Entry, index: int) -> bool | None:
        """Whether a covered entry's object was in the set at `index`, an index within its life.

        None if this process no longer knows, or never knew.
        """
        if not self.selective or entry.since <= index:
            return self.selects(entry.labels, entry.fields)
        past = entry.past
        while past is not None and not past.forgotten:
            if past.since <= index:
                return self.selects(past.labels, past.fields)
            past = past.before
        return None

    def matched_between(self, entry: Entry, low: int, high: int) -> bool | None:
        """Whether a covered entry's object was in the set at any index from `low` to `high`, within its life.

        None if this process no longer knows, or never knew.
        """
        if not self.selective:
            return True
        since: int = entry.since
        if since <= high and self.selects(entry.labels, entry.fields):
            return True
        past = entry.past
        while since > low:
            if past is None or past.forgotten:
                return None
            since = past.since
            if since <= high and self.selects(past.labels, past.fields):
                return True
            past = past.before
        return False
