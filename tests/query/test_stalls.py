"""Clients that take nothing are left, those that take slowly are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from query.connections import Runner
from query.stalls import Stalls

PIECE = b"x" * 256 * 1024


class Scene:
    def __init__(self, patience: float) -> None:
        self.stalls = Stalls(Counter("stalled", "", registry=CollectorRegistry()), patience, 0.05)
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.timeout: float | None = None
        self.port = 0

    @property
    def count(self) -> float:
        return self.stalls._count._value.get()

    async def answer(self, http: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        try:
            with self.stalls.watching(http, self.timeout) as sending:
                send = sending.patiently(response.write)
                for _ in range(64):
                    await send(PIECE)
                await sending.patiently(response.write_eof)(b"")
        except ConnectionError:
            self.ended.put_nowait("broken off")
            raise
        self.ended.put_nowait("complete")
        return response


@pytest.fixture
async def scene():
    made = Scene(patience=0.5)
    application = web.Application()
    application.router.add_get("/", made.answer)
    runner = Runner(application, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def asked(port: int) -> socket.socket:
    """A connection on which the request was sent, with a small buffer for the answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    client.connect(("127.0.0.1", port))
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.setblocking(False)
    return client


async def test_who_takes_nothing_is_left(scene) -> None:
    with contextlib.closing(asked(scene.port)) as client:
        assert await asyncio.wait_for(scene.ended.get(), 20) == "broken off"
        assert scene.count == 1
        assert not scene.stalls._open
        # It was no proper end.
        loop = asyncio.get_running_loop()
        taken = b""
        with contextlib.suppress(ConnectionResetError):
            while data := await loop.sock_recv(client, 2**20):
                taken += data
        assert not taken.endswith(b"0\r\n\r\n")


async def test_who_takes_slowly_gets_all(scene) -> None:
    """Far longer than one piece may take, but each piece in time."""
    with contextlib.closing(asked(scene.port)) as client:
        loop = asyncio.get_running_loop()
        taken, pauses = 0, 0
        while taken < 64 * len(PIECE):
            if data := await loop.sock_recv(client, 2**16):
                taken += len(data)
            if taken // (8 * len(PIECE)) > pauses:
                pauses += 1
                await asyncio.sleep(0.2)
        assert await asyncio.wait_for(scene.ended.get(), 20) == "complete"
        assert scene.count == 0


async def test_a_watch_whose_time_is_over_ends_though_nobody_takes_it(scene) -> None:
    scene.stalls._patience = 1000.0
    scene.timeout = 0.3
    with contextlib.closing(asked(scene.port)):
        assert await asyncio.wait_for(scene.ended.get(), 20) == "broken off"
        assert scene.count == 1


async def test_who_goes_away_is_no_stall(scene) -> None:
    asked(scene.port).close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(scene.ended.get(), 2)
    assert scene.count == 0
    assert not scene.stalls._open
