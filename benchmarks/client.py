"""A client that adds little: HTTP/1.1 over a blocking socket, counting the bytes of an answer, not keeping them."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Mapping
from types import TracebackType
from typing import NamedTuple, Self

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"

_BUFFER = 1 << 20
# What is kept of a body that is not asked for whole: enough for a list's metadata.
_KEPT = 2048
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)


class Answer(NamedTuple):
    """`size` is the body's, with the framing of its chunks if it has them; `body` its beginning, or all of it."""

    status: int
    size: int
    seconds: float
    body: bytes


class _Chunks:
    """Finds the end of a chunked body as its bytes go by, without keeping them (RFC 9112, 7.1)."""

    def __init__(self) -> None:
        self._left = 0
        self._line = bytearray()
        self._body = True

    def over(self, data: memoryview) -> bool:
        """Whether the body ends with `data`, its next bytes."""
        at = 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                self._left -= taken
                at += taken
                continue
            self._line.append(data[at])
            at += 1
            if not self._line.endswith(b"\r\n"):
                continue
            line, self._line = bytes(self._line[:-2]), bytearray()
            if not self._body:
                if not line:
                    return True
            elif line:
                # The line feed behind a chunk is a line of its own, an empty one.
                self._left = int(line.partition(b";")[0], 16)
                self._body = self._left > 0
        return False


class Client:
    """One connection to a port of this machine, or to a server elsewhere, kept from request to request."""

    def __init__(
        self,
        port: int,
        timeout: float = 60.0,
        *,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        lines = {"Host": f"{host}:{port}", **(headers or {})}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode()
        self._socket = socket.create_connection((host, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname=host)
        self._buffer = bytearray(_BUFFER)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def get(
        self, path: str, accept: str = "application/json", *, whole: bool = False, encoding: str = "identity"
    ) -> Answer:
        """The answer to a GET; `seconds` from the request to the body's last byte. Raises OSError.

        A body in gzip is counted as it comes.
        """
        request = b"GET %b HTTP/1.1\r\nAccept: %b\r\nAccept-Encoding: %b\r\n%b\r\n" % (
            *(path.encode(), accept.encode(), encoding.encode()),
            self._head,
        )
        view = memoryview(self._buffer)
        started = time.perf_counter()
        self._socket.sendall(request)
        head = b""
        while (end := head.find(b"\r\n\r\n")) < 0:
            head += view[: self._receive(view)]
        head, rest = head[:end], head[end + 4 :]
        length = _LENGTH.search(head)
        size, kept = len(rest), [rest]
        keeping = len(rest)
        if length is not None:
            due = int(length.group(1))
            while size < due:
                size += (received := self._receive(view))
                if whole or keeping < _KEPT:
                    kept.append(bytes(view[:received]))
                    keeping += received
        elif _CHUNKED.search(head):
            chunks = _Chunks()
            over = chunks.over(memoryview(rest))
            while not over:
                size += (received := self._receive(view))
                over = chunks.over(view[:received])
                if whole or keeping < _KEPT:
                    kept.append(bytes(view[:received]))
                    keeping += received
        seconds = time.perf_counter() - started
        body = b"".join(kept)
        return Answer(int(head.split(b" ", 2)[1]), size, seconds, body if whole else body[:_KEPT])

    def _receive(self, view: memoryview) -> int:
        received = self._socket.recv_into(view)
        if not received:
            raise ConnectionError("the server closed the connection")
        return received


def get(port: int, path: str, accept: str = "application/json", *, whole: bool = False) -> Answer:
    """A GET over a connection of its own. Raises OSError."""
    with Client(port) as client:
        return client.get(path, accept, whole=whole)
