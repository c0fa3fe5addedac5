"""Which objects a subscription has shown, and so what a message of the log is to it: ADDED, MODIFIED or DELETED.

A change says itself what its object's labels were before (`Delta.was`), so of changes that come one by one nothing else
need be known. Where the log has superseded some, and in messages of older releases, this says what was shown.

Without labels it is enough to know what was shown since the log was read to its end last: an object whose `uid_index`
(the sequence at which its uid first came) is not above that was shown before. With labels all that is shown is held,
since an object may leave the selection and come back while it lives.
"""

from __future__ import annotations

from typing import NamedTuple

from deltalog.wire.delta import ADDED, DELETED, MODIFIED, UNCHANGED, Delta
from deltalog.wire.selection import Selection


class Showing(NamedTuple):
    """How a change is shown; `left`: a DELETED of an object that lives on, but is no longer selected by its labels."""

    type: str
    left: bool


class Shown:
    """What one subscription has shown. `start`: the sequence behind which it begins.

    `compacted_through`: up to there, changes that came before the one that is shown may have been superseded.

    Example, without labels, started behind 10: a delta at 12 of an object with `uid_index` 7 is MODIFIED, since it was
    there at the beginning; one at 13 with `uid_index` 13 is ADDED, and its next one at 14 is MODIFIED.
    """

    def __init__(self, selection: Selection, start: int) -> None:
        self.compacted_through = 0
        self._selection = selection
        self._start = start
        # All that was there up to this sequence was shown; and what was since then, by name: uid.
        self._complete = start
        self._recent: dict[str, str] = {}
        # Of a selection by labels: what is shown now (name: uid), and the names of which it is not known.
        self._selected: dict[str, str] = {}
        self._doubtful: set[str] = set()

    def survey(self, sequence: int, subject: str, delta: Delta, *, resuming: bool) -> None:
        """Learns from a message of the log, read before the first event, what the labels selected at the beginning.

        `resuming`: the consumer may know what was selected up to there.
        """
        name = _name(subject)
        if sequence > self._start:
            if resuming:
                # Also what came only then: it may have been handed out before a crash, and not acknowledged.
                self._doubtful.add(name)
            self._selected.pop(name, None)
        elif delta.type != DELETED and self._selection.takes_labels(delta.labels):
            self._selected[name] = delta.uid

    def showing(self, sequence: int, subject: str, delta: Delta) -> Showing | None:
        """How a change of a selected type is shown; None if it is not."""
        name = _name(subject)
        if self._selection.labels:
            return self._by_labels(name, sequence, delta)
        if delta.type == DELETED:
            self._recent.pop(name, None)
            return Showing(DELETED, False)
        added = (delta.uid_index or sequence) > self._complete and self._recent.get(name) != delta.uid
        self._recent[name] = delta.uid
        return Showing(ADDED if added else MODIFIED, False)

    def _by_labels(self, name: str, sequence: int, delta: Delta) -> Showing | None:
        if delta.was is not None and sequence > self.compacted_through:
            self._doubtful.discard(name)
            had = self._selection.takes_labels(delta.labels if delta.was is UNCHANGED else delta.was.labels)
            if delta.type != DELETED and self._selection.takes_labels(delta.labels):
                self._selected[name] = delta.uid
                return Showing(MODIFIED if had else ADDED, False)
            self._selected.pop(name, None)
            return Showing(DELETED, delta.type != DELETED) if had else None
        before = self._selected.get(name)
        doubtful = before is None and name in self._doubtful
        self._doubtful.discard(name)
        if delta.type == DELETED or not self._selection.takes_labels(delta.labels):
            self._selected.pop(name, None)
            if before is None and not doubtful:
                return None
            return Showing(DELETED, delta.type != DELETED)
        self._selected[name] = delta.uid
        known = before == delta.uid or (doubtful and 0 < delta.uid_index <= self._start)
        return Showing(MODIFIED if known else ADDED, False)

    def removed(self, subject: str) -> None:
        """A cluster, or a type of it, was removed: what its record, of this subject, speaks of is shown no longer."""
        for names in (self._recent, self._selected):
            for name in [one for one in names if _speaks_of(subject, one)]:
                del names[name]
        self._doubtful -= {one for one in self._doubtful if _speaks_of(subject, one)}

    def complete(self, sequence: int) -> None:
        """The log was read to its end, which was `sequence`."""
        self._complete = sequence
        self._recent.clear()


def _name(subject: str) -> str:
    """An object's subject without its version: an object's name stays when its cluster serves it in another one."""
    tokens = subject.split(".")
    return ".".join((*tokens[1:3], *tokens[4:]))


def _speaks_of(removal: str, name: str) -> bool:
    """Whether the subject of a removal's record speaks of an object, by its `_name`."""
    removed = removal.split(".")
    tokens = name.split(".")
    return removed[1] == tokens[0] and (len(removed) < 5 or removed[3:5] == tokens[1:3])
