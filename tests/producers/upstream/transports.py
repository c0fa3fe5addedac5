"""Transports of these tests, their authority, and what is asked over them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from producers.upstream.exchange import TransportError
from producers.upstream.proxies import Proxy
from producers.upstream.server_url import parse_server
from producers.upstream.tls import TlsSettings
from producers.upstream.transport import ConnectionTiming, Transport
from tests.patience import PATIENCE
from tests.producers.upstream.servers import Authority, Handler, Server, Stream

Connect = Callable[..., Transport]
CHUNK = b"x" * 16384


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def connect(authority: Authority) -> AsyncIterator[Connect]:
    """Makes transports that trust the authority; at the end none has anything left."""
    made: list[Transport] = []

    def connecting(
        url: str, tls: TlsSettings | None = None, proxy: Proxy | None = None, timing: ConnectionTiming | None = None
    ) -> Transport:
        made.append(
            Transport(
                parse_server(url),
                TlsSettings(authority.pem) if tls is None else tls,
                proxy,
                timing=timing or ConnectionTiming(),
            )
        )
        return made[-1]

    yield connecting
    for transport in made:
        assert transport.under_way == 0, "a handle is left"
        await transport.close()
        assert transport.sockets == 0, "a socket is left"


async def hello(stream: Stream) -> None:
    """Answers with what was asked."""
    await stream.body()
    await stream.answer(stream.asked.path.encode())


async def get(transport: Transport, path: str = "/") -> bytes:
    async with asyncio.timeout(PATIENCE):
        async with transport.request("GET", path) as response:
            return await response.read()


async def failing(transport: Transport, path: str = "/") -> TransportError:
    with pytest.raises(TransportError) as failed:
        await get(transport, path)
    return failed.value


@contextlib.asynccontextmanager
async def serving(handler: Handler, authority: Authority, **options: object) -> AsyncIterator[Server]:
    async with Server(handler, authority.server(), **options).running() as server:  # type: ignore[arg-type]
        yield server
