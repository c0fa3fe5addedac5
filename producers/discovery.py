"""Discovery: which resource types a member cluster serves, and one version of each.

Aggregated discovery v2 where the server has it, the older lists elsewhere (kubernetes.io "Kubernetes API
Concepts"). Of CustomResourceDefinitions the printer columns and selectable fields are taken along.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import msgspec

from producers.apiserver import ApiServer, Refused

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
_API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class ResourceType(msgspec.Struct, frozen=True, kw_only=True):
    """A listable and watchable resource type of a cluster, in the version it is synced in.

    `versions`: all that the cluster serves it in, preferred first. `columns`: a custom resource's
    additionalPrinterColumns of that version; None for types that have none of their own. `custom`: a
    CustomResourceDefinition defines it.
    """

    group: str
    resource: str
    version: str
    kind: str
    singular: str = ""
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    columns: tuple[dict[str, Any], ...] | None = None
    selectable: tuple[str, ...] = ()
    custom: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> str:
        root = f"/apis/{quote(self.group)}" if self.group else "/api"
        return f"{root}/{quote(self.version)}/{quote(self.resource)}"

    @property
    def title(self) -> str:
        """`pods`, `deployments.apps`: as kubectl names it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    def record(self) -> dict[str, Any]:
        """The `type` control record's data (docs/log.md)."""
        # As a reader gets it back, lists for tuples, so that the two can be compared.
        data: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(self))
        del data["group"], data["resource"], data["custom"]
        return data


class Discovered(msgspec.Struct, frozen=True):
    """What discovery found: each type in all its versions, preferred first.

    `doubtful`: groups that could not be asked now; their types stay as they are. `groups`: all there are.
    """

    types: tuple[tuple[ResourceType, ...], ...]
    doubtful: frozenset[str]
    groups: frozenset[str] = frozenset()


class _Kind(msgspec.Struct):
    kind: str = ""


class _Resource(msgspec.Struct, rename="camel"):
    resource: str = ""
    response_kind: _Kind | None = None
    scope: str = "Namespaced"
    singular_resource: str = ""
    verbs: tuple[str, ...] = ()
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class _GroupVersion(msgspec.Struct):
    version: str
    resources: list[_Resource] = []
    freshness: str = "Current"


class _Named(msgspec.Struct):
    name: str = ""


class _Group(msgspec.Struct):
    metadata: _Named = msgspec.field(default_factory=_Named)
    versions: list[_GroupVersion] = []


class _GroupList(msgspec.Struct):
    items: list[_Group] = []


class _ApiServiceSpec(msgspec.Struct):
    group: str = ""
    service: dict[str, Any] | None = None


class _ApiService(msgspec.Struct):
    spec: _ApiServiceSpec = msgspec.field(default_factory=_ApiServiceSpec)


class _ApiServices(msgspec.Struct):
    items: list[_ApiService] = []


class _OldVersion(msgspec.Struct, rename="camel"):
    group_version: str
    version: str


class _OldGroup(msgspec.Struct, rename="camel"):
    name: str = ""
    versions: list[_OldVersion] = []
    preferred_version: _OldVersion | None = None


class _OldGroups(msgspec.Struct):
    groups: list[_OldGroup] = []
    versions: list[str] = []


class _OldResource(msgspec.Struct, rename="camel"):
    name: str
    kind: str = ""
    namespaced: bool = True
    singular_name: str = ""
    verbs: tuple[str, ...] = ()
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class _OldResources(msgspec.Struct):
    resources: list[_OldResource] = []


async def discover(server: ApiServer) -> Discovered:
    """The listable and watchable types of a cluster. Raises Unreachable and Refused."""
    groups: list[_Group] = []
    for root in ("/api", "/apis"):
        body, content_type = await server.get(root, accept=_AGGREGATED)
        if "apidiscovery.k8s.io" in content_type:
            groups += msgspec.json.decode(body, type=_GroupList).items
        else:
            groups += await _older(server, root, msgspec.json.decode(body, type=_OldGroups))
    extras = await _custom(server) if any(group.metadata.name == "apiextensions.k8s.io" for group in groups) else {}
    return _chosen(groups, extras)


async def registered(server: ApiServer) -> frozenset[str]:
    """Groups for which another server than kube-apiserver answers, whether it does so now or not.

    Some servers leave a group out of discovery while it doesn't. Empty where APIServices may not be read. Raises
    Unreachable.
    """
    try:
        body, _ = await server.get(_API_SERVICES)
        services = msgspec.json.decode(body, type=_ApiServices).items
    except (Refused, msgspec.MsgspecError, UnicodeDecodeError):
        return frozenset()
    return frozenset(one.spec.group for one in services if one.spec.service is not None)


async def _older(server: ApiServer, root: str, listed: _OldGroups) -> list[_Group]:
    if root == "/api":
        listed.groups = [_OldGroup("", [_OldVersion(version, version) for version in listed.versions or ["v1"]])]

    async def resources(group: str, version: str) -> _GroupVersion:
        path = f"/apis/{quote(group)}/{quote(version)}" if group else f"/api/{quote(version)}"
        try:
            body, _ = await server.get(path)
            found = msgspec.json.decode(body, type=_OldResources).resources
        except (Refused, msgspec.MsgspecError, UnicodeDecodeError):
            # An aggregated API whose server is away, or talks nonsense: its group is not gone.
            return _GroupVersion(version, [], "Stale")
        return _GroupVersion(
            version,
            [
                _Resource(
                    one.name,
                    _Kind(one.kind),
                    "Namespaced" if one.namespaced else "Cluster",
                    one.singular_name,
                    one.verbs,
                    one.short_names,
                    one.categories,
                )
                for one in found
                if "/" not in one.name
            ],
        )

    result = []
    for group in listed.groups:
        preferred = group.preferred_version.version if group.preferred_version else ""
        versions = sorted((one.version for one in group.versions), key=lambda version: version != preferred)
        answers = await asyncio.gather(*(resources(group.name, version) for version in versions))
        result.append(_Group(_Named(group.name), list(answers)))
    return result


def _chosen(groups: list[_Group], extras: dict[tuple[str, str], dict[str, Any]]) -> Discovered:
    types: dict[tuple[str, str], list[ResourceType]] = {}
    doubtful: set[str] = set()
    for group in groups:
        name = group.metadata.name
        for served in group.versions:
            if served.freshness == "Stale":
                doubtful.add(name)
            for one in served.resources:
                if not {"list", "watch"} <= set(one.verbs):
                    continue
                key = (name, one.resource)
                extra = extras.get(key, {}).get(served.version, {})
                kind = ResourceType(
                    group=name,
                    resource=one.resource,
                    version=served.version,
                    kind=one.response_kind.kind if one.response_kind else "",
                    singular=one.singular_resource,
                    namespaced=one.scope == "Namespaced",
                    short_names=one.short_names,
                    categories=one.categories,
                    verbs=one.verbs,
                    columns=extra.get("columns"),
                    selectable=extra.get("selectable", ()),
                    custom=key in extras,
                )
                types.setdefault(key, []).append(kind)
    whole = []
    for kinds in types.values():
        versions = tuple(kind.version for kind in kinds)
        whole.append(tuple(msgspec.structs.replace(kind, versions=versions) for kind in kinds))
    return Discovered(tuple(whole), frozenset(doubtful), frozenset(group.metadata.name for group in groups))


def streams_lists(version: dict[str, Any]) -> bool:
    """Whether a server of this /version may send a list as the beginning of a watch (KEP-3157, on since 1.32).

    It may still be switched off; then the watch is refused, or says so by what it sends.
    """
    digits = ["".join(char for char in str(version.get(part, "")) if char.isdigit()) for part in ("major", "minor")]
    return all(digits) and (int(digits[0]), int(digits[1])) >= (1, 32)


class _CrdVersion(msgspec.Struct, rename="camel"):
    name: str
    additional_printer_columns: tuple[dict[str, Any], ...] | None = None
    selectable_fields: list[dict[str, str]] = []


class _CrdNames(msgspec.Struct):
    plural: str


class _CrdSpec(msgspec.Struct):
    group: str
    names: _CrdNames
    versions: list[_CrdVersion] = []


class _Crd(msgspec.Struct):
    spec: _CrdSpec


class _ListMeta(msgspec.Struct, rename={"next_page": "continue"}):
    next_page: str = ""


class _Crds(msgspec.Struct):
    items: list[_Crd]
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


async def _custom(server: ApiServer) -> dict[tuple[str, str], dict[str, Any]]:
    """Per custom type and version: `columns` and `selectable`. Empty where CRDs may not be read."""
    result: dict[tuple[str, str], dict[str, Any]] = {}
    query = {"limit": "100"}
    while True:
        try:
            body, _ = await server.get(_CRDS, query)
        except Refused as refused:
            if refused.code in (403, 404):
                return result
            raise
        page = msgspec.json.decode(body, type=_Crds)
        for crd in page.items:
            versions: dict[str, Any] = {}
            for version in crd.spec.versions:
                versions[version.name] = {
                    "columns": version.additional_printer_columns,
                    "selectable": tuple(field.get("jsonPath", "") for field in version.selectable_fields),
                }
            result[crd.spec.group, crd.spec.names.plural] = versions
        if not page.metadata.next_page:
            return result
        query = {"limit": "100", "continue": page.metadata.next_page}
