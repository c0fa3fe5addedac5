"""CustomResourceDefinitions: facts of custom types that discovery does not have.

Printer columns and selectable fields by version (apiextensions.k8s.io/v1).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from deltalog.wire.kubernetes import GroupResource
from producers.upstream.apiserver import ApiServer, RequestRefused

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


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


class _Crd(msgspec.Struct):
    spec: _CrdSpec
    status: _CrdStatus | None = None


class _ListMeta(msgspec.Struct, rename={"next_page": "continue"}):
    next_page: str = ""


class _Crds(msgspec.Struct):
    items: list[_Crd] | None = None
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


class CustomDefinition(NamedTuple):
    """A custom type's versions, and whether the server serves it by its own account."""

    versions: dict[str, CustomVersion]
    established: bool


def _definition(crd: _Crd) -> CustomDefinition:
    conditions = {one.type: one.status for one in (crd.status.conditions if crd.status else None) or ()}
    established = conditions.get("Established") == "True" and conditions.get("Terminating") != "True"
    versions = {version.name: version for version in crd.spec.versions}
    return CustomDefinition(versions, established and any(version.served for version in crd.spec.versions))


async def custom_definitions(server: ApiServer) -> dict[GroupResource, CustomDefinition]:
    """The definitions of custom types, by group and plural. Empty where CRDs may not be read.

    Raises ClusterUnavailable, and what is in UNDECODABLE.
    """
    result: dict[GroupResource, CustomDefinition] = {}
    query = {"limit": "100"}
    while True:
        try:
            body, _ = await server.get(_CRDS, query)
        except RequestRefused as refused:
            if refused.code in (403, 404):
                return result
            raise
        page = msgspec.json.decode(body, type=_Crds)
        for crd in page.items or ():
            result[GroupResource(crd.spec.group, crd.spec.names.plural)] = _definition(crd)
        if not page.metadata.next_page:
            return result
        query = {"limit": "100", "continue": page.metadata.next_page}
