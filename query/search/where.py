"""Where: a search's conditions on bodies, all asked of one reading of each body."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from materializer import reading
from materializer.entry import Entry
from materializer.filter import BodyCondition
from query.search.expression import FilterExpression
from query.search.fields import FieldTerm
from query.search.narrowing import EntryPlace
from query.search.paths import Path, Projection, text_of, values_at

# Texts that JSON has as they are, but for writers that escape what need not be.
_PLAIN = re.compile(r"[A-Za-z0-9._:@/-]+")
_NUMBER = re.compile(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?")
# Entries that are looked at between two looks at the time: the first time, and at most; how long that should take.
_FIRST_STEP = 8
_MOST_STEP = 256
_STEP_SECONDS = 0.002
# Of a body, what stands before metadata.
_TYPE_META = ("kind", "apiVersion")
_OPENING = b'{"metadata":{'


class Where:
    """Conditions on bodies: of a field selector, and an expression. Equal ones select the same.

    Bodies are read as far as the conditions need them, which costs a fifth of reading all of them; those that lack a
    text that the conditions ask for are not read at all.
    """

    def __init__(self, terms: tuple[FieldTerm, ...], expression: FilterExpression | None) -> None:
        self.terms = terms
        self.expression = expression
        paths: list[Path] = [term.path for term in terms]
        if expression is not None:
            paths += expression.paths
        # Without these a body is read as it is stored.
        self._whole = any(not path or path[0] in _TYPE_META for path in paths)
        self._projection = Projection(paths)
        self._texts = _texts(terms, expression)
        own = None if expression is None else expression.at_once
        self.at_once = _MOST_STEP if own is None else min(own, _MOST_STEP)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Where) and (self.terms, self.expression) == (other.terms, other.expression)

    def __hash__(self) -> int:
        return hash((self.terms, self.expression))

    def __repr__(self) -> str:
        return f"Where({self.terms!r}, {self.expression!r})"

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those of the entries that meet all conditions, in their order. O(their sizes)."""
        early = None if self.expression is None else self.expression.early
        chosen, unread = dict.fromkeys(range(len(entries)), False), []
        for at, entry in enumerate(entries):
            verdict = None if early is None else early(_place(entry))
            if verdict is None or (verdict and self.terms):
                unread.append(at)
            else:
                chosen[at] = verdict
        rests = reading.rests([entries[at] for at in unread])
        for at, rest in zip(unread, rests, strict=True):
            chosen[at] = self._meets(entries[at], rest)
        return [entry for at, entry in enumerate(entries) if chosen[at]]

    def unknown(self, entries: Sequence[Entry]) -> list[str]:
        """Paths of the field selector that ask for a value, and that none of these entries has. O(their sizes)."""
        asked = {term.path for term in self.terms if term.operator in ("in", "gt", "lt", "exists")}
        for entry, rest in zip(entries, reading.rests(entries), strict=True):
            data = self._read(entry, rest)
            asked = {path for path in asked if not any(True for _ in values_at(data, path))}
        return sorted(map(text_of, asked))

    def _read(self, entry: Entry, rest: bytes) -> Any:
        """What is asked about of a body; None if it cannot be read."""
        body = b"%b%b" % (_OPENING, rest)
        if self._whole:
            body = b"%b%b" % (entry.type_meta, body[1:])
        try:
            return self._projection.read(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            # Numbers that are beyond all that can be compared.
            return None

    def _meets(self, entry: Entry, rest: bytes) -> bool:
        for texts in self._texts:
            # One that escapes anything may write these texts in another way.
            if not any(text in rest for text in texts) and b"\\" not in rest:
                return False
        data = self._read(entry, rest)
        return (
            data is not None
            and all(term.matches(data) for term in self.terms)
            and (self.expression is None or self.expression.matches(entry.cluster, data))
        )


def _place(entry: Entry) -> EntryPlace:
    return EntryPlace(entry.cluster, entry.namespace, entry.name, entry.labels)


def _texts(terms: tuple[FieldTerm, ...], expression: FilterExpression | None) -> tuple[tuple[bytes, ...], ...]:
    """Groups of texts, of each of which a body has one if it meets the conditions."""
    asked = [
        (term.path, term.values)
        for term in terms
        if term.operator == "in" and not any(map(_NUMBER.fullmatch, term.values))
    ]
    if expression is not None:
        asked += expression.conditions.fields
    return tuple(
        tuple(one.encode() for one in values)
        for path, values in asked
        if all(map(_PLAIN.fullmatch, values)) and path[0] not in _TYPE_META
    )


def where_of(terms: tuple[FieldTerm, ...], expression: FilterExpression | None) -> Where | None:
    """The conditions, None if there are none."""
    return Where(terms, expression) if terms or expression is not None else None


def chosen_by(where: BodyCondition, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Those of the entries that meet a condition, in steps of a millisecond or two: what the last one yields.

    A step has as many entries as those before it took time.
    """
    chosen: list[Entry] = []
    most = where.at_once
    begin, step = 0, min(_FIRST_STEP, most)
    while begin < len(entries):
        begun = time.perf_counter()
        chosen += where.chosen(entries[begin : begin + step])
        begin += step
        taken = time.perf_counter() - begun
        yield chosen
        if taken > _STEP_SECONDS:
            step = max(step // 4, 1)
        elif taken < _STEP_SECONDS / 4:
            step = min(step * 2, most)
