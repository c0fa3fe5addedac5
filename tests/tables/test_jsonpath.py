"""JSONPath: what paths find, and which do not fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.tables.jsonpath import PathError, compiled

OBJECT = {
    "a": {"b": [10, 20, 30, 40], "c.d/e": "dotted", "": "empty", "null": None},
    "conditions": [
        {"type": "Ready", "status": "True", "n": 3},
        {"type": "Synced", "status": "False", "n": 5},
        {"status": "?"},
    ],
    "names": ["x", "y"],
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".names", [["x", "y"]]),
        ("$.a.b[0]", [10]),
        (".a.b[-1]", [40]),
        (".a.b[-2]", [30]),
        (".a.b[1:3]", [20, 30]),
        (".a.b[2:]", [30, 40]),
        (".a.b[:2]", [10, 20]),
        (".a.b[::2]", [10, 30]),
        (".a.b[*]", [10, 20, 30, 40]),
        (".a.b[0,2]", [10, 30]),
        (".a['b']", [[10, 20, 30, 40]]),
        (r".a['c\.d/e']", ["dotted"]),
        (r".a.c\.d/e", ["dotted"]),
        # As in client-go: a dot in a quoted key parts fields unless it is escaped.
        (".a['c.d/e']", []),
        (".a['b','null']", [[10, 20, 30, 40], None]),
        (".names.*", ["x", "y"]),
        (".missing", []),
        (".missing.field[0]", []),
        (".names.field", []),
        (".a.null", [None]),
        (".a.null.more", []),
        ('.conditions[?(@.type=="Ready")].status', ["True"]),
        ("$.conditions[?(@.type == 'Ready')].status", ["True"]),
        ('.conditions[?(@.type!="Ready")].status', ["False"]),
        (".conditions[?(@.n>3)].type", ["Synced"]),
        (".conditions[?(@.n>=3)].type", ["Ready", "Synced"]),
        (".conditions[?(@.n<5)].type", ["Ready"]),
        (".conditions[?(@.n<=5)].n", [3, 5]),
        (".conditions[?(@.type)].n", [3, 5]),
        ("..type", ["Ready", "Synced"]),
        (".conditions[*].status", ["True", "False", "?"]),
    ],
)
def test_finds(path: str, found: list[Any]) -> None:
    assert compiled(path).find(OBJECT) == found


@pytest.mark.parametrize(
    "path",
    [
        ".names[2]",
        ".names[-3]",
        ".names[1:5]",
        ".a[0]",
        ".a[?(@.b)]",
        ".conditions[?(@.n==3.0)].type",
        '.conditions[?(@.n=="3")].type',
        ".conditions[?(@.n=~3)].type",
        ".a.b[::0]",
        ".a.b[3:1]",
    ],
)
def test_a_path_that_does_not_fit(path: str) -> None:
    with pytest.raises(PathError):
        compiled(path).find(OBJECT)


@pytest.mark.parametrize(
    "path",
    ["name", ".a[", ".a[x]", ".a[?(@.b==1]", ".a[?(@.b==1)", ".a['b]", "}", ".a[1:x]", "....", "1.2.3", "'a"],
)
def test_a_path_that_is_none(path: str) -> None:
    with pytest.raises(PathError):
        compiled(path)


@given(st.text(alphabet=".[]()?@'\",:*-019ab=<>!\\{} $", max_size=20))
def test_no_text_is_too_odd(text: str) -> None:
    try:
        compiled(text).find(OBJECT)
    except PathError:
        pass
