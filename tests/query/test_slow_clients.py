"""Clients that take nothing are left, whatever they asked for; those that take slowly lose nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import aiohttp
import msgspec
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from deltalog import Appender, Log, encode_delta
from deltalog.wire.records import encode_control
from deltalog.wire.subjects import CLUSTER, SYNCED, TYPE, control_subject, object_subject, type_prefix
from materializer.materializer import Materializer
from query.http import slow_clients
from query.http.connections import SLOW_CLIENTS, Runner
from query.http.slow_clients import SlowClients
from query.objects import watch
from query.objects.pages import DEFAULT_LIMITS, SnapshotLimits
from query.objects.representations import Encoder
from query.service import QueryService
from query.timing import QueryTiming
from tests.materializer.conftest import made_control, made_delta
from tests.patience import PATIENCE

PIECE = b"x" * 256 * 1024
LARGE = b',"data":' + json.dumps({f"key-{at}": "x" * 1000 for at in range(100)}).encode() + b"}"
PODS = "/api/v1/pods"


class Client:
    """A connection with a small buffer, from which the test takes what it wants."""

    def __init__(self, port: int, path: str, headers: str = "") -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        self._socket.connect(("127.0.0.1", port))
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n".encode())
        self._socket.setblocking(False)

    async def take(self, most: int = 2**20) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._socket, most)

    async def rest(self, end: bytes = b"") -> bytes:
        """All until it is closed, or until `end`."""
        taken = b""
        with contextlib.suppress(ConnectionResetError):
            while data := await self.take():
                taken += data
                if end and taken.endswith(end):
                    break
        return taken

    def close(self) -> None:
        self._socket.close()


async def until(found: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not found():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(application: web.Application) -> AsyncIterator[int]:
    runner = Runner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


# -- any answer --------------------------------------------------------------------------------------------------------


class Scene:
    def __init__(self) -> None:
        self.slow_clients = SlowClients(Counter("stalled", "", registry=CollectorRegistry()), 0.5, 0.05)
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.borne = False
        self.port = 0

    @property
    def count(self) -> float:
        return float(self.slow_clients._count._value.get())

    async def streamed(self, http: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        assert http.transport is not None
        # A kernel that lets its buffer grow to many megabytes is given nothing while these are being taken.
        http.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        with self.slow_clients.tolerated(http) if self.borne else contextlib.nullcontext():
            await response.prepare(http)
            try:
                for _ in range(64):
                    await response.write(PIECE)
            except (ConnectionError, asyncio.CancelledError):
                self.ended.put_nowait("broken off")
                raise
            await response.write_eof()
        self.ended.put_nowait("complete")
        return response

    async def closed(self, _: web.Request) -> web.StreamResponse:
        """An answer whose handler has nothing more to do, and whose connection is to be closed."""
        response = web.Response(body=PIECE * 64)
        response.force_close()
        return response


@pytest.fixture(params=["bytes acknowledged", "bytes given to the kernel"])
async def scene(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    if request.param != "bytes acknowledged":
        # Where the system does not tell.
        monkeypatch.setattr(slow_clients, "_TCP_INFO", None)
    made = Scene()
    application = web.Application()
    application[SLOW_CLIENTS] = made.slow_clients
    application.router.add_get("/", made.streamed)
    application.router.add_get("/closed", made.closed)
    async with running(application) as made.port:
        yield made


@pytest.mark.parametrize("path", ["/", "/closed"])
async def test_who_takes_nothing_is_left(scene: Scene, path: str) -> None:
    with contextlib.closing(Client(scene.port, path)) as client:
        await until(lambda: scene.count)
        await until(lambda: not scene.slow_clients._open)
        if path == "/":
            assert await asyncio.wait_for(scene.ended.get(), PATIENCE) == "broken off"
        # It was no proper end.
        taken = await client.rest()
        assert len(taken) < 64 * len(PIECE)
        assert not taken.endswith(b"0\r\n\r\n")
    assert scene.count == 1


async def test_who_takes_slowly_gets_all(scene: Scene) -> None:
    """Longer than anybody is waited for, but always something within that time, which a busy machine keeps."""
    scene.slow_clients._patience = 3.0
    with contextlib.closing(Client(scene.port, "/")) as client:
        taken, pauses = 0, 0
        while taken < 64 * len(PIECE):
            taken += len(await client.take(2**16))
            if taken // (4 * len(PIECE)) > pauses:
                pauses += 1
                await asyncio.sleep(0.25)
        assert await asyncio.wait_for(scene.ended.get(), PATIENCE) == "complete"
    assert scene.count == 0


async def test_a_process_that_stood_still_itself_blames_nobody(scene: Scene) -> None:
    """It has not seen whether anything was taken: only looks in between tell."""
    with contextlib.closing(Client(scene.port, "/")) as client:
        await until(lambda: scene.slow_clients._open)
        await client.take()
        await asyncio.sleep(0.06)
        time.sleep(1.2)  # noqa: ASYNC251 - this is what it is about
        await asyncio.sleep(0.06)
        assert scene.count == 0
        # On a busy machine the client, too, stands still for a while.
        scene.slow_clients._patience = PATIENCE
        await client.rest(b"0\r\n\r\n")
        assert await asyncio.wait_for(scene.ended.get(), PATIENCE) == "complete"


async def test_a_stream_that_may_wait_waits(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.borne = True
    looks = 0
    look = scene.slow_clients._is_stalled

    def looking(transport: asyncio.Transport, one: Any, now: float) -> bool:
        nonlocal looks
        looks += 1
        return look(transport, one, now)

    monkeypatch.setattr(scene.slow_clients, "_is_stalled", looking)
    with contextlib.closing(Client(scene.port, "/")) as client:
        # More than it takes to leave another.
        await until(lambda: looks > 20)
        assert scene.count == 0
        await client.rest(b"0\r\n\r\n")
        assert await asyncio.wait_for(scene.ended.get(), PATIENCE) == "complete"


async def test_who_goes_away_is_no_stall(scene: Scene) -> None:
    client = Client(scene.port, "/")
    assert await client.take()
    client.close()
    assert await asyncio.wait_for(scene.ended.get(), PATIENCE) == "broken off"
    await until(lambda: not scene.slow_clients._open)
    assert scene.count == 0


# -- watches and lists -------------------------------------------------------------------------------------------------


class Served:
    def __init__(self, port: int, service: QueryService) -> None:
        self.port = port
        self.service = service

    async def metric(self, name: str) -> float:
        """A value of /metrics."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


class Serve(Protocol):
    async def __call__(
        self, patience: float, grace: float = 10.0, limits: SnapshotLimits = DEFAULT_LIMITS
    ) -> Served: ...


@pytest.fixture
async def serve(log: Log) -> AsyncIterator[Serve]:
    """Serves 16 MB of pods; whoever takes nothing is left after so many seconds."""
    materializer = Materializer(log)
    replaying = asyncio.create_task(materializer.run())
    async with contextlib.AsyncExitStack() as stack:

        async def starter(patience: float, grace: float = 10.0, limits: SnapshotLimits = DEFAULT_LIMITS) -> Served:
            data = {"kind": "Pod", "version": "v1", "namespaced": True}
            messages = [
                (control_subject("c", record, *of), encode_control(made_control(record, "c", *of, data=content)))
                for record, of, content in (
                    (TYPE, ("", "pods"), data),
                    (CLUSTER, ("", ""), {"version": {"major": "1"}}),
                    (SYNCED, ("", "pods"), {"version": "1"}),
                )
            ]
            for number in range(160):
                delta = made_delta(f"pod-{number}", uid=str(number), cluster="c")
                delta = msgspec.structs.replace(delta, object=delta.object[:-1] + LARGE)
                subject = object_subject(type_prefix("c", "", "v1", "pods"), "x", f"pod-{number}")
                messages.append((subject, encode_delta(delta)))
            async with Appender(log.connection) as appender:
                for subject, payload in messages:
                    last = await appender.append_wait(subject, payload, {})
            await materializer.wait_applied(last, PATIENCE)
            timing = QueryTiming(client_patience=patience, client_look_every=0.05, watch_grace=grace)
            service = QueryService(materializer, "test", timing=timing, limits=limits)
            port = await stack.enter_async_context(running(service.application()))
            stack.callback(service.close)
            return Served(port, service)

        yield starter
    replaying.cancel()
    await asyncio.gather(replaying, return_exceptions=True)


WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
TABLE = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io\r\n"


@pytest.mark.parametrize("headers", ["", WEBSOCKET])
async def test_watches_and_lists_that_are_not_taken(serve: Serve, headers: str) -> None:
    served = await serve(0.5)
    clients = [Client(served.port, f"{PODS}?watch=1", headers) for _ in range(3)]
    clients += [Client(served.port, f"{PODS}{query}") for query in ("", "?pretty=1")]
    clients.append(Client(served.port, PODS, "Accept: application/yaml\r\n"))
    await until(lambda: served.service.watches.open == 3)
    while await served.metric("kubebraid_stalled_answers_total") < 6:
        await asyncio.sleep(0.05)
    await until(lambda: served.service.watches.open == 0)
    for client in clients:
        assert not (await client.rest()).endswith(b"0\r\n\r\n")
        client.close()


@pytest.mark.parametrize("headers", ["", WEBSOCKET])
async def test_a_watch_whose_time_is_over_ends_though_nobody_takes_it(serve: Serve, headers: str) -> None:
    served = await serve(1000.0, grace=0.1)
    client = Client(served.port, f"{PODS}?watch=1&timeoutSeconds=1", headers)
    await until(lambda: served.service.watches.open)
    await until(lambda: not served.service.watches.open)
    assert not (await client.rest()).endswith(b"0\r\n\r\n")
    assert await served.metric("kubebraid_stalled_answers_total") == 1
    client.close()


async def test_a_client_that_is_behind_when_the_time_is_over_gets_whole_events_and_a_proper_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve(1000.0, grace=1000.0)
    begun: list[watch.WatchStream] = []
    run = watch.WatchStream.run

    async def noted(of: watch.WatchStream) -> None:
        begun.append(of)
        await run(of)

    monkeypatch.setattr(watch.WatchStream, "run", noted)
    client = Client(served.port, f"{PODS}?watch=1&timeoutSeconds=1")
    await until(lambda: begun)
    await until(lambda: asyncio.get_running_loop().time() > begun[0].deadline)
    taken = await asyncio.wait_for(client.rest(b"0\r\n\r\n"), PATIENCE)
    assert taken.endswith(b"}\n\r\n0\r\n\r\n")
    assert b"ADDED" in taken
    assert len(taken) < 15 * 10**6
    assert await served.metric("kubebraid_stalled_answers_total") == 0
    client.close()


async def test_what_is_held_for_watchers_that_take_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the present state one for all of them, and of text no more than goes out at once."""
    served = await serve(1000.0)
    sent: list[int] = []
    events = Encoder.events

    def counted(*arguments: Any, **more: Any) -> bytes:
        text = events(*arguments, **more)
        sent.append(len(text))
        return text

    monkeypatch.setattr(Encoder, "events", counted)
    clients = [Client(served.port, f"{PODS}?watch=1") for _ in range(5)]
    await until(lambda: served.service.watches.open == 5)
    shared = served.service.watches._shared
    await until(lambda: len(sent) >= 5)
    assert len(shared._initial) == 1
    assert max(sent) < 512 * 1024
    # One that goes on gets all.
    found = b""
    while found.count(b'"type":"ADDED"') < 160:
        found += await clients[0].take()
    for client in clients:
        client.close()
    # What raised where the client went may hold it for a moment.
    await until(lambda: not served.service.watches.open and not len(shared._initial))


async def test_a_watch_ends_when_its_client_goes_though_nothing_happens(
    serve: Serve,
) -> None:
    served = await serve(1000.0)
    client = Client(served.port, f"{PODS}?watch=1&fieldSelector=metadata.name%3Dpod-1")
    assert b"ADDED" in await client.rest(b"}\n\r\n")
    assert served.service.watches.open == 1
    client.close()
    await until(lambda: not served.service.watches.open)


async def test_first_pages_of_one_client_leave_the_pages_of_others(serve: Serve) -> None:
    served = await serve(1000.0, limits=SnapshotLimits(number=90))

    async def page(address: str, **query: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{served.port}{PODS}"
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url, params=query) as answer:
            assert answer.status == 200, await answer.text()
            return dict(await answer.json())

    first = await page("127.0.0.1", limit="1")
    for number in range(100):
        await page("127.0.0.2", limit="1", labelSelector=f"x!=v{number}")
    assert await served.metric("kubebraid_frozen_lists") == 90
    assert await served.metric("kubebraid_frozen_lists_bytes") > 0
    assert await served.metric("kubebraid_frozen_lists_evicted_total") == 11
    second = await page("127.0.0.1", limit="1", **{"continue": first["metadata"]["continue"]})
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
