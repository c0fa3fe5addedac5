"""Pods: made from a template, and their status in each state that a pod is seen in."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any, Literal

from simulation.content.builder import ContentBuilder
from simulation.content.injection import inject_proxy, network_annotations
from simulation.registry.managed_fields import field_set, managed_fields_entry
from simulation.resources import PODS
from simulation.storage import StoredObject
from simulation.times import timestamp

__all__ = ["PodBuilder", "PodState"]

# As kubectl's column STATUS has it, but for NotReady (running, and its probe fails) and Starting (its containers are
# being created).
PodState = Literal["Running", "NotReady", "CrashLoopBackOff", "Pending", "Starting", "Completed"]

# Owners whose pods' field sets are kept.
_FIELDS_KEPT = 20_000

# In seconds: a pod that mixed content has been running for longer may have lost its readiness, or restarted, since.
_SETTLED = 600.0
# Why containers end: exit code and reason.
_ENDS = ((137, "OOMKilled"), (137, "OOMKilled"), (1, "Error"), (2, "Error"), (143, "Error"), (0, "Completed"))

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
        labels, annotations = template["metadata"]["labels"], template["metadata"].get("annotations", {})
        mixed = self._builder.variety == "mixed"
        if mixed:
            annotations = inject_proxy(self._builder, namespace, labels, annotations, spec)
        if spec.get("automountServiceAccountToken", True):
            _mount_token(spec, token)
        spec |= {
            "nodeName": node,
            "priority": priority,
            "tolerations": [
                *spec.get("tolerations", ()),
                *(
                    {
                        "key": f"node.kubernetes.io/{key}",
                        "operator": "Exists",
                        "effect": "NoExecute",
                        "tolerationSeconds": 300,
                    }
                    for key in ("not-ready", "unreachable")
                ),
            ],
            "enableServiceLinks": True,
            "preemptionPolicy": "PreemptLowerPriority",
        }
        if state == "Pending":
            del spec["nodeName"]
        created = self._builder.time(age)
        status = self.status(spec, state, created)
        if mixed and (address := status.get("podIP")):
            annotations = {**network_annotations(self._builder, address), **annotations}
        body: dict[str, Any] = {
            "metadata": {
                "name": name,
                "generateName": prefix,
                "namespace": namespace,
                "uid": self._builder.storage.new_uid(),
                "generation": 1,
                "creationTimestamp": created,
                "labels": labels,
                "annotations": annotations,
                "ownerReferences": [owner],
                "managedFields": self._managed_fields(owner, template, created, state),
            },
            "spec": spec,
            "status": status,
        }
        return self._builder.storage.put(self._builder.storage.collections[PODS], body)

    def _managed_fields(
        self, owner: dict[str, Any], template: dict[str, Any], created: str, state: PodState
    ) -> list[dict[str, Any]]:
        # The field sets are the same for all pods of an owner: made once.
        known = self._fields.get(owner["uid"])
        if known is None:
            spec = self._builder.spec_fields(template["spec"])
            own = {"labels": template["metadata"]["labels"], "ownerReferences": [owner]}
            known = {
                "f:metadata": field_set(own),
                "f:spec": {name: fields for name, fields in spec.items() if name != "f:volumes"},
            }
            if len(self._fields) > _FIELDS_KEPT:
                self._fields.clear()
            self._fields[owner["uid"]] = known
        entries = [managed_fields_entry("kube-controller-manager", "v1", created, known)]
        if state != "Pending":
            entries.append(managed_fields_entry("kubelet", "v1", created, _KUBELET_FIELDS, subresource="status"))
        return entries

    def run(self, body: dict[str, Any], since: str) -> None:
        """Change the body of a pod that was starting: it has been running and ready since a time."""
        status = body["status"] = self.status(body["spec"], "Running", since)
        if self._builder.variety == "mixed":
            metadata = body["metadata"]
            noted = network_annotations(self._builder, status["podIP"])
            metadata["annotations"] = {**noted, **(metadata.get("annotations") or {}), **noted}

    def status(self, spec: dict[str, Any], state: PodState, since: str) -> dict[str, Any]:
        """The status of a pod that has been in a state since a time.

        `spec` needs `containers` and, unless the state is Pending, `nodeName`. In mixed content what happens to a pod
        happens some seconds after the other, and one in twelve has restarted.
        """
        if state == "Pending":
            return _unschedulable(len(self._builder.nodes), since)
        host_ip = self._address(spec["nodeName"])
        draw = self._builder.random.randint
        pod_ip = f"10.{draw(100, 119)}.{draw(0, 249)}.{draw(2, 250)}"
        containers = spec["containers"]
        initialized = ready = since
        if self._builder.variety == "mixed":
            initialized, ready = self._progress(since)
        names = [container["name"] for container in containers]
        status: dict[str, Any] = {
            "phase": {"Starting": "Pending", "Completed": "Succeeded"}.get(state, "Running"),
            "conditions": _conditions(names, state, since, initialized, ready),
            "hostIP": host_ip,
            "hostIPs": [{"ip": host_ip}],
            "startTime": since,
            "containerStatuses": [self._container_status(container, state, initialized) for container in containers],
            "qosClass": _qos_class(containers),
        }
        if (first := spec.get("initContainers")) and state != "Starting":
            status["initContainerStatuses"] = [
                self._container_status(container, "Completed", since) | {"ready": True} for container in first
            ]
        if state != "Starting":
            status |= {"podIP": pod_ip, "podIPs": [{"ip": pod_ip}]}
        return status

    def _progress(self, since: str) -> tuple[str, str]:
        """When a pod that was created at a time was initialized, and when it got ready the last time."""
        builder = self._builder
        created, now = datetime.fromisoformat(since), builder.clock()
        seconds = (now - created).total_seconds()
        initialized = min(float(builder.number(1, 14)), seconds)
        ready = min(initialized + builder.number(2, 75), seconds)
        if seconds > _SETTLED and builder.random.random() < 0.15:
            ready = builder.random.uniform(ready, seconds)
        return timestamp(created + timedelta(seconds=initialized)), timestamp(created + timedelta(seconds=ready))

    def _container_status(self, container: dict[str, Any], state: PodState, since: str) -> dict[str, Any]:
        tagged, _, digest = container["image"].partition("@sha256:")
        digest = digest or hashlib.sha256(tagged.encode()).hexdigest()
        status: dict[str, Any] = {
            "name": container["name"],
            "state": {"running": {"startedAt": since}},
            "lastState": {},
            "ready": state == "Running",
            "restartCount": 0,
            "image": container["image"],
            "imageID": f"{tagged.rpartition(':')[0]}@sha256:{digest}",
            "containerID": f"containerd://{self._builder.hexadecimal(64)}",
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
                "restartCount": self._builder.random.randint(3, 400),
            }
        elif self._builder.variety == "mixed" and self._builder.random.random() < 0.08:
            self._restarted(status, since)
        return status

    def _restarted(self, status: dict[str, Any], since: str) -> None:
        """Change the status of a container that has been running since a time: it ended, and was started again."""
        builder = self._builder
        created = datetime.fromisoformat(since)
        seconds = (builder.clock() - created).total_seconds()
        if seconds < _SETTLED:
            return
        ended = created + timedelta(seconds=builder.random.uniform(1, seconds - 60))
        code, reason = builder.pick(_ENDS)
        last = _terminated(code, reason, since) | {"finishedAt": timestamp(ended)}
        last["containerID"] = f"containerd://{builder.hexadecimal(64)}"
        status |= {
            "state": {"running": {"startedAt": timestamp(ended + timedelta(seconds=builder.number(1, 45)))}},
            "lastState": {"terminated": last},
            "restartCount": builder.number(1, 9),
        }

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


def _conditions(
    containers: list[str], state: PodState, scheduled: str, initialized: str, ready: str
) -> list[dict[str, Any]]:
    conditions = []
    for type, since in (
        ("PodReadyToStartContainers", initialized),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", ready),
        ("PodScheduled", scheduled),
    ):
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


def _qos_class(containers: list[dict[str, Any]]) -> str:
    """As k8s.io/kubernetes pkg/apis/core/v1/helper/qos has it."""
    given = [container.get("resources") or {} for container in containers]
    if not any(given):
        return "BestEffort"
    guaranteed = all(one.get("limits") and one["limits"] == one.get("requests", one["limits"]) for one in given)
    return "Guaranteed" if guaranteed else "Burstable"


def _mount_token(spec: dict[str, Any], name: str) -> None:
    """Add the volume `name` with the token of the service account, and mount it in all containers."""
    mount = {"name": name, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    for containers in ("initContainers", "containers"):
        if containers in spec:
            spec[containers] = [
                {**container, "volumeMounts": [*container.get("volumeMounts", ()), mount]}
                for container in spec[containers]
            ]
    spec["volumes"] = [*spec.get("volumes", ()), _token_volume(name)]


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
