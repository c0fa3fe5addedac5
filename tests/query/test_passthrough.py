"""Passing through: headers, bodies and errors of a request that another server answers, over real connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import ClientPayloadError, ClientSession, web
from aiohttp.test_utils import TestServer, unused_port
from multidict import CIMultiDict

from query.http.passthrough import (
    BrokenAnswer,
    NoAnswer,
    PassThrough,
    Upstream,
    UpstreamUnreachable,
    begin_response,
    identified,
    request_headers,
    stream_response,
)
from tests.patience import PATIENCE

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Chain:
    """A client's session, and a server that passes everything on to another one; `errors` are what that met with."""

    def __init__(self, session: ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.errors: list[Exception] = []


@pytest.fixture
async def chain() -> AsyncIterator[Callable[..., Awaitable[Chain]]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(far: Handler | None) -> Chain:
            upstream = f"http://127.0.0.1:{unused_port()}"
            if far is not None:
                application = web.Application()
                application.router.add_route("*", "/{path:.*}", far)
                server = await stack.enter_async_context(TestServer(application))
                upstream = str(server.make_url("")).rstrip("/")
            passing = PassThrough(5.0)
            stack.push_async_callback(passing.close)

            async def near(http: web.Request) -> web.StreamResponse:
                body = http.content if http.can_read_body else None
                path, headers = http.rel_url.raw_path_qs, request_headers(http)
                response: web.StreamResponse = web.Response(status=502)
                try:
                    async with passing.exchange(http, Upstream(upstream), path, headers, body) as answer:
                        response = begin_response(answer)
                        await stream_response(http, answer, response)
                except (UpstreamUnreachable, NoAnswer, BrokenAnswer) as cause:
                    made.errors.append(cause)
                return response

            application = web.Application()
            application.router.add_route("*", "/{path:.*}", near)
            server = await stack.enter_async_context(TestServer(application))
            session = await stack.enter_async_context(ClientSession())
            made = Chain(session, str(server.make_url("")).rstrip("/"))
            return made

        yield start


async def test_headers_of_a_connection_stay_on_it(chain: Callable[..., Awaitable[Chain]]) -> None:
    seen: list[CIMultiDict[str]] = []

    async def far(http: web.Request) -> web.StreamResponse:
        seen.append(CIMultiDict(http.headers))
        headers = {"Keep-Alive": "timeout=5", "X-Hop": "1", "X-Kept": "1", "Connection": "x-hop", "Trailer": "x"}
        return web.Response(text="a/b?c", headers=headers)

    scene = await chain(far)
    headers = {"Connection": "X-Secret", "X-Secret": "1", "TE": "trailers", "X-Kept": "2", "Accept": "a/b"}
    async with scene.session.get(f"{scene.url}/a%2Fb?c=%20", headers=headers) as answer:
        assert await answer.text() == "a/b?c"
        assert answer.headers["X-Kept"] == "1"
        assert not {"X-Hop", "Keep-Alive", "Trailer"} & set(answer.headers)
    assert (seen[0]["X-Kept"], seen[0]["Accept"]) == ("2", "a/b")
    assert not {"X-Secret", "TE"} & set(seen[0])


@pytest.mark.parametrize("known", [True, False])
async def test_bodies_are_streamed_both_ways(chain: Callable[..., Awaitable[Chain]], known: bool) -> None:
    first = asyncio.Event()

    async def far(http: web.Request) -> web.StreamResponse:
        assert ("Content-Length" in http.headers) is known
        response = web.StreamResponse()
        await response.prepare(http)
        async for piece in http.content.iter_any():
            await response.write(piece)
            first.set()
        await response.write_eof()
        return response

    scene = await chain(far)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a" * 1000
        # The other server has the first piece before the second one is sent.
        await asyncio.wait_for(first.wait(), PATIENCE)
        yield b"b" * 1000

    body = b"a" * 1000 + b"b" * 1000
    async with scene.session.post(scene.url, data=body if known else pieces()) as answer:
        assert await answer.read() == body


async def test_a_server_that_cannot_be_reached_got_nothing(chain: Callable[..., Awaitable[Chain]]) -> None:
    scene = await chain(None)
    async with scene.session.post(scene.url, data=b"x") as answer:
        assert answer.status == 502
    [error] = scene.errors
    assert isinstance(error, UpstreamUnreachable)
    assert "\n" not in str(error)


async def test_a_server_that_breaks_off_before_it_answers(chain: Callable[..., Awaitable[Chain]]) -> None:
    async def far(http: web.Request) -> web.StreamResponse:
        assert http.transport is not None
        http.transport.abort()
        return web.Response()

    scene = await chain(far)
    async with scene.session.post(scene.url, data=b"x") as answer:
        assert answer.status == 502
    assert [type(error) for error in scene.errors] == [NoAnswer]


async def test_a_client_sees_that_an_answer_was_broken_off(chain: Callable[..., Awaitable[Chain]]) -> None:
    async def far(http: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        await response.write(b"half")
        assert http.transport is not None
        http.transport.abort()
        return response

    scene = await chain(far)
    async with scene.session.get(scene.url) as answer:
        with pytest.raises(ClientPayloadError):
            await answer.read()
    assert [type(error) for error in scene.errors] == [BrokenAnswer]


def test_who_asks_is_said_by_the_upstream_or_by_the_caller() -> None:
    headers = CIMultiDict({"Authorization": "Bearer caller", "Cookie": "c", "X-Remote-User": "root", "X-Kept": "1"})
    assert dict(identified(headers, Upstream("http://a"))) == {
        "Authorization": "Bearer caller",
        "Cookie": "c",
        "X-Kept": "1",
    }
    ours = Upstream("http://a", identity=(("Authorization", "Bearer ours"),))
    assert dict(identified(headers, ours)) == {"X-Kept": "1", "Authorization": "Bearer ours"}
