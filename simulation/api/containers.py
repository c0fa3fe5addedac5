"""Containers: logs, exec, attach, port-forward and proxies, as if pods had processes that answer.

A container knows `cat`, `echo`, `true` and `exit N`; what listens on its ports sends back what it gets. The channels
are those of k8s.io/apimachinery pkg/util/remotecommand (v4 and v5): a message begins with the number of its channel.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import WSMsgType, web

from simulation.api.paths import ResourcePath
from simulation.api.responses import NOT_KEPT, method_not_allowed, require_method
from simulation.registry import Registry
from simulation.status import StatusError, bad_request

__all__ = ["CONVERSATIONS", "converse", "read_log"]

# The subresources that `converse` answers.
CONVERSATIONS = ("attach", "exec", "portforward", "proxy")

_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE = range(5)
_CLOSE = 255
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
# Seconds between two lines of a log that is followed.
_LINE_EVERY = 0.2


async def converse(registry: Registry, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
    """Answer attach, exec and portforward by WebSocket, and proxy by HTTP.

    Raises:
        StatusError: 400 (no WebSocket, or no command or ports), 403 (no protocol in common), 404 or 405.
    """
    name = path.name
    if path.subresource == "proxy":
        # [scheme:]name[:port]
        parts = name.split(":")
        name = parts[1] if len(parts) == 3 else parts[0]
    registry.get(path.type, path.namespace, name)
    if path.subresource == "proxy":
        slash = "/" if path.beyond and request.rel_url.raw_path.endswith("/") else ""
        return await _echo_request(request, f"/{path.beyond}{slash}")
    if request.method not in ("GET", "POST"):
        raise method_not_allowed()
    if path.subresource == "portforward":
        return await _forward_ports(request)
    command = request.query.getall("command", []) if path.subresource == "exec" else []
    if path.subresource == "exec" and not command:
        raise bad_request("you must specify at least 1 command for the container")
    return await _run_command(request, command)


async def read_log(registry: Registry, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
    """Answer with a log of a few lines, or with `follow` one that goes on until the client has enough.

    Raises:
        StatusError: 400 (no such container, or it has not started), 404 or 405.
    """
    require_method(request, "GET")
    stored = registry.get(path.type, path.namespace, path.name)
    body = stored.body()
    listed = body.get("spec", {}).get("containers")
    entries = listed if isinstance(listed, list) else []
    containers = [entry.get("name", "") for entry in entries if isinstance(entry, dict)]
    wanted = request.query.get("container") or (containers[0] if containers else "")
    if wanted not in containers:
        raise bad_request(f"container {wanted} is not valid for pod {path.name}")
    if stored.fields.get("status.phase") == "Pending":
        raise bad_request(f'container "{wanted}" in pod "{path.name}" is waiting to start: ContainerCreating')
    statuses = body.get("status", {}).get("containerStatuses") or ()
    restarted = any(one.get("name") == wanted and one.get("restartCount") for one in statuses)
    if request.query.get("previous") in ("1", "true") and not restarted:
        raise bad_request(f'previous terminated container "{wanted}" in pod "{path.name}" not found')
    lines = [
        f'level=info msg="starting" container={wanted} pod={path.name}',
        f'level=info msg="configuration loaded" namespace={path.namespace}',
        'level=info msg="listening" address=0.0.0.0:8080',
        'level=info msg="request" method=GET path=/healthz status=200 duration=0.4ms',
    ]
    tail = request.query.get("tailLines", "")
    if tail.isascii() and tail.isdecimal() and len(tail) < 10:
        lines = lines[-int(tail) :] if int(tail) else []
    if request.query.get("follow") in ("1", "true"):
        return await _follow_log(request, lines)
    return web.Response(text="".join(f"{line}\n" for line in lines))


async def _run_command(request: web.BaseRequest, command: Sequence[str]) -> web.StreamResponse:
    """exec, or attach without a command: run it with the channels that the query asks for."""
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


async def _forward_ports(request: web.BaseRequest) -> web.StreamResponse:
    """portforward: for each port a channel of data and one of errors, each opened by the port's number."""
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


async def _follow_log(request: web.BaseRequest, lines: Sequence[str]) -> web.StreamResponse:
    """A log that goes on until the client has left."""
    response = web.StreamResponse(headers={"Cache-Control": NOT_KEPT})
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


async def _echo_request(request: web.BaseRequest, path: str) -> web.StreamResponse:
    """What is behind the proxy subresource: answers with the request that it got."""
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
        raise StatusError(403, f"none of the protocols {', '.join(offered)} is spoken here")
    socket = web.WebSocketResponse(protocols=protocols)
    await socket.prepare(request)
    return socket


async def _each_input(socket: web.WebSocketResponse, take: Callable[[bytes], Awaitable[None]]) -> None:
    """What comes on standard input, until it is closed (v5: a message on channel 255)."""
    async for message in socket:
        data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
        if data[:2] == bytes([_CLOSE, _STDIN]):
            return
        if data[:1] == bytes([_STDIN]):
            await take(data[1:])
