"""Connections: what a client sends that is no HTTP is answered with a Status, too; each is watched for slow clients.

aiohttp answers requests that it cannot parse by itself, with a line of text; API clients expect a Status.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from aiohttp.web_server import Server
from yarl import URL

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
# Connections that a server has by default, and files of the process that are for other things than connections.
_MOST, _OTHER_FILES = 20_000, 256
# Connections taken in one turn of the loop; seconds until it is tried again where no file is left.
_AT_ONCE, _WITHOUT_FILES = 64, 1.0
# Seconds that a client has to agree to TLS's end.
_SHUTDOWN = 5.0
_SAY_EVERY = 60.0
# Lines of a head: a front proxy says each group of a user in one.
_HEAD_LINES = 1024


log = structlog.get_logger("query.http.connections")


class _Handler(RequestHandler):
    # A class with slots of its own: aiohttp's has no place for more.
    __slots__ = ("_head", "_head_timer", "_made", "_server")

    def __init__(self, manager: _Server, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._server = manager
        self._made: asyncio.Transport | None = None
        # Bytes of a request's head that is not complete, and when that is waited for no longer.
        self._head = 0
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
        """Answers a head that is too large, where nothing else is being answered."""
        if waiter is None or waiter.done():
            if self._made is not None:
                self._made.abort()
            return
        self._head_is_complete()
        error = _ErrInfo(431, HttpProcessingError(code=431), "the head of the request is too large")
        self._messages.append((error, EMPTY_PAYLOAD))
        waiter.set_result(None)

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
        elif status == 431:
            error = ApiError(431, f"Request header fields too large: limit is {self._server.limits.headers}")
        else:
            text = " ".join((message or "").split())[:256] or type(exc).__name__
            log.debug("not HTTP", reason=text)
            error = ApiError(status, f"this is no HTTP request: {text}")
        response = web.Response(status=status, body=error.body(), content_type="application/json")
        response.force_close()
        return response


class _Server(Server):
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
        server = _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )
        server.slow_clients = self.app.get(SLOW_CLIENTS)
        server.limits = self.limits
        return server


def _most(wanted: int | None) -> int:
    """How many connections may be open at once."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if wanted is None else wanted
    if files == resource.RLIM_INFINITY:
        return most
    room = max(files - _OTHER_FILES, files // 2)
    if wanted is not None and room < wanted:
        log.warning("fewer connections than wanted may be open, by the limit of open files", wanted=wanted, most=room)
    return min(most, room)


class Site(web.BaseSite):
    """Takes connections of a listening socket for a runner, and makes their TLS; never more than may be open.

    At the limit a new connection takes the place of the oldest that has not sent a request yet, so that connections
    that send nothing keep out no client; where there is none, it is closed at once.
    """

    def __init__(self, runner: Runner, bound: socket.socket, context: ssl.SSLContext | None, backlog: int) -> None:
        super().__init__(runner, ssl_context=context, backlog=backlog)
        self._bound = bound
        self._most = _most(runner.limits.most)
        self._limits = runner.limits
        # Whose TLS is being agreed on, the oldest first.
        self._agreeing: dict[asyncio.Task[None], socket.socket] = {}
        self._later: asyncio.TimerHandle | None = None
        self._taking = False

    @property
    def name(self) -> str:
        """Where it listens, as a URL."""
        host, port = self._bound.getsockname()[:2]
        return str(URL.build(scheme="https" if self._ssl_context else "http", host=host, port=port))

    async def start(self) -> None:
        """Begins to take connections."""
        await super().start()
        self._bound.setblocking(False)
        self._bound.listen(self._backlog)
        self._take_on()

    async def stop(self) -> None:
        """Takes no more connections; those whose TLS is not agreed on yet are closed."""
        if self._taking:
            asyncio.get_running_loop().remove_reader(self._bound)
            self._taking = False
        if self._later is not None:
            self._later.cancel()
        agreeing = list(self._agreeing)
        for task in agreeing:
            task.cancel()
        await asyncio.gather(*agreeing, return_exceptions=True)
        self._bound.close()
        await super().stop()

    def _take_on(self) -> None:
        self._later = None
        self._taking = True
        asyncio.get_running_loop().add_reader(self._bound, self._take)

    def _take(self) -> None:
        """Takes connections that wait, some at a time, so that others are served meanwhile."""
        loop = asyncio.get_running_loop()
        for _ in range(_AT_ONCE):
            try:
                client, _ = self._bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as cause:
                # The process, or the system, has no more files or memory; those that wait do so a while longer.
                log.error("connections cannot be taken now", reason=cause.strerror or type(cause).__name__)
                loop.remove_reader(self._bound)
                self._taking = False
                self._later = loop.call_later(_WITHOUT_FILES, self._take_on)
                return
            if not self._has_room():
                client.close()
                continue
            client.setblocking(False)
            task = loop.create_task(self._make(client), name="connection")
            self._agreeing[task] = client
            task.add_done_callback(self._made)

    def _made(self, task: asyncio.Task[None]) -> None:
        client = self._agreeing.pop(task)
        if task.cancelled():
            # Maybe before it had begun.
            client.close()

    def _has_room(self) -> bool:
        server = self._runner.server
        assert isinstance(server, _Server)
        if server.open + len(self._agreeing) < self._most:
            return True
        server.crowded()
        for task in self._agreeing:
            if not task.cancelling():
                task.cancel()
                return True
        if server.silent:
            next(iter(server.silent)).end_silent()
            return True
        return False

    async def _make(self, client: socket.socket) -> None:
        """Makes a connection's transport, and agrees on its TLS."""
        limits, context = self._limits, self._ssl_context
        server = self._runner.server
        assert server is not None
        times: dict[str, float] = {}
        if context is not None:
            times = {"ssl_handshake_timeout": limits.handshake, "ssl_shutdown_timeout": _SHUTDOWN}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(server, client, ssl=context, **times)
        except (OSError, TimeoutError) as cause:
            # ssl's errors are OSErrors.
            log.debug("no TLS with a client", reason=" ".join(str(cause).split())[:256])
            client.close()
