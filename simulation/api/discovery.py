"""Discovery: what a cluster serves, as the older lists and as aggregated discovery v2 (KEP-3352). Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from simulation.resources import SimulatedType

__all__ = [
    "AGGREGATED",
    "aggregated",
    "api_group",
    "api_group_list",
    "api_resource_list",
    "api_versions",
    "groups",
    "version_info",
    "without",
]

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

_SUBRESOURCE_VERBS: dict[str, tuple[str, ...]] = {
    "attach": ("create", "get"),
    "binding": ("create",),
    "eviction": ("create",),
    "exec": ("create", "get"),
    "finalize": ("update",),
    "log": ("get",),
    "portforward": ("create", "get"),
    "proxy": ("create", "delete", "get", "patch", "update"),
    "scale": ("get", "patch", "update"),
    "status": ("get", "patch", "update"),
}

# Of those that are no objects of the type that they are below.
_SUBRESOURCE_KINDS = {
    "binding": {"group": "", "version": "v1", "kind": "Binding"},
    "eviction": {"group": "policy", "version": "v1", "kind": "Eviction"},
    "scale": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
}

ServedGroups = dict[str, dict[str, list[SimulatedType]]]


def version_info() -> dict[str, str]:
    """The answer of /version."""
    return {
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": "v1.36.0",
        "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean",
        "buildDate": "2026-04-22T00:00:00Z",
        "goVersion": "go1.26.0",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def groups(types: Iterable[SimulatedType]) -> ServedGroups:
    """Types by group and version, versions in the order of preference, types by name."""
    found: ServedGroups = {"": {"v1": []}}
    for type in sorted(types, key=lambda type: type.key):
        for version in type.versions:
            found.setdefault(type.group, {}).setdefault(version, []).append(type)
    return found


def api_versions(address: str) -> dict[str, Any]:
    """The APIVersions of /api. `address` is the host and port of the server."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def api_group(name: str, versions: Iterable[str], *, enveloped: bool = True) -> dict[str, Any]:
    """The APIGroup of /apis/<group>, or without kind and apiVersion its entry in the APIGroupList."""
    served = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    group = {"name": name, "versions": served, "preferredVersion": served[0]}
    return {"kind": "APIGroup", "apiVersion": "v1", **group} if enveloped else group


def api_group_list(found: ServedGroups) -> dict[str, Any]:
    """The APIGroupList of /apis."""
    listed = [api_group(name, versions, enveloped=False) for name, versions in found.items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def api_resource_list(group: str, version: str, types: list[SimulatedType]) -> dict[str, Any]:
    """The APIResourceList of /api/v1 and /apis/<group>/<version>."""
    resources: list[dict[str, Any]] = []
    for type in types:
        entry: dict[str, Any] = {
            "name": type.resource,
            "singularName": type.singular,
            "namespaced": type.namespaced,
            "kind": type.kind,
            "verbs": list(type.verbs),
        }
        if type.short_names:
            entry["shortNames"] = list(type.short_names)
        if type.categories:
            entry["categories"] = list(type.categories)
        resources.append(entry)
        for name in type.subresources:
            sub: dict[str, Any] = {
                "name": f"{type.resource}/{name}",
                "singularName": "",
                "namespaced": type.namespaced,
                "kind": type.kind,
                "verbs": list(_SUBRESOURCE_VERBS[name]),
            }
            if (other := _SUBRESOURCE_KINDS.get(name)) is not None:
                # The group is left out where it is the list's own.
                sub |= other if other["group"] else {"kind": other["kind"]}
            resources.append(sub)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def without(found: ServedGroups, left_out: Callable[[str, str], bool]) -> ServedGroups:
    """The groups without the versions that `left_out(group, version)` names, and without groups that have none left."""
    kept = {
        name: {version: types for version, types in versions.items() if not left_out(name, version)}
        for name, versions in found.items()
    }
    return {name: versions for name, versions in kept.items() if versions}


def aggregated(found: ServedGroups, *, core: bool, stale: Callable[[str, str], bool], cached: bool) -> dict[str, Any]:
    """The APIGroupDiscoveryList of /api (`core`) or /apis.

    `stale(group, version)` says which versions do not answer; with `cached` their last known resources are shown.
    """
    items = []
    for name, versions in found.items():
        if (name == "") != core:
            continue
        metadata: dict[str, Any] = {"name": name} if name else {}
        metadata["creationTimestamp"] = None
        served = [
            {
                "version": version,
                "resources": [
                    _aggregated_resource(type, version) for type in types if cached or not stale(name, version)
                ],
                "freshness": "Stale" if stale(name, version) else "Current",
            }
            for version, types in versions.items()
        ]
        items.append({"metadata": metadata, "versions": served})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_resource(type: SimulatedType, version: str) -> dict[str, Any]:
    own = {"group": type.group, "version": version, "kind": type.kind}
    entry: dict[str, Any] = {
        "resource": type.resource,
        "responseKind": own,
        "scope": "Namespaced" if type.namespaced else "Cluster",
        "singularResource": type.singular,
        "verbs": list(type.verbs),
    }
    if type.short_names:
        entry["shortNames"] = list(type.short_names)
    if type.categories:
        entry["categories"] = list(type.categories)
    if type.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": _SUBRESOURCE_KINDS.get(name, own),
                "verbs": list(_SUBRESOURCE_VERBS[name]),
            }
            for name in type.subresources
        ]
    return entry
