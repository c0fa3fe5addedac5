"""Reading: the JSON of many entries at once, as lists, tables and watches need it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from materializer.bodies import Dictionary
from materializer.entry import Entry
from materializer.mapped import MappedEntry
from materializer.record import SIZE, body_in, length_at


def rests(entries: Sequence[Entry]) -> list[bytes]:
    """`Entry.rest` of each, those under one dictionary at one go. O(their sizes). Raises CorruptFrame."""
    return unpacked([(entry.dictionary, entry.record) for entry in entries])


def unpacked(held: Sequence[tuple[Dictionary | None, bytes]]) -> list[bytes]:
    """The same of entries' dictionaries and records, which may be read in any thread. O(their sizes).

    Raises:
        CorruptFrame: a body cannot be unpacked.
    """
    bodies = [body_in(record) for _, record in held]
    dictionaries = {dictionary for dictionary, _ in held}
    if len(dictionaries) == 1:
        # Mostly all of a slice are.
        [dictionary] = dictionaries
        return bodies if dictionary is None else dictionary.unpack_many(bodies)
    for dictionary in dictionaries:
        if dictionary is not None:
            places = [at for at, (one, _) in enumerate(held) if one is dictionary]
            for at, rest in zip(places, dictionary.unpack_many([bodies[at] for at in places]), strict=True):
                bodies[at] = rest
    return bodies


def contents(entries: Sequence[Entry]) -> list[bytes]:
    """`Entry.content` of each. O(their sizes)."""
    return [entry.opening() + rest for entry, rest in zip(entries, rests(entries), strict=True)]


def size(entries: Iterable[Entry]) -> int:
    """The bytes of `contents` together, known without reading them. O(entries)."""
    # Not `entry.size` for all: a call less.
    return sum([one.size if type(one) is MappedEntry else length_at(one.record, SIZE) for one in entries])
