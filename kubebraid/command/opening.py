"""Connecting to NATS and opening the log: what may pass by itself is waited for, all else ends the process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Self

import structlog

from deltalog import Access, BadAccess, BrokerUnavailable, LogError, LogSettings, LogUnavailable, connect, open_log
from deltalog.jetstream.backoff import Backoff, Once
from deltalog.jetstream.connection import BrokerRefuses, Connection
from deltalog.jetstream.stream import Log
from kubebraid.command.options.names import in_options
from query.http.health import Check, failed, warning

log = structlog.get_logger("kubebraid")

# Seconds that a start waits for NATS before it goes on without.
GRACE = 5.0
# Seconds between attempts.
_PAUSES = (0.5, 2.0)


@contextlib.asynccontextmanager
async def connected(url: str, name: str, access: Access) -> AsyncIterator[Connection]:
    """A connection to NATS at `url` while the block lasts. Raises BadAccess, BrokerUnavailable."""
    connection = await connect(url, name=name, access=access)
    try:
        yield connection
    finally:
        await connection.close()


class Opening:
    """Opens one log over one connection, both its own; to be entered, which begins with it.

    NATS that does not answer, has no leader, or no JetStream, is waited for, and that is said: when the reason changes
    and once a minute. What has to be corrected by an operator is raised by `soon` and `wait`: credentials that are
    refused (BrokerRefuses) or make no sense (BadAccess), a stream that is not one of kubebraid's (LogError). Unless
    `serving` is set: an instance that serves a snapshot meanwhile waits for that, too.

    `reason`: why the log is not open yet, empty if it is. `mend`: as for `open_log`. `patience`: seconds that one
    attempt to connect may take; `say_every`: seconds between two lines that say the same.
    """

    def __init__(
        self,
        connection: Connection,
        settings: LogSettings,
        *,
        mend: bool = False,
        patience: float = 5.0,
        say_every: float = 60.0,
    ) -> None:
        self.connection = connection
        self.settings = settings
        self.reason = f"NATS at {connection.url} has not answered yet"
        self.serving = False
        self._mend = mend
        self._patience = patience
        self._say_every = say_every
        self._attempted = False
        self._task: asyncio.Task[Log] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._open(), name="opening the log")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.connection.close()

    async def attempt(self) -> Log:
        """Opens the log, connecting first where need be. Raises BadAccess, BrokerUnavailable, LogError."""
        connection = self.connection
        if not connection.opened:
            await connection.open(self._patience)
        try:
            return await open_log(connection, self.settings, mend=self._mend)
        except BrokerUnavailable:
            if connection.refusing and not connection.connected:
                # It went away and came back as a server that will not have us.
                reason = f"NATS at {connection.url} cannot be used: {connection.problem}"
                raise BrokerRefuses(reason) from None
            raise

    async def soon(self, until: float) -> Log | None:
        """The log, if it is open at `until` (time of the event loop); None if it has to be waited for longer.

        Raises BadAccess, BrokerRefuses, LogError.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                return await self.wait()
        if self.connection.refusing:
            # It has answered: what becomes of that is known at the end of this attempt.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    return await self.wait()
        return None

    async def wait(self) -> Log:
        """The log, once it is open. Raises BadAccess, BrokerRefuses, LogError."""
        assert self._task is not None
        return await asyncio.shield(self._task)

    def checks(self) -> list[Check]:
        """What /readyz says while the log is not open; nothing once it is."""
        if not self.reason:
            return []
        reason = in_options(self.reason)
        return [warning(reason) if self.serving else failed(reason)]

    async def _open(self) -> Log:
        backoff = Backoff(*_PAUSES)
        said_at = 0.0
        say = Once(lambda reason: log.warning("the log cannot be opened", reason=reason))
        while True:
            try:
                opened = await self.attempt()
            except (BadAccess, LogUnavailable) as cause:
                if self._hopeless(cause) and not self.serving:
                    raise
                self.reason = str(cause)
            else:
                if say.last:
                    log.info("the log is open", stream=opened.name, url=self.connection.url)
                self.reason = ""
                return opened
            self._attempted = True
            if time.monotonic() - said_at >= self._say_every:
                say.clear()
                said_at = time.monotonic()
            say(self.reason)
            await backoff.wait()

    def _hopeless(self, cause: Exception) -> bool:
        if isinstance(cause, BadAccess):
            # A file that was good before is being replaced.
            return not self._attempted
        return isinstance(cause, (BrokerRefuses, LogError))
