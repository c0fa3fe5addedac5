"""The layout is the architecture: imports run one way."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("deltalog", "producers", "materializer", "query", "kubebraid", "simulation")


@pytest.mark.processes
def test_imports_keep_the_contracts():
    command = [str(Path(sys.executable).parent / "lint-imports"), "--config", "pyproject.toml", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_says_its_subject_in_its_first_line():
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            first = path.read_text().splitlines()[0]
            assert re.match(r'"""\S.{10,}', first), f"{path.relative_to(ROOT)} begins {first!r}"
            assert path.stem not in ("utils", "helpers", "common", "manager"), path
