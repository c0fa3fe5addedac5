"""The connection to NATS, with the settings an unattended reader and writer needs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
import nats
import nats.errors
import structlog

from deltalog.client import Client, cancellable

__all__ = [
    "TRANSPORT_ERRORS",
    "BrokerUnavailable",
    "Connection",
    "JetStreamRefused",
    "cancellable",
    "connect",
    "printable",
]

log = structlog.get_logger("deltalog.connection")

# What a call of nats-py ends with when the connection is in no state to carry it; RuntimeError is uvloop's word for a
# transport that was closed under it.
TRANSPORT_ERRORS = (nats.errors.Error, OSError, RuntimeError)


class BrokerUnavailable(Exception):
    """NATS does not answer, or not as JetStream; the message says where and how."""


class JetStreamRefused(Exception):
    """The JetStream API answered with an error. `code` is JetStream's err_code (ADR-7), e.g. 10059."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.description = description


class Connection:
    """One NATS connection; owned by the part that made it, shared by its readers and writers.

    `lost` counts disconnections: whoever depends on an unbroken connection compares it before and after.
    """

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.url = url
        self.lost = 0
        self.slow = 0
        self._on_trouble: set[Callable[[], None]] = set()

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    def watch_trouble(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back at each disconnection and each dropped message; returns the function that ends it."""
        self._on_trouble.add(callback)
        return lambda: self._on_trouble.discard(callback)

    def _trouble(self) -> None:
        for callback in tuple(self._on_trouble):
            callback()

    async def api(self, verb: str, request: object = None, timeout: float = 5.0) -> msgspec.Raw:
        """Asks `$JS.API.<verb>`; the answer as raw JSON.

        Raises JetStreamRefused for an error answer and BrokerUnavailable if there is none.
        """
        payload = b"" if request is None else msgspec.json.encode(request)
        try:
            with cancellable():
                answer = await self.client.request(f"$JS.API.{verb}", payload, timeout=timeout)
        except (*TRANSPORT_ERRORS, TimeoutError) as cause:
            what = "has no JetStream" if isinstance(cause, nats.errors.NoRespondersError) else "does not answer"
            raise BrokerUnavailable(f"NATS at {self.url} {what}") from cause
        problem = msgspec.json.decode(answer.data, type=_Answer).error
        if problem is not None:
            raise JetStreamRefused(problem.err_code, problem.description)
        return msgspec.Raw(answer.data)

    async def close(self) -> None:
        if not self.client.is_closed:
            # Never longer than this, whatever state the server is in: nothing that matters is left to send.
            with contextlib.suppress(TimeoutError, *TRANSPORT_ERRORS):
                async with asyncio.timeout(5):
                    await self.client.close()


class _Problem(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    error: _Problem | None = None


def printable(url: str) -> str:
    """The URL without user and password, for messages."""
    shown = []
    for one in url.split(","):
        parts = urlsplit(one)
        shown.append(one if parts.username is None else one.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1))
    return ",".join(shown)


async def connect(url: str, *, name: str, patience: float = 5.0) -> Connection:
    """Connects to NATS at `url` (`nats://host:port`, several with commas); tries for `patience` seconds at first.

    Once connected it reconnects for ever. Raises BrokerUnavailable.
    """
    client = Client()
    connection = Connection(client, printable(url))

    async def disconnected() -> None:
        connection.lost += 1
        if not client.is_closed:
            log.warning("NATS connection lost", url=connection.url)
        connection._trouble()

    async def reconnected() -> None:
        log.info("NATS connection is back", url=connection.url)
        connection._trouble()

    async def failed(problem: Exception) -> None:
        if isinstance(problem, nats.errors.SlowConsumerError):
            connection.slow += 1
            connection._trouble()
        log.debug("NATS client", problem=repr(problem))

    try:
        # nats-py gives up a connection attempt by `max_reconnect_attempts`, which must be endless later on;
        # so the patience for the first one is ours.
        async with asyncio.timeout(patience):
            await client.connect(
                [one.strip() for one in url.split(",")],
                name=name,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                connect_timeout=2,
                # A server that hangs is left for another one after 6 to 9 seconds.
                ping_interval=3,
                max_outstanding_pings=2,
                pending_size=16 * 1024 * 1024,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                error_cb=failed,
            )
    except (*TRANSPORT_ERRORS, TimeoutError, ValueError) as cause:
        try:
            await client.close()
        except (*TRANSPORT_ERRORS, AttributeError):
            pass
        reason = str(cause) or "no answer"
        raise BrokerUnavailable(f"NATS at {connection.url} does not answer: {reason}") from cause
    return connection
