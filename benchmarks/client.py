"""A client that adds little: HTTP/1.1 over a blocking socket, counting the bytes of an answer, not keeping them."""

from __future__ import annotations

import re
import socket
import time
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


class Client:
    """One connection to a port of this machine, kept from request to request."""

    def __init__(self, port: int, timeout: float = 60.0) -> None:
        self._host = f"127.0.0.1:{port}".encode()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(_BUFFER)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def get(self, path: str, accept: str = "application/json", *, whole: bool = False) -> Answer:
        """The answer to a GET; `seconds` from the request to the body's last byte. Raises OSError."""
        request = b"GET %b HTTP/1.1\r\nHost: %b\r\nAccept: %b\r\n\r\n" % (path.encode(), self._host, accept.encode())
        view = memoryview(self._buffer)
        started = time.perf_counter()
        self._socket.sendall(request)
        head = b""
        while (end := head.find(b"\r\n\r\n")) < 0:
            received = self._socket.recv_into(view)
            if not received:
                raise ConnectionError("the server closed the connection")
            head += view[:received]
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
            tail = rest[-5:]
            # Nowhere in JSON do these bytes stand: a line feed is escaped in its strings.
            while not tail.endswith(b"0\r\n\r\n"):
                size += (received := self._receive(view))
                tail = (tail + bytes(view[max(received - 5, 0) : received]))[-5:]
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
