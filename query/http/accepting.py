"""Accepting: connections of a listening socket are a runner's once their TLS is agreed on; never more than may be open.

What asyncio's and uvloop's own servers do besides is not enough for a server that others reach: they make the TLS of a
connection before its client has sent a byte (55 KiB each), and know no bound.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl

import structlog
from aiohttp import web
from yarl import URL

from query.http.connections import LimitedServer, Runner

log = structlog.get_logger("query.http.accepting")

# Connections that are open at once by default, and files of the process that are for other things than connections.
_MOST, _OTHER_FILES = 20_000, 256
# Connections taken in one turn of the loop; seconds until it is tried again where no file is left.
_AT_ONCE, _WITHOUT_FILES = 64, 1.0
# Seconds that a client has to take what is left when its connection is closed, and to agree to TLS's end.
_SHUTDOWN = 30.0


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
        # Clients that have not sent a byte of TLS yet, and when that is waited for no longer; the oldest first.
        self._mute: dict[socket.socket, asyncio.TimerHandle] = {}
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
        while self._mute:
            self._leave(next(iter(self._mute)))
        agreeing = list(self._agreeing)
        if self._ssl_context is not None:
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
            if self._ssl_context is None:
                self._begin(client)
            else:
                self._mute[client] = loop.call_later(self._limits.handshake, self._leave, client)
                loop.add_reader(client, self._speaks, client)

    def _speaks(self, client: socket.socket) -> None:
        """A client has sent something, or has gone."""
        asyncio.get_running_loop().remove_reader(client)
        self._mute.pop(client).cancel()
        self._begin(client)

    def _leave(self, client: socket.socket) -> None:
        """Closes the connection of a client that has not sent a byte."""
        asyncio.get_running_loop().remove_reader(client)
        self._mute.pop(client).cancel()
        client.close()

    def _begin(self, client: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._make(client), name="connection")
        self._agreeing[task] = client
        task.add_done_callback(self._made)

    def _made(self, task: asyncio.Task[None]) -> None:
        client = self._agreeing.pop(task)
        if task.cancelled():
            # Maybe before it had begun.
            client.close()
        elif (problem := task.exception()) is not None:
            log.error("a connection cannot be made", exc_info=problem)
            client.close()

    def _has_room(self) -> bool:
        server = self._runner.server
        assert isinstance(server, LimitedServer)
        if server.open + len(self._agreeing) + len(self._mute) < self._most:
            return True
        server.crowded()
        if self._mute:
            self._leave(next(iter(self._mute)))
            return True
        if self._ssl_context is not None:
            # Without TLS they are made at once, and what was made is not to be cancelled halfway.
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
