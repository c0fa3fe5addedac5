"""Known matches: which entries met a condition on bodies when it was asked last, for those who ask again.

Dashboards ask the same every few seconds. Entries do not change, so that only those that came since have to be read.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence

from materializer.entry import Entry
from materializer.filter import BodyCondition
from query.search.where import chosen_by

_SEARCHES = 256
_MATCHES = 1_000_000
_LIFE = 120.0


class KnownMatches:
    """Which entries met which condition, for as many searches as there is room for. Owned by the service.

    A search is known for 120 s after it was asked last, and by the indexes of what met it: some 60 bytes each, a
    million at most.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By search: up to which index it was asked of all, what met it, and when it was asked last.
        self._known: OrderedDict[Hashable, tuple[int, frozenset[int], float]] = OrderedDict()
        self._held = 0

    def __len__(self) -> int:
        return len(self._known)

    def chosen(
        self, search: Hashable, where: BodyCondition, entries: Sequence[Entry], index: int
    ) -> Iterator[list[Entry]]:
        """Those of the entries that meet a condition, in steps of a millisecond or two: what the last one yields.

        `search`: stands for what selected the entries, all that there are at `index`, the newest one: an entry that is
        there now and then was there in between.
        """
        self._drop_old()
        upto, met, _ = self._known.get(search, (-1, frozenset[int](), 0.0))
        if upto > index:
            # Of a state that this one was before.
            yield from chosen_by(where, entries)
            return
        new = [entry for entry in entries if entry.index > upto]
        found: list[Entry] = []
        for found in chosen_by(where, new):
            yield found
        both = met | {entry.index for entry in found} if upto >= 0 else frozenset(entry.index for entry in found)
        result = found if upto < 0 else [entry for entry in entries if entry.index in both]
        self._keep(search, index, frozenset(entry.index for entry in result))
        yield result

    def _keep(self, search: Hashable, index: int, met: frozenset[int]) -> None:
        known = self._known.pop(search, None)
        if known is not None:
            self._held -= len(known[1])
            if known[0] > index:
                index, met = known[0], known[1]
        self._known[search] = (index, met, self._clock())
        self._held += len(met)
        while len(self._known) > _SEARCHES or (self._held > _MATCHES and self._known):
            self._drop()

    def _drop(self) -> None:
        _, (_, met, _) = self._known.popitem(last=False)
        self._held -= len(met)

    def _drop_old(self) -> None:
        limit = self._clock() - _LIFE
        while self._known and next(iter(self._known.values()))[2] < limit:
            self._drop()
