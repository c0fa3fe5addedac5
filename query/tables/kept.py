"""Kept rows: the text of a row is made once for each state of an object; a later table adds but the ages."""

from __future__ import annotations

import msgspec

from query.tables.ages import age_text
from query.tables.columns import Printer

# What a row takes beside its text: three headers, the number, and its place in the dict; measured.
_OVERHEAD = 180
# What each age takes beside its text where there is more than one.
_OTHER = 150
# One in so many new rows displaces an old one when all room is taken.
_RENEWAL = 8


class KeptRow(msgspec.Struct, gc=False, frozen=True):
    """A row in pieces, see `Row.pieces`, and what it was made of: state `index` of the object `uid`.

    Nearly every row has one age: `before`, the age since `since`, `after`. Only others have `others`: then `before`
    and those are the row.
    """

    uid: str
    index: int
    printer: Printer
    before: bytes
    since: float
    after: bytes
    others: tuple[tuple[float, bytes], ...] | None = None

    def at(self, now: float) -> bytes:
        """The row's JSON from its first cell up to its object, at `now` (unix seconds)."""
        ages = ((self.since, self.after),) if self.others is None else self.others
        return self.before + b"".join([age_text(int(now - since)) + text for since, text in ages])


class KeptRows:
    """One row for each object, the newest asked for, in at most `limit` bytes or so. O(1).

    An object's next state takes the place of the one before. When all room is taken, most new rows are not kept: a
    list of more than there is room for, asked for again and again, then still finds most of what was kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: dict[str, KeptRow] = {}
        self._refused = 0
        self.size = 0
        """Bytes that the rows take, about."""

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, printer: Printer, uid: str, index: int, type_meta: bytes, content: bytes) -> KeptRow:
        """The row of the object whose JSON is these two, one behind the other, which `uid` had at `index` of the log.

        `uid` must be the string of just that state: another history may have the same uid and index by chance, but
        as other strings. An object without a uid is not kept.
        """
        row = self._rows.get(uid)
        if row is not None and row.index == index and row.uid is uid and row.printer is printer:
            return row
        made = row_of(printer, uid, index, type_meta + content)
        if uid:
            self._keep(made, row)
        return made

    def clear(self) -> None:
        """Forgets all rows."""
        self._rows.clear()
        self.size = 0

    def _keep(self, row: KeptRow, before: KeptRow | None) -> None:
        if before is not None:
            del self._rows[before.uid]
            self.size -= _size(before)
        elif self.size + _size(row) > self._limit:
            self._refused += 1
            if self._refused % _RENEWAL:
                return
        self._rows[row.uid] = row
        self.size += _size(row)
        while self.size > self._limit and len(self._rows) > 1:
            self.size -= _size(self._rows.pop(next(iter(self._rows))))


def row_of(printer: Printer, uid: str, index: int, body: bytes) -> KeptRow:
    """The row of the object with this JSON, made anew."""
    before, ages = printer.row(body).pieces()
    if len(ages) == 1:
        [(since, after)] = ages
        return KeptRow(uid, index, printer, before, since, after)
    return KeptRow(uid, index, printer, before, 0.0, b"", tuple(ages))


def _size(row: KeptRow) -> int:
    others = sum([len(text) + _OTHER for _, text in row.others]) if row.others else 0
    return len(row.before) + len(row.after) + others + _OVERHEAD
