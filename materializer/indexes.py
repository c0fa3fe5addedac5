"""Indexes of a type's live entries by label, field, owner or name: made when first asked for, kept while asked for.

A selector that a hundred thousand entries would have to be looked through for is answered from the smallest set
of candidates that an index has. Nobody pays, in time or memory, for keys that nobody asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from materializer.entry import Entry
from materializer.filter import Filter

# Fewer entries than these are looked through.
WORTHWHILE = 2000
# So many indexes a type may have, and how many rounds of forgetting one is kept for that nobody uses.
_LIMIT = 16
_UNUSED = 180


class Attribute(NamedTuple):
    """What an index is by: `label` or `field` and its key, `owner` or `name`."""

    kind: str
    key: str = ""

    def of(self, entry: Entry) -> str | None:
        if self.kind == "label":
            return entry.labels.get(self.key)
        if self.kind == "field":
            return entry.fields.get(self.key)
        return entry.owner if self.kind == "owner" else entry.name


class _Index:
    def __init__(self, attribute: Attribute, entries: Iterable[Entry]) -> None:
        self.attribute = attribute
        # Rounds of forgetting since it was used.
        self.idle = 0
        self._entries: dict[str, set[Entry]] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        value = self.attribute.of(entry)
        if value:
            found = self._entries.get(value)
            if found is None:
                self._entries[value] = {entry}
            else:
                found.add(entry)

    def discard(self, entry: Entry) -> None:
        value = self.attribute.of(entry)
        if value and (found := self._entries.get(value)) is not None:
            found.discard(entry)
            if not found:
                del self._entries[value]

    def count(self, values: Iterable[str]) -> int:
        return sum(len(self._entries.get(value, ())) for value in values)

    def entries(self, values: Iterable[str]) -> Iterator[Entry]:
        for value in values:
            yield from self._entries.get(value, ())

    def check(self, live: Iterable[Entry]) -> None:
        """AssertionError unless it is what it would be if it were made now."""
        assert self._entries == _Index(self.attribute, live)._entries, f"index {self.attribute} is stale"


class Indexes:
    """The indexes of one type. Whoever changes the type's live entries tells them. Owned by the type's store."""

    def __init__(self) -> None:
        self._made: dict[Attribute, _Index] = {}

    def __len__(self) -> int:
        return len(self._made)

    def add(self, entry: Entry) -> None:
        for index in self._made.values():
            index.add(entry)

    def discard(self, entry: Entry) -> None:
        for index in self._made.values():
            index.discard(entry)

    def clear(self) -> None:
        """They are made anew when they are asked for."""
        self._made.clear()

    def candidates(self, wanted: Filter, everything: Callable[[], Iterable[Entry]]) -> list[Entry] | None:
        """A superset of what matches, in no order; None if no index can tell.

        O(candidates) but for the first question of its kind, which is O(entries).
        """
        best: tuple[int, _Index, Iterable[str]] | None = None
        for attribute, values in _attributes(wanted):
            index = self._made.get(attribute)
            if index is None:
                if len(self._made) >= _LIMIT:
                    del self._made[max(self._made, key=lambda one: self._made[one].idle)]
                index = self._made[attribute] = _Index(attribute, everything())
            index.idle = 0
            count = index.count(values)
            if best is None or count < best[0]:
                best = (count, index, values)
        return None if best is None else list(best[1].entries(best[2]))

    def drop_unused(self) -> None:
        """A round of forgetting."""
        for attribute, index in list(self._made.items()):
            index.idle += 1
            if index.idle > _UNUSED:
                del self._made[attribute]

    def owned(self, uids: Iterable[str], everything: Callable[[], Iterable[Entry]]) -> Iterator[Entry]:
        """The live entries that one of these uids controls."""
        attribute = Attribute("owner")
        index = self._made.get(attribute)
        if index is None:
            index = self._made[attribute] = _Index(attribute, everything())
        index.idle = 0
        return index.entries(uids)

    def check(self, live: list[Entry]) -> None:
        for index in self._made.values():
            index.check(live)


def _attributes(wanted: Filter) -> Iterator[tuple[Attribute, Iterable[str]]]:
    """What of a filter an index can answer: equality with something that is not empty."""
    if wanted.names is not None:
        yield Attribute("name"), wanted.names
    if wanted.owners is not None:
        yield Attribute("owner"), wanted.owners
    for kind, requirements in (("label", wanted.labels), ("field", wanted.fields)):
        for key, operator, values in requirements:
            if operator == "in" and "" not in values:
                yield Attribute(kind, key), values
