"""CustomResourceDefinitions: facts of custom types that discovery does not have.

Printer columns and selectable fields by version (apiextensions.k8s.io/v1).
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import msgspec

from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.kubernetes import GroupResource
from producers.upstream.apiserver import ApiServer, RequestRefused

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class CustomVersion(msgspec.Struct, rename="camel"):
    """One version of a custom type."""

    name: str
    served: bool = False
    additional_printer_columns: tuple[dict[str, Any], ...] | None = None
    selectable_fields: list[dict[str, str]] | None = None

    @property
    def selectable(self) -> tuple[str, ...]:
        """JSONPaths of its selectable fields."""
        return tuple(field.get("jsonPath", "") for field in self.selectable_fields or ())


class _CrdNames(msgspec.Struct):
    plural: str


class _CrdSpec(msgspec.Struct):
    group: str
    names: _CrdNames
    versions: list[CustomVersion] = []


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


class _CrdStatus(msgspec.Struct):
    conditions: list[_Condition] | None = None


class _CrdMeta(msgspec.Struct):
    name: str


class _Crd(msgspec.Struct):
    metadata: _CrdMeta
    spec: _CrdSpec
    status: _CrdStatus | None = None


class _ListMeta(msgspec.Struct, rename={"next_page": "continue", "resource_version": "resourceVersion"}):
    next_page: str = ""
    resource_version: str = ""


class _Crds(msgspec.Struct):
    items: list[msgspec.Raw] | None = None
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


class CustomDefinition(NamedTuple):
    """A custom type's versions, and whether the server serves it by its own account."""

    versions: dict[str, CustomVersion]
    established: bool


class ListedDefinitions(NamedTuple):
    """All definitions at a version, by the names of their objects; `version` empty: they may not be read."""

    found: dict[str, tuple[GroupResource, CustomDefinition]]
    version: str


def read_definition(raw: bytes | msgspec.Raw) -> tuple[GroupResource, CustomDefinition]:
    """What a CustomResourceDefinition says. Raises what is in UNDECODABLE."""
    return _definition(_decode(raw))


_decode = msgspec.json.Decoder(_Crd).decode


def _definition(crd: _Crd) -> tuple[GroupResource, CustomDefinition]:
    conditions = {one.type: one.status for one in (crd.status.conditions if crd.status else None) or ()}
    established = conditions.get("Established") == "True" and conditions.get("Terminating") != "True"
    versions = {version.name: version for version in crd.spec.versions}
    served = any(version.served for version in crd.spec.versions)
    return GroupResource(crd.spec.group, crd.spec.names.plural), CustomDefinition(versions, established and served)


async def custom_definitions(server: ApiServer) -> ListedDefinitions:
    """All definitions of custom types. None where CRDs may not be read.

    Raises ClusterUnavailable, and what is in UNDECODABLE.
    """
    result: dict[str, tuple[GroupResource, CustomDefinition]] = {}
    query = {"limit": "100"}
    while True:
        try:
            body, _ = await server.get(CRDS, query)
        except RequestRefused as refused:
            if refused.code in (403, 404):
                return ListedDefinitions({}, "")
            raise
        page = msgspec.json.decode(body, type=_Crds)
        for raw in page.items or ():
            # One that cannot be read defines nothing.
            with contextlib.suppress(*UNDECODABLE):
                crd = _decode(raw)
                result[crd.metadata.name] = _definition(crd)
        if not page.metadata.next_page:
            return ListedDefinitions(result, page.metadata.resource_version)
        query = {"limit": "100", "continue": page.metadata.next_page}
