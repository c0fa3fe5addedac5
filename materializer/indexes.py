"""Indexes of a type's live entries by label, field, owner, name or age: made when asked for, kept while asked for.

A selector that a hundred thousand entries would have to be looked through for is answered from the smallest set
of candidates that an index has. Keys that no request selects by cost neither time nor memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

from sortedcontainers import SortedKeyList

from materializer.entry import Entry
from materializer.filter import Filter
from materializer.sorting import STEP, sorted_in_steps

# Fewer entries than these are looked through.
WORTHWHILE = 2000
# So many indexes a type may have, and after how many rounds of forgetting without a use one is dropped.
_LIMIT = 16
_UNUSED = 180


class Attribute(NamedTuple):
    """What an index is by: `label` or `field` and its key, `owner` or `name`."""

    by: str
    key: str = ""

    def of(self, entry: Entry) -> str | None:
        """The entry's value; None if it has none, which no selection that an index answers asks for. O(1)."""
        if self.by == "label":
            return entry.labels.get(self.key)
        if self.by == "field":
            return entry.field(self.key) or None
        return (entry.controller_uid if self.by == "owner" else entry.name) or None


class _Index:
    """By an attribute's value. `values` None asks for all that have one."""

    def __init__(self, attribute: Attribute, entries: Iterable[Entry]) -> None:
        self.attribute = attribute
        # Rounds of forgetting since it was used.
        self.idle = 0
        self._entries: dict[str, set[Entry]] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        value = self.attribute.of(entry)
        if value is not None:
            found = self._entries.get(value)
            if found is None:
                self._entries[value] = {entry}
            else:
                found.add(entry)

    def discard(self, entry: Entry) -> None:
        value = self.attribute.of(entry)
        if value is not None and (found := self._entries.get(value)) is not None:
            found.discard(entry)
            if not found:
                del self._entries[value]

    def count(self, values: Iterable[str] | None) -> int:
        if values is None:
            return sum(map(len, self._entries.values()))
        return sum(len(self._entries.get(value, ())) for value in values)

    def entries(self, values: Iterable[str] | None) -> Iterator[Entry]:
        for value in self._entries if values is None else values:
            yield from self._entries.get(value, ())

    def check(self, live: Iterable[Entry]) -> None:
        """AssertionError unless it is what it would be if it were made now."""
        assert self._entries == _Index(self.attribute, live)._entries, f"index {self.attribute} is stale"


class _Times:
    """By the time of creation."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.idle = 0
        self._sorted: SortedKeyList = SortedKeyList(entries, key=_created)

    def add(self, entry: Entry) -> None:
        self._sorted.add(entry)

    def discard(self, entry: Entry) -> None:
        self._sorted.discard(entry)

    def count(self, span: tuple[int, int]) -> int:
        low, high = span
        return max(int(self._sorted.bisect_key_left(high) - self._sorted.bisect_key_left(low)), 0)

    def entries(self, span: tuple[int, int]) -> Iterator[Entry]:
        low, high = span
        return iter(self._sorted.irange_key(low, high, (True, False)))

    def check(self, live: Iterable[Entry]) -> None:
        """AssertionError unless it is what it would be if it were made now."""
        assert set(self._sorted) == set(live), "the index of times is stale"


def _created(entry: Entry) -> int:
    return entry.created


# How many candidates an index has, and what yields them.
_Best = tuple[int, Callable[[], Iterator[Entry]]]


class _Making:
    """An index that is being made of the entries that there were, while others come and go (`changes`, in order)."""

    def __init__(self, attribute: Attribute | None, entries: list[Entry]) -> None:
        self.changes: list[tuple[bool, Entry]] = []
        # Rounds of forgetting since somebody went on with it.
        self.idle = 0
        self._steps = self._times(entries) if attribute is None else self._values(attribute, entries)

    def step(self) -> _Index | _Times | None:
        """Goes on for some milliseconds; the index, once it is made."""
        return next(self._steps)

    def _values(self, attribute: Attribute, entries: list[Entry]) -> Iterator[_Index | None]:
        index = _Index(attribute, ())
        for begin in range(0, len(entries), STEP):
            for entry in entries[begin : begin + STEP]:
                index.add(entry)
            yield None
        yield from self._caught_up(index)

    def _times(self, entries: list[Entry]) -> Iterator[_Times | None]:
        for found in sorted_in_steps(entries, _created):  # noqa: B007  # the last one counts
            yield None
        # Of what is sorted it is made at once.
        yield from self._caught_up(_Times(found))

    def _caught_up(self, index: _Kind) -> Iterator[_Kind | None]:
        while len(self.changes) > STEP:
            changes, self.changes = self.changes, []
            for begin in range(0, len(changes), STEP):
                _follow(index, changes[begin : begin + STEP])
                yield None
        _follow(index, self.changes)
        yield index


_Kind = TypeVar("_Kind", _Index, _Times)


def _follow(index: _Index | _Times, changes: list[tuple[bool, Entry]]) -> None:
    for added, entry in changes:
        if added:
            index.add(entry)
        else:
            index.discard(entry)


class Indexes:
    """The indexes of one type, owned by its `TypeStore`.

    They hold live entries: `add` and `discard` have to be called with each change of these.
    """

    def __init__(self) -> None:
        self._made: dict[Attribute, _Index] = {}
        self._times: _Times | None = None
        # Those that are being made, by what they will be; None: of times.
        self._making: dict[Attribute | None, _Making] = {}

    def __len__(self) -> int:
        return len(self._made) + (self._times is not None)

    def __bool__(self) -> bool:
        """Whether changes matter to any, made or being made."""
        return bool(self._made or self._making or self._times is not None)

    def add(self, entry: Entry) -> None:
        """Adds an entry that became live. O(indexes), and O(log n) for that of times."""
        for index in self._made.values():
            index.add(entry)
        if self._times is not None:
            self._times.add(entry)
        for making in self._making.values():
            making.changes.append((True, entry))

    def discard(self, entry: Entry) -> None:
        """Removes an entry that is live no longer. O(indexes), and O(log n) for that of times."""
        for index in self._made.values():
            index.discard(entry)
        if self._times is not None:
            self._times.discard(entry)
        for making in self._making.values():
            making.changes.append((False, entry))

    def clear(self) -> None:
        """Drops all indexes; they are made again when a selection needs them. O(1)."""
        self._made.clear()
        self._making.clear()
        self._times = None

    def candidates(self, wanted: Filter, everything: Callable[[], Iterable[Entry]], most: int) -> list[Entry] | None:
        """A superset of what matches, in no order; None if no index can tell, or they are more than `most`.

        O(candidates) but for the first question of its kind, which is O(entries): of several indexes that a filter
        could use, one is made at a time, and only while those there are leave too much.
        """
        best, lacking = self._best(wanted)
        if lacking:
            self._make(lacking[0], everything())
            best, _ = self._best(wanted)
        return None if best is None or best[0] > most else list(best[1]())

    def prepare(self, wanted: Filter, everything: Callable[[], Iterable[Entry]]) -> Iterator[None]:
        """Makes the index that `candidates` would make, in steps of some milliseconds. O(entries)."""
        _, lacking = self._best(wanted)
        if lacking:
            yield from self._made_in_steps(lacking[0], everything)

    def prepare_owned(self, everything: Callable[[], Iterable[Entry]]) -> Iterator[None]:
        """Makes the index that `owned` needs, in steps of some milliseconds. O(entries)."""
        attribute = Attribute("owner")
        if attribute not in self._made:
            yield from self._made_in_steps(attribute, everything)

    def _make(self, attribute: Attribute | None, entries: Iterable[Entry]) -> None:
        self._making.pop(attribute, None)
        if attribute is None:
            self._times = _Times(entries)
        else:
            self._made[attribute] = _Index(attribute, entries)

    def _made_in_steps(self, attribute: Attribute | None, everything: Callable[[], Iterable[Entry]]) -> Iterator[None]:
        """All who need the same index make it together, each a step at a time."""
        making = self._making.get(attribute)
        if making is None:
            making = self._making[attribute] = _Making(attribute, list(everything()))
            yield
        while self._making.get(attribute) is making:
            making.idle = 0
            if (made := making.step()) is not None:
                del self._making[attribute]
                if isinstance(made, _Times):
                    self._times = made
                else:
                    self._made[made.attribute] = made
            yield

    def _best(self, wanted: Filter) -> tuple[_Best | None, list[Attribute | None]]:
        """The index that leaves least, and those worth making since that is still much; None: that of times."""
        best: _Best | None = None
        lacking: list[Attribute | None] = []
        values_of = dict(_attributes(wanted))
        for attribute, values in values_of.items():
            index = self._made.get(attribute)
            if index is None:
                lacking.append(attribute)
                continue
            index.idle = 0
            count = index.count(values)
            if best is None or count < best[0]:
                best = (count, partial(index.entries, values))
        span = _span(wanted)
        if span is not None and self._times is not None:
            self._times.idle = 0
            count = self._times.count(span)
            if best is None or count < best[0]:
                best = (count, partial(self._times.entries, span))
        if best is not None and best[0] <= WORTHWHILE:
            return best, []
        if lacking and self._has_room():
            return best, lacking
        return best, [None] if span is not None and self._times is None else []

    def _has_room(self) -> bool:
        """Whether another index may be made; gives up one that is not in use for it."""
        if len(self._made) < _LIMIT:
            return True
        longest = max(self._made, key=lambda one: self._made[one].idle)
        if not self._made[longest].idle:
            return False
        del self._made[longest]
        return True

    def drop_unused(self) -> None:
        """Drops the indexes that no selection has used for some rounds; called once a round of forgetting."""
        for key, making in list(self._making.items()):
            making.idle += 1
            if making.idle > 1:
                # Whoever began it has gone.
                del self._making[key]
        for attribute, index in list(self._made.items()):
            index.idle += 1
            if index.idle > _UNUSED:
                del self._made[attribute]
        if self._times is not None:
            self._times.idle += 1
            if self._times.idle > _UNUSED:
                self._times = None

    def owned(self, uids: Iterable[str], everything: Callable[[], Iterable[Entry]]) -> Iterator[Entry]:
        """The live entries that one of these uids controls. O(those); O(entries) at the first call."""
        attribute = Attribute("owner")
        index = self._made.get(attribute)
        if index is None:
            self._make(attribute, everything())
            index = self._made[attribute]
        index.idle = 0
        return index.entries(uids)

    def check(self, live: list[Entry]) -> None:
        """The invariants as code, for tests. O(indexes * entries).

        Raises:
            AssertionError: an index does not hold exactly the live entries.
        """
        for index in self._made.values():
            index.check(live)
        if self._times is not None:
            self._times.check(live)


def may_answer(wanted: Filter) -> bool:
    """Whether a filter asks for anything that an index could be by. O(1)."""
    return wanted.selective or wanted.names is not None or wanted.since is not None or wanted.before is not None


def _attributes(wanted: Filter) -> Iterator[tuple[Attribute, Iterable[str] | None]]:
    """What of a filter an index can answer: equality with something that is not empty, and that there is a label."""
    if wanted.names is not None:
        yield Attribute("name"), wanted.names
    if wanted.controller_uids is not None:
        yield Attribute("owner"), wanted.controller_uids
    for by, requirements in (("label", wanted.labels), ("field", wanted.fields)):
        for key, operator, values in requirements:
            if operator == "in" and "" not in values:
                yield Attribute(by, key), values
    for key, operator, _ in wanted.labels:
        if operator == "exists" and all(one.key != key or one.operator == "exists" for one in wanted.labels):
            yield Attribute("label", key), None


def _span(wanted: Filter) -> tuple[int, int] | None:
    """The times of creation that a filter restricts to, from and up to, in seconds."""
    if wanted.since is None and wanted.before is None:
        return None
    return (
        -(2**63) if wanted.since is None else wanted.since,
        2**63 if wanted.before is None else wanted.before,
    )
