"""Defaults: the few fields that a server fills in and that clients look at."""

from __future__ import annotations

from typing import Any

from simulation.resources import NAMESPACES, PODS, SERVICES, SimulatedType

__all__ = ["set_defaults"]


def set_defaults(type: SimulatedType, body: dict[str, Any]) -> None:
    """Fill in what a body without kind and apiVersion leaves out. What it has, stays."""
    metadata = body["metadata"]
    spec = body.get("spec")
    if type.key == NAMESPACES:
        labels = metadata.get("labels") or {}
        metadata["labels"] = {**labels, "kubernetes.io/metadata.name": metadata["name"]}
        body.setdefault("spec", {"finalizers": ["kubernetes"]})
        body.setdefault("status", {"phase": "Active"})
    elif type.key == PODS:
        body.setdefault("status", {"phase": "Pending", "qosClass": "BestEffort"})
        if isinstance(spec, dict):
            body["spec"] = {
                "restartPolicy": "Always",
                "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst",
                "serviceAccountName": "default",
                "schedulerName": "default-scheduler",
                **spec,
            }
    elif type.key == SERVICES and isinstance(spec, dict):
        body["spec"] = {"type": "ClusterIP", "sessionAffinity": "None", **spec}
        body.setdefault("status", {"loadBalancer": {}})
    elif type.group == "apps" and isinstance(spec, dict):
        if type.resource != "daemonsets":
            body["spec"] = {"replicas": 1, **spec}
        body.setdefault("status", {})
