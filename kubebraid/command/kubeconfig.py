"""The kubeconfig that points clients at a running service."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
import yaml

from kubebraid.command.asking import Credentials, ServerRefused, Service, unanswered
from kubebraid.command.options.service import with_service
from kubebraid.command.settings import BadSetting

ALL = "kubebraid"
_NO_CREDENTIALS = Credentials()
# Seconds to wait for the answer.
_PATIENCE = 5.0


def render(
    server: str,
    clusters: Mapping[str, str],
    name_of_all: str = ALL,
    credentials: Credentials = _NO_CREDENTIALS,
    entries: tuple[dict[str, Any], dict[str, Any]] | None = None,
) -> str:
    """A kubeconfig with context `kubebraid` for all clusters, and `kubebraid-<name>` for each of `clusters`.

    `name_of_all`: another name than `kubebraid` in all of them. `credentials`: what the service is known by and who
    asks it; certificates and keys are written into it, a token is named by its file. `entries`: the cluster and the
    user of another kubeconfig instead of these.

    Raises:
        BadSetting: a file of them cannot be read.
    """
    servers = {name_of_all: server, **{f"{name_of_all}-{name}": url for name, url in clusters.items()}}
    authority = None if credentials.authority is None else _data("--certificate-authority", credentials.authority)

    def cluster(url: str) -> dict[str, object]:
        # Not the same object in each: it would be written as an alias.
        return _cluster(url, authority) if entries is None else {**copy.deepcopy(entries[0]), "server": url}

    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster(url)} for name, url in servers.items()],
            "users": [{"name": ALL, "user": _user(credentials) if entries is None else entries[1]}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": ALL}} for name in servers],
            "current-context": name_of_all,
        },
        sort_keys=False,
    )


def _cluster(url: str, authority: str | None) -> dict[str, object]:
    if not url.startswith("https:"):
        # Without TLS there is nothing to verify, and the JavaScript client refuses plain HTTP unless it is told so.
        return {"server": url, "insecure-skip-tls-verify": True}
    return {"server": url} if authority is None else {"server": url, "certificate-authority-data": authority}


def _user(credentials: Credentials) -> dict[str, Any]:
    """Who asks. A file that holds a certificate and its key is written as each of both, which clients take."""
    if credentials.token is not None:
        return {"tokenFile": str(credentials.token.absolute())}
    if credentials.certificate is None:
        return {}
    certificate = credentials.certificate
    return {
        "client-certificate-data": _data("--client-certificate", certificate, "CERTIFICATE"),
        "client-key-data": _data("--client-key", credentials.key or certificate, "PRIVATE KEY"),
    }


def _data(option: str, path: Path, kind: str = "CERTIFICATE") -> str:
    """The blocks of one kind in a PEM file, as kubeconfigs have them. Raises BadSetting."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise BadSetting(f"{option} {path}: {getattr(cause, 'strerror', None) or 'no text'}") from None
    kept: list[str] = []
    within = False
    for line in lines:
        within = within or (line.startswith("-----BEGIN ") and line.rstrip().endswith(f"{kind}-----"))
        if within:
            kept.append(line)
        if line.startswith("-----END "):
            within = False
    if not kept:
        raise BadSetting(f"{option} {path}: it has no {kind} in PEM")
    return base64.b64encode("".join(f"{line}\n" for line in kept).encode()).decode()


@with_service
def command(
    service: Service,
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
    try:
        body, server, credentials = service.get("/clusters", _PATIENCE)
        names = [cluster["name"] for cluster in json.loads(body)["clusters"]]
    except ServerRefused as refused:
        raise BadSetting(str(refused)) from None
    except OSError as cause:
        raise BadSetting(unanswered(cause)) from None
    except (ValueError, KeyError, TypeError):
        raise BadSetting("what answers is no kubebraid; give --server URL") from None
    root, name_of_all = (f"{server}/int", f"{ALL}-int") if numbered else (server, ALL)
    clusters = {name: f"{root}/clusters/{quote(name, safe=':')}" for name in names}
    entries = service.entries() if service.in_kubeconfig else None
    typer.echo(render(root, clusters, name_of_all, credentials, entries), nl=False)
