"""History watch: whether the log is still the one that a producer writes, or was deleted, replaced or set back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

from deltalog import Appender, BrokerUnavailable, HistoryChanged
from deltalog.history import History
from deltalog.jetstream.connection import JetStreamRefused
from deltalog.jetstream.stream import STREAM_NOT_FOUND, Log
from deltalog.jetstream.stream_info import HistoryIdentity, StreamState


async def watch_history(
    log: Log,
    appender: Appender,
    identity: HistoryIdentity,
    written: int,
    every: float,
    look: Callable[[StreamState], Awaitable[None]],
) -> NoReturn:
    """Looks at the log every so many seconds, until cancelled or it is another one.

    `identity`: the log's when it was first read; `written`: a sequence that was acknowledged before this began. `look`
    gets the state of the events at each look.

    Instances that serve the log notice what is cut out of it, and rename it; here it is noticed, too, that it was set
    back. Raises what `look` does, and:
        HistoryChanged: when the log is another one; it has to be read again.
    """
    while True:
        await asyncio.sleep(every * random.uniform(0.8, 1.2))
        highest = max(written, appender.highest.get(log.name, 0))
        try:
            state = await log.state_past(highest)
        except BrokerUnavailable:
            # Appending fails then, and is logged.
            continue
        except JetStreamRefused as refused:
            if refused.code == STREAM_NOT_FOUND:
                raise HistoryChanged(f"stream {log.name} is gone") from refused
            continue
        if state.identity != identity:
            raise HistoryChanged(f"the history {identity.prefix} is over, the log is {state.prefix} now")
        if state.last_sequence < highest or log.name in appender.set_back:
            await History(log).rotate(identity.prefix)
            raise HistoryChanged(f"the log was set back: it had come to {highest}")
        await look(state)
