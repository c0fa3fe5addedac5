"""Reading: the JSON of many entries at once, as lists, tables and watches need it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from materializer.entry import Entry
from materializer.record import SIZE, length_at


def rests(entries: Iterable[Entry]) -> list[bytes]:
    """`Entry.rest` of each. O(their sizes)."""
    return [entry.rest for entry in entries]


def contents(entries: Sequence[Entry]) -> list[bytes]:
    """`Entry.content` of each. O(their sizes)."""
    return [entry.opening() + rest for entry, rest in zip(entries, rests(entries), strict=True)]


def size(entries: Iterable[Entry]) -> int:
    """The bytes of `contents` together, known without reading them. O(entries)."""
    return sum([length_at(entry.record, SIZE) for entry in entries])
