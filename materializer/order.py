"""Order: the live entries, tombstones and removals of one type by index, which is how a watch reads them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import msgspec

from materializer.entry import Entry, ObjectKey


class Removal(msgspec.Struct, eq=False):
    """A removed type or cluster: one index for many deletions.

    `entries`: its tombstones by cluster and name, as they are in a list's order.
    """

    index: int
    entries: dict[tuple[str, ObjectKey], Entry]


class Order:
    """Live entries, tombstones and removals of a type, ascending by index.

    Indexes only grow, so appending is O(1). Discarding a superseded item is O(log n) and leaves a hole; holes are
    closed when they are many and the majority, so that memory stays in proportion, at amortised O(1).

    - `indexes`, `items`: in parallel; an item is None where it was discarded. `holes`: how many are.

    Example: a created at 3, b at 4, a changed at 7 has indexes [3, 4, 7] and items [None, b, a].
    """

    def __init__(self) -> None:
        self.indexes: list[int] = []
        self.items: list[Entry | Removal | None] = []
        self.holes = 0

    def append(self, index: int, item: Entry | Removal) -> None:
        """Adds an item at an index higher than all before. O(1)."""
        self.indexes.append(index)
        self.items.append(item)

    def discard(self, index: int) -> None:
        """Leaves a hole at an index, if an item is there. O(log n), amortised."""
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
        """An index that no item's is higher than; 0 if there are none. O(1).

        It is the last one appended, also where that was discarded, until holes are closed.
        """
        return self.indexes[-1] if self.indexes else 0
