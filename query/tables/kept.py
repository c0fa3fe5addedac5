"""Kept rows: the text of a row is made once for each state of an object; a later table adds but the ages."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from materializer.entry import Entry, Envelope
from materializer.record import FLAGS, UID, UID_END, UUID, identity_in
from query.tables.ages import age_text
from query.tables.columns import Printer

# What a row takes beside its text: three headers, the number, and its place in the dict; measured.
_OVERHEAD = 230
# What each age takes beside its text where there is more than one.
_OTHER = 150
# One in so many new rows displaces an old one when all room is taken.
_RENEWAL = 8


class KeptRow(msgspec.Struct, gc=False, frozen=True):
    """A row in pieces, see `Row.pieces`.

    Nearly every row has one age: `before`, the age since `since`, `after`. Only others have `others`: then `before`
    and those are the row. `metadata`: the object's from behind its version up to its closing brace, which most tables
    have beside the row; so of an object whose row is kept the body is not read.
    """

    printer: Printer
    before: bytes
    since: float
    after: bytes
    others: tuple[tuple[float, bytes], ...] | None = None
    metadata: bytes = b""

    def at(self, now: float) -> bytes:
        """The row's JSON from its first cell up to its object, at `now` (unix seconds)."""
        ages = ((self.since, self.after),) if self.others is None else self.others
        return self.before + b"".join([age_text(int(now - since)) + text for since, text in ages])


class _Kept(msgspec.Struct, gc=False, frozen=True):
    """A row, and what it was made of: the state `index` of an object in the history that `envelope` names."""

    index: int
    envelope: Envelope
    row: KeptRow


class KeptRows:
    """One row for each object, the newest asked for, in at most `limit` bytes or so. O(1).

    An object's next state takes the place of the one before. When all room is taken, most new rows are not kept: a
    list of more than there is room for, asked for again and again, then still finds most of what was kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # By the uid, packed.
        self._rows: dict[bytes, _Kept] = {}
        self._refused = 0
        self.size = 0
        """Bytes that the rows take, about."""

    def __len__(self) -> int:
        return len(self._rows)

    def kept(self, printer: Printer, entries: Iterable[Entry]) -> list[KeptRow | None]:
        """The row of each object in its state, None where that is not here. See `find`. O(entries)."""
        get = self._rows.get
        found: list[KeptRow | None] = []
        for entry in entries:
            record = entry.record
            kept = get(record[UID:UID_END] if record[FLAGS] & UUID else identity_in(record))
            if (
                kept is not None
                and kept.index == entry.index
                and kept.envelope is entry.envelope
                and kept.row.printer is printer
            ):
                found.append(kept.row)
            else:
                found.append(None)
        return found

    def find(self, printer: Printer, entry: Entry, content: bytes | None = None) -> KeptRow:
        """The row of an object in this state. `content`: the entry's own, if it has been read.

        Another history may have the same uid and index by chance, but in another envelope. An object without a uid is
        not kept.
        """
        [row] = self.kept(printer, (entry,))
        if row is not None:
            return row
        if content is None:
            content = entry.content
        metadata = content[len(entry.opening()) : -entry.behind_metadata]
        made = msgspec.structs.replace(row_of(printer, entry.type_meta + content), metadata=metadata)
        if uid := identity_in(entry.record):
            self._keep(uid, _Kept(entry.index, entry.envelope, made), self._rows.get(uid))
        return made

    def clear(self) -> None:
        """Forgets all rows."""
        self._rows.clear()
        self.size = 0

    def _keep(self, uid: bytes, made: _Kept, before: _Kept | None) -> None:
        size = _size(made.row)
        if before is not None:
            del self._rows[uid]
            self.size -= _size(before.row)
        elif self.size + size > self._limit:
            self._refused += 1
            if self._refused % _RENEWAL:
                return
        self._rows[uid] = made
        self.size += size
        while self.size > self._limit and len(self._rows) > 1:
            self.size -= _size(self._rows.pop(next(iter(self._rows))).row)


def row_of(printer: Printer, body: bytes) -> KeptRow:
    """The row of the object with this JSON, made anew."""
    before, ages = printer.row(body).pieces()
    if len(ages) == 1:
        [(since, after)] = ages
        return KeptRow(printer, before, since, after)
    return KeptRow(printer, before, 0.0, b"", tuple(ages))


def _size(row: KeptRow) -> int:
    others = sum([len(text) + _OTHER for _, text in row.others]) if row.others else 0
    return len(row.before) + len(row.after) + len(row.metadata) + others + _OVERHEAD
