"""Passing through: a request is sent on to another server, whose answer goes back to the client as it comes.

Headers of one connection stay on it (RFC 9110 7.6.1), bodies are streamed in both directions, requests for another
protocol (exec, attach, port-forward) become tunnels. Who is asked, and what an error means, is the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, MultiMapping
from yarl import URL

from query.errors import QueryError
from query.http.status import ApiError
from query.http.tunnels import dial_url, tunnel
from query.http.watch_frames import LengthFrames, LineFrames, frames_of
from query.http.websocket import BEARER_PROTOCOL

# Headers of one connection (RFC 9110 7.6.1), and those that this side sets itself.
_OF_CONNECTION = frozenset(
    {
        "connection",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Headers by which a proxy with a client certificate says who asks, and those by which callers themselves do.
_OF_FRONT_PROXIES = "x-remote-"
_OF_CALLERS = ("authorization", "cookie", "impersonate-")
# A line of an answer's head, in bytes: an instance's warnings may be long.
_LONGEST_LINE = 256 * 1024


class HeaderNames(NamedTuple):
    """Names of headers, in lower case: `exact` ones, and what others begin with."""

    exact: frozenset[str] = frozenset()
    beginnings: tuple[str, ...] = ()


class PassThroughError(QueryError):
    """A request could not be passed through; one line that says why."""


class UpstreamUnreachable(PassThroughError):
    """No connection to the server: nothing of the request was sent."""


class NoAnswer(PassThroughError):
    """The server broke off before it answered: whether it did what was asked is unknown."""


class BrokenAnswer(PassThroughError):
    """The server broke off within its answer."""


class UpstreamAnswer(Protocol):
    """A server's answer whose head has come. Its body is read once, and holds the server back while it is not."""

    @property
    def status(self) -> int:
        """The status code."""
        ...

    @property
    def reason(self) -> str | None:
        """The phrase beside it."""
        ...

    @property
    def headers(self) -> MultiMapping[str]:
        """Its headers, those of its connection among them."""
        ...

    async def next_chunk(self) -> bytes:
        """What has come of the body by now, at least a byte, as it came; empty at its end.

        Raises:
            BrokenAnswer: the server broke off in it.
        """
        ...


class UpstreamWay(Protocol):
    """How a server is reached that is not simply asked at its URL: with TLS of its own, over proxies."""

    def request(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes | AsyncIterator[bytes] | None
    ) -> contextlib.AbstractAsyncContextManager[UpstreamAnswer]:
        """Sends a request; the block has the answer. `path` with its query, encoded, below the upstream's URL.

        Raises:
            UpstreamUnreachable: nothing was sent.
            NoAnswer: the server broke off.
        """
        ...

    async def connect(self, protocol: asyncio.Protocol) -> None:
        """Makes a connection for another protocol than HTTP.

        Raises:
            BrokenTunnel: none came about.
        """
        ...


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a server is, and as whom to speak to it.

    `url` without a slash at its end. `identity`: headers that say who asks, instead of all of the caller's that do;
    None: the caller's are passed on. `way`: how it is reached; None: at its URL, over https with `tls`, None: as the
    system has it.
    """

    url: str
    identity: Sequence[tuple[str, str]] | None = None
    way: UpstreamWay | None = None
    tls: ssl.SSLContext | None = None


class _AskedAtUrl:
    """An answer of a server that was asked at its URL."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.reason = answer.reason
        self.headers = answer.headers

    async def next_chunk(self) -> bytes:
        try:
            return await self._answer.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError) as cause:
            raise BrokenAnswer(one_line(cause)) from None


class PassThrough:
    """Connections to other servers, and requests that are sent over them. Close it at the end.

    `connect`: seconds within which a connection must be made.
    """

    def __init__(self, connect: float) -> None:
        self._connect = connect
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Ends all connections."""
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The HTTP client, which hands answers on as they are: not decompressed, without cookies of its own."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect),
                max_line_size=_LONGEST_LINE,
                max_field_size=_LONGEST_LINE,
            )
        return self._session

    @contextlib.asynccontextmanager
    async def exchange(
        self,
        http: web.Request,
        upstream: Upstream,
        path: str,
        headers: CIMultiDict[str],
        body: bytes | aiohttp.StreamReader | None,
    ) -> AsyncIterator[UpstreamAnswer]:
        """Sends a request on; the block has the answer, whose body is still to be read.

        `path` with its query, encoded; `headers` as `request_headers` has them; `body`: None, the whole of it, or
        `http.content` to be streamed.

        Raises:
            UpstreamUnreachable: nothing was sent.
            NoAnswer: the server broke off.
        """
        if body is http.content and "Content-Length" in http.headers:
            headers["Content-Length"] = http.headers["Content-Length"]
        async with self._sent(http.method, upstream, path, headers, body) as answer:
            yield answer

    def get(
        self, upstream: Upstream, path: str, headers: CIMultiDict[str]
    ) -> contextlib.AbstractAsyncContextManager[UpstreamAnswer]:
        """Reads something of our own accord, beside what a client asked for; as `exchange` otherwise."""
        return self._sent("GET", upstream, path, headers, None)

    @contextlib.asynccontextmanager
    async def _sent(
        self,
        method: str,
        upstream: Upstream,
        path: str,
        headers: CIMultiDict[str],
        body: bytes | aiohttp.StreamReader | None,
    ) -> AsyncIterator[UpstreamAnswer]:
        if upstream.way is not None:
            pieces = body.iter_any() if isinstance(body, aiohttp.StreamReader) else body
            async with upstream.way.request(method, path, list(headers.items()), pieces) as answer:
                yield answer
            return
        try:
            response = await self.session.request(
                method,
                URL(f"{upstream.url}{path}", encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Content-Type", "Accept-Encoding"),
                ssl=upstream.tls or True,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as cause:
            raise UpstreamUnreachable(one_line(cause)) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as cause:
            raise NoAnswer(one_line(cause)) from None
        async with response:
            yield _AskedAtUrl(response)

    async def tunnel(
        self,
        http: web.Request,
        upstream: Upstream,
        path: str,
        headers: CIMultiDict[str],
        until: asyncio.Event | None = None,
    ) -> web.StreamResponse:
        """Passes a request for another protocol through, and then all bytes in both directions, until both end.

        `until`: as for `tunnel`.

        Raises:
            BrokenTunnel: the server cannot be reached, or its answer cannot be read.
        """
        url = f"{upstream.url}{path}"
        dial = partial(dial_url, url, self._connect, tls=upstream.tls) if upstream.way is None else upstream.way.connect
        return await tunnel(http, url, headers, dial, until)


def request_headers(http: web.BaseRequest) -> CIMultiDict[str]:
    """A request's headers as they are sent on, without those of its connection and of its body's length."""
    dropped = _of_connection(http.headers.getall("Connection", ())) | {"content-length"}
    return CIMultiDict((name, value) for name, value in http.headers.items() if name.lower() not in dropped)


def identified(
    headers: CIMultiDict[str],
    upstream: Upstream,
    consumed: HeaderNames = HeaderNames(),  # noqa: B008 - a frozen value
) -> CIMultiDict[str]:
    """Headers of a request, with those that say who asks as the upstream wants them.

    `consumed`: those by which a front proxy says here who asks. They go no further, whatever the upstream wants: a
    cluster may believe them over our connection.
    """
    beginnings = (_OF_FRONT_PROXIES, *consumed.beginnings)
    if upstream.identity is not None:
        beginnings += _OF_CALLERS
    kept = CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if (lowered := name.lower()) not in consumed.exact and not lowered.startswith(beginnings)
    )
    if upstream.identity is not None and (offered := kept.getall("Sec-WebSocket-Protocol", ())):
        # A token that a page's WebSocket brought is the caller's, too.
        named = [one.strip() for text in offered for one in text.split(",")]
        del kept["Sec-WebSocket-Protocol"]
        if others := [one for one in named if not one.startswith(BEARER_PROTOCOL)]:
            kept["Sec-WebSocket-Protocol"] = ", ".join(others)
    kept.extend(upstream.identity or ())
    return kept


async def read_body(http: web.BaseRequest) -> bytes:
    """A request's body, of at most the server's limit.

    Raises:
        ApiError: 413, it is larger; 400, it cannot be read.
    """
    refuse_large_body(http)
    try:
        return await http.read()
    except web.HTTPRequestEntityTooLarge:
        raise body_too_large(http) from None
    except (web.RequestPayloadError, HttpProcessingError) as cause:
        raise ApiError(400, f"the body cannot be read: {one_line(cause)}") from None


def refuse_large_body(http: web.BaseRequest) -> None:
    """Refuses a body that says by its length that it is larger than the limit, before anything of it is read.

    Raises:
        ApiError: 413.
    """
    length = http.content_length
    if length is not None and http.client_max_size and length > http.client_max_size:
        raise body_too_large(http)


def body_too_large(http: web.BaseRequest) -> ApiError:
    """413 in a kube-apiserver's words (apimachinery pkg/api/errors: NewRequestEntityTooLargeError)."""
    return ApiError(413, f"Request entity too large: limit is {http.client_max_size}")


async def read_answer(answer: UpstreamAnswer) -> bytes:
    """The whole body of an answer.

    Raises:
        BrokenAnswer: the server broke off in it.
    """
    chunks = []
    while chunk := await answer.next_chunk():
        chunks.append(chunk)
    return b"".join(chunks)


def content_length(answer: UpstreamAnswer) -> int:
    """How long the body is, as far as the answer says; else 0."""
    said = answer.headers.get("Content-Length", "")
    return int(said) if said.isdecimal() else 0


def begin_response(answer: UpstreamAnswer) -> web.StreamResponse:
    """A response with the status and headers of an answer, but for those of its connection."""
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    dropped = _of_connection(answer.headers.getall("Connection", ()))
    for name, value in answer.headers.items():
        if name.lower() not in dropped:
            response.headers.add(name, value)
    return response


async def stream_response(
    http: web.Request,
    answer: UpstreamAnswer,
    response: web.StreamResponse,
    until: asyncio.Event | None = None,
) -> None:
    """Sends a response with the body of an answer, piece by piece as it comes.

    `until`: ends the stream of a watch once this is set, behind a whole event.

    Raises:
        BrokenAnswer: the server broke off; the client's connection was closed, so that it notices.
    """
    await response.prepare(http)
    content_type = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    frames = None if until is None or "Content-Encoding" in answer.headers else frames_of(content_type)
    try:
        if until is None or frames is None:
            while chunk := await answer.next_chunk():
                await response.write(chunk)
        else:
            await _stream_events(answer, response, frames, until)
    except BrokenAnswer:
        break_off(http)
        raise
    await response.write_eof()


async def _stream_events(
    answer: UpstreamAnswer,
    response: web.StreamResponse,
    frames: LineFrames | LengthFrames,
    until: asyncio.Event,
) -> None:
    ended = asyncio.create_task(until.wait(), name="passed-on-watch-until")
    reading: asyncio.Task[bytes] | None = None
    try:
        while not (until.is_set() and frames.between):
            reading = asyncio.create_task(answer.next_chunk(), name="passed-on-watch-reading")
            waited = (reading, ended) if frames.between else (reading,)
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                # What comes now was not taken; the connection is closed.
                return
            chunk = reading.result()
            if not chunk:
                return
            frames.take(chunk)
            await response.write(chunk)
    finally:
        for task in (ended, reading):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in (ended, reading) if task is not None), return_exceptions=True)


def break_off(http: web.BaseRequest) -> None:
    """Closes a connection within an answer: without a proper end, the client knows that something is missing."""
    if http.transport is not None:
        http.transport.close()


def one_line(cause: BaseException) -> str:
    """An error's text, or its type where it has none."""
    return " ".join(str(cause).split()) or type(cause).__name__


def _of_connection(named: Iterable[str]) -> frozenset[str]:
    """Names of the headers that are of one connection only; `named`: its Connection headers, which name more."""
    return _OF_CONNECTION.union(name.strip().lower() for value in named for name in value.split(","))
