"""Watches over WebSocket: a text message for each event (apiserver pkg/endpoints/handlers/watch.go)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from query.http.status import ApiError

Send = Callable[[bytes], Awaitable[None]]


def is_websocket(http: web.BaseRequest) -> bool:
    """Whether a request asks for a WebSocket."""
    return (
        http.headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in http.headers.get("Connection", "").lower()
    )


def refuse_foreign_pages(http: web.BaseRequest) -> None:
    """A page of another origin, in the browser of somebody who may reach this service, may not use that.

    Reading by HTTP is stopped by the browser, as nothing here allows it; WebSockets and requests that change something
    are not. Raises ApiError 403.
    """
    origin = http.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != http.host.lower():
        raise ApiError(403, f"a page of {origin[:128]!r} may not use this service")


async def converse(
    http: web.Request, headers: list[tuple[str, str]], serve: Callable[[Send], Awaitable[None]]
) -> web.StreamResponse:
    """Opens the WebSocket and runs `serve` with a way to send lines, until it ends or the client closes."""
    # A browser takes no answer that leaves out all the protocols it offered.
    offered = [one.strip() for one in http.headers.get("Sec-WebSocket-Protocol", "").split(",") if one.strip()]
    socket = web.WebSocketResponse(heartbeat=30.0, compress=False, protocols=offered[:1])
    for name, value in headers:
        socket.headers.add(name, value)
    await socket.prepare(http)

    async def send(lines: bytes) -> None:
        for line in lines.splitlines():
            await socket.send_str(line.decode())

    async def listen() -> None:
        # What a client says is nothing to us but that it closes.
        async for _ in socket:
            pass

    serving = asyncio.ensure_future(serve(send))
    listening = asyncio.ensure_future(listen())
    try:
        await asyncio.wait((serving, listening), return_when=asyncio.FIRST_COMPLETED)
    finally:
        serving.cancel()
        listening.cancel()
        ended = await asyncio.gather(serving, listening, return_exceptions=True)
    if isinstance(ended[0], Exception) and not isinstance(ended[0], ConnectionError):
        raise ended[0]
    await socket.close()
    return socket
