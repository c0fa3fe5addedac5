"""Limits of connections: those that send nothing, or too much, or too slowly; and who gets in while there are many."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
import uvloop
from aiohttp import web

from query.http.accepting import Site
from query.http.connections import ConnectionLimits, Runner
from query.http.passthrough import read_body
from query.http.status import ApiError
from query.http.tls import ServingContext, ServingFiles
from tests.patience import PATIENCE, eventually

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the")
REQUEST = b"GET /short HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """As commands run: asyncio's own TLS has 256 KiB for each connection from its beginning."""
    made: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return made


class Scene:
    """A server, and how clients reach it: over TLS or without."""

    def __init__(self, runner: Runner, port: int, context: ssl.SSLContext | None) -> None:
        self.runner = runner
        self.port = port
        self._context = context
        self._open: list[asyncio.StreamWriter] = []

    @property
    def count(self) -> int:
        """Connections that the server has open."""
        return self.runner.server.open  # type: ignore[union-attr, no-any-return]

    @property
    def agreeing(self) -> list[object]:
        """Connections whose TLS is not agreed on yet."""
        [site] = self.runner.sites
        assert isinstance(site, Site)
        return [*site._agreeing, *site._mute]

    async def connect(self, *, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self._context if tls else None
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname="localhost" if context else None
        )
        self._open.append(writer)
        return reader, writer

    def close(self) -> None:
        for writer in self._open:
            writer.transport.abort()


async def handle(http: web.Request) -> web.StreamResponse:
    if http.path == "/body":
        try:
            return web.json_response(len(await read_body(http)))
        except ApiError as error:
            return web.Response(status=error.code, body=error.body())
    if http.path == "/long":
        response = web.StreamResponse()
        await response.prepare(http)
        while True:
            await response.write(b"event\n")
            await asyncio.sleep(0.05)
    return web.Response(text="ok")


@pytest.fixture(params=["http", "https", "https that asks"])
def context(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ServingContext, ssl.SSLContext] | None:
    """The server's and the client's."""
    if request.param == "http":
        return None
    authority = trustme.CA()
    file, bundle = tmp_path / "tls.pem", tmp_path / "ca.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
    authority.cert_pem.write_to_path(bundle)
    client = ssl.create_default_context(cafile=str(bundle))
    asks = (bundle,) if request.param == "https that asks" else ()
    return ServingContext(ServingFiles(file, file, asks)), client


@contextlib.asynccontextmanager
async def serving(
    context: tuple[ServingContext, ssl.SSLContext] | None, limits: ConnectionLimits
) -> AsyncIterator[Scene]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = Runner(application, limits, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    bound = socket.create_server(("127.0.0.1", 0))
    await Site(runner, bound, None if context is None else context[0], 1024).start()
    scene = Scene(runner, bound.getsockname()[1], None if context is None else context[1])
    try:
        yield scene
    finally:
        scene.close()
        await runner.cleanup()


async def read(reader: asyncio.StreamReader, end: bytes = b"") -> bytes:
    """All until the server closes, or until `end`."""
    got = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while data := await reader.read(65536):
                got += data
                if end and got.endswith(end):
                    break
    return got


TLS = tuple[ServingContext, ssl.SSLContext] | None


# -- too slow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent", [b"", b"GET /", REQUEST[:-2], REQUEST[:-1]], ids=["nothing", "a word", "a line", "all"]
)
async def test_a_first_head_that_is_never_complete(context: TLS, sent: bytes) -> None:
    async with serving(context, ConnectionLimits(header=0.3)) as scene:
        reader, writer = await scene.connect()
        writer.write(sent)
        assert await read(reader) == b""
        await eventually(lambda: scene.count == 0)


async def test_a_head_that_comes_a_byte_at_a_time(context: TLS) -> None:
    """What arrives prolongs nothing."""
    async with serving(context, ConnectionLimits(header=0.5)) as scene:
        reader, writer = await scene.connect()
        ended = asyncio.ensure_future(read(reader))
        head = REQUEST[:-2] + b"X: " + b"y" * 10_000
        for at in range(len(head)):
            if ended.done():
                break
            writer.write(head[at : at + 1])
            await asyncio.sleep(0.02)
        assert ended.done()
        assert await ended == b""


async def test_a_later_head_that_is_never_complete(context: TLS) -> None:
    async with serving(context, ConnectionLimits(header=0.3)) as scene:
        reader, writer = await scene.connect()
        writer.write(REQUEST)
        assert (await read(reader, b"ok")).startswith(b"HTTP/1.1 200")
        writer.write(REQUEST[:-2])
        assert await read(reader) == b""


async def test_a_connection_may_be_idle_between_requests(context: TLS) -> None:
    """For longer than a head may take, and not for ever."""
    async with serving(context, ConnectionLimits(header=0.2, idle=1.0)) as scene:
        reader, writer = await scene.connect()
        for _ in range(3):
            writer.write(REQUEST)
            assert (await read(reader, b"ok")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.4)
        assert await read(reader) == b""
        await eventually(lambda: scene.count == 0)


async def test_what_lasts_is_ended_by_no_limit(context: TLS) -> None:
    async with serving(context, ConnectionLimits(header=0.1, idle=0.1)) as scene:
        reader, writer = await scene.connect()
        writer.write(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(10):
            await asyncio.wait_for(reader.readuntil(b"event\n"), PATIENCE)


@pytest.mark.parametrize("context", ["https", "https that asks"], indirect=True)
async def test_tls_that_is_never_agreed_on(context: TLS) -> None:
    async with serving(context, ConnectionLimits(handshake=0.3)) as scene:
        for sent in (b"", b"\x16\x03\x01\x02\x00\x01"):
            reader, writer = await scene.connect(tls=False)
            writer.write(sent)
            assert await read(reader) == b""


# -- too large -------------------------------------------------------------------------------------------------------


async def test_a_head_of_many_lines_and_one_that_is_too_large(context: TLS) -> None:
    def head(lines: int) -> bytes:
        return (
            REQUEST[:-2] + b"".join(b"X-Remote-Group: %d-%s\r\n" % (at, b"x" * 1000) for at in range(lines)) + b"\r\n"
        )

    async with serving(context, ConnectionLimits()) as scene:
        reader, writer = await scene.connect()
        writer.write(head(900))
        assert (await read(reader, b"ok")).startswith(b"HTTP/1.1 200")
    async with serving(context, ConnectionLimits(headers=300_000)) as scene:
        reader, writer = await scene.connect()
        # More than what may come with the last piece of a head.
        writer.write(head(900)[:-2])
        got = await read(reader)
        assert got.split()[1] == b"431", got
        status = json.loads(got.partition(b"\r\n\r\n")[2])
        assert (status["kind"], status["code"]) == ("Status", 431)
        assert "limit is 300000" in status["message"]


async def test_a_head_behind_a_request_that_lasts(context: TLS) -> None:
    """While a watch is open, nothing is kept for its connection without end."""
    async with serving(context, ConnectionLimits(headers=100_000)) as scene:
        reader, writer = await scene.connect()
        writer.write(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"event\n"), PATIENCE)
        writer.write(REQUEST[:-2] + b"".join(b"X-%d: %s\r\n" % (at, b"y" * 1000) for at in range(200)))
        await read(reader)
        await eventually(lambda: scene.count == 0)


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_bodies(context: TLS, chunked: bool) -> None:
    async with serving(context, ConnectionLimits(body=100_000)) as scene:
        for size, status in ((100_000, b"200"), (100_001, b"413"), (5_000_000, b"413")):
            reader, writer = await scene.connect()
            head = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
            body = b"x" * size
            if chunked:
                body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
            writer.write(b"POST /body HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n\r\n" % head + body)
            got = await read(reader)
            assert got.startswith(b"HTTP/1.1 " + status), (size, got)
            if status == b"413":
                said = json.loads(got.partition(b"\r\n\r\n")[2])
                assert said["reason"] == "RequestEntityTooLarge"
                assert said["message"] == "Request entity too large: limit is 100000"


# -- too many --------------------------------------------------------------------------------------------------------


async def test_silent_connections_keep_out_nobody(context: TLS) -> None:
    async with serving(context, ConnectionLimits(most=8)) as scene:
        # One that is in use stays.
        watch, writer = await scene.connect()
        writer.write(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await watch.readuntil(b"event\n")
        for _ in range(30):
            await scene.connect(tls=False)
        for _ in range(3):
            reader, writer = await scene.connect()
            writer.write(REQUEST)
            assert (await read(reader, b"ok")).startswith(b"HTTP/1.1 200")
            for _ in range(10):
                await scene.connect(tls=False)
        assert scene.count <= 8 + 1
        for _ in range(3):
            await asyncio.wait_for(watch.readuntil(b"event\n"), PATIENCE)


async def test_who_is_one_too_many_is_closed_at_once(context: TLS) -> None:
    """Where all others are in use."""
    async with serving(context, ConnectionLimits(most=3)) as scene:
        for _ in range(3):
            reader, writer = await scene.connect()
            writer.write(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"event\n"), PATIENCE)
        reader, _ = await scene.connect(tls=False)
        assert await read(reader) == b""
        writer.transport.abort()
        await eventually(lambda: scene.count == 2)
        reader, writer = await scene.connect()
        writer.write(REQUEST)
        assert (await read(reader, b"ok")).startswith(b"HTTP/1.1 200")


async def test_connections_are_counted_right(context: TLS) -> None:
    async with serving(context, ConnectionLimits(handshake=0.5)) as scene:
        for at in range(30):
            reader, writer = await scene.connect(tls=at % 3 != 0)
            if at % 3:
                writer.write(REQUEST)
                await read(reader, b"ok")
            if at % 2:
                writer.transport.abort()
            else:
                writer.close()
        await eventually(lambda: scene.count == 0)


async def test_the_end_of_the_server_ends_all(context: TLS) -> None:
    async with serving(context, ConnectionLimits()) as scene:
        silent = [await scene.connect(tls=False) for _ in range(5)]
        idle, writer = await scene.connect()
        writer.write(REQUEST)
        await read(idle, b"ok")
        async with asyncio.timeout(PATIENCE):
            await scene.runner.cleanup()
            for reader, _ in silent:
                assert await read(reader) == b""
            assert await read(idle) == b""


# Connects as often as it is told, and holds all of them, saying nothing, until its input ends.
SILENT = """
import resource, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
print("held", flush=True)
sys.stdin.read()
closed = 0
for one in held:
    one.setblocking(False)
    try:
        closed += one.recv(1) == b""
    except BlockingIOError:
        pass
    except ConnectionError:
        closed += 1
print(closed, flush=True)
"""


@pytest.mark.slow
async def test_ten_thousand_that_send_nothing(context: TLS) -> None:
    """They take files and a little memory; whoever has something to ask is answered, and in the end they are left."""
    count = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 1000:
        pytest.skip("this system does not allow so many open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limits = ConnectionLimits(header=3600.0, handshake=3600.0)
    try:
        async with serving(context, limits) as scene:
            watch, writer = await scene.connect()
            writer.write(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(watch.readuntil(b"event\n"), PATIENCE)
            before = resident()
            silent = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", SILENT, str(scene.port), str(count)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert silent.stdout is not None
            assert silent.stdin is not None
            assert await asyncio.wait_for(silent.stdout.readline(), PATIENCE) == b"held\n"
            await eventually(lambda: scene.count + len(scene.agreeing) >= count)
            # As much as a connection of aiohttp has; one of TLS is nothing but a socket until its client speaks.
            assert resident() - before < count * 16 * 1024
            for _ in range(20):
                reader, writer = await scene.connect()
                writer.write(REQUEST)
                assert (await read(reader, b"ok")).startswith(b"HTTP/1.1 200")
                await asyncio.wait_for(watch.readuntil(b"event\n"), PATIENCE)
            # Their time is over.
            await scene.runner.cleanup()
            silent.stdin.close()
            assert await asyncio.wait_for(silent.stdout.readline(), PATIENCE) == b"%d\n" % count
            await silent.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
