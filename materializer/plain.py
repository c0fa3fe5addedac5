"""Plain: the entries whose bodies are plain, oldest first, and how these come to be packed, in place.

An entry enters the store plain, and is packed when newer ones take the room: what was just sent is read without
unpacking anything. The work is parted so that packing itself can be done in a thread: `take` and `settle` are called on
the event loop, `packed` anywhere.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deltalog.wire.kubernetes import GroupResource
from materializer.bodies import AtRest, Dictionary, Packing
from materializer.entry import Entry
from materializer.record import body_view, with_body

MOST_BYTES = 16 << 20
"""How many bytes of plain records are kept where there are many objects."""
LOADING_BYTES = 64 << 20
"""How many in the first replay: so much of what is packed is packed beside what comes after it, when all can be served,
and the first dictionary is made of thousands of bodies.
"""
_LEAST_BYTES = 1 << 20
# Of all bodies, plain, so much is kept plain.
_PART = 128
BATCH_BYTES = 1 << 20
"""About how many bytes are packed at one go, in some 2 ms."""


Taken = tuple[Entry, bytes]
"""An entry and its record, as of one moment."""


class Batch(NamedTuple):
    """Entries that are to be packed, and what `Packing.take` is to know.

    `objects`: how many there are of their types; `samples`: bodies of those types of which it wants some.
    """

    taken: list[Taken]
    objects: Mapping[GroupResource, int]
    samples: Mapping[GroupResource, Sequence[AtRest]]


class PlainEntries:
    """The entries of one store that are plain, oldest first. Changed by the store alone.

    - `size`: bytes of their records. `limit`: above it the oldest are to be packed.
    - `out`: how many batches are taken, and neither settled nor given back.
    """

    __slots__ = ("_entries", "limit", "out", "size")

    def __init__(self, limit: int = _LEAST_BYTES) -> None:
        self.limit = limit
        self.size = 0
        self.out = 0
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Takes in an entry whose body is plain. O(1)."""
        self._entries.append(entry)
        self.size += len(entry.record)

    def oldest(self) -> Entry | None:
        """The next one to be packed. O(1)."""
        return self._entries[0] if self._entries else None

    def bound(self, size: int) -> None:
        """Sets the limit in proportion to `size`, the bytes of all bodies of the store when they are plain. O(1)."""
        self.limit = min(max(size // _PART, _LEAST_BYTES), MOST_BYTES)

    def take(self, most: int = BATCH_BYTES) -> list[Taken]:
        """Removes the oldest, about `most` bytes of them. O(those)."""
        taken: list[Taken] = []
        self.out += 1
        entries, room = self._entries, most
        while entries and room > 0:
            entry = entries.popleft()
            record = entry.record
            room -= len(record)
            taken.append((entry, record))
        self.size -= most - room
        return taken

    def settled(self) -> None:
        """Notes that a batch is done with. O(1)."""
        self.out = max(self.out - 1, 0)

    def give_back(self, taken: Sequence[Taken]) -> None:
        """The inverse of `take`, for what was not packed. O(those)."""
        self.settled()
        self._entries.extendleft(entry for entry, _ in reversed(taken))
        self.size += sum(len(record) for _, record in taken)


Packed = tuple[Entry, bytes, Dictionary, bytes]
"""An entry, its record before, and the dictionary and the record that it is to have from now on."""


def packed(packing: Packing, batch: Batch, *, train: bool = True) -> list[Packed]:
    """How those entries are to be held that are not best left plain.

    O(their bytes); it may be called in any thread. `train`: as in `Packing.take`.
    """
    bodies = [(entry.envelope.key, body_view(record)) for entry, record in batch.taken]
    found = packing.take(bodies, batch.objects, batch.samples, train=train)
    return [
        (entry, record, dictionary, with_body(record, body))
        for (entry, record), (dictionary, body) in zip(batch.taken, found, strict=True)
        if dictionary is not None
    ]
