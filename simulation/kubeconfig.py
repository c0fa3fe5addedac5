"""Kubeconfig: the file that names simulated clusters to kubectl and to kubebraid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from simulation.cluster import SimulatedCluster

__all__ = ["cluster_name", "kubeconfig", "write_kubeconfig"]

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


def cluster_name(number: int) -> str:
    """The name of the cluster with a number from 1 on: alpha, bravo, ..., zulu, cluster-27, ..."""
    return NAMES[number - 1] if number <= len(NAMES) else f"cluster-{number}"


def kubeconfig(clusters: Sequence[SimulatedCluster]) -> dict[str, Any]:
    """A kubeconfig with a context for each cluster, the first one current.

    Tokens are written, but client-go (and so kubectl) sends none over plain HTTP; other clients do.
    """
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [{"name": cluster.name, "cluster": {"server": cluster.url}} for cluster in clusters],
        "users": [
            {"name": cluster.name, "user": {"token": cluster.token} if cluster.token else {}} for cluster in clusters
        ],
        "contexts": [
            {"name": cluster.name, "context": {"cluster": cluster.name, "user": cluster.name}} for cluster in clusters
        ],
        "current-context": clusters[0].name if clusters else "",
    }


def write_kubeconfig(clusters: Sequence[SimulatedCluster], path: Path) -> None:
    """Write the kubeconfig, whole or not at all, readable by its owner alone. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        yaml.safe_dump(kubeconfig(clusters), file, sort_keys=False)
    draft.replace(path)
