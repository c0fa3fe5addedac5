"""The layout is the architecture: imports run one way."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("deltalog", "producers", "materializer", "query", "kubebraid", "simulation")


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
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text())
            inner = [
                node.lineno
                for outer in ast.walk(tree)
                if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.If)
                for node in ast.walk(outer)
                if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            assert not inner, f"{path.relative_to(ROOT)} imports in lines {inner}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph(*PACKAGES)
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
