"""Requests over HTTP/2 and HTTP/1.1: sent as they are said, over shared connections, held back by who does not read."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from producers.upstream.exchange import NotConnected
from producers.upstream.proxies import proxy_of_cluster
from tests.patience import eventually
from tests.producers.upstream.servers import Authority, Http2Stream, HttpProxy, Stream, listening
from tests.producers.upstream.transports import CHUNK, Connect, authority, connect, get, hello, serving

__all__ = ["authority", "connect"]


# -- one request ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("http2", [True, False])
async def test_a_request_is_sent_as_it_is_said(authority: Authority, connect: Connect, http2: bool) -> None:
    async with serving(hello, authority, http2=http2) as server:
        transport = connect(f"{server.url}/prefix/")
        sent = [("Impersonate-Group", "a"), ("Impersonate-Group", "b"), ("X-Empty", ""), ("X-Umlaut", "ü")]
        async with transport.request("GET", "/a%2Fb/../c?x=%20&y=", sent) as response:
            assert (response.status, response.reason) == (200, "OK")
            assert response.version == ("2" if http2 else "1.1")
            assert response.headers["Content-Length"] == str(len(await response.read()))
    asked = server.asked[0]
    assert asked.path == "/prefix/a%2Fb/../c?x=%20&y="
    assert asked.header("host") == [f"127.0.0.1:{server.port}"]
    assert asked.header("impersonate-group") == ["a", "b"]
    assert asked.header("x-empty") == [""]
    assert asked.header("x-umlaut") == ["ü"]
    assert asked.header("accept-encoding") == ["gzip"]
    for name in ("accept", "user-agent", "expect", "content-type", "cookie", "authorization"):
        assert asked.header(name) == [], name


@pytest.mark.parametrize("http2", [True, False])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_bodies(authority: Authority, connect: Connect, http2: bool, method: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield CHUNK
            await asyncio.sleep(0)
        yield b""

    whole = CHUNK * 40
    async with serving(hello, authority, http2=http2) as server:
        transport = connect(server.url)
        for body, headers in (
            (b'{"a":1}', [("Content-Type", "application/json")]),
            (b"", []),
            (pieces(), []),
            (pieces(), [("Content-Length", str(len(whole)))]),
            (whole, []),
        ):
            async with transport.request(method, "/x", headers, body) as response:
                assert await response.read() == b"/x"
    assert [len(asked.body) for asked in server.asked] == [7, 0, len(whole), len(whole), len(whole)]
    assert {asked.method for asked in server.asked} == {method}
    assert server.asked[0].header("content-type") == ["application/json"]
    assert server.asked[3].header("content-length") == [str(len(whole))]
    assert server.connections == 1


async def test_head_and_no_content(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        await stream.head(204 if stream.asked.path == "/none" else 200, [("x-length", "1000")], end=True)

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        for method, path in (("HEAD", "/"), ("GET", "/none"), ("DELETE", "/none")):
            async with transport.request(method, path) as response:
                assert response.headers["x-length"] == "1000"
                assert await response.read() == b""


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\n", "a\0", "a\x1b", "\x7f"])
async def test_a_value_that_would_be_another_header_is_not_sent(connect: Connect, value: str) -> None:
    transport = connect("https://127.0.0.1:1")
    with pytest.raises(NotConnected, match="header Authorization has control") as refused:
        async with transport.request("GET", "/", [("Authorization", value)]):
            pass
    assert "Other" not in str(refused.value)


async def test_gzip_is_undone_or_left(authority: Authority, connect: Connect) -> None:
    packed = gzip.compress(CHUNK * 100)

    async def handler(stream: Stream) -> None:
        zipped = stream.asked.header("accept-encoding") == ["gzip"]
        await stream.answer(packed if zipped else b"plain", headers=[("content-encoding", "gzip")] if zipped else [])

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        assert await get(transport) == CHUNK * 100
        async with transport.request("GET", "/", decompress=False) as response:
            assert await response.read() == b"plain"
        async with transport.request("GET", "/", [("Accept-Encoding", "gzip")], decompress=False) as response:
            assert await response.read() == packed


async def test_redirects_are_not_followed_and_cookies_not_kept(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        await stream.head(302, [("location", "https://127.0.0.1:1/elsewhere"), ("set-cookie", "a=b")], end=True)

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        for _ in range(2):
            async with transport.request("GET", "/") as response:
                assert response.status == 302
    assert [asked.header("cookie") for asked in server.asked] == [[], []]


async def test_surroundings_of_libcurl_do_not_count(
    authority: Authority, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login other password SECRET\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "*")
    async with HttpProxy().running() as proxy, serving(hello, authority) as server:
        await get(connect(server.url))
        await get(connect(server.url, proxy=proxy_of_cluster(f"http://127.0.0.1:{proxy.port}")))
    assert [asked.header("authorization") for asked in server.asked] == [[], []]
    assert len(proxy.asked) == 1


# -- streams and connections ---------------------------------------------------------------------------------------


async def test_many_requests_share_one_connection(authority: Authority, connect: Connect) -> None:
    begun = asyncio.Event()

    async def handler(stream: Stream) -> None:
        await stream.head()
        await stream.data(b"begun")
        await begun.wait()
        await stream.data(b" and ended", end=True)

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        reading = [asyncio.create_task(get(transport)) for _ in range(120)]
        await eventually(lambda: len(server.asked) == 120)
        assert server.connections == 1
        begun.set()
        assert set(await asyncio.gather(*reading)) == {b"begun and ended"}


async def test_beyond_the_servers_limit_there_is_another_connection(authority: Authority, connect: Connect) -> None:
    begun = asyncio.Event()
    at_once: dict[int, int] = {}

    async def handler(stream: Stream) -> None:
        at_once[stream.asked.connection] = at_once.get(stream.asked.connection, 0) + 1
        await begun.wait()
        await stream.answer(b"")

    async with serving(handler, authority, streams=10) as server:
        transport = connect(server.url)
        # The first shows the server's settings.
        begun.set()
        await get(transport)
        begun.clear()
        at_once.clear()
        reading = [asyncio.create_task(get(transport)) for _ in range(25)]
        await eventually(lambda: len(server.asked) == 26)
        assert server.connections == 3
        assert max(at_once.values()) <= 10
        # A second connection's limit is not known when its first requests go: one that is refused goes elsewhere.
        assert server.refused <= 5
        begun.set()
        await asyncio.gather(*reading)


async def test_a_burst_beyond_the_limit_waits_for_no_stream_to_end(authority: Authority, connect: Connect) -> None:
    """What is sent before the limit of another connection is known does not queue behind that limit."""
    end = asyncio.Event()

    async def handler(stream: Stream) -> None:
        await stream.head()
        await end.wait()
        await stream.data(b"whole", end=True)

    async with serving(handler, authority, streams=120, late=0.2) as server:
        transport = connect(server.url)
        reading = [asyncio.create_task(get(transport)) for _ in range(400)]
        await eventually(lambda: len(server.asked) == 400)
        assert server.connections == 4
        end.set()
        assert set(await asyncio.gather(*reading)) == {b"whole"}


async def test_http_1_has_a_connection_for_each_and_keeps_them(authority: Authority, connect: Connect) -> None:
    begun = asyncio.Event()

    async def handler(stream: Stream) -> None:
        await begun.wait()
        await stream.answer(b"")

    async with serving(handler, authority, http2=False) as server:
        transport = connect(server.url)
        for _ in range(2):
            reading = [asyncio.create_task(get(transport)) for _ in range(5)]
            await eventually(lambda: len(server.asked) % 5 == 0 and server.open == 5)
            begun.set()
            await asyncio.gather(*reading)
            begun.clear()
        assert server.connections == 5


async def test_who_does_not_read_holds_back_its_own_stream_only(authority: Authority, connect: Connect) -> None:
    sent = 0

    async def handler(stream: Stream) -> None:
        nonlocal sent
        await stream.head()
        if stream.asked.path == "/endless":
            while not stream.reset_by_client.is_set():
                await stream.data(CHUNK)
                sent += len(CHUNK)
        await stream.data(b"other", end=True)

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        async with transport.request("GET", "/endless") as response:
            before = -1
            while sent != before:
                before = sent
                for _ in range(20):
                    assert await get(transport, "/other") == b"other"
            # libcurl's window of a stream is 20 MiB.
            assert sent <= 21 * 1024 * 1024
            assert server.connections == 1
            taken = 0
            async for chunk in response.chunks():
                taken += len(chunk)
                if taken > 60 * 1024 * 1024:
                    break
        await eventually(lambda: server.resets == 1)
        assert await get(transport, "/other") == b"other"


async def test_http_1_is_held_back_too(authority: Authority, connect: Connect) -> None:
    sent = 0

    async def handler(stream: Stream) -> None:
        nonlocal sent
        await stream.head()
        while True:
            await stream.data(CHUNK)
            sent += len(CHUNK)

    async with serving(handler, authority, http2=False) as server:
        transport = connect(server.url)
        async with transport.request("GET", "/") as response:
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)
            held = sent
            assert len(await response.read(held + 1)) == held + 1
        await eventually(lambda: server.open == 0)


async def test_the_beginning_of_an_endless_body(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        await stream.head()
        while not stream.reset_by_client.is_set():
            await stream.data(CHUNK)

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        async with transport.request("GET", "/") as response:
            assert await response.read(100_000) == b"x" * 100_000
        await eventually(lambda: server.resets == 1)


async def test_an_upload_that_the_server_does_not_take_is_held_back(authority: Authority, connect: Connect) -> None:
    given, endless = 0, True
    go_on = asyncio.Event()

    async def handler(stream: Stream) -> None:
        assert isinstance(stream, Http2Stream)
        await go_on.wait()
        await stream.answer(str(len(await stream.body())).encode())

    async def body() -> AsyncIterator[bytes]:
        nonlocal given
        while endless or given < 300:
            given += 1
            yield CHUNK

    async def nothing_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()

    async with listening(nothing_read) as port:
        transport = connect(f"http://127.0.0.1:{port}")
        sending = asyncio.create_task(transport.request("POST", "/", [], body()).__aenter__())
        before = -1
        while given != before:
            before = given
            await asyncio.sleep(0.2)
        assert given
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        go_on.set()
    endless, given = False, 0
    async with serving(handler, authority) as server:
        transport = connect(server.url)
        async with transport.request("POST", "/", [], body()) as response:
            assert await response.read() == str(300 * len(CHUNK)).encode()
