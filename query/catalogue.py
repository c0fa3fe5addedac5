"""The catalogue: which resource types there are in a scope, merged over its clusters, and their discovery documents.

At the root the union of all clusters, below `/clusters/<c>` exactly that cluster's. Kubernetes "API discovery",
aggregated and not.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from materializer.entry import TypeKey
from materializer.store import Cluster, Store, TypeInfo

# What clients may do here with every stored type.
READ_VERBS = ("get", "list", "watch")

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"

# Groups come in the order kubectl expects to prefer them: core, then apps, then the rest by name.
_FIRST_GROUPS = ("", "apps", "batch", "autoscaling", "networking.k8s.io", "policy", "rbac.authorization.k8s.io")

_VERSION = re.compile(r"v([1-9][0-9]{0,17})(?:(alpha|beta)([1-9][0-9]{0,17}))?", re.ASCII)


def _group_rank(group: str) -> tuple[int, str]:
    return (_FIRST_GROUPS.index(group) if group in _FIRST_GROUPS else len(_FIRST_GROUPS), group)


def _version_rank(version: str) -> tuple[int, int, int, str]:
    """Stable ones first, then beta, then alpha, newer before older, then all else (Kubernetes "Version priority")."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return (3, 0, 0, version)
    major, stage, minor = found.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), version)


class Served(msgspec.Struct, frozen=True):
    """A type as a scope serves it: what the clusters agree on, and which clusters have it in which version."""

    info: TypeInfo
    versions: tuple[str, ...]
    stored: dict[str, str]

    def clusters_with(self, version: str) -> frozenset[str]:
        """Clusters whose stored objects are of this version."""
        return frozenset(cluster for cluster, stored in self.stored.items() if stored == version)


class Catalogue:
    """The types of one scope at one state of the control records; made anew when those change.

    `forwarding`: what the one cluster of the scope offers beyond reading is offered, too.
    """

    def __init__(self, clusters: list[Cluster], *, forwarding: bool = False) -> None:
        self._forwarding = forwarding
        self.types: dict[TypeKey, Served] = {}
        found: dict[TypeKey, list[tuple[str, TypeInfo]]] = {}
        for cluster in sorted(clusters, key=lambda cluster: cluster.name):
            for key, info in cluster.types.items():
                found.setdefault(key, []).append((cluster.name, info))
        for key, infos in found.items():
            stored = {cluster: info.version for cluster, info in infos}
            # The version most clusters store is preferred; among equals, the one a cluster itself prefers.
            counts: dict[str, int] = {}
            for version in stored.values():
                counts[version] = counts.get(version, 0) + 1
            versions = sorted(counts, key=lambda version: -counts[version])
            info = next(info for _, info in infos if info.version == versions[0])
            self.types[key] = Served(info, tuple(versions), stored)
        self._documents: dict[str, tuple[bytes, str]] = {}

    def find(self, group: str, version: str, resource: str) -> Served | None:
        """The type a path names, if any cluster in scope stores it in that version."""
        served = self.types.get((group, resource))
        return served if served is not None and version in served.versions else None

    # -- documents -------------------------------------------------------------------------------------------------

    def _groups(self) -> dict[str, dict[str, list[Served]]]:
        groups: dict[str, dict[str, list[Served]]] = {}
        for (group, _), served in sorted(self.types.items(), key=lambda one: (_group_rank(one[0][0]), one[0][1])):
            for version in served.versions:
                groups.setdefault(group, {}).setdefault(version, []).append(served)
        # The first is the group's preferred version.
        return {
            group: dict(sorted(versions.items(), key=lambda one: _version_rank(one[0])))
            for group, versions in groups.items()
        }

    def document(self, name: str, *, aggregated: str | None = None) -> tuple[bytes, str] | None:
        """Body and ETag of `api`, `apis`, `api/v1`, `apis/<group>` or `apis/<group>/<version>`; None if unknown.

        `aggregated`: v2 or v2beta1, for `api` and `apis`.
        """
        cached = self._documents.get(f"{name} {aggregated}")
        if cached is None:
            content = self._aggregated(name, aggregated) if aggregated else self._listed(name)
            if content is None:
                return None
            body = msgspec.json.encode(content) + b"\n"
            cached = (body, f'"{hashlib.sha256(body).hexdigest()[:32].upper()}"')
            self._documents[f"{name} {aggregated}"] = cached
        return cached

    def _aggregated(self, name: str, version: str | None) -> dict[str, Any]:
        items = []
        for group, versions in self._groups().items():
            if (group == "") != (name == "api"):
                continue
            items.append(
                {
                    "metadata": {"creationTimestamp": None, **({"name": group} if group else {})},
                    "versions": [
                        {
                            "version": one,
                            "resources": [
                                _aggregated_resource(served, one, forwarding=self._forwarding) for served in types
                            ],
                            "freshness": "Current",
                        }
                        for one, types in versions.items()
                    ],
                }
            )
        return {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": f"apidiscovery.k8s.io/{version}",
            "metadata": {},
            "items": items,
        }

    def _listed(self, name: str) -> dict[str, Any] | None:
        groups = self._groups()
        root, *rest = name.split("/")
        if name == "api":
            return {
                "kind": "APIVersions",
                "versions": list(groups.get("", {"v1": []})),
                "serverAddressByClientCIDRs": [],
            }
        if name == "apis":
            listed = [_group(group, list(versions)) for group, versions in groups.items() if group]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        if root == "apis" and len(rest) == 1:
            if not rest[0] or rest[0] not in groups:
                return None
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(rest[0], list(groups[rest[0]]))}
        group, version = ("", rest[0]) if root == "api" else (rest[0], rest[1])
        if root == "apis" and not group:
            return None
        types = groups.get(group, {}).get(version)
        if types is None:
            return None
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": [
                entry for served in types for entry in _listed_resources(served, version, forwarding=self._forwarding)
            ],
        }


def aggregated_type(version: str) -> str:
    """The content type that tells clients an answer is aggregated discovery."""
    return _AGGREGATED.format(version)


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _verbs(info: TypeInfo, *, forwarding: bool) -> list[str]:
    return sorted({*READ_VERBS, *info.verbs}) if forwarding else list(READ_VERBS)


def _aggregated_resource(served: Served, version: str, *, forwarding: bool) -> dict[str, Any]:
    info = served.info
    below = [
        {
            "subresource": one.name,
            **({"responseKind": {"group": one.group, "version": one.version, "kind": one.kind}} if one.kind else {}),
            "verbs": list(one.verbs),
        }
        for one in (info.subresources if forwarding else ())
    ]
    return {
        "resource": info.resource,
        "responseKind": {"group": info.group, "version": version, "kind": info.kind},
        "scope": "Namespaced" if info.namespaced else "Cluster",
        "singularResource": info.singular,
        "verbs": _verbs(info, forwarding=forwarding),
        **({"shortNames": list(info.short_names)} if info.short_names else {}),
        **({"categories": list(info.categories)} if info.categories else {}),
        **({"subresources": below} if below else {}),
    }


def _listed_resources(served: Served, version: str, *, forwarding: bool) -> list[dict[str, Any]]:
    """A type and its subresources."""
    info = served.info
    entries: list[dict[str, Any]] = [
        {
            "name": info.resource,
            "singularName": info.singular,
            "namespaced": info.namespaced,
            "kind": info.kind,
            "verbs": _verbs(info, forwarding=forwarding),
            **({"shortNames": list(info.short_names)} if info.short_names else {}),
            **({"categories": list(info.categories)} if info.categories else {}),
        }
    ]
    for one in info.subresources if forwarding else ():
        foreign = (one.group, one.version) != (info.group, version)
        entries.append(
            {
                "name": f"{info.resource}/{one.name}",
                "singularName": "",
                "namespaced": info.namespaced,
                "kind": one.kind,
                **({"group": one.group, "version": one.version} if foreign and one.version else {}),
                "verbs": list(one.verbs),
            }
        )
    return entries


class Catalogues:
    """The catalogues of all scopes, each made when first asked for after a change of the control records.

    `forwarding`: whether requests below `/clusters/<cluster>` that are not answered here are passed on.
    """

    def __init__(self, *, forwarding: bool = False) -> None:
        self._forwarding = forwarding
        self._state: tuple[int, int] = (-1, -1)
        self._made: dict[str | None, Catalogue] = {}

    def of(self, store: Store, cluster: str | None) -> Catalogue:
        """The catalogue of one cluster, or of all."""
        state = (id(store), store.catalogue)
        if state != self._state:
            self._state = state
            self._made.clear()
        made = self._made.get(cluster)
        if made is None:
            chosen = list(store.clusters.values()) if cluster is None else [store.clusters[cluster]]
            made = self._made[cluster] = Catalogue(chosen, forwarding=self._forwarding and cluster is not None)
        return made


def server_version(store: Store, cluster: str | None, ours: str) -> dict[str, Any]:
    """The /version document: a cluster's own, at the root the newest of all, marked as ours."""
    if cluster is not None:
        return store.clusters[cluster].server_version or _unknown_version(ours)
    versions = [one.server_version for one in store.clusters.values() if one.server_version]
    if not versions:
        return _unknown_version(ours)
    newest = max(versions, key=_rank)
    return {**newest, "gitVersion": f"{newest.get('gitVersion', 'v0.0.0').partition('+')[0]}+kubebraid-{ours}"}


def _rank(version: dict[str, Any]) -> tuple[int, ...]:
    return tuple(
        int("".join(char for char in str(version.get(part, "")) if char.isdigit()) or 0) for part in ("major", "minor")
    )


def _unknown_version(ours: str) -> dict[str, Any]:
    return {"major": "", "minor": "", "gitVersion": f"v0.0.0+kubebraid-{ours}", "platform": ""}
