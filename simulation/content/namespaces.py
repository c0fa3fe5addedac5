"""Namespaces, each with the service account and the CA bundle that the controllers put into it."""

from __future__ import annotations

import base64
import hashlib

from simulation.content.builder import DAY, ContentBuilder
from simulation.content.names import TEAMS

__all__ = ["add_namespace"]


def add_namespace(builder: ContentBuilder, name: str) -> None:
    """Add a namespace. The CA bundle is the same in all namespaces of a cluster."""
    age = 60 * DAY
    labels = {"kubernetes.io/metadata.name": name}
    if name in TEAMS:
        labels["team"] = name
    builder.put(
        "",
        "namespaces",
        {
            "metadata": {"name": name, "labels": labels},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        },
        manager="kubectl-create",
        age=age,
    )
    builder.put("", "serviceaccounts", {"metadata": {"name": "default", "namespace": name}}, age=age)
    certificate = base64.b64encode(hashlib.sha512(builder.cluster.encode()).digest() * 12).decode()
    lines = "\n".join(certificate[start : start + 64] for start in range(0, len(certificate), 64))
    builder.put(
        "",
        "configmaps",
        {
            "metadata": {
                "name": "kube-root-ca.crt",
                "namespace": name,
                "annotations": {"kubernetes.io/description": "Contains a CA bundle for the API server."},
            },
            "data": {"ca.crt": f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n"},
        },
        age=age,
    )
