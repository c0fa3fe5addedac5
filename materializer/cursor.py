"""Cursor reads: what changed past an index, for one filter, as a Kubernetes watch shows it.

A watch is a position in the index order and a filter; it needs no queue. What lies past the position is read
when the watcher can take it: a slow one gets an object's latest state, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from deltalog.delta import ADDED, DELETED, MODIFIED
from materializer.entry import NEVER, Entry
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
    kind: TypeStore,
    after: int,
    wanted: Filter,
    limit: int,
    whole: int | None = None,
    start: int | None = None,
    most: int | None = None,
) -> tuple[list[Change], int | None]:
    """Changes past `after`, oldest first, at least `limit` of them, or `most` bytes of bodies, if there is that much.

    The second value is the index up to which they were read, None if that is all there is. O(log n + items
    past `after`, up to the limit).

    `whole` (None: `after`) is the last index at which the watcher held the whole state. Since then it was shown
    what lay up to `after` at the time, but of an object that changed again it may still hold any state between the
    two; then a deletion too many is shown rather than one too few. 0 if nobody knows, as of a client that resumes
    at an event's version. Below `kind.gap` this process has not seen every state, and is as careful.

    `start` (None: `after`) is the index from which on the watcher was served by this process: what entered the log
    since then, but was never seen here, it cannot hold.
    """
    whole = after if whole is None else whole
    at = _Position(after, whole, after if start is None else start, kind.gap)
    result: list[Change] = []
    size = 0
    for item in kind.order.after(after):
        if isinstance(item, Removal):
            batch = [
                Change(DELETED, held, item.index - 1)
                for entry in item.entries.values()
                if wanted.covers(entry) and (held := _held(entry, wanted, at)) is not None
            ]
            if batch:
                batch[-1] = batch[-1]._replace(at=item.index)
                result.extend(batch)
        elif wanted.covers(item):
            shown = len(result)
            result.extend(_shown(item, wanted, at))
            if len(result) > shown:
                size += len(item.body)
        if len(result) >= limit or (most is not None and size >= most):
            return result, item.index
    return result, None


class _Position(NamedTuple):
    """What is known of a watcher; see `changes`."""

    after: int
    whole: int
    start: int
    gap: int

    def may_know(self, entry: Entry) -> bool:
        """Whether the watcher may have been shown this uid."""
        return entry.first <= self.after and not (entry.seen > self.after and entry.first > self.start)

    def may_match(self, entry: Entry, wanted: Filter) -> bool:
        """Whether a uid that the watcher may know was in its selection in a state that it may hold."""
        if not wanted.timely(entry) and entry.since != NEVER:
            return False
        low = max(self.whole, entry.first)
        return self.whole < self.gap or wanted.matched_between(entry, low, self.after) is not False


def _held(entry: Entry, wanted: Filter, at: _Position) -> Entry | None:
    """What a watcher may hold of a name: this uid or one before it, None for surely nothing."""
    if at.may_know(entry) and at.may_match(entry, wanted):
        return entry
    return _predecessor(entry, wanted, at) if entry.first > at.whole else None


def _shown(entry: Entry, wanted: Filter, at: _Position) -> Iterator[Change]:
    held = _held(entry, wanted, at)
    known = at.may_know(entry)
    selected = not entry.deleted and wanted.timely(entry) and wanted.selects(entry)
    if held is not None and (not selected or not known):
        # It has gone, or left the selection, or this uid is new to the watcher and another one of its name is not.
        shown = entry if held is entry or (entry.deleted and known) else held
        yield Change(DELETED, shown, entry.index - 1 if selected else entry.index)
        held = None
    if selected:
        yield Change(ADDED if held is None else MODIFIED, entry, entry.index)


def _predecessor(entry: Entry, wanted: Filter, at: _Position) -> Entry | None:
    before = entry.replaced
    while before is not None:
        if before.deleted and 0 < before.index <= at.whole:
            # It was gone by then, and the watcher was told.
            return None
        if at.may_know(before):
            if at.may_match(before, wanted):
                return before
            if before.first <= at.whole:
                return None
        if before.replaced is None:
            # Older ones of this name are known only by where the first of them entered the log.
            return before if before.oldest and before.oldest <= min(at.after, before.first - 1) else None
        before = before.replaced
    return None


def initial(store: Store, kind: TypeStore, wanted: Filter) -> list[Change]:
    """The present state as ADDED events, by cluster, namespace and name."""
    return [Change(ADDED, entry, entry.index) for entry in kind.select(wanted)]
