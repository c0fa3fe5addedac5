"""The connection to NATS, with the settings an unattended reader and writer needs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
import nats
import nats.errors
import structlog

from deltalog.jetstream.access import Access, check_servers, explained, without_user
from deltalog.jetstream.append_health import AppendHealth
from deltalog.jetstream.client import AnotherServer, Client
from deltalog.wire.errors import LogUnavailable

__all__ = [
    "TRANSPORT_ERRORS",
    "BrokerUnavailable",
    "Connection",
    "JetStreamRefused",
    "connect",
    "printable",
]

log = structlog.get_logger("deltalog.jetstream.connection")

_FAST: type[Client] = Client
# One of nats-py whose parser is elsewhere has no fast path.
with contextlib.suppress(ImportError):
    from deltalog.jetstream.fast_client import FastClient, usable

    if usable():
        _FAST = FastClient

# What a call of nats-py ends with when the connection is in no state to carry it; RuntimeError is uvloop's word for a
# transport that was closed under it.
TRANSPORT_ERRORS = (nats.errors.Error, OSError, RuntimeError)

# Errors of servers without a leader, and of one that starts: JSClusterNotAvailErr, JSClusterNotLeaderErr
# and JSStreamOfflineErr. Asked again later they give another answer.
_TEMPORARY = (10008, 10009, 10118)

# What nats-py may take for one attempt to connect, of which it limits each step, in seconds.
_ATTEMPT = 10.0
# So many attempts fail before it is said that a server does not answer, if they end at all.
_FEWEST = 2


class BrokerUnavailable(LogUnavailable):
    """NATS does not answer, or not as JetStream; the message says where and how."""


class BrokerRefuses(BrokerUnavailable):
    """NATS answers, but not to us: it refuses the connection or its settings are wrong; to wait does not help."""


class JetStreamRefused(LogUnavailable):
    """The JetStream API answered with an error. `code` is JetStream's err_code (ADR-7), e.g. 10059."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.description = description


class Connection:
    """One NATS connection; owned by the part that made it, shared by its readers and writers.

    `url`: `nats://host:port`, several with commas; `name`: what the server is told that the client is called. Until
    `open` has succeeded, all that is asked for over it is unavailable; from then on it reconnects for ever. `fast`:
    with the fast paths, where the installed nats-py has what they need (`deltalog.jetstream.fast_client`).
    `server`: what the only server is called that may answer there (`server_name`); another one, which has taken its
    port while it was away, counts as none, and its streams are never seen. Empty: whoever answers.
    `disconnections` counts: whoever depends on an unbroken connection compares it before and after.
    """

    def __init__(
        self, url: str, *, name: str = "", access: Access | None = None, fast: bool = True, server: str = ""
    ) -> None:
        self._servers, inside = without_user([one.strip() for one in url.split(",")])
        # Also for servers that are heard of from these: nats-py would send them none of what stands in a URL.
        access = access or Access()
        if inside and not access.identified:
            access = msgspec.structs.replace(access, **inside)
        self._access = access
        self._name = name
        self._server = server
        self._kind = _FAST if fast else Client
        self.client = self._kind()
        self.url = printable(url)
        # What subjects of the JetStream API begin with, in the domain that is meant (ADR-28).
        self.js = f"$JS.{access.domain}.API" if access.domain else "$JS.API"
        # Why the server could not be connected to the last time; empty while connected.
        self.problem = ""
        self.refusing = False
        self._refused: set[str] = set()
        self.disconnections = 0
        self.append_health = AppendHealth()
        # Whether it is ended by its owner.
        self.closing = False
        # Whether `open` has succeeded once.
        self.opened = False
        # Whether the client has something to close.
        self._begun = False
        self._on_trouble: set[Callable[[], None]] = set()

    async def open(self, patience: float = 5.0) -> None:
        """Connects, trying for `patience` seconds; after a failure it may be called again.

        On a busy machine that may be longer: it tries twice at least, and an attempt that a server has answered is
        brought to its end.
        Raises BadAccess; BrokerRefuses where the server answers and will not have us; BrokerUnavailable where there is
        no answer.
        """
        access = self._access
        access.check()
        check_servers(self._servers)
        client = self.client = self._kind()
        self._begun = False
        self.problem, self.refusing, self.closing = "", False, False
        client.server = self._server
        client.needs_tls = access.tls or any(one.startswith("tls://") for one in self._servers)
        # Else nats-py makes one where a server asks for TLS: reading all that the system trusts takes its time.
        context = access.tls_context() if client.needs_tls else None

        loop = asyncio.get_running_loop()
        until, failures = loop.time() + patience, 0

        async def disconnected() -> None:
            if not self.opened or self.closing:
                # An attempt to connect is given up, or the owner ends it: nothing is lost.
                return
            self.disconnections += 1
            if not client.is_closed:
                log.warning("NATS connection lost", url=self.url)
            self._trouble()

        async def reconnected() -> None:
            self.problem, self.refusing = "", False
            log.info("NATS connection is back", url=self.url)
            self._trouble()

        async def closed() -> None:
            if not self.closing:
                # Only the public client lets it come to this.
                self.problem = explained(client.last_error or Exception("the server has ended the connection"))
                log.error(
                    "NATS has ended the connection for good; start this process again",
                    url=self.url,
                    reason=self.problem,
                )

        async def failed(problem: Exception) -> None:
            nonlocal failures
            if context is not None and not client.is_connected:
                context.failed()
            if isinstance(problem, nats.errors.SlowConsumerError):
                self._trouble()
            elif str(problem):
                self._note(problem)
            log.debug("NATS client", problem=repr(problem))
            failures += 1
            give_up_at(until if failures >= _FEWEST else until + _ATTEMPT)

        # nats-py gives up a connection attempt by `max_reconnect_attempts`, which must be endless later on; so the
        # patience for the first one is ours. Where fewer attempts have come to an end, it is this machine that is slow.
        limit = asyncio.timeout_at(until + _ATTEMPT)

        def give_up_at(when: float) -> None:
            if client.greeted is not None and not limit.expired():
                limit.reschedule(when)

        def begin_handshake() -> None:
            if client.greeted is not None:
                client.greeted()

        if context is not None:
            context.begin = begin_handshake
        try:
            async with limit:
                self._begun = True
                client.greeted = lambda: give_up_at(max(until, loop.time() + _ATTEMPT))
                await client.connect(
                    self._servers,
                    name=self._name,
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
                    closed_cb=closed,
                    error_cb=failed,
                    tls=context,
                    **access.options(context),
                )
                client.greeted = None
        except asyncio.CancelledError:
            client.greeted = None
            await self.close()
            raise
        except (*TRANSPORT_ERRORS, TimeoutError, ValueError) as cause:
            client.greeted = None
            await self.close()
            reason = self.problem or str(cause) or "no answer"
            what = "cannot be used" if self.refusing else "does not answer"
            hopeless = self.refusing or isinstance(cause, ValueError)
            kind = BrokerRefuses if hopeless else BrokerUnavailable
            raise kind(f"NATS at {self.url} {what}: {reason}") from cause
        self.problem, self.refusing = "", False
        self.opened = True

    @property
    def connected(self) -> bool:
        """Whether the server can be asked now."""
        return bool(self.client.is_connected)

    def problems(self) -> list[str]:
        """What is wrong for those that write over it, one line for each; none where all is well."""
        if not self.connected:
            return [f"NATS cannot be reached at {self.url}" + (f": {self.problem}" if self.problem else "")]
        return self.append_health.problems()

    def watch_trouble(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back at each disconnection and each dropped message; returns the function that ends it."""
        self._on_trouble.add(callback)
        return lambda: self._on_trouble.discard(callback)

    def _trouble(self) -> None:
        for callback in tuple(self._on_trouble):
            callback()

    def bucket_subject(self, bucket: str, key: str) -> str:
        """Where a value of a key-value bucket is sent to (ADR-8); it is stored as `$KV.<bucket>.<key>`."""
        stored = f"$KV.{bucket}.{key}"
        # Other domains' buckets are reached through their API only.
        return stored if self.js == "$JS.API" else f"{self.js}.{stored}"

    def _note(self, problem: Exception) -> None:
        """What nats-py says of failures: each thing once while it is so, in the log."""
        if self.refusing and isinstance(problem, (ConnectionResetError, BrokenPipeError)):
            # What comes of having been refused.
            return
        text = explained(problem)
        self.refusing = isinstance(problem, (nats.errors.Error, ssl.SSLError)) and not _is_away(problem)
        if "permissions violation" in text.lower():
            if text not in self._refused:
                self._refused.add(text)
                log.error("NATS does not permit what is needed here (docs/nats.md)", url=self.url, problem=text)
        elif text != self.problem:
            self.problem = text
            if self.opened and not self.connected:
                log.warning("NATS cannot be reached", url=self.url, reason=text)

    def refusal(self, subject: str) -> str:
        """How the server refused a subject; empty if it did not."""
        # nats-py tells of it in small letters.
        return next((text for text in self._refused if f'"{subject}"'.lower() in text.lower()), "")

    async def api(self, verb: str, request: object = None, timeout: float = 5.0, js: str | None = None) -> msgspec.Raw:
        """Asks `$JS.API.<verb>`, or `<js>.<verb>` of another domain; the answer as raw JSON.

        Raises JetStreamRefused for an error answer and BrokerUnavailable if there is none.
        """
        if not self.opened:
            raise BrokerUnavailable(f"NATS at {self.url} does not answer")
        payload = b"" if request is None else msgspec.json.encode(request)
        subject = f"{js or self.js}.{verb}"
        try:
            answer = await self.client.request(subject, payload, timeout=timeout)
        except (*TRANSPORT_ERRORS, TimeoutError) as cause:
            if refusal := self.refusal(subject):
                raise BrokerRefuses(f"NATS at {self.url} says: {refusal} (docs/nats.md has what is needed)") from cause
            what = "has no JetStream" if isinstance(cause, nats.errors.NoRespondersError) else "does not answer"
            raise BrokerUnavailable(f"NATS at {self.url} {what}") from cause
        problem = msgspec.json.decode(answer.data, type=_Answer).error
        if problem is not None:
            if problem.err_code in _TEMPORARY:
                raise BrokerUnavailable(f"NATS at {self.url} says: {problem.description}")
            raise JetStreamRefused(problem.err_code, problem.description)
        return msgspec.Raw(answer.data)

    async def close(self) -> None:
        """Ends it, within 5 seconds whatever state the server is in."""
        self.closing = True
        if self._begun and not self.client.is_closed:
            # Never longer than this, whatever state the server is in: nothing that matters is left to send. nats-py
            # runs into an AttributeError where it never came to connect.
            with contextlib.suppress(TimeoutError, AttributeError, *TRANSPORT_ERRORS):
                async with asyncio.timeout(5):
                    await self.client.close()


class _Problem(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    error: _Problem | None = None


# What else a server, or what stands in front of one, says that may be otherwise a moment later: it accepts and closes,
# it has too many clients, it or we were too slow to say who we are, it is about to end.
_PASSING = (
    "empty response from server",
    "authentication timeout",
    "connections exceeded",
    "server shutdown",
)


def _is_away(problem: Exception) -> bool:
    """Whether a failure to connect says nothing about our credentials and settings: it may pass by itself."""
    silent = (TimeoutError, nats.errors.StaleConnectionError, nats.errors.NoServersError, AnotherServer)
    # A server that ends in the middle of the TLS handshake, or a port that is passed on to one that is not there.
    cut_off = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
    text = str(problem).lower()
    return isinstance(problem, (*silent, *cut_off)) or any(one in text for one in _PASSING)


def printable(url: str) -> str:
    """The URL without user and password, for messages."""
    shown = []
    for one in url.split(","):
        parts = urlsplit(one)
        shown.append(one if parts.username is None else one.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1))
    return ",".join(shown)


async def connect(
    url: str, *, name: str, patience: float = 5.0, access: Access | None = None, fast: bool = True, server: str = ""
) -> Connection:
    """A connection to NATS at `url`, opened; tries for `patience` seconds. Raises as `Connection.open`."""
    connection = Connection(url, name=name, access=access, fast=fast, server=server)
    await connection.open(patience)
    return connection
