"""Mapped: entries whose records stand in a file that is mapped into memory, where the processes of a host share them.

The kernel has a mapped file once, whoever reads it, and may drop what is not read: it is on the disk. An entry holds
where its record stands, instead of the record.
"""

from __future__ import annotations

import mmap
from typing import Any, BinaryIO, Final

from materializer.bodies import Dictionary
from materializer.entry import Entry
from materializer.record import (
    CREATED,
    OBSERVED_FROM,
    OLDEST_UID_INDEX,
    SELECTABLE_SINCE,
    SIZE,
    TIME,
    UID_INDEX,
    index_at,
    length_at,
    signed_at,
)

# A place is an offset and, below it, a length: both in one int of 32 bytes, for files of up to 64 GiB.
_LENGTH_BITS: Final = 24
_LONGEST: Final = (1 << _LENGTH_BITS) - 1
# The slots that a mapped entry has something else in than what it shows.
_record_slot: Final = vars(Entry)["record"]
_dictionary_slot: Final = vars(Entry)["dictionary"]
_place_in: Final = _record_slot.__get__
_shelf_in: Final = _dictionary_slot.__get__


class Shelf:
    """The records of one mapped file under one dictionary. The file is unmapped with the last entry that refers to it.

    `data`: the whole file's bytes.
    """

    __slots__ = ("data", "dictionary", "file")

    def __init__(self, file: MappedFile, dictionary: Dictionary) -> None:
        self.file: Final = file
        self.data: Final = file.data
        self.dictionary: Final = dictionary


class MappedFile:
    """A file mapped into memory, read-only. Nothing may shorten it in place: reading behind its end is SIGBUS.

    Raises:
        OSError: it cannot be mapped.
    """

    __slots__ = ("__weakref__", "_shelves", "data")

    def __init__(self, source: BinaryIO) -> None:
        try:
            self.data: Final = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as cause:
            # It is empty.
            raise OSError(str(cause)) from cause
        self._shelves: dict[Dictionary, Shelf] = {}

    def end(self) -> None:
        """Nothing is put on its shelves any more: from here on, entries alone keep it mapped."""
        self._shelves = {}

    def put(self, entry: Entry, at: int, length: int, dictionary: Dictionary) -> bool:
        """Has an entry's record be read at `at` from here on, in place; False, and nothing done, if it is too long."""
        if length > _LONGEST:
            return False
        shelf = self._shelves.get(dictionary)
        if shelf is None:
            shelf = self._shelves[dictionary] = Shelf(self, dictionary)
        entry.__class__ = MappedEntry  # of the same layout
        _record_slot.__set__(entry, at << _LENGTH_BITS | length)
        _dictionary_slot.__set__(entry, shelf)
        return True

    def holds(self, entry: Entry) -> bool:
        """Whether an entry's record stands in this file."""
        return isinstance(entry, MappedEntry) and entry.shelf.file is self


class MappedEntry(Entry, gc=False, eq=False):
    """An entry whose record is mapped. It shows all that an entry shows; `record` is a copy each time, 0.3 us.

    A class of its own, which an entry is given in place: to read others costs as much as if there were none of these.
    """

    @property
    def shelf(self) -> Shelf:
        """Where it stands."""
        found: Shelf = _shelf_in(self)
        return found

    @property  # type: ignore[misc]  # over a slot
    def record(self) -> bytes:  # type: ignore[override]  # never assigned: see `MappedFile.put` and `unmap`
        """As of an entry. O(its length)."""
        place: int = _place_in(self)
        at = place >> _LENGTH_BITS
        return _shelf_in(self).data[at : at + (place & _LONGEST)]  # type: ignore[no-any-return]

    @property  # type: ignore[misc]
    def dictionary(self) -> Dictionary:  # type: ignore[override]
        """As of an entry. O(1)."""
        return _shelf_in(self).dictionary  # type: ignore[no-any-return]

    # What is asked for often, without a copy of the rest.

    @property
    def size(self) -> int:
        return length_at(_shelf_in(self).data, (_place_in(self) >> _LENGTH_BITS) + SIZE)

    @property
    def uid_index(self) -> int:
        return index_at(_shelf_in(self).data, (_place_in(self) >> _LENGTH_BITS) + UID_INDEX)

    @property
    def selectable_since(self) -> int:
        return index_at(_shelf_in(self).data, (_place_in(self) >> _LENGTH_BITS) + SELECTABLE_SINCE)

    @property
    def observed_from(self) -> int:
        return index_at(_shelf_in(self).data, (_place_in(self) >> _LENGTH_BITS) + OBSERVED_FROM)

    @property
    def oldest_uid_index(self) -> int:
        return index_at(_shelf_in(self).data, (_place_in(self) >> _LENGTH_BITS) + OLDEST_UID_INDEX)

    @property
    def created(self) -> int:
        return signed_at(_shelf_in(self).data, (_place_in(self) >> _LENGTH_BITS) + CREATED)

    @property
    def time(self) -> int:
        return signed_at(_shelf_in(self).data, (_place_in(self) >> _LENGTH_BITS) + TIME)


def unmap(entry: MappedEntry) -> None:
    """Has an entry hold its record itself again, in place. O(its length)."""
    record, dictionary = entry.record, entry.dictionary
    changed: Any = entry
    changed.__class__ = Entry
    changed.record, changed.dictionary = record, dictionary
