"""Lanes of tests: `--lane quick` takes those that start no process, and fails one that does all the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import order

# Fixtures and directories of tests that start nats-server, instances, clients or other programs.
_FIXTURES = frozenset({"broker", "cluster_of_nats", "nats_cluster", "regions", "service", "services", "rig"})
_DIRECTORIES = frozenset({"clients", "conformance", "deploy", "e2e", "examples", "faults", "oracle"})
# What the interpreter says when a process is about to be started (audit events table of the Python documentation).
_EVENTS = frozenset({"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"})

_forbidden = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lane", choices=("quick", "all"), default="all", help="quick: tests that start no process")
    order.add_option(parser)


def pytest_report_header(config: pytest.Config) -> str | None:
    return order.header(config)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "processes: starts processes; left out of `make quick`")
    if config.getoption("--lane") == "quick":
        sys.addaudithook(_refuse)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    order.shuffle(config, items)
    if config.getoption("--lane") != "quick":
        return
    left_out = [item for item in items if _starts_processes(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _starts_processes(item: pytest.Item) -> bool:
    parts = Path(item.path).relative_to(item.config.rootpath).parts
    fixtures = set(getattr(item, "fixturenames", ()))
    marked = item.get_closest_marker("processes") is not None
    return marked or bool(fixtures & _FIXTURES) or bool(_DIRECTORIES & set(parts))


def _refuse(event: str, args: tuple[object, ...]) -> None:
    if _forbidden and event in _EVENTS:
        raise AssertionError(f"{event} {args[:2]}: mark this test with @pytest.mark.processes (tests/lanes.py)")


@pytest.fixture(autouse=True)
def no_process(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the quick lane a test that starts a process fails."""
    global _forbidden
    _forbidden = request.config.getoption("--lane") == "quick"
    yield
    _forbidden = False
