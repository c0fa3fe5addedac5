"""A cancelled task ends, whatever it waits for at that moment: Ctrl-C and each restart of a part depend on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from deltalog import (
    Appender,
    Connection,
    Delta,
    Log,
    LogSettings,
    Reader,
    Record,
    connect,
    encode_delta,
    open_log,
    subscribe,
)
from deltalog.wire.subjects import object_subject, type_prefix
from deltalog.wire.summary import summary_headers
from kubebraid.command.broker import EmbeddedBroker
from tests.patience import PATIENCE

# More waits than any of these has.
MOST = 200


@pytest.fixture(params=[True, False], ids=["fast", "public"])
def fast(request: pytest.FixtureRequest) -> bool:
    """All of this holds without nats-py's private names, too."""
    return bool(request.param)


class CancelledAt:
    """Awaits a coroutine, and cancels the task at its `wait`-th wait: while that lasts, or as it ends.

    The latter is when `asyncio.wait_for` of Python 3.11 drops a cancellation, for one.
    """

    def __init__(self, work: Coroutine[Any, Any, None], wait: int, *, as_it_ends: bool) -> None:
        self._work = work
        self._wait = wait
        self._as_it_ends = as_it_ends
        self.waits = 0

    async def run(self) -> None:
        await self

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        thrown: BaseException | None = None
        while True:
            try:
                future = self._work.send(None) if thrown is None else self._work.throw(thrown)
            except StopIteration:
                return
            self.waits += 1
            if self.waits == self._wait:
                if future is None or not self._as_it_ends:
                    asyncio.get_running_loop().call_soon(task.cancel)
                else:
                    # Before the task, which adds its own callback once it has this future, is woken.
                    future.add_done_callback(lambda _: task.cancel())
            thrown = None
            try:
                yield future
            except BaseException as error:  # noqa: BLE001 - it is passed on
                thrown = error


async def ends_at_each_wait(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    for as_it_ends in (False, True):
        for wait in range(1, MOST):
            steps = CancelledAt(work(), wait, as_it_ends=as_it_ends)
            task = asyncio.create_task(steps.run())
            done, _ = await asyncio.wait((task,), timeout=PATIENCE)
            assert done, f"cancelled at wait {wait}, it goes on"
            if steps.waits < wait:
                # It has no more waits.
                assert wait > 1
                task.result()
                break
            assert task.cancelled(), f"cancelled at wait {wait}, it went on to its end: {task.exception()!r}"
        else:
            raise AssertionError(f"more than {MOST} waits")


async def test_connecting(broker: EmbeddedBroker, fast: bool) -> None:
    async def connecting() -> None:
        connection = await connect(broker.url, name="test", fast=fast)
        await connection.close()

    await ends_at_each_wait(connecting)


@pytest.mark.slow
async def test_connecting_where_nobody_is(fast: bool) -> None:
    async def connecting() -> None:
        with pytest.raises(Exception, match="does not answer"):
            await connect("nats://127.0.0.1:9", name="test", patience=0.3, fast=fast)

    await ends_at_each_wait(connecting)


async def test_opening_and_asking(connection: Connection) -> None:
    async def asking() -> None:
        await (await open_log(connection, LogSettings())).state()

    await ends_at_each_wait(asking)


@pytest.mark.parametrize("labels", ["", "app=web"])
async def test_subscribing(labels: str, broker: EmbeddedBroker, log: Log, put: Callable[..., Awaitable[int]]) -> None:
    await put("a", labels={"app": "web"})

    async def subscribing() -> None:
        async with subscribe(broker.url, type="pods", labels=labels, start="beginning") as subscription:
            await anext(subscription)

    await ends_at_each_wait(subscribing)


async def test_reading_and_beginning_again(log: Log, put: Callable[..., Awaitable[int]]) -> None:
    """A reader that has to begin again, as when its connection was lost."""
    await put("a")

    async def reading() -> None:
        reader: Reader

        def apply(_: Record) -> None:
            log.connection._trouble()

        reader = Reader(log, apply, stop_when_caught_up=True)
        await reader.run()
        assert reader.restarts == 1

    await ends_at_each_wait(reading)


async def test_appending(connection: Connection, log: Log, delta: Callable[..., Delta]) -> None:
    made = delta("a")
    subject = object_subject(type_prefix("alpha", "", "v1", "pods"), "x", "a")

    async def appending() -> None:
        async with Appender(connection) as appender:
            await appender.append_wait(subject, encode_delta(made), summary_headers(made))

    await ends_at_each_wait(appending)


async def test_sending_to_a_server_that_stands_still(
    connection: Connection, halted: Callable[[], AbstractAsyncContextManager[None]]
) -> None:
    """nats-py drops a cancellation where it waits for room to send."""
    sent = 0

    async def sending() -> None:
        nonlocal sent
        while True:
            await connection.client.publish("anything", bytes(1_000_000))
            sent += 1
            await asyncio.sleep(0)

    async with halted():
        task = asyncio.create_task(sending())
        async with asyncio.timeout(PATIENCE):
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)
        task.cancel()
        done, _ = await asyncio.wait((task,), timeout=PATIENCE)
        assert done
        assert task.cancelled()
