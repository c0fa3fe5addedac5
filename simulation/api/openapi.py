"""OpenAPI: the documents that describe a cluster's types, as /openapi/v3 by group and as /openapi/v2 in one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from simulation.api import swagger
from simulation.api.discovery import ServedGroups
from simulation.api.schemas import DEFINITIONS, Definition, generic, schemas
from simulation.resources import SimulatedType
from simulation.status import StatusError
from simulation.storage import StoredObject

__all__ = ["DescribedApi", "OpenApiDocuments", "custom_schemas"]

_V2 = "/openapi/v2"
_V3 = "/openapi/v3"
_JSON = "application/json"
# As requested and as answered (k8s.io/kube-openapi, pkg/handler).
_PROTOBUF = (
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
_INFO = {"title": "Kubernetes", "version": "v1.36.0"}
# Parameters of a PATCH: from fieldValidation kubectl learns that the server validates.
_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")

# The schemas of custom types by group, version and kind.
Custom = dict[tuple[str, str, str], dict[str, Any]]


class _Schema(msgspec.Struct, rename={"ref": "$ref", "additional": "additionalProperties", "all_of": "allOf"}):
    """What the schema of a custom type must be like to be served; any may be stored."""

    ref: str = ""
    type: str = ""
    format: str = ""
    title: str = ""
    description: str = ""
    pattern: str = ""
    required: list[str] = []
    properties: dict[str, _Schema] = {}
    items: _Schema | None = None
    additional: _Schema | bool = False
    all_of: list[_Schema] = []


class DescribedApi(NamedTuple):
    """One answer, with its ETag (without quotes)."""

    body: bytes
    content_type: str
    etag: str


def custom_schemas(definitions: Iterable[StoredObject]) -> Custom:
    """The schemas of CustomResourceDefinitions, by (group, version, kind), with the fields that all objects have.

    A schema that cannot be served is replaced by one that says only that the object is an object.
    """
    place = "#/components/schemas/"
    found: Custom = {}
    for stored in definitions:
        spec = stored.body()["spec"]
        for version in spec["versions"]:
            kind = (spec["group"], version["name"], spec["names"]["kind"])
            try:
                own = version["schema"]["openAPIV3Schema"]
                msgspec.convert(own, _Schema)
            except (KeyError, TypeError, msgspec.ValidationError):
                own = {"type": "object"}
            known = schemas({"": generic(*kind)}, place)[""]
            common = {name: known["properties"][name] for name in ("apiVersion", "kind", "metadata")}
            found[kind] = {
                **own,
                "properties": {**(own.get("properties") or {}), **common},
                "x-kubernetes-group-version-kind": known["x-kubernetes-group-version-kind"],
            }
    return found


class OpenApiDocuments:
    """The documents of one cluster at one state of its types, each made when it is first requested.

    `custom` gives the schemas of custom types; see `custom_schemas`.
    """

    def __init__(self, groups: ServedGroups, custom: Callable[[], Custom]) -> None:
        self._groups = groups
        self._custom = custom
        self._made: dict[str, DescribedApi] = {}

    def _document(self, name: str, content: Callable[[], bytes], content_type: str = _JSON) -> DescribedApi:
        made = self._made.get(name)
        if made is None:
            body = content()
            made = self._made[name] = DescribedApi(body, content_type, hashlib.sha512(body).hexdigest().upper())
        return made

    # -- version 3 -------------------------------------------------------------------------------------------------

    def index(self) -> DescribedApi:
        """The answer of /openapi/v3: the paths of the documents, with their hashes for the caches of clients."""

        def content() -> bytes:
            paths = {}
            for base, group, version in self._versions():
                etag = self._of(base, group, version).etag
                paths[base] = {"serverRelativeURL": f"{_V3}/{base}?hash={etag}"}
            return msgspec.json.encode({"paths": paths})

        return self._document(_V3, content)

    def of(self, base: str) -> DescribedApi | None:
        """The answer of /openapi/v3/<base>, `apis/apps/v1` say; None if there is no such group and version."""
        for known, group, version in self._versions():
            if known == base:
                return self._of(base, group, version)
        return None

    def _versions(self) -> Iterator[tuple[str, str, str]]:
        for group, versions in self._groups.items():
            for version in versions:
                yield (f"apis/{group}/{version}" if group else f"api/{version}"), group, version

    def _of(self, base: str, group: str, version: str) -> DescribedApi:
        def content() -> bytes:
            types = self._groups[group][version]
            custom = {kind: schema for kind, schema in self._custom().items() if kind[:2] == (group, version)}
            described = schemas(_definitions(group, version, types, custom), "#/components/schemas/")
            described |= {_name(kind): schema for kind, schema in custom.items()}
            if custom:
                described |= schemas(_metadata(), "#/components/schemas/")
            return msgspec.json.encode(
                {
                    "openapi": "3.0.0",
                    "info": _INFO,
                    "paths": {path: _patch(group, version, type) for path, type in _paths(base, types)},
                    "components": {"schemas": described},
                }
            )

        return self._document(base, content)

    # -- version 2 -------------------------------------------------------------------------------------------------

    def v2(self, accept: str) -> DescribedApi:
        """The answer of /openapi/v2, as JSON or protobuf by an Accept header.

        Raises:
            StatusError: 406 if neither is acceptable.
        """
        for clause in accept.split(",") if accept.strip() else ("*/*",):
            media = clause.partition(";")[0].strip()
            if media in (_JSON, "application/*", "*/*"):
                return self._document(_V2, lambda: msgspec.json.encode(self._swagger()))
            if media in _PROTOBUF:
                return self._document(_PROTOBUF[1], lambda: swagger.protobuf(self._swagger()), _PROTOBUF[1])
        raise StatusError(406, f"only the following media types are accepted: {_JSON}, {_PROTOBUF[0]}")

    def _swagger(self) -> dict[str, Any]:
        described: dict[str, dict[str, Any]] = {}
        paths: dict[str, Any] = {}
        custom = self._custom()
        for base, group, version in self._versions():
            types = self._groups[group][version]
            described |= schemas(_definitions(group, version, types, custom), "#/definitions/")
            paths |= {path: _patch_v2(group, version, type) for path, type in _paths(base, types)}
        described |= {_name(kind): _swagger_schema(schema) for kind, schema in custom.items()}
        return {"swagger": "2.0", "info": _INFO, "paths": paths, "definitions": dict(sorted(described.items()))}


def _definitions(group: str, version: str, types: list[SimulatedType], custom: Custom) -> dict[str, Definition]:
    kinds = {definition.kind: name for name, definition in DEFINITIONS.items()}
    found = {}
    for type in types:
        kind = (group, version, type.kind)
        if kind in custom:
            continue
        name = kinds.get(kind)
        found[name or _name(kind)] = DEFINITIONS[name] if name else generic(*kind)
    return found


def _metadata() -> dict[str, Definition]:
    return {name: definition for name, definition in DEFINITIONS.items() if name.endswith(".ObjectMeta")}


def _name(kind: tuple[str, str, str]) -> str:
    """`io.example.certs.v1.Certificate`: the labels of the group in reverse order."""
    group, version, name = kind
    return ".".join((*reversed((group or "core.api.k8s.io").split(".")), version, name))


def _paths(base: str, types: list[SimulatedType]) -> Iterator[tuple[str, SimulatedType]]:
    for type in types:
        middle = "/namespaces/{namespace}" if type.namespaced else ""
        yield f"/{base}{middle}/{type.resource}/{{name}}", type


def _patch(group: str, version: str, type: SimulatedType) -> dict[str, Any]:
    operation = _operation(group, version, type)
    operation["parameters"] = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for name in _PARAMETERS
    ]
    return {"patch": operation}


def _patch_v2(group: str, version: str, type: SimulatedType) -> dict[str, Any]:
    operation = _operation(group, version, type)
    operation["parameters"] = [
        {"name": name, "in": "query", "type": "string", "uniqueItems": True} for name in _PARAMETERS
    ]
    return {"patch": operation}


def _operation(group: str, version: str, type: SimulatedType) -> dict[str, Any]:
    return {
        "operationId": f"patch{type.kind}",
        "responses": {"200": {"description": "OK"}},
        "x-kubernetes-action": "patch",
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": type.kind},
    }


def _swagger_schema(schema: Any) -> Any:
    """A version 3 schema as version 2 has it: a reference has no other keys, and points to definitions."""
    if isinstance(schema, list):
        return [_swagger_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for key, value in schema.items():
        if key == "allOf" and len(value) == 1 and "$ref" in value[0]:
            found["$ref"] = value[0]["$ref"].replace("#/components/schemas/", "#/definitions/")
        else:
            found[key] = _swagger_schema(value)
    return found
