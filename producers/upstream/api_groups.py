"""API groups as a server lists them: aggregated discovery v2, or the older lists brought into the same form.

Contract: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api and KEP-3352.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.resource_type import Subresource
from producers.upstream.apiserver import ApiServer, RequestRefused, Unreachable

# Older lists asked for at once.
_AT_ONCE = 8
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


class ResponseKind(msgspec.Struct):
    """The Kind that a type or subresource answers with."""

    kind: str = ""
    group: str = ""
    version: str = ""


# What clients of Go before 0.26.4 need to see where there is none.
_NO_KIND = ResponseKind()


# Servers in Go write a list that is empty as null at times.
_Strings = tuple[str, ...] | None


class ApiSubresource(msgspec.Struct, rename="camel"):
    """A subresource (APISubresourceDiscovery)."""

    subresource: str = ""
    response_kind: ResponseKind | None = None
    accepted_types: list[ResponseKind] | None = None
    verbs: _Strings = None

    def recorded(self) -> Subresource:
        """As the log's records have it."""
        kind = self.response_kind or ResponseKind()
        return Subresource(
            name=self.subresource, kind=kind.kind, group=kind.group, version=kind.version, verbs=self.verbs or ()
        )

    def as_json(self) -> dict[str, Any]:
        """As aggregated discovery has it."""
        return {
            "subresource": self.subresource,
            **({} if self.response_kind is None else {"responseKind": self.response_kind}),
            **({"acceptedTypes": self.accepted_types} if self.accepted_types else {}),
            "verbs": self.verbs or (),
        }


class ApiResource(msgspec.Struct, rename="camel"):
    """A type (APIResourceDiscovery)."""

    resource: str = ""
    response_kind: ResponseKind | None = None
    scope: str = "Namespaced"
    singular_resource: str = ""
    verbs: _Strings = None
    short_names: _Strings = None
    categories: _Strings = None
    subresources: list[ApiSubresource] | None = None

    def as_json(self) -> dict[str, Any]:
        """As aggregated discovery has it."""
        return {
            "resource": self.resource,
            **({} if self.response_kind is None else {"responseKind": self.response_kind}),
            "scope": self.scope,
            "singularResource": self.singular_resource,
            "verbs": self.verbs or (),
            **({"shortNames": self.short_names} if self.short_names else {}),
            **({"categories": self.categories} if self.categories else {}),
            **({"subresources": [one.as_json() for one in self.subresources]} if self.subresources else {}),
        }


class ApiGroupVersion(msgspec.Struct):
    """A group's types in one version; `freshness` Stale: its server did not answer lately."""

    version: str
    resources: list[ApiResource] | None = None
    freshness: str = "Current"


class _Named(msgspec.Struct):
    name: str = ""


class ApiGroup(msgspec.Struct):
    """A group (APIGroupDiscovery); the core group has no name."""

    metadata: _Named = msgspec.field(default_factory=_Named)
    versions: list[ApiGroupVersion] | None = None


class _GroupName(msgspec.Struct):
    metadata: _Named


class _GroupList(msgspec.Struct):
    items: list[msgspec.Raw] | None = None


class _OldVersion(msgspec.Struct, rename="camel"):
    group_version: str
    version: str


class _OldGroup(msgspec.Struct, rename="camel"):
    name: str = ""
    versions: list[_OldVersion] | None = None
    preferred_version: _OldVersion | None = None


class _OldGroups(msgspec.Struct):
    groups: list[_OldGroup] | None = None
    versions: list[str] | None = None


class _OldResource(msgspec.Struct, rename="camel"):
    name: str
    kind: str = ""
    group: str = ""
    version: str = ""
    namespaced: bool = True
    singular_name: str = ""
    verbs: _Strings = None
    short_names: _Strings = None
    categories: _Strings = None


class _OldResources(msgspec.Struct):
    resources: list[_OldResource] | None = None


async def api_groups(server: ApiServer) -> list[ApiGroup]:
    """All groups of a cluster with all their types, the core group first. Groups that do not answer are stale.

    Raises ClusterUnavailable, and what is in UNDECODABLE.
    """
    groups: list[ApiGroup] = []
    for root in ("/api", "/apis"):
        body, content_type = await server.get(root, accept=_AGGREGATED)
        if "apidiscovery.k8s.io" in content_type:
            groups += [_group(raw) for raw in msgspec.json.decode(body, type=_GroupList).items or ()]
        else:
            groups += await _older(server, root, msgspec.json.decode(body, type=_OldGroups))
    return groups


def encode_groups(groups: list[ApiGroup]) -> bytes:
    """JSON of the items of an APIGroupDiscoveryList: all groups with all that they have."""
    items = [
        {
            "metadata": {"name": group.metadata.name} if group.metadata.name else {},
            "versions": [
                {
                    "version": one.version,
                    "resources": [resource.as_json() for resource in one.resources or ()],
                    "freshness": one.freshness,
                }
                for one in group.versions or ()
                # A group that was not understood has no versions.
                if one.version
            ],
        }
        for group in groups
    ]
    return msgspec.json.encode([one for one in items if one["versions"]])


def _group(raw: msgspec.Raw) -> ApiGroup:
    try:
        return msgspec.json.decode(raw, type=ApiGroup)
    except UNDECODABLE:
        # An aggregated API's own answer is passed on by the API server as it is.
        return ApiGroup(msgspec.json.decode(raw, type=_GroupName).metadata, [ApiGroupVersion("", [], "Stale")])


async def _older(server: ApiServer, root: str, listed: _OldGroups) -> list[ApiGroup]:
    groups = listed.groups or []
    if root == "/api":
        groups = [_OldGroup("", [_OldVersion(version, version) for version in listed.versions or ["v1"]])]
    places = asyncio.Semaphore(_AT_ONCE)

    async def resources(group: str, version: str) -> ApiGroupVersion:
        path = f"/apis/{quote(group)}/{quote(version)}" if group else f"/api/{quote(version)}"
        try:
            async with places, asyncio.timeout(server.timing.discover_group):
                body, _ = await server.get(path)
            found = msgspec.json.decode(body, type=_OldResources).resources or ()
        except (RequestRefused, TimeoutError, *UNDECODABLE):
            # An aggregated API whose server is away, hangs or sends what is no list: its group still exists.
            return ApiGroupVersion(version, [], "Stale")
        below: dict[str, list[ApiSubresource]] = {}
        for one in found:
            name, slash, subresource = one.name.partition("/")
            if slash:
                # Of another group and version than the type's only where it says so.
                kind = ResponseKind(one.kind, one.group or group, one.version or version)
                below.setdefault(name, []).append(ApiSubresource(subresource, kind, None, one.verbs))
        # Some aggregated APIs have subresources of types that are another group's.
        types = {one.name: one for one in found if "/" not in one.name}
        return ApiGroupVersion(
            version,
            [
                ApiResource(
                    one.name,
                    ResponseKind(one.kind, one.group or group, one.version or version)
                    if one.name in types
                    else _NO_KIND,
                    "Namespaced" if one.namespaced else "Cluster",
                    one.singular_name,
                    one.verbs,
                    one.short_names,
                    one.categories,
                    below.get(one.name),
                )
                for one in _with_parents(found, types)
            ],
        )

    async def whole(group: _OldGroup) -> ApiGroup:
        preferred = group.preferred_version.version if group.preferred_version else ""
        versions = sorted((one.version for one in group.versions or ()), key=lambda version: version != preferred)
        answers = await asyncio.gather(*(resources(group.name, version) for version in versions))
        return ApiGroup(_Named(group.name), list(answers))

    try:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(whole(group)) for group in groups]
    except ExceptionGroup as failed:
        lost, rest = failed.split(Unreachable)
        if lost is None or rest is not None:
            raise
        # They all say the same: the connection is lost.
        raise Unreachable(str(_first(lost))) from failed
    return [one.result() for one in asked]


def _with_parents(found: Sequence[_OldResource], types: Mapping[str, _OldResource]) -> Iterator[_OldResource]:
    """The types of an older list; a nameless one stands for those that only their subresources speak of."""
    parents: set[str] = set()
    for one in found:
        name, slash, _ = one.name.partition("/")
        if not slash:
            yield one
        elif name not in types and name not in parents:
            parents.add(name)
            yield _OldResource(name, namespaced=one.namespaced)


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
