"""Tunnels: any protocol after a 101, byte for byte; back-pressure; refusals; ends on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
from aiohttp import web
from multidict import CIMultiDict

from query.http.tunnels import BrokenTunnel, dial_url, tunnel, wants_upgrade
from tests.patience import PATIENCE

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
REQUEST = (
    b"POST /exec?a=1 HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream: v4\r\n"
    b"Content-Length: 0\r\n\r\n"
)
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"


@pytest.fixture
async def serving() -> AsyncIterator[Callable[[Handler], Awaitable[int]]]:
    """Starts a far server and a near one that tunnels to it; returns the near one's port."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(far: Handler) -> int:
            server = await asyncio.start_server(far, "127.0.0.1", 0)
            stack.callback(server.close)
            port = server.sockets[0].getsockname()[1]

            async def handle(request: web.BaseRequest) -> web.StreamResponse:
                if not wants_upgrade(request):
                    return web.Response(text="plain")
                try:
                    headers = CIMultiDict({"X-Stream": request.headers["X-Stream"]})
                    url = f"http://127.0.0.1:{port}/exec?a=1"
                    return await tunnel(request, url, headers, partial(dial_url, url, 5.0))
                except BrokenTunnel as problem:
                    return web.Response(status=503, text=str(problem))

            runner = web.ServerRunner(web.Server(handle))
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            assert site._server is not None
            return int(site._server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]

        yield start


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)


async def test_bytes_pass_both_ways_and_the_request_arrives_whole(serving: Callable[[Handler], Awaitable[int]]) -> None:
    seen = []

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await head_of(reader))
        # What comes with the answer is not lost.
        writer.write(ACCEPTED + b"first")
        while (data := await reader.read(1000)) != b"bye":
            writer.write(data.upper())
        writer.write(b"last")
        writer.close()

    port = await serving(far)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    head = await head_of(reader)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"upgrade: spdy/3.1" in head.lower()
    assert await reader.readexactly(5) == b"first"
    writer.write(b"\x00binary\xff")
    assert await reader.readexactly(8) == b"\x00BINARY\xff"
    writer.write(b"bye")
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b"last"
    line, *headers = seen[0].decode().strip().split("\r\n")
    assert line == "POST /exec?a=1 HTTP/1.1"
    assert {header.lower() for header in headers} >= {"connection: upgrade", "upgrade: spdy/3.1", "x-stream: v4"}
    writer.close()


async def test_much_passes_without_being_held_in_between(serving: Callable[[Handler], Awaitable[int]]) -> None:
    piece, count = bytes(range(256)) * 256, 600
    drained = asyncio.Event()
    written = 0

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await head_of(reader)
        writer.write(ACCEPTED)
        for _ in range(count):
            writer.write(piece)
            await writer.drain()
            written += 1
        drained.set()
        writer.close()

    port = await serving(far)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=65536)
    writer.write(REQUEST)
    await head_of(reader)
    # Who does not read is not written for: what is under way fits the buffers of the system.
    before = -1
    while before != written:
        before = written
        await asyncio.sleep(0.2)
    assert not drained.is_set()
    assert written < count
    digest, total = hashlib.sha256(), 0
    while data := await asyncio.wait_for(reader.read(65536), PATIENCE):
        digest.update(data)
        total += len(data)
    assert total == len(piece) * count
    assert digest.digest() == hashlib.sha256(piece * count).digest()
    writer.close()


@pytest.mark.parametrize(
    "body", [b"Content-Length: 6\r\n\r\nno way", b"Transfer-Encoding: chunked\r\n\r\n3\r\nno \r\n3\r\nway\r\n0\r\n\r\n"]
)
async def test_a_refusal_is_an_answer_and_the_connection_goes_on(
    serving: Callable[[Handler], Awaitable[int]], body: bytes
) -> None:
    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\n" + body)
        await reader.read()
        writer.close()

    port = await serving(far)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(REQUEST)
        head = await head_of(reader)
        assert head.startswith(b"HTTP/1.1 403 ")
        assert await reader.readexactly(6) == b"no way"
    writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
    assert (await head_of(reader)).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
async def test_what_is_no_answer_is_told(serving: Callable[[Handler], Awaitable[int]], answer: bytes) -> None:
    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answer)
        writer.close()

    port = await serving(far)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    assert (await head_of(reader)).startswith(b"HTTP/1.1 503 ")
    writer.close()


async def test_the_far_side_ends_when_the_client_goes(serving: Callable[[Handler], Awaitable[int]]) -> None:
    gone = asyncio.Event()

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(ACCEPTED)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()
        writer.close()

    port = await serving(far)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    await asyncio.sleep(0.1)
    writer.transport.abort()
    await asyncio.wait_for(gone.wait(), PATIENCE)
