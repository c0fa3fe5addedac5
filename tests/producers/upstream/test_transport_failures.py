"""Connections and streams that break off, are silent, or are ended here; and how much may come about at once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from producers.upstream.exchange import NotConnected, TransportError
from producers.upstream.server_url import parse_server
from producers.upstream.tls import TlsSettings
from producers.upstream.transport import ConnectionTiming, Transport
from producers.upstream.turns import Turns
from tests.patience import PATIENCE, eventually
from tests.ports import free_port
from tests.producers.upstream.servers import Authority, Http2Stream, Stream, listening
from tests.producers.upstream.transports import CHUNK, Connect, authority, connect, failing, get, hello, serving

__all__ = ["authority", "connect"]


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
            await stream.data(CHUNK)
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
