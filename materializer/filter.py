"""Filter: which entries of a type a request asks for: clusters, namespaces, names, labels, fields, owners, times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from deltalog.wire.kubernetes import newer
from deltalog.wire.selectors import Requirement, matches
from materializer.entry import Entry


class State(Protocol):
    """What may change during an object's life, and is asked for: of an entry, or of an earlier state."""

    @property
    def labels(self) -> Mapping[str, str]:
        """metadata.labels."""

    @property
    def fields(self) -> Mapping[str, str]:
        """The type's selectable fields that have a value, by their labels."""

    @property
    def controller_uid(self) -> str | None:
        """Uid of the controlling owner; empty if there is none."""


class BodyCondition(Protocol):
    """A condition on objects' bodies, beyond what a filter knows of them. Hashable; equal ones select the same."""

    def __hash__(self) -> int: ...

    @property
    def at_once(self) -> int:
        """So many entries at most are asked about between two looks at the time."""

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those of the entries that meet it, in their order. O(their sizes)."""

    def unknown(self, entries: Sequence[Entry]) -> list[str]:
        """What it asks for that none of the entries has, for people. O(their sizes)."""


class Spaces:
    """By the name of a cluster, the only namespaces of it that are in scope; of one that is not named, all are.

    Immutable; equal ones are equal filters' parts, and their hash, which takes as long as there are clusters, is kept.
    """

    __slots__ = ("_hash", "by_cluster")

    def __init__(self, by_cluster: Mapping[str, frozenset[str]]) -> None:
        self.by_cluster = by_cluster
        self._hash = hash(frozenset(by_cluster.items()))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Spaces) and self._hash == other._hash and self.by_cluster == other.by_cluster
        )

    def __repr__(self) -> str:
        return f"Spaces({self.by_cluster!r})"

    def has(self, cluster: str, namespace: str) -> bool:
        """Whether a namespace is in scope; "" is that of what has none. O(1)."""
        spaces = self.by_cluster.get(cluster)
        return spaces is None or namespace in spaces

    def of(self, cluster: str, wanted: frozenset[str] | None) -> frozenset[str] | None:
        """The namespaces of a cluster that are in scope, of those that are wanted (None: all)."""
        spaces = self.by_cluster.get(cluster)
        return wanted if spaces is None else spaces if wanted is None else spaces & wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """A request's selection within one type. Hashable: equal filters share their encodings.

    None means all, also for `version`, the API version of the stored objects. All that is given has to hold.

    - `spaces`: of some clusters only these namespaces, beside all else: what may be seen of them.
    - `not_clusters`, `not_namespaces`, `not_names`: excluded ones. `controller_uids`: uids of controlling owners.
    - `parts`: texts that are all part of the name; `not_parts`: texts of which none is.
    - `since` (at or after) and `before`: bounds of the creation, in seconds since 1970.
    - `beyond`: (cluster, version) pairs: of these clusters only what is newer than the cluster's own version.
    - `where`: a condition on bodies, which costs as much as all else together many times over; it is asked last.
    - `narrow`: the filter restricts by what an object is called or where it is. `selective`: it restricts by what may
      change during an object's life (labels, fields, owner, body), so that an object can enter and leave the selection.

    Example: `Filter(namespaces=frozenset({"web"}), labels=parse_labels("app=a,tier!=db"))`.
    """

    clusters: frozenset[str] | None = None
    spaces: Spaces | None = None
    namespaces: frozenset[str] | None = None
    names: frozenset[str] | None = None
    not_clusters: frozenset[str] = frozenset()
    not_namespaces: frozenset[str] = frozenset()
    not_names: frozenset[str] = frozenset()
    parts: tuple[str, ...] = ()
    not_parts: tuple[str, ...] = ()
    version: str | None = None
    beyond: tuple[tuple[str, str], ...] = ()
    since: int | None = None
    before: int | None = None
    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()
    controller_uids: frozenset[str] | None = None
    where: BodyCondition | None = None
    # Derived: whether the name matters at all, and whether what changes does.
    narrow: bool = field(init=False, compare=False, repr=False)
    selective: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        whole = (self.clusters, self.spaces, self.namespaces, self.names, self.version)
        narrow = any(one is not None for one in whole)
        narrow |= bool(self.not_clusters or self.not_namespaces or self.not_names or self.beyond)
        narrow |= bool(self.parts or self.not_parts)
        selective = bool(self.labels or self.fields) or self.controller_uids is not None or self.where is not None
        object.__setattr__(self, "narrow", narrow)
        object.__setattr__(self, "selective", selective)

    def covers(self, entry: Entry) -> bool:
        """Whether the name is in scope, whichever object has it. O(1)."""
        return not self.narrow or (
            (self.clusters is None or entry.cluster in self.clusters)
            and (self.namespaces is None or entry.namespace in self.namespaces)
            and (self.spaces is None or self.spaces.has(entry.cluster, entry.namespace))
            and (self.names is None or entry.name in self.names)
            and (self.version is None or entry.version == self.version)
            and (not self.not_clusters or entry.cluster not in self.not_clusters)
            and entry.namespace not in self.not_namespaces
            and (not self.not_names or entry.name not in self.not_names)
            and (not (self.parts or self.not_parts) or self._called(entry.name))
            and (not self.beyond or self._new(entry))
        )

    def _called(self, name: str) -> bool:
        return all(part in name for part in self.parts) and not any(part in name for part in self.not_parts)

    def _new(self, entry: Entry) -> bool:
        if entry.deleted and not entry.final:
            # Missed, or removed with its cluster: the version is that of its last change, not of its deletion.
            return True
        return all(entry.cluster != name or newer(entry.member_version, version) for name, version in self.beyond)

    def timely(self, entry: Entry) -> bool:
        """Whether the object was created within `since` and `before`; another uid of the name may have been. O(1)."""
        return (self.since is None or entry.created >= self.since) and (
            self.before is None or entry.created < self.before
        )

    def selects(self, state: State) -> bool:
        """Whether an object in scope is selected in this state; True where only its body, which is not here, says.

        O(requirements), and O(size) with `where`.
        """
        if not self.may_select(state):
            return False
        if self.where is None or not isinstance(state, Entry) or (state.deleted and _is_metadata_only(state)):
            return True
        return bool(self.where.chosen((state,)))

    def may_select(self, state: State) -> bool:
        """Whether an object in scope may be selected in this state, by labels, fields and owner. O(requirements)."""
        if self.labels and not matches(self.labels, state.labels):
            return False
        if self.fields:
            # An absent field reads as empty (k8s.io/apimachinery/pkg/fields: Set.Get).
            fields = state.fields
            for key, operator, values in self.fields:
                if (fields.get(key, "") in values) is (operator == "notin"):
                    return False
        return self.controller_uids is None or state.controller_uid in self.controller_uids

    def matches(self, entry: Entry) -> bool:
        """Whether the entry is in the result of a list with this filter. O(requirements)."""
        return self.covers(entry) and self.timely(entry) and self.selects(entry)

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those of the entries that `matches` is true of, in their order, with less to be done for each of many.

        O(entries) beside O(requirements) for each label set, which many entries have in common.
        """
        found = [entry for entry in entries if self.covers(entry)] if self.narrow else list(entries)
        if self.since is not None or self.before is not None:
            found = [entry for entry in found if self.timely(entry)]
        if self.labels:
            found = _labelled(self.labels, found)
        if self.controller_uids is not None:
            uids = self.controller_uids
            found = [entry for entry in found if entry.controller_uid in uids]
        for requirement in self.fields:
            found = _with_field(requirement, found)
        return found if self.where is None else [entry for entry in found if self.selects(entry)]

    def matched_at(self, entry: Entry, index: int) -> bool | None:
        """Whether the object of an entry in scope was selected at `index`, an index within its life.

        None if this process no longer knows, or never knew. O(earlier states).
        """
        matched = self._may_have_matched_at(entry, index)
        if self.where is None or not matched:
            return matched
        return self.selects(entry) if entry.index <= index and not _is_metadata_only(entry) else None

    def _may_have_matched_at(self, entry: Entry, index: int) -> bool | None:
        """The same by all but the body."""
        if not self.selective or entry.selectable_since <= index:
            return self.may_select(entry)
        past = entry.past
        while past is not None and not past.forgotten:
            if past.selectable_since <= index:
                return self.may_select(past)
            past = past.before
        return None

    def matched_between(self, entry: Entry, low: int, high: int) -> bool | None:
        """Whether the object of an entry in scope was selected at any index from `low` to `high`, within its life.

        None if this process no longer knows, or never knew. O(earlier states). Example: with the label app=a from 5,
        app=b from 8 on, `app=a` was matched between 6 and 9, but not between 8 and 9.
        """
        matched = self._may_have_matched_between(entry, low, high)
        if self.where is None or not matched:
            return matched
        if _is_metadata_only(entry):
            return None
        if entry.index <= high and self.selects(entry):
            return True
        # Of earlier states only what selectors saw is remembered.
        return False if entry.index <= low else None

    def _may_have_matched_between(self, entry: Entry, low: int, high: int) -> bool | None:
        """The same by all but the body."""
        if not self.selective:
            return True
        since: int = entry.selectable_since
        if since <= high and self.may_select(entry):
            return True
        past = entry.past
        while since > low:
            if past is None or past.forgotten:
                return None
            since = past.selectable_since
            if since <= high and self.may_select(past):
                return True
            past = past.before
        return False


def _labelled(labels: tuple[Requirement, ...], entries: list[Entry]) -> list[Entry]:
    # Each is kept by its entries while this goes on, so that no other gets its number.
    met: dict[int, bool] = {}
    found = []
    for entry in entries:
        has = entry.labels
        meets = met.get(id(has))
        if meets is None:
            meets = met[id(has)] = matches(labels, has)
        if meets:
            found.append(entry)
    return found


def _with_field(requirement: Requirement, entries: list[Entry]) -> list[Entry]:
    key, operator, values = requirement
    excluded = operator == "notin"
    return [entry for entry in entries if (entry.field(key) in values) is not excluded]


def _is_metadata_only(entry: Entry) -> bool:
    """Whether it has no body, as what was buried has none. There are also types that have none."""
    return entry.behind_metadata == 1
