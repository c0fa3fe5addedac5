"""Servers that record what they are asked: an API server, plain or with TLS, and an OIDC provider."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.oracle.recorded import IDENTITY, Arrival, Notes
from tests.ports import free_port

VERSION = json.dumps({"major": "1", "minor": "33", "gitVersion": "v1.33.1", "platform": "linux/amd64"}).encode()
# A client that comes after a handshake was refused, or says nothing, is let go.
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One HTTP/1.1 request. `headers`: names in lower case, in the order they came."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """The first value of a header, or nothing."""
        return next((value for found, value in self.headers if found == name), "")

    @property
    def identity(self) -> tuple[tuple[str, str], ...]:
        """The headers that say who asks, in the order of names; values of one name in their order.

        But for what else is known of a user: keys that differ in case alone are one header, in any order with kubectl.
        """
        found = [(name, value) for name, value in self.headers if name.startswith(IDENTITY)]
        return tuple(sorted(found, key=lambda one: one if one[0].startswith("impersonate-extra-") else one[:1]))


async def read_request(reader: asyncio.StreamReader) -> Asked | None:
    """The next request of a connection; None at its end, or if that is no HTTP."""
    first_byte = await reader.read(1)
    if not first_byte.isalpha():
        return None
    try:
        head = (first_byte + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return None
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        return None
    headers = tuple((name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    length = int(next((value for name, value in headers if name == "content-length"), "0"))
    body = await reader.readexactly(length) if length else b""
    return Asked(words[0], words[1], headers, body)


def response(status: int, body: bytes, content_type: str = "application/json", *more: str) -> bytes:
    """An HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join((*lines, "", "")).encode() + body


class NamedSocket(ssl.SSLObject):
    """A TLS connection that knows which server its client named."""

    asked_for: str = ""


def noting_names(context: ssl.SSLContext) -> ssl.SSLContext:
    """The context, whose connections note the server name of their clients."""

    def note(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        if isinstance(connection, NamedSocket):
            connection.asked_for = (name or "").lower()

    context.sslobject_class = NamedSocket
    # typeshed knows SSLSocket alone here; on an event loop there are SSLObjects.
    context.sni_callback = note
    return context


class Listening:
    """A server on a port of its own, whose connections end with it."""

    def __init__(self, name: str, notes: Notes, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.name = name
        self.notes = notes
        self.tls = noting_names(tls) if tls is not None else None
        self.port = 0
        self._host = host
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        # `localhost` is ::1, too: nothing else has this port at 127.0.0.1.
        port = free_port() if self._host == "::1" else 0
        self._server = await asyncio.start_server(self._accept, self._host, port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.notes.name(self.port, self.name)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # Also when it is cancelled: asyncio's streams ask every task of a connection for its exception.
            with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.serve(reader, writer)
                # To who spoke no HTTP: as servers do, so that clients know and do not come again.
                if not writer.is_closing():
                    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection to its end."""
        raise NotImplementedError


def common_name(writer: asyncio.StreamWriter) -> str:
    """The client certificate's common name; empty without one."""
    found = writer.get_extra_info("peercert") or {}
    return ",".join(value for part in found.get("subject", ()) for name, value in part if name == "commonName")


def asked_for(writer: asyncio.StreamWriter) -> str:
    """The server name that the client's handshake asked for; empty without one."""
    found = writer.get_extra_info("ssl_object")
    return found.asked_for if isinstance(found, NamedSocket) else ""


Answering = Callable[[Asked], Awaitable[bytes]]


async def _version(_: Asked) -> bytes:
    return response(200, VERSION)


class Recorder(Listening):
    """An API server that answers every request with its version, and notes it."""

    def __init__(
        self,
        name: str,
        notes: Notes,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        answering: Answering = _version,
    ) -> None:
        super().__init__(name, notes, tls, host)
        self._answering = answering

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        while (asked := await asyncio.wait_for(read_request(reader), _PATIENCE)) is not None:
            self.notes.arrivals.append(
                Arrival(
                    server=self.name,
                    method=asked.method,
                    path=asked.target.partition("?")[0],
                    host=self.notes.named(asked.header("host")),
                    headers=asked.identity,
                    certificate=common_name(writer),
                    server_name=asked_for(writer),
                    way=self.notes.ways.get(port, ""),
                )
            )
            writer.write(await self._answering(asked))
            await writer.drain()


def _segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def id_token(mark: str, expires: float | None = None) -> str:
    """An unsigned JWT: neither kubectl nor we check a signature, the API server does."""
    claims = {"sub": mark} if expires is None else {"sub": mark, "exp": int(expires)}
    return f"{_segment({'alg': 'none'})}.{_segment(claims)}.{mark}"


class Provider(Recorder):
    """An OIDC provider: the discovery document, and tokens for refresh tokens, each of which it takes once.

    A refresh token that begins with `bad` is refused; `plain` in it: the client has to be in the form, not in Basic;
    `kept` in it: the answer brings no new one.
    """

    def __init__(self, name: str, notes: Notes, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(name, notes, tls, answering=self._answer)

    @property
    def issuer(self) -> str:
        """Its URL, as `idp-issuer-url`."""
        return f"{'https' if self.tls is not None else 'http'}://127.0.0.1:{self.port}/issuer"

    async def _answer(self, asked: Asked) -> bytes:
        if asked.target.endswith("/.well-known/openid-configuration"):
            document = {"issuer": self.issuer, "token_endpoint": f"{self.issuer}/token"}
            return response(200, json.dumps(document).encode())
        form = dict(urllib.parse.parse_qsl(asked.body.decode(), keep_blank_values=True))
        token = form.get("refresh_token", "")
        wants_form = "plain" in token and "authorization" in dict(asked.headers)
        if token.startswith("bad") or wants_form or form.get("grant_type") != "refresh_token":
            return response(400, b'{"error": "invalid_grant"}')
        answer = {
            "access_token": "access",
            "token_type": "bearer",
            "expires_in": 300,
            "id_token": id_token(f"renewed-by-{token}", time.time() + 300),
        }
        if "kept" not in token:
            answer["refresh_token"] = f"after-{token}"
        return response(200, json.dumps(answer).encode())
