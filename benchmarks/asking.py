"""Ask: many watches of one API server over TLS, as producers have them: what an idle one holds, what an event costs.

aiohttp, with a connection for each watch, against the producers' transport, with one for all. The server is the same
for both, in a process of its own, and so is each client.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import msgspec
import trustme
from hypercorn.asyncio import serve
from hypercorn.config import Config

from benchmarks import rig
from benchmarks.report import Report, median
from kubebraid.command.broker import free_port
from producers.credentials.credential import ClientCertificate
from producers.upstream.server_url import parse_server
from producers.upstream.tls import TlsSettings
from producers.upstream.transport import Transport
from producers.upstream.watching import LineCutter

# Watches that are there before memory is read, so that what all share does not count.
_BEFORE = 20
# Events for each watch, and the pause between two of them in seconds: far below what a processor could do.
_EVENTS = 40
_PAUSE = 0.05
# Bytes of an event, as a pod's.
_SIZE = 4096
_CLIENTS = ("aiohttp", "transport")

# Paths of a client's certificate and its key.
User = tuple[str, str]
Ask = Callable[[str], Awaitable[None]]
# Opens a watch: its chunks.
Open = Callable[[], contextlib.AbstractAsyncContextManager[AsyncGenerator[bytes, None]]]


class _Measured(msgspec.Struct):
    """Bytes that an idle watch holds, bytes of the first with its connection, seconds of processor for an event."""

    each: float
    first: float
    cpu: float
    connections: int
    events: int


async def run(*, watchers: int, rounds: int) -> Report:
    report = Report(
        "ask",
        f"{watchers} watches of one API server over TLS, events of {_SIZE} bytes, {rounds} rounds in turn",
        ("client", "connections", "first watch KB", "each watch KB", "CPU us an event"),
    )
    with TemporaryDirectory(prefix="kubebraid-bench-") as directory:
        authority = trustme.CA(key_type=trustme.KeyType.RSA)
        trusted = authority.cert_pem.bytes()
        certificate, user = _certified(authority, directory, "127.0.0.1"), _certified(authority, directory, "a@b.test")
        async with rig.process(_serve, *certificate) as server:
            port = await server.receive()
            found: dict[str, list[_Measured]] = {name: [] for name in _CLIENTS}
            for _ in range(rounds):
                for name in _CLIENTS:
                    found[name].append(await rig.fresh(_ask, name, port, trusted, user, watchers))
    for name, measured in found.items():
        events = {one.events for one in measured}
        if events != {watchers * _EVENTS}:
            report.failures.append(f"{name} read {events} events, not {watchers * _EVENTS}")
        report.row(
            name,
            round(median([one.connections for one in measured])),
            median([one.first for one in measured]) / 1024,
            median([one.each for one in measured]) / 1024,
            median([one.cpu for one in measured]) * 1e6,
        )
    theirs, ours = (found[name] for name in _CLIENTS)
    each, cpu = (median([getattr(one, what) for one in ours]) for what in ("each", "cpu"))
    report.ratio(
        "memory", median([one.each for one in theirs]) / max(each, 1.0), "times as little memory for an idle watch", 2.0
    )
    report.ratio("cpu", median([one.cpu for one in theirs]) / cpu, "times as little processor time for an event", 1.0)
    report.ratio("bound", 15 * 1024 / max(each, 1.0), "of 15 KB for an idle watch", 1.0)
    return report


def _certified(authority: trustme.CA, directory: str, name: str) -> tuple[str, str]:
    """Files with a certificate and its key, as kubeadm makes them."""
    leaf = authority.issue_cert(name, key_type=trustme.KeyType.RSA)
    chain, key = Path(directory) / f"{name}.pem", Path(directory) / f"{name}.key"
    leaf.cert_chain_pems[0].write_to_path(str(chain))
    leaf.private_key_pem.write_to_path(str(key))
    return str(chain), str(key)


# -- the server ----------------------------------------------------------------------------------------------------


async def _serve(pipe: Pipe, chain: str, key: str) -> None:
    """Watches that say nothing until /go is asked, and then an event each in turn."""
    line = b'{"type":"MODIFIED","object":{"metadata":{"resourceVersion":"1"},"x":"' + b"x" * _SIZE
    line = line[: _SIZE - 4] + b'"}}\n'
    go, over = asyncio.Event(), asyncio.Event()

    async def answer(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/go":
            go.set()
            await asyncio.sleep(0)
            go.clear()
        else:
            await send({"type": "http.response.body", "body": b"begun\n", "more_body": True})
            await go.wait()
            for _ in range(_EVENTS):
                await send({"type": "http.response.body", "body": line, "more_body": True})
                await asyncio.sleep(_PAUSE)
        await send({"type": "http.response.body", "body": b""})

    config = Config()
    port = free_port()
    config.bind = [f"127.0.0.1:{port}"]
    config.certfile, config.keyfile = chain, key
    config.loglevel = "CRITICAL"
    config.h2_max_concurrent_streams = 100_000
    config.keep_alive_timeout = 600
    serving = asyncio.create_task(serve(answer, config, shutdown_trigger=over.wait))
    await asyncio.sleep(1.0)
    pipe.send(port)
    await rig.until_closed(pipe)
    over.set()
    await serving


# -- clients -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _aiohttp(port: int, trusted: bytes, user: User) -> AsyncIterator[tuple[Open, Ask]]:
    tls = ssl.create_default_context(cadata=trusted.decode())
    tls.load_cert_chain(*user)
    connector = aiohttp.TCPConnector(limit=0, ssl=tls)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=connector, timeout=timeout) as session:

        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[AsyncGenerator[bytes, None]]:
            async with session.get("/watch") as response:

                async def chunks() -> AsyncGenerator[bytes, None]:
                    async for chunk in response.content.iter_any():
                        yield chunk

                yield chunks()

        async def ask(path: str) -> None:
            async with session.get(path) as response:
                await response.read()

        yield opened, ask


@contextlib.asynccontextmanager
async def _transport(port: int, trusted: bytes, user: User) -> AsyncIterator[tuple[Open, Ask]]:
    chain, key = (Path(path).read_bytes() for path in user)
    tls = TlsSettings(trusted, certificate=ClientCertificate(chain, key))
    transport = Transport(parse_server(f"https://127.0.0.1:{port}"), tls)

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[AsyncGenerator[bytes, None]]:
        async with transport.request("GET", "/watch") as response:
            yield response.chunks()

    async def ask(path: str) -> None:
        async with transport.request("GET", path) as response:
            await response.read()

    try:
        yield opened, ask
    finally:
        await transport.close()


async def _ask(pipe: Pipe, name: str, port: int, trusted: bytes, user: User, watchers: int) -> None:
    client = {"aiohttp": _aiohttp, "transport": _transport}[name]
    begun, seen, all_begun = 0, 0, asyncio.Event()

    async def watch(opened: Open) -> None:
        nonlocal begun, seen
        async with opened() as chunks, contextlib.aclosing(chunks) as arriving:
            lines = LineCutter()
            async for chunk in arriving:
                together = lines.of(chunk)
                del chunk
                if together and together[0] == b"begun":
                    begun += 1
                    all_begun.set()
                    together = together[1:]
                seen += len(together)

    async with client(port, trusted, user) as (opened, ask):
        tasks: list[asyncio.Task[None]] = []

        async def idle(count: int) -> int:
            """Memory once so many watches are idle."""
            tasks.extend(asyncio.create_task(watch(opened)) for _ in range(count - len(tasks)))
            while begun < count:
                all_begun.clear()
                await all_begun.wait()
            await asyncio.sleep(0.3)
            gc.collect()
            return rig.resident_bytes()

        empty = rig.resident_bytes()
        one, some, all_ = await idle(1), await idle(_BEFORE), await idle(watchers)
        connections = len(_connections(port))
        cpu = time.process_time()
        await ask("/go")
        await asyncio.gather(*tasks)
        cpu = time.process_time() - cpu
        pipe.send(_Measured((all_ - some) / (watchers - _BEFORE), one - empty, cpu / max(seen, 1), connections, seen))


def _connections(port: int) -> list[str]:
    """This process's connections to a port, as the kernel lists them."""
    ours = {Path(f"/proc/self/fd/{fd.name}").readlink().name for fd in Path("/proc/self/fd").iterdir() if fd.exists()}
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port and f"socket:[{fields[9]}]" in ours:
            found.append(line)
    return found
