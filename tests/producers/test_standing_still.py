"""A server that stood still says that the log has less than was acknowledged: a producer ends no history by that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from deltalog import Appender, Connection, HistoryChanged, Log, connect, open_log
from deltalog.jetstream.stream_info import StreamState
from deltalog.wire import subjects
from deltalog.wire.subjects import control_subject
from kubebraid.command.broker import EmbeddedBroker
from producers.follow.history_watch import watch_history
from producers.follow.ownership import last_owner, renew, take
from tests.ageing import cut, state_at
from tests.patience import PATIENCE
from tests.standing_still import StoodStill

OWNER = control_subject("alpha", subjects.OWNER)


@pytest.fixture
async def other(connecting: Callable[[], Awaitable[Connection]], log: Log) -> Log:
    """The same log over a connection of its own, on which a server may have stood still."""
    return await open_log(await connecting())


async def test_the_log_was_not_set_back(log: Log, other: Log, broker: EmbeddedBroker) -> None:
    appending = await connect(broker.url, name="append")
    async with Appender.to(await open_log(appending)) as appender:
        await appender.append_wait("kbc.alpha.health", b"1")
        still = StoodStill(other.connection)
        await still.note(f"STREAM.INFO.{log.name}")
        await appender.append_wait("kbc.alpha.health", b"2")
        looks = asyncio.Semaphore(0)

        async def look(state: StreamState) -> None:
            assert state.last_sequence == 2
            looks.release()

        async def watch() -> None:
            await watch_history(other, appender, log.identity, 0, 0.01, look)

        watching = asyncio.create_task(watch())
        async with asyncio.timeout(PATIENCE):
            for _ in range(3):
                await asyncio.wait((watching, asyncio.create_task(looks.acquire())), return_when="FIRST_COMPLETED")
                assert not watching.done(), watching.exception()
        assert still.told == 1
        assert (await log.state()).prefix == log.prefix
        # Where it stays so, it was: then all agree on another name.
        await still.note(f"STREAM.INFO.{log.name}", times=3)
        await appender.append_wait("kbc.alpha.health", b"3")
        with pytest.raises(HistoryChanged, match="the log was set back: it had come to 3"):
            await asyncio.wait_for(watching, PATIENCE)
        assert (await log.state()).prefix != log.prefix
    await appending.close()


async def test_the_log_has_not_lost_who_owns_the_cluster(log: Log, other: Log) -> None:
    async with Appender.to(log) as appender:
        owner = await take(log, appender, "alpha", "p")
        await state_at(log, owner.sequence)
        still = StoodStill(other.connection)
        for name in (log.name, f"{log.name}_STATE"):
            await still.note(f"STREAM.MSG.GET.{name}", {"last_by_subj": OWNER})
        await renew(appender, owner)
        found = await last_owner(other, "alpha", owner.sequence)
        assert still.told == 2
        assert found is not None
        assert found.producer == "p"
        await cut(log, OWNER, owner.sequence + 1)
        assert await last_owner(other, "alpha", owner.sequence) is None
