"""Configuration: the ConfigMap and the Secret of an application."""

from __future__ import annotations

import base64
from typing import Any

from simulation.content.builder import ContentBuilder

__all__ = ["add_config_map", "add_secret"]


def add_config_map(builder: ContentBuilder, namespace: str, app: str, labels: dict[str, Any], age: float) -> None:
    """Add the ConfigMap `<app>-config`, of `age` seconds."""
    settings = "\n".join(
        f"{key}: {value}"
        for key, value in (
            ("service", app),
            ("listen", "0.0.0.0:8080"),
            ("timeout", f"{builder.random.randint(1, 30)}s"),
            ("pool", builder.random.randint(5, 50)),
            ("feature_flags", "[fast-path, new-ledger]"),
        )
    )
    builder.put(
        "",
        "configmaps",
        {
            "metadata": {"name": f"{app}-config", "namespace": namespace, "labels": labels},
            "data": {"config.yaml": f"{settings}\n", "revision": "1"},
        },
        manager="kubectl-client-side-apply",
        age=age,
    )


def add_secret(builder: ContentBuilder, namespace: str, app: str, labels: dict[str, Any], age: float) -> None:
    """Add the Secret `<app>-credentials`, of `age` seconds."""
    password = base64.b64encode(builder.suffix(24).encode()).decode()
    builder.put(
        "",
        "secrets",
        {
            "metadata": {"name": f"{app}-credentials", "namespace": namespace, "labels": labels},
            "data": {"username": base64.b64encode(app.encode()).decode(), "password": password},
            "type": "Opaque",
        },
        manager="helm",
        age=age,
    )
