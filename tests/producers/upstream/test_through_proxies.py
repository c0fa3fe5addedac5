"""Requests through proxies, and connections for other protocols, which go the same way."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from producers.upstream.exchange import NotConnected
from producers.upstream.proxies import Proxy, proxy_of_cluster
from producers.upstream.tls import TlsSettings
from tests.patience import PATIENCE, eventually
from tests.producers.upstream.servers import Authority, HttpProxy, Server, SocksProxy, listening
from tests.producers.upstream.transports import CHUNK, Connect, authority, connect, failing, get, hello

__all__ = ["authority", "connect"]


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
            far.transport.write(CHUNK)
            sent += CHUNK
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
