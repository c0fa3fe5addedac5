"""Order: what a list is sorted by, instead of cluster, namespace and name."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deltalog.wire.kubernetes import GroupResource
from materializer.entry import Entry
from materializer.sorting import sorted_in_steps
from query.http.status import ApiError

Value = str | int
_TURNED = bytes(range(255, -1, -1))


class Term(NamedTuple):
    """One field to sort by, ascending unless `descending`."""

    field: str
    descending: bool = False


def version_order(entry: Entry) -> str:
    """A member's resourceVersion so that it sorts as a number; what is none stands behind, by its text."""
    text = entry.member_version
    if text.isascii() and text.isdigit():
        number = text.lstrip("0")
        return f"{len(number):04}{number}"
    return f"~{text}"


_FIELDS: dict[str, Callable[[Entry], Value]] = {
    "cluster": lambda entry: entry.cluster,
    "namespace": lambda entry: entry.namespace,
    "name": lambda entry: entry.name,
    "created_at": lambda entry: entry.created,
    "resource_version": version_order,
    "uid": lambda entry: entry.uid,
}
# Of lists of several types, behind all that they are sorted by: two objects of one place may be of different types.
_KEYS: dict[str, Callable[[Entry], Value]] = {
    **_FIELDS,
    "type": lambda entry: type_text(entry.envelope.key),
}
PLACE = ("cluster", "namespace", "name")


def type_text(key: GroupResource) -> str:
    """What lists of several types sort a type by: `apps/deployments`, `/pods`."""
    return f"{key.group}/{key.resource}"


def _place(entry: Entry) -> tuple[str, str, str]:
    return (entry.cluster, entry.namespace, entry.name)


@dataclass(frozen=True, slots=True)
class ListOrder:
    """How entries of one type are sorted: by the terms, then by cluster, namespace and name.

    So no two of them are equal, and a page that goes on behind an object neither repeats nor loses one. `ListOrder()`
    is the order in which the store lists.

    Example: `ListOrder((Term("namespace"), Term("created_at", True)))` has the newest first in each namespace.
    """

    terms: tuple[Term, ...] = ()

    def of_types(self) -> ListOrder:
        """The same, of lists of several types: behind its terms by type."""
        return ListOrder((*self.terms, Term("type")))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def __str__(self) -> str:
        """As it is written in a URL: `namespace,created_at desc`."""
        return ",".join(f"{field} desc" if descending else field for field, descending in self.terms)

    def key(self, entry: Entry) -> list[Value]:
        """Where an entry stands: a value for each term, then cluster, namespace and name."""
        return [*(_KEYS[field](entry) for field, _ in self.terms), *_place(entry)]

    def key_fits(self, key: Sequence[object]) -> bool:
        """Whether a key that came from outside may be one of this order."""
        wanted = [int if field == "created_at" else str for field, _ in self.terms] + [str] * len(PLACE)
        return len(key) == len(wanted) and all(type(one) is kind for one, kind in zip(key, wanted, strict=True))

    def behind(self, entries: list[Entry], key: Sequence[Value]) -> int:
        """Where the first of sorted entries stands that comes behind a key. O(log n)."""
        if not self.terms:
            return bisect_right(entries, tuple(key), key=_place)
        return bisect_right(entries, self._sortable(key), key=lambda entry: self._sortable(self.key(entry)))

    def _sortable(self, key: Sequence[Value]) -> tuple[Value | bytes, ...]:
        """A key that sorts as the order does, where a key itself would if nothing were descending."""
        turned = [
            _turned(value) if descending else value for value, (_, descending) in zip(key, self.terms, strict=False)
        ]
        return (*turned, *key[len(turned) :])

    def sort(self, entries: list[Entry]) -> list[Entry]:
        """The entries sorted. `entries`: by cluster, namespace and name. O(n log n)."""
        *_, result = self.steps(entries)
        return result

    def steps(self, entries: list[Entry]) -> Iterator[list[Entry]]:
        """As `sort`, in steps of some milliseconds; what the last one yields is the result."""
        if not self.terms:
            yield entries
            return
        # Stable, so the last term comes first: keys of several values would be garbage of their own.
        for field, descending in reversed(self.terms):
            found: list[Entry] = []
            for found in sorted_in_steps(entries, _key_of(field, descending)):
                yield found
            entries = found


def _key_of(field: str, descending: bool) -> Callable[[Entry], Value | bytes]:
    of = _KEYS[field]
    return (lambda entry: _turned(of(entry))) if descending else of


def _turned(value: Value) -> int | bytes:
    """What sorts the other way round."""
    if isinstance(value, int):
        return -value
    return value.encode("utf-8", "surrogatepass").translate(_TURNED) + b"\xff"


def parse_order(given: Iterable[str], separator: str) -> ListOrder:
    """The order of a parameter's values: `field`, or `field desc` with a separator between.

    Raises:
        ApiError: 400, a field that lists are not sorted by.
    """
    terms: dict[str, Term] = {}
    for text in given:
        field, _, direction = text.strip().partition(separator)
        if text.strip() in _FIELDS:
            field, direction = text.strip(), ""
        elif text.strip().endswith(f"{separator}desc") or text.strip().endswith(f"{separator}asc"):
            field, _, direction = text.strip().rpartition(separator)
        field = field.strip()
        if not field:
            continue
        if field not in _FIELDS or direction.strip() not in ("", "asc", "desc"):
            raise ApiError(
                400,
                f"orderby: {text.strip()[:64]!r}: lists are sorted by {', '.join(_FIELDS)}; "
                f"each may be followed by {separator + 'desc'!r}",
            )
        terms.setdefault(field, Term(field, direction.strip() == "desc"))
    return ListOrder(tuple(terms.values()))
