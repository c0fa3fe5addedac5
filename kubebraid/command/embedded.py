"""The embedded NATS of a process that has one: its start, its restarts, and what is kept beside its files."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator

import structlog

from deltalog.jetstream.connection import Connection
from kubebraid.command.broker import EmbeddedBroker
from kubebraid.command.parts import Stopped
from kubebraid.command.settings import Settings, default_data
from producers.producer import producer_id

log = structlog.get_logger("kubebraid")

_DEFAULT_NATS_PORT = 4222
# An embedded server that ends within so many seconds of its start, so many times in a row, is given up.
_BROKER_STABLE = 2.0
_BROKER_PATIENCE = 4
# Seconds between looks at an embedded server that refuses, and the part of its disk that has to be free to go on.
_LOOK_FOR_ROOM, _LOOK_FOR_ROOM_LAST = 5.0, 300.0
_ROOM = 0.05


@contextlib.asynccontextmanager
async def nats_of(settings: Settings) -> AsyncIterator[tuple[str, EmbeddedBroker | None]]:
    """The URL of the NATS to use, and the embedded server if it is that."""
    if settings.nats is not None:
        yield settings.nats, None
        return
    data = settings.data or default_data()
    # The port other NATS clients try first, if it is free; which it was is said in the log.
    async with EmbeddedBroker(data, settings.nats_port or 0, preferred=_DEFAULT_NATS_PORT) as broker:
        yield broker.url, broker


def identity_of(broker: EmbeddedBroker | None) -> str:
    """Our name as a producer. With an embedded log it is kept beside it, so that after a crash our leases are ours."""
    if broker is None:
        return producer_id()
    path = broker.data / "producer-id"
    if not path.exists():
        path.write_text(producer_id())
    return path.read_text().strip() or producer_id()


async def guard(broker: EmbeddedBroker) -> None:
    """Starts the embedded server again when it ends; everything else waits for it meanwhile."""
    loop = asyncio.get_running_loop()
    quick = 0
    while True:
        started = loop.time()
        await broker.wait()
        quick = quick + 1 if loop.time() - started < _BROKER_STABLE else 0
        if quick > _BROKER_PATIENCE:
            raise Stopped(f"the embedded nats-server ends again and again; see {broker.data / 'nats' / 'nats.log'}")
        log.error("the embedded nats-server ended: starting it again")
        await broker.start()


async def unstick(broker: EmbeddedBroker, connection: Connection) -> None:
    """Ends a server that takes nothing in although there is room, so that it is started again.

    Once its disk was full, a server refuses until then; and how much it may store it reckons only when it starts.
    """
    pause = _LOOK_FOR_ROOM
    while True:
        await asyncio.sleep(pause)
        refusing = connection.append_health.refusing_for()
        if refusing is None:
            pause = _LOOK_FOR_ROOM
        elif refusing > _LOOK_FOR_ROOM:
            disk = await asyncio.to_thread(shutil.disk_usage, broker.data)
            if disk.free < disk.total * _ROOM:
                log.warning("the embedded NATS takes nothing in, and its disk is full", data=str(broker.data))
                continue
            log.warning("the embedded NATS takes nothing in though there is room: starting it again")
            await broker.stop()
            pause = min(pause * 2, _LOOK_FOR_ROOM_LAST)
