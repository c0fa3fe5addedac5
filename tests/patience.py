"""How long tests wait for what should happen, and waiting for what nothing announces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# No test waits longer than this, in seconds. Much longer than anything takes on a quiet machine: on one whose
# processors are all busy with something else, much takes ten times as long.
PATIENCE = 60.0


async def eventually(check: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """What `check` returns as soon as it is true; fails when that takes longer than `patience` seconds."""
    limit = asyncio.get_running_loop().time() + patience
    while not (found := check()):
        assert asyncio.get_running_loop().time() < limit, "did not happen"
        await asyncio.sleep(0.02)
    return found


async def eventually_awaited(check: Callable[[], Awaitable[T | None]], patience: float = PATIENCE) -> T:
    """As `eventually`, where it takes a question to somebody else."""
    limit = asyncio.get_running_loop().time() + patience
    while not (found := await check()):
        assert asyncio.get_running_loop().time() < limit, "did not happen"
        await asyncio.sleep(0.1)
    return found
