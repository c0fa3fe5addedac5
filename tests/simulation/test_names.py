"""Names: a public class of the simulation has a name that no other package of the product uses."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def classes(package: str) -> Iterator[str]:
    """The public classes and type aliases of a package's modules, by name."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            else:
                continue
            # Constants are written in capitals.
            yield from (name for name in names if name[0].isupper() and not name.isupper())


def test_no_name_is_given_twice() -> None:
    own = set(classes("simulation"))
    assert "SimulatedCluster" in own
    others = {
        name for package in ("deltalog", "producers", "materializer", "query", "kubebraid") for name in classes(package)
    }
    assert own & others == set()
