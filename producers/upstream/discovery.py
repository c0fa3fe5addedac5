"""Discovery: which resource types a member cluster serves, each in all its versions, and what is in doubt.

Of CustomResourceDefinitions the printer columns and selectable fields are taken along.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.kubernetes import GroupResource, GroupVersion
from deltalog.wire.resource_type import ResourceType
from producers.upstream.api_groups import ApiGroup, api_groups, encode_groups
from producers.upstream.apiserver import ApiServer, BadAnswer, RequestRefused
from producers.upstream.custom_resources import CustomDefinition
from producers.upstream.shared_types import shared

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}").fullmatch
# Characters of a type that is none, in messages.
_SHOWN = 80
_API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"


class Discovered(msgspec.Struct, frozen=True):
    """What discovery found: each type in all its versions, preferred first.

    `doubtful`: groups that could not be asked now, as a whole or in the versions `stale`;
    `missing`: types of established CRDs that discovery doesn't have (yet): all these stay as they are. `groups`: all
    there are.

    `document`: all that the cluster serves, types that cannot be followed too: JSON of the items of an
    APIGroupDiscoveryList, the core group first. Not of `doubtful` what was not answered.

    `left_out`: types, as texts, that cannot be followed as no API server has such names.
    """

    types: tuple[tuple[ResourceType, ...], ...]
    doubtful: frozenset[str]
    groups: frozenset[str] = frozenset()
    stale: frozenset[GroupVersion] = frozenset()
    missing: frozenset[GroupResource] = frozenset()
    document: bytes = b""
    left_out: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """Whether there is no doubt about anything."""
        return not self.doubtful and not self.missing

    def doubts(self, resource: GroupResource) -> bool:
        """Whether a type that was not found may be there all the same."""
        return resource.group in self.doubtful or resource in self.missing


class _ApiServiceSpec(msgspec.Struct):
    group: str = ""


class _ApiService(msgspec.Struct):
    spec: _ApiServiceSpec = msgspec.field(default_factory=_ApiServiceSpec)


class _ApiServices(msgspec.Struct):
    items: list[_ApiService] | None = None


async def server_version(server: ApiServer) -> dict[str, Any]:
    """An API server's version, e.g. `{"major": "1", "minor": "32", ...}`. Raises ClusterUnavailable."""
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


async def discover(
    server: ApiServer, definitions: Callable[[], Awaitable[dict[GroupResource, CustomDefinition]]]
) -> Discovered:
    """The listable and watchable types of a cluster. `definitions`: asks for its custom types.

    Raises ClusterUnavailable.
    """
    with _readable():
        groups = await api_groups(server)
        has_crds = any(group.metadata.name == "apiextensions.k8s.io" for group in groups)
        return _found(groups, await definitions() if has_crds else {})


async def registered(server: ApiServer) -> frozenset[str]:
    """Groups that have an APIService, whether their server answers now or not.

    A kube-apiserver that has just started leaves groups out of discovery, and some do while an aggregated API is away.
    Empty where APIServices may not be read. Raises ClusterUnavailable: then it is not known whether a group that is
    left out has been removed.
    """
    try:
        body, _ = await server.get(_API_SERVICES)
    except RequestRefused as refused:
        if refused.code in (403, 404):
            return frozenset()
        raise
    with _readable():
        services = msgspec.json.decode(body, type=_ApiServices).items or ()
    return frozenset(one.spec.group for one in services)


def _found(groups: list[ApiGroup], crds: dict[GroupResource, CustomDefinition]) -> Discovered:
    types: dict[GroupResource, list[ResourceType]] = {}
    stale: set[GroupVersion] = set()
    left_out: set[str] = set()
    for group in groups:
        name = group.metadata.name
        for served in group.versions or ():
            if served.freshness == "Stale":
                stale.add(GroupVersion(name, served.version))
            for one in served.resources or ():
                if not {"list", "watch"} <= set(one.verbs or ()):
                    continue
                key = GroupResource.of(name, one.resource)
                if not _are_names(name or "core", served.version, one.resource):
                    left_out.add(repr(f"{key}/{served.version}"[:_SHOWN]))
                    continue
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
                    subresources=tuple(sub.recorded() for sub in one.subresources or ()),
                )
                types.setdefault(key, []).append(resource)
    whole = []
    for served_as in types.values():
        versions = tuple(resource.version for resource in served_as)
        whole.append(shared(tuple(msgspec.structs.replace(resource, versions=versions) for resource in served_as)))
    return Discovered(
        tuple(whole),
        frozenset(group for group, _ in stale),
        frozenset(group.metadata.name for group in groups),
        frozenset(stale),
        # A server that has just started has no custom types in its discovery for a while.
        frozenset(key for key, crd in crds.items() if crd.established and key not in types),
        encode_groups(groups),
        frozenset(left_out),
    )


def _are_names(*texts: str) -> bool:
    """Whether texts can be parts of paths and subjects: Kubernetes' names of groups, versions and types all can."""
    return all(map(_NAME, texts))


def streams_lists(version: dict[str, Any]) -> bool:
    """Whether a server of this /version may send a list as the beginning of a watch (KEP-3157, on since 1.32).

    It may still be switched off; then the watch is refused, or what it sends shows it.
    """
    digits = ["".join(char for char in str(version.get(part, "")) if char.isdigit()) for part in ("major", "minor")]
    return all(digits) and (int(digits[0]), int(digits[1])) >= (1, 32)
