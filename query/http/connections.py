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


log = structlog.get_logger("query.http.connections")


class _Handler(RequestHandler):
    # A class with slots of its own: aiohttp's has no place for more.
    __slots__ = ("_made", "_slow_clients")

    def __init__(self, manager: Server, slow_clients: SlowClients | None, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._slow_clients = slow_clients
        self._made: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Its own attribute for that is empty from when it wants to close, not from when all is sent.
        self._made = self.transport
        if self._slow_clients is not None and self._made is not None:
            self._slow_clients.opened(self._made)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._slow_clients is not None and self._made is not None:
            self._slow_clients.closed(self._made)
        super().connection_lost(exc)

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


class _Server(Server):
    slow_clients: SlowClients | None = None

    def __call__(self) -> RequestHandler:
        return _Handler(self, self.slow_clients, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application whose every answer is one that API clients can read."""

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        server = _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        server.slow_clients = self.app.get(SLOW_CLIENTS)
        return server
