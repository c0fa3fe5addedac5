"""The cluster that this process runs in, by its pod's service account (client-go rest.InClusterConfig)."""

from __future__ import annotations

import os
from pathlib import Path

from producers.kubeconfig.entries import Cluster, User
from producers.kubeconfig.model import ClusterAccess

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def in_cluster(name: str, service_account: str = SERVICE_ACCOUNT) -> ClusterAccess | None:
    """Access to it; None if this is no pod with a service account. The kubelet renews the token's file. Blocking."""
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{part}", "") for part in ("HOST", "PORT"))
    token = Path(service_account) / "token"
    if not host or not port or not token.is_file():
        return None
    authority = Path(service_account) / "ca.crt"
    return ClusterAccess(
        name,
        Cluster(
            server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            # Without one: what the system trusts.
            authority_file=str(authority) if authority.is_file() else "",
        ),
        User(token_file=str(token)),
        where="the service account of this pod",
    )
