"""Streams to simulated containers: exec, attach and port-forward over WebSocket, logs that are followed, and proxies.

A container knows `cat`, `echo`, `true` and `exit N`; what listens on its ports says everything back. The channels are
those of k8s.io/apimachinery pkg/util/remotecommand (v4 and v5) and the first number of a message.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from aiohttp import WSMsgType, web

from simulation.status import ApiError, bad_request

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)
_CLOSE = 255
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
# Seconds between two lines of a log that is followed.
_LINE_EVERY = 0.2


async def run_command(request: web.BaseRequest, command: Sequence[str]) -> web.StreamResponse:
    """exec, or attach without a command: runs it with the channels that the query asks for."""
    socket = await _socket(request, _PROTOCOLS)
    query = request.query

    async def write(channel: int, data: bytes) -> None:
        if data and query.get({_STDOUT: "stdout", _STDERR: "stderr"}[channel]) in ("1", "true"):
            await socket.send_bytes(bytes([channel]) + data)

    name, *arguments = command or ("cat",)
    code = 0
    if name == "cat":
        if query.get("stdin") in ("1", "true"):
            await _each_input(socket, lambda data: write(_STDOUT, data))
    elif name == "echo":
        await write(_STDOUT, (" ".join(arguments) + "\n").encode())
    elif name == "exit":
        code = int(arguments[0]) if arguments and arguments[0].isdigit() else 0
    elif name != "true":
        await write(_STDERR, f"{name}: not found\n".encode())
        code = 127
    status: dict[str, Any] = {"metadata": {}, "status": "Success"}
    if code:
        status = {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: exit status {code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    if not socket.closed:
        await socket.send_bytes(bytes([_ERROR]) + json.dumps(status).encode())
    await socket.close()
    return socket


async def forward_ports(request: web.BaseRequest) -> web.StreamResponse:
    """portforward: for each port a channel of data and one of errors, which begin with the port's number."""
    ports = [int(text) for text in request.query.getall("ports", []) if text.isdigit() and 0 < int(text) < 65536]
    if not ports:
        raise bad_request("query parameter 'ports' is required")
    socket = await _socket(request, ("v4.channel.k8s.io",))
    for number, port in enumerate(ports):
        for channel in (2 * number, 2 * number + 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
    async for message in socket:
        if message.type is WSMsgType.BINARY and message.data and message.data[0] % 2 == 0:
            await socket.send_bytes(message.data)
    return socket


async def follow_log(request: web.BaseRequest, lines: Sequence[str]) -> web.StreamResponse:
    """A log that goes on until the client has enough."""
    response = web.StreamResponse()
    response.content_type = "text/plain"
    response.enable_chunked_encoding()
    await response.prepare(request)
    number = 0
    try:
        await response.write("".join(f"{line}\n" for line in lines).encode())
        while True:
            await asyncio.sleep(_LINE_EVERY)
            number += 1
            await response.write(f'level=info msg="still here" number={number}\n'.encode())
    except ConnectionError:
        return response


async def say_back(request: web.BaseRequest, path: str) -> web.StreamResponse:
    """What the proxy subresource leads to: tells the request it was given."""
    body = (await request.read()).decode(errors="replace")
    return web.json_response(
        {"method": request.method, "path": path, "query": dict(request.query), "body": body},
        status=201 if request.method == "POST" else 200,
    )


async def _socket(request: web.BaseRequest, protocols: Sequence[str]) -> web.WebSocketResponse:
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request("Upgrade request required")
    offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if not set(offered) & set(protocols):
        raise ApiError(403, f"none of the protocols {', '.join(offered)} is spoken here")
    socket = web.WebSocketResponse(protocols=protocols)
    await socket.prepare(request)
    return socket


async def _each_input(socket: web.WebSocketResponse, take: Any) -> None:
    """What comes on standard input, until it is closed (v5: a message on channel 255)."""
    async for message in socket:
        data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
        if data[:2] == bytes([_CLOSE, _STDIN]):
            return
        if data[:1] == bytes([_STDIN]):
            await take(data[1:])
