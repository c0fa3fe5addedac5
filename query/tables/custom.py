"""Custom resources, printed by their additionalPrinterColumns, and types that the server prints by default."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from query.tables.ages import UNKNOWN, seconds_since_epoch
from query.tables.columns import (
    NAME,
    Age,
    Column,
    MetadataOnly,
    Printer,
    PrinterColumn,
    Row,
    TypedPrinter,
    described,
)
from query.tables.jsonpath import Path, PathError, compiled

_CREATED = described("ObjectMeta.creationTimestamp")
_ZERO_TIME = "0001-01-01T00:00:00Z"

_NOTHING: Any = object()
"""What a path found nothing for; not None, which is a JSON null that it found."""

DEFAULT_PRINTER_COLUMNS = (PrinterColumn("Age", "date", ".metadata.creationTimestamp", description=_CREATED),)
"""What a custom resource without additionalPrinterColumns shows beside its name."""


class CustomPrinter(Printer):
    """k8s.io/apiextensions-apiserver pkg/registry/customresource/tableconvertor: convertor.

    Only those parts of the object are decoded that the columns look into.
    """

    __slots__ = ("_kinds", "_roots")

    def __init__(self, columns: Sequence[PrinterColumn]) -> None:
        described_columns = [
            Column(
                each.name,
                each.type,
                each.format,
                each.description or f"Custom resource definition column (in JSONPath format): {each.json_path}",
                each.priority,
            )
            for each in columns
        ]
        paths = [_path(each.json_path) for each in columns]
        unversioned = all(path is None or path.misses("metadata", ("annotations", "resourceVersion")) for path in paths)
        super().__init__((NAME, *described_columns), unversioned=unversioned)
        self._kinds = [(each.type, path) for each, path in zip(columns, paths, strict=True)]
        roots = {path.root for _, path in self._kinds if path is not None}
        self._roots = None if None in roots else {"metadata", *roots}

    def row(self, body: bytes) -> Row:
        """The row of an object, given as JSON. O(length of the object)."""
        tree = self._tree(body)
        metadata = tree.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        cells: list[Any] = [name if isinstance(name, str) else ""]
        ages: list[Age] = []
        for kind, path in self._kinds:
            value = _NOTHING if path is None else _first(path, tree)
            if kind == "date" and isinstance(value, str):
                since = seconds_since_epoch(value)
                if since is not None:
                    ages.append((len(cells), since, "%s"))
            cells.append(None if value is _NOTHING else _cell(kind, value))
        return Row(cells, tuple(ages))

    def _tree(self, body: bytes) -> dict[str, Any]:
        try:
            if self._roots is None:
                tree = msgspec.json.decode(body)
                return tree if isinstance(tree, dict) else {}
            parts = _PARTS.decode(body)
            return {key: msgspec.json.decode(parts[key]) for key in self._roots if key in parts}
        except (msgspec.MsgspecError, RecursionError):
            return {}


_PARTS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _path(text: str) -> Path | None:
    try:
        return compiled(text)
    except PathError:
        return None


def _first(path: Path, tree: dict[str, Any]) -> Any:
    try:
        found = path.find(tree)
    except PathError:
        return _NOTHING
    return found[0] if found else _NOTHING


def _cell(kind: str, value: Any) -> Any:
    """A found value as a cell of a column of this type; a value of another type is no value.

    tableconvertor.go: ConvertToTable and cellForJSONValue.
    """
    if kind == "string":
        return _text(value)
    if kind == "date":
        return _date(value) if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if kind in ("integer", "number") and isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(value, int):
            return value
        if not math.isfinite(value):
            return None
        return int(value) if kind == "integer" or value.is_integer() else value
    return None


def _date(text: str) -> str:
    """What stands where no age can be told; the age replaces it wherever one can."""
    return UNKNOWN if text in ("", "null") or text == _ZERO_TIME else "<invalid>"


def _text(value: Any) -> str:
    """A value as text: JSON for lists and maps, Go's way for all else (client-go jsonpath: PrintResults)."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value, plain_from=-4, plain_to=6)
    try:
        return _json(value)
    except RecursionError:
        return ""


def _json(value: Any) -> str:
    """JSON as Go writes it: keys in order, no spaces, `<`, `>` and `&` escaped."""
    if isinstance(value, dict):
        return "{" + ",".join([f"{_json(key)}:{_json(value[key])}" for key in sorted(value)]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([_json(each) for each in value]) + "]"
    if isinstance(value, float):
        return _number(value, plain_from=-6, plain_to=21).replace("e-0", "e-")
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        for mark in "<>&\u2028\u2029":
            text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _number(value: float, plain_from: int, plain_to: int) -> str:
    """A float as Go's shortest form: with an exponent below 10^`plain_from` and from 10^`plain_to` on.

    fmt's %v and encoding/json differ in both.
    """
    if not math.isfinite(value):
        return "+Inf" if value > 0 else "-Inf" if value < 0 else "NaN"
    exact = Decimal(repr(value))
    exponent = exact.adjusted() if value else 0
    if plain_from <= exponent < plain_to:
        plain = format(exact, "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    digits = "".join(map(str, exact.as_tuple().digits)).rstrip("0")
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{'-' if value < 0 else ''}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _name_and_creation(each: MetadataOnly) -> Row:
    """k8s.io/apiserver pkg/registry/rest/table.go: the time itself, not the age."""
    return Row([each.metadata.name, each.metadata.creation_timestamp or _ZERO_TIME])


NAME_AND_CREATION = TypedPrinter(
    (NAME, Column("Created At", "date", description=_CREATED)), MetadataOnly, _name_and_creation
)
"""For the built-in types that have no printer of their own, which the server shows by its default convertor."""
