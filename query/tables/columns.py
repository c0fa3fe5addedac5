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


Age = tuple[int, float, str]
"""Where a cell is, the unix seconds that it counts from, and the text around it: `%s`, `3 (%s ago)`."""


class Row:
    """The cells of one object. It never changes, so it can be cached and shared; only ages wait for the time."""

    __slots__ = ("_ages", "_fixed")

    def __init__(self, fixed: list[Any], ages: tuple[Age, ...] = ()) -> None:
        self._fixed = fixed
        self._ages = ages

    def cells(self, now: float) -> list[Any]:
        """The cells at `now` (unix seconds), in the order of the columns, as a list of the caller's own."""
        cells = self._fixed.copy()
        for at, since, pattern in self._ages:
            age = human_duration(now - since)
            cells[at] = age if pattern == "%s" else pattern % age
        return cells


class Printer(ABC):
    """How the objects of one resource type become rows."""

    __slots__ = ("columns",)

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.columns = columns

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


class Named(Part, frozen=True, gc=False):
    """An object of which only the metadata is printed."""

    metadata: Metadata = Metadata()


P = TypeVar("P", bound=Part)


class TypedPrinter(Printer, Generic[P]):
    """A printer that decodes one `Part` of the object and renders that."""

    __slots__ = ("_decode", "_part", "_render")

    def __init__(self, columns: tuple[Column, ...], part: type[P], render: Callable[[P], Row]) -> None:
        super().__init__(columns)
        self._part = part
        self._decode = msgspec.json.Decoder(part).decode
        self._render = render

    def row(self, body: bytes) -> Row:
        try:
            part = self._decode(body)
        except (msgspec.MsgspecError, RecursionError):
            part = fitted(self._part, body)
        return self._render(part)


def described(key: str) -> str:
    """The API documentation of a field such as `PodStatus.podIP`, "" if there is none (Go: `SwaggerDoc()`)."""
    return SWAGGER.get(key, "")


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
