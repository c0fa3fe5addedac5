"""Configuration: the ConfigMap and the Secret of an application."""

from __future__ import annotations

import base64
from typing import Any

from simulation.content.builder import ContentBuilder
from simulation.content.settings import configuration_file

__all__ = ["add_config_map", "add_secret"]


def add_config_map(builder: ContentBuilder, namespace: str, app: str, labels: dict[str, Any], age: float) -> None:
    """Add the ConfigMap `<app>-config`, of `age` seconds. In mixed content it has from 0 to 12 KB, few of them much."""
    if builder.variety == "mixed":
        settings = configuration_file(builder, app, namespace, int(builder.random.random() ** 4 * 240))
    else:
        lines = (
            ("service", app),
            ("listen", "0.0.0.0:8080"),
            ("timeout", f"{builder.random.randint(1, 30)}s"),
            ("pool", builder.random.randint(5, 50)),
            ("feature_flags", "[fast-path, new-ledger]"),
        )
        settings = "".join(f"{key}: {value}\n" for key, value in lines)
    builder.put(
        "",
        "configmaps",
        {
            "metadata": {"name": f"{app}-config", "namespace": namespace, "labels": labels},
            "data": {"config.yaml": settings, "revision": "1"},
        },
        manager="kubectl-client-side-apply",
        age=age,
    )


def add_secret(builder: ContentBuilder, namespace: str, app: str, labels: dict[str, Any], age: float) -> None:
    """Add a Secret, of `age` seconds: `<app>-credentials`, or in mixed content a certificate, or a release of Helm."""
    name, type = f"{app}-credentials", "Opaque"
    data = {"username": app.encode(), "password": builder.suffix(24).encode()}
    draw = builder.random.random() if builder.variety == "mixed" else 0.0
    if draw > 0.85:
        # A release holds the chart in gzip: nothing makes it smaller.
        name, type = f"sh.helm.release.v1.{app}.v1", "helm.sh/release.v1"
        data = {"release": base64.b64encode(builder.random.randbytes(builder.number(1500, 12_000)))}
    elif draw > 0.6:
        name, type = f"{app}-tls", "kubernetes.io/tls"
        data = {"tls.crt": _pem(builder, "CERTIFICATE", 900), "tls.key": _pem(builder, "RSA PRIVATE KEY", 1190)}
    builder.put(
        "",
        "secrets",
        {
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
            "type": type,
        },
        manager="helm",
        age=age,
    )


def _pem(builder: ContentBuilder, label: str, size: int) -> bytes:
    """What looks like a certificate or a key in PEM."""
    text = base64.encodebytes(builder.random.randbytes(size)).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()
