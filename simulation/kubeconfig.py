"""Kubeconfig: the file by which kubectl and kubebraid find simulated clusters."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

__all__ = ["ServedCluster", "cluster_name", "kubeconfig", "write_kubeconfig"]

NAMES = (
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliett",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
    "quebec",
    "romeo",
    "sierra",
    "tango",
    "uniform",
    "victor",
    "whiskey",
    "xray",
    "yankee",
    "zulu",
)


class ServedCluster(Protocol):
    """What a kubeconfig says of a cluster: its name, the URL of its API, its bearer token, empty if it has none, and
    the authority of its certificate, PEM, empty if it is no https."""

    name: str
    token: str
    authority: str

    @property
    def url(self) -> str:
        """The URL without a slash at the end."""


def cluster_name(number: int) -> str:
    """The name of the cluster with a number from 1 on: alpha, bravo, ..., zulu, cluster-27, ..."""
    return NAMES[number - 1] if number <= len(NAMES) else f"cluster-{number}"


def kubeconfig(clusters: Sequence[ServedCluster]) -> dict[str, Any]:
    """A kubeconfig with a context for each cluster, the first one current.

    Tokens are written, but client-go (and so kubectl) sends none over plain HTTP; other clients do.
    """
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [{"name": cluster.name, "cluster": _server(cluster)} for cluster in clusters],
        "users": [
            {"name": cluster.name, "user": {"token": cluster.token} if cluster.token else {}} for cluster in clusters
        ],
        "contexts": [
            {"name": cluster.name, "context": {"cluster": cluster.name, "user": cluster.name}} for cluster in clusters
        ],
        "current-context": clusters[0].name if clusters else "",
    }


def _server(cluster: ServedCluster) -> dict[str, str]:
    if not cluster.authority:
        return {"server": cluster.url}
    encoded = base64.b64encode(cluster.authority.encode()).decode()
    return {"server": cluster.url, "certificate-authority-data": encoded}


def write_kubeconfig(clusters: Sequence[ServedCluster], path: Path) -> None:
    """Write the kubeconfig, whole or not at all, readable by its owner only.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        yaml.safe_dump(kubeconfig(clusters), file, sort_keys=False)
    draft.replace(path)
