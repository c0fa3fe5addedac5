"""The kubeconfig that points clients at a running service."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

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
