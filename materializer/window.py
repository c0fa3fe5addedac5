"""Window: the newest events of the log in memory, every one of them, with the state that each one changed.

Beside a type's order, which has each object's latest change once, the window has what happened: an object changed
sixty times is in it sixty times. It goes back as far as its bytes allow. A watch that stands in it is shown every event
(`materializer.cursor`), and a list as of any index in it can be given (`TypeStore.as_of`); what stands before its start
is known by the latest states alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator

import msgspec

from deltalog.wire.delta import Selectables
from materializer.entry import Entry
from materializer.order import Removal

# What an event takes in memory beside the state before it, what such a state takes beside its record, and what the
# event of a new object takes, of which its entry says all. In bytes, measured.
_EVENT = 150
_STATE = 200
_FRESH = 32
WINDOW_BYTES = 64 << 20
"""How many bytes of the newest events are kept at most, if nothing else is said."""
_LEAST_BYTES = 8 << 20
CLOSED = 2**63
"""A start that no index is past."""


Was = Entry | Selectables
"""What selectors looked at in a state that is not here: as the log says, or as in the entry, since nothing changed."""


class Event(msgspec.Struct, gc=False, eq=False):
    """One change of one object, or the removal of many.

    - `index`: its sequence in the log. `item`: what is there since: a live entry, a tombstone, or a removal.
    - `before`: the state that it changed; None: there was none (`fresh`), or it is not here.
    - `was`: of one that is not here, what selectors looked at in it, as far as the log says; None: unknown.
    - `removed`: the last states of what a removal removed, in the order of its entries.
    - `weight`: bytes that it counts for, as they are held.

    Example: b is created at 4, relabelled at 7 and deleted at 9. The three events have `before` None, b of 4, b of 7.
    """

    index: int
    item: Entry | Removal
    before: Entry | None
    was: Was | None
    fresh: bool
    removed: tuple[Entry, ...]
    weight: int


class TypeWindow:
    """The events of one type, ascending by index. Changed by the window alone.

    That of a new object is not held as such: its entry says all of it.
    """

    __slots__ = ("_events", "_gone", "_indexes")

    def __init__(self) -> None:
        self._indexes: list[int] = []
        self._events: list[Event | Entry | None] = []
        # How many at the beginning have been dropped and are still in the lists.
        self._gone = 0

    def __len__(self) -> int:
        return len(self._events) - self._gone

    def last(self) -> int:
        """The index of the last event; 0 if there is none. O(1)."""
        return self._indexes[-1] if self._indexes else 0

    def after(self, index: int) -> Iterator[Event]:
        """Events with a higher index, ascending. O(log n) to the first."""
        events = self._events
        for at in range(bisect_right(self._indexes, index, self._gone), len(events)):
            event = events[at]
            assert event is not None
            yield event if isinstance(event, Event) else event_of_new(event)

    def copy(self) -> list[Event | Entry]:
        """All of them, those of new objects as their entries. O(events)."""
        return [event for event in self._events[self._gone :] if event is not None]

    def _append(self, index: int, event: Event | Entry) -> None:
        self._indexes.append(index)
        self._events.append(event)

    def _drop_first(self) -> tuple[int, int]:
        """Its index, and what it counted for."""
        index, event = self._indexes[self._gone], self._events[self._gone]
        self._events[self._gone] = None
        self._gone += 1
        if self._gone > 256 and self._gone * 2 > len(self._events):
            del self._indexes[: self._gone], self._events[: self._gone]
            self._gone = 0
        return index, event.weight if isinstance(event, Event) else _FRESH

    def _clear(self) -> None:
        self._indexes.clear()
        self._events.clear()
        self._gone = 0


def event_of_new(entry: Entry) -> Event:
    """The event of an object that was not there before."""
    return Event(entry.index, entry, None, None, True, (), _FRESH)


def weight_of(item: Entry | Removal, before: Entry | None, removed: tuple[Entry, ...]) -> int:
    """Bytes that an event counts for: its own, and those of the states that only it keeps, as they are held.

    A tombstone is one of them, as it is buried in some minutes. A live entry is the state before the next event.
    """
    weight = _EVENT
    if before is not None:
        weight += _STATE + len(before.record)
    if isinstance(item, Entry) and item.deleted:
        weight += _STATE + len(item.record)
    for entry in removed:
        weight += _STATE + len(entry.record)
    return weight


def _counts_plain(event: Event) -> bool:
    """Whether its weight counts a body that is still plain."""
    before, item = event.before, event.item
    return (before is not None and before.dictionary is None) or (
        isinstance(item, Entry) and item.deleted and item.dictionary is None
    )


def in_proportion(held: int) -> int:
    """How many bytes a window may have where live objects take so many: as many, within bounds.

    Example: 64 MiB for 200 MB; 8 MiB for 1,800 objects, which is some 10,000 events.
    """
    return min(max(held, _LEAST_BYTES), WINDOW_BYTES)


class Window:
    """The events of all types of one store, bounded by `limit` bytes; 0: none are kept.

    - `start`: every event past this index is here; `CLOSED` while none are kept.
    - `size`: bytes that the events count for. `dropped`: how many have been dropped for want of bytes.
    - `doubtful`: deletions shown to watches though the object may never have matched, as the state before is not known.
    """

    __slots__ = ("_order", "_unsettled", "doubtful", "dropped", "limit", "size", "start")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.start = 0 if limit else CLOSED
        self.size = 0
        self.dropped = 0
        self.doubtful = 0
        # Whose event is the next to be dropped.
        self._order: deque[TypeWindow] = deque()
        # Events whose weight counts bodies that are still plain, by index.
        self._unsettled: deque[Event] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def has(self, read_to: int, scan_head: int) -> bool:
        """Whether every event past `read_to` is here, for who is in no scan of what is before (`Position`). O(1)."""
        return not scan_head and read_to >= self.start

    def open(self, start: int) -> None:
        """From here on every event is kept: what comes past `start` is all that happens. O(events that were here)."""
        self.close()
        self.start = start if self.limit else CLOSED

    def close(self) -> None:
        """Drops all, and keeps none: the log is read where it has the latest states only. O(events)."""
        for of_type in set(self._order):
            of_type._clear()
        self._order.clear()
        self._unsettled.clear()
        self.size = 0
        self.start = CLOSED

    def add(
        self,
        of_type: TypeWindow,
        index: int,
        item: Entry | Removal,
        before: Entry | None,
        was: Was | None = None,
        *,
        fresh: bool = False,
        removed: tuple[Entry, ...] = (),
    ) -> None:
        """Takes in the event at `index`, higher than all before. Amortised O(1)."""
        if self.start == CLOSED:
            return
        self._order.append(of_type)
        if fresh:
            assert isinstance(item, Entry)
            of_type._append(index, item)
            self.size += _FRESH
        else:
            event = Event(index, item, before, was, fresh, removed, weight_of(item, before, removed))
            of_type._append(index, event)
            self.size += event.weight
            if _counts_plain(event):
                self._unsettled.append(event)
        if self.size > self.limit:
            self._bound()

    def settle(self, below: int) -> None:
        """Weighs events below an index anew, as what was there before that is packed by now. Amortised O(1) each."""
        unsettled = self._unsettled
        while unsettled and unsettled[0].index < below:
            event = unsettled.popleft()
            weight = weight_of(event.item, event.before, event.removed)
            self.size += weight - event.weight
            event.weight = weight

    def resize(self, limit: int) -> None:
        """Sets another limit. O(events that are dropped)."""
        self.limit = limit
        if not limit:
            self.close()
        self._bound()

    def restore(self, events: list[tuple[TypeWindow, Event]], start: int) -> None:
        """Takes in all of another window, in any order. O(n log n)."""
        self.open(start)
        for of_type, event in sorted(events, key=lambda one: one[1].index):
            self._order.append(of_type)
            of_type._append(event.index, event.item if event.fresh and isinstance(event.item, Entry) else event)
            self.size += event.weight
            if _counts_plain(event):
                self._unsettled.append(event)

    def _bound(self) -> None:
        while self.size > self.limit:
            index, weight = self._order.popleft()._drop_first()
            self.size -= weight
            self.start = index
            self.dropped += 1
            while self._unsettled and self._unsettled[0].index <= index:
                self._unsettled.popleft()
