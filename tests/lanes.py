"""Lanes of tests: `--lane quick` takes those that start no process and are short.

Left out of it are, by three rules:

- tests that start a process: those of some directories, of some fixtures, and those marked `processes`;
- tests marked `slow`;
- of a test that is given seeds (a parameter named `seed`), all but the first.

It holds by itself: in this lane a test fails that starts a process all the same, or takes more than LONGEST seconds of
processor time; that does not depend on what else the machine does, as a clock's would. At the end stands what all of
them took, and which files took most.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests import order

# Fixtures and directories of tests that start nats-server, instances, clients or other programs.
_FIXTURES = frozenset({"broker", "cluster_of_nats", "nats_cluster", "regions", "service", "services", "rig"})
_DIRECTORIES = frozenset({"clients", "conformance", "deploy", "e2e", "examples", "faults", "oracle"})
# What the interpreter says when a process is about to be started (audit events table of the Python documentation).
_EVENTS = frozenset({"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"})

# Of one test in the quick lane, in seconds of processor time. Most take hundredths; all together have 60 s of two
# processors, loading included.
LONGEST = 5.0
_TOOK = "processor time"

_forbidden = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--lane", choices=("quick", "all"), default="all", help="quick: short tests that start no process")
    order.add_option(parser)


def pytest_report_header(config: pytest.Config) -> str | None:
    return order.header(config)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "processes: starts processes; left out of `make quick`")
    config.addinivalue_line("markers", "slow: takes seconds; left out of `make quick`")
    if config.getoption("--lane") == "quick":
        sys.addaudithook(_refuse)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What the quick lane leaves out whole it does not load either: clients of others take seconds to load."""
    if config.getoption("--lane") == "quick" and _DIRECTORIES & set(_parts(collection_path, config)):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    order.shuffle(config, items)
    if config.getoption("--lane") != "quick":
        return
    taken: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        (left_out if _starts_processes(item) or _slow(item) else taken).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = taken


def _parts(path: Path, config: pytest.Config) -> tuple[str, ...]:
    return path.relative_to(config.rootpath).parts if path.is_relative_to(config.rootpath) else ()


def _starts_processes(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    marked = item.get_closest_marker("processes") is not None
    return marked or bool(fixtures & _FIXTURES) or bool(_DIRECTORIES & set(_parts(item.path, item.config)))


def _slow(item: pytest.Item) -> bool:
    given = item.callspec.indices if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return item.get_closest_marker("slow") is not None or given.get("seed", 0) > 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    started = time.process_time()
    result = yield
    took = time.process_time() - started
    item.user_properties.append((_TOOK, took))
    if item.config.getoption("--lane") == "quick" and took > LONGEST:
        pytest.fail(f"{took:.1f} s of processor time: make it shorter or mark it with @pytest.mark.slow", pytrace=False)
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--lane") != "quick":
        return
    # In milliseconds.
    took: Counter[str] = Counter()
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        if isinstance(report, pytest.TestReport) and report.when == "call":
            said = dict(report.user_properties)[_TOOK]
            assert isinstance(said, float)
            took[report.nodeid.split("::")[0]] += round(1000 * said)
    most = ", ".join(f"{file} {each / 1000:.1f} s" for file, each in took.most_common(5))
    terminalreporter.write_line(f"{took.total() / 1000:.0f} s of processor time in tests; most in {most}")


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
