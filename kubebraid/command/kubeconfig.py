"""The kubeconfig that points clients at a running service."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote

import typer
import yaml

from kubebraid.command.options.process import Server
from kubebraid.command.settings import BadSetting

ALL = "kubebraid"


def render(server: str, clusters: Mapping[str, str], name_of_all: str = ALL) -> str:
    """A kubeconfig with context `kubebraid` for all clusters, and `kubebraid-<name>` for each of `clusters`.

    `name_of_all`: another name than `kubebraid` in all of them.
    """
    servers = {name_of_all: server, **{f"{name_of_all}-{name}": url for name, url in clusters.items()}}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": _cluster(url)} for name, url in servers.items()],
            "users": [{"name": ALL, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": ALL}} for name in servers],
            "current-context": name_of_all,
        },
        sort_keys=False,
    )


def _cluster(url: str) -> dict[str, object]:
    if url.startswith("https:"):
        return {"server": url}
    # Without TLS there is nothing to verify, and the JavaScript client refuses plain HTTP unless it is told so.
    return {"server": url, "insecure-skip-tls-verify": True}


def command(
    server: Server = "http://127.0.0.1:8001",
    numbered: Annotated[
        bool,
        typer.Option(
            "--int",
            help="Contexts whose versions are numbers (paths below /int), for consoles that parse them as such, as "
            "Headlamp does. They are named kubebraid-int.",
        ),
    ] = False,
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
    root, name_of_all = (f"{server}/int", f"{ALL}-int") if numbered else (server, ALL)
    clusters = {name: f"{root}/clusters/{quote(name, safe=':')}" for name in names}
    typer.echo(render(root, clusters, name_of_all), nl=False)
