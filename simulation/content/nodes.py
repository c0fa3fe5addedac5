"""Nodes and the Leases by which they and the control plane show that they are alive."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from simulation.content.builder import DAY, ContentBuilder, owner_reference
from simulation.content.names import SERVICES, TEAMS
from simulation.times import micro_timestamp, timestamp

__all__ = ["add_control_plane_leases", "add_node"]


def add_node(builder: ContentBuilder, number: int) -> None:
    """Add a node with its Lease: `alpha-node-000` is the first of cluster alpha, with the control plane on it.

    A node has 8 CPUs and 31 GiB, is in one of three zones, and has taken heartbeats up to now.
    """
    name = f"{builder.cluster}-node-{number:03d}"
    builder.nodes.append(name)
    zone = "abc"[number % 3]
    address = f"10.{20 + number // 250}.{number % 250}.10"
    seconds = 50 * DAY
    since = builder.time(seconds)
    beat = timestamp(builder.start)
    conditions = [
        (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "m6i.2xlarge",
        "topology.kubernetes.io/region": "eu-central-1",
        "topology.kubernetes.io/zone": f"eu-central-1{zone}",
    }
    spec: dict[str, Any] = {
        "podCIDR": f"10.{100 + number // 250}.{number % 250}.0/24",
        "providerID": f"simulation:///{zone}/{name}",
    }
    if number == 0:
        labels["node-role.kubernetes.io/control-plane"] = ""
        spec["taints"] = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
    stored = builder.put(
        "",
        "nodes",
        {
            "metadata": {
                "name": name,
                "labels": labels,
                "annotations": {
                    "node.alpha.kubernetes.io/ttl": "0",
                    "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                },
            },
            "spec": spec,
            "status": {
                "capacity": _resources("8", "32466308Ki"),
                "allocatable": _resources("7910m", "31417732Ki"),
                "conditions": [
                    {
                        "type": type,
                        "status": status,
                        "lastHeartbeatTime": beat,
                        "lastTransitionTime": since,
                        "reason": reason,
                        "message": message,
                    }
                    for type, status, reason, message in conditions
                ],
                "addresses": [
                    {"type": "InternalIP", "address": address},
                    {"type": "Hostname", "address": name},
                ],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                "nodeInfo": {
                    "machineID": hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(),
                    "systemUUID": builder.storage.new_uid(),
                    "bootID": builder.storage.new_uid(),
                    "kernelVersion": "6.12.30-cloud-amd64",
                    "osImage": "Debian GNU/Linux 13 (trixie)",
                    "containerRuntimeVersion": "containerd://2.1.4",
                    "kubeletVersion": "v1.36.0",
                    "kubeProxyVersion": "",
                    "operatingSystem": "linux",
                    "architecture": "amd64",
                },
                "images": _images(builder),
            },
        },
        manager="kubelet",
        age=seconds,
    )
    builder.put(
        "coordination.k8s.io",
        "leases",
        {
            "metadata": {
                "name": name,
                "namespace": "kube-node-lease",
                "ownerReferences": [owner_reference("v1", "Node", name, stored.uid, controller=False)],
            },
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro_timestamp(builder.start)},
        },
        manager="kubelet",
        age=seconds,
    )


def add_control_plane_leases(builder: ContentBuilder) -> None:
    """Add the Leases by which the controller manager and the scheduler elect their leader, held on the first node."""
    for name in ("kube-controller-manager", "kube-scheduler"):
        builder.put(
            "coordination.k8s.io",
            "leases",
            {
                "metadata": {"name": name, "namespace": "kube-system"},
                "spec": {
                    "holderIdentity": f"{builder.nodes[0]}_{builder.storage.new_uid()}",
                    "leaseDurationSeconds": 15,
                    "acquireTime": micro_timestamp(builder.start - timedelta(days=3)),
                    "renewTime": micro_timestamp(builder.start),
                    "leaseTransitions": 4,
                },
            },
            manager=name,
            age=50 * DAY,
        )


def _images(builder: ContentBuilder) -> list[dict[str, Any]]:
    """What a kubelet reports of the images that it has pulled: in mixed content by digest and tag, large ones first."""
    if builder.variety == "uniform":
        return [
            {
                "names": [f"registry.example.io/platform/base-{index}:1.{index}"],
                "sizeBytes": 41_000_000 + index * 1_234_567,
            }
            for index in range(8)
        ]
    found = []
    for _ in range(builder.number(6, 30)):
        team, service = builder.pick(TEAMS), builder.pick(SERVICES)
        repository = f"registry.example.io/{team}/{team}-{service}-{builder.number(0, 60)}"
        names = [f"{repository}@sha256:{builder.hexadecimal(64)}", f"{repository}:v1.{builder.number(0, 60)}.0"]
        found.append({"names": names, "sizeBytes": builder.number(4_000_000, 900_000_000)})
    return sorted(found, key=lambda image: -int(image["sizeBytes"]))


def _resources(cpu: str, memory: str) -> dict[str, Any]:
    return {
        "cpu": cpu,
        "ephemeral-storage": "101430960Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "memory": memory,
        "pods": "110",
    }
