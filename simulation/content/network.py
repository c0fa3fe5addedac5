"""Network: Services with their Endpoints and EndpointSlices, and Ingresses."""

from __future__ import annotations

from typing import Any

import msgspec

from simulation.content.builder import ContentBuilder, owner_reference
from simulation.storage import StoredObject

__all__ = ["add_ingress", "add_service"]


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Status(msgspec.Struct):
    conditions: list[_Condition] = []


class _Pod(msgspec.Struct):
    """What the endpoints of a Service need of a pod beside its selectable fields."""

    status: _Status


_read_pod = msgspec.json.Decoder(_Pod).decode


def add_service(
    builder: ContentBuilder, namespace: str, app: str, labels: dict[str, Any], pods: list[StoredObject], age: float
) -> None:
    """Add the Service of an application, with the addresses of its `pods` in Endpoints and an EndpointSlice."""
    address = f"10.96.{builder.random.randint(0, 255)}.{builder.random.randint(1, 254)}"
    service = builder.put(
        "",
        "services",
        {
            "metadata": {"name": app, "namespace": namespace, "labels": labels},
            "spec": {
                "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}],
                "selector": {"app": app},
                "clusterIP": address,
                "clusterIPs": [address],
                "type": "ClusterIP",
                "sessionAffinity": "None",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "internalTrafficPolicy": "Cluster",
            },
            "status": {"loadBalancer": {}},
        },
        manager="kubectl-client-side-apply",
        age=age,
    )
    endpoints: list[dict[str, Any]] = []
    for stored in pods:
        pod_ip = stored.fields["status.podIP"]
        if not pod_ip:
            continue
        conditions = _read_pod(b"{" + stored.tail).status.conditions
        ready = any(one.type == "Ready" and one.status == "True" for one in conditions)
        endpoints.append(
            {
                "addresses": [pod_ip],
                "conditions": {"ready": ready, "serving": ready, "terminating": False},
                "targetRef": {
                    "kind": "Pod",
                    "namespace": namespace,
                    "name": stored.name,
                    "uid": stored.uid,
                },
                "nodeName": stored.fields["spec.nodeName"],
                "zone": "eu-central-1a",
            }
        )
    builder.put(
        "discovery.k8s.io",
        "endpointslices",
        {
            "metadata": {
                "name": f"{app}-{builder.suffix(5)}",
                "generateName": f"{app}-",
                "namespace": namespace,
                "labels": {
                    **labels,
                    "kubernetes.io/service-name": app,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
                "ownerReferences": [owner_reference("v1", "Service", app, service.uid)],
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        },
        age=age,
    )
    ready_addresses = [
        {"ip": entry["addresses"][0], "nodeName": entry["nodeName"], "targetRef": entry["targetRef"]}
        for entry in endpoints
    ]
    subsets = [{"addresses": ready_addresses, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}]
    builder.put(
        "",
        "endpoints",
        {
            "metadata": {"name": app, "namespace": namespace, "labels": labels},
            **({"subsets": subsets} if ready_addresses else {}),
        },
        age=age,
    )


def add_ingress(builder: ContentBuilder, namespace: str, app: str, labels: dict[str, Any], age: float) -> None:
    """Add an Ingress to the Service of an application, by the host name `<app>.<cluster>.example.io`."""
    backend = {"service": {"name": app, "port": {"name": "http"}}}
    host = f"{app}.{builder.cluster}.example.io"
    builder.put(
        "networking.k8s.io",
        "ingresses",
        {
            "metadata": {"name": app, "namespace": namespace, "labels": labels},
            "spec": {
                "ingressClassName": "nginx",
                "rules": [
                    {
                        "host": host,
                        "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                    }
                ],
                "tls": [{"hosts": [host], "secretName": f"{app}-tls"}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.10"}]}},
        },
        manager="kubectl-client-side-apply",
        age=age,
    )
