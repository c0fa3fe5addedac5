"""Injection: what is added to each pod of a mixed cluster that its template does not have.

Webhooks of admission put a mesh's proxy beside the containers, kubelet and network plugin note what they gave the pod.
"""

from __future__ import annotations

import json
from typing import Any

from simulation.content.builder import ContentBuilder
from simulation.content.charts import MESH

__all__ = ["inject_proxy", "network_annotations"]

_PROXY = "images.example.io/mirror/mesh-proxy:1.24.2"
_CERTIFICATES = "mesh-certificates"


def inject_proxy(
    builder: ContentBuilder, namespace: str, labels: dict[str, str], annotations: dict[str, str], spec: dict[str, Any]
) -> dict[str, str]:
    """Add a mesh's proxy to a pod's `spec` if its `annotations` ask for it; the annotations that it then has."""
    if annotations.get(MESH) != "true":
        return annotations
    app = labels.get("app", namespace)
    ports = [port["containerPort"] for container in spec["containers"] for port in container.get("ports", ())]
    applications = ",".join(container["name"] for container in spec["containers"])
    values = {
        "PILOT_CERT_PROVIDER": "meshd",
        "CA_ADDR": "meshd.mesh-system.svc:15012",
        "MESH_META_APP_PORTS": json.dumps([{"containerPort": port, "protocol": "TCP"} for port in ports]),
        "MESH_META_APP_CONTAINERS": applications,
        "MESH_META_CLUSTER_ID": builder.cluster,
        "MESH_META_INTERCEPTION_MODE": "REDIRECT",
        "MESH_META_WORKLOAD_NAME": app,
        "MESH_META_OWNER": f"kubernetes://apis/apps/v1/namespaces/{namespace}/deployments/{app}",
        "MESH_META_MESH_ID": "cluster.local",
        "TRUST_DOMAIN": "cluster.local",
        "PROXY_CONFIG": json.dumps(
            {
                "discoveryAddress": "meshd.mesh-system.svc:15012",
                "tracing": {"zipkin": {"address": "zipkin.mesh-system:9411"}},
                "concurrency": 2,
                "holdApplicationUntilProxyStarts": True,
            },
            separators=(",", ":"),
        ),
    }
    fields = {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "INSTANCE_IP": "status.podIP",
        "SERVICE_ACCOUNT": "spec.serviceAccountName",
        "HOST_IP": "status.hostIP",
    }
    common = {
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }
    proxy = {
        "name": "mesh-proxy",
        "image": _PROXY,
        "args": [
            *("proxy", "sidecar", "--domain", f"{namespace}.svc.cluster.local"),
            *("--proxyLogLevel=warning", "--proxyComponentLogLevel=misc:error", "--log_output_level=default:info"),
        ],
        "ports": [{"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"}],
        "env": [
            *(
                {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
                for name, path in fields.items()
            ),
            *({"name": name, "value": value} for name, value in values.items()),
        ],
        "volumeMounts": [
            {"name": _CERTIFICATES, "mountPath": "/var/run/secrets/mesh"},
            {"name": "mesh-data", "mountPath": "/var/lib/mesh/data"},
            {"name": "mesh-podinfo", "mountPath": "/etc/mesh/pod"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/healthz/ready", "port": 15021, "scheme": "HTTP"},
            "timeoutSeconds": 3,
            "periodSeconds": 15,
            "successThreshold": 1,
            "failureThreshold": 4,
        },
        **common,
        "securityContext": {
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "runAsUser": 1337,
            "runAsGroup": 1337,
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
        },
    }
    setup = {
        "name": "mesh-init",
        "image": _PROXY,
        "args": [
            *("mesh-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", ""),
            *("-b", "*", "-d", "15090,15021,15020", "--log_output_level=default:info"),
        ],
        **common,
        "securityContext": {
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "runAsUser": 0,
            "runAsNonRoot": False,
            "readOnlyRootFilesystem": False,
        },
    }
    podinfo = [
        {"path": name, "fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.{name}"}}
        for name in ("labels", "annotations")
    ]
    volumes = [
        {"name": _CERTIFICATES, "emptyDir": {"medium": "Memory"}},
        {"name": "mesh-data", "emptyDir": {}},
        {"name": "mesh-podinfo", "downwardAPI": {"items": podinfo, "defaultMode": 420}},
    ]
    spec["volumes"] = [*volumes, *spec.get("volumes", ())]
    spec["initContainers"] = [setup, *spec.get("initContainers", ())]
    spec["containers"] = [*spec["containers"], proxy]
    status = {
        "initContainers": [setup["name"]],
        "containers": [proxy["name"]],
        "volumes": [volume["name"] for volume in volumes],
        "imagePullSecrets": None,
        "revision": "default",
    }
    return {
        **annotations,
        "mesh.example.io/status": json.dumps(status, separators=(",", ":")),
        "prometheus.io/path": "/stats/prometheus",
        "prometheus.io/port": "15020",
        "prometheus.io/scrape": "true",
    }


def network_annotations(builder: ContentBuilder, address: str) -> dict[str, str]:
    """What a network plugin notes of a pod that it gave an `address`, as Calico does."""
    return {
        "cni.projectcalico.org/containerID": builder.hexadecimal(64),
        "cni.projectcalico.org/podIP": f"{address}/32",
        "cni.projectcalico.org/podIPs": f"{address}/32",
    }
