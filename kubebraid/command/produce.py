"""`kubebraid produce` and `relist`: producers alone, and asking those that run to compare lists now."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated

import msgspec
import typer
import uvloop
from nats.aio.msg import Msg

from deltalog import Access
from kubebraid.command import assembly, logs, reporting
from kubebraid.command.doors import Doors
from kubebraid.command.opening import connected
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
from kubebraid.command.options.doors import with_tls
from kubebraid.command.options.log import (
    Deletions,
    Events,
    EventsBytes,
    LogCompression,
    NatsUrl,
    Prefix,
    Replicas,
    Stream,
    bytes_of_events,
    seconds_of_events,
)
from kubebraid.command.options.process import LogJson, LogLevel
from kubebraid.command.options.serving import (
    InsecureListen,
)
from kubebraid.command.parts import Stopped
from kubebraid.command.settings import Settings, parse_listen
from materializer.forgetting import DeletionLimits
from producers.producer import Relist, Relisting, relist_subject

# Seconds to wait for the answers of producers, whose number is unknown: for the first, and for others behind it.
_FIRST_ANSWER, _MORE_ANSWERS = 15.0, 1.0


@with_access
@with_tls
def command(
    access: Access,
    doors: Doors,
    nats: NatsUrl,
    more: MoreContexts = None,
    kubeconfig: Kubeconfig = None,
    context: Contexts = None,
    directory: Directory = None,
    stream: Stream = "KUBEBRAID",
    prefix: Prefix = None,
    replicas: Replicas = None,
    events: Events = None,
    events_bytes: EventsBytes = None,
    log_compression: LogCompression = None,
    deletions: Deletions = 1_000_000,
    include: Include = None,
    exclude: Exclude = None,
    namespace: Namespaces = None,
    selector: Selector = "",
    prune_last_applied: PruneLastApplied = False,
    prune: Prune = None,
    relist_every: RelistEvery = "30m",
    config: Config = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where /metrics, /livez and /readyz are served.")
    ] = None,
    insecure_listen: InsecureListen = False,
    identity: Annotated[
        str | None,
        typer.Option("--id", metavar="NAME", help="This producer's name, unique among those running. [random]"),
    ] = None,
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """The producers alone: from the clusters of a kubeconfig into the log."""
    settings = Settings(
        nats=nats,
        access=access,
        stream=stream,
        prefix=prefix,
        replicas=replicas,
        events=seconds_of_events(events),
        events_bytes=bytes_of_events(events_bytes),
        compression=log_compression,
        deletions=DeletionLimits(number=deletions),
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
        identity=identity,
        listen=None if listen is None else parse_listen(listen, insecure=insecure_listen),
        doors=doors,
    )
    reporting.run(assembly.run(settings, produce=True, serve=False), log_level, log_json)


async def ask_to_relist(url: str, access: Access, stream: str, cluster: str, resource: str) -> list[Relisting]:
    """Asks all producers of a stream to compare lists now; their answers. Raises Stopped if there are none."""
    answers: list[Relisting] = []
    begun = asyncio.Event()
    async with connected(url, "kubebraid-relist", access) as connection:
        client = connection.client

        async def answered(message: Msg) -> None:
            # Without data it is the server, which says that no producer listens.
            if message.data:
                answers.append(msgspec.json.decode(message.data, type=Relisting))
            begun.set()

        inbox = client.new_inbox()
        await client.subscribe(inbox, cb=answered)
        await client.publish(relist_subject(stream), msgspec.json.encode(Relist(cluster, resource)), reply=inbox)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_ANSWER):
                await begun.wait()
        if answers:
            await asyncio.sleep(_MORE_ANSWERS)
    if not answers:
        raise Stopped(f"no producer of stream {stream} answers at {url}")
    return answers


@with_access
def relist(
    access: Access,
    nats: NatsUrl = "nats://127.0.0.1:4222",
    stream: Stream = "KUBEBRAID",
    cluster: Annotated[str, typer.Option(metavar="NAME", help="Clusters, with wildcards.")] = "*",
    resource: Annotated[str, typer.Option("--type", metavar="TYPE", help="Types, with wildcards.")] = "*",
) -> None:
    """Have the producers compare whole lists with the log now."""
    logs.configure("warning", json=False)
    answers = uvloop.run(ask_to_relist(nats, access, stream, cluster, resource))
    for answer in answers:
        typer.echo(f"{answer.producer}: comparing {answer.lists} lists of {answer.clusters} clusters")
