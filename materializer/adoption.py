"""Adoption: a store's records are read from a newer file from here on, where that has the same ones.

After a snapshot was written, by this process or another one of its host, entries that stand in it as they stand here
leave their records to it (see `materializer.mapped`). Whatever changed meanwhile keeps its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

import msgspec

from materializer.bodies import Dictionary
from materializer.entry import Entry
from materializer.image_records import NotAnImage, PieceType, dictionaries_in, entries_in, type_in
from materializer.mapped import MappedEntry, MappedFile, unmap
from materializer.order import Removal
from materializer.record import head_of
from materializer.store import Store
from materializer.type_store import TypeStore

_STEP = 2048


class Adoption:
    """Takes in the pieces of a file's image, in their order.

    An entry is the same if it is live here and there at the same index, which is that of one message in the log, and
    this process knows the same of its object as the one that wrote the file. Its body may be packed in another way.

    - `adopted`: how many entries are read from the file.
    """

    def __init__(self, store: Store, file: MappedFile) -> None:
        self._store = store
        self._file = file
        self._types: list[TypeStore | None] = []
        self._dictionaries: list[Dictionary] = []
        self.adopted = 0

    def take(self, piece_type: int, text: memoryview, at: int | None) -> None:
        """Takes in a piece; `at`: where it stands in the file, if it stands there as it is. O(its length).

        Raises:
            NotAnImage: it cannot be read.
        """
        try:
            if piece_type == PieceType.TYPE:
                self._types.append(self._store.types.get(type_in(text)))
            elif piece_type == PieceType.SHARED:
                packing = self._store.packing
                for made in dictionaries_in(text):
                    self._dictionaries.append(made if packing is None else packing.known(made))
            elif piece_type == PieceType.PACKED and at is not None:
                self._take_entries(text, at)
        except (msgspec.MsgspecError, ValueError, LookupError) as cause:
            raise NotAnImage(f"a piece of type {piece_type} cannot be read: {cause}") from cause

    def _take_entries(self, text: memoryview, at: int) -> None:
        read, apart = entries_in(text)
        type_store = self._types[read.type]
        if type_store is None or read.removal:
            return
        indexes, items = type_store.order.indexes, type_store.order.items
        for found, begins, length in zip(*apart, strict=True):
            place = bisect_left(indexes, found.index)
            if place == len(indexes) or indexes[place] != found.index:
                continue
            entry = items[place]
            if not isinstance(entry, Entry) or entry.deleted or entry.dictionary is None or self._file.holds(entry):
                continue
            record = entry.record
            body_at: int = head_of(record)[11]
            theirs = text[begins : begins + length]
            if theirs[:body_at] != record[:body_at]:
                # One of the two knows more of what was before.
                continue
            dictionary = self._dictionaries[found.dictionary or 0]
            if self._file.put(entry, at + begins, length, dictionary):
                type_store.held += length - len(record)
                type_store.saved -= length - len(record)
                self.adopted += 1

    def leave_others(self) -> Iterator[None]:
        """Has entries keep their records that stand in an older file, in steps: nothing needs that any more."""
        for type_store in list(self._store.types.values()):
            for number, found in enumerate(_reachable(type_store)):
                entry = found
                while entry is not None:
                    if isinstance(entry, MappedEntry) and not self._file.holds(entry):
                        unmap(entry)
                    entry = entry.replaced
                if number % _STEP == _STEP - 1:
                    yield
        self._file.end()


def _reachable(type_store: TypeStore) -> Iterator[Entry | None]:
    """Every entry that a type's order and window have at the moment of the call, some of them twice."""
    for event in type_store.events.copy():
        if isinstance(event, Entry):
            yield event
            continue
        if isinstance(event.item, Entry):
            yield event.item
        yield event.before
        yield from event.removed
    items: Iterable[Entry | Removal | None] = list(type_store.order.items)
    for item in items:
        if isinstance(item, Entry):
            yield item
        elif item is not None:
            yield from list(item.entries.values())
