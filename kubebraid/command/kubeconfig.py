"""The kubeconfig that points clients at a running service."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from urllib.parse import quote

import typer
import yaml

from kubebraid.command.options.process import Server
from kubebraid.command.settings import BadSetting

ALL = "kubebraid"


def render(server: str, clusters: Mapping[str, str]) -> str:
    """A kubeconfig with context `kubebraid` for all clusters, and `kubebraid-<name>` for each of `clusters`."""
    servers = {ALL: server, **{f"{ALL}-{name}": url for name, url in clusters.items()}}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": _cluster(url)} for name, url in servers.items()],
            "users": [{"name": ALL, "user": {}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": ALL}} for name in servers],
            "current-context": ALL,
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
