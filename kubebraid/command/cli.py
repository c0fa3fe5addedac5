"""The command line: every command under its name."""

from __future__ import annotations

import sys

import typer

from kubebraid import __version__
from kubebraid.command import (
    check,
    clusters,
    demo,
    kubeconfig,
    mirror,
    produce,
    replay,
    route,
    serve,
    status,
    tail,
    up,
)
from kubebraid.command.reporting import reporting

app = typer.Typer(
    help="Many Kubernetes clusters, one ordered stream, one API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.command)
app.command("demo")(demo.command)
app.command("simulate")(demo.simulate)
app.command("produce")(produce.command)
app.command("serve")(serve.command)
app.command("route")(route.command)
app.command("relist")(produce.relist)
app.command("tail")(tail.command)
app.command("replay")(replay.command)
app.command("check")(check.command)
app.command("status")(status.command)
app.command("mirror")(mirror.command)
app.add_typer(clusters.group, name="clusters")
app.command("kubeconfig")(kubeconfig.command)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"kubebraid {__version__}")


def main() -> None:
    """The entry point."""
    reporting(_command)


def _command() -> None:
    # Some versions return the code of an Exit, others let it through.
    code = app(standalone_mode=False)
    if isinstance(code, int) and code:
        sys.exit(code)
