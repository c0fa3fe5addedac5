"""docs/compatibility.md: the tests it names exist, and it lists each query parameter that the service knows."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from query.search import terms

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "compatibility.md").read_text()


def names_in(path: Path) -> set[str]:
    """The names of a file's tests."""
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT))
    assert len(named) > 60
    # No other form, which would not be looked at.
    assert DOCUMENT.count("::") == len(re.findall(r"`tests/[\w/]+\.py::\w+`", DOCUMENT))
    missing = [
        f"{path}::{name}" for path, name in named if not (ROOT / path).exists() or name not in names_in(ROOT / path)
    ]
    assert missing == []


def test_every_row_names_a_test() -> None:
    lines = DOCUMENT.splitlines()
    heads = [line for line, below in itertools.pairwise(lines) if below.startswith("|---")]
    rows = [line for line in lines if line.startswith("| ")]
    assert heads
    assert [row for row in rows if row not in heads and "`tests/" not in row] == []


def parameters(module: ast.Module) -> Iterator[str]:
    """What is looked up in a request's query: `query.get("x")`, `query["x"]`, `"x" in query`, `number(query, "x")`."""

    def is_query(node: ast.expr) -> bool:
        return ast.unparse(node).split(".")[-1] == "query"

    for node in ast.walk(module):
        found: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_query(node.func.value):
            found = node.args[:1]
        elif isinstance(node, ast.Call) and node.args and is_query(node.args[0]):
            found = node.args[1:2]
        elif isinstance(node, ast.Subscript) and is_query(node.value):
            found = [node.slice]
        elif isinstance(node, ast.Compare) and is_query(node.comparators[0]):
            found = [node.left]
        yield from (one.value for one in found if isinstance(one, ast.Constant) and isinstance(one.value, str))


def test_every_query_parameter_is_listed() -> None:
    known = {name for path in (ROOT / "query").rglob("*.py") for name in parameters(ast.parse(path.read_text()))}
    known |= terms._PARAMETERS
    assert {"labelSelector", "sendInitialEvents", "clusters", "hash", "includeObject", "dryRun", "verbose"} <= known
    section = DOCUMENT.split("## Query parameters")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert known - listed == set()
