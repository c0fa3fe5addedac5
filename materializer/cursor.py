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


def changes(
    kind: TypeStore, after: int, wanted: Filter, limit: int, whole: int | None = None
) -> tuple[list[Change], int | None]:
    """Changes past `after`, oldest first, at least `limit` of them if there are that many.

    The second value is the index up to which they were read, None if that is all there is. O(log n + items
    past `after`, up to the limit).

    `whole` (None: `after`) is the last index at which the watcher held the whole state. Since then it was shown
    what lay up to `after` at the time, but of an object that changed again it may still hold any state between the
    two; then a deletion too many is shown rather than one too few. 0 if nobody knows, as of a client that resumes
    at an event's version. Below `kind.gap` this process has not seen every state, and is as careful.
    """
    whole = after if whole is None else whole
    result: list[Change] = []
    for item in kind.order.after(after):
        if isinstance(item, Removal):
            batch = [
                Change(DELETED, held, item.index - 1)
                for entry in item.entries.values()
                if wanted.covers(entry) and (held := _held(entry, after, wanted, whole, kind.gap)) is not None
            ]
            if batch:
                batch[-1] = batch[-1]._replace(at=item.index)
                result.extend(batch)
        elif wanted.covers(item):
            result.extend(_shown(item, after, wanted, whole, kind.gap))
        if len(result) >= limit:
            return result, item.index
    return result, None


def _held(entry: Entry, after: int, wanted: Filter, whole: int, gap: int) -> Entry | None:
    """What a watcher may hold of a name: this uid or one before it, None for surely nothing."""
    if entry.first <= after and (
        whole < gap or wanted.matched_between(entry, max(whole, entry.first), after) is not False
    ):
        return entry
    return _predecessor(entry, after, wanted, whole, gap) if entry.first > whole else None


def _shown(entry: Entry, after: int, wanted: Filter, whole: int, gap: int) -> Iterator[Change]:
    held = _held(entry, after, wanted, whole, gap)
    selected = not entry.deleted and wanted.selects(entry.labels, entry.fields)
    if held is not None and (not selected or entry.first > after):
        # It has gone, or left the selection, or this uid is new to the watcher and another one of its name is not.
        shown = entry if held is entry or (entry.deleted and entry.first <= after) else held
        yield Change(DELETED, shown, entry.index - 1 if selected else entry.index)
        held = None
    if selected:
        yield Change(ADDED if held is None else MODIFIED, entry, entry.index)


def _predecessor(entry: Entry, after: int, wanted: Filter, whole: int, gap: int) -> Entry | None:
    before = entry.replaced
    while before is not None:
        if before.deleted and 0 < before.index <= whole:
            # It was gone by then, and the watcher was told.
            return None
        if before.first <= after:
            if whole < gap or wanted.matched_between(before, max(whole, before.first), after) is not False:
                return before
            if before.first <= whole:
                return None
        if before.replaced is None:
            # Older ones of this name are known only by where the first of them entered the log.
            return before if before.oldest and before.oldest <= min(after, before.first - 1) else None
        before = before.replaced
    return None


def initial(store: Store, kind: TypeStore, wanted: Filter) -> list[Change]:
    """The present state as ADDED events, by cluster, namespace and name."""
    return [Change(ADDED, entry, entry.index) for entry in kind.select(wanted)]
