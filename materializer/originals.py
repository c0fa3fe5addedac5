"""Resuming by the clusters' own versions: `{"<cluster>":"<original>"}`, from a list that was taken elsewhere.

What a client knows is said in the clusters' terms, what the store remembers is in the log's. A resume is exact if no
deletion past the client's version can have been forgotten; then everything newer than it is shown, and of deletions
and of what a selector may have let go rather one too many than one too few. An object whose beginning this process
has not seen is ADDED where the client may or may not know it.
"""

from __future__ import annotations

from collections.abc import Mapping

from deltalog.wire.delta import ADDED, DELETED, MODIFIED
from deltalog.wire.kubernetes import GroupResource, newer, numeric
from materializer.cursor import Change
from materializer.filter import Filter
from materializer.store import Store
from materializer.type_store import TypeStore


class TooOld(Exception):
    """What happened since then is not known completely: 410. The message says why."""


def changes_since(store: Store, key: GroupResource, wanted: Filter, versions: Mapping[str, str]) -> list[Change]:
    """What has changed in the clusters past these versions, oldest first. O(entries of these clusters).

    A version "" is that of a client which knows nothing of the cluster. Clusters that are not named have no changes.
    Raises TooOld.
    """
    found: list[Change] = []
    kind = store.types.get(key)
    for cluster, version in versions.items():
        if wanted.clusters is not None and cluster not in wanted.clusters:
            continue
        if version:
            _check_age(store, kind, key, cluster, version)
        if kind is not None:
            found.extend(_changes(kind, wanted, cluster, version))
    found.sort(key=lambda change: change.at)
    return found


def seen(store: Store, key: GroupResource, cluster: str) -> str:
    """A version of the cluster up to which the log surely has all of a type. Empty if nothing is known.

    States that a list brought tell nothing: a list comes in the order of names.
    """
    known = store.clusters.get(cluster)
    if known is None:
        return ""
    versions = [known.synced_version.get(key, ""), known.followed.get(key, ""), _told(store, key, cluster)]
    numbers = [int(version) for version in versions if numeric(version)]
    return str(max(numbers)) if numbers else ""


def _told(store: Store, key: GroupResource, cluster: str) -> str:
    """The version of a type that the cluster's producer last told."""
    told = store.clusters[cluster].status.get(key)
    return "" if told is None else told.version


def _check_age(store: Store, kind: TypeStore | None, key: GroupResource, cluster: str, version: str) -> None:
    if not numeric(version):
        raise TooOld(f"{version[:64]!r} is no resourceVersion of cluster {cluster}")
    known = store.clusters.get(cluster)
    if known is None:
        raise TooOld(f"there is no cluster {cluster}")
    first = known.synced_version.get(key, "")
    if not numeric(first):
        raise TooOld(f"cluster {cluster} has not been listed")
    if newer(first, version):
        raise TooOld(f"cluster {cluster} has been followed since {first}, {version} is older")
    if not store.floor and not (kind is not None and kind.floors.get(cluster)):
        return
    # Deletions may have been forgotten. All of them stand before the floor, so what was known of the cluster behind
    # the floor was newer than they are.
    witnesses = [_told(store, key, cluster)] if known.status_index > store.floor else []
    if known.synced.get(key, 0) > store.floor:
        witnesses.append(first)
    if kind is not None:
        # Those that a watch saw, in the order of the cluster.
        graves = kind.tombstones.get(cluster, {}).values()
        witnesses += [grave.member_version for grave in graves if grave.final and grave.index > store.floor]
    if not any(numeric(witness) and not newer(witness, version) for witness in witnesses):
        raise TooOld(f"deletions of cluster {cluster} past {version} may have been forgotten")


def _changes(kind: TypeStore, wanted: Filter, cluster: str, version: str) -> list[Change]:
    entries = list(kind.clusters.get(cluster, {}).values())
    if version:
        # One who knows nothing has nothing to lose.
        entries += kind.tombstones.get(cluster, {}).values()
    older = [entry for entry in entries if version and not newer(entry.member_version, version)]
    # Mostly the log has a type in the cluster's order, and what entered it before these is what the client knows.
    known_up_to = max((entry.index for entry in older), default=0)
    found: list[Change] = []
    for entry in entries:
        if (version and not newer(entry.member_version, version)) or not wanted.covers(entry):
            continue
        new = bool(version and entry.first_known_version) and newer(entry.first_known_version, version)
        known = bool(version) and not new and (bool(entry.first_known_version) or entry.uid_index <= known_up_to)
        selected = not entry.deleted and wanted.timely(entry) and wanted.selects(entry)
        before = entry.replaced if version else None
        if before is not None and not known:
            # Which of those that had the name before the client knows, and whether they matched, nobody can tell.
            found.append(Change(DELETED, before, entry.index - 1 if selected else entry.index))
        elif (
            version
            and not selected
            and not new
            # Which of the earlier states the client holds, the log cannot tell: a list brought them in the order of
            # names, not in that of the cluster.
            and wanted.matched_between(entry, entry.uid_index, entry.index) is not False
        ):
            found.append(Change(DELETED, entry, entry.index))
        if selected:
            matched = known and wanted.matched_at(entry, known_up_to) is not False
            found.append(Change(MODIFIED if matched else ADDED, entry, entry.index))
    return found
