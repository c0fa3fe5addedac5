"""The command line: every command under its name."""

from __future__ import annotations

import sys
from collections.abc import Callable

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
    search,
    serve,
    status,
    tail,
    up,
)
from kubebraid.command.reporting import reporting


def _version() -> None:
    """Print the version."""
    typer.echo(f"kubebraid {__version__}")


_COMMANDS: dict[str, Callable[..., None]] = {
    "up": up.command,
    "demo": demo.command,
    "simulate": demo.simulate,
    "produce": produce.command,
    "serve": serve.command,
    "route": route.command,
    "relist": produce.relist,
    "tail": tail.command,
    "replay": replay.command,
    "check": check.command,
    "status": status.command,
    "search": search.command,
    "mirror": mirror.command,
    "kubeconfig": kubeconfig.command,
    "version": _version,
}
_GROUPS = {"clusters": clusters.group}


def command_line(name: str | None = None) -> typer.Typer:
    """The command line: with all commands, or alone with the one that has this name, if one has.

    What typer makes of a command's signature takes 15 ms of processor time; the one that is wanted is enough.
    """
    app = typer.Typer(
        help="Many Kubernetes clusters, one ordered stream, one API.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    # With a callback it takes a command's name also where it has one alone.
    app.callback()(lambda: None)
    alone = name in _COMMANDS or name in _GROUPS
    for known, command in _COMMANDS.items():
        if not alone or known == name:
            app.command(known)(command)
    for known, group in _GROUPS.items():
        if not alone or known == name:
            app.add_typer(group, name=known)
    return app


def main() -> None:
    """The entry point."""
    reporting(_command)


def _command() -> None:
    # No option stands before the name of a command. Some versions return the code of an Exit, others let it through.
    code = command_line(*sys.argv[1:2])(standalone_mode=False)
    if isinstance(code, int) and code:
        sys.exit(code)
