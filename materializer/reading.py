"""Reading: the JSON of many entries at once, as lists, tables and watches need it.

What was unpacked lately is kept plain for a while (`KeptRests`): several clients that list the same again and again
have it unpacked once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from materializer.bodies import Dictionary
from materializer.entry import METADATA, Entry, Envelope
from materializer.mapped import MappedEntry
from materializer.record import HEAD_BYTES, SIZE, VALUES_AT, body_in, lengths_from

D = TypeVar("D", bound=Dictionary | None)

# What a kept rest takes beside itself and its entry's record, in bytes.
_OVERHEAD = 200
# One in so many displaces an old one when all room is taken.
_RENEWAL = 32


class KeptRests:
    """Rests that were unpacked lately, by the records they were in, in at most `limit` bytes. O(1).

    When all room is taken, most are not kept: a list of more than there is room for, asked for again and again, then
    still finds most of what was kept. Used by the event loop alone.
    """

    __slots__ = ("_limit", "_refused", "_rests", "_used", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rests: dict[bytes, tuple[Dictionary, bytes]] = {}
        self._refused = 0
        self._used = False
        self.size = 0
        """Bytes that they take, about."""

    def __len__(self) -> int:
        return len(self._rests)

    def find(self, entries: Sequence[Entry]) -> tuple[list[bytes], list[int]]:
        """The rest of each, b"" where it is neither plain nor kept; and where in `entries` those are."""
        get = self._rests.get
        found: list[bytes] = []
        missing: list[int] = []
        for at, entry in enumerate(entries):
            dictionary, record = entry.dictionary, entry.record
            if dictionary is None:
                found.append(body_in(record))
                continue
            kept = get(record)
            if kept is not None and kept[0] is dictionary:
                found.append(kept[1])
            else:
                missing.append(at)
                found.append(b"")
        if len(missing) < len(entries):
            self._used = True
        return found, missing

    @property
    def has_room(self) -> bool:
        """Whether there is room for more. O(1)."""
        return self.size < self._limit

    def keep(self, dictionary: Dictionary, record: bytes, rest: bytes) -> None:
        """Keeps one, if there is room, or it is its turn."""
        size = len(record) + len(rest) + _OVERHEAD
        if self.size + size > self._limit:
            self._refused += 1
            if self._refused % _RENEWAL:
                return
        if record in self._rests:
            return
        self._rests[record] = dictionary, rest
        self.size += size
        while self.size > self._limit and self._rests:
            oldest = next(iter(self._rests))
            _, gone = self._rests.pop(oldest)
            self.size -= len(oldest) + len(gone) + _OVERHEAD

    def forget_unused(self) -> None:
        """Forgets all, unless some were used since this was last called. O(those)."""
        if not self._used:
            self.clear()
        self._used = False

    def clear(self) -> None:
        """Forgets all."""
        self._rests.clear()
        self.size = 0


KEPT = KeptRests(64 << 20)
"""Those of all that this process serves."""


def rests(entries: Sequence[Entry]) -> list[bytes]:
    """`Entry.rest` of each, those under one dictionary at one go. O(their sizes). Raises CorruptFrame."""
    found, missing = KEPT.find(entries)
    if missing:
        held = [(entries[at].dictionary, entries[at].record) for at in missing]
        keep = KEPT.keep
        for at, (dictionary, record), rest in zip(missing, held, unpacked(held), strict=True):
            assert dictionary is not None
            found[at] = rest
            keep(dictionary, record, rest)
    return found


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
    for dictionary, places in places_by_dictionary(held):
        if dictionary is not None:
            for at, rest in zip(places, dictionary.unpack_many([bodies[at] for at in places]), strict=True):
                bodies[at] = rest
    return bodies


def places_by_dictionary(held: Sequence[tuple[D, bytes]]) -> Iterator[tuple[D, list[int]]]:
    """Each dictionary, and where those stand that are under it. O(held) for each."""
    for dictionary in {dictionary for dictionary, _ in held}:
        yield dictionary, [at for at, (one, _) in enumerate(held) if one is dictionary]


def contents(entries: Sequence[Entry]) -> list[bytes]:
    """`Entry.content` of each. O(their sizes)."""
    return [opening + rest for opening, rest in zip(openings(entries), rests(entries), strict=True)]


def openings(entries: Iterable[Entry], before: bytes = b"") -> list[bytes]:
    """`Entry.opening` of each, with `before` in front of it. O(entries)."""
    made: list[bytes] = []
    envelope: Envelope | None = None
    head = b""
    for entry in entries:
        if entry.envelope is not envelope:
            envelope = entry.envelope
            head = b'%b%b"resourceVersion":"%b.' % (before, METADATA, envelope.prefix.encode())
        record = entry.record
        version = record[HEAD_BYTES : lengths_from(record, VALUES_AT)[0]]
        if version.isalnum():
            # As `version_member` writes it.
            made.append(b'%b%d.%b",' % (head, entry.index, version))
        else:
            made.append(before + entry.opening())
    return made


def size(entries: Iterable[Entry]) -> int:
    """The bytes of `contents` together, known without reading them. O(entries)."""
    return sum(sizes(entries))


def sizes(entries: Iterable[Entry]) -> list[int]:
    """`Entry.size` of each. O(entries)."""
    # Not `entry.size` for all: a call less.
    return [one.size if type(one) is MappedEntry else lengths_from(one.record, SIZE)[0] for one in entries]
