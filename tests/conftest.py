"""What all tests share: a real nats-server from the wheel, a connection to it, an opened log."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import FrameType

import hypothesis
import pytest

from deltalog import Connection, Log, LogSettings, connect, open_log
from kubebraid.command.broker import EmbeddedBroker
from kubebraid.loading import loading
from tests.lanes import (
    no_process,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_ignore_collect,
    pytest_report_header,
    pytest_runtest_call,
    pytest_terminal_summary,
)

__all__ = [
    "no_process",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_ignore_collect",
    "pytest_report_header",
    "pytest_runtest_call",
    "pytest_terminal_summary",
]

# A test that takes longer hangs, in seconds; on a busy machine one that takes half a minute by itself takes minutes.
LONGEST = 600

# Where an image sets this, each of the hundreds of processes that tests start would compile all its modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# An example that takes long says something of the machine alone.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("untimed")


# So much of the end of each log is shown of a test that failed, in bytes.
_SHOWN = 20_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a test that fails stand the logs of the processes that it had: else they go with its directory."""
    report = yield
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and report.when == "call" and directory is not None:
        for file in sorted(directory.rglob("*.log")):
            with suppress(OSError):
                said = file.read_bytes()[-_SHOWN:].decode(errors="replace")
                report.sections.append((f"end of {file.relative_to(directory)}", said))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules of tests and of clients, and what is collected, stay to the end: a million objects, by each worker."""
    with loading():
        return (yield)


@pytest.fixture
def limited() -> Iterator[None]:
    """Ends a test that hangs, where it hangs (Unix)."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test hangs: {LONGEST} s are over")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(LONGEST)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
async def broker(limited: None, tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    """A nats-server with JetStream on a free port, its files in the test's own directory."""
    async with EmbeddedBroker(tmp_path / "broker") as started:
        yield started


async def close(connection: Connection) -> None:
    """A test may have killed the broker: that closing works even then is a test of its own."""
    with suppress(OSError):
        await connection.close()


@pytest.fixture
def fast() -> bool:
    """Whether connections use what nats-py keeps to itself; modules that have to hold without it give both."""
    return True


@pytest.fixture
async def connecting(broker: EmbeddedBroker, fast: bool) -> AsyncIterator[Callable[[], Awaitable[Connection]]]:
    """Makes connections to the broker; they are closed with the test."""
    async with AsyncExitStack() as stack:

        async def made() -> Connection:
            connection = await connect(broker.url, name="test", fast=fast)
            stack.push_async_callback(close, connection)
            return connection

        yield made


@pytest.fixture
async def connection(connecting: Callable[[], Awaitable[Connection]]) -> Connection:
    """One connection to the broker."""
    return await connecting()


@pytest.fixture
async def log(connection: Connection) -> Log:
    """The log, made anew; tombstones live for a minute."""
    return await open_log(connection, LogSettings(tombstone_ttl=60))
