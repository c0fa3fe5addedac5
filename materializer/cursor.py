"""Cursor reads: what changed past an index, for one filter, as a Kubernetes watch shows it.

A watch is a position in the index order and a filter; it needs no queue. What lies past the position is read
when the watcher can take it: a slow one gets an object's latest state, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from deltalog.delta import ADDED, DELETED, MODIFIED
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.store import Removal, Store, TypeStore


class Change(NamedTuple):
    """One event to show: its type, the entry, and the index (`at`) its version bears.

    That index is the entry's own, but for events that stand for a message together with later ones: there, all
    but the last bear the index before it, so that a client cut off in between gets the whole again.
    """

    type: str
    entry: Entry
    at: int


def changes(kind: TypeStore, after: int, wanted: Filter, limit: int) -> tuple[list[Change], int | None]:
    """Changes past `after`, oldest first, at least `limit` of them if there are that many.

    The second value is the index up to which they were read, None if that is all there is. O(log n + items
    past `after`, up to the limit).
    """
    result: list[Change] = []
    for item in kind.order.after(after):
        if isinstance(item, Removal):
            batch = [
                Change(DELETED, entry, item.index - 1)
                for entry in item.entries.values()
                if wanted.covers(entry) and _held(entry, after, wanted)
            ]
            if batch:
                batch[-1] = batch[-1]._replace(at=item.index)
                result.extend(batch)
        elif wanted.covers(item):
            result.extend(_shown(item, after, wanted))
        if len(result) >= limit:
            return result, item.index
    return result, None


def _held(entry: Entry, after: int, wanted: Filter) -> bool:
    """Whether a watcher at `after` may hold this uid; where nobody knows, it may."""
    return entry.first <= after and wanted.matched_at(entry, after) is not False


def _shown(entry: Entry, after: int, wanted: Filter) -> Iterator[Change]:
    if entry.first > after:
        # This uid is new to the watcher; a predecessor of the same name may not be.
        predecessor = _predecessor(entry, after, wanted)
        selected = not entry.deleted and wanted.selects(entry.labels, entry.fields)
        if predecessor is not None:
            yield Change(DELETED, predecessor, entry.index - 1 if selected else entry.index)
        if selected:
            yield Change(ADDED, entry, entry.index)
        return
    before = wanted.matched_at(entry, after)
    if entry.deleted:
        if before is not False:
            yield Change(DELETED, entry, entry.index)
        return
    if wanted.selects(entry.labels, entry.fields):
        yield Change(ADDED if before is False else MODIFIED, entry, entry.index)
    elif before is not False:
        yield Change(DELETED, entry, entry.index)


def _predecessor(entry: Entry, after: int, wanted: Filter) -> Entry | None:
    before = entry.replaced
    while before is not None:
        if before.first <= after:
            return before if wanted.matched_at(before, after) is not False else None
        if before.replaced is None:
            # Older ones of this name are known only by where the first of them entered the log.
            return before if before.oldest and before.oldest <= after else None
        before = before.replaced
    return None


def initial(store: Store, kind: TypeStore, wanted: Filter) -> list[Change]:
    """The present state as ADDED events, by cluster, namespace and name."""
    return [Change(ADDED, entry, entry.index) for entry in kind.select(wanted)]
