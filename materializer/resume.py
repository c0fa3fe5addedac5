"""Resume: from a resourceVersion to the cursor that a watch begins with, or Expired.

The rule is that of Kubernetes (API Concepts, "Efficient detection of changes"; KEP-956): a watch that begins at a
version shows everything that happened after it, or is refused with 410, upon which the client lists again. It is the
same for HTTP and for the storage API in Python, so both ask here; each says `Expired` in its own way.

Pure: waiting for an index that is not applied here yet is the caller's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from deltalog.wire.kubernetes import GroupResource
from materializer.cursor import Cursor, ShownChange
from materializer.errors import MaterializerError
from materializer.filter import Filter
from materializer.originals import TooOld, changes_since
from materializer.store import Store
from materializer.type_store import TypeStore
from materializer.versions import MalformedVersion, Named, Version


class Expired(MaterializerError):
    """A watch cannot begin, or go on, without missing changes: the client has to list again (410 Expired)."""


class ForeignVersion(Expired):
    """The version is malformed, or of another history than this store's.

    410 as well, and not 400: nothing else makes a client's reflector list again.
    """


class HistoryReplaced(Expired):
    """The history that the watch followed was replaced by another one."""

    def __init__(self) -> None:
        super().__init__("The history that this watch followed was replaced: list anew")


@dataclass(frozen=True, slots=True)
class Resumption:
    """Where a watch begins.

    - `read_to`: the client knows everything up to this index; changes past it are to be shown.
    - `complete_at`: the last index at which it surely held the whole state, 0 if that is unknown (see `Position`).
    - `wanted`: the filter to go on with. After a resume at member versions it leaves out what those include.
    - `backlog`: changes to show first, oldest first; only after a resume at member versions.
    """

    read_to: int
    complete_at: int
    wanted: Filter
    backlog: tuple[ShownChange, ...] = ()

    def cursor(self) -> Cursor:
        """A new cursor at this place."""
        return Cursor(self.read_to, self.complete_at)


def own_version(text: str, versions: Named) -> Version:
    """The parsed version, if it is one of the history that `versions` name. O(1).

    Raises:
        ForeignVersion: it is malformed, or of another history.
    """
    try:
        version = versions.parse(text)
    except MalformedVersion as problem:
        raise ForeignVersion(f"The resourceVersion is not one of this service: {problem}") from None
    if version.prefix != versions.prefix:
        raise ForeignVersion(
            f"The resourceVersion {text[:128]} belongs to history {version.prefix}, "
            f"this one is {versions.prefix}: list anew"
        )
    return version


def from_now(store: Store, wanted: Filter) -> Resumption:
    """Begins with what comes next: the client has, or is given, the state at `store.applied`. O(1)."""
    return Resumption(store.applied, store.applied, wanted)


def from_version(store: Store, key: GroupResource, wanted: Filter, text: str, versions: Named) -> Resumption:
    """Begins past one of our own versions. O(clusters with a floor of their own).

    The version may be ahead of the store, which may be behind the one that gave it out: then nothing is shown before
    the store has come to it.

    With the floor at 40, of the versions of history `3f9a`

    - `3f9a.57` (of a list or a bookmark) begins at 57, and the client held the whole state of 57;
    - `3f9a.57.8112` (of an object) begins at 57, but the client may not have had all of 57: several changes bear the
      version of one index where a whole cluster goes, so `complete_at` is 0;
    - `3f9a.39` is Expired: a deletion between 39 and 40 may be forgotten;
    - `aaaa.57` is Expired: another history.

    Raises:
        ForeignVersion: it is malformed, or of another history.
        Expired: deletions past it may have been forgotten.
    """
    version = own_version(text, versions)
    floor = store.floor_of(key, wanted.clusters)
    if version.index < floor:
        raise Expired(f"too old resource version: {text[:128]} ({floor})")
    return Resumption(version.index, 0 if version.member_version else version.index, wanted)


def from_member_versions(store: Store, key: GroupResource, wanted: Filter, versions: Mapping[str, str]) -> Resumption:
    """Begins past the member clusters' own versions, by cluster. O(entries of the type in these clusters).

    What changed since then is the `backlog`; the cursor begins at `store.applied`.

    Raises:
        Expired: what happened in one of the clusters since then is not completely known here.
    """
    known = tuple(sorted((cluster, version) for cluster, version in versions.items() if version))
    wanted = dataclasses.replace(wanted, beyond=known)
    try:
        backlog = changes_since(store, key, wanted, versions)
    except TooOld as problem:
        raise Expired(f"too old resource version: {problem}") from None
    return Resumption(store.applied, store.applied, wanted, tuple(backlog))


def unread(store: Store, key: GroupResource, start: Resumption, cursor: Cursor) -> TypeStore | None:
    """The type's store, if it may have changes past the cursor of a watch that began at `start`. O(1).

    None: there are none; then the cursor has been moved to `store.applied`, where it was not past that.

    Raises:
        Expired: the client was too slow, and deletions past the cursor are forgotten; or the member versions that it
            began at mean nothing any more, since a cluster was set back.
    """
    if store.applied <= cursor.read_to:
        return None
    for name, version in start.wanted.beyond:
        cluster = store.clusters.get(name)
        if cluster is not None and cluster.versions_restarted_at > start.read_to:
            raise Expired(f"too old resource version: cluster {name} was set back, {version} is none of its versions")
    type_store = store.types.get(key)
    if type_store is not None and cursor.read_to < type_store.forgotten:
        raise Expired(f"too old resource version: {cursor.read_to} ({type_store.forgotten})")
    if type_store is None or type_store.last() <= cursor.read_to:
        cursor.advance(store, None)
        return None
    return type_store
