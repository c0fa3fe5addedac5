"""The scenarios: which of Kubernetes' end-to-end tests each is, where it is run, and where it fails for now.

`python -m tests.conformance.scenarios` prints the table of tests/conformance/README.md.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["ENDPOINTS", "SCENARIOS", "Scenario", "scenario", "table"]

ENDPOINTS = ("member", "cluster", "root")
REAL = os.environ.get("KUBEBRAID_TEST_KUBECONFIG")
MODULES = ("test_watch", "test_custom_resources", "test_lists", "test_tables")

Test = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """A scenario: the file of Kubernetes' test/e2e/apimachinery (or another source), and the test's name there.

    `test` is where it is here, `runs` where it has a meaning, `fails` why it does not pass there for now.
    """

    source: str
    title: str
    test: str
    runs: tuple[str, ...]
    fails: Mapping[str, str]


SCENARIOS: list[Scenario] = []


def scenario(
    source: str,
    title: str,
    *,
    runs: tuple[str, ...] = ENDPOINTS,
    fails: Mapping[str, str] | None = None,
    age: str | None = None,
) -> Callable[[Test], Any]:
    """Run a test at each endpoint, as its argument `endpoint`.

    Where it `fails` it has to, until the mark is taken away; on real clusters it may pass, since much is a matter of
    moments. `age`: the row of `AGES` that it is about; older members are left out.
    """
    failing = dict(fails or {})
    assert set(failing) <= set(runs) <= set(ENDPOINTS)

    def marked(test: Test) -> Any:
        where = f"{test.__module__.rpartition('.')[2]}.py::{test.__name__}"
        SCENARIOS.append(Scenario(source, title, f"tests/conformance/{where}", runs, failing))
        parameters = [
            pytest.param(
                (name, age),
                id=name,
                marks=[pytest.mark.xfail(strict=not REAL, reason=failing[name])] if name in failing else [],
            )
            for name in runs
        ]
        return pytest.mark.parametrize("endpoint", parameters, indirect=True)(test)

    return marked


def table() -> str:
    """The table of all scenarios in Markdown."""
    for module in MODULES:
        importlib.import_module(f"tests.conformance.{module}")
    head = "| source | scenario | member | `/clusters/<cluster>` | root | test |\n|---|---|---|---|---|---|\n"

    def cell(one: Scenario, endpoint: str) -> str:
        if endpoint not in one.runs:
            return "-"
        return f"no: {one.fails[endpoint]}" if endpoint in one.fails else "yes"

    return head + "".join(
        f"| {one.source} | {one.title} | {' | '.join(cell(one, name) for name in ENDPOINTS)} | `{one.test}` |\n"
        for one in sorted(SCENARIOS, key=lambda one: MODULES.index(Path(one.test.partition("::")[0]).stem))
    )


if __name__ == "__main__":
    # As the module that the tests import, not as this one.
    print(importlib.import_module("tests.conformance.scenarios").table(), end="")
