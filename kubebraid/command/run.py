"""The assembly: broker, producers, materializer and query service as tasks of one process."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import functools
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
from aiohttp import web
from nats.aio.msg import Msg

from deltalog import (
    Access,
    BrokerUnavailable,
    LogError,
    LogSettings,
    connect,
    open_log,
)
from deltalog.history import History
from deltalog.jetstream.connection import Connection
from deltalog.jetstream.stream import Log
from deltalog.mirror import Mirror, MirrorSettings
from kubebraid import __version__
from kubebraid.command import clusters as members
from kubebraid.command import progress
from kubebraid.command.broker import BrokerError, EmbeddedBroker
from kubebraid.command.health import append_checks, producer_application
from kubebraid.command.opening import GRACE, Opening
from kubebraid.command.settings import Address, BadSetting, Forward, Settings, default_data
from kubebraid.command.upstreams import MemberServers
from kubebraid.command.workers import Ready, Worker, Workers, metrics_of_all, metrics_served, reserve, say_ready
from kubebraid.route.router import Router
from materializer.materializer import Materializer
from materializer.persistence import Away
from materializer.snapshot import Snapshots
from materializer.versions import check_prefix
from producers.members.membership import Members
from producers.producer import Producer, Relist, Relisting, leases_bucket, producer_id, relist_subject
from producers.rules.configuration import Configuration, Directory, Kubeconfig, Source, load
from query.http.connections import Runner
from query.service import QueryService

log = structlog.get_logger("kubebraid")

_DEFAULT_NATS_PORT = 4222
# Connections that may wait to be taken; the system may allow fewer (net.core.somaxconn).
_BACKLOG = 4096
_LINE_LIMIT = 256 * 1024
# An embedded server that ends within so many seconds of its start, so many times in a row, is given up.
_BROKER_STABLE = 2.0
_BROKER_PATIENCE = 4
# Seconds between looks at an embedded server that refuses, and the part of its disk that has to be free to go on.
_LOOK_FOR_ROOM, _LOOK_FOR_ROOM_LAST = 5.0, 300.0
_ROOM = 0.05
# Seconds to wait for the answers of producers, whose number is unknown: for the first, and for others behind it.
_FIRST_ANSWER, _MORE_ANSWERS = 15.0, 1.0
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Stopped(Exception):
    """A part ended that the rest needs; one line."""


def log_settings(settings: Settings) -> LogSettings:
    """How the log is opened. Raises BadSetting."""
    if settings.prefix is not None:
        try:
            check_prefix(settings.prefix)
        except ValueError as cause:
            raise BadSetting(f"--prefix: {cause}") from None
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", settings.stream):
        raise BadSetting(f"--stream {settings.stream!r}: 1 to 64 letters, digits, - and _")
    return LogSettings(name=settings.stream, prefix=settings.prefix, replicas=settings.replicas)


@contextlib.asynccontextmanager
async def _broker(settings: Settings) -> AsyncIterator[tuple[str, EmbeddedBroker | None]]:
    """The URL of the NATS to use, and the embedded server if it is that."""
    if settings.nats is not None:
        yield settings.nats, None
        return
    data = settings.data or default_data()
    # The port other NATS clients try first, if it is free; which it was is said in the log.
    async with EmbeddedBroker(data, settings.nats_port or 0, preferred=_DEFAULT_NATS_PORT) as broker:
        yield broker.url, broker


@contextlib.asynccontextmanager
async def _connection(url: str, name: str, access: Access) -> AsyncIterator[Connection]:
    connection = await connect(url, name=name, access=access)
    try:
        yield connection
    finally:
        await connection.close()


def _bind(address: Address, worker: Worker | None = None) -> socket.socket:
    """The listening socket, bound before anything is started, so that a port in use is found out at once.

    A `worker` shares its address with others, and may listen later.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if worker is not None:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((address.host, address.port))
    except OSError as cause:
        bound.close()
        raise _cannot_listen(address, cause) from None
    if worker is None or not worker.wait:
        bound.listen(1024)
    return bound


def _cannot_listen(address: Address, cause: OSError) -> BadSetting:
    if cause.errno == errno.EADDRINUSE:
        return BadSetting(f"port {address.port} of {address.host} is in use; choose another with --listen HOST:PORT")
    return BadSetting(f"cannot listen on {address.host}:{address.port}: {cause.strerror or cause}")


class Served(NamedTuple):
    """What serves HTTP, and how to end that before all else."""

    address: Address
    end: Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def _served(
    application: web.Application, bound: socket.socket, close: Callable[[], None] | None = None
) -> AsyncIterator[Served]:
    """Serves while the block lasts, or until it is ended; `close` ends what would not end by itself."""
    runner = Runner(
        application,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=5.0,
        # Selectors that name hundreds of objects make long request lines.
        max_line_size=_LINE_LIMIT,
        max_field_size=_LINE_LIMIT,
    )
    await runner.setup()
    # All watchers of an instance that died connect at once.
    await web.SockSite(runner, bound, backlog=_BACKLOG).start()
    host, port = bound.getsockname()[:2]

    async def end() -> None:
        if close is not None:
            close()
        await runner.cleanup()

    try:
        yield Served(Address(host, port), end)
    finally:
        await end()


async def until_signal() -> None:
    """Returns at SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _together(*parts: Callable[[], Awaitable[None]], first: Callable[[], Awaitable[None]] | None = None) -> None:
    """Runs the parts until a signal comes or one of them ends; then ends the others and waits for them.

    `first`: what is to be over before them.
    """
    tasks = [asyncio.ensure_future(part()) for part in parts]
    stop = asyncio.ensure_future(until_signal())
    try:
        await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            log.info("stopping")
        if first is not None:
            await first()
    finally:
        for task in (stop, *tasks):
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [result for result in results if isinstance(result, Exception)]
    if failures:
        raise failures[0]


async def up(settings: Settings) -> None:
    """Everything in one process: embedded or given NATS, producers, materializer, query service."""
    await _run(settings, produce=True, serve=True)


async def produce(settings: Settings) -> None:
    """The producers alone, against a given NATS."""
    await _run(settings, produce=True, serve=False)


async def serve(settings: Settings) -> None:
    """The query service alone, against a given NATS."""
    await _run(settings, produce=False, serve=True)


async def serve_with_workers(settings: Settings, count: int, log_level: str, *, log_json: bool) -> None:
    """`serve` in several processes behind one address."""
    assert settings.listen is not None
    assert settings.nats is not None
    opening = log_settings(settings)
    try:
        reserved = reserve(settings.listen)
    except OSError as cause:
        raise _cannot_listen(settings.listen, cause) from None
    with contextlib.closing(reserved):
        # What keeps all of them from serving is said once; what is to be waited for, each waits for by itself.
        until = asyncio.get_running_loop().time() + GRACE
        async with Opening(
            Connection(settings.nats, name="kubebraid-serve", access=settings.access), opening
        ) as looking:
            await looking.soon(until)
        address = dataclasses.replace(settings.listen, port=reserved.getsockname()[1])

        def announce(ready: Ready) -> None:
            print(next_steps(address, list(ready.clusters), list(ready.stale)), flush=True)  # noqa: T201

        workers = Workers(
            dataclasses.replace(settings, listen=address), count, log_level, log_json=log_json, on_ready=announce
        )
        try:
            await _together(workers.run)
        except ChildProcessError as cause:
            raise Stopped(f"{cause}; its last line says why") from None


async def route(groups: Mapping[str, Sequence[str]], listen: Address) -> None:
    """The router alone, in front of groups of serving instances."""
    router = Router(groups, hosts=_LOOPBACK_NAMES if listen.loopback else None)
    with contextlib.closing(_bind(listen)) as bound:
        async with router.connected():

            async def serve() -> None:
                await router.first_looks()
                async with _served(router.application(), bound) as served:
                    log.info("routing", groups=list(groups), listen=served.address.url)
                    await asyncio.Event().wait()

            await _together(router.run, serve)


async def worker(worker: Worker, settings: Settings) -> None:
    """One of the processes of `serve_with_workers`."""
    await _run(settings, produce=False, serve=True, worker=worker)


async def relist(url: str, access: Access, stream: str, cluster: str, kind: str) -> list[Relisting]:
    """Asks all producers of a stream to compare lists now; their answers. Raises Stopped if there are none."""
    answers: list[Relisting] = []
    begun = asyncio.Event()
    async with _connection(url, "kubebraid-relist", access) as connection:
        client = connection.client

        async def answered(message: Msg) -> None:
            # Without data it is the server, which says that no producer listens.
            if message.data:
                answers.append(msgspec.json.decode(message.data, type=Relisting))
            begun.set()

        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=answered)
        await client.publish(relist_subject(stream), msgspec.json.encode(Relist(cluster, kind)), reply=inbox)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_ANSWER):
                await begun.wait()
        if answers:
            await asyncio.sleep(_MORE_ANSWERS)
    if not answers:
        raise Stopped(f"no producer of stream {stream} answers at {url}")
    return answers


async def mirror(url: str, access: Access, settings: MirrorSettings, *, once: bool) -> None:
    """Makes a mirror of a log and, unless `once`, keeps it. Raises LogError, BrokerUnavailable."""
    for option, name in (("--stream", settings.name), ("--from", settings.origin), ("--from-domain", settings.domain)):
        if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", name):
            raise BadSetting(f"{option} {name!r}: 1 to 64 letters, digits, - and _")
    async with _connection(url, "kubebraid-mirror", access) as connection:
        made = Mirror(connection, settings)
        await made.make()
        if not once:
            await _together(made.run)


async def clean(
    url: str, access: Access, settings: LogSettings, clusters: Sequence[str], kind: str | None, *, dry_run: bool
) -> list[members.Cleaned]:
    """Takes clusters that nobody follows out of the log. Raises as `members.clean` does."""
    async with _connection(url, "kubebraid-clean", access) as connection:
        log_ = await open_log(connection, settings, make=False)
        return await members.clean(connection, log_, clusters, kind, dry_run=dry_run)


async def _run(settings: Settings, *, produce: bool, serve: bool, worker: Worker | None = None) -> None:
    opening = log_settings(settings)
    followed: Members | None = None
    if produce or settings.forward is not Forward.OFF:
        followed = Members(_configuration(settings), settings.config)
        await followed.first()
    async with contextlib.AsyncExitStack() as stack:
        bound = None
        if settings.listen is not None:
            bound = _bind(settings.listen, worker)
            stack.callback(bound.close)
        url, broker = await stack.enter_async_context(_broker(settings))
        access = settings.access if broker is None else Access()
        until = asyncio.get_running_loop().time() + GRACE
        parts: list[Callable[[], Awaitable[None]]] = []
        producer: Producer | None = None
        writing: Opening | None = None
        if followed is not None and not produce:
            parts.append(followed.run)
        if followed is not None and produce:
            # Its own connection: bulk appends must not stand in the way of what is being read.
            connection = Connection(url, name="kubebraid-produce", access=access)
            writing = await stack.enter_async_context(Opening(connection, opening, mend=True))
            producer = Producer(
                followed,
                writing.attempt,
                connection,
                identity=settings.identity or _identity(broker),
                bucket=leases_bucket(settings.stream),
            )
            parts.append(functools.partial(_produce, writing, producer))
            await writing.soon(until)
        service: QueryService | None = None
        address: Address | None = None
        first: Callable[[], Awaitable[None]] | None = None
        if serve:
            connection = Connection(url, name="kubebraid-serve", access=access)
            reading = await stack.enter_async_context(Opening(connection, opening))
            # With an embedded log, how far it came is kept outside the server's files, too: those may be set back.
            file = None if broker is None else broker.data / f"history-{opening.name}.json"
            materializer = await _materializer(reading, until, file, _snapshots(settings, broker, worker))
            parts.append(materializer.run)
            # When nobody is served any more.
            stack.push_async_callback(materializer.close)
            assert bound is not None
            assert settings.listen is not None
            upstreams = None
            if followed is not None and settings.forward is not Forward.OFF:
                upstreams = await stack.enter_async_context(
                    contextlib.aclosing(MemberServers(followed, settings.forward))
                )
            service = QueryService(
                materializer,
                __version__,
                lambda: () if producer is None else producer.members.current,
                hosts=_LOOPBACK_NAMES if settings.listen.loopback else None,
                upstreams=upstreams,
                not_ready_after=settings.not_ready_after,
                others=lambda: [*reading.checks(), *(() if producer is None else append_checks(producer))],
            )
            if producer is not None:
                service.metrics.also(producer.metrics.registry)
            if worker is not None:
                metrics = service.metrics
                await stack.enter_async_context(metrics_served(worker, metrics.text))
                metrics.gather = functools.partial(metrics_of_all, worker, metrics.text)
                parts.append(functools.partial(_work, service, bound, worker))
                await _together(*parts)
                return
            served = await stack.enter_async_context(_served(service.application(), bound, service.close))
            # Clients go elsewhere at once, not when all else has come to its end.
            address, first = served.address, served.end
        elif bound is not None and producer is not None and writing is not None:
            application = producer_application(producer, writing.checks)
            address = (await stack.enter_async_context(_served(application, bound))).address
        if broker is not None:
            parts.append(lambda: _guard(broker))
            if writing is not None:
                parts.append(functools.partial(_unstick, broker, writing.connection))
        parts.append(lambda: _announce(producer, writing, service, address, url))
        await _together(*parts, first=first)


def _snapshots(settings: Settings, broker: EmbeddedBroker | None, worker: Worker | None) -> Snapshots | None:
    directory = settings.snapshot
    if directory is None and broker is not None:
        directory = broker.data / "snapshot"
    if directory is None or not settings.snapshot_every:
        return None
    # Workers all hold the same.
    return Snapshots(directory, settings.snapshot_every, writes=worker is None or worker.number == 0)


async def _materializer(reading: Opening, until: float, file: Path | None, snapshots: Snapshots | None) -> Materializer:
    """Of the log; or, where that cannot be opened by `until`, of what a snapshot says of it, or of nothing yet.

    `file`: where it is kept how far the log came. Raises BadAccess, BrokerRefuses, LogError.
    """
    if (opened := await reading.soon(until)) is not None:
        return Materializer(opened, History(opened, file), snapshots)

    async def open_when_there() -> tuple[Log, History]:
        later = await reading.wait()
        return later, History(later, file)

    url, name = reading.connection.url, reading.settings.name
    alone = None if snapshots is None else await snapshots.read_alone(url, name)
    if alone is None:
        return Materializer(Log.away(url, name), None, snapshots, Away(None, open_when_there))
    assumed, restored = alone
    # Who is waited for may say by now that it will not do; but what is served is served, and may be mended.
    reading.serving = True
    return Materializer(assumed, None, snapshots, Away(restored, open_when_there))


def _configuration(settings: Settings) -> Configuration:
    """What to follow, from the configuration file or from options. Raises BadConfiguration."""
    if settings.config is not None:
        return load(settings.config)
    place: Kubeconfig | Directory = Kubeconfig(settings.kubeconfig or "", settings.contexts)
    if settings.directory is not None:
        place = Directory(str(settings.directory))
    source = Source(place, settings.rules)
    return Configuration((source,), settings.pruning, settings.relist_every)


def _identity(broker: EmbeddedBroker | None) -> str:
    """Our name as a producer. With an embedded log it is kept beside it, so that after a crash our leases are ours."""
    if broker is None:
        return producer_id()
    path = broker.data / "producer-id"
    if not path.exists():
        path.write_text(producer_id())
    return path.read_text().strip() or producer_id()


async def _guard(broker: EmbeddedBroker) -> None:
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


async def _unstick(broker: EmbeddedBroker, connection: Connection) -> None:
    """Ends a server that takes nothing in although there is room, so that it is started again.

    Once its disk was full, a server refuses until then; and how much it may store it reckons only when it starts.
    """
    pause = _LOOK_FOR_ROOM
    while True:
        await asyncio.sleep(pause)
        refusing = connection.intake.since()
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


async def _work(service: QueryService, bound: socket.socket, worker: Worker) -> None:
    """Serves as one of several workers; from the start, or once ready."""
    if worker.wait:
        await service.wait_ready()
        bound.listen(1024)
    async with _served(service.application(), bound, service.close):
        await service.wait_ready()
        clusters = service.readiness.clusters()
        say_ready(Ready(tuple(one.name for one in clusters), tuple(one.name for one in clusters if one.stale)))
        await asyncio.Event().wait()


async def _produce(writing: Opening, producer: Producer) -> None:
    """Produces, from when the log can be written."""
    producer.leases.replicas = (await writing.wait()).replicas
    await producer.run()


async def _announce(
    producer: Producer | None,
    writing: Opening | None,
    service: QueryService | None,
    address: Address | None,
    url: str,
) -> None:
    """Shows progress until ready, then says what to try next, once."""
    assert producer is not None or service is not None
    if producer is not None and writing is not None:
        # Behind `_produce`, which waits for the same: by now the producer has its clusters.
        await writing.wait()
        await progress.show(producer, service.wait_ready() if service is not None else producer.first_lists())
    elif service is not None:
        await service.wait_ready()
    if service is not None and address is not None:
        clusters = service.readiness.clusters()
        stale = [cluster.name for cluster in clusters if cluster.stale is not None]
        log.info("ready", clusters=len(clusters), stale=stale or None, listen=address.url)
        print(next_steps(address, [cluster.name for cluster in clusters], stale), flush=True)  # noqa: T201
    else:
        log.info("all first lists are in the log", nats=url, listen=None if address is None else address.url)
    await asyncio.Event().wait()


def next_steps(address: Address, clusters: list[str], stale: list[str]) -> str:
    """What a newcomer can type now."""
    lines = [f"\nkubebraid serves {len(clusters)} cluster{'' if len(clusters) == 1 else 's'} at {address.url}"]
    if stale:
        lines.append(f"  stale (taken in as soon as they answer): {', '.join(stale)}")
    lines.append("  try:")
    lines.append(f"    kubectl --server {address.url} get pods -A")
    if clusters:
        lines.append(f"    kubectl --server {address.url}/clusters/{clusters[0]} get deployments -A")
    lines.append(f"    kubebraid kubeconfig --server {address.url} > kubebraid.kubeconfig")
    return "\n".join(lines) + "\n"


FAILURES = (BadSetting, BrokerError, BrokerUnavailable, LogError, Stopped)
