"""Watches over WebSocket: a text message for each event (apiserver pkg/endpoints/handlers/watch.go)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

Send = Callable[[bytes], Awaitable[None]]
"""Sends lines, and waits while the client takes no more."""


def is_websocket(http: web.BaseRequest) -> bool:
    """Whether a request asks for a WebSocket."""
    return (
        http.headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in http.headers.get("Connection", "").lower()
    )


async def converse(
    http: web.Request, headers: list[tuple[str, str]], serve: Callable[[Send], Awaitable[None]]
) -> web.StreamResponse:
    """Opens the WebSocket and runs `serve` with a way to send lines, until `serve` returns or the client closes.

    What `serve` raises is raised, but for ConnectionError.
    """
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
        # All that a client can say is that it closes.
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
