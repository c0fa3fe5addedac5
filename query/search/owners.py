"""Owners: whose uids dependents are searched by, where the request does not name them itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deltalog.wire.kubernetes import GroupResource
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.store import Store
from query.search.terms import SoughtOwner

Seen = Callable[[GroupResource, Entry], bool]


def prepare_owners(store: Store, owner: SoughtOwner) -> Iterator[None]:
    """Makes the indexes that owners are found by, in steps of some milliseconds, so that finding them takes none."""
    named = Filter(names=frozenset({owner.name}))
    for key, type_store in list(store.types.items()):
        if owner.seniority:
            yield from type_store.indexes.prepare_owned(type_store.live)
        if not owner.uid and owner.resource in (None, key):
            yield from type_store.prepare(named)


def owners_of(store: Store, owner: SoughtOwner, selection: Filter, seen: Seen | None) -> frozenset[str]:
    """The uids that the objects' controllers may have.

    Owners are looked for in the clusters of the selection, and by their name in its namespaces and among what has none,
    as an owner is in the namespace of what it owns or in none. `seen`: whether who asks may see an owner; None: all.
    O(objects owned).
    """
    uids = frozenset({owner.uid})
    if not owner.uid:
        within = selection.namespaces
        named = Filter(
            clusters=selection.clusters,
            not_clusters=selection.not_clusters,
            spaces=selection.spaces if seen is None else None,
            namespaces=None if within is None else within | {""},
            names=frozenset({owner.name}),
        )
        uids = store.called(named, owner.resource, seen)
    scope = selection.clusters
    if selection.not_clusters:
        scope = (frozenset(store.clusters) if scope is None else scope) - selection.not_clusters
    return store.owned_by(uids, owner.seniority, scope, seen)
