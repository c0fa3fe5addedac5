"""Aggregation: APIs of other servers, which APIServices register and which may be unavailable.

The objects of such a server outlive its registration: its type is withdrawn, and served again with its objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulation.resources import SimulatedType
from simulation.storage import ClusterStorage, StoredObject

__all__ = ["API_SERVICES", "OFFERED", "Aggregation", "registration"]

API_SERVICES = ("apiregistration.k8s.io", "apiservices")

_METRICS = ("metrics.k8s.io", ("v1beta1",))
_READ = ("get", "list")
NODE_METRICS = SimulatedType(*_METRICS, "nodes", "NodeMetrics", namespaced=False, verbs=_READ)
POD_METRICS = SimulatedType(*_METRICS, "pods", "PodMetrics", verbs=_READ)
# Served as soon as they are registered.
OFFERED = (
    NODE_METRICS,
    POD_METRICS,
    SimulatedType("inventory.example.io", ("v1",), "assets", "Asset", singular="asset", generation=True),
)


def registration(group: str, version: str) -> dict[str, Any]:
    """The body of an APIService that registers a group's version, `v1beta1.metrics.k8s.io` say."""
    return {
        "metadata": {"name": f"{version}.{group}"},
        "spec": {
            "group": group,
            "version": version,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"namespace": "kube-system", "name": group.partition(".")[0], "port": 443},
        },
    }


class Aggregation:
    """Which APIs of other servers are served, by the APIServices in the storage.

    `offered` are the types that such servers have, by group and resource. `away(group, version)` says whether the
    server of a group's version does not answer now. `unanswered` are the (group, version) that are registered and that
    no server has.
    """

    def __init__(self, storage: ClusterStorage, now: Callable[[], str]) -> None:
        self.storage = storage
        self.now = now
        self.away: Callable[[str, str], bool] = lambda group, version: False
        self.offered: dict[tuple[str, str], SimulatedType] = {type.key: type for type in OFFERED}
        self.unanswered: frozenset[tuple[str, str]] = frozenset()

    def registered(self) -> dict[str, list[str]]:
        """The versions with an APIService that names a Service, by group."""
        found: dict[str, list[str]] = {}
        for stored in self.storage.collections[API_SERVICES].in_order():
            spec = stored.body().get("spec") or {}
            if spec.get("service"):
                found.setdefault(str(spec.get("group")), []).append(str(spec.get("version")))
        return found

    def reconcile(self) -> None:
        """Serve what is registered and offered, withdraw the rest, and set the condition Available of APIServices."""
        registered = self.registered()
        answered = set()
        for key, type in self.offered.items():
            versions = tuple(version for version in type.versions if version in registered.get(type.group, ()))
            answered |= {(type.group, version) for version in versions}
            served = self.storage.collections.get(key)
            if not versions:
                self.storage.withdraw_type(key)
            elif served is None or served.type.versions != versions:
                self.storage.add_type(replace(type, versions=versions))
                self._measure(type)
        unanswered = frozenset(
            (group, version)
            for group, versions in registered.items()
            for version in versions
            if (group, version) not in answered
        )
        if unanswered != self.unanswered:
            self.unanswered = unanswered
            self.storage.types_changed += 1
        for stored in list(self.storage.collections[API_SERVICES].in_order()):
            self._set_available(stored)

    def answers(self, group: str, version: str) -> bool:
        """Whether requests for a registered version are answered now."""
        return (group, version) not in self.unanswered and not self.away(group, version)

    def _set_available(self, stored: StoredObject) -> None:
        body = stored.body()
        spec = body.get("spec") or {}
        available = not spec.get("service") or self.answers(str(spec.get("group")), str(spec.get("version")))
        known = (body.get("status") or {}).get("conditions") or [{}]
        status = "True" if available else "False"
        if known[0].get("status") == status:
            return
        reason, message = ("Passed", "all checks passed") if available else ("FailedDiscoveryCheck", "no response")
        condition = {"type": "Available", "status": status, "lastTransitionTime": self.now()}
        body["status"] = {"conditions": [{**condition, "reason": reason, "message": message}]}
        self.storage.put(self.storage.collections[API_SERVICES], body)

    def _measure(self, type: SimulatedType) -> None:
        """Add the metrics of the present nodes or pods; they stay as they are."""
        if type.key not in (NODE_METRICS.key, POD_METRICS.key):
            return
        collection = self.storage.collections[type.key]
        usage = {"cpu": "25m", "memory": "64Mi"}
        for measured in list(self.storage.collections["", type.resource].in_order()):
            body: dict[str, Any] = {"metadata": {"name": measured.name}, "timestamp": self.now(), "window": "15s"}
            if type.namespaced:
                body["metadata"]["namespace"] = measured.namespace
                containers = measured.body().get("spec", {}).get("containers") or ()
                body["containers"] = [{"name": one["name"], "usage": usage} for one in containers]
            else:
                body["usage"] = usage
            body["metadata"] |= {"uid": measured.uid, "creationTimestamp": self.now()}
            self.storage.put(collection, body)
