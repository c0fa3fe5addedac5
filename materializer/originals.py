"""Resuming by the clusters' own versions, `{"<cluster>":"<resourceVersion there>"}`, after a list taken elsewhere.

The client's knowledge is in the clusters' versions, the store's in the log's indexes. A resume is exact if no deletion
past the client's version can have been forgotten. Then everything newer is shown; a deletion, or an object that a
selector may have let go, is shown once too often rather than not at all. An object whose beginning this process has
not seen is ADDED where the client may or may not know it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

from deltalog.wire.delta import ADDED, DELETED, MODIFIED
from deltalog.wire.kubernetes import GroupResource, newer, numeric
from materializer.cursor import ShownChange
from materializer.entry import Entry
from materializer.errors import MaterializerError
from materializer.filter import Filter
from materializer.graves import Grave
from materializer.store import Store
from materializer.type_store import TypeStore


class TooOld(MaterializerError):
    """What happened in a cluster since then is not completely known here (410 Expired); the message says why."""


def changes_since(store: Store, key: GroupResource, wanted: Filter, versions: Mapping[str, str]) -> list[ShownChange]:
    """What has changed in the clusters past these versions, by index, oldest first.

    `versions`: by cluster; "" for a cluster of which the client knows nothing, so that all of it is ADDED. Clusters
    that are not named have no changes. O(n log n) in the entries and tombstones that the type has in these clusters.

    Example: alpha was listed at 12, then `b` changed to 15 and `c` came with 16. `{"alpha": "12"}` finds MODIFIED b and
    ADDED c, `{"alpha": "15"}` ADDED c, `{"alpha": ""}` all of them ADDED, and `{"alpha": "11"}` is TooOld.

    Raises:
        TooOld: a cluster is unknown or not listed, is followed since a newer version, or deletions past the client's
            version may have been forgotten.
    """
    found: list[ShownChange] = []
    type_store = store.types.get(key)
    for cluster, version in versions.items():
        if wanted.clusters is not None and cluster not in wanted.clusters:
            continue
        if version:
            _check_age(store, type_store, key, cluster, version)
        if type_store is not None:
            found.extend(_changes(type_store, wanted, cluster, version))
    found.sort(key=lambda change: change.at)
    return found


def seen(store: Store, key: GroupResource, cluster: str) -> str:
    """The newest version of a cluster up to which the log surely has everything of a type; "" if none is known. O(1).

    Taken from the first list, the producer's last report, and watches. The states that a list brought do not count: a
    list comes in the order of names, not of versions.
    """
    known = store.clusters.get(cluster)
    if known is None:
        return ""
    versions = [known.synced_version.get(key, ""), known.followed.get(key, ""), _reported(store, key, cluster)]
    numbers = [int(version) for version in versions if numeric(version)]
    return str(max(numbers)) if numbers else ""


def _reported(store: Store, key: GroupResource, cluster: str) -> str:
    """The version of a type that the cluster's producer last reported."""
    reported = store.clusters[cluster].status.get(key)
    return "" if reported is None else reported.version


def _check_age(store: Store, type_store: TypeStore | None, key: GroupResource, cluster: str, version: str) -> None:
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
    if not store.floor and not (type_store is not None and type_store.floors.get(cluster)):
        return
    # Deletions may have been forgotten. All of them stand before the floor, so what was known of the cluster behind
    # the floor was newer than they are.
    reached = [_reported(store, key, cluster)] if known.status_index > store.floor else []
    if known.synced.get(key, 0) > store.floor:
        reached.append(first)
    if type_store is not None:
        # Those that a watch saw, in the order of the cluster.
        remains = (one for one in type_store.remains(cluster) if one.final and one.index > store.floor)
        found = chain(reached, (one.member_version for one in remains))
    else:
        found = chain(reached)
    if not any(numeric(one) and not newer(one, version) for one in found):
        raise TooOld(f"deletions of cluster {cluster} past {version} may have been forgotten")


def _changes(type_store: TypeStore, wanted: Filter, cluster: str, version: str) -> list[ShownChange]:
    there: Iterable[Entry | Grave] = type_store.clusters.get(cluster, {}).values()
    if version:
        # One who knows nothing has nothing to lose.
        there = chain(there, type_store.remains(cluster))
    entries: list[Entry] = []
    # Mostly the log has a type in the cluster's order, and what entered it before these is what the client knows.
    known_up_to = 0
    for one in there:
        if version and not newer(one.member_version, version):
            known_up_to = max(known_up_to, one.index)
        else:
            # Mostly few: what was deleted before is not dug up.
            entries.append(type_store.as_entry(one))
    found: list[ShownChange] = []
    for entry in entries:
        if not wanted.covers(entry):
            continue
        new = bool(version and entry.first_known_version) and newer(entry.first_known_version, version)
        known = bool(version) and not new and (bool(entry.first_known_version) or entry.uid_index <= known_up_to)
        selected = not entry.deleted and wanted.timely(entry) and wanted.selects(entry)
        before = entry.replaced if version else None
        if before is not None and not known:
            # Which of the uids that had the name before the client knows, and whether they matched, is unknown.
            found.append(ShownChange(DELETED, before, entry.index - 1 if selected else entry.index))
        elif (
            version
            and not selected
            and not new
            # Which of the earlier states the client holds, the log cannot tell: a list brought them in the order of
            # names, not in that of the cluster.
            and wanted.matched_between(entry, entry.uid_index, entry.index) is not False
        ):
            found.append(ShownChange(DELETED, entry, entry.index))
        if selected:
            matched = known and wanted.matched_at(entry, known_up_to) is not False
            found.append(ShownChange(MODIFIED if matched else ADDED, entry, entry.index))
    return found
