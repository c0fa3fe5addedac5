"""What time does to a log, done at once: events go, the state stays."""

from __future__ import annotations

import asyncio

from deltalog import Log
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


async def cut(log: Log, subject_filter: str, below: int) -> None:
    """Messages go that should not: from the events and from the state."""
    await state_at(log, below - 1)
    await log.purge(subject_filter, below)
    assert log.state_stream is not None
    await log.state_stream.purge(subject_filter, below)
