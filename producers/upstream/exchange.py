"""One request and its answer, as libcurl's callbacks bring it: head, then a body whose reader sets the pace."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from http import HTTPStatus

import pycurl
from multidict import CIMultiDict

from producers.errors import ClusterUnavailable
from producers.upstream.liveness import ConnectionName, ServerConnection
from producers.upstream.multi import Multi

# Bytes of an answer that wait for their reader until the server is held back; the same of a body that is sent.
_WAITING = 256 * 1024
# What may be sent twice, where a connection turns out to be closed (RFC 9110, 9.2.1).
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
# Headers that libcurl would add by itself.
_OF_LIBCURL = ("accept", "user-agent", "expect", "content-type")
# As in: SSL certificate OpenSSL verify result: unable to get local issuer certificate (20)
_VERIFIED = re.compile(r"(?:verify result|certificate problem): (.*?)(?: \(\d+\))?$")
# Times and numbers of streams, without which the same failure has the same text.
_VARYING = re.compile(r" after \d+ (?:ms|milliseconds)|(?<=stream) \d+|(?<=with) \d+(?= bytes)")


_NO_HEADERS: CIMultiDict[str] = CIMultiDict()
_NO_SOCKETS: Sequence[int] = ()
# Of an answer whose head has come: nothing is put in.
_NO_LINES: list[bytes] = []


class TransportError(ClusterUnavailable):
    """There is no answer, or it breaks off: whether the server did what was asked is unknown."""


class SilentServer(TransportError):
    """It was sent, and for so long not a byte came."""


class NotConnected(TransportError):
    """No connection came about: the server has seen nothing of the request."""


class Response:
    """The answer to one request. Its body is read once, by `next_chunk`, `chunks` or `read`.

    Who does not read holds the server back, and only this stream: 256 KiB wait here, and what libcurl had let come.
    """

    __slots__ = (
        "_broke_off", "_chunks", "_connecting", "_curl", "_error", "_head", "_last_byte", "_lines", "_loop",
        "_multi", "_on_sent", "_paused", "_repeatable", "_sent", "_silence", "_silence_timer", "_size", "_upload",
        "_waiter", "_whole", "connection", "headers", "reason", "sockets", "status", "version",
    )  # fmt: skip

    def __init__(
        self,
        multi: Multi,
        curl: pycurl.Curl,
        method: str,
        silence: float | None,
        on_sent: Callable[[ConnectionName], ServerConnection],
    ) -> None:
        self.status = 0
        self.reason = ""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.version = ""
        # Sockets that were made for it: one for each address that is tried.
        self.sockets: Sequence[int] = _NO_SOCKETS
        self._loop = asyncio.get_running_loop()
        self._multi = multi
        self._curl = curl
        self._repeatable = method in SAFE_METHODS
        # Called once, when it gets onto a connection.
        self._on_sent: Callable[[ConnectionName], ServerConnection] | None = on_sent
        # The one that it is on, once it is.
        self.connection: ServerConnection | None = None
        self._sent = False
        self._lines: list[bytes] = []
        self._head = False
        self._chunks: list[bytes] = []
        self._size = 0
        self._paused = False
        self._whole = False
        self._broke_off = False
        self._error: TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._upload: Upload | None = None
        self._silence = silence
        self._silence_timer: asyncio.TimerHandle | None = None
        self._connecting: asyncio.TimerHandle | None = None
        self._last_byte = 0.0

    @property
    def sent(self) -> bool:
        """Whether it got onto a connection."""
        return self._sent

    @property
    def broke_off_unanswered(self) -> bool:
        """Whether the connection ended before a byte of an answer came."""
        return self._sent and self._broke_off and not self._head and not self._lines

    # -- reading -------------------------------------------------------------------------------------------------------

    async def next_chunk(self) -> bytes:
        """What has come by now, at least a byte; empty at the end of the body. Raises TransportError."""
        while (chunk := self.take()) is None:
            await self.coming()
        return chunk

    def take(self) -> bytes | None:
        """What has come by now, None if nothing has; empty at the end of the body. Raises TransportError."""
        if not self._chunks:
            if self._error is not None:
                raise self._error
            return b"" if self._whole else None
        chunks, self._chunks, self._size = self._chunks, [], 0
        if self._paused:
            self._paused = False
            self.resume()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def coming(self) -> asyncio.Future[None]:
        """Done once there is something to take, maybe at once; for one reader, which awaits it before it asks again.

        No coroutine, as of what waits for the next bytes of an idle watch there is very much.
        """
        waiter = self._waiter = self._loop.create_future()
        self._last_byte = self._loop.time()
        if self._silence is not None and self._silence_timer is None and self._sent:
            self._silence_timer = self._loop.call_later(self._silence, self._look_for_silence)
        if self._chunks or self._whole or self._error is not None:
            # It came since the last `take`, or by it: libcurl gives what it held back as soon as it may.
            self.wake()
        return waiter

    def wake(self) -> None:
        """Has who waits for more look again."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces, as many bytes in each as have come by then. Raises TransportError."""
        while True:
            chunk = await self.next_chunk()
            if not chunk:
                return
            yield chunk
            # Not held while the next one is waited for, which takes minutes in a watch that is idle.
            del chunk

    async def read(self, limit: int | None = None) -> bytes:
        """The whole body, or the first `limit` bytes of it. Raises TransportError."""
        found: list[bytes] = []
        size = 0
        while limit is None or size < limit:
            chunk = await self.next_chunk()
            if not chunk:
                break
            found.append(chunk)
            size += len(chunk)
        body = found[0] if len(found) == 1 else b"".join(found)
        return body if limit is None else body[:limit]

    def lasts(self) -> None:
        """It goes on for long, as a watch does: its reader is patient from now on, and has seen the head.

        What is kept for each of very many is what such a one needs no more: a timer, the head's lines, what was sent.
        """
        self._silence = None
        if self._silence_timer is not None:
            self._silence_timer.cancel()
            self._silence_timer = None
        self.headers = _NO_HEADERS
        self.sockets = _NO_SOCKETS
        self._lines = _NO_LINES
        self.reason = self.version = ""
        if self._curl in self._multi:
            # It is sent, and not sent again once an answer has begun.
            for option in (pycurl.HTTPHEADER, pycurl.SOCKOPTFUNCTION, pycurl.PREREQFUNCTION, pycurl.HEADERFUNCTION):
                self._curl.unsetopt(option)

    def _look_for_silence(self) -> None:
        """One timer for all waits: it looks at when the last byte came, and is set anew."""
        self._silence_timer = None
        if self._silence is None or self._waiter is None or self._waiter.done():
            return
        left = self._last_byte + self._silence - self._loop.time()
        if left > 0:
            self._silence_timer = self._loop.call_later(left, self._look_for_silence)
        else:
            self.fail(SilentServer(f"nothing came for {self._silence:g} s"))

    # -- its life, for the transport -----------------------------------------------------------------------------------

    async def begin(self, dial: float, handshake: float) -> None:
        """Starts it, its handle being set up, and waits for the head of the answer.

        Raises:
            NotConnected: none came about within `dial` seconds, or could be used within `handshake` more.
            TransportError: no answer came.
        """
        self._curl.setopt(pycurl.HEADERFUNCTION, self._take_header)
        self._curl.setopt(pycurl.WRITEFUNCTION, self._take)
        self._curl.setopt(pycurl.PREREQFUNCTION, self._connected)
        self._multi.add(self._curl, self._ended)
        self._watch_connecting(self._loop.time(), None, dial, handshake)
        if self._upload is not None:
            self._upload.begin(self)
        while not self._head:
            if self._error is not None:
                raise self._error
            await self.coming()

    async def connect(self, dial: float, handshake: float) -> None:
        """Makes nothing but a connection; the handle holds it. Raises NotConnected."""
        self._multi.add(self._curl, self._connected_only, hold=True)
        self._watch_connecting(self._loop.time(), None, dial, handshake)
        while not self._whole:
            if self._error is not None:
                raise self._error
            await self.coming()

    def _connected_only(self, code: int, text: str) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if code:
            self._error = NotConnected(self._reason(code, text))
        else:
            self._whole = True
        self.wake()

    def _watch_connecting(self, began: float, accepted: float | None, dial: float, handshake: float) -> None:
        """Ends it where a connection is not accepted, or accepted and then silent; libcurl has one limit for both."""
        self._connecting = None
        now = self._loop.time()
        if accepted is None and any(map(is_accepted, self.sockets)):
            accepted = now
        if accepted is not None and now - accepted >= handshake:
            self.fail(NotConnected(f"no TLS handshake within {handshake:g} s"))
        elif accepted is None and now - began >= dial + handshake:
            self.fail(NotConnected(f"no connection within {dial:g} s"))
        else:
            again = (began, accepted, dial, handshake)
            self._connecting = self._loop.call_later(handshake / 4, self._watch_connecting, *again)

    def send(self, body: AsyncIterator[bytes], length: int | None) -> None:
        """Sends a body in pieces as they come; before `begin`."""
        self._upload = Upload(body)
        self._curl.setopt(pycurl.UPLOAD, 1)
        self._curl.setopt(pycurl.READFUNCTION, self._upload.take)
        self._curl.setopt(pycurl.INFILESIZE_LARGE, -1 if length is None else length)

    def resume(self) -> None:
        """Lets libcurl go on in those directions in which nothing holds it back."""
        if self._curl in self._multi:
            resting = pycurl.PAUSE_RECV if self._paused else 0
            if self._upload is not None and self._upload.waits:
                resting |= pycurl.PAUSE_SEND
            self._multi.pause(self._curl, resting)

    def fail(self, error: TransportError) -> None:
        """Ends it with an error, behind what has come."""
        if not self._whole and self._error is None:
            self._error = error
            self._multi.remove(self._curl)
            self.wake()

    async def end(self) -> None:
        """Ends it, whatever is still to come."""
        self._multi.remove(self._curl)
        for timer in (self._silence_timer, self._connecting):
            if timer is not None:
                timer.cancel()
        self._silence_timer = self._connecting = None
        if self._error is None and not self._whole:
            self._error = TransportError("the block of the request is over")
        self._chunks.clear()
        if self._upload is not None:
            await self._upload.end()

    # -- what libcurl calls --------------------------------------------------------------------------------------------

    def _connected(self, *ends: *ConnectionName) -> int:
        """`ends`: the addresses of the peer and of ours, their ports."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._sent:
            # The connection was closed under it, and libcurl takes another one.
            return int(pycurl.PREREQFUNC_OK if self._repeatable else pycurl.PREREQFUNC_ABORT)
        self._sent = True
        self._last_byte = self._loop.time()
        if self._silence is not None and self._silence_timer is None:
            self._silence_timer = self._loop.call_later(self._silence, self._look_for_silence)
        if self._on_sent is not None:
            self.connection, self._on_sent = self._on_sent(ends), None
        return int(pycurl.PREREQFUNC_OK)

    def _heard(self) -> None:
        self._last_byte = self._loop.time()
        if self.connection is not None:
            self.connection.heard = self._last_byte

    def _take_header(self, line: bytes) -> None:
        self._heard()
        if self._head:
            # A trailer.
            return
        if line.startswith(b"HTTP/"):
            self._lines = [line]
        elif line.strip():
            self._lines.append(line)
        elif self._sent and self._lines:
            # What a proxy says to CONNECT came before it was sent.
            self._take_head(*self._lines)

    def _take_head(self, status_line: bytes, *lines: bytes) -> None:
        version, _, rest = status_line.decode("latin-1").strip().partition(" ")
        code, _, reason = rest.partition(" ")
        self.status = int(code) if code.isdecimal() else 0
        if 100 <= self.status < 200:
            return
        self.version = version.removeprefix("HTTP/")
        self.reason = reason.strip() or _phrase(self.status)
        for line in lines:
            name, colon, value = line.decode("utf-8", "surrogateescape").partition(":")
            if colon:
                self.headers.add(name.strip(), value.strip())
        self._lines = []
        self._head = True
        self.wake()

    def _take(self, data: bytes) -> int | None:
        if self._size >= _WAITING:
            self._paused = True
            return int(pycurl.WRITEFUNC_PAUSE)
        self._chunks.append(data)
        self._size += len(data)
        self._heard()
        self.wake()
        return None

    def _ended(self, code: int, text: str) -> None:
        if code == 0 and self._head:
            self._whole = True
        elif self.connection is not None and self.connection.cut:
            self._error = TransportError(self.connection.cut)
        elif code == pycurl.E_ABORTED_BY_CALLBACK:
            # `_connected` did.
            self._error = TransportError("the connection was closed before an answer came")
        else:
            self._broke_off = True
            kind = TransportError if self._sent else NotConnected
            self._error = kind(self._reason(code, text) if code else "no answer")
        self.wake()

    def _reason(self, code: int, text: str) -> str:
        return _reason(code, text, self._curl.getinfo(pycurl.OS_ERRNO))


class Upload:
    """A request's body that comes in pieces: read ahead by at most 256 KiB, and sent as the server takes it."""

    __slots__ = ("_chunks", "_done", "_response", "_room", "_size", "_source", "_task", "waits")

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self.waits = False
        self._source = source
        self._chunks: deque[memoryview] = deque()
        self._size = 0
        self._done = False
        self._room = asyncio.Event()
        self._response: Response | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, response: Response) -> None:
        """Starts reading."""
        self._response = response
        self._task = asyncio.create_task(self._read(response), name="request-body")

    async def end(self) -> None:
        """Ends reading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _read(self, response: Response) -> None:
        try:
            async for chunk in self._source:
                if not chunk:
                    continue
                self._chunks.append(memoryview(chunk))
                self._size += len(chunk)
                self._go_on(response)
                while self._size >= _WAITING:
                    self._room.clear()
                    await self._room.wait()
        except Exception as cause:  # noqa: BLE001 - whatever its source fails with ends the request
            response.fail(TransportError(f"the request's body broke off: {' '.join(str(cause).split())}"))
            return
        self._done = True
        self._go_on(response)

    def _go_on(self, response: Response) -> None:
        if self.waits:
            self.waits = False
            response.resume()

    def take(self, size: int) -> bytes | int:
        """At most `size` bytes for libcurl, empty at the end, or that none are there yet."""
        if not self._chunks:
            if self._done:
                return b""
            self.waits = True
            return int(pycurl.READFUNC_PAUSE)
        first = self._chunks.popleft()
        if len(first) > size:
            self._chunks.appendleft(first[size:])
            first = first[:size]
        self._size -= len(first)
        if self._size < _WAITING:
            self._room.set()
        return bytes(first)


def is_accepted(fd: int) -> bool:
    """Whether a socket of libcurl's is connected by now."""
    try:
        connection = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        connection.getpeername()
    except OSError:
        return False
    finally:
        connection.detach()
    return True


def header_lines(headers: Sequence[tuple[str, str]]) -> list[bytes]:
    """Headers as libcurl takes them, and none of those that it would add by itself.

    Raises:
        NotConnected: one of them cannot be sent; without its value, which may be a secret.
    """
    lines = []
    names = set()
    for name, value in headers:
        if not name or not _TOKEN.issuperset(name):
            raise NotConnected("a header's name has characters that cannot be sent")
        if any((character < " " and character != "\t") or character == "\x7f" for character in value):
            raise NotConnected(f"the header {name} has control characters")
        names.add(name.lower())
        text = f"{name}: {value}" if value else f"{name};"
        lines.append(text.encode("utf-8", "surrogateescape"))
    lines += [f"{name}:".encode() for name in _OF_LIBCURL if name not in names]
    return lines


def _reason(code: int, text: str, error: int) -> str:
    """What libcurl says, in the words in which operators know it, the same each time that it happens."""
    said = _VARYING.sub("", " ".join(text.split())) or f"libcurl's error {code}"
    if code == pycurl.E_PEER_FAILED_VERIFICATION:
        found = _VERIFIED.search(said)
        return f"certificate verify failed: {found[1] if found else said}"
    if code == pycurl.E_COULDNT_CONNECT and error:
        return f"{said.removesuffix(': Could not connect to server')}: {os.strerror(error)}"
    return said


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
