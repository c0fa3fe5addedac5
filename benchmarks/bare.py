"""Bare servers and readers: the least that the same libraries need for the same bytes. The baselines."""

from __future__ import annotations

import asyncio
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import msgspec
import nats
from aiohttp import web
from nats.aio.msg import Msg

from benchmarks.rig import until_closed
from kubebraid.command.broker import free_port


async def _serve(pipe: Pipe, application: web.Application, port: int) -> web.AppRunner:
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    pipe.send(port)
    return runner


async def serve_joins(pipe: Pipe, documents: Path) -> None:
    """Serves `/<name>` as one join of stored pieces for each request.

    `documents`: a msgpack map from names to pieces.
    """
    held = msgspec.msgpack.decode(documents.read_bytes(), type=dict[str, list[bytes]])

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=b"".join(held[request.match_info["name"]]), content_type="application/json")

    application = web.Application()
    application.router.add_get("/{name}", answer)
    runner = await _serve(pipe, application, free_port())
    await until_closed(pipe)
    await runner.cleanup()


async def serve_lines(pipe: Pipe, lines: Path, rate: int) -> None:
    """Writes the same encoded lines to all that are connected, `rate` a second, one write for each line and client.

    Told to go on its pipe, it writes, and then sends when it began to write each line (monotonic seconds).
    """
    encoded = msgspec.msgpack.decode(lines.read_bytes(), type=list[bytes])
    clients: list[web.StreamResponse] = []
    over = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "application/json"
        response.enable_chunked_encoding()
        await response.prepare(request)
        clients.append(response)
        await over.wait()
        return response

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = await _serve(pipe, application, free_port())
    await asyncio.to_thread(pipe.recv)
    loop = asyncio.get_running_loop()
    started = loop.time()
    written: list[float] = []
    for number, line in enumerate(encoded):
        if (early := started + number / rate - loop.time()) > 0:
            await asyncio.sleep(early)
        written.append(time.monotonic())
        for client in clients:
            await client.write(line)
    pipe.send(written)
    await until_closed(pipe)
    over.set()
    await runner.cleanup()


async def read_ordered(pipe: Pipe, url: str, stream: str, messages: int) -> None:
    """nats-py's ordered consumer with a callback that only counts, until there were so many.

    Sends messages, seconds, CPU seconds.
    """
    client = await nats.connect(url)
    over = asyncio.Event()
    count = 0

    async def received(message: Msg) -> None:
        nonlocal count
        count += 1
        if count == messages:
            over.set()

    started, cpu = time.perf_counter(), time.process_time()
    await client.jetstream().subscribe(
        ">", stream=stream, ordered_consumer=True, cb=received, pending_msgs_limit=-1, pending_bytes_limit=-1
    )
    await over.wait()
    pipe.send((count, time.perf_counter() - started, time.process_time() - cpu))
    await client.close()


async def publish(pipe: Pipe, url: str, messages: Path, window: int) -> None:
    """A pipelined publish over one reply inbox: at most `window` messages unacknowledged.

    Sends messages, seconds, CPU seconds.
    """
    held = msgspec.msgpack.decode(messages.read_bytes(), type=list[tuple[str, bytes]])
    client = await nats.connect(url, pending_size=16 * 1024 * 1024)
    inbox = client.new_inbox()
    outstanding = 0
    room = asyncio.Event()

    async def acknowledged(message: Msg) -> None:
        nonlocal outstanding
        outstanding -= 1
        room.set()
        if b'"error"' in message.data:
            raise RuntimeError(message.data.decode())

    await client.subscribe(inbox, cb=acknowledged)
    started, cpu = time.perf_counter(), time.process_time()
    for subject, payload in held:
        while outstanding >= window:
            room.clear()
            await room.wait()
        outstanding += 1
        await client.publish(subject, payload, reply=inbox)
    while outstanding:
        room.clear()
        await room.wait()
    pipe.send((len(held), time.perf_counter() - started, time.process_time() - cpu))
    await client.close()
