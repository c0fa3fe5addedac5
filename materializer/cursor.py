"""Cursor reads: what changed past an index, for one filter, as a Kubernetes watch shows it.

A watch is a position in the index order and a filter; it needs no queue. What lies past the position is read when the
watcher can take it: every event, as long as the store's window has them all (`materializer.window`); one that stands
before the window gets each object's latest state, once, and every event from there on.
"""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from deltalog.wire.delta import ADDED, DELETED, MODIFIED
from materializer.entry import NEVER, Entry, of_version
from materializer.filter import Filter
from materializer.order import Removal
from materializer.store import Store
from materializer.type_store import TypeStore
from materializer.window import Event, Was


class ShownChange(NamedTuple):
    """One event as a watch shows it: its type (ADDED, MODIFIED, DELETED), the entry, and the index `at` that
    its version bears.

    That index is the entry's own. The exception are events that one message stands for together with later ones: all
    but the last bear the index before it, so that a client cut off in between is shown all of them again. Example: a
    removal of a cluster with three objects at index 50 is three DELETED events at 49, 49 and 50.

    `member_version`: where it is not the entry's own that the version ends in: an object that leaves a selection is
    shown in its last state that was selected, with the version of the change (as apiserver storage/cacher has it:
    convertToWatchEvent).
    """

    type: str
    entry: Entry
    at: int
    member_version: str | None = None


class Position(NamedTuple):
    """Up to where a watcher was shown the order, and what it may hold of what lies past that.

    - `read_to`: everything in the order up to this index, as the order was when it was read, has been shown.
    - `complete_at`: the last index at which the watcher held the whole state; 0 if unknown, as for a client that
      resumes at an event's version. Of an object that changed again since then it may hold any state between the two;
      a deletion too many is then shown rather than one too few.
    - `served_from`: from this index on this process has served it. What began later and was never seen here, the
      watcher cannot hold. Never higher than the `unread_through` of the type.
    - `scan_from`, `scan_head`: while the watcher reads in pieces, `read_to` when the present scan began, and what was
      applied after its first piece; `scan_head` is 0 between scans. What began after `scan_from` and already lay past
      `read_to` at `scan_head` has not been shown.

    Beside it stands the type's `unread_through`: the highest index that the log had lost, superseded or purged, before
    this process could read it. A watcher whose `complete_at` is below that may have been shown, elsewhere, states that
    this process never saw, so it is treated as one whose knowledge is unknown.

    Example. A client lists at 100 and watches in pieces of two changes. The log had lost 101 before this process could
    read it. Past 100 the order has a at 103 and b at 104, both new; c at 107, which began at 102; x at 108, which began
    at 101, but was first seen here at 108; d at 110, which began at 90.

        event                          read_to  complete_at  served_from  scan_from  scan_head
        begins at the list's version       100          100          100        100          0
        is shown ADDED a, ADDED b          104          100          100        100        110
        is shown ADDED c, ADDED x          108          100          100        100        110
        is shown MODIFIED d, the end       110          110          101        110          0

    Before the second piece, c and x both began at or before `read_to`, 104, and still the client cannot know them. c
    began after `scan_from` and already lay past `read_to`, at 107, at `scan_head`: the first piece did not have it. x
    began after `served_from`, and this process first saw it after `read_to`. Were both deleted now, nothing would be
    shown. d began before all that: the client has it from its list, and a deletion would be DELETED, whatever its
    selector, since `complete_at` is below `unread_through`, 101. A client that comes from another instance with the
    version 104 has `served_from` 101 (the minimum of 104 and `unread_through`): it may know x from there.
    """

    read_to: int
    complete_at: int
    served_from: int
    scan_from: int
    scan_head: int

    def may_know(self, entry: Entry) -> bool:
        """Whether the watcher may have been shown this uid. O(1)."""
        if entry.uid_index > self.read_to:
            return False
        if entry.uid_index > self.served_from and entry.observed_from > self.read_to:
            return False
        return not (entry.uid_index > self.scan_from and self.read_to < entry.index <= self.scan_head)

    def may_match(self, entry: Entry, wanted: Filter, unread_through: int) -> bool:
        """Whether a uid that the watcher may know was in its selection in a state that it may hold.

        O(earlier states of the object that selectors saw differently).
        """
        if not wanted.timely(entry) and (entry.created or entry.selectable_since != NEVER):
            return False
        low = max(self.complete_at, entry.uid_index)
        return self.complete_at < unread_through or wanted.matched_between(entry, low, self.read_to) is not False


class Cursor:
    """The position of one watcher, through all its reads from one store.

    Begins at index `read_to`; `complete_at` is 0 if it is unknown whether the client held the whole state there, and
    `read_to` if not given (see Position).
    """

    def __init__(self, read_to: int, complete_at: int | None = None) -> None:
        self.read_to = read_to
        self._complete_at = read_to if complete_at is None else complete_at
        self._served_from = self._scan_from = read_to
        self._scan_head = 0

    def position(self, type_store: TypeStore) -> Position:
        """What the next read of this type depends on: watchers at equal positions are shown the same. O(1)."""
        if type_store.window.has(self.read_to, self._scan_head):
            return Position(self.read_to, self.read_to, self.read_to, self.read_to, 0)
        return Position(
            self.read_to,
            self._complete_at,
            min(self._served_from, type_store.unread_through),
            self._scan_from,
            self._scan_head,
        )

    def advance(self, store: Store, upto: int | None) -> None:
        """Notes that the store was read up to the index `upto`; None: to its end. O(1)."""
        if upto is not None and store.window.has(self.read_to, self._scan_head):
            # Read event by event, it has the whole state of any index.
            self.read_to = self._complete_at = self._served_from = self._scan_from = upto
            return
        if upto is not None:
            self.read_to = upto
            self._scan_head = self._scan_head or store.applied
            return
        self.read_to = self._complete_at = self._scan_from = store.applied
        self._scan_head = 0
        if store.caught_up_at >= store.unread_through or self.read_to >= store.window.start:
            self._served_from = self.read_to


def changes(
    type_store: TypeStore, at: Position, wanted: Filter, limit: int, most: int | None = None
) -> tuple[list[ShownChange], int | None]:
    """Changes past a position, oldest first, and the index up to which they were read (None: to the end).

    Ends at the first item with which there are at least `limit` changes or `most` bytes of bodies; a removal is one
    item however many objects it had. O(log n + items past the position, up to the limit). It also ends when so many
    objects were passed over, or with `Filter.where` read, that others should have a turn.

    In the window these are the events, one by one, as they happened, whoever asks and whatever it was shown elsewhere.
    """
    exact = type_store.window.has(at.read_to, at.scan_head)
    result: list[ShownChange] = []
    size = 0
    # Bodies that are read, whether the objects are shown or not.
    reads, until = _MOST_READ, time.perf_counter() + _READ_SECONDS
    for index, shown, bytes_ in (_events if exact else _latest)(type_store, at, wanted):
        result += shown
        size += bytes_
        reads -= 1
        if len(result) >= limit or (most is not None and size >= most):
            return result, index
        if wanted.where is not None and (not reads or time.perf_counter() >= until):
            return result, index
        if not shown and wanted.where is None:
            return result, index
    return result, None


def changes_of(
    parts: Iterable[tuple[TypeStore, Position, Filter]], limit: int, most: int
) -> tuple[list[ShownChange], int | None]:
    """Changes of several types past one position, in the order of their indexes, as `changes` has those of one.

    It ends between two indexes. Where one index is several types' matter, as the removal of a cluster is, all but its
    last change bear the index before it (see `ShownChange`). O(types + changes * log types).
    """
    result: list[ShownChange] = []
    last = begin = size = 0
    reads, until = _MOST_READ, time.perf_counter() + _READ_SECONDS
    reading = False
    sources = [_steps(type_store, at, wanted) for type_store, at, wanted in parts]
    for index, reads_body, shown, bytes_ in heapq.merge(*sources, key=_index_of):
        if not shown and not reads_body:
            # Many were passed over up to this object's change, the only one at its index: others have a turn.
            return result, index
        if index > last:
            due = len(result) >= limit or size >= most or (reading and (reads <= 0 or time.perf_counter() >= until))
            if due:
                return result, last
            last, begin = index, len(result)
        elif shown:
            result[begin:] = [change._replace(at=index - 1) for change in result[begin:]]
        reading = reading or reads_body
        reads -= reads_body
        result += shown
        size += bytes_
    return result, None


def _steps(type_store: TypeStore, at: Position, wanted: Filter) -> Iterator[tuple[int, bool, list[ShownChange], int]]:
    """What is past a position of one type, each with whether its body is read."""
    reads = wanted.where is not None
    exact = type_store.window.has(at.read_to, at.scan_head)
    for index, shown, bytes_ in (_events if exact else _latest)(type_store, at, wanted):
        yield index, reads, shown, bytes_


def _index_of(step: tuple[int, bool, list[ShownChange], int]) -> int:
    return step[0]


# Bodies that a condition on them is asked about at one go, and for how long.
_MOST_READ = 256
_READ_SECONDS = 0.005

# So many items that show nothing are passed over at one go, in some 10 ms: of the dead, who may have to be dug up, a
# sixteenth.
_MOST_PASSED = 16_384
_DEAD = 16

# What an item shows: its index, the changes, and the bytes of its content. Where that is nothing, only with a condition
# on bodies, or after many others that show nothing.
_Steps = Iterator[tuple[int, list[ShownChange], int]]


def _latest(type_store: TypeStore, at: Position, wanted: Filter) -> _Steps:
    """What changed past a position, each object once."""
    passed = before = 0
    for item in type_store.after(at.read_to, wanted):
        if passed >= _MOST_PASSED:
            passed = 0
            yield before, [], 0
        before = item.index
        if isinstance(item, Removal):
            scope = _of_removal(wanted, len(item.entries), type_store)
            held = [
                found
                for entry in item.entries.values()
                if scope.covers(entry) and (found := _held(entry, scope, at, type_store.unread_through)) is not None
            ]
            if held:
                yield item.index, _removed(held, item.index), 0
            continue
        passed += _DEAD if item.deleted else 1
        if wanted.covers(item):
            shown = list(_shown(item, wanted, at, type_store))
        elif wanted.version not in (None, item.version):
            shown = list(_out_of_version(item, wanted, at, type_store))
        else:
            continue
        if shown or wanted.where is not None:
            yield item.index, shown, item.size if shown else 0


def _of_removal(wanted: Filter, entries: int, type_store: TypeStore) -> Filter:
    """By what a removal of so many objects is filtered: without a condition on bodies, if that takes too long.

    To be told of the deletion of what one does not have does no harm.
    """
    if wanted.where is None or entries <= min(_MOST_READ, wanted.where.at_once):
        return wanted
    type_store.window.doubtful += entries
    return dataclasses.replace(wanted, where=None)


def _events(type_store: TypeStore, at: Position, wanted: Filter) -> _Steps:
    """What happened past a position, event by event."""
    for event in type_store.events.after(at.read_to):
        item = event.item
        if isinstance(item, Removal):
            # All of it is news to one who came with the clusters' own versions.
            scope = dataclasses.replace(wanted, beyond=()) if wanted.beyond else wanted
            scope = _of_removal(scope, len(event.removed), type_store)
            if held := [entry for entry in event.removed if scope.matches(entry)]:
                yield event.index, _removed(held, event.index), 0
            continue
        shown: list[ShownChange] = []
        if wanted.covers(item):
            _add_event(shown, type_store, event, item, wanted)
        elif wanted.version is not None and (left := _left_version(type_store, event, item, wanted)) is not None:
            shown.append(left)
        if shown or wanted.where is not None:
            yield event.index, shown, item.size if shown else 0


def _removed(held: list[Entry], index: int) -> list[ShownChange]:
    """The deletions of a removal: all but the last bear the index before it (see `ShownChange`)."""
    last = len(held) - 1
    return [ShownChange(DELETED, entry, index if at == last else index - 1) for at, entry in enumerate(held)]


def _add_event(result: list[ShownChange], type_store: TypeStore, event: Event, item: Entry, wanted: Filter) -> None:
    """One event as a kube-apiserver's watch cache has it: by whether the state before it matched, and the one after."""
    before = event.before
    selected = not item.deleted and wanted.timely(item) and wanted.selects(item)
    if before is not None:
        had = (wanted.version is None or before.version == wanted.version) and _matched(before, wanted)
        if not before.same_uid(item):
            # The cluster was not heard of the deletion: one event stands for both.
            if had:
                result.append(ShownChange(DELETED, before, event.index - 1 if selected else event.index))
            had = False
    elif event.fresh or not wanted.timely(item):
        had = False
    else:
        was = _was(event, item)
        had = was is None or wanted.may_select(was)
        # Of the body it says nothing.
        type_store.window.doubtful += had and not selected and (was is None or wanted.where is not None)
    if selected:
        result.append(ShownChange(MODIFIED if had else ADDED, item, event.index))
    elif had:
        if before is None or item.deleted:
            result.append(ShownChange(DELETED, item, event.index))
        else:
            result.append(ShownChange(DELETED, before, event.index, item.member_version))


def _left_version(type_store: TypeStore, event: Event, item: Entry, wanted: Filter) -> ShownChange | None:
    """What a watch of one version is shown of an object that is in another one since: nothing if it did not have it.

    Where the state before is not here, or only what the log says of another uid, its version is not known.
    """
    before = event.before
    if before is not None and not before.deleted:
        had = wanted.covers(before) and _matched(before, wanted)
        return ShownChange(DELETED, before, event.index, item.member_version) if had else None
    if event.fresh or not _may_have_left(item, wanted, event.index - 1, type_store):
        return None
    if before is not None:
        had = _matched(before, wanted)
    else:
        was = _was(event, item)
        had = wanted.timely(item) and (was is None or wanted.may_select(was))
    return _deleted_from_version(before or item, item, wanted, type_store) if had else None


def _was(event: Event, item: Entry) -> Was | None:
    """What selectors looked at in a state before that is not here; None: unknown.

    Of a deletion of which the log does not say it, what the tombstone has.
    """
    return item if event.was is None and item.deleted else event.was


def _matched(before: Entry, wanted: Filter) -> bool:
    """Whether the state before an event was in the selection, of an object in scope, whatever its version."""
    # Of a predecessor of which only the log knows, an older release did not say when it was created.
    return (wanted.timely(before) or not before.created) and wanted.selects(before)


def _held(entry: Entry, wanted: Filter, at: Position, unread_through: int) -> Entry | None:
    """What a watcher may hold of a name: this uid or an earlier one; None: certainly nothing."""
    if at.may_know(entry) and at.may_match(entry, wanted, unread_through):
        return entry
    return _predecessor(entry, wanted, at, unread_through) if entry.uid_index > at.complete_at else None


def _shown(entry: Entry, wanted: Filter, at: Position, type_store: TypeStore) -> Iterator[ShownChange]:
    held = _held(entry, wanted, at, type_store.unread_through)
    known = at.may_know(entry)
    selected = not entry.deleted and wanted.timely(entry) and wanted.selects(entry)
    if held is not None and (not selected or not known):
        # It was deleted or left the selection, or the watcher holds another uid of the name and does not know this one.
        shown = entry if entry.deleted and known else held
        if held is entry and not wanted.matched_between(entry, max(at.complete_at, entry.uid_index), at.read_to):
            # The states in which it may have been selected are not here.
            type_store.window.doubtful += 1
        yield ShownChange(DELETED, shown, entry.index - 1 if selected else entry.index)
        held = None
    if selected:
        yield ShownChange(ADDED if held is None else MODIFIED, entry, entry.index)


def _out_of_version(entry: Entry, wanted: Filter, at: Position, type_store: TypeStore) -> Iterator[ShownChange]:
    """What a watch of one version is shown of an object that is in another one, before the window."""
    if _may_have_left(entry, wanted, at.read_to, type_store):
        held = _held(entry, wanted, at, type_store.unread_through)
        if held is not None:
            yield _deleted_from_version(held, entry, wanted, type_store)


def _may_have_left(entry: Entry, wanted: Filter, read_to: int, type_store: TypeStore) -> bool:
    """Whether an object that is in another version may have been in the one that is watched, at an index.

    Not where its cluster has had the type in that since. Else in which version it was is not known, and it is shown as
    deleted: not to be told would leave it at the client for ever.
    """
    since = type_store.version_since.get(entry.cluster, NEVER)
    return read_to < since and dataclasses.replace(wanted, version=None).covers(entry)


def _deleted_from_version(held: Entry, entry: Entry, wanted: Filter, type_store: TypeStore) -> ShownChange:
    assert wanted.version is not None
    type_store.window.doubtful += 1
    shown = of_version(held, type_store.key.group, wanted.version)
    return ShownChange(DELETED, shown, entry.index, entry.member_version)


def _predecessor(entry: Entry, wanted: Filter, at: Position, unread_through: int) -> Entry | None:
    before = entry.replaced
    while before is not None:
        if before.deleted and before.index <= at.complete_at:
            # It was deleted by then, and the watcher was shown that.
            return None
        if at.may_know(before):
            if at.may_match(before, wanted, unread_through):
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


def initial(store: Store, type_store: TypeStore, wanted: Filter) -> list[ShownChange]:
    """The present state as ADDED events, by cluster, namespace and name. As `TypeStore.select`."""
    return [ShownChange(ADDED, entry, entry.index) for entry in type_store.select(wanted)]
