"""The layout is the architecture: imports run one way."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("deltalog", "producers", "materializer", "query", "kubebraid", "simulation")


@functools.cache
def modules(package: str) -> tuple[tuple[Path, ast.Module], ...]:
    """The package's modules, parsed, in the order of their paths."""
    return tuple((path, ast.parse(path.read_text())) for path in sorted((ROOT / package).rglob("*.py")))


def inner_imports(node: ast.AST, inside: bool = False) -> Iterator[int]:
    """The lines of imports within functions and conditions."""
    for child in ast.iter_child_nodes(node):
        if inside and isinstance(child, ast.Import | ast.ImportFrom):
            yield child.lineno
        yield from inner_imports(child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.If))


@pytest.mark.processes
def test_imports_keep_the_contracts() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--config", "pyproject.toml", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_says_its_subject_in_its_first_line() -> None:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            first = path.read_text().splitlines()[0]
            assert re.match(r'r?"""\S.{10,}', first), f"{path.relative_to(ROOT)} begins {first!r}"
            assert path.stem not in ("utils", "helpers", "common", "manager"), path


def test_modules_import_at_their_top_and_nowhere_else() -> None:
    """An import inside a function, or for the type checker alone, hides an arrow that runs the wrong way."""
    for package in PACKAGES:
        for path, tree in modules(package):
            # Most have none that is indented, which their text tells in less time.
            inner = list(inner_imports(tree)) if re.search(r"(?m)^[ \t]+(import|from) ", path.read_text()) else []
            assert not inner, f"{path.relative_to(ROOT)} imports in lines {inner}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph(*PACKAGES, "benchmarks")
    state: dict[str, str] = {}

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert state.get(module) != "under way", f"circle: {' -> '.join((*way, module))}"
        if module not in state:
            state[module] = "under way"
            for imported in sorted(graph.find_modules_directly_imported_by(module)):
                visit(imported, (*way, module))
            state[module] = "done"

    for module in sorted(graph.modules):
        visit(module, ())
    assert len(state) > 100


# Two things of the public API that each are a change to their reader, and no module uses both.
GIVEN_TWICE = {
    "Change": ("deltalog/events.py", "kubebraid/client/many_clusters.py"),
}


def test_a_public_class_name_is_given_once() -> None:
    """One word for one thing: who searches for a class finds it."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES[:-1]:
        for path, tree in modules(package):
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: tuple(paths) for name, paths in found.items() if len(paths) > 1} == GIVEN_TWICE


def test_public_exceptions_have_the_base_of_their_layer() -> None:
    bases = {
        "deltalog": "deltalog.wire.errors.DeltalogError",
        "producers": "producers.errors.ProducersError",
        "materializer": "materializer.errors.MaterializerError",
        "query": "query.errors.QueryError",
        "kubebraid": "kubebraid.errors.KubebraidError",
    }
    for package, name in bases.items():
        module, _, attribute = name.rpartition(".")
        base = getattr(importlib.import_module(module), attribute)
        for path, tree in modules(package):
            classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
            if not classes or path.stem == "__main__":
                continue
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for one in classes:
                value = getattr(importlib.import_module(module), one)
                if not one.startswith("_") and issubclass(value, Exception):
                    assert issubclass(value, base), f"{module}.{one}"
