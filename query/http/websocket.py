"""Watches over WebSocket: a text message for each event (apiserver pkg/endpoints/handlers/watch.go)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from multidict import MultiMapping

BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
"""What an offered subprotocol begins with that is a token (apiserver pkg/authentication/request/websocket)."""

Send = Callable[[bytes], Awaitable[None]]
"""Sends lines, and waits while the client takes no more."""


def is_websocket(http: web.BaseRequest) -> bool:
    """Whether a request asks for a WebSocket."""
    return (
        http.headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in http.headers.get("Connection", "").lower()
    )


def offered_protocols(headers: MultiMapping[str]) -> list[str]:
    """The subprotocols that a request offers, in order, without empty ones (RFC 6455 11.3.4)."""
    values = headers.getall("Sec-WebSocket-Protocol", ())
    return [one for value in values for one in map(str.strip, value.split(",")) if one]


def offered_tokens(headers: MultiMapping[str]) -> list[str]:
    """The tokens among the subprotocols that a request offers, as they are encoded."""
    return [one.removeprefix(BEARER_PROTOCOL) for one in offered_protocols(headers) if one.startswith(BEARER_PROTOCOL)]


async def converse(
    http: web.Request, headers: list[tuple[str, str]], serve: Callable[[Send], Awaitable[None]]
) -> web.StreamResponse:
    """Opens the WebSocket and runs `serve` with a way to send lines, until `serve` returns or the client closes.

    What `serve` raises is raised, but for ConnectionError.
    """
    # A browser takes no answer that leaves out all the protocols it offered; a token is none, and is not sent back.
    offered = [one for one in offered_protocols(http.headers) if not one.startswith(BEARER_PROTOCOL)]
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
