"""`kubebraid serve`: the query service alone, in one process or in several behind one address."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Annotated

import typer

from deltalog import Access
from deltalog.jetstream.connection import Connection
from kubebraid.command import assembly, reporting
from kubebraid.command.announcing import next_steps
from kubebraid.command.doors import Doors
from kubebraid.command.entrance import asks_members
from kubebraid.command.listening import cannot_listen, reserve
from kubebraid.command.opening import GRACE, Opening
from kubebraid.command.options.access import with_access
from kubebraid.command.options.clusters import (
    Config,
    Contexts,
    Directory,
    Kubeconfig,
    MoreContexts,
    all_contexts,
    one_place,
)
from kubebraid.command.options.doors import with_doors
from kubebraid.command.options.log import (
    Deletions,
    DeletionsBytes,
    Events,
    EventsBytes,
    LogCompression,
    NatsUrl,
    Prefix,
    Replicas,
    Stream,
    bytes_of_events,
    deletion_limits,
    seconds_of_events,
)
from kubebraid.command.options.process import LogJson, LogLevel
from kubebraid.command.options.serving import (
    Collections,
    ForwardAs,
    InsecureListen,
    Listen,
    NotReadyAfter,
    Snapshot,
    SnapshotEvery,
    WindowMemory,
    checked_forward,
    configured_collections,
    seconds_between_snapshots,
)
from kubebraid.command.options.sizes import size
from kubebraid.command.parts import Stopped, together
from kubebraid.command.settings import Address, BadSetting, Forward, Settings, log_settings, parse_listen
from kubebraid.command.workers import Ready, Workers
from producers.rules.configuration import duration


@with_access
@with_doors
def command(
    access: Access,
    doors: Doors,
    nats: NatsUrl,
    more: MoreContexts = None,
    listen: Listen = "127.0.0.1:8001",
    insecure_listen: InsecureListen = False,
    snapshot: Snapshot = None,
    snapshot_every: SnapshotEvery = "10m",
    stream: Stream = "KUBEBRAID",
    prefix: Prefix = None,
    replicas: Replicas = None,
    events: Events = None,
    events_bytes: EventsBytes = None,
    log_compression: LogCompression = None,
    deletions: Deletions = 1_000_000,
    deletions_bytes: DeletionsBytes = "1Gi",
    forward: ForwardAs = Forward.OFF,
    kubeconfig: Kubeconfig = None,
    context: Contexts = None,
    directory: Directory = None,
    config: Config = None,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, max=64, help="Processes behind the address, each with all objects.")
    ] = 1,
    collections: Collections = None,
    window_memory: WindowMemory = None,
    not_ready_after: NotReadyAfter = "5m",
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """The query service alone: from the log to the Kubernetes API."""
    contexts = all_contexts(context, more)
    asked = forward is not Forward.OFF or asks_members(doors)
    if not asked and (kubeconfig or contexts or directory or config):
        raise BadSetting("clusters are named to `serve` for --forward and for reviews by them; add --forward caller")
    if config is not None and (kubeconfig or contexts or directory):
        raise BadSetting("--kubeconfig, --context and --directory are said in the file where --config is given")
    one_place(kubeconfig, contexts, directory)
    settings = Settings(
        nats=nats,
        access=access,
        snapshot=snapshot,
        snapshot_every=seconds_between_snapshots(snapshot_every),
        stream=stream,
        prefix=prefix,
        replicas=replicas,
        events=seconds_of_events(events),
        events_bytes=bytes_of_events(events_bytes),
        compression=log_compression,
        kubeconfig=kubeconfig,
        contexts=contexts,
        directory=directory,
        config=config,
        listen=parse_listen(listen, insecure=insecure_listen, doors=doors),
        doors=doors,
        forward=checked_forward(forward, listen, doors),
        collections=configured_collections(collections),
        window_memory=None if window_memory is None else size("--window-memory", window_memory),
        deletions=deletion_limits(deletions, deletions_bytes),
        not_ready_after=duration(not_ready_after),
    )
    if workers > 1 and doors.audit is not None and doors.audit.path is None:
        raise BadSetting("--audit-log-path: workers have no standard output of their own; give a file")
    if workers > 1:
        reporting.run(serve_with_workers(settings, workers, log_level, log_json=log_json), log_level, log_json)
    else:
        reporting.run(assembly.run(settings, produce=False, serve=True), log_level, log_json)


async def serve_with_workers(settings: Settings, count: int, log_level: str, *, log_json: bool) -> None:
    """`serve` in several processes behind one address."""
    assert settings.listen is not None
    assert settings.nats is not None
    opening = log_settings(settings)
    try:
        reserved = reserve(settings.listen)
    except OSError as cause:
        raise cannot_listen(settings.listen, cause) from None
    with contextlib.closing(reserved):
        # What keeps all of them from serving is said once; what is to be waited for, each waits for by itself.
        until = asyncio.get_running_loop().time() + GRACE
        async with Opening(
            Connection(settings.nats, name="kubebraid-serve", access=settings.access), opening
        ) as looking:
            await looking.soon(until)
        # What cannot be used is said once, not by each of them.
        settings.doors.serving_context()
        address = Address(settings.listen.host, reserved.getsockname()[1], settings.doors.secure)

        def announce(ready: Ready) -> None:
            print(next_steps(address, list(ready.clusters), list(ready.stale)), flush=True)  # noqa: T201

        workers = Workers(
            dataclasses.replace(settings, listen=address), count, log_level, log_json=log_json, on_ready=announce
        )
        try:
            await together(workers.run)
        except ChildProcessError as cause:
            raise Stopped(f"{cause}; its last line says why") from None
