"""`kubebraid clusters`: which clusters there are, which come, go, and are cleaned out of the log.

Clusters that are added stand in a directory of kubeconfigs, which producers follow (`--directory`, or `directory` in
their configuration): nothing needs a restart, and what configuration management writes there counts just as much.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import typer
import uvloop

from deltalog import Access, LogSettings, Record, open_log
from deltalog.jetstream.connection import Connection
from deltalog.jetstream.stream import Log
from deltalog.reader import read_to_end
from deltalog.wire import subjects
from deltalog.wire.delta import UnreadableRecord
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import OwnerChanged, decode_control
from kubebraid.command import logs, status
from kubebraid.command.asking import Service
from kubebraid.command.locate import known_types, resolve, types_of_clusters
from kubebraid.command.opening import connected
from kubebraid.command.options.access import with_access
from kubebraid.command.options.clusters import Kubeconfig
from kubebraid.command.options.log import NatsUrl, Stream
from kubebraid.command.options.service import with_service
from kubebraid.command.settings import BadSetting, Settings, log_settings
from kubebraid.errors import KubebraidError
from producers.follow.leases import holders
from producers.follow.removal import remove_cluster, remove_type
from producers.kubeconfig.files import Files, default_kubeconfig, directory_files
from producers.kubeconfig.model import BadKubeconfig
from producers.kubeconfig.single import alone
from producers.kubeconfig.yaml_values import dump
from producers.producer import leases_bucket, producer_id

# Names that are a file's name, a subject's token and a path's segment without any escape.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SUFFIX = ".kubeconfig"


class Unfit(KubebraidError):
    """What was asked cannot be done to this cluster; one line that says the remedy."""


# -- the directory -----------------------------------------------------------------------------------------------------


def add(directory: Path, name: str, kubeconfig: str | None, context: str | None, *, replace: bool = False) -> Path:
    """Writes a kubeconfig with one context into the directory; what it had in files of its own is put into it.

    `context` None: the kubeconfig's current one. Returns the file. Raises Unfit.
    """
    if not _NAME.fullmatch(name):
        raise Unfit(f"{name!r} is no name for a cluster: letters, digits, `.`, `_` and `-`, at most 128")
    known = _files(directory) if directory.exists() else {}
    if name in known and not replace:
        raise Unfit(f"{name} is there already, in {known[name]}; replace it with --replace")
    document = _alone(kubeconfig or default_kubeconfig(), context, name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        target = known.get(name, directory / f"{name}{_SUFFIX}")
        # Credentials: readable by its owner alone, and never half written.
        handle, temporary = tempfile.mkstemp(dir=directory, prefix=".")
        with os.fdopen(handle, "w") as file:
            file.write(dump(document))
        os.replace(temporary, target)
    except OSError as cause:
        raise Unfit(f"{directory}: {cause.strerror}") from None
    return target


def remove(directory: Path, name: str) -> Path:
    """Takes a cluster's kubeconfig out of the directory. Returns the file that was. Raises Unfit."""
    known = _files(directory)
    if name not in known:
        raise Unfit(f"{name} is not in {directory}; there are: {', '.join(sorted(known)) or 'none'}")
    try:
        known[name].unlink()
    except OSError as cause:
        raise Unfit(f"{known[name]}: {cause.strerror}") from None
    return known[name]


def _files(directory: Path) -> dict[str, Path]:
    """The files of a directory's clusters, those that cannot be read as kubeconfigs, too."""
    try:
        return {name: Path(path) for name, path in directory_files(str(directory)).items()}
    except BadKubeconfig as problem:
        raise Unfit(str(problem)) from None


def _alone(kubeconfig: str, context: str | None, name: str) -> dict[str, Any]:
    """The part of a kubeconfig that one context needs, in one document, named as the cluster."""
    try:
        found = Files().kubeconfig(kubeconfig)
        if found.empty:
            raise Unfit(f"no kubeconfig at {kubeconfig}; give one with --kubeconfig")
        if context is None and not found.current_context:
            raise Unfit(f"{kubeconfig} has no current context; name one with --context")
        return alone(found, context or found.current_context, name)
    except BadKubeconfig as problem:
        raise Unfit(str(problem)) from None


# -- the log -----------------------------------------------------------------------------------------------------------


class Cleaned(NamedTuple):
    """A cluster, or its objects of one `type`, taken out of the log by the record at `sequence`; 0: only would be."""

    cluster: str
    type: str | None
    sequence: int


async def unfollowed(connection: Connection, log: Log) -> dict[str, str]:
    """The clusters that the log has, and the producer that follows each now: empty where none does."""
    found: dict[str, str] = {}

    def note(record: Record) -> None:
        try:
            control = decode_control(record.data)
        except UnreadableRecord:
            return
        if control.fact == OwnerChanged(removed=True):
            found.pop(control.cluster, None)
        else:
            found[control.cluster] = ""

    await read_to_end(log, note, subjects=(f"kbc.*.{subjects.OWNER}",))
    followed = await holders(connection, leases_bucket(log.name))
    return {name: followed.get(name, "") for name in sorted(found)}


async def clean(
    connection: Connection, log: Log, names: Sequence[str], resource: str | None, *, dry_run: bool
) -> list[Cleaned]:
    """Takes clusters that no producer follows out of the log, or one type of them; none named: all such clusters.

    Raises Unfit, BadSetting for a type that is unknown, and what appending raises.
    """
    there = await unfollowed(connection, log)
    for name in names:
        if name not in there:
            raise Unfit(f"the log has no cluster {name!r}; there are: {', '.join(there) or 'none'}")
        if there[name]:
            raise Unfit(
                f"{name} is followed by producer {there[name]}; take it out of the producers' configuration first"
            )
    chosen = list(names) or [name for name, holder in there.items() if not holder]
    if resource is not None:
        resource = await _one_type(log, resource)
        having = await types_of_clusters(log)
        chosen = [name for name in chosen if resource in having.get(name, ())]
        if names and not chosen:
            raise Unfit(f"{', '.join(names)} has no {resource} in the log")
    done = []
    for name in chosen:
        if dry_run:
            sequence = 0
        elif resource is None:
            sequence = await remove_cluster(log, producer_id(), name)
        else:
            sequence = await remove_type(log, producer_id(), name, GroupResource.parse(resource))
        done.append(Cleaned(name, resource, sequence))
    return done


async def _one_type(log: Log, word: str) -> str:
    """The name of the resource that a word means. Raises BadSetting, Unfit."""
    if "*" in word:
        raise Unfit(f"--type {word!r}: one type, as pods or deployments.apps")
    known = await known_types(log)
    for found in await resolve(log, [word]):
        if found in known:
            return found
    raise Unfit(f"no cluster in the log has a type {word!r}; `kubebraid status --types` lists them")


# -- the commands ------------------------------------------------------------------------------------------------------

group = typer.Typer(help="Clusters: which there are, which come and go.", no_args_is_help=True)
Members = Annotated[
    Path,
    typer.Option(
        "--directory", metavar="DIR", envvar="KUBEBRAID_DIRECTORY", help="The kubeconfigs that producers follow."
    ),
]


@group.command("list")
@with_service
def list_command(
    service: Service,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORM", help="text, name or json.")] = "text",
) -> None:
    """The clusters that a running service has."""
    if output not in ("text", "name", "json"):
        raise BadSetting(f"--output {output!r}: text, name or json")
    found = status.ask(service).clusters
    if output == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    elif output == "name":
        for one in found:
            typer.echo(one.name)
    else:
        for line in status.cluster_lines(found):
            typer.echo(line)


@group.command("add")
def add_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.")],
    directory: Members,
    kubeconfig: Kubeconfig = None,
    context: Annotated[
        str | None, typer.Option(metavar="NAME", help="The kubeconfig's context. [its current one]")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also if there is one of this name.")] = False,
) -> None:
    """Add a cluster to those that producers follow: its kubeconfig, by itself, goes into their directory."""
    file = add(directory, name, kubeconfig, context, replace=replace)
    typer.echo(f"{name} is in {file}; producers that follow {directory} take it in")


@group.command("remove")
def remove_command(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    directory: Members,
) -> None:
    """Take a cluster out of those that producers follow; they take its objects out of the log."""
    file = remove(directory, name)
    typer.echo(f"{file} is gone; producers that follow {directory} take {name} out of the log")


@group.command("clean")
@with_access
def clean_command(
    access: Access,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME ...]", help="Which; all that nobody follows if not given.")
    ] = None,
    nats: NatsUrl = "nats://127.0.0.1:4222",
    stream: Stream = "KUBEBRAID",
    resource: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only objects of this type: pods, deployments.apps.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
) -> None:
    """Take clusters that no producer follows any more out of the log; watchers see their objects deleted."""
    settings = log_settings(Settings(stream=stream))
    logs.configure("warning", json=False)
    cleaned = uvloop.run(open_and_clean(nats, access, settings, names or (), resource, dry_run=dry_run))
    for one in cleaned:
        what = "" if one.type is None else f"{one.type} of "
        typer.echo(f"{what}{one.cluster}: " + ("would be removed" if dry_run else f"removed at index {one.sequence}"))
    if not cleaned:
        typer.echo(
            "nothing to clean: producers follow all clusters of the log"
            if resource is None
            else f"no cluster that nobody follows has {resource}"
        )


async def open_and_clean(
    url: str, access: Access, settings: LogSettings, clusters: Sequence[str], resource: str | None, *, dry_run: bool
) -> list[Cleaned]:
    """Takes clusters that no producer follows out of the log. Raises as `clean` does."""
    async with connected(url, "kubebraid-clean", access) as connection:
        log_ = await open_log(connection, settings, make=False)
        return await clean(connection, log_, clusters, resource, dry_run=dry_run)
