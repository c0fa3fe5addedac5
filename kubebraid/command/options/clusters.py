"""Options that say which clusters are followed, and what of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kubebraid.command.settings import BadSetting
from producers.rules.configuration import duration
from producers.rules.pruning import Pruning
from producers.rules.rules import Rules, type_pattern

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


def all_contexts(named: list[str] | None, more: list[str] | None) -> tuple[str, ...]:
    """`--context a b` and `--context a --context b` are the same."""
    if more and not named:
        raise BadSetting(f"unexpected argument {more[0]!r}")
    return (*(named or ()), *(more or ()))


def followed(
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
    one_place(kubeconfig, contexts, directory)
    pointers = []
    for text in prune or ():
        pattern, equals, pointer = text.partition("=")
        if not equals:
            raise BadSetting(f"--prune {text!r}: write TYPE=/POINTER, as in secrets=/data")
        type_pattern(pattern)
        pointers.append((pattern, (pointer,)))
    return {
        "kubeconfig": kubeconfig,
        "contexts": contexts,
        "directory": directory,
        "rules": Rules.of(include or ("*",), exclude or (), namespaces=namespaces or (), selector=selector),
        "pruning": Pruning(last_applied=last_applied, pointers=tuple(pointers)),
        "relist_every": duration(relist_every),
    }


def one_place(kubeconfig: str | None, contexts: tuple[str, ...], directory: Path | None) -> None:
    """Raises BadSetting where clusters are named in two ways at once."""
    if directory is not None and (kubeconfig or contexts):
        raise BadSetting("--directory stands instead of --kubeconfig and --context; a file with both goes by --config")
