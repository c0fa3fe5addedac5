"""Order: the live entries, tombstones and removals of one type by index, which is how a watch reads them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import msgspec

from deltalog.wire.kubernetes import ObjectName
from materializer.entry import Entry


class Removal(msgspec.Struct, eq=False):
    """A removed type or cluster: one index for many deletions. `entries` are its tombstones, in list order."""

    index: int
    entries: dict[tuple[str, ObjectName], Entry]


class Order:
    """Live entries, tombstones and removals of a type, ascending by index.

    Appending is O(1), as indexes only grow; dropping a superseded one is O(log n) and leaves a hole; holes are
    closed when they are the majority, so that memory stays in proportion and the cost amortised O(1).
    """

    def __init__(self) -> None:
        self.indexes: list[int] = []
        self.items: list[Entry | Removal | None] = []
        self.holes = 0

    def append(self, index: int, item: Entry | Removal) -> None:
        self.indexes.append(index)
        self.items.append(item)

    def discard(self, index: int) -> None:
        at = bisect_left(self.indexes, index)
        if at < len(self.indexes) and self.indexes[at] == index and self.items[at] is not None:
            self.items[at] = None
            self.holes += 1
            if self.holes > 1024 and self.holes * 2 > len(self.items):
                self._close_holes()

    def _close_holes(self) -> None:
        kept = [(index, item) for index, item in zip(self.indexes, self.items, strict=True) if item is not None]
        self.indexes = [index for index, _ in kept]
        self.items = [item for _, item in kept]
        self.holes = 0

    def after(self, index: int) -> Iterator[Entry | Removal]:
        """Items with a higher index, ascending; O(log n) to the first."""
        for at in range(bisect_right(self.indexes, index), len(self.items)):
            item = self.items[at]
            if item is not None:
                yield item

    def last(self) -> int:
        """The highest index ever appended and still remembered; 0 if none."""
        return self.indexes[-1] if self.indexes else 0
