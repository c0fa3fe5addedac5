"""What a Table is made of: columns, rows whose ages are still open, and printers that make rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from query.tables.ages import UNKNOWN, human_duration, seconds_since_epoch
from query.tables.descriptions import SWAGGER
from query.tables.fitting import fitted


@dataclass(frozen=True, slots=True)
class Column:
    """One TableColumnDefinition of meta.k8s.io/v1; priority 1 marks the columns of `-o wide`."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class PrinterColumn:
    """One entry of a custom resource definition's additionalPrinterColumns."""

    name: str
    type: str
    json_path: str
    format: str = ""
    description: str = ""
    priority: int = 0


class RowCondition(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One TableRowCondition of meta.k8s.io/v1. `Completed` is the only type: a client may hide or grey such a row."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


Age = tuple[int, float, str]
"""Where a cell is, the unix seconds that it counts from, and the text around it: `%s`, `3 (%s ago)`."""


# JSON of any text escapes this byte, so it stands but where an age goes.
_AN_AGE = msgspec.Raw(b'"\0"')


class Row:
    """The cells of one object, and its conditions. It never changes: only ages wait for the time."""

    __slots__ = ("_ages", "_fixed", "conditions")

    def __init__(self, fixed: list[Any], ages: tuple[Age, ...] = (), conditions: tuple[RowCondition, ...] = ()) -> None:
        self._fixed = fixed
        self._ages = ages
        self.conditions = conditions

    def cells(self, now: float) -> list[Any]:
        """The cells at `now` (unix seconds), in the order of the columns, as a list of the caller's own."""
        cells = self._fixed.copy()
        for at, since, pattern in self._ages:
            age = human_duration(now - since)
            cells[at] = age if pattern == "%s" else pattern % age
        return cells

    def pieces(self) -> tuple[bytes, list[tuple[float, bytes]]]:
        """The row's JSON from its first cell up to its object, cut where ages go.

        First what stands before any age, then for each age the unix seconds it counts from and what stands behind it:
        `"web","` and `(1767607872.0, '","10.0.0.1"]')`, or `..."],"conditions":[...]`.
        """
        cells = self._fixed.copy()
        ages = sorted(self._ages) if len(self._ages) > 1 else self._ages
        for at, _, pattern in ages:
            cells[at] = _AN_AGE if pattern == "%s" else msgspec.Raw(b'"%b"' % pattern.replace("%s", "\0").encode())
        text = msgspec.json.encode(cells)[1:]
        if self.conditions:
            text += b',"conditions":' + msgspec.json.encode(self.conditions)
        before, *behind = text.split(b"\0")
        return before, [(since, after) for (_, since, _), after in zip(ages, behind, strict=True)]


class Printer(ABC):
    """How the objects of one resource type become rows.

    `unversioned`: whether the cells are the same however the object's resourceVersion and annotations are written.
    `order`: what the rows of a list are sorted by, of an object's JSON; None: they stay as they come.
    """

    __slots__ = ("columns", "order", "unversioned")

    def __init__(
        self,
        columns: tuple[Column, ...],
        *,
        unversioned: bool = True,
        order: Callable[[bytes], tuple[int, str]] | None = None,
    ) -> None:
        self.columns = columns
        self.unversioned = unversioned
        self.order = order

    @abstractmethod
    def row(self, body: bytes) -> Row:
        """The row of the object with this JSON. O(len(body)); never raises, however odd the fields are."""


class Part(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Base of the parts of an object that a printer reads: each field has a default, all others are skipped.

    Decoding into such parts, not into dicts, is what makes ten thousand rows cheap.
    """


class Metadata(Part, frozen=True, gc=False):
    """What nearly every printer wants of ObjectMeta."""

    name: str = ""
    creation_timestamp: str | None = None


class DeletableMetadata(Metadata, frozen=True, gc=False):
    """ObjectMeta for those that print whether the object is being deleted."""

    deletion_timestamp: str | None = None


class MetadataOnly(Part, frozen=True, gc=False):
    """An object of which only the metadata is printed."""

    metadata: Metadata = Metadata()


P = TypeVar("P", bound=Part)


class TypedPrinter(Printer, Generic[P]):
    """A printer that decodes one `Part` of the object and renders that."""

    __slots__ = ("_decode", "_part", "_render")

    def __init__(
        self,
        columns: tuple[Column, ...],
        part: type[P],
        render: Callable[[P], Row],
        *,
        order: Callable[[P], tuple[int, str]] | None = None,
    ) -> None:
        super().__init__(columns, order=None if order is None else lambda body: order(self._parsed(body)))
        self._part = part
        self._decode = msgspec.json.Decoder(part).decode
        self._render = render

    def row(self, body: bytes) -> Row:
        """The row of an object, given as JSON. O(length of the object)."""
        return self._render(self._parsed(body))

    def _parsed(self, body: bytes) -> P:
        try:
            return self._decode(body)
        except (msgspec.MsgspecError, RecursionError):
            return fitted(self._part, body)


def described(key: str) -> str:
    """The API documentation of a field such as `PodStatus.podIP` (Go: `SwaggerDoc()`). KeyError if there is none."""
    return SWAGGER[key]


NAME = Column("Name", format="name", description=described("ObjectMeta.name"))
AGE = Column("Age", description=described("ObjectMeta.creationTimestamp"))


def wide(name: str, description: str) -> Column:
    """A column that only `-o wide` shows."""
    return Column(name, description=description, priority=1)


def aged(cells: list[Any], *ages: tuple[int, str | None]) -> Row:
    """A row of these cells, in which each `(index, timestamp)` names a cell that holds an age.

    kubernetes pkg/printers/internalversion/printers.go: translateTimestampSince.
    """
    known: list[Age] = []
    for at, stamp in ages:
        since = seconds_since_epoch(stamp)
        if since is None:
            cells[at] = UNKNOWN
        else:
            known.append((at, since, "%s"))
    return Row(cells, tuple(known))
