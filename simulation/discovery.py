"""Discovery: what a cluster serves, as legacy lists and as aggregated discovery v2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from simulation.resources import ResourceType

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
    "exec": ("create", "get"),
    "finalize": ("update",),
    "log": ("get",),
    "portforward": ("create", "get"),
    "proxy": ("create", "delete", "get", "patch", "update"),
    "scale": ("get", "patch", "update"),
    "status": ("get", "patch", "update"),
}

Groups = dict[str, dict[str, list[ResourceType]]]


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


def groups(types: Iterable[ResourceType]) -> Groups:
    """Types by group and version, versions in the order of preference, types by name."""
    found: Groups = {"": {"v1": []}}
    for type in sorted(types, key=lambda type: type.key):
        for version in type.versions:
            found.setdefault(type.group, {}).setdefault(version, []).append(type)
    return found


def api_versions(address: str) -> dict[str, Any]:
    """The legacy answer of /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def api_group(name: str, versions: Iterable[str], *, enveloped: bool = True) -> dict[str, Any]:
    """The answer of /apis/<group>, or its entry in the list."""
    served = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    group = {"name": name, "versions": served, "preferredVersion": served[0]}
    return {"kind": "APIGroup", "apiVersion": "v1", **group} if enveloped else group


def api_group_list(found: Groups) -> dict[str, Any]:
    """The legacy answer of /apis."""
    listed = [api_group(name, versions, enveloped=False) for name, versions in found.items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def api_resource_list(group: str, version: str, types: list[ResourceType]) -> dict[str, Any]:
    """The legacy answer of /api/v1 and /apis/<group>/<version>."""
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
            if name == "scale":
                sub |= {"group": "autoscaling", "version": "v1", "kind": "Scale"}
            resources.append(sub)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def without(found: Groups, left_out: Callable[[str, str], bool]) -> Groups:
    """What is left of groups; one without a version is none."""
    kept = {
        name: {version: types for version, types in versions.items() if not left_out(name, version)}
        for name, versions in found.items()
    }
    return {name: versions for name, versions in kept.items() if versions}


def aggregated(found: Groups, *, core: bool, stale: Callable[[str, str], bool], cached: bool) -> dict[str, Any]:
    """Aggregated discovery v2: the core group for /api, the others for /apis.

    `stale` says which versions don't answer; `cached`: their resources are shown as last known.
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


def _aggregated_resource(type: ResourceType, version: str) -> dict[str, Any]:
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
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"} if name == "scale" else own,
                "verbs": list(_SUBRESOURCE_VERBS[name]),
            }
            for name in type.subresources
        ]
    return entry
