"""LIST: which objects, as of which version, in which pages."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from simulation.options import ContinueToken, ListOptions
from simulation.status import expired
from simulation.storage import Collection, HistoryGone, Storage, Stored

__all__ = ["Page", "page"]

CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)
VERSION_EXPIRED = "The resourceVersion for the provided list is too old."


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a LIST: its objects and the list's metadata."""

    objects: list[Stored]
    metadata: dict[str, object]


def page(storage: Storage, collection: Collection, options: ListOptions) -> Page:
    """The page that is asked for. Raises ApiError 410 where its version is gone.

    The caller has made sure that the storage has reached the version that is asked for. O(n) in the type's
    objects where the version is not the present one, else O(page) plus what a selector skips.
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
    elif options.version == 0 and not options.match:
        # The watch cache answers version "0" and does not page.
        limit = 0
    prefix = f"{options.namespace}/" if options.namespace and collection.type.namespaced else ""
    # A token names a version that this storage gave out; a forged one from the future means now.
    version = min(version, storage.version)
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
    chosen: list[Stored] = []
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
    return Page(chosen, metadata)
