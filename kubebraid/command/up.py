"""`kubebraid up`: everything in one process, on the clusters of a kubeconfig."""

from __future__ import annotations

import dataclasses

from deltalog import Access
from kubebraid.command import assembly, reporting
from kubebraid.command.doors import Doors
from kubebraid.command.options.access import with_access
from kubebraid.command.options.clusters import (
    Config,
    Contexts,
    Directory,
    Exclude,
    Include,
    Kubeconfig,
    MoreContexts,
    Namespaces,
    Prune,
    PruneLastApplied,
    RelistEvery,
    Selector,
    all_contexts,
    followed,
)
from kubebraid.command.options.doors import with_doors
from kubebraid.command.options.log import (
    Data,
    Deletions,
    DeletionsBytes,
    Events,
    EventsBytes,
    LogCompression,
    Nats,
    NatsPort,
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
from kubebraid.command.settings import BadSetting, Forward, Settings, parse_listen
from producers.rules.configuration import duration


@with_access
@with_doors
def command(
    access: Access,
    doors: Doors,
    more: MoreContexts = None,
    kubeconfig: Kubeconfig = None,
    context: Contexts = None,
    directory: Directory = None,
    listen: Listen = "127.0.0.1:8001",
    insecure_listen: InsecureListen = False,
    data: Data = None,
    snapshot: Snapshot = None,
    snapshot_every: SnapshotEvery = "10m",
    nats: Nats = None,
    nats_port: NatsPort = None,
    stream: Stream = "KUBEBRAID",
    prefix: Prefix = None,
    replicas: Replicas = None,
    events: Events = None,
    events_bytes: EventsBytes = None,
    log_compression: LogCompression = None,
    deletions: Deletions = 1_000_000,
    deletions_bytes: DeletionsBytes = "1Gi",
    include: Include = None,
    exclude: Exclude = None,
    namespace: Namespaces = None,
    selector: Selector = "",
    prune_last_applied: PruneLastApplied = False,
    prune: Prune = None,
    relist_every: RelistEvery = "30m",
    config: Config = None,
    forward: ForwardAs = Forward.CALLER,
    collections: Collections = None,
    window_memory: WindowMemory = None,
    not_ready_after: NotReadyAfter = "5m",
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """Serve the clusters of a kubeconfig: NATS, producers and query service in one process."""
    if not doors.secure and not insecure_listen:
        # Who is to be known needs https, for credentials; who listens for others, somebody to be known.
        local = parse_listen(listen, insecure=True).loopback
        doors = dataclasses.replace(doors, own=doors.guarded or not local)
    settings = Settings(
        nats=nats,
        access=access,
        nats_port=nats_port,
        data=data,
        snapshot=snapshot,
        snapshot_every=seconds_between_snapshots(snapshot_every),
        stream=stream,
        prefix=prefix,
        replicas=replicas,
        events=seconds_of_events(events),
        events_bytes=bytes_of_events(events_bytes),
        compression=log_compression,
        **followed(
            config=config,
            kubeconfig=kubeconfig,
            contexts=all_contexts(context, more),
            directory=directory,
            include=include,
            exclude=exclude,
            namespaces=namespace,
            selector=selector,
            last_applied=prune_last_applied,
            prune=prune,
            relist_every=relist_every,
        ),
        listen=parse_listen(listen, insecure=insecure_listen, doors=doors),
        doors=doors,
        forward=checked_forward(forward, listen, doors),
        collections=configured_collections(collections),
        window_memory=None if window_memory is None else size("--window-memory", window_memory),
        deletions=deletion_limits(deletions, deletions_bytes),
        not_ready_after=duration(not_ready_after),
    )
    if nats is not None and nats_port is not None:
        raise BadSetting("--nats-port is for the embedded NATS; leave it out with --nats")
    reporting.run(assembly.run(settings, produce=True, serve=True), log_level, log_json)
