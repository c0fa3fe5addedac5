"""Tunnels: requests that change the protocol (exec, attach, port-forward) go to a cluster byte for byte.

After the cluster's 101 both connections are wired to each other; neither side's protocol is looked into, but for a
watch over WebSocket that is to end between two of its messages.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import cast
from urllib.parse import urlsplit

import h11
from aiohttp import web
from multidict import CIMultiDict

from query.errors import QueryError
from query.http.watch_frames import SocketFrames

# Bytes of an answer that is no upgrade: a Status.
_REFUSAL_LIMIT = 1024 * 1024
# Seconds to wait for the answer to the request for another protocol.
_PATIENCE = 60.0
# A WebSocket's frame that closes it, with the status of a normal end (RFC 6455, 5.5.1 and 7.4.1).
_CLOSE = b"\x88\x02" + (1000).to_bytes(2, "big")


class BrokenTunnel(QueryError):
    """A tunnel to a server cannot be made; one line that says why."""


def wants_upgrade(http: web.BaseRequest) -> bool:
    """Whether a request asks for another protocol on its connection (RFC 9110, 7.8)."""
    tokens = {token.strip().lower() for token in http.headers.get("Connection", "").split(",")}
    return "upgrade" in tokens and bool(http.headers.get("Upgrade"))


class _Side(asyncio.Protocol):
    """One of two connections. What it receives goes to its peer, once it has one; until then it can be read."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()
        self._peer: _Side | None = None
        self._early = bytearray()
        self._arrived = asyncio.Event()
        # Of a side whose messages are to be told apart; set but within one of them.
        self.frames: SocketFrames | None = None
        self.rest = asyncio.Event()
        self.rest.set()

    def join(self, peer: _Side, early: bytes = b"") -> None:
        """From now on everything received goes to `peer`, `early` first."""
        self._peer = peer
        early += bytes(self._early)
        self._early.clear()
        if early:
            self._pass_on(early)
        if self.closed.is_set():
            peer.close()

    async def read(self) -> bytes:
        """What has come by now, at least a byte; b"" at the end."""
        while not self._early and not self.closed.is_set():
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._early)
        self._early.clear()
        return data

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def close(self) -> None:
        """Sends what was written, then ends the connection."""
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._peer is not None:
            self._pass_on(data)
        else:
            self._early += data
            self._arrived.set()

    def _pass_on(self, data: bytes) -> None:
        assert self._peer is not None
        self._peer.write(data)
        if self.frames is not None:
            self.frames.take(data)
            if self.frames.between:
                self.rest.set()
            else:
                self.rest.clear()

    # An end of one direction is the end of both: that is how a client goes, and SPDY and WebSocket know no other one.

    def pause_writing(self) -> None:
        if self._peer is not None and self._peer.transport is not None and not self._peer.transport.is_closing():
            self._peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._peer is not None and self._peer.transport is not None and not self._peer.transport.is_closing():
            self._peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._arrived.set()
        if self._peer is not None:
            self._peer.close()


class _Tunnelled(web.StreamResponse):
    """Stands for an answer that went by: nothing is left to be sent, and the connection is no longer aiohttp's."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def dial_url(url: str, connect: float, protocol: asyncio.Protocol, tls: ssl.SSLContext | None = None) -> None:
    """Connects to the server of a URL, within `connect` seconds; `tls`: how over https, None: as the system has it.

    Raises:
        BrokenTunnel: it cannot be reached.
    """
    place = urlsplit(url)
    secure = place.scheme == "https"
    if place.hostname is None:
        raise BrokenTunnel(f"{url} names no host")
    try:
        async with asyncio.timeout(connect):
            await asyncio.get_running_loop().create_connection(
                lambda: protocol,
                place.hostname,
                place.port or (443 if secure else 80),
                ssl=(tls or True) if secure else None,
            )
    except (OSError, TimeoutError, ssl.SSLError) as cause:
        raise BrokenTunnel(f"cannot be reached: {' '.join(str(cause).split()) or type(cause).__name__}") from None


async def tunnel(
    http: web.BaseRequest,
    url: str,
    headers: CIMultiDict[str],
    dial: Callable[[asyncio.Protocol], Awaitable[None]],
    until: asyncio.Event | None = None,
) -> web.StreamResponse:
    """Sends a request for another protocol on; returns when the tunnel is over, or with the server's refusal.

    `url`: encoded. `headers`: the request's, without those of the connection. `dial`: connects a protocol to the
    server, or raises BrokenTunnel. `until`: of a WebSocket, which is closed once this is set, behind a whole message
    of the server.

    Raises:
        BrokenTunnel: the server cannot be reached, does not answer in time, or its answer cannot be read.
    """
    place = urlsplit(url)
    far = _Side()
    await dial(far)
    try:
        target = place.path + (f"?{place.query}" if place.query else "")
        named = [("Host", place.netloc), *headers.items()]
        named += [("Connection", "Upgrade"), ("Upgrade", http.headers["Upgrade"])]
        if http.method != "GET":
            named.append(("Content-Length", "0"))
        # As aiohttp reads and writes them: names of users need not be ASCII.
        sent = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in named]
        wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=256 * 1024)
        request = h11.Request(method=http.method, target=target, headers=sent)
        far.write((wire.send(request) or b"") + (wire.send(h11.EndOfMessage()) or b""))
        try:
            async with asyncio.timeout(_PATIENCE):
                answer, rest = await _answer(wire, far)
        except TimeoutError:
            raise BrokenTunnel(f"no answer in {_PATIENCE:.0f} s") from None
        except h11.RemoteProtocolError as cause:
            raise BrokenTunnel(f"its answer cannot be read: {cause}") from None
        if isinstance(answer, h11.Response):
            refusal = web.Response(status=answer.status_code, body=rest)
            for name, value in answer.headers:
                if name in (b"content-type", b"warning", b"www-authenticate", b"retry-after"):
                    refusal.headers.add(name.decode(), value.decode("latin-1"))
            return refusal
        return await _wire(http, far, answer, rest, until)
    finally:
        far.close()


async def _end_socket(near: _Side, far: _Side, until: asyncio.Event) -> None:
    """Closes a WebSocket as its server would, once `until` is set, behind a whole message."""
    await until.wait()
    await far.rest.wait()
    near.write(_CLOSE)
    near.close()


async def _answer(wire: h11.Connection, far: _Side) -> tuple[h11.InformationalResponse | h11.Response, bytes]:
    """The 101 with what came behind it, or a refusal with its body."""
    refused: h11.Response | None = None
    body = bytearray()
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await far.read())
        elif isinstance(event, h11.InformationalResponse):
            if event.status_code == 101:
                return event, wire.trailing_data[0]
        elif isinstance(event, h11.Response):
            refused = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _REFUSAL_LIMIT:
                raise BrokenTunnel("its refusal is without end")
        elif refused is not None:
            return refused, bytes(body)
        else:
            raise BrokenTunnel("the connection was closed before an answer came")


async def _wire(
    http: web.BaseRequest,
    far: _Side,
    answer: h11.InformationalResponse,
    early: bytes,
    until: asyncio.Event | None,
) -> web.StreamResponse:
    transport = http.transport
    if transport is None or transport.is_closing():
        return _Tunnelled()
    near = _Side()
    near.connection_made(transport)
    before = transport.get_protocol()
    lines = [b"HTTP/1.1 101 Switching Protocols"]
    lines += [name.title() + b": " + value for name, value in answer.headers]
    transport.set_protocol(near)
    near.write(b"\r\n".join(lines) + b"\r\n\r\n")
    near.join(far)
    ending: asyncio.Task[None] | None = None
    if until is not None:
        far.frames = SocketFrames()
        ending = asyncio.create_task(_end_socket(near, far, until), name="passed-on-socket-until")
    far.join(near, early)
    try:
        await near.closed.wait()
        await far.closed.wait()
    finally:
        if ending is not None:
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)
        near.close()
        # At a shutdown aiohttp would wait for the end of that connection, which it learns when this request is over.
        asyncio.get_running_loop().call_soon(before.connection_lost, None)
    return _Tunnelled()
