"""Options that select objects of the log, and places in it."""

from __future__ import annotations

from typing import Annotated

import typer

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
WHEN = "Behind an index or version, or since: 10m, 2026-01-31T12:00:00Z, beginning."
