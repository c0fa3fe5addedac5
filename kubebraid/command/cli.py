"""The command line."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer
import uvloop

from deltalog import Access, BadAccess, BadPlace, BadSelection, Forgotten, HistoryChanged, select
from deltalog.mirror import MirrorSettings
from kubebraid import __version__
from kubebraid.command import clusters as members
from kubebraid.command import demo as demonstration
from kubebraid.command import locate as finding
from kubebraid.command import logs, run
from kubebraid.command import replay as copying
from kubebraid.command import status as condition
from kubebraid.command import tail as tailing
from kubebraid.command.kubeconfig import render
from kubebraid.command.nats_options import with_access
from kubebraid.command.option_names import in_options
from kubebraid.command.settings import BadSetting, Forward, Settings, parse_listen
from kubebraid.command.workers import Worker
from kubebraid.route.groups import parse_groups
from producers.follow.ownership import Deposed
from producers.rules.configuration import BadConfiguration, duration
from producers.rules.pruning import BadPointer, Pruning
from producers.rules.rules import BadRule, Rules, type_pattern
from producers.upstream.kubeconfig import BadKubeconfig

# Whether typer depends on click or brings its own differs by version; this is the UsageError of the one it uses.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="Many Kubernetes clusters, one ordered stream, one API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Kubeconfig = Annotated[
    str | None, typer.Option(metavar="F", help="Kubeconfig of the member clusters. [$KUBECONFIG, ~/.kube/config]")
]
Contexts = Annotated[
    list[str] | None,
    typer.Option("--context", metavar="NAME ...", help="Contexts to take as clusters; all of them if not given."),
]
Directory = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="A cluster for each kubeconfig there, instead (see `kubebraid clusters add`)."),
]
MoreContexts = Annotated[list[str] | None, typer.Argument(hidden=True)]
Listen = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the API is served.")]
InsecureListen = Annotated[bool, typer.Option(help="Allow another address than loopback, without authentication.")]
Data = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the embedded NATS keeps the log. [~/.local/share/kubebraid]")
]
Snapshot = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where what is served is kept for the next start. [up: snapshot, below --data]"),
]
SnapshotEvery = Annotated[
    str, typer.Option(metavar="TIME", help="How often that is written, beside at the end; 0: no snapshots.")
]
Nats = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="A running NATS with JetStream instead of the embedded; several URLs with commas."
    ),
]
NatsUrl = Annotated[str, typer.Option(metavar="URL", help="NATS with JetStream; several URLs with commas.")]
NatsPort = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=65535, help="Port of the embedded NATS on loopback. [4222, or a free one]"),
]
Stream = Annotated[str, typer.Option(metavar="NAME", help="JetStream stream that holds the log.")]
Replicas = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=5, help="NATS servers that each hold the log; 3 outlive the loss of one. [1]"),
]
Prefix = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        envvar="MEMORY_STORAGE_RESOURCE_VERSION_PREFIX",
        help="Name of the history for a stream made now. [8 random characters]",
    ),
]
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TYPE", help="Types to sync: pods, deployments.apps, *.apps, *. Secrets and events only by name."
    ),
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="TYPE", help="Types not to sync; `noise`: leases, events and their like.")
]
Namespaces = Annotated[
    list[str] | None,
    typer.Option("--namespace", metavar="NAME", help="Namespaces to sync objects of: shop, team-*, '!kube-system'."),
]
Selector = Annotated[str, typer.Option(metavar="LABELS", help="Label selector of the objects to sync.")]
PruneLastApplied = Annotated[bool, typer.Option("--prune-last-applied", help="Leave kubectl's last-applied out.")]
Prune = Annotated[
    list[str] | None,
    typer.Option(metavar="TYPE=/POINTER", help="Values to leave out, their keys stay: secrets=/data"),
]
RelistEvery = Annotated[
    str, typer.Option(metavar="TIME", help="How often whole lists are compared with the log; 0: never.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="YAML that says clusters, types and pruning instead; read again when it changes."
    ),
]
ForwardAs = Annotated[
    Forward,
    typer.Option(
        "--forward",
        help="As whom writes, logs and exec below /clusters/<cluster> are passed on: the caller, the kubeconfig's "
        "user, or not at all.",
    ),
]
NotReadyAfter = Annotated[
    str,
    typer.Option(
        metavar="TIME",
        help="Without word of the log for so long, /readyz is 503: others are to be asked; 0: never.",
    ),
]
Server = Annotated[str, typer.Option(metavar="URL", help="The running service.")]
NatsRunning = Annotated[str | None, typer.Option(metavar="URL", help="The NATS that has the log. [as --data]")]
DataRunning = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where a running `kubebraid up` keeps its log. [~/.local/share/kubebraid, else NATS at port 4222]",
    ),
]
OfClusters = Annotated[
    list[str] | None,
    typer.Option("--cluster", metavar="NAME", help="Only of this cluster; may be repeated."),
]
OfTypes = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="TYPE", help="pods, deployments.apps, *.apps, deploy, ..."),
]
OfNamespaces = Annotated[list[str] | None, typer.Option("--namespace", "-n", metavar="NAME", help="Only in it.")]
OfNames = Annotated[list[str] | None, typer.Option("--name", metavar="NAME", help="Only objects of this name.")]
OfLabels = Annotated[str, typer.Option("--selector", "-l", metavar="LABELS", help="Label selector.")]
_WHEN = "Behind an index or version, or since: 10m, 2026-01-31T12:00:00Z, beginning."
LogLevel = Annotated[str, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")]
LogJson = Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")]


def _contexts(named: list[str] | None, more: list[str] | None) -> tuple[str, ...]:
    """`--context a b` and `--context a --context b` are the same."""
    if more and not named:
        raise BadSetting(f"unexpected argument {more[0]!r}")
    return (*(named or ()), *(more or ()))


def _followed(
    *,
    config: Path | None,
    kubeconfig: str | None,
    contexts: tuple[str, ...],
    directory: Path | None,
    include: list[str] | None,
    exclude: list[str] | None,
    namespaces: list[str] | None,
    selector: str,
    last_applied: bool,
    prune: list[str] | None,
    relist_every: str,
) -> dict[str, Any]:
    """The settings that say what is followed: a file says all of it, or the options do."""
    if config is not None:
        options = {
            "--kubeconfig": kubeconfig,
            "--context": contexts,
            "--directory": directory,
            "--include": include,
            "--exclude": exclude,
            "--namespace": namespaces,
            "--selector": selector,
            "--prune-last-applied": last_applied,
            "--prune": prune,
        }
        for name, value in options.items():
            if value:
                raise BadSetting(f"{name} is said in the file where --config is given")
        return {"config": config}
    _one_place(kubeconfig, contexts, directory)
    pointers = []
    for text in prune or ():
        title, equals, pointer = text.partition("=")
        if not equals:
            raise BadSetting(f"--prune {text!r}: write TYPE=/POINTER, as in secrets=/data")
        type_pattern(title)
        pointers.append((title, (pointer,)))
    return {
        "kubeconfig": kubeconfig,
        "contexts": contexts,
        "directory": directory,
        "rules": Rules.of(include or ("*",), exclude or (), namespaces=namespaces or (), selector=selector),
        "pruning": Pruning(last_applied=last_applied, pointers=tuple(pointers)),
        "relist_every": duration(relist_every),
    }


def _one_place(kubeconfig: str | None, contexts: tuple[str, ...], directory: Path | None) -> None:
    if directory is not None and (kubeconfig or contexts):
        raise BadSetting("--directory stands instead of --kubeconfig and --context; a file with both goes by --config")


def _forward(forward: Forward, listen: str) -> Forward:
    """Raises BadSetting where strangers would act as us."""
    if forward is Forward.CONFIGURED and not parse_listen(listen, insecure=True).loopback:
        raise BadSetting(
            f"--forward configured with --listen {listen}: everybody there could act as the kubeconfig's user; "
            "listen on loopback, or use --forward caller"
        )
    return forward


def _snapshot_every(text: str) -> float:
    """Raises BadSetting, BadConfiguration."""
    seconds = duration(text)
    if 0 < seconds < 1:
        raise BadSetting(f"--snapshot-every {text}: 1s is the least, 0 is never")
    return seconds


def _run(main: Coroutine[Any, Any, None], level: str, json_lines: bool) -> None:
    if level not in ("debug", "info", "warning", "error"):
        main.close()
        raise BadSetting(f"--log-level {level!r}: debug, info, warning or error")
    logs.configure(level, json=json_lines)
    uvloop.run(main)


@app.command()
@with_access
def up(
    access: Access,
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
    include: Include = None,
    exclude: Exclude = None,
    namespace: Namespaces = None,
    selector: Selector = "",
    prune_last_applied: PruneLastApplied = False,
    prune: Prune = None,
    relist_every: RelistEvery = "30m",
    config: Config = None,
    forward: ForwardAs = Forward.CALLER,
    not_ready_after: NotReadyAfter = "5m",
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """Serve the clusters of a kubeconfig: NATS, producers and query service in one process."""
    settings = Settings(
        nats=nats,
        access=access,
        nats_port=nats_port,
        data=data,
        snapshot=snapshot,
        snapshot_every=_snapshot_every(snapshot_every),
        stream=stream,
        prefix=prefix,
        replicas=replicas,
        **_followed(
            config=config,
            kubeconfig=kubeconfig,
            contexts=_contexts(context, more),
            directory=directory,
            include=include,
            exclude=exclude,
            namespaces=namespace,
            selector=selector,
            last_applied=prune_last_applied,
            prune=prune,
            relist_every=relist_every,
        ),
        listen=parse_listen(listen, insecure=insecure_listen),
        forward=_forward(forward, listen),
        not_ready_after=duration(not_ready_after),
    )
    if nats is not None and nats_port is not None:
        raise BadSetting("--nats-port is for the embedded NATS; leave it out with --nats")
    _run(run.up(settings), log_level, log_json)


@app.command()
def demo(
    clusters: Annotated[int, typer.Option(min=1, max=200, help="Simulated clusters.")] = 3,
    pods: Annotated[int, typer.Option(min=1, help="Pods of each cluster.")] = 200,
    churn: Annotated[float, typer.Option(min=0, help="Changes a second in each cluster.")] = 2.0,
    listen: Listen = "127.0.0.1:8001",
    insecure_listen: InsecureListen = False,
    data: Data = None,
    nats: Nats = None,
    nats_port: NatsPort = None,
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """The same as `up`, on simulated clusters."""
    settings = Settings(
        nats=nats,
        nats_port=nats_port,
        data=data,
        listen=parse_listen(listen, insecure=insecure_listen),
        forward=Forward.CALLER,
    )
    _run(demonstration.demo(settings, clusters=clusters, pods=pods, churn=churn), log_level, log_json)


@app.command()
def simulate(
    write_kubeconfig: Annotated[Path, typer.Option(metavar="F", help="Where to write a kubeconfig for them.")],
    clusters: Annotated[int, typer.Option(min=1, max=200, help="Simulated clusters.")] = 3,
    pods: Annotated[int, typer.Option(min=1, help="Pods of each cluster.")] = 200,
    churn: Annotated[float, typer.Option(min=0, help="Changes a second in each cluster.")] = 2.0,
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """Simulated member clusters alone, until stopped."""
    _run(demonstration.simulated_clusters()(clusters, pods, churn, write_kubeconfig), log_level, log_json)


@app.command()
@with_access
def produce(
    access: Access,
    nats: NatsUrl,
    more: MoreContexts = None,
    kubeconfig: Kubeconfig = None,
    context: Contexts = None,
    directory: Directory = None,
    stream: Stream = "KUBEBRAID",
    prefix: Prefix = None,
    replicas: Replicas = None,
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
        **_followed(
            config=config,
            kubeconfig=kubeconfig,
            contexts=_contexts(context, more),
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
    )
    _run(run.produce(settings), log_level, log_json)


@app.command()
@with_access
def serve(
    access: Access,
    nats: NatsUrl,
    more: MoreContexts = None,
    listen: Listen = "127.0.0.1:8001",
    insecure_listen: InsecureListen = False,
    snapshot: Snapshot = None,
    snapshot_every: SnapshotEvery = "10m",
    stream: Stream = "KUBEBRAID",
    prefix: Prefix = None,
    replicas: Replicas = None,
    forward: ForwardAs = Forward.OFF,
    kubeconfig: Kubeconfig = None,
    context: Contexts = None,
    directory: Directory = None,
    config: Config = None,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, max=64, help="Processes behind the address, each with all objects.")
    ] = 1,
    not_ready_after: NotReadyAfter = "5m",
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """The query service alone: from the log to the Kubernetes API."""
    contexts = _contexts(context, more)
    if forward is Forward.OFF and (kubeconfig or contexts or directory or config):
        raise BadSetting("clusters are named to `serve` for --forward caller or --forward configured; add that")
    if config is not None and (kubeconfig or contexts or directory):
        raise BadSetting("--kubeconfig, --context and --directory are said in the file where --config is given")
    _one_place(kubeconfig, contexts, directory)
    settings = Settings(
        nats=nats,
        access=access,
        snapshot=snapshot,
        snapshot_every=_snapshot_every(snapshot_every),
        stream=stream,
        prefix=prefix,
        replicas=replicas,
        kubeconfig=kubeconfig,
        contexts=contexts,
        directory=directory,
        config=config,
        listen=parse_listen(listen, insecure=insecure_listen),
        forward=_forward(forward, listen),
        not_ready_after=duration(not_ready_after),
    )
    if workers > 1:
        _run(run.serve_with_workers(settings, workers, log_level, log_json=log_json), log_level, log_json)
    else:
        _run(run.serve(settings), log_level, log_json)


@app.command()
def route(
    group: Annotated[
        list[str],
        typer.Option("--group", metavar="NAME=URL[,URL...]", help="Instances that serve the same log; once for each."),
    ],
    listen: Listen = "127.0.0.1:8001",
    insecure_listen: InsecureListen = False,
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """One address for several groups of serving instances: requests go to the group that has the type or cluster."""
    try:
        groups = parse_groups(group)
    except ValueError as cause:
        raise BadSetting(f"--group {cause}") from None
    _run(run.route(groups, parse_listen(listen, insecure=insecure_listen)), log_level, log_json)


@app.command()
@with_access
def relist(
    access: Access,
    nats: NatsUrl = "nats://127.0.0.1:4222",
    stream: Stream = "KUBEBRAID",
    cluster: Annotated[str, typer.Option(metavar="NAME", help="Clusters, with wildcards.")] = "*",
    kind: Annotated[str, typer.Option("--type", metavar="TYPE", help="Types, with wildcards.")] = "*",
) -> None:
    """Have the producers compare whole lists with the log now."""
    logs.configure("warning", json=False)
    answers = uvloop.run(run.relist(nats, access, stream, cluster, kind))
    for answer in answers:
        typer.echo(f"{answer.producer}: comparing {answer.lists} lists of {answer.clusters} clusters")


@app.command()
@with_access
def tail(
    access: Access,
    nats: NatsRunning = None,
    data: DataRunning = None,
    stream: Stream = "KUBEBRAID",
    cluster: OfClusters = None,
    kind: OfTypes = None,
    namespace: OfNamespaces = None,
    name: OfNames = None,
    selector: OfLabels = "",
    since: Annotated[
        str, typer.Option(metavar="WHEN", help=f"{_WHEN} Without: what happens from now on.", show_default=False)
    ] = "now",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FORM", help="text, or json: one to a line.")
    ] = "text",
    log_level: LogLevel = "warning",
) -> None:
    """Show changes of all clusters as they happen."""
    if output not in ("text", "json"):
        raise BadSetting(f"--output {output!r}: text or json")
    selection = select(cluster=cluster, type=kind, namespace=namespace, name=name, labels=selector)
    start = finding.moment("--since", since, datetime.now(UTC))
    url = finding.nats_url(nats, data)
    _run(tailing.tail(url, access, stream, selection, start, json=output == "json"), log_level, False)


@app.command()
@with_access
def replay(
    access: Access,
    to: Annotated[
        str,
        typer.Option(metavar="WHERE", help="A file of JSON lines, - for standard output, or nats://HOST:PORT/STREAM."),
    ],
    since: Annotated[str, typer.Option(metavar="WHEN", help=_WHEN)] = "beginning",
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="The same, for the last one. [what the log holds now]")
    ] = None,
    nats: NatsRunning = None,
    data: DataRunning = None,
    stream: Stream = "KUBEBRAID",
    cluster: OfClusters = None,
    kind: OfTypes = None,
    namespace: OfNamespaces = None,
    name: OfNames = None,
    log_level: LogLevel = "warning",
) -> None:
    """Copy messages of the log, as they are, to a file or to another stream."""
    now = datetime.now(UTC)
    selection = select(cluster=cluster, type=kind, namespace=namespace, name=name)
    start = finding.moment("--since", since, now)
    end = None if until is None else finding.moment("--until", until, now)
    url = finding.nats_url(nats, data)
    summaries: list[copying.Summary] = []

    async def run_copy() -> None:
        summaries.append(await copying.copy(url, access, stream, selection, start, end, to))

    _run(run_copy(), log_level, False)
    typer.echo(str(summaries[0]), err=to == "-")


@app.command()
def status(
    server: Server = "http://127.0.0.1:8001",
    types: Annotated[bool, typer.Option("--types", help="Also each type of each cluster.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORM", help="text or json.")] = "text",
) -> None:
    """Show the clusters of a running service, and how current they are. Code 1: something is not as it should be."""
    if output not in ("text", "json"):
        raise BadSetting(f"--output {output!r}: text or json")
    found = condition.ask(server.rstrip("/"))
    if output == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        for line in condition.lines(found, types=types):
            typer.echo(line)
    if not found.good:
        raise typer.Exit(1)


@app.command()
@with_access
def mirror(
    access: Access,
    nats: NatsUrl = "nats://127.0.0.1:4222",
    stream: Annotated[str, typer.Option(metavar="NAME", help="What the mirror is to be called.")] = "KUBEBRAID",
    origin: Annotated[str, typer.Option("--from", metavar="NAME", help="The stream that holds the log.")] = "KUBEBRAID",
    domain: Annotated[
        str, typer.Option("--from-domain", metavar="NAME", help="The JetStream domain it is in. [the mirror's]")
    ] = "",
    replicas: Annotated[
        int, typer.Option(metavar="N", min=1, max=5, help="NATS servers that each hold the mirror.")
    ] = 1,
    once: Annotated[bool, typer.Option("--once", help="Make it if need be, and end.")] = False,
    log_level: LogLevel = "info",
    log_json: LogJson = False,
) -> None:
    """Make a mirror of the log for instances elsewhere, and keep it; they have the same versions as those here."""
    settings = MirrorSettings(origin=origin, domain=domain, name=stream, replicas=replicas)
    _run(run.mirror(nats, access, settings, once=once), log_level, log_json)


clusters = typer.Typer(help="Clusters: which there are, which come and go.", no_args_is_help=True)
app.add_typer(clusters, name="clusters")
Members = Annotated[
    Path,
    typer.Option(
        "--directory", metavar="DIR", envvar="KUBEBRAID_DIRECTORY", help="The kubeconfigs that producers follow."
    ),
]


@clusters.command("list")
def list_clusters(
    server: Server = "http://127.0.0.1:8001",
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORM", help="text, name or json.")] = "text",
) -> None:
    """The clusters that a running service has."""
    if output not in ("text", "name", "json"):
        raise BadSetting(f"--output {output!r}: text, name or json")
    found = condition.ask(server.rstrip("/")).clusters
    if output == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    elif output == "name":
        for one in found:
            typer.echo(one.name)
    else:
        for line in condition.cluster_lines(found):
            typer.echo(line)


@clusters.command("add")
def add_cluster(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.")],
    directory: Members,
    kubeconfig: Kubeconfig = None,
    context: Annotated[
        str | None, typer.Option(metavar="NAME", help="The kubeconfig's context. [its current one]")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also if there is one of this name.")] = False,
) -> None:
    """Add a cluster to those that producers follow: its kubeconfig, by itself, goes into their directory."""
    file = members.add(directory, name, kubeconfig, context, replace=replace)
    typer.echo(f"{name} is in {file}; producers that follow {directory} take it in")


@clusters.command("remove")
def remove_cluster(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    directory: Members,
) -> None:
    """Take a cluster out of those that producers follow; they take its objects out of the log."""
    file = members.remove(directory, name)
    typer.echo(f"{file} is gone; producers that follow {directory} take {name} out of the log")


@clusters.command("clean")
@with_access
def clean_clusters(
    access: Access,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME ...]", help="Which; all that nobody follows if not given.")
    ] = None,
    nats: NatsUrl = "nats://127.0.0.1:4222",
    stream: Stream = "KUBEBRAID",
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only objects of this type: pods, deployments.apps.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
) -> None:
    """Take clusters that no producer follows any more out of the log; watchers see their objects deleted."""
    settings = run.log_settings(Settings(stream=stream))
    logs.configure("warning", json=False)
    cleaned = uvloop.run(run.clean(nats, access, settings, names or (), kind, dry_run=dry_run))
    for one in cleaned:
        what = "" if one.type is None else f"{one.type} of "
        typer.echo(f"{what}{one.cluster}: " + ("would be removed" if dry_run else f"removed at index {one.sequence}"))
    if not cleaned:
        typer.echo(
            "nothing to clean: producers follow all clusters of the log"
            if kind is None
            else f"no cluster that nobody follows has {kind}"
        )


@app.command()
def kubeconfig(
    server: Server = "http://127.0.0.1:8001",
) -> None:
    """Print a kubeconfig for the running service: a context for all clusters, and one for each."""
    server = server.rstrip("/")
    try:
        with urllib.request.urlopen(f"{server}/clusters", timeout=5) as answer:
            names = [cluster["name"] for cluster in json.load(answer)["clusters"]]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        reason = cause.reason if isinstance(cause, urllib.error.URLError) else cause
        raise BadSetting(
            f"no kubebraid answers at {server} ({reason}); start one with `kubebraid up`, or give --server URL"
        ) from None
    typer.echo(render(server, {name: f"{server}/clusters/{quote(name, safe=':')}" for name in names}), nl=False)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"kubebraid {__version__}")


def main() -> None:
    """The entry point."""
    _reporting(_command)


def run_worker(worker: Worker, settings: Settings) -> None:
    """The entry point of a worker process."""
    _reporting(lambda: _run(run.worker(worker, settings), worker.log_level, worker.log_json))


def _command() -> None:
    # Some versions return the code of an Exit, others let it through.
    code = app(standalone_mode=False)
    if isinstance(code, int) and code:
        sys.exit(code)


def _reporting(work: Callable[[], None]) -> None:
    """One line for each error that a user can mend."""
    try:
        work()
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except typer.Abort:
        sys.exit(130)
    except _UsageError as problem:
        context = getattr(problem, "ctx", None)
        where = context.command_path if context else "kubebraid"
        message = getattr(problem, "format_message", problem.__str__)()
        _fail(f"{' '.join(message.split())}; see {where} --help", 2)
    except (
        BadAccess,
        BadSetting,
        condition.Unanswered,
        BadConfiguration,
        BadKubeconfig,
        BadRule,
        BadPointer,
        BadSelection,
        BadPlace,
    ) as problem:
        _fail(str(problem), 2)
    except (*run.FAILURES, *members.FAILURES, Deposed, HistoryChanged, Forgotten, copying.CopyFailed) as problem:
        _fail(str(problem), 1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(message: str, code: int) -> None:
    typer.echo(f"kubebraid: {in_options(message)}", err=True)
    sys.exit(code)
