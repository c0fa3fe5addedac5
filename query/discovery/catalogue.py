"""The catalogue: which resource types there are in a scope, merged over its clusters, and their discovery documents.

At the root the union of all clusters, below `/clusters/<c>` exactly that cluster's: what can be read here, or, where
requests are passed on, all that the cluster serves. Kubernetes "API discovery", aggregated and not.
"""

from __future__ import annotations

import functools
import hashlib
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import structlog

from deltalog.wire.kubernetes import GroupResource, GroupVersion
from deltalog.wire.records import ClusterDocument
from deltalog.wire.resource_type import ResourceType
from materializer.cluster_facts import ClusterFacts
from materializer.store import Store
from query.discovery.clusterpedia import GROUP, OFFERED
from query.http.status import ApiError

log = structlog.get_logger("query.discovery.catalogue")

# What clients may do here with every stored type.
READ_VERBS = ("get", "list", "watch")

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"

# Groups come in the order kubectl expects to prefer them: core, then apps, then the rest by name.
_FIRST_GROUPS = ("", "apps", "batch", "autoscaling", "networking.k8s.io", "policy", "rbac.authorization.k8s.io")

_GZIP_FORMAT = 31
# Catalogues of different parts of the clusters that are kept: users who may see the same have one.
_CATALOGUES = 256

# An item of an APIGroupDiscoveryList.
Group = dict[str, Any]

_VERSION = re.compile(r"v([1-9][0-9]{0,17})(?:(alpha|beta)([1-9][0-9]{0,17}))?", re.ASCII)


def _group_rank(group: str) -> tuple[int, str]:
    return (_FIRST_GROUPS.index(group) if group in _FIRST_GROUPS else len(_FIRST_GROUPS), group)


def _version_rank(version: str) -> tuple[int, int, int, str]:
    """Stable ones first, then beta, then alpha, newer before older, then any other (Kubernetes "Version priority")."""
    found = _VERSION.fullmatch(version)
    if found is None:
        return (3, 0, 0, version)
    major, stage, minor = found.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), version)


class ServedType(msgspec.Struct, frozen=True):
    """A type as a scope serves it.

    `info`: as the clusters that have the preferred version describe it. `versions`: all in which clusters store it, the
    preferred one first. `stored`: that version by cluster. `resource` and `title`: `info`'s, and its text.

    `without_namespaces`: the clusters in which it has no namespaces where others have it in namespaces. Then it counts
    as one in namespaces, as kubectl then lists with `-A` what has none, too.
    """

    resource: GroupResource
    title: str
    info: ResourceType
    versions: tuple[str, ...]
    stored: dict[str, str]
    without_namespaces: tuple[str, ...] = ()

    def fits(self, namespace: str, name: str) -> bool:
        """Whether a path may be one of the type: with a namespace or without, of one object or of all."""
        if namespace:
            return self.info.namespaced
        return not (name and self.info.namespaced) or bool(self.without_namespaces)


class Catalogue:
    """The types of one scope at one state of the control records; another one is made when those change.

    `forwarding`: the scope is one cluster, to which requests are passed on; what that cluster offers beyond reading is
    offered as well, as far as it is known (`discovery`).
    """

    def __init__(self, clusters: list[ClusterFacts], *, forwarding: bool = False) -> None:
        self.forwarding = forwarding
        self.discovery = clusters[0].discovery if forwarding else None
        self.types: dict[GroupResource, ServedType] = {}
        found: dict[GroupResource, list[tuple[str, ResourceType]]] = {}
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
            without = tuple(cluster for cluster, one in infos if not one.namespaced)
            if len(without) in (0, len(infos)):
                without = ()
            elif not info.namespaced:
                info = next(
                    (one for _, one in infos if one.version == versions[0] and one.namespaced),
                    msgspec.structs.replace(info, namespaced=True),
                )
            self.types[key] = ServedType(key, str(key), info, tuple(versions), stored, without)
        self._documents: dict[str, tuple[bytes, str]] = {}

    def find(self, group: str, version: str, resource: str) -> ServedType | None:
        """The type that a path names; None unless a cluster in scope stores it in that version. O(1)."""
        served = self.types.get(GroupResource(group, resource))
        return served if served is not None and version in served.versions else None

    def watchable(self, group: str, version: str, resource: str) -> bool:
        """Whether the cluster itself has a type that can be watched, or may have one that is not known here yet.

        O(its groups).
        """
        for known in _decoded(self.discovery) if self.discovery is not None else ():
            for one in known["versions"] if _name(known) == group else ():
                if one["version"] == version:
                    verbs = [found["verbs"] for found in one["resources"] if found["resource"] == resource]
                    return not verbs or "watch" in verbs[0]
        return True

    # -- documents -------------------------------------------------------------------------------------------------

    def _synced(self) -> dict[str, dict[str, list[ServedType]]]:
        groups: dict[str, dict[str, list[ServedType]]] = {}
        for (group, _), served in sorted(self.types.items(), key=lambda one: (_group_rank(one[0][0]), one[0][1])):
            for version in served.versions:
                groups.setdefault(group, {}).setdefault(version, []).append(served)
        # The first is the group's preferred version.
        return {
            group: dict(sorted(versions.items(), key=lambda one: _version_rank(one[0])))
            for group, versions in groups.items()
        }

    def _groups(self, *, own: bool) -> list[Group]:
        """Everything that is offered, as aggregated discovery has it; the core group is nameless.

        `own`: with the group that is this service's own, which stands for itself where clusters have one so called.
        """
        synced = [
            {
                "metadata": {"name": group} if group else {},
                "versions": [
                    {
                        "version": version,
                        "resources": [_resource(served, version, forwarding=self.forwarding) for served in types],
                        "freshness": "Current",
                    }
                    for version, types in versions.items()
                ],
            }
            for group, versions in self._synced().items()
            if not (own and group == GROUP)
        ]
        if own:
            synced.append(OFFERED)
        return synced if self.discovery is None else _with_synced(_decoded(self.discovery), synced)

    def document(self, name: str, *, aggregated: str | None = None, own: bool = False) -> tuple[bytes, str] | None:
        """Body and ETag of `api`, `apis`, `api/v1`, `apis/<group>` or `apis/<group>/<version>`; None if unknown.

        `aggregated`: v2 or v2beta1, for `api` and `apis`. `own`: with what is served beside the clusters' types, as at
        the root. O(1) but for the first time.

        Raises:
            ApiError: 503, the cluster itself could not say what a version has, as its server does not answer.
        """
        cached = self._documents.get(f"{name} {aggregated} {own}")
        if cached is None:
            groups = self._groups(own=own)
            content = _aggregated(name, aggregated, groups) if aggregated else _listed(name, groups)
            if content is None:
                return None
            body = msgspec.json.encode(content) + b"\n"
            cached = (body, f'"{hashlib.sha256(body).hexdigest()[:32].upper()}"')
            self._documents[f"{name} {aggregated} {own}"] = cached
        return cached


def _aggregated(name: str, version: str, offered: Iterable[Group]) -> dict[str, Any]:
    items = [
        {**group, "metadata": {"creationTimestamp": None, **group["metadata"]}}
        for group in offered
        if (_name(group) == "") == (name == "api")
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _listed(name: str, offered: Iterable[Group]) -> dict[str, Any] | None:
    """A document of unaggregated discovery. Raises ApiError 503."""
    groups = {_name(group): {one["version"]: one for one in group["versions"]} for group in offered}
    root, *rest = name.split("/")
    if name == "api":
        return {
            "kind": "APIVersions",
            "versions": list(groups.get("", {"v1": {}})),
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
    found = groups.get(group, {}).get(version)
    if found is None:
        return None
    if found["freshness"] == "Stale" and not found["resources"]:
        raise ApiError(503, f"the cluster does not know what {group}/{version} has: its server does not answer")
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": str(GroupVersion(group, version)),
        "resources": [entry for one in found["resources"] for entry in _listed_resources(one, group, version)],
    }


@functools.lru_cache(maxsize=4)
def _decoded(document: ClusterDocument) -> list[Group]:
    """The groups of a discovery document, not to be changed; none if it cannot be read.

    The last ones are kept, as clients ask for one part after another.
    """
    try:
        return msgspec.json.decode(zlib.decompress(document.body, _GZIP_FORMAT), type=list[Group])
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError) as problem:
        log.warning("a cluster's discovery cannot be read", reason=str(problem))
        return []


def _with_synced(groups: Iterable[Group], synced: Iterable[Group]) -> list[Group]:
    """A cluster's groups, merged with what can be read here; either may be newer."""
    names = {_name(group): group for group in groups}
    for group in synced:
        known = names.get(_name(group))
        if known is None:
            names[_name(group)] = group
            continue
        versions = list(known["versions"])
        for one in group["versions"]:
            version = one["version"]
            at = next((at for at, other in enumerate(versions) if other["version"] == version), None)
            if at is not None:
                versions[at] = _with_readable(versions[at], one)
                continue
            rank = _version_rank(version)
            lesser = (at for at, other in enumerate(versions) if _version_rank(other["version"]) > rank)
            versions.insert(next(lesser, len(versions)), one)
        names[_name(group)] = {**known, "versions": versions}
    return list(names.values())


def _with_readable(known: dict[str, Any], synced: dict[str, Any]) -> dict[str, Any]:
    """A version with what can be read here, whether the server behind it answers the cluster now or not."""
    resources = {one["resource"]: one for one in known["resources"]}
    for one in synced["resources"]:
        before = resources.get(one["resource"], one)
        verbs = [*before["verbs"], *(verb for verb in READ_VERBS if verb not in before["verbs"])]
        resources[one["resource"]] = {**before, "verbs": verbs}
    return {**known, "resources": list(resources.values()), "freshness": "Current"}


def _name(group: Group) -> str:
    return str(group["metadata"].get("name", ""))


def aggregated_type(version: str) -> str:
    """The content type that tells clients an answer is aggregated discovery."""
    return _AGGREGATED.format(version)


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _verbs(info: ResourceType, *, forwarding: bool) -> list[str]:
    return sorted({*READ_VERBS, *info.verbs}) if forwarding else list(READ_VERBS)


def _resource(served: ServedType, version: str, *, forwarding: bool) -> dict[str, Any]:
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


def _listed_resources(listed: dict[str, Any], group: str, version: str) -> list[dict[str, Any]]:
    """A type and its subresources, as lists have them (k8s.io/client-go discovery/aggregated_discovery.go)."""
    namespaced = listed["scope"] == "Namespaced"
    entries: list[dict[str, Any]] = []
    kind = _response_kind(listed, group, version)
    # A type that is another API's, of which this one has subresources, is in no list.
    if kind["kind"] or listed["verbs"]:
        entries.append(
            {
                "name": listed["resource"],
                "singularName": listed["singularResource"],
                "namespaced": namespaced,
                **kind,
                "verbs": listed["verbs"],
                **{key: listed[key] for key in ("shortNames", "categories") if key in listed},
            }
        )
    entries.extend(
        {
            "name": f"{listed['resource']}/{one['subresource']}",
            "singularName": "",
            "namespaced": namespaced,
            **_response_kind(one, group, version),
            "verbs": one["verbs"],
        }
        for one in listed.get("subresources", ())
    )
    return entries


def _response_kind(listed: dict[str, Any], group: str, version: str) -> dict[str, str]:
    """A kind as lists have it: with group and version where they are not the list's own."""
    kind = listed.get("responseKind") or {"group": "", "version": "", "kind": ""}
    foreign = (kind["group"], kind["version"]) != (group, version)
    own = {"group": kind["group"], "version": kind["version"]} if foreign and kind["version"] else {}
    return {**own, "kind": kind["kind"]}


class Catalogues:
    """The catalogues of all scopes, each made when it is first asked for after a change of the control records.

    `forwards`: whether requests for a cluster that are not answered here are passed on to it.
    """

    def __init__(self, forwards: Callable[[str], bool]) -> None:
        self._forwards = forwards
        self._state: tuple[int, int] = (-1, -1)
        self._made: dict[str | None, Catalogue] = {}
        # Of some of the clusters, as users may see them.
        self._among: OrderedDict[frozenset[str], Catalogue] = OrderedDict()

    def of(self, generation: int, store: Store, cluster: str | None, among: frozenset[str] | None = None) -> Catalogue:
        """The catalogue of one cluster, or of all (None), or of those of them that are in `among`.

        `generation`: the store's, see `Materializer.generation`. O(1) unless types have changed since the last call.
        """
        state = (generation, store.catalogue)
        if state != self._state:
            self._state = state
            self._made.clear()
            self._among.clear()
        if cluster is None and among is not None and not among >= store.clusters.keys():
            return self._of_some(store, frozenset(among & store.clusters.keys()))
        made = self._made.get(cluster)
        if cluster is None:
            if made is None:
                made = self._made[None] = Catalogue(list(store.clusters.values()))
            return made
        one, forwarding = store.clusters[cluster], self._forwards(cluster)
        if (
            made is None
            or made.forwarding != forwarding
            # What a cluster serves itself changes nothing in other scopes.
            or (forwarding and made.discovery is not one.discovery)
        ):
            made = self._made[cluster] = Catalogue([one], forwarding=forwarding)
        return made

    def _of_some(self, store: Store, among: frozenset[str]) -> Catalogue:
        made = self._among.get(among)
        if made is None:
            made = self._among[among] = Catalogue([store.clusters[name] for name in among])
            while len(self._among) > _CATALOGUES:
                self._among.popitem(last=False)
        self._among.move_to_end(among)
        return made


def server_version(store: Store, cluster: str | None, ours: str, among: frozenset[str] | None = None) -> dict[str, Any]:
    """The /version document: a cluster's own, at the root the newest of all, or of those in `among`, marked as ours."""
    if cluster is not None:
        return store.clusters[cluster].server_version or _unknown_version(ours)
    versions = [
        one.server_version
        for one in store.clusters.values()
        if one.server_version and (among is None or one.name in among)
    ]
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
