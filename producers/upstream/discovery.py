"""Discovery: which resource types a member cluster serves, and one version of each.

Aggregated discovery v2 where the server has it, the older lists elsewhere (kubernetes.io "Kubernetes API
Concepts"). Of CustomResourceDefinitions the printer columns and selectable fields are taken along.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from deltalog.wire.resource_type import ResourceType, Subresource
from producers.upstream.apiserver import ApiServer, BadAnswer, Refused, Unreachable
from producers.upstream.objects import UNDECODABLE

# Older lists asked for at once.
_AT_ONCE = 8
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
_API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Discovered(msgspec.Struct, frozen=True):
    """What discovery found: each type in all its versions, preferred first.

    `doubtful`: groups that could not be asked now, as a whole or in the versions `stale` (group and version);
    `missing`: types of established CRDs that discovery doesn't have (yet): all these stay as they are. `groups`: all
    there are.

    `document`: all that the cluster serves, types that cannot be followed too: JSON of the items of an
    APIGroupDiscoveryList, the core group first. Not of `doubtful` what was not answered.
    """

    types: tuple[tuple[ResourceType, ...], ...]
    doubtful: frozenset[str]
    groups: frozenset[str] = frozenset()
    stale: frozenset[tuple[str, str]] = frozenset()
    missing: frozenset[tuple[str, str]] = frozenset()
    document: bytes = b""

    @property
    def whole(self) -> bool:
        """Whether there is no doubt about anything."""
        return not self.doubtful and not self.missing

    def doubts(self, group: str, resource: str) -> bool:
        """Whether a type that was not found may be there all the same."""
        return group in self.doubtful or (group, resource) in self.missing


class _Kind(msgspec.Struct):
    kind: str = ""
    group: str = ""
    version: str = ""


# What clients of Go before 0.26.4 need to see where there is none.
_NO_KIND = _Kind()


# Servers in Go write a list that is empty as null at times.
_Strings = tuple[str, ...] | None


class _Subresource(msgspec.Struct, rename="camel"):
    subresource: str = ""
    response_kind: _Kind | None = None
    accepted_types: list[_Kind] | None = None
    verbs: _Strings = None

    def known(self) -> Subresource:
        kind = self.response_kind or _Kind()
        return Subresource(
            name=self.subresource, kind=kind.kind, group=kind.group, version=kind.version, verbs=self.verbs or ()
        )

    def told(self) -> dict[str, Any]:
        return {
            "subresource": self.subresource,
            **({} if self.response_kind is None else {"responseKind": self.response_kind}),
            **({"acceptedTypes": self.accepted_types} if self.accepted_types else {}),
            "verbs": self.verbs or (),
        }


class _Resource(msgspec.Struct, rename="camel"):
    resource: str = ""
    response_kind: _Kind | None = None
    scope: str = "Namespaced"
    singular_resource: str = ""
    verbs: _Strings = None
    short_names: _Strings = None
    categories: _Strings = None
    subresources: list[_Subresource] | None = None

    def told(self) -> dict[str, Any]:
        return {
            "resource": self.resource,
            **({} if self.response_kind is None else {"responseKind": self.response_kind}),
            "scope": self.scope,
            "singularResource": self.singular_resource,
            "verbs": self.verbs or (),
            **({"shortNames": self.short_names} if self.short_names else {}),
            **({"categories": self.categories} if self.categories else {}),
            **({"subresources": [one.told() for one in self.subresources]} if self.subresources else {}),
        }


class _GroupVersion(msgspec.Struct):
    version: str
    resources: list[_Resource] | None = None
    freshness: str = "Current"


class _Named(msgspec.Struct):
    name: str = ""


class _Group(msgspec.Struct):
    metadata: _Named = msgspec.field(default_factory=_Named)
    versions: list[_GroupVersion] | None = None


class _GroupName(msgspec.Struct):
    metadata: _Named


class _GroupList(msgspec.Struct):
    items: list[msgspec.Raw] | None = None


class _ApiServiceSpec(msgspec.Struct):
    group: str = ""


class _ApiService(msgspec.Struct):
    spec: _ApiServiceSpec = msgspec.field(default_factory=_ApiServiceSpec)


class _ApiServices(msgspec.Struct):
    items: list[_ApiService] | None = None


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


async def server_version(server: ApiServer) -> dict[str, Any]:
    """What an API server says of its version, e.g. `{"major": "1", "minor": "32", ...}`. Raises ClusterUnavailable."""
    body, _ = await server.get("/version")
    with _readable():
        return msgspec.json.decode(body, type=dict[str, Any])


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Raises BadAnswer for what cannot be decoded inside the block."""
    try:
        yield
    except UNDECODABLE as cause:
        raise BadAnswer(str(cause)) from cause


async def discover(server: ApiServer) -> Discovered:
    """The listable and watchable types of a cluster. Raises ClusterUnavailable."""
    with _readable():
        return await _discover(server)


async def _discover(server: ApiServer) -> Discovered:
    groups: list[_Group] = []
    for root in ("/api", "/apis"):
        body, content_type = await server.get(root, accept=_AGGREGATED)
        if "apidiscovery.k8s.io" in content_type:
            groups += [_group(raw) for raw in msgspec.json.decode(body, type=_GroupList).items or ()]
        else:
            groups += await _older(server, root, msgspec.json.decode(body, type=_OldGroups))
    crds = await _custom(server) if any(group.metadata.name == "apiextensions.k8s.io" for group in groups) else {}
    return _chosen(groups, crds)


async def registered(server: ApiServer) -> frozenset[str]:
    """Groups that have an APIService, whether their server answers now or not.

    A kube-apiserver that has just started leaves groups out of discovery, and some do while an aggregated API is away.
    Empty where APIServices may not be read. Raises ClusterUnavailable: then it is not known whether a group that is
    left out has been removed.
    """
    try:
        body, _ = await server.get(_API_SERVICES)
    except Refused as refused:
        if refused.code in (403, 404):
            return frozenset()
        raise
    with _readable():
        services = msgspec.json.decode(body, type=_ApiServices).items or ()
    return frozenset(one.spec.group for one in services)


def _group(raw: msgspec.Raw) -> _Group:
    try:
        return msgspec.json.decode(raw, type=_Group)
    except UNDECODABLE:
        # What an aggregated API says of itself is passed on as it is.
        return _Group(msgspec.json.decode(raw, type=_GroupName).metadata, [_GroupVersion("", [], "Stale")])


async def _older(server: ApiServer, root: str, listed: _OldGroups) -> list[_Group]:
    groups = listed.groups or []
    if root == "/api":
        groups = [_OldGroup("", [_OldVersion(version, version) for version in listed.versions or ["v1"]])]
    places = asyncio.Semaphore(_AT_ONCE)

    async def resources(group: str, version: str) -> _GroupVersion:
        path = f"/apis/{quote(group)}/{quote(version)}" if group else f"/api/{quote(version)}"
        try:
            async with places, asyncio.timeout(server.timing.discover_group):
                body, _ = await server.get(path)
            found = msgspec.json.decode(body, type=_OldResources).resources or ()
        except (Refused, TimeoutError, *UNDECODABLE):
            # An aggregated API whose server is away, hangs or talks nonsense: its group is not gone.
            return _GroupVersion(version, [], "Stale")
        below: dict[str, list[_Subresource]] = {}
        for one in found:
            name, slash, subresource = one.name.partition("/")
            if slash:
                # Of another group and version than the type's only where it says so.
                kind = _Kind(one.kind, one.group or group, one.version or version)
                below.setdefault(name, []).append(_Subresource(subresource, kind, None, one.verbs))
        # Some aggregated APIs have subresources of types that are another group's.
        types = {one.name: one for one in found if "/" not in one.name}
        return _GroupVersion(
            version,
            [
                _Resource(
                    one.name,
                    _Kind(one.kind, one.group or group, one.version or version) if one.name in types else _NO_KIND,
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

    async def whole(group: _OldGroup) -> _Group:
        preferred = group.preferred_version.version if group.preferred_version else ""
        versions = sorted((one.version for one in group.versions or ()), key=lambda version: version != preferred)
        answers = await asyncio.gather(*(resources(group.name, version) for version in versions))
        return _Group(_Named(group.name), list(answers))

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


def _chosen(groups: list[_Group], crds: dict[tuple[str, str], _Definition]) -> Discovered:
    types: dict[tuple[str, str], list[ResourceType]] = {}
    stale: set[tuple[str, str]] = set()
    for group in groups:
        name = group.metadata.name
        for served in group.versions or ():
            if served.freshness == "Stale":
                stale.add((name, served.version))
            for one in served.resources or ():
                if not {"list", "watch"} <= set(one.verbs or ()):
                    continue
                key = (name, one.resource)
                crd = crds.get(key)
                version = crd.versions.get(served.version) if crd is not None else None
                resource = ResourceType(
                    group=name,
                    resource=one.resource,
                    version=served.version,
                    kind=one.response_kind.kind if one.response_kind else "",
                    singular=one.singular_resource,
                    namespaced=one.scope == "Namespaced",
                    short_names=one.short_names or (),
                    categories=one.categories or (),
                    verbs=one.verbs or (),
                    columns=version.additional_printer_columns if version is not None else None,
                    selectable=version.selectable if version is not None else (),
                    custom=crd is not None,
                    subresources=tuple(sub.known() for sub in one.subresources or ()),
                )
                types.setdefault(key, []).append(resource)
    whole = []
    for served_as in types.values():
        versions = tuple(resource.version for resource in served_as)
        whole.append(tuple(msgspec.structs.replace(resource, versions=versions) for resource in served_as))
    return Discovered(
        tuple(whole),
        frozenset(group for group, _ in stale),
        frozenset(group.metadata.name for group in groups),
        frozenset(stale),
        # A server that has just started has no custom types in its discovery for a while.
        frozenset(key for key, crd in crds.items() if crd.established and key not in types),
        _document(groups),
    )


def _document(groups: list[_Group]) -> bytes:
    """All groups with all that they have: `Discovered.document`."""
    told = [
        {
            "metadata": {"name": group.metadata.name} if group.metadata.name else {},
            "versions": [
                {
                    "version": one.version,
                    "resources": [resource.told() for resource in one.resources or ()],
                    "freshness": one.freshness,
                }
                for one in group.versions or ()
                # A group that was not understood has no versions.
                if one.version
            ],
        }
        for group in groups
    ]
    return msgspec.json.encode([one for one in told if one["versions"]])


def streams_lists(version: dict[str, Any]) -> bool:
    """Whether a server of this /version may send a list as the beginning of a watch (KEP-3157, on since 1.32).

    It may still be switched off; then the watch is refused, or says so by what it sends.
    """
    digits = ["".join(char for char in str(version.get(part, "")) if char.isdigit()) for part in ("major", "minor")]
    return all(digits) and (int(digits[0]), int(digits[1])) >= (1, 32)


class _CrdVersion(msgspec.Struct, rename="camel"):
    name: str
    served: bool = False
    additional_printer_columns: tuple[dict[str, Any], ...] | None = None
    selectable_fields: list[dict[str, str]] | None = None

    @property
    def selectable(self) -> tuple[str, ...]:
        return tuple(field.get("jsonPath", "") for field in self.selectable_fields or ())


class _CrdNames(msgspec.Struct):
    plural: str


class _CrdSpec(msgspec.Struct):
    group: str
    names: _CrdNames
    versions: list[_CrdVersion] = []


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


class _CrdStatus(msgspec.Struct):
    conditions: list[_Condition] | None = None


class _Crd(msgspec.Struct):
    spec: _CrdSpec
    status: _CrdStatus | None = None


class _ListMeta(msgspec.Struct, rename={"next_page": "continue"}):
    next_page: str = ""


class _Crds(msgspec.Struct):
    items: list[_Crd] | None = None
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


class _Definition(NamedTuple):
    """A custom type's versions, and whether the server says that it serves it."""

    versions: dict[str, _CrdVersion]
    established: bool


def _definition(crd: _Crd) -> _Definition:
    conditions = {one.type: one.status for one in (crd.status.conditions if crd.status else None) or ()}
    established = conditions.get("Established") == "True" and conditions.get("Terminating") != "True"
    versions = {version.name: version for version in crd.spec.versions}
    return _Definition(versions, established and any(version.served for version in crd.spec.versions))


async def _custom(server: ApiServer) -> dict[tuple[str, str], _Definition]:
    """The definitions of custom types. Empty where CRDs may not be read."""
    result: dict[tuple[str, str], _Definition] = {}
    query = {"limit": "100"}
    while True:
        try:
            body, _ = await server.get(_CRDS, query)
        except Refused as refused:
            if refused.code in (403, 404):
                return result
            raise
        page = msgspec.json.decode(body, type=_Crds)
        for crd in page.items or ():
            result[crd.spec.group, crd.spec.names.plural] = _definition(crd)
        if not page.metadata.next_page:
            return result
        query = {"limit": "100", "continue": page.metadata.next_page}
