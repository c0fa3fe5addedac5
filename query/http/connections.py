"""Connections: what a client sends that is no HTTP is answered with a Status, too; each is watched for slow clients.

aiohttp answers requests that it cannot parse by itself, with a line of text; API clients expect a Status.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from query.http.slow_clients import SlowClients
from query.http.status import ApiError

# Under which an application holds what looks after its connections.
SLOW_CLIENTS = web.AppKey("SLOW_CLIENTS", SlowClients)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What connections may take of a server, in bytes and seconds. A kube-apiserver's where it has them.

    - `most`: connections open at once; None: 20,000, or what the process's limit of open files leaves.
    - `handshake`: until TLS is agreed on; `header`: from a connection's begin until its first request's head is
      complete, and from a later request's first byte on (net/http: ReadHeaderTimeout 32 s); `idle`: between requests.
    - `headers`: bytes of a request's head in all (net/http: MaxHeaderBytes 1 MiB); `body`: of its body, unless that is
      a stream (pkg/server/config.go: MaxRequestBodyBytes 3 MiB).
    """

    most: int | None = None
    handshake: float = 10.0
    header: float = 32.0
    idle: float = 90.0
    headers: int = 1024 * 1024
    body: int = 3 * 1024 * 1024


NO_OTHER_LIMITS = ConnectionLimits()
# Seconds until a connection is closed whose head was too large.
_RESET_AFTER = 0.5
# Seconds between two lines that say that there are as many connections as may be.
_SAY_EVERY = 60.0
# Lines of a head: a front proxy says each group of a user in one.
_HEAD_LINES = 1024


log = structlog.get_logger("query.http.connections")


class _Handler(RequestHandler):
    # A class with slots of its own: aiohttp's has no place for more.
    __slots__ = ("_head", "_head_timer", "_made", "_refused", "_server")

    def __init__(self, manager: LimitedServer, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._server = manager
        self._made: asyncio.Transport | None = None
        # Bytes of a request's head that is not complete, and when that is waited for no longer.
        self._head = 0
        self._refused = False
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Its own attribute for that is empty from when it wants to close, not from when all is sent.
        self._made = self.transport
        server = self._server
        server.silent[self] = None
        server.open += 1
        self._wait_for_head()
        if server.slow_clients is not None and self._made is not None:
            server.slow_clients.opened(self._made)

    def connection_lost(self, exc: BaseException | None) -> None:
        server = self._server
        if self._made is not None:
            server.open -= 1
            server.silent.pop(self, None)
            self._head_is_complete()
            if server.slow_clients is not None:
                server.slow_clients.closed(self._made)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        complete = self._request_count
        super().data_received(data)
        if self._request_count != complete:
            self._head = 0
            if self._head_timer is not None:
                self._head_is_complete()
            return
        if self._upgraded or self._payload_parser is not None:
            return
        waiter, current = self._waiter, self._current_request
        if waiter is None:
            # Behind the newest request: either of its body, or of the next one's head.
            newest = self._messages[-1][1] if self._messages else None if current is None else current.content
            if newest is None or not newest.is_eof():
                return
        self._head += len(data)
        if self._head > self._server.limits.headers:
            self._refuse_head(waiter)
        elif waiter is not None and self._head_timer is None:
            self._wait_for_head()

    def end_silent(self) -> None:
        """Breaks off a connection that has not sent one request."""
        self._server.silent.pop(self, None)
        if self._made is not None:
            self._made.abort()

    def _wait_for_head(self) -> None:
        self._head_timer = self._loop.call_later(self._server.limits.header, self._head_is_overdue)

    def _head_is_complete(self) -> None:
        self._server.silent.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_overdue(self) -> None:
        self._head_timer = None
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def _refuse_head(self, waiter: asyncio.Future[None] | None) -> None:
        """Answers a head that is too large, where nothing else is being answered; then the connection is closed.

        Not at once: to what was sent and not read, a kernel answers with a reset, at which the client would not see why
        (net/http: rstAvoidanceDelay).
        """
        self._head_is_complete()
        if waiter is None or waiter.done() or self.transport is None:
            if self._made is not None:
                self._made.abort()
            return
        self._refused = True
        body = ApiError(431, f"Request header fields too large: limit is {self._server.limits.headers}").body()
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\n"
            b"Cache-Control: no-cache, private\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self._head_timer = self._loop.call_later(_RESET_AFTER, self.force_close)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be parsed, or to a failure outside of the service's own handler."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")
        if isinstance(exc, ConnectionError):
            # There is no client left to read it.
            error = ApiError(status, "the connection was lost")
        elif status == 500:
            log.error("request failed", exc_info=exc)
            error = ApiError(500, "kubebraid failed on this request; its log has the reason")
        else:
            text = " ".join((message or "").split())[:256] or type(exc).__name__
            log.debug("not HTTP", reason=text)
            error = ApiError(status, f"this is no HTTP request: {text}")
        response = web.Response(status=status, body=error.body(), content_type="application/json")
        response.force_close()
        return response


class LimitedServer(Server):
    """Makes the protocol of each connection; knows which are open, and which of those have not sent a request yet."""

    slow_clients: SlowClients | None = None
    limits = ConnectionLimits()

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.open = 0
        self._say_at = 0.0
        # The oldest first.
        self.silent: dict[_Handler, None] = {}
        make = self.request_factory

        def limited(*parts: Any) -> web.BaseRequest:
            request = make(*parts)
            request._client_max_size = self.limits.body
            return request

        self.request_factory = limited

    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)

    def crowded(self) -> None:
        """Says, at times, that there are as many connections as may be open."""
        if (now := self._loop.time()) >= self._say_at:
            self._say_at = now + _SAY_EVERY
            log.warning("as many connections are open as may be", open=self.open, silent=len(self.silent))


class Runner(web.AppRunner):
    """Runs an application whose every answer is one that API clients can read, within limits."""

    def __init__(
        self, application: web.Application, limits: ConnectionLimits = NO_OTHER_LIMITS, **settings: Any
    ) -> None:
        super().__init__(application, keepalive_timeout=limits.idle, max_headers=_HEAD_LINES, **settings)
        self.limits = limits

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        server = LimitedServer(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        server.slow_clients = self.app.get(SLOW_CLIENTS)
        server.limits = self.limits
        return server
