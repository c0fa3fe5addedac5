"""The parts of a process: tasks that run together until a signal comes or one of them ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog

from kubebraid.errors import Unavailable

log = structlog.get_logger("kubebraid")


class Stopped(Unavailable):
    """A part ended that the rest needs."""


async def until_signal() -> None:
    """Returns at SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def together(*parts: Callable[[], Awaitable[None]], first: Callable[[], Awaitable[None]] | None = None) -> None:
    """Runs the parts until a signal comes or one of them ends; then ends the others and waits for them.

    `first`: awaited before the others are ended, e.g. to stop listening before what answers requests stops. Raises what
    the part that ended first has raised.
    """
    tasks = [asyncio.ensure_future(part()) for part in parts]
    stop = asyncio.ensure_future(until_signal())
    try:
        await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            log.info("stopping")
        if first is not None:
            await first()
    finally:
        for task in (stop, *tasks):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [result for result in results if isinstance(result, Exception)]
    if failures:
        raise failures[0]
