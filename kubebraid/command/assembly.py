"""The assembly: broker, producers, materializer and query service as tasks of one process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from deltalog import Access
from deltalog.history import History
from deltalog.jetstream.connection import Connection
from deltalog.jetstream.stream import Log
from deltalog.state_keeper import StateKeeper
from kubebraid import __version__
from kubebraid.command.announcing import announce
from kubebraid.command.broker import EmbeddedBroker
from kubebraid.command.doors import Doors
from kubebraid.command.embedded import guard, identity_of, nats_of, unstick
from kubebraid.command.entrance import asks_members, made_entrance
from kubebraid.command.health import append_checks, producer_application
from kubebraid.command.listening import LOOPBACK_NAMES, bind, served_at
from kubebraid.command.opening import GRACE, Opening
from kubebraid.command.own_authority import OwnAuthority
from kubebraid.command.parts import together
from kubebraid.command.reviews import ReviewServers
from kubebraid.command.settings import Address, Forward, Settings, default_data, log_settings
from kubebraid.command.upstreams import MemberServers
from kubebraid.command.worker_metrics import metrics_of_all, metrics_served
from kubebraid.command.workers import Ready, Worker, say_ready
from materializer.materializer import Materializer
from materializer.persistence import Away
from materializer.snapshot import Snapshots
from producers.members.membership import Members
from producers.producer import Producer, leases_bucket
from producers.rules.configuration import Configuration, Directory, Kubeconfig, Source, load
from query.search.collections import with_configured
from query.service import QueryService


async def run(settings: Settings, *, produce: bool, serve: bool, worker: Worker | None = None) -> None:
    """Runs what is wanted of it in this process until a signal comes: `produce` and `serve` are up; `worker`: as one of
    several that serve.

    Raises:
        BadSetting, BadConfiguration, BadKubeconfig, BadAccess: what was given cannot be used.
        BrokerError: the embedded NATS does not start.
        BrokerRefuses, LogError: NATS will not have us, or not this log.
        Stopped: a part ended that the rest needs.
    """
    opening = log_settings(settings)
    followed: Members | None = None
    if produce or settings.forward is not Forward.OFF or await asyncio.to_thread(asks_members, settings.doors):
        followed = Members(configuration_of(settings), settings.config)
        await followed.first()
    doors = settings.doors
    async with contextlib.AsyncExitStack() as stack:
        bound = None
        if settings.listen is not None:
            bound = bind(settings.listen, shared=worker is not None, listen=worker is None or not worker.wait)
            stack.callback(bound.close)
        url, broker = await stack.enter_async_context(nats_of(settings))
        access = settings.access if broker is None else Access()
        # While the embedded one is away, anybody's server may get its port.
        server = "" if broker is None else broker.name
        until = asyncio.get_running_loop().time() + GRACE
        parts: list[Callable[[], Awaitable[None]]] = []
        producer: Producer | None = None
        writing: Opening | None = None
        if doors.own:
            assert settings.listen is not None
            assert bound is not None
            listening = Address(settings.listen.host, bound.getsockname()[1], secure=True)
            own = await asyncio.to_thread(OwnAuthority, settings.data or default_data(), listening, doors.names)
            doors = own.guards(doors)
            parts.append(own.run)
        if followed is not None and not produce:
            parts.append(followed.run)
        if followed is not None and produce:
            # Its own connection: bulk appends must not stand in the way of what is being read.
            connection = Connection(url, name="kubebraid-produce", access=access, server=server)
            writing = await stack.enter_async_context(Opening(connection, opening, mend=True))
            producer = Producer(
                followed,
                writing.attempt,
                connection,
                identity=settings.identity or identity_of(broker),
                bucket=leases_bucket(settings.stream),
                deletions=settings.deletions.number,
            )
            parts.append(functools.partial(_produce, writing, producer))
            parts.append(functools.partial(_keep_state, writing))
            await writing.soon(until)
        service: QueryService | None = None
        address: Address | None = None
        first: Callable[[], Awaitable[None]] | None = None
        if serve:
            connection = Connection(url, name="kubebraid-serve", access=access, server=server)
            reading = await stack.enter_async_context(Opening(connection, opening))
            # With an embedded log, how far it came is kept outside the server's files, too: those may be set back.
            file = None if broker is None else broker.data / f"history-{opening.name}.json"
            snapshots = _snapshots(settings, broker, worker)
            materializer = await _materializer(reading, until, file, snapshots, settings)
            parts.append(materializer.run)
            if not produce and (worker is None or worker.number == 0):
                parts.append(functools.partial(_keep_state, reading))
            # After the last request has been answered.
            stack.push_async_callback(materializer.close)
            assert bound is not None
            assert settings.listen is not None
            reviews = await stack.enter_async_context(contextlib.aclosing(ReviewServers(followed)))
            entered = await stack.enter_async_context(made_entrance(doors, materializer, reviews))
            parts += entered.parts
            upstreams = None
            if followed is not None and settings.forward is not Forward.OFF:
                upstreams = await stack.enter_async_context(
                    contextlib.aclosing(MemberServers(followed, settings.forward, known_as=entered.known_as))
                )
            service = QueryService(
                materializer,
                __version__,
                lambda: () if producer is None else producer.members.current,
                hosts=LOOPBACK_NAMES if settings.listen.loopback else None,
                upstreams=upstreams,
                not_ready_after=settings.not_ready_after,
                entrance=entered.entrance,
                collections=with_configured(settings.collections),
                others=lambda: [*reading.checks(), *(() if producer is None else append_checks(producer))],
            )
            if producer is not None:
                service.metrics.also(producer.metrics.registry)
            if worker is not None:
                metrics = service.metrics
                await stack.enter_async_context(metrics_served(worker, metrics.text))
                metrics.gather = functools.partial(metrics_of_all, worker, metrics.text)
                parts.append(functools.partial(_work, service, bound, worker, doors))
                await together(*parts)
                return
            served = await stack.enter_async_context(served_at(service.application(), bound, service.close, doors))
            # Clients go elsewhere at once, not when all else has come to its end.
            address, first = served.address, served.end
        elif bound is not None and producer is not None and writing is not None:
            application = producer_application(producer, writing.checks)
            address = (await stack.enter_async_context(served_at(application, bound, doors=doors))).address
        if broker is not None:
            parts.append(lambda: guard(broker))
            if writing is not None:
                parts.append(functools.partial(unstick, broker, writing.connection))
        parts.append(lambda: announce(producer, service, address, url, settings.data if settings.doors.own else None))
        await together(*parts, first=first)


async def _produce(writing: Opening, producer: Producer) -> None:
    """Produces, from when the log can be written."""
    producer.leases.replicas = (await writing.wait()).replicas
    await producer.run()


async def _keep_state(opening: Opening) -> None:
    """Keeps the log's state stream, from when the log can be opened."""
    opened = await opening.wait()
    await StateKeeper(opened.connection, opened.name).run()


async def _work(service: QueryService, bound: socket.socket, worker: Worker, doors: Doors) -> None:
    """Serves as one of several workers; from the start, or once ready."""
    if worker.wait:
        await service.wait_ready()
        bound.listen(1024)
    async with served_at(service.application(), bound, service.close, doors):
        await service.wait_ready()
        clusters = service.readiness.clusters()
        say_ready(Ready(tuple(one.name for one in clusters), tuple(one.name for one in clusters if one.stale)))
        await asyncio.Event().wait()


def _snapshots(settings: Settings, broker: EmbeddedBroker | None, worker: Worker | None) -> Snapshots | None:
    directory = settings.snapshot
    if directory is None and broker is not None:
        directory = broker.data / "snapshot"
    if directory is None or not settings.snapshot_every:
        return None
    if worker is None:
        return Snapshots(directory, settings.snapshot_every)
    # Workers all hold the same.
    return Snapshots(directory, settings.snapshot_every, writes=worker.number == 0, shares=worker.count > 1)


async def _materializer(
    reading: Opening, until: float, file: Path | None, snapshots: Snapshots | None, settings: Settings
) -> Materializer:
    """Of the log; or, where that cannot be opened by `until`, of what a snapshot says of it, or of nothing yet.

    `file`: where it is kept how far the log came. `settings`: how much is remembered. Raises BadAccess, BrokerRefuses,
    LogError.
    """
    kept: dict[str, Any] = {"window": settings.window_memory, "deletions": settings.deletions}
    if (opened := await reading.soon(until)) is not None:
        return Materializer(opened, History(opened, file), snapshots, **kept)

    async def open_when_there() -> tuple[Log, History]:
        later = await reading.wait()
        return later, History(later, file)

    url, name = reading.connection.url, reading.settings.name
    alone = None if snapshots is None else await snapshots.read_alone(url, name)
    if alone is None:
        return Materializer(Log.unreached(url, name), None, snapshots, Away(None, open_when_there), **kept)
    assumed, restored = alone
    # NATS may refuse by then; but what is served already stays served, and that may be corrected meanwhile.
    reading.serving = True
    return Materializer(assumed, None, snapshots, Away(restored, open_when_there), **kept)


def configuration_of(settings: Settings) -> Configuration:
    """What to follow, from the configuration file or from options. Raises BadConfiguration."""
    if settings.config is not None:
        return load(settings.config)
    place: Kubeconfig | Directory = Kubeconfig(settings.kubeconfig or "", settings.contexts)
    if settings.directory is not None:
        place = Directory(str(settings.directory))
    source = Source(place, settings.rules)
    return Configuration((source,), settings.pruning, settings.relist_every)
