"""Listening sockets, and serving HTTP on them."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from kubebraid.command.doors import Doors
from kubebraid.command.settings import Address, BadSetting
from query.http.accepting import Site
from query.http.connections import Runner

# Connections that may wait to be taken; the system may allow fewer (net.core.somaxconn).
_BACKLOG = 4096
_LINE_LIMIT = 256 * 1024
# Names that requests to an address of loopback may be for.
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


def bind(address: Address, *, shared: bool = False, listen: bool = True) -> socket.socket:
    """The listening socket, bound before anything is started, so that a port in use is found out at once.

    `shared`: other processes bind the same address. Without `listen` it does not listen yet. Raises BadSetting.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((address.host, address.port))
    except OSError as cause:
        bound.close()
        raise cannot_listen(address, cause) from None
    if listen:
        bound.listen(1024)
    return bound


def cannot_listen(address: Address, cause: OSError) -> BadSetting:
    """What to tell about an address that cannot be bound."""
    if cause.errno == errno.EADDRINUSE:
        return BadSetting(f"port {address.port} of {address.host} is in use; choose another with --listen HOST:PORT")
    return BadSetting(f"cannot listen on {address.host}:{address.port}: {cause.strerror or cause}")


def reserve(address: Address) -> socket.socket:
    """A socket that holds the port of `address` for workers, without listening. Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Without the option on this one first: whoever else has the port is to be found out, not to be joined.
        bound.bind((address.host, address.port))
        port = bound.getsockname()[1]
        bound.close()
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address.host, port))
    except OSError:
        bound.close()
        raise
    return bound


class RunningServer(NamedTuple):
    """What serves HTTP, and how to end that before all else."""

    address: Address
    end: Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def served_at(
    application: web.Application,
    bound: socket.socket,
    close: Callable[[], None] | None = None,
    doors: Doors | None = None,
) -> AsyncIterator[RunningServer]:
    """Serves while the block lasts, or until it is ended; `close` ends what would not end by itself.

    `doors`: by what certificate and within what limits. Raises BadTlsFile.
    """
    doors = doors or Doors()
    context = doors.serving_context()
    runner = Runner(
        application,
        doors.connections,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=5.0,
        # Selectors that name hundreds of objects make long request lines.
        max_line_size=_LINE_LIMIT,
        max_field_size=_LINE_LIMIT,
    )
    await runner.setup()
    # All watchers of an instance that died connect at once.
    await Site(runner, bound, context, _BACKLOG).start()
    host, port = bound.getsockname()[:2]

    async def end() -> None:
        if close is not None:
            close()
        await runner.cleanup()

    try:
        yield RunningServer(Address(host, port, secure=context is not None), end)
    finally:
        await end()
