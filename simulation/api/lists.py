"""LIST: which objects, as of which version, in which pages."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from simulation.api.options import ContinueToken, ListOptions
from simulation.status import expired
from simulation.storage import ClusterStorage, Collection, HistoryGone, StoredObject

__all__ = ["CollectionPage", "page"]

CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)
VERSION_EXPIRED = "The resourceVersion for the provided list is too old."


@dataclass(frozen=True, slots=True)
class CollectionPage:
    """A page of a LIST: its objects, and its ListMeta as JSON has it."""

    objects: list[StoredObject]
    metadata: dict[str, object]


def page(storage: ClusterStorage, collection: Collection, options: ListOptions) -> CollectionPage:
    """The page that the options ask for. The storage has to have reached their version.

    Of 500 objects and with limit 200 there are three pages, the first two with `continue` and, without a selector, a
    `remainingItemCount` of 300 and 100. O(n) in the type's objects where the version is not the present one, else O(k)
    in the objects of the page and those that a selector skips.

    Raises:
        StatusError: 410 if the version is no longer kept.
    """
    limit = options.limit if options.limit > 0 else 0
    version = storage.version
    token = options.continued
    exact = False
    if token is not None:
        exact = token.rv != -1
        version = token.rv if exact else version
    elif options.version and (options.match == "Exact" or (limit and not options.match)):
        exact, version = True, options.version
    elif options.version == 0:
        # The watch cache does not page version "0" (`computeListLimit` of k8s.io/apiserver pkg/storage/cacher).
        limit = 0
    prefix = f"{options.namespace}/" if options.namespace and collection.type.namespaced else ""
    try:
        snapshot = collection.snapshot(version, storage.version)
    except HistoryGone as error:
        if token is not None:
            again = ContinueToken("meta.k8s.io/v1", -1, token.start).encode()
            raise expired(CONTINUE_EXPIRED, again) from error
        raise expired(VERSION_EXPIRED) from error
    paths = snapshot.paths
    first = bisect_left(paths, prefix + token.start) if token is not None else bisect_left(paths, prefix)
    # "0" follows "/" in the order of characters.
    last = bisect_left(paths, prefix[:-1] + "0") if prefix else len(paths)
    objects = snapshot.objects
    chosen: list[StoredObject] = []
    position = first
    if not options.selector or (prefix and not options.narrowed):
        position = min(last, first + limit) if limit else last
        chosen = list(objects[first:position])
    else:
        matches = options.selector.matches
        while position < last and not (limit and len(chosen) == limit):
            stored = objects[position]
            position += 1
            if matches(stored):
                chosen.append(stored)
    metadata: dict[str, object] = {"resourceVersion": str(version)}
    if limit and position < last and chosen:
        start = chosen[-1].path.removeprefix(prefix) + "\x00"
        rv = -1 if token is not None and token.rv == -1 else version
        metadata["continue"] = ContinueToken("meta.k8s.io/v1", rv, start).encode()
        if not options.narrowed:
            metadata["remainingItemCount"] = last - position
    return CollectionPage(chosen, metadata)
