"""`kubebraid check`: what would happen with each cluster, before anything is followed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated

import msgspec
import typer
import uvloop

from kubebraid.command import logs
from kubebraid.command.assembly import configuration_of
from kubebraid.command.options.clusters import (
    Config,
    Contexts,
    Directory,
    Exclude,
    Include,
    Kubeconfig,
    MoreContexts,
    Namespaces,
    Selector,
    all_contexts,
    followed,
)
from kubebraid.command.settings import BadSetting, Settings
from kubebraid.command.tables import printable, rendered, row, table
from producers.members.membership import Members
from producers.members.trial import Trial, tried
from producers.rules.configuration import duration
from producers.timing import DEFAULT, ProducerTiming

# Clusters that are asked at once.
_AT_ONCE = 32


class Checked(msgspec.Struct, frozen=True):
    """All clusters, and what is wrong with the places that name them: kubeconfigs, directories, host clusters."""

    clusters: tuple[Trial, ...]
    problems: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether all of it could be followed."""
        return bool(self.clusters) and not self.problems and all(one.state == "good" for one in self.clusters)


async def check(settings: Settings, patience: float, timing: ProducerTiming = DEFAULT) -> Checked:
    """Tries all clusters that producers with these settings would follow, each for `patience` seconds."""
    members = Members(configuration_of(settings), settings.config, timing)
    problems = await members.once(patience)
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str) -> Trial:
        async with places:
            return await tried(name, members.current[name], patience, timing)

    return Checked(tuple(await asyncio.gather(*map(one, sorted(members.current)))), tuple(problems))


def lines(checked: Checked) -> Iterator[str]:
    """For people: a table, and below it what is wrong and what to do."""
    rows = table("cluster", "state", "version", "types", "server", "identity", "rbac", "forward")
    for one in checked.clusters:
        types = str(one.types - len(one.unreadable)) if one.version or one.types else ""
        # Of one that did not answer, nothing of that is known.
        decides = ("decides" if one.decides else "closed") if one.types else ""
        forward = ", ".join(one.forward or ())
        row(rows, one.name, one.state, one.version, types, one.server, one.identity, decides, forward)
    if checked.clusters:
        yield from rendered(rows)
    else:
        yield "no clusters"
    for one in checked.clusters:
        if one.problem:
            yield ""
            yield printable(f"{one.name}: {one.problem}")
            if one.mend:
                yield f"  {printable(one.mend)}"
    for problem in checked.problems:
        yield ""
        yield printable(problem)


def command(
    more: MoreContexts = None,
    kubeconfig: Kubeconfig = None,
    context: Contexts = None,
    directory: Directory = None,
    include: Include = None,
    exclude: Exclude = None,
    namespace: Namespaces = None,
    selector: Selector = "",
    config: Config = None,
    patience: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="How long each cluster may take, its plugin included.")
    ] = "15s",
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORM", help="text or json.")] = "text",
) -> None:
    """Say what would happen with each cluster: does it answer, as whom is it asked, may it be read. Code 1: not all."""
    if output not in ("text", "json"):
        raise BadSetting(f"--output {output!r}: text or json")
    seconds = duration(patience)
    if seconds <= 0:
        raise BadSetting(f"--timeout {patience!r}: write 15s, 1m")
    settings = Settings(
        **followed(
            config=config,
            kubeconfig=kubeconfig,
            contexts=all_contexts(context, more),
            directory=directory,
            include=include,
            exclude=exclude,
            namespaces=namespace,
            selector=selector,
            last_applied=False,
            prune=None,
            relist_every="30m",
        )
    )
    logs.configure("error", json=False)
    found = uvloop.run(check(settings, seconds))
    if output == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        for line in lines(found):
            typer.echo(line)
    if not found.good:
        raise typer.Exit(1)
