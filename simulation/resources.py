"""Resource types: what a cluster serves, as its discovery has it, and how a type's objects are framed in JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "BUILT_IN",
    "CUSTOM_RESOURCE_DEFINITIONS",
    "NAMESPACES",
    "PODS",
    "SERVICES",
    "VERBS",
    "CustomColumn",
    "SimulatedType",
    "custom_type",
]

# (group, resource) of the types that the server treats in ways of their own.
CUSTOM_RESOURCE_DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")
NAMESPACES = ("", "namespaces")
PODS = ("", "pods")
SERVICES = ("", "services")

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

FieldReaders = Mapping[str, Callable[[dict[str, Any]], str]]


@dataclass(frozen=True, slots=True)
class CustomColumn:
    """A printer column of a custom resource (`additionalPrinterColumns`). `path` is its jsonPath."""

    name: str
    type: str
    path: str
    priority: int = 0
    format: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class SimulatedType:
    """One resource type of a cluster: for Deployments, group `apps`, versions `("v1",)`, resource `deployments`.

    `versions` are the served versions, the preferred one first; all have the same schema. `fields` are the field labels
    that selectors may use beside metadata.name and metadata.namespace, each with the function that reads it from an
    object. `generation` says whether `metadata.generation` follows the spec. `custom` is set for the type of a
    CustomResourceDefinition; `columns` are its printer columns by version.
    """

    group: str
    versions: tuple[str, ...]
    resource: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = VERBS
    subresources: tuple[str, ...] = ()
    generation: bool = False
    custom: bool = False
    fields: FieldReaders = field(default_factory=dict)
    columns: Mapping[str, tuple[CustomColumn, ...]] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """(group, resource), which identifies a type in all its versions."""
        return (self.group, self.resource)

    @property
    def qualified(self) -> str:
        """The name in error messages and for kubectl: `deployments.apps`, `pods`."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    def api_version(self, version: str = "") -> str:
        """`apps/v1`, `v1`; of the preferred version if none is given."""
        version = version or self.versions[0]
        return f"{self.group}/{version}" if self.group else version

    def head(self, version: str = "") -> bytes:
        """How an object that is not in a list begins, up to its stored form: `{"kind":"Pod","apiVersion":"v1",`.

        Custom resources are maps to a real server, with their members by name: theirs begin with apiVersion alone.
        """
        api_version = self.api_version(version)
        if self.custom:
            return f'{{"apiVersion":"{api_version}",'.encode()
        return f'{{"kind":"{self.kind}","apiVersion":"{api_version}",'.encode()

    def item_head(self, version: str = "") -> bytes:
        """How an object in a list begins: kube-apiserver leaves kind and apiVersion out for built-in types only."""
        return self.head(version) if self.custom else b"{"

    def list_frame(self, version: str, metadata: bytes) -> tuple[bytes, bytes]:
        """What a list has before its first and behind its last item. `metadata`: its ListMeta in JSON."""
        kind = self.list_kind or f"{self.kind}List"
        api_version = self.api_version(version)
        if self.custom:
            opening = f'{{"apiVersion":"{api_version}","items":['.encode()
            return opening, b'],"kind":"%s","metadata":%s}\n' % (kind.encode(), metadata)
        opening = f'{{"kind":"{kind}","apiVersion":"{api_version}","metadata":'.encode()
        return opening + metadata + b',"items":[', b"]}\n"

    @property
    def has_status(self) -> bool:
        """Whether status is a subresource: a write of the object leaves it as it is."""
        return "status" in self.subresources


def _read(*path: str, default: str = "") -> Callable[[dict[str, Any]], str]:
    def read(body: dict[str, Any]) -> str:
        value: Any = body
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
            if value is None:
                return default
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value)

    return read


def _pod_ips(body: dict[str, Any]) -> str:
    status = body.get("status")
    addresses = status.get("podIPs") if isinstance(status, dict) else None
    if not isinstance(addresses, list):
        return ""
    return ",".join(str(a.get("ip", "")) for a in addresses if isinstance(a, dict))


_POD_FIELDS: FieldReaders = {
    "spec.nodeName": _read("spec", "nodeName"),
    "spec.restartPolicy": _read("spec", "restartPolicy"),
    "spec.schedulerName": _read("spec", "schedulerName"),
    "spec.serviceAccountName": _read("spec", "serviceAccountName"),
    "spec.hostNetwork": _read("spec", "hostNetwork", default="false"),
    "status.phase": _read("status", "phase"),
    "status.podIP": _read("status", "podIP"),
    "status.podIPs": _pod_ips,
    "status.nominatedNodeName": _read("status", "nominatedNodeName"),
}

_EVENT_FIELDS: FieldReaders = {
    **{
        f"involvedObject.{name}": _read("involvedObject", name)
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    },
    "reason": _read("reason"),
    "reportingComponent": _read("reportingComponent"),
    "source": _read("source", "component"),
    "type": _read("type"),
}


def _type(group: str, resource: str, kind: str, short: str = "", **more: Any) -> SimulatedType:
    return SimulatedType(
        group=group,
        versions=("v1",),
        resource=resource,
        kind=kind,
        singular=kind.lower(),
        short_names=tuple(short.split()),
        **more,
    )


_ALL = ("all",)
_STATUS = ("status",)
_SCALED = ("scale", "status")

BUILT_IN: tuple[SimulatedType, ...] = (
    _type("", "configmaps", "ConfigMap", "cm"),
    _type("", "endpoints", "Endpoints", "ep"),
    _type("", "events", "Event", "ev", fields=_EVENT_FIELDS),
    _type(
        "",
        "namespaces",
        "Namespace",
        "ns",
        namespaced=False,
        subresources=("finalize", "status"),
        verbs=tuple(verb for verb in VERBS if verb != "deletecollection"),
        fields={"status.phase": _read("status", "phase")},
    ),
    _type(
        "",
        "nodes",
        "Node",
        "no",
        namespaced=False,
        subresources=_STATUS,
        fields={"spec.unschedulable": _read("spec", "unschedulable", default="false")},
    ),
    _type("", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", subresources=_STATUS),
    _type("", "persistentvolumes", "PersistentVolume", "pv", namespaced=False, subresources=_STATUS),
    _type(
        "",
        "pods",
        "Pod",
        "po",
        categories=_ALL,
        subresources=("attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"),
        generation=True,
        fields=_POD_FIELDS,
    ),
    _type("", "secrets", "Secret", fields={"type": _read("type")}),
    _type("", "serviceaccounts", "ServiceAccount", "sa"),
    _type(
        "",
        "services",
        "Service",
        "svc",
        categories=_ALL,
        subresources=("proxy", "status"),
        fields={"spec.clusterIP": _read("spec", "clusterIP"), "spec.type": _read("spec", "type")},
    ),
    _type(
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        "crd crds",
        namespaced=False,
        categories=("api-extensions",),
        subresources=_STATUS,
        generation=True,
    ),
    _type("apiregistration.k8s.io", "apiservices", "APIService", namespaced=False, subresources=_STATUS),
    _type("apps", "daemonsets", "DaemonSet", "ds", categories=_ALL, subresources=_STATUS, generation=True),
    _type("apps", "deployments", "Deployment", "deploy", categories=_ALL, subresources=_SCALED, generation=True),
    _type(
        "apps",
        "replicasets",
        "ReplicaSet",
        "rs",
        categories=_ALL,
        subresources=_SCALED,
        generation=True,
        fields={"status.replicas": _read("status", "replicas", default="0")},
    ),
    _type("apps", "statefulsets", "StatefulSet", "sts", categories=_ALL, subresources=_SCALED, generation=True),
    _type("batch", "cronjobs", "CronJob", "cj", categories=_ALL, subresources=_STATUS, generation=True),
    _type(
        "batch",
        "jobs",
        "Job",
        categories=_ALL,
        subresources=_STATUS,
        generation=True,
        fields={"status.successful": _read("status", "succeeded", default="0")},
    ),
    _type("coordination.k8s.io", "leases", "Lease"),
    _type("discovery.k8s.io", "endpointslices", "EndpointSlice", generation=True),
    _type("networking.k8s.io", "ingresses", "Ingress", "ing", subresources=_STATUS, generation=True),
    _type("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    _type("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", namespaced=False),
    _type("rbac.authorization.k8s.io", "rolebindings", "RoleBinding"),
    _type("rbac.authorization.k8s.io", "roles", "Role"),
    _type("storage.k8s.io", "storageclasses", "StorageClass", "sc", namespaced=False),
)


def custom_type(definition: dict[str, Any]) -> SimulatedType:
    """The type that a CustomResourceDefinition defines, from its body.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: the definition lacks what it must have, or has another shape.
    """
    spec = definition["spec"]
    names = spec["names"]
    served = [version for version in spec["versions"] if version.get("served")]
    if not served:
        raise ValueError("no version is served")
    columns = {
        version["name"]: tuple(
            CustomColumn(
                name=str(column["name"]),
                type=str(column["type"]),
                path=str(column["jsonPath"]),
                priority=int(column.get("priority", 0)),
                format=str(column.get("format", "")),
                description=str(column.get("description", "")),
            )
            for column in version.get("additionalPrinterColumns") or ()
        )
        for version in served
    }
    fields = {
        str(entry["jsonPath"]).lstrip("."): _read(*str(entry["jsonPath"]).lstrip(".").split("."))
        for version in served
        for entry in version.get("selectableFields") or ()
    }
    subresources = sorted({name for version in served for name in version.get("subresources") or {}})
    return SimulatedType(
        group=str(spec["group"]),
        versions=tuple(str(version["name"]) for version in sorted(served, key=_version_order)),
        resource=str(names["plural"]),
        kind=str(names["kind"]),
        namespaced=spec["scope"] == "Namespaced",
        singular=str(names.get("singular") or names["kind"].lower()),
        list_kind=str(names.get("listKind") or ""),
        short_names=tuple(map(str, names.get("shortNames") or ())),
        categories=tuple(map(str, names.get("categories") or ())),
        subresources=tuple(name for name in subresources if name in ("status", "scale")),
        generation=True,
        custom=True,
        fields=fields,
        columns=columns,
    )


def _version_order(version: Mapping[str, Any]) -> tuple[int, int, int, str]:
    """Kubernetes' order of versions: v2, v1, v1beta2, v1alpha1, then the rest by name.

    Source: "Version priority" in "Versions in CustomResourceDefinitions" of the Kubernetes documentation.
    """
    name = str(version["name"])
    body = name[1:] if name.startswith("v") else ""
    for rank, word in ((1, "beta"), (2, "alpha")):
        major, found, minor = body.partition(word)
        if found and major.isdecimal() and minor.isdecimal():
            return (rank, -int(major), -int(minor), name)
    if body.isdecimal():
        return (0, -int(body), 0, name)
    return (3, 0, 0, name)
