"""What time does to a log, done at once: events go, the state stays."""

from __future__ import annotations

import asyncio

from deltalog import Log
from deltalog.jetstream.stream_info import StreamState
from tests.patience import PATIENCE


async def state_at(log: Log, sequence: int) -> None:
    """Returns once the state stream has come to a sequence."""
    state = await log.find_state()
    assert state is not None
    async with asyncio.timeout(PATIENCE):
        while await state.head() < sequence:
            await asyncio.sleep(0.01)


async def forget_events(log: Log, through: int) -> None:
    """The events up to a sequence go, as they do by their age or their size, once the state has them."""
    await state_at(log, through)
    await log.connection.api(f"STREAM.PURGE.{log.name}", {"seq": through + 1})


async def kept(log: Log) -> StreamState:
    """The extent of the state."""
    found = await log.kept()
    assert found is not None
    return found


async def cut(log: Log, subject_filter: str, below: int) -> None:
    """Messages go that should not: from the events and from the state."""
    await state_at(log, min(below - 1, await log.head()))
    assert log.state_stream is not None
    await log.state_stream.purge(subject_filter, below)
    await log.purge(subject_filter, below)


async def cut_one(log: Log, sequence: int) -> None:
    """One message goes that should not."""
    await state_at(log, sequence)
    for name in (f"{log.name}_STATE", log.name):
        await log.connection.api(f"STREAM.MSG.DELETE.{name}", {"seq": sequence})
