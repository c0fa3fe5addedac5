"""Pods: made from a template, and their status in each state that a pod is seen in."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from simulation.content.builder import ContentBuilder
from simulation.registry.managed_fields import field_set, managed_fields_entry
from simulation.resources import PODS
from simulation.storage import StoredObject

__all__ = ["PodBuilder", "PodState"]

# As kubectl's column STATUS has it, but for NotReady (running, and its probe fails) and Starting (its containers are
# being created).
PodState = Literal["Running", "NotReady", "CrashLoopBackOff", "Pending", "Starting", "Completed"]

# Owners whose pods' field sets are kept.
_FIELDS_KEPT = 20_000

_CONDITION_FIELDS: dict[str, Any] = {
    ".": {},
    "f:lastProbeTime": {},
    "f:lastTransitionTime": {},
    "f:status": {},
    "f:type": {},
}
_KUBELET_FIELDS: dict[str, Any] = {
    "f:status": {
        "f:conditions": {
            f'k:{{"type":"{type}"}}': _CONDITION_FIELDS
            for type in ("ContainersReady", "Initialized", "PodReadyToStartContainers", "Ready")
        },
        "f:containerStatuses": {},
        "f:hostIP": {},
        "f:hostIPs": {},
        "f:phase": {},
        "f:podIP": {},
        "f:podIPs": {".": {}},
        "f:startTime": {},
    }
}


class PodBuilder:
    """Makes the pods of one cluster."""

    def __init__(self, builder: ContentBuilder) -> None:
        self._builder = builder
        # By owner's uid and by name of the node.
        self._fields: dict[str, dict[str, Any]] = {}
        self._addresses: dict[str, str] = {}

    def add(
        self,
        namespace: str,
        prefix: str,
        template: dict[str, Any],
        owner: dict[str, Any],
        state: PodState,
        *,
        age: float = 0.0,
        name: str = "",
        node: str = "",
        priority: int = 0,
    ) -> StoredObject:
        """Add a pod of `owner` (an OwnerReference) from a PodTemplateSpec, in a state that it reached at its creation.

        Its name is `prefix` and a random suffix, and its node a random one, unless they are given.
        """
        name = name or f"{prefix}{self._builder.suffix(5)}"
        node = node or self._builder.random.choice(self._builder.nodes[1:] or self._builder.nodes)
        token = f"kube-api-access-{self._builder.suffix(5)}"
        spec = dict(template["spec"])
        mount = {
            "name": token,
            "readOnly": True,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        }
        spec["containers"] = [
            {**container, "volumeMounts": [*container.get("volumeMounts", ()), mount]}
            for container in spec["containers"]
        ]
        spec["volumes"] = [*spec.get("volumes", ()), _token_volume(token)]
        spec |= {
            "nodeName": node,
            "priority": priority,
            "tolerations": [
                {
                    "key": f"node.kubernetes.io/{key}",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 300,
                }
                for key in ("not-ready", "unreachable")
            ],
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
        }
        if state == "Pending":
            del spec["nodeName"]
        created = self._builder.time(age)
        body: dict[str, Any] = {
            "metadata": {
                "name": name,
                "generateName": prefix,
                "namespace": namespace,
                "uid": self._builder.storage.new_uid(),
                "generation": 1,
                "creationTimestamp": created,
                "labels": template["metadata"]["labels"],
                "annotations": template["metadata"].get("annotations", {}),
                "ownerReferences": [owner],
                "managedFields": self._managed_fields(owner, template, created, state),
            },
            "spec": spec,
            "status": self.status(spec, state, created),
        }
        return self._builder.storage.put(self._builder.storage.collections[PODS], body)

    def _managed_fields(
        self, owner: dict[str, Any], template: dict[str, Any], created: str, state: PodState
    ) -> list[dict[str, Any]]:
        # The field sets are the same for all pods of an owner: made once.
        known = self._fields.get(owner["uid"])
        if known is None:
            spec = {key: value for key, value in template["spec"].items() if key != "volumes"}
            own = {"labels": template["metadata"]["labels"], "ownerReferences": [owner]}
            known = {"f:metadata": field_set(own), "f:spec": field_set(spec)}
            if len(self._fields) > _FIELDS_KEPT:
                self._fields.clear()
            self._fields[owner["uid"]] = known
        entries = [managed_fields_entry("kube-controller-manager", "v1", created, known)]
        if state != "Pending":
            entries.append(managed_fields_entry("kubelet", "v1", created, _KUBELET_FIELDS, subresource="status"))
        return entries

    def status(self, spec: dict[str, Any], state: PodState, since: str, restarts: int = 0) -> dict[str, Any]:
        """The status of a pod that has been in a state since a time, with so many restarts of each container.

        `spec` needs `containers` and, unless the state is Pending, `nodeName`.
        """
        if state == "Pending":
            return _unschedulable(len(self._builder.nodes), since)
        host_ip = self._address(spec["nodeName"])
        draw = self._builder.random.randint
        pod_ip = f"10.{draw(100, 119)}.{draw(0, 249)}.{draw(2, 250)}"
        containers = spec["containers"]
        status: dict[str, Any] = {
            "phase": {"Starting": "Pending", "Completed": "Succeeded"}.get(state, "Running"),
            "conditions": _conditions([container["name"] for container in containers], state, since),
            "hostIP": host_ip,
            "hostIPs": [{"ip": host_ip}],
            "startTime": since,
            "containerStatuses": [
                self._container_status(container, state, since, restarts) for container in containers
            ],
            "qosClass": "Burstable",
        }
        if state != "Starting":
            status |= {"podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
        return status

    def _container_status(
        self, container: dict[str, Any], state: PodState, since: str, restarts: int
    ) -> dict[str, Any]:
        image = container["image"]
        digest = hashlib.sha256(image.encode()).hexdigest()
        status: dict[str, Any] = {
            "name": container["name"],
            "state": {"running": {"startedAt": since}},
            "lastState": {},
            "ready": state == "Running",
            "restartCount": restarts,
            "image": image,
            "imageID": f"{image.rpartition(':')[0]}@sha256:{digest}",
            "containerID": f"containerd://{self._builder.random.getrandbits(256):064x}",
            "started": state not in ("Completed", "CrashLoopBackOff"),
        }
        if state == "Starting":
            status |= {"state": {"waiting": {"reason": "ContainerCreating"}}, "started": False, "imageID": ""}
            del status["containerID"]
        elif state == "Completed":
            status["state"] = {"terminated": _terminated(0, "Completed", since)}
        elif state == "CrashLoopBackOff":
            message = f"back-off 5m0s restarting failed container={container['name']}"
            status |= {
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": message}},
                "lastState": {"terminated": _terminated(1, "Error", since)},
                "restartCount": restarts or self._builder.random.randint(3, 400),
            }
        return status

    def _address(self, node: str) -> str:
        # Read once: nodes keep theirs.
        found = self._addresses.get(node)
        if found is None:
            stored = self._builder.storage.get(("", "nodes"), "", node)
            addresses = (stored.body().get("status") or {}).get("addresses") if stored is not None else None
            found = self._addresses[node] = addresses[0]["address"] if addresses else "10.0.0.10"
        return found


def _unschedulable(nodes: int, since: str) -> dict[str, Any]:
    return {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": since,
                "reason": "Unschedulable",
                "message": f"0/{nodes} nodes are available: {nodes} Insufficient memory.",
            }
        ],
        "qosClass": "Burstable",
    }


def _conditions(containers: list[str], state: PodState, since: str) -> list[dict[str, Any]]:
    conditions = []
    for type in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"):
        holds = state == "Running" or type not in ("Ready", "ContainersReady")
        condition: dict[str, Any] = {
            "type": type,
            "status": "True" if holds else "False",
            "lastProbeTime": None,
            "lastTransitionTime": since,
        }
        if not holds:
            condition["reason"] = "PodCompleted" if state == "Completed" else "ContainersNotReady"
            if state != "Completed":
                condition["message"] = f"containers with unready status: [{' '.join(containers)}]"
        conditions.append(condition)
    return conditions


def _token_volume(name: str) -> dict[str, Any]:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [namespace]}},
            ],
            "defaultMode": 420,
        },
    }


def _terminated(code: int, reason: str, when: str) -> dict[str, Any]:
    return {"exitCode": code, "reason": reason, "startedAt": when, "finishedAt": when}
