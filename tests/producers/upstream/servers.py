"""Servers of these tests: HTTP/2 and HTTP/1.1, with TLS or without, which do what a test says, also what is wrong.

And proxies that HTTP servers are reached through: CONNECT and absolute-form, SOCKS5.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import h11
import trustme

Headers = list[tuple[str, str]]


@dataclass
class Asked:
    """A request as a server saw it. `connection`: which one of its connections, from 1; `name`: of SNI."""

    method: str
    path: str
    headers: Headers
    connection: int
    version: str
    name: str | None = None
    certificate: str | None = None
    body: bytes = b""

    def header(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for key, value in self.headers if key.lower() == name]


class Stream:
    """One request, to be answered."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.reset_by_client = asyncio.Event()

    async def body(self) -> bytes:
        """The whole body of the request."""
        while chunk := await self.chunks.get():
            self.asked.body += chunk
        return self.asked.body

    async def head(self, status: int = 200, headers: Headers | None = None, end: bool = False) -> None:
        """Sends the head of the answer."""
        raise NotImplementedError

    async def data(self, data: bytes = b"", end: bool = False) -> None:
        """Sends a part of the body; waits while the client holds it back."""
        raise NotImplementedError

    async def answer(self, body: bytes, status: int = 200, headers: Headers | None = None) -> None:
        """Sends a whole answer."""
        await self.head(status, [*(headers or []), ("content-length", str(len(body)))])
        await self.data(body, end=True)

    def cut(self) -> None:
        """Cuts the connection as a machine that is reset does."""
        raise NotImplementedError


Handler = Callable[[Stream], Awaitable[None]]


class Http2Stream(Stream):
    """One on an HTTP/2 connection."""

    def __init__(self, asked: Asked, of: Http2Connection, number: int) -> None:
        super().__init__(asked)
        self.of = of
        self.number = number

    async def head(self, status: int = 200, headers: Headers | None = None, end: bool = False) -> None:
        self.of.wire.send_headers(self.number, [(":status", str(status)), *(headers or [])], end_stream=end)
        await self.of.flush()

    async def data(self, data: bytes = b"", end: bool = False) -> None:
        wire = self.of.wire
        view = memoryview(data)
        while view:
            while not (room := min(wire.local_flow_control_window(self.number), wire.max_outbound_frame_size)):
                self.of.room.clear()
                await self.of.room.wait()
            wire.send_data(self.number, bytes(view[:room]))
            view = view[room:]
            await self.of.flush()
        if end:
            wire.end_stream(self.number)
            await self.of.flush()

    def cut(self) -> None:
        self.of.cut()

    async def reset(self, code: int) -> None:
        """RST_STREAM."""
        self.of.wire.reset_stream(self.number, code)
        await self.of.flush()

    async def goaway(self, last: int, code: int = 0) -> None:
        """GOAWAY: streams up to `last` go on. As bytes: the library ends its connection with one."""
        self.of.writer.write(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + struct.pack("!II", last, code))
        await self.of.writer.drain()


class Http2Connection:
    """A connection, until its client or a test ends it."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.number = number
        self.room = asyncio.Event()
        self.wire = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.streams: dict[int, Http2Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def flush(self) -> None:
        self.writer.write(self.wire.data_to_send())
        with contextlib.suppress(OSError):
            await self.writer.drain()

    def cut(self) -> None:
        self.writer.transport.abort()

    async def run(self) -> None:
        self.wire.local_settings = h2.settings.Settings(
            client=False,
            initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.server.streams},
        )
        await asyncio.sleep(self.server.late)
        self.wire.initiate_connection()
        # A client that has not seen the limit yet is refused single streams (RFC 9113, 5.1.2), by `take`.
        self.wire.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100_000}
        )
        await self.flush()
        try:
            while data := await self.reader.read(65536):
                for event in self.wire.receive_data(data):
                    self.take(event)
                # Not drained: a client that does not read would not be read any more either.
                self.writer.write(self.wire.data_to_send())
        except (OSError, ssl.SSLError):
            pass
        finally:
            for stream in self.streams.values():
                stream.reset_by_client.set()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            self.cut()

    def take(self, event: h2.events.Event) -> None:
        of_stream = (h2.events.DataReceived, h2.events.StreamEnded, h2.events.StreamReset)
        if isinstance(event, of_stream) and event.stream_id not in self.streams:
            # One that was refused.
            return
        if isinstance(event, h2.events.RequestReceived):
            assert event.headers is not None
            assert event.stream_id is not None
            assert event.stream_id is not None
            if self.wire.open_inbound_streams > self.server.streams:
                self.wire.reset_stream(event.stream_id, 7)
                self.server.refused += 1
                return
            pairs = [(str(name), str(value)) for name, value in event.headers]
            pseudo = dict(pair for pair in pairs if pair[0].startswith(":"))
            headers = [("host", pseudo[":authority"]), *(pair for pair in pairs if not pair[0].startswith(":"))]
            asked = Asked(pseudo[":method"], pseudo[":path"], headers, self.number, "2")
            stream = self.streams[event.stream_id] = Http2Stream(asked, self, event.stream_id)
            self.server.identify(asked, self.writer)
            self.server.asked.append(asked)
            task = asyncio.create_task(self.server.serve(stream))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif isinstance(event, h2.events.DataReceived):
            assert event.data is not None
            assert event.stream_id is not None
            self.streams[event.stream_id].chunks.put_nowait(event.data)
            self.wire.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            assert event.stream_id is not None
            self.streams[event.stream_id].chunks.put_nowait(b"")
        elif isinstance(event, h2.events.StreamReset):
            self.server.resets += 1
            assert event.stream_id is not None
            self.streams[event.stream_id].reset_by_client.set()
            self.room.set()
        elif isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)):
            self.room.set()


class Http1Stream(Stream):
    """One on an HTTP/1.1 connection."""

    def __init__(self, asked: Asked, wire: h11.Connection, writer: asyncio.StreamWriter) -> None:
        super().__init__(asked)
        self.wire = wire
        self.writer = writer

    async def _send(self, event: h11.Event) -> None:
        self.writer.write(self.wire.send(event) or b"")
        await self.writer.drain()

    async def head(self, status: int = 200, headers: Headers | None = None, end: bool = False) -> None:
        await self._send(h11.Response(status_code=status, headers=headers or []))
        if end:
            await self._send(h11.EndOfMessage())

    async def data(self, data: bytes = b"", end: bool = False) -> None:
        if data:
            await self._send(h11.Data(data=data))
        if end:
            await self._send(h11.EndOfMessage())

    def cut(self) -> None:
        self.writer.transport.abort()


@dataclass
class Server:
    """A server on a port of 127.0.0.1. `handler` answers; `streams`: how many HTTP/2 may have at once.

    `late`: seconds after which it says so on a connection.
    """

    handler: Handler
    tls: ssl.SSLContext | None = None
    http2: bool = True
    streams: int = 1000
    late: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    resets: int = 0
    refused: int = 0
    names: dict[int, str | None] = field(default_factory=dict)
    port: int = 0

    def identify(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        """Notes what the TLS of a connection says."""
        tls = writer.get_extra_info("ssl_object")
        if tls is None:
            return
        asked.name = self.names.get(id(tls))
        shown = tls.getpeercert()
        if shown:
            asked.certificate = dict(pair for part in shown["subject"] for pair in part).get("commonName", "")

    async def serve(self, stream: Stream) -> None:
        """Answers one request."""
        with contextlib.suppress(OSError):
            await self.handler(stream)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection."""
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            tls = writer.get_extra_info("ssl_object")
            if tls is not None and tls.selected_alpn_protocol() == "h2":
                await Http2Connection(self, reader, writer, number).run()
            else:
                await self._http1(reader, writer, number)
        except asyncio.CancelledError:
            pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _http1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        wire = h11.Connection(h11.SERVER)
        stream: Http1Stream | None = None
        task: asyncio.Task[None] | None = None
        try:
            while True:
                event = wire.next_event()
                if event is h11.NEED_DATA:
                    data = await reader.read(65536)
                    wire.receive_data(data)
                    if not data and stream is None:
                        return
                elif isinstance(event, h11.Request):
                    headers = [(name.decode(), value.decode("utf-8", "replace")) for name, value in event.headers]
                    asked = Asked(event.method.decode(), event.target.decode(), headers, number, "1.1")
                    self.identify(asked, writer)
                    self.asked.append(asked)
                    stream = Http1Stream(asked, wire, writer)
                    task = asyncio.create_task(self.serve(stream))
                elif isinstance(event, h11.Data) and stream is not None:
                    stream.chunks.put_nowait(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage) and stream is not None and task is not None:
                    stream.chunks.put_nowait(b"")
                    await task
                    if wire.our_state is not h11.DONE or wire.their_state is not h11.DONE:
                        return
                    wire.start_next_cycle()
                elif isinstance(event, h11.ConnectionClosed):
                    return
        except (OSError, h11.ProtocolError):
            return
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        """Serves while the block lasts."""
        if self.tls is not None:
            self.tls.set_alpn_protocols(["h2", "http/1.1"] if self.http2 else ["http/1.1"])
            self.tls.sni_callback = lambda tls, name, _: self.names.__setitem__(id(tls), name)
        async with listening(self.take, self.tls) as self.port:
            yield self

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self.tls is not None else 'http'}://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def listening(
    take: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A port whose connections are taken while the block lasts; then they are ended."""
    tasks: set[asyncio.Task[None]] = set()

    async def taking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await take(reader, writer)
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(taking, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# -- proxies -------------------------------------------------------------------------------------------------------


@dataclass
class Proxied:
    """What a proxy was asked: CONNECT, another method or `socks5`, and the target as it was named."""

    how: str
    target: str
    authorization: str = ""
    headers: Headers = field(default_factory=list)


@dataclass
class HttpProxy:
    """A proxy by HTTP: tunnels for CONNECT, and requests in absolute-form. `names`: addresses of made-up hosts."""

    names: dict[str, int] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    wants: str = ""
    asked: list[Proxied] = field(default_factory=list)
    port: int = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[HttpProxy]:
        """Serves while the block lasts."""
        async with listening(self.take, self.tls) as self.port:
            yield self

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            return
        line, *lines = head.decode().strip().split("\r\n")
        method, target, _ = line.split(" ")
        headers = [(name.lower(), value.strip()) for name, _, value in (one.partition(":") for one in lines)]
        authorization = dict(headers).get("proxy-authorization", "")
        self.asked.append(Proxied(method, target, authorization, headers))
        if self.wants and authorization != self.wants:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        place = target if method == "CONNECT" else target.removeprefix("http://").partition("/")[0]
        host, _, port = place.rpartition(":")
        far = await connect_to(host, int(port), self.names)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\nX-Of: the proxy\r\n\r\n")
        else:
            path = "/" + target.removeprefix("http://").partition("/")[2]
            far[1].write(head.replace(target.encode(), path.encode(), 1))
        await both_ways(reader, writer, *far)


@dataclass
class SocksProxy:
    """A proxy by SOCKS5 (RFC 1928), with user name and password (RFC 1929) if it wants them."""

    names: dict[str, int] = field(default_factory=dict)
    wants: str = ""
    asked: list[Proxied] = field(default_factory=list)
    port: int = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[SocksProxy]:
        """Serves while the block lasts."""
        async with listening(self.take) as self.port:
            yield self

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            _, count = await reader.readexactly(2)
            methods = await reader.readexactly(count)
            login = ""
            if self.wants:
                if 2 not in methods:
                    writer.write(b"\x05\xff")
                    return
                writer.write(b"\x05\x02")
                _, length = await reader.readexactly(2)
                user = await reader.readexactly(length)
                password = await reader.readexactly((await reader.readexactly(1))[0])
                login = f"{user.decode()}:{password.decode()}"
                writer.write(b"\x01\x00" if login == self.wants else b"\x01\x01")
                if login != self.wants:
                    return
            else:
                writer.write(b"\x05\x00")
            _, _, _, kind = await reader.readexactly(4)
            if kind == 3:
                host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            else:
                host = ".".join(str(part) for part in await reader.readexactly(4))
            port = int.from_bytes(await reader.readexactly(2), "big")
        except (asyncio.IncompleteReadError, OSError):
            return
        self.asked.append(Proxied("socks5", f"{host}:{port}", login))
        far = await connect_to(host, port, self.names)
        writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        await both_ways(reader, writer, *far)


async def connect_to(host: str, port: int, names: dict[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to where a made-up name leads."""
    if host in names:
        host, port = "127.0.0.1", names[host]
    return await asyncio.open_connection(host, port)


async def both_ways(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Passes bytes on until one side ends."""

    async def one_way(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()

    ways = [asyncio.create_task(one_way(reader, far_writer)), asyncio.create_task(one_way(far_reader, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        far_writer.transport.abort()


# -- certificates --------------------------------------------------------------------------------------------------


class Authority:
    """An authority of a test, and what it certifies."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made = 0
        self.root = trustme.CA()
        self.pem = self.root.cert_pem.bytes()

    def issue(self, *names: str, common_name: str | None = None) -> trustme.LeafCert:
        """A certificate for names or addresses."""
        return self.root.issue_cert(*names, common_name=common_name)

    def server(self, *names: str, clients: bool = False) -> ssl.SSLContext:
        """TLS of a server with these names; `clients`: asks for certificates of this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issue(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
        if clients:
            self.root.configure_trust(context)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def file(self, content: bytes) -> str:
        """A file with this content."""
        self._made += 1
        path = self._directory / f"made-{self._made}.pem"
        path.write_bytes(content)
        os.chmod(path, 0o600)
        return str(path)
