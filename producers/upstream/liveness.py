"""Whether the peers of connections are still there: a silent connection is asked, one that does not answer is cut.

client-go has HTTP/2's PING for that (golang.org/x/net/http2, ReadIdleTimeout and PingTimeout), which libcurl does not
hand out; a small request does the same here. What the kernel finds by itself (TCP keep-alive, TCP_USER_TIMEOUT) ends
before a proxy on the way, which may go on acknowledging for a server that it lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

# Sockets of connections that are kept in mind.
_REMEMBERED = 64
# The addresses of the peer and of ours, and their ports.
ConnectionName = tuple[str, str, int, int]


class ServerConnection:
    """A connection that requests are on: when a byte last came over it, and why it was cut, if it was.

    `shared`: several requests may be on it, so that one can be asked whether its peer is there.
    """

    __slots__ = ("cut", "fd", "heard", "name", "shared", "users")

    def __init__(self, name: ConnectionName, heard: float, fd: int) -> None:
        self.name = name
        self.heard = heard
        self.fd = fd
        self.users = 0
        self.shared = False
        self.cut = ""

    def shut(self, reason: str) -> None:
        """Ends it under its requests, which fail with the reason."""
        if _local_port(self.fd) == self.name[3]:
            self.cut = reason
            with socket.socket(fileno=os.dup(self.fd)) as connection, contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _local_port(fd: int) -> int:
    """The port of our end; 0 if that is no socket now."""
    with contextlib.suppress(OSError):
        connection = socket.socket(fileno=fd)
        try:
            return int(connection.getsockname()[1])
        except IndexError:
            return 0
        finally:
            connection.detach()
    return 0


class Liveness:
    """Looks after the connection of one server while requests are on it; owned by its transport.

    `silence`: seconds without a byte after which `ask` sends a request, which is to bring one within `answer` seconds.
    Of several connections it would be unknown which one was asked: they are left to the kernel and to their requests.
    """

    def __init__(self, silence: float, answer: float, ask: Callable[[], Awaitable[None]]) -> None:
        self._silence = silence
        self._answer = answer
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._connections: dict[ConnectionName, ServerConnection] = {}
        # Of connections that are, or were there.
        self._sockets: dict[ConnectionName, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    def enter(self, name: ConnectionName, made: Sequence[int]) -> ServerConnection:
        """A request got onto a connection; `made`: sockets that were made for it, none if it was there. `leave` it."""
        for fd in made:
            if _local_port(fd) == name[3]:
                if len(self._sockets) > _REMEMBERED:
                    self._sockets.clear()
                self._sockets[name] = fd
        connection = self._connections.get(name)
        if connection is None:
            connection = ServerConnection(name, self._loop.time(), self._sockets.get(name, -1))
            self._connections[name] = connection
        connection.users += 1
        if self._timer is None:
            self._timer = self._loop.call_later(self._silence / 2, self._look)
        return connection

    def leave(self, connection: ServerConnection) -> None:
        """A request is over."""
        connection.users -= 1
        if not connection.users:
            self._connections.pop(connection.name, None)

    async def close(self) -> None:
        """Ends looking."""
        if self._timer is not None:
            self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    def _look(self) -> None:
        self._timer = None
        if self._connections:
            self._timer = self._loop.call_later(self._silence / 2, self._look)
        if len(self._connections) != 1 or (self._asking is not None and not self._asking.done()):
            return
        (connection,) = self._connections.values()
        if connection.shared and connection.fd >= 0 and self._loop.time() - connection.heard >= self._silence:
            self._asking = asyncio.create_task(self._ping(connection), name="asking a silent server")

    async def _ping(self, connection: ServerConnection) -> None:
        asked = self._loop.time()
        try:
            async with asyncio.timeout(self._answer):
                await self._ask()
        except TimeoutError:
            alone = list(self._connections.values()) == [connection]
            if alone and connection.heard < asked:
                connection.shut(f"the connection is dead: nothing came for {self._silence + self._answer:g} s")
