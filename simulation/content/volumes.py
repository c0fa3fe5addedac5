"""Volumes: the storage class, and claims with the volumes that are bound to them."""

from __future__ import annotations

from typing import Any

from simulation.content.builder import DAY, ContentBuilder

__all__ = ["add_storage_class", "add_volume"]


def add_storage_class(builder: ContentBuilder) -> None:
    """Add the default StorageClass, `standard`."""
    builder.put(
        "storage.k8s.io",
        "storageclasses",
        {
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "csi.example.io",
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        },
        manager="kubectl-client-side-apply",
        age=60 * DAY,
    )


def add_volume(builder: ContentBuilder, namespace: str, name: str, labels: dict[str, Any], age: float) -> None:
    """Add a PersistentVolumeClaim and the PersistentVolume of 20 GiB that it is bound to."""
    capacity = {"storage": "20Gi"}
    volume = f"pvc-{builder.storage.new_uid()}"
    claim = builder.put(
        "",
        "persistentvolumeclaims",
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": labels,
                "finalizers": ["kubernetes.io/pvc-protection"],
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": capacity},
                "volumeName": volume,
                "storageClassName": "standard",
                "volumeMode": "Filesystem",
            },
            "status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": capacity},
        },
        age=age,
    )
    builder.put(
        "",
        "persistentvolumes",
        {
            "metadata": {"name": volume, "finalizers": ["kubernetes.io/pv-protection"]},
            "spec": {
                "capacity": capacity,
                "csi": {"driver": "csi.example.io", "volumeHandle": f"vol-{builder.suffix(12)}"},
                "accessModes": ["ReadWriteOnce"],
                "claimRef": {
                    "kind": "PersistentVolumeClaim",
                    "namespace": namespace,
                    "name": name,
                    "uid": claim.uid,
                    "apiVersion": "v1",
                },
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": "standard",
                "volumeMode": "Filesystem",
            },
            "status": {"phase": "Bound"},
        },
        age=age,
    )
