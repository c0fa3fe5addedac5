"""Requests over HTTP/2 and HTTP/1.1 to servers that behave, and to ones that do not."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from producers.credentials.credential import ClientCertificate
from producers.upstream.exchange import NotConnected, TransportError
from producers.upstream.proxies import Proxy, proxy_of_cluster
from producers.upstream.server_url import parse_server
from producers.upstream.tls import TlsSettings, system_authorities
from producers.upstream.transport import ConnectionTiming, Transport
from producers.upstream.turns import Turns
from tests.patience import PATIENCE, eventually
from tests.ports import free_port
from tests.producers.upstream.servers import (
    Authority,
    Handler,
    Http2Stream,
    HttpProxy,
    Server,
    SocksProxy,
    Stream,
    listening,
)

Connect = Callable[..., Transport]
_CHUNK = b"x" * 16384
# openssl genpkey -algorithm ed25519 -aes256 -pass pass:secret
_ENCRYPTED = b"""-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhOljd2pI5oSQICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEIKjl2O7UCAsoOtoyT2BMqIEQCYy
Ku/SyBKeRtS/LBIqMvUCpt/9s4jrUfINIL0plCjBGxhri6JJoYUgFdOHX1GNw9gR
X0uLyLYeVAKwT+3Bv7E=
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def connect(authority: Authority) -> AsyncIterator[Connect]:
    """Makes transports that trust the authority; at the end none has anything left."""
    made: list[Transport] = []

    def connecting(
        url: str, tls: TlsSettings | None = None, proxy: Proxy | None = None, timing: ConnectionTiming | None = None
    ) -> Transport:
        made.append(
            Transport(
                parse_server(url),
                TlsSettings(authority.pem) if tls is None else tls,
                proxy,
                timing=timing or ConnectionTiming(),
            )
        )
        return made[-1]

    yield connecting
    for transport in made:
        assert transport.under_way == 0, "a handle is left"
        await transport.close()
        assert transport.sockets == 0, "a socket is left"


async def hello(stream: Stream) -> None:
    """Answers with what was asked."""
    await stream.body()
    await stream.answer(stream.asked.path.encode())


async def get(transport: Transport, path: str = "/") -> bytes:
    async with asyncio.timeout(PATIENCE):
        async with transport.request("GET", path) as response:
            return await response.read()


async def failing(transport: Transport, path: str = "/") -> TransportError:
    with pytest.raises(TransportError) as failed:
        await get(transport, path)
    return failed.value


@contextlib.asynccontextmanager
async def serving(handler: Handler, authority: Authority, **options: object) -> AsyncIterator[Server]:
    async with Server(handler, authority.server(), **options).running() as server:  # type: ignore[arg-type]
        yield server


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
            yield _CHUNK
            await asyncio.sleep(0)
        yield b""

    whole = _CHUNK * 40
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
    packed = gzip.compress(_CHUNK * 100)

    async def handler(stream: Stream) -> None:
        zipped = stream.asked.header("accept-encoding") == ["gzip"]
        await stream.answer(packed if zipped else b"plain", headers=[("content-encoding", "gzip")] if zipped else [])

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        assert await get(transport) == _CHUNK * 100
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
                await stream.data(_CHUNK)
                sent += len(_CHUNK)
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
            await stream.data(_CHUNK)
            sent += len(_CHUNK)

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
            await stream.data(_CHUNK)

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
            yield _CHUNK

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
            assert await response.read() == str(300 * len(_CHUNK)).encode()


# -- what breaks off -----------------------------------------------------------------------------------------------


async def test_cut_in_the_body(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        await stream.head(200, [("content-length", "100")])
        await stream.data(b"0123456789")
        if stream.asked.path == "/cut":
            stream.cut()

    for http2 in (True, False):
        async with serving(handler, authority, http2=http2) as server:
            transport = connect(server.url)
            async with transport.request("GET", "/cut") as response:
                assert await response.next_chunk() == b"0123456789"
                with pytest.raises(TransportError) as broken:
                    await response.next_chunk()
                assert not isinstance(broken.value, NotConnected)
                with pytest.raises(TransportError):
                    await response.read()


async def test_what_came_before_the_cut_is_read_before_it_is_said(authority: Authority, connect: Connect) -> None:
    cut = asyncio.Event()

    async def handler(stream: Stream) -> None:
        await stream.head()
        await stream.data(b"line\n")
        await cut.wait()
        stream.cut()

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        async with transport.request("GET", "/") as response:
            cut.set()
            await eventually(lambda: server.open == 0 and transport.sockets == 0)
            assert await response.next_chunk() == b"line\n"
            with pytest.raises(TransportError):
                await response.next_chunk()


async def test_a_stream_that_is_reset_ends_alone(authority: Authority, connect: Connect) -> None:
    end = asyncio.Event()

    async def handler(stream: Stream) -> None:
        assert isinstance(stream, Http2Stream)
        await stream.head()
        await stream.data(b"some")
        if stream.asked.path == "/reset":
            await stream.reset(2)
            end.set()
        else:
            await end.wait()
            await stream.data(b" more", end=True)

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        other = asyncio.create_task(get(transport, "/other"))
        await eventually(lambda: server.asked)
        error = await failing(transport, "/reset")
        assert "INTERNAL_ERROR" in str(error)
        assert await other == b"some more"
        assert server.connections == 1


async def test_goaway_lets_streams_end_and_new_ones_go_elsewhere(authority: Authority, connect: Connect) -> None:
    end = asyncio.Event()
    gone = asyncio.Event()

    async def handler(stream: Stream) -> None:
        assert isinstance(stream, Http2Stream)
        await stream.head()
        if stream.asked.path == "/watch":
            await stream.goaway(stream.number)
            gone.set()
            await end.wait()
        await stream.data(b"whole", end=True)

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        watch = asyncio.create_task(get(transport, "/watch"))
        await gone.wait()
        # One that was sent before GOAWAY came is sent again on another connection; nobody notices.
        assert await get(transport, "/list") == b"whole"
        assert await get(transport, "/list") == b"whole"
        end.set()
        assert await watch == b"whole"
        assert server.connections == 2


async def test_what_may_change_something_is_not_sent_twice(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        await stream.body()
        if stream.asked.path == "/cut":
            stream.cut()
        else:
            await stream.answer(b"whole")

    for http2 in (True, False):
        async with serving(handler, authority, http2=http2) as server:
            transport = connect(server.url)
            await get(transport, "/warm")
            with pytest.raises(TransportError) as broken:
                async with transport.request("POST", "/cut", [], b"body"):
                    pass
            assert not isinstance(broken.value, NotConnected)
            assert [asked.method for asked in server.asked] == ["GET", "POST"]


async def test_a_connection_that_was_closed_while_idle_is_made_anew(authority: Authority, connect: Connect) -> None:
    streams: list[Stream] = []

    async def handler(stream: Stream) -> None:
        streams.append(stream)
        await stream.body()
        await stream.answer(b"whole")

    for http2 in (True, False):
        async with serving(handler, authority, http2=http2) as server:
            transport = connect(server.url)
            assert await get(transport) == b"whole"
            streams[-1].cut()
            await eventually(lambda: server.open == 0)
            assert await get(transport) == b"whole"
            assert server.connections == 2


async def test_nonsense_is_an_error(connect: Connect) -> None:
    answers = iter(
        [
            b"",
            b"\x00\x01\x02\x03",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            b"HTTP/1.1 abc\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 1_000_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ]
    )

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(answers))
        await writer.drain()
        writer.close()

    async with listening(take) as port:
        for _ in range(9):
            error = await failing(connect(f"http://127.0.0.1:{port}"))
            assert str(error)
            assert "\n" not in str(error)


# -- limits --------------------------------------------------------------------------------------------------------


async def test_silence_ends_a_request_that_is_waited_for(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        if stream.asked.path == "/body":
            await stream.head()
            await stream.data(b"some")
        await stream.reset_by_client.wait()

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        with pytest.raises(TransportError, match=r"nothing came for 0\.2 s"):
            async with transport.request("GET", "/head", silence=0.2):
                pass
        with pytest.raises(TransportError, match=r"nothing came for 0\.2 s"):
            async with transport.request("GET", "/body", silence=0.2) as response:
                await response.read()
        await eventually(lambda: server.resets == 2)


async def test_a_reader_that_rests_is_not_silence(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        await stream.head()
        for _ in range(4):
            await stream.data(_CHUNK)
            await asyncio.sleep(0.05)
        await stream.data(end=True)

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        async with transport.request("GET", "/", silence=5.0) as response:
            assert await response.next_chunk()
            await asyncio.sleep(0.5)
            assert await response.read()


async def test_a_server_that_takes_a_connection_and_says_nothing(authority: Authority, connect: Connect) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(PATIENCE)

    async with listening(take) as port:
        transport = connect(f"https://127.0.0.1:{port}", timing=ConnectionTiming(dial=PATIENCE, handshake=0.3))
        waiting = [asyncio.create_task(failing(transport)) for _ in range(5)]
        for error in await asyncio.gather(*waiting):
            assert isinstance(error, NotConnected)
            assert "no TLS handshake within 0.3 s" in str(error)


async def test_one_dial_answers_all_that_wait_for_it(connect: Connect) -> None:
    transport = connect("https://127.0.0.1:1")
    for error in await asyncio.gather(*(failing(transport) for _ in range(20))):
        assert isinstance(error, NotConnected)
        assert "127.0.0.1" in str(error)


class Stuck:
    """A way to a server that can stop passing bytes on, while the kernels at both its ends go on acknowledging."""

    def __init__(self, port: int) -> None:
        self._far = port
        self.stuck = False
        self.taken = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        stuck = self.taken == 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far)

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    if not (stuck and self.stuck):
                        target.write(data)

        ways = [asyncio.create_task(pass_on(reader, far_writer)), asyncio.create_task(pass_on(far_reader, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.transport.abort()


async def test_a_connection_whose_peer_is_lost_is_cut(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        if stream.asked.path != "/watch":
            await hello(stream)
            return
        await stream.head()
        await stream.reset_by_client.wait()

    async with serving(handler, authority) as server:
        way = Stuck(server.port)
        async with listening(way.take) as port:
            transport = connect(f"https://127.0.0.1:{port}", timing=ConnectionTiming(silence=0.4, answer=0.4))
            # Made for a request that is over by then.
            await get(transport)
            watches = [asyncio.create_task(failing(transport, "/watch")) for _ in range(3)]
            await eventually(lambda: sum(asked.path == "/watch" for asked in server.asked) == 3)
            # Quiet, but there: it is asked, and answers.
            await eventually(lambda: sum(asked.path == "/livez/ping" for asked in server.asked) >= 2)
            assert not any(watch.done() for watch in watches)
            way.stuck = True
            for error in await asyncio.gather(*watches):
                assert "the connection is dead: nothing came for 0.8 s" in str(error)
            assert await get(transport, "/again") == b"/again"
            assert way.taken == 2


async def test_connections_of_http_1_are_not_asked(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        await stream.head()
        await stream.data(b"begun")
        await asyncio.sleep(1.0)
        await stream.data(b" and ended", end=True)

    async with serving(handler, authority, http2=False) as server:
        transport = connect(server.url, timing=ConnectionTiming(silence=0.1, answer=0.1))
        assert await asyncio.gather(*(get(transport, "/watch") for _ in range(3))) == [b"begun and ended"] * 3
        assert {asked.path for asked in server.asked} == {"/watch"}


async def test_the_same_failure_has_the_same_text(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        assert isinstance(stream, Http2Stream)
        await stream.head()
        await stream.reset(2)

    port = free_port()
    transport = connect(f"https://127.0.0.1:{port}")
    assert {str(await failing(transport)) for _ in range(5)} == {
        f"Failed to connect to 127.0.0.1:{port}: Connection refused"
    }
    async with serving(handler, authority) as server:
        transport = connect(server.url)
        assert len({str(await failing(transport)) for _ in range(5)}) == 1


async def test_handshakes_are_few_at_once(authority: Authority) -> None:
    here = most = 0
    go_on = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal here, most
        here += 1
        most = max(most, here)
        await go_on.wait()
        here -= 1

    places = Turns(at_once=3, counted=PATIENCE)
    async with listening(take) as port:
        transports = [Transport(parse_server(f"https://127.0.0.1:{port}"), handshakes=places) for _ in range(9)]
        waiting = [asyncio.create_task(failing(transport)) for transport in transports]
        await eventually(lambda: here == 3)
        waiting[0].cancel()
        waiting[8].cancel()
        await eventually(lambda: most >= 3)
        go_on.set()
        assert sum(isinstance(one, NotConnected) for one in await asyncio.gather(*waiting, return_exceptions=True)) == 7
        for transport in transports:
            await transport.close()
    assert most <= 4
    # All places are free again.
    for _ in range(3):
        await asyncio.wait_for(places.begin(), PATIENCE)


async def test_servers_that_do_not_answer_hold_up_no_others(authority: Authority, connect: Connect) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(PATIENCE)

    places = Turns(at_once=2, counted=0.1)
    async with listening(take) as port, serving(hello, authority) as server:
        silent = [Transport(parse_server(f"https://127.0.0.1:{port}"), handshakes=places) for _ in range(6)]
        waiting = [asyncio.create_task(get(transport)) for transport in silent]
        transport = Transport(parse_server(server.url), TlsSettings(authority.pem), handshakes=places)
        assert await get(transport, "/answers") == b"/answers"
        for one in (*silent, transport):
            await one.close()
        for failed in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(failed, TransportError)


async def test_close_ends_what_is_under_way(authority: Authority, connect: Connect) -> None:
    async def handler(stream: Stream) -> None:
        await stream.head()
        await stream.reset_by_client.wait()

    async with serving(handler, authority) as server:
        transport = connect(server.url)
        waiting = [asyncio.create_task(failing(transport)) for _ in range(3)]
        await eventually(lambda: len(server.asked) == 3)
        await transport.close()
        await asyncio.gather(*waiting)
        assert isinstance(await failing(transport), NotConnected)
        await eventually(lambda: server.open == 0)


async def test_cancelled_at_each_await_nothing_is_left(authority: Authority, connect: Connect) -> None:
    """The request's task is cancelled after one more step of the event loop each time, until it is through."""

    async def handler(stream: Stream) -> None:
        await stream.head()
        for part in (b"one", b"two", b"three"):
            await stream.data(part)
        await stream.body()
        await stream.data(end=True)

    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.sleep(0)
        yield b"more"

    async with serving(handler, authority) as server:
        for method in ("GET", "POST"):
            for steps in itertools.count():
                transport = connect(server.url)

                async def one(transport: Transport = transport, method: str = method) -> bytes:
                    async with transport.request(method, "/", [], body() if method == "POST" else None) as response:
                        return await response.read()

                task = asyncio.create_task(one())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                done = (await asyncio.gather(task, return_exceptions=True))[0]
                assert transport.under_way == 0
                if done == b"onetwothree":
                    break
                assert isinstance(done, asyncio.CancelledError)
                assert await asyncio.wait_for(get(transport), PATIENCE) == b"onetwothree"
                await transport.close()
            assert steps > 10
        await eventually(lambda: server.open <= 2)


# -- TLS -----------------------------------------------------------------------------------------------------------


async def test_a_foreign_authority_is_not_trusted(authority: Authority, connect: Connect) -> None:
    async with serving(hello, authority) as server:
        foreign = TlsSettings(trustme.CA().cert_pem.bytes())
        for tls in (foreign, TlsSettings()):
            error = await failing(connect(server.url, tls))
            assert isinstance(error, NotConnected)
            assert "certificate" in str(error)
    assert server.asked == []


async def test_an_authority_replaces_those_of_the_system(
    authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.file(authority.pem))
    system_authorities.cache_clear()
    try:
        async with serving(hello, authority) as server:
            assert await get(connect(server.url, TlsSettings()), "/system") == b"/system"
            await failing(connect(server.url, TlsSettings(trustme.CA().cert_pem.bytes())))
    finally:
        system_authorities.cache_clear()


async def test_a_leaf_as_authority_is_trusted(authority: Authority, connect: Connect) -> None:
    leaf = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    async with Server(hello, context).running() as server:
        assert await get(connect(server.url, TlsSettings(leaf.cert_chain_pems[0].bytes())), "/leaf") == b"/leaf"


async def test_insecure(authority: Authority, connect: Connect) -> None:
    async with Server(hello, authority.server("other.example.test")).running() as server:
        assert "name" in str(await failing(connect(server.url))) or server.asked == []
        assert await get(connect(server.url, TlsSettings(insecure=True)), "/x") == b"/x"


async def test_another_server_name_is_sent_and_checked(authority: Authority, connect: Connect) -> None:
    async with Server(hello, authority.server("api.example.test")).running() as server:
        assert isinstance(await failing(connect(server.url)), NotConnected)
        named = TlsSettings(authority.pem, server_name="api.example.test")
        assert await get(connect(server.url, named), "/named") == b"/named"
        wrong = TlsSettings(authority.pem, server_name="other.example.test")
        assert isinstance(await failing(connect(server.url, wrong)), NotConnected)
        insecure = TlsSettings(insecure=True, server_name="unknown.example.test")
        assert await get(connect(server.url, insecure), "/any") == b"/any"
    assert [asked.name for asked in server.asked] == ["api.example.test", "unknown.example.test"]
    assert [asked.header("host") for asked in server.asked] == [[f"127.0.0.1:{server.port}"]] * 2


async def test_client_certificates(authority: Authority, connect: Connect) -> None:
    def shown(name: str) -> TlsSettings:
        leaf = authority.issue(f"{name}@example.test", common_name=name)
        chain = b"".join(part.bytes() for part in leaf.cert_chain_pems)
        return TlsSettings(authority.pem, certificate=ClientCertificate(chain, leaf.private_key_pem.bytes()))

    async with Server(hello, authority.server(clients=True)).running() as server:
        for tls in (shown("one"), shown("two"), TlsSettings(authority.pem)):
            await get(connect(server.url, tls))
        assert [asked.certificate for asked in server.asked] == ["one", "two", None]
        one, two = shown("one").certificate, shown("two").certificate
        assert one is not None
        assert two is not None
        for bad in (
            ClientCertificate(one.chain, two.key),
            ClientCertificate(b"none", one.key),
            ClientCertificate(one.chain, b"none"),
            ClientCertificate(one.chain, _ENCRYPTED),
        ):
            error = await failing(connect(server.url, TlsSettings(authority.pem, certificate=bad)))
            assert isinstance(error, NotConnected)


async def test_old_tls_is_refused(authority: Authority, connect: Connect) -> None:
    context = authority.server()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with Server(hello, context).running() as server:
        assert isinstance(await failing(connect(server.url)), NotConnected)


# -- proxies -------------------------------------------------------------------------------------------------------


async def test_through_a_proxy_by_connect(authority: Authority, connect: Connect) -> None:
    async with Server(hello, authority.server("api.example.test")).running() as server:
        proxy = HttpProxy(names={"api.example.test": server.port}, wants="Basic dTpwOnc=")
        async with proxy.running():
            through = proxy_of_cluster(f"http://u:p%3Aw@127.0.0.1:{proxy.port}")
            transport = connect("https://api.example.test:6443", proxy=through)
            async with transport.request("GET", "/x", [("Authorization", "Bearer SECRET")]) as response:
                assert response.version == "2"
                assert "x-of" not in response.headers
                assert await response.read() == b"/x"
            await asyncio.gather(*(get(transport) for _ in range(10)))
            refused = proxy_of_cluster(f"http://127.0.0.1:{proxy.port}")
            error = await failing(connect("https://api.example.test:6443", proxy=refused))
            assert isinstance(error, NotConnected)
            assert "407" in str(error)
    assert [(one.how, one.target) for one in proxy.asked] == [("CONNECT", "api.example.test:6443")] * 2
    assert "SECRET" not in str(proxy.asked)
    assert server.connections == 1


async def test_another_server_name_through_a_proxy(authority: Authority, connect: Connect) -> None:
    async with Server(hello, authority.server("inner.example.test")).running() as server:
        named = TlsSettings(authority.pem, server_name="inner.example.test")
        async with HttpProxy(names={"outer.example.test": server.port}).running() as proxy:
            through = proxy_of_cluster(f"http://127.0.0.1:{proxy.port}")
            assert await get(connect("https://outer.example.test:6443", named, through), "/x") == b"/x"
        async with SocksProxy(names={"outer.example.test": server.port}).running() as socks:
            through = proxy_of_cluster(f"socks5://127.0.0.1:{socks.port}")
            assert await get(connect("https://outer.example.test:6443", named, through), "/x") == b"/x"
    assert [one.target for one in (*proxy.asked, *socks.asked)] == ["outer.example.test:6443"] * 2
    assert {asked.name for asked in server.asked} == {"inner.example.test"}


async def test_plain_http_through_a_proxy_is_in_absolute_form(authority: Authority, connect: Connect) -> None:
    async with Server(hello).running() as server:
        async with HttpProxy(names={"api.example.test": server.port}).running() as proxy:
            through = proxy_of_cluster(f"http://127.0.0.1:{proxy.port}")
            assert await get(connect("http://api.example.test:8080", proxy=through), "/x?y") == b"/x?y"
    assert [(one.how, one.target) for one in proxy.asked] == [("GET", "http://api.example.test:8080/x?y")]


@pytest.mark.parametrize("login", ["", "u:p"])
async def test_a_socks_proxy_is_given_the_name(authority: Authority, connect: Connect, login: str) -> None:
    async with Server(hello, authority.server("api.example.test")).running() as server:
        async with SocksProxy(names={"api.example.test": server.port}, wants=login).running() as proxy:
            userinfo = f"{login}@" if login else ""
            through = proxy_of_cluster(f"socks5://{userinfo}127.0.0.1:{proxy.port}")
            assert await get(connect("https://api.example.test:6443", proxy=through), "/x") == b"/x"
    assert [(one.how, one.target, one.authorization) for one in proxy.asked] == [
        ("socks5", "api.example.test:6443", login)
    ]


async def test_a_proxy_by_tls_is_checked_with_the_clusters_authority(authority: Authority, connect: Connect) -> None:
    async with Server(hello, authority.server("api.example.test")).running() as server:
        names = {"api.example.test": server.port}
        for context, works in ((authority.server(), True), (Authority(Path()).server(), False)):
            async with HttpProxy(names=names, tls=context).running() as proxy:
                through = proxy_of_cluster(f"https://127.0.0.1:{proxy.port}")
                transport = connect("https://api.example.test:6443", proxy=through)
                if works:
                    assert await get(transport, "/x") == b"/x"
                else:
                    assert isinstance(await failing(transport), NotConnected)
                    assert proxy.asked == []


class Echoed(asyncio.Protocol):
    """What came over a connection of our own."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.came = bytearray()
        self.resting = False
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.came += data

    def pause_writing(self) -> None:
        self.resting = True

    def resume_writing(self) -> None:
        self.resting = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


@pytest.mark.parametrize("how", ["directly", "http", "socks5"])
async def test_a_connection_for_another_protocol_goes_the_same_way(
    authority: Authority, connect: Connect, how: str
) -> None:
    read_on = asyncio.Event()
    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await read_on.wait()
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            ended.set()

    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(listening(echo, authority.server("api.example.test")))
        names = {"api.example.test": port}
        proxy: Proxy | None = None
        tls = TlsSettings(authority.pem, server_name="api.example.test")
        url = f"https://127.0.0.1:{port}"
        if how != "directly":
            kind: HttpProxy | SocksProxy = HttpProxy(names) if how == "http" else SocksProxy(names)
            await stack.enter_async_context(kind.running())
            proxy = proxy_of_cluster(f"{how}://127.0.0.1:{kind.port}")
            url, tls = "https://api.example.test:6443", TlsSettings(authority.pem)
        transport = connect(url, tls, proxy)
        far = Echoed()
        await transport.connect(far)
        assert far.transport is not None
        assert transport.under_way == 1
        await eventually(lambda: far.came == b"hello")
        # What its peer does not take is held, and said to the writer.
        sent = b""
        while not far.resting:
            far.transport.write(_CHUNK)
            sent += _CHUNK
            assert len(sent) < 100 * 1024 * 1024
        # What comes while it rests stays where it is.
        far.transport.pause_reading()
        read_on.set()
        await asyncio.sleep(0.1)
        assert far.came == b"hello"
        far.transport.resume_reading()
        await eventually(lambda: len(far.came) == 5 + len(sent) and not far.resting)
        assert far.came == b"hello" + sent
        far.transport.write(b"last")
        far.transport.close()
        await asyncio.wait_for(far.lost.wait(), PATIENCE)
        await asyncio.wait_for(ended.wait(), PATIENCE)
        assert transport.under_way == 0
        with pytest.raises(NotConnected):
            await connect("https://127.0.0.1:1").connect(Echoed())


async def test_a_connection_for_another_protocol_that_its_peer_ends(authority: Authority, connect: Connect) -> None:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        await reader.read(1)
        writer.transport.abort()

    async with listening(take, authority.server()) as port:
        transport = connect(f"https://127.0.0.1:{port}")
        far, closed_here = Echoed(), Echoed()
        await transport.connect(far)
        await transport.connect(closed_here)
        assert far.transport is not None
        far.transport.write(b"x")
        await asyncio.wait_for(far.lost.wait(), PATIENCE)
        assert far.came == b"bye"
        await transport.close()
        await asyncio.wait_for(closed_here.lost.wait(), PATIENCE)


async def test_no_proxy_there_is_said_without_its_password(connect: Connect) -> None:
    error = await failing(connect("https://h.example.test", proxy=proxy_of_cluster("http://u:SECRET@127.0.0.1:1")))
    assert isinstance(error, NotConnected)
    assert "SECRET" not in str(error)
