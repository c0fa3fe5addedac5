"""Certificates: a custom resource, with its CustomResourceDefinition, in the manner of cert-manager."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from simulation.content.builder import ContentBuilder
from simulation.content.names import SERVICES
from simulation.registry import WriteOptions
from simulation.resources import CUSTOM_RESOURCE_DEFINITIONS
from simulation.times import timestamp

__all__ = ["CERTIFICATES", "add_certificate", "add_definition", "certificate_status"]

CERTIFICATES = ("certs.example.io", "certificates")

_DEFINITION: dict[str, Any] = {
    "metadata": {"name": "certificates.certs.example.io"},
    "spec": {
        "group": "certs.example.io",
        "scope": "Namespaced",
        "names": {
            "plural": "certificates",
            "singular": "certificate",
            "kind": "Certificate",
            "listKind": "CertificateList",
            "shortNames": ["cert", "certs"],
            "categories": ["all"],
        },
        "conversion": {"strategy": "None"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {
                        "name": "Ready",
                        "type": "string",
                        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
                    },
                    {"name": "Secret", "type": "string", "jsonPath": ".spec.secretName"},
                    {"name": "Issuer", "type": "string", "jsonPath": ".spec.issuerRef.name", "priority": 1},
                    {
                        "name": "Age",
                        "type": "date",
                        "jsonPath": ".metadata.creationTimestamp",
                        "description": "Time since the certificate was asked for.",
                    },
                ],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["secretName", "issuerRef"],
                                "properties": {
                                    "secretName": {"type": "string"},
                                    "duration": {"type": "string"},
                                    "dnsNames": {"type": "array", "items": {"type": "string"}},
                                    "issuerRef": {
                                        "type": "object",
                                        "properties": {
                                            "name": {"type": "string"},
                                            "kind": {"type": "string"},
                                        },
                                    },
                                },
                            },
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


def add_definition(builder: ContentBuilder) -> None:
    """Create the CustomResourceDefinition, from which on certificates are served."""
    type = builder.storage.collections[CUSTOM_RESOURCE_DEFINITIONS].type
    builder.registry.create(type, "", _DEFINITION, WriteOptions("helm"))


def add_certificate(builder: ContentBuilder, namespace: str, number: int) -> None:
    """Add the Certificate of an application; every seventh waits for its issuer."""
    name = f"{namespace}-{number}-tls"
    age = builder.age()
    ready = number % 7 != 6
    hosts = [f"{namespace}-{number}.{builder.cluster}.example.io"]
    duration = "2160h"
    if builder.variety == "mixed":
        services = [builder.pick(SERVICES) for _ in range(builder.number(0, 5))]
        hosts += [f"{service}.{namespace}.svc.cluster.local" for service in dict.fromkeys(services)]
        duration = f"{builder.pick((720, 2160, 2160, 4320, 8760))}h"
    builder.put(
        *CERTIFICATES,
        {
            "metadata": {"name": name, "namespace": namespace, "labels": {"team": namespace}},
            "spec": {
                "secretName": name,
                "duration": duration,
                "dnsNames": hosts,
                "issuerRef": {"name": "example-ca", "kind": "ClusterIssuer"},
            },
            "status": certificate_status(ready, 1, builder.start - timedelta(seconds=age)),
        },
        manager="helm",
        age=age,
    )


def certificate_status(ready: bool, revision: int, since: datetime) -> dict[str, Any]:
    """The status of a Certificate that was issued at `since`, or without `ready` is not issued yet.

    `revision` counts how often it was issued. It is valid for 90 days and renewed after 60.
    """
    return {
        "conditions": [
            {
                "type": "Ready",
                "status": "True" if ready else "False",
                "lastTransitionTime": timestamp(since),
                "reason": "Ready" if ready else "Issuing",
                "message": "Certificate is up to date" if ready else "Waiting for the issuer",
                "observedGeneration": 1,
            }
        ],
        "notAfter": timestamp(since + timedelta(days=90)),
        "renewalTime": timestamp(since + timedelta(days=60)),
        "revision": revision,
    }
