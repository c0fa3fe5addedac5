"""Custom resources: columns of a definition, by type; and what the server shows by default."""

from __future__ import annotations

import json
from typing import Any

import pytest

from query.tables import Column, PrinterColumn, printer_for
from query.tables.custom import _text

CREATED = "2026-01-05T10:11:12Z"
NOW = 1767607872.0 + 90
OBJECT = {
    "metadata": {"name": "thing", "creationTimestamp": CREATED, "annotations": {"a.b/c": "d"}},
    "spec": {
        "size": 3,
        "share": 0.5,
        "whole": 2.0,
        "on": True,
        "tags": ["a", "<b>"],
        "map": {"z": 1, "y": 1.5},
    },
    "status": {"at": CREATED, "bad": "soon", "empty": "", "nothing": None, "big": 1e21, "small": 0.00001},
}


def cell(kind: str, path: str) -> Any:
    printer = printer_for("example.com", "things", [PrinterColumn("X", kind, path)])
    return printer.row(json.dumps(OBJECT).encode()).cells(NOW)[1]


@pytest.mark.parametrize(
    ("kind", "path", "want"),
    [
        ("string", ".metadata.name", "thing"),
        ("string", r".metadata.annotations.a\.b/c", "d"),
        ("string", ".spec.size", "3"),
        ("string", ".spec.share", "0.5"),
        ("string", ".spec.whole", "2"),
        ("string", ".spec.on", "true"),
        ("string", ".spec.tags", '["a","\\u003cb\\u003e"]'),
        ("string", ".spec.map", '{"y":1.5,"z":1}'),
        ("string", ".spec.tags[*]", "a"),
        ("string", ".status.nothing", "<no value>"),
        ("string", ".status.big", "1e+21"),
        ("string", ".status.small", "1e-05"),
        ("string", ".missing", None),
        ("string", ".spec.tags[9]", None),
        ("string", "no path", None),
        ("integer", ".spec.size", 3),
        ("integer", ".spec.share", 0),
        ("integer", ".spec.on", None),
        ("integer", ".metadata.name", None),
        ("number", ".spec.share", 0.5),
        ("number", ".spec.size", 3),
        ("boolean", ".spec.on", True),
        ("boolean", ".spec.size", None),
        ("date", ".status.at", "90s"),
        ("date", ".status.bad", "<invalid>"),
        ("date", ".status.empty", "<unknown>"),
        ("date", ".spec.size", None),
        ("date", ".missing", None),
    ],
)
def test_a_column_of_each_type(kind: str, path: str, want: Any) -> None:
    got = cell(kind, path)
    assert got == want
    assert type(got) is type(want)


def test_a_resource_without_columns_shows_its_age() -> None:
    printer = printer_for("example.com", "things")
    assert [(c.name, c.type, c.format) for c in printer.columns] == [
        ("Name", "string", "name"),
        ("Age", "date", ""),
    ]
    assert printer.row(json.dumps(OBJECT).encode()).cells(NOW) == ["thing", "90s"]
    assert printer_for("example.com", "things", []) is printer
    assert printer.row(b"[]").cells(NOW) == ["", None]


def test_columns_are_described_by_their_path_if_by_nothing_else() -> None:
    bare = PrinterColumn("Size", "integer", ".spec.size", format="int32", priority=1)
    printer = printer_for("example.com", "things", [bare, PrinterColumn("On", "boolean", ".spec.on", "", "Is it on?")])
    text = "Custom resource definition column (in JSONPath format): .spec.size"
    assert printer.columns[1:] == (
        Column("Size", "integer", "int32", text, 1),
        Column("On", "boolean", "", "Is it on?"),
    )


def test_types_printed_by_default() -> None:
    printer = printer_for("rbac.authorization.k8s.io", "roles", [])
    assert [(c.name, c.type) for c in printer.columns] == [("Name", "string"), ("Created At", "date")]
    assert printer.row(json.dumps(OBJECT).encode()).cells(NOW) == ["thing", CREATED]
    assert printer.row(b"{}").cells(NOW) == ["", "0001-01-01T00:00:00Z"]


def test_the_same_arguments_give_the_same_printer() -> None:
    columns = [PrinterColumn("On", "boolean", ".spec.on")]
    assert printer_for("a.io", "as", columns) is printer_for("a.io", "as", list(columns))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("123456789.123", "1.23456789123e+08"),
        ("1234567.5", "1.2345675e+06"),
        ("12345678901234567890.5", "1.2345678901234567e+19"),
        ("999999.5", "999999.5"),
        ("1000000.5", "1.0000005e+06"),
        ("12345678.0", "1.2345678e+07"),
        ("0.0001", "0.0001"),
        ("2.5e-7", "2.5e-07"),
        ("123456789", "123456789"),
    ],
)
def test_large_numbers_as_text_are_as_go_prints_them(number: str, text: str) -> None:
    """As `fmt.Sprint` of a float64 does: recorded from Go 1.19. Whole numbers without a point are int64 there."""
    assert _text(json.loads(number)) == text
