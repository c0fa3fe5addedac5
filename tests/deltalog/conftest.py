"""What the log's tests share: deltas made by hand, signals to the broker, patience."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from deltalog import ADDED, Appender, Delta, Log, Reader, Record, encode_delta
from deltalog.wire.subjects import object_subject, type_prefix
from deltalog.wire.summary import summary_headers
from kubebraid.command.broker import EmbeddedBroker
from tests.halting import halt
from tests.patience import PATIENCE, eventually

PODS = type_prefix("alpha", "", "v1", "pods")


def made_delta(name: str = "n", type: str = ADDED, **given: Any) -> Delta:
    fixed: dict[str, Any] = {
        "cluster": "alpha",
        "group": "",
        "version": "v1",
        "resource": "pods",
        "namespace": "x",
        "uid": "u",
        "member_version": "1",
        "time": 1_700_000_000_000,
        "producer": "p",
        "epoch": 1,
        "version_offset": 44,
        "metadata_end": 55,
        "object": b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"n"},"spec":{}}',
    }
    return Delta(type=type, name=name, **{**fixed, **given})


class Following:
    """A reader running in the background, and what it was given."""

    def __init__(self, log: Log, **options: Any) -> None:
        self.records: list[Record] = []
        self.reader = Reader(log, self.records.append, **options)
        self.outages: list[bool] = []
        self.task = asyncio.create_task(self.reader.run(self.outages.append))

    @property
    def sequences(self) -> list[int]:
        return [record.sequence for record in self.records]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits; ends at once if the reader does."""
        await eventually(lambda: holds() or self.task.done())
        if self.task.done():
            self.task.result()
        assert holds()

    async def ended(self) -> None:
        """Returns, or raises, as the reader does."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.shield(self.task)


@pytest.fixture(name="delta")
def delta_fixture() -> Callable[..., Delta]:
    """Makes a delta (a conftest cannot be imported)."""
    return made_delta


@pytest.fixture
async def follow() -> AsyncIterator[Callable[..., Following]]:
    """Starts readers; they end with the test."""
    started: list[Following] = []

    def start(log: Log, **options: Any) -> Following:
        started.append(Following(log, **options))
        return started[-1]

    yield start
    for one in started:
        one.task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await one.task


@pytest.fixture
async def appender(log: Log) -> AsyncIterator[Appender]:
    async with Appender(log.connection) as opened:
        yield opened


@pytest.fixture
def put(appender: Appender) -> Callable[..., Awaitable[int]]:
    """Appends one delta of a name; returns its sequence."""

    async def append(name: str = "n", ttl: int | None = None, **given: Any) -> int:
        delta = made_delta(name, **given)
        headers = summary_headers(delta)
        if ttl is not None:
            headers["Nats-TTL"] = f"{ttl}s"
        async with asyncio.timeout(PATIENCE):
            return await appender.append_wait(object_subject(PODS, "x", name), encode_delta(delta), headers)

    return append


@pytest.fixture
def halted(broker: EmbeddedBroker) -> Callable[[], Any]:
    """A context in which the broker's process stands still."""

    @asynccontextmanager
    async def context() -> AsyncIterator[None]:
        halt(broker.pid)
        try:
            yield
        finally:
            os.kill(broker.pid, signal.SIGCONT)

    return context


@pytest.fixture
def kill(broker: EmbeddedBroker) -> Callable[[], Awaitable[None]]:
    """Ends the broker with SIGKILL; `broker.start()` brings it back on the same files and port."""

    async def killed() -> None:
        os.kill(broker.pid, signal.SIGKILL)
        await broker.wait()

    return killed
