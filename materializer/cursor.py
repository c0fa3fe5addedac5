"""Cursor reads: what changed past an index, for one filter, as a Kubernetes watch shows it.

A watch is a position in the index order and a filter; it needs no queue. What lies past the position is read
when the watcher can take it: a slow one gets an object's latest state, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from deltalog.wire.delta import ADDED, DELETED, MODIFIED
from materializer.entry import NEVER, Entry
from materializer.filter import Filter
from materializer.order import Removal
from materializer.store import Store
from materializer.type_store import TypeStore


class Change(NamedTuple):
    """One event to show: its type, the entry, and the index (`at`) its version bears.

    That index is the entry's own, but for events that stand for a message together with later ones: there, all
    but the last bear the index before it, so that a client cut off in between gets the whole again.
    """

    type: str
    entry: Entry
    at: int


class Position(NamedTuple):
    """Up to where a watcher was shown the order, and what it may hold of what lies past that.

    - `after`: what lay up to this index when it was read, it was shown.
    - `whole`: the last index at which it held the whole state. Of an object that changed again since then it may hold
      any state between the two; then a deletion too many is shown rather than one too few. 0 if nobody knows, as of a
      client that resumes at an event's version. Below the type's `gap` this process has not seen every state, and is
      as careful.
    - `start`: the index from which on it was served by this process: what entered the log since then, but was never
      seen here, it cannot hold.
    - `base`: where the present run of reads began, `begun`: what was applied then. What entered the log past the one,
      and lay past `after` already at the other, it was not shown.
    """

    read_to: int
    complete_at: int
    served_from: int
    scan_from: int
    scan_head: int

    def may_know(self, entry: Entry) -> bool:
        """Whether the watcher may have been shown this uid."""
        if entry.uid_index > self.read_to:
            return False
        if entry.uid_index > self.served_from and entry.observed_from > self.read_to:
            return False
        return not (entry.uid_index > self.scan_from and self.read_to < entry.index <= self.scan_head)

    def may_match(self, entry: Entry, wanted: Filter, gap: int) -> bool:
        """Whether a uid that the watcher may know was in its selection in a state that it may hold."""
        if not wanted.timely(entry) and entry.selectable_since != NEVER:
            return False
        low = max(self.complete_at, entry.uid_index)
        return self.complete_at < gap or wanted.matched_between(entry, low, self.read_to) is not False


class Cursor:
    """The position of one watcher, through all its reads from one store.

    `whole`: 0 if nobody knows whether it held the whole state at `after` (see Position).
    """

    def __init__(self, after: int, whole: int | None = None) -> None:
        self.read_to = after
        self._complete_at = after if whole is None else whole
        self._served_from = self._scan_from = after
        self._scan_head = 0

    def position(self, kind: TypeStore) -> Position:
        """What the next read goes by. Equal ones see the same."""
        return Position(
            self.read_to,
            self._complete_at,
            min(self._served_from, kind.unread_through),
            self._scan_from,
            self._scan_head,
        )

    def advance(self, store: Store, upto: int | None) -> None:
        """The store was read up to an index; None: to its end."""
        if upto is not None:
            self.read_to = upto
            self._scan_head = self._scan_head or store.applied
            return
        self.read_to = self._complete_at = self._scan_from = store.applied
        self._scan_head = 0
        if store.caught_up_at >= store.unread_through:
            self._served_from = self.read_to


def changes(
    kind: TypeStore, at: Position, wanted: Filter, limit: int, most: int | None = None
) -> tuple[list[Change], int | None]:
    """Changes past a position, oldest first, at least `limit` of them or `most` bytes of bodies, if there is so much.

    The second value is the index up to which they were read, None if that is all there is. O(log n + items
    past the position, up to the limit).
    """
    result: list[Change] = []
    size = 0
    for item in kind.order.after(at.read_to):
        if isinstance(item, Removal):
            batch = [
                Change(DELETED, held, item.index - 1)
                for entry in item.entries.values()
                if wanted.covers(entry) and (held := _held(entry, wanted, at, kind.unread_through)) is not None
            ]
            if batch:
                batch[-1] = batch[-1]._replace(at=item.index)
                result.extend(batch)
        elif wanted.covers(item):
            shown = len(result)
            result.extend(_shown(item, wanted, at, kind.unread_through))
            if len(result) > shown:
                size += len(item.body)
        if len(result) >= limit or (most is not None and size >= most):
            return result, item.index
    return result, None


def _held(entry: Entry, wanted: Filter, at: Position, gap: int) -> Entry | None:
    """What a watcher may hold of a name: this uid or one before it, None for surely nothing."""
    if at.may_know(entry) and at.may_match(entry, wanted, gap):
        return entry
    return _predecessor(entry, wanted, at, gap) if entry.uid_index > at.complete_at else None


def _shown(entry: Entry, wanted: Filter, at: Position, gap: int) -> Iterator[Change]:
    held = _held(entry, wanted, at, gap)
    known = at.may_know(entry)
    selected = not entry.deleted and wanted.timely(entry) and wanted.selects(entry)
    if held is not None and (not selected or not known):
        # It has gone, or left the selection, or this uid is new to the watcher and another one of its name is not.
        shown = entry if held is entry or (entry.deleted and known) else held
        yield Change(DELETED, shown, entry.index - 1 if selected else entry.index)
        held = None
    if selected:
        yield Change(ADDED if held is None else MODIFIED, entry, entry.index)


def _predecessor(entry: Entry, wanted: Filter, at: Position, gap: int) -> Entry | None:
    before = entry.replaced
    while before is not None:
        if before.deleted and 0 < before.index <= at.complete_at:
            # It was gone by then, and the watcher was told.
            return None
        if at.may_know(before):
            if at.may_match(before, wanted, gap):
                return before
            if before.uid_index <= at.complete_at:
                return None
        if before.replaced is None:
            # Older ones of this name are known only by where the first of them entered the log.
            return (
                before
                if before.oldest_uid_index and before.oldest_uid_index <= min(at.read_to, before.uid_index - 1)
                else None
            )
        before = before.replaced
    return None


def initial(store: Store, kind: TypeStore, wanted: Filter) -> list[Change]:
    """The present state as ADDED events, by cluster, namespace and name."""
    return [Change(ADDED, entry, entry.index) for entry in kind.select(wanted)]
