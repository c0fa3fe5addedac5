"""OpenAPI of Clusterpedia's group: its document of version 3, and version 2 of clusters with it added.

k8s.io/kube-openapi pkg/spec3 and pkg/validation/spec; the types are github.com/clusterpedia-io/api,
clusterpedia/v1beta1/types.go. kubectl knows a type by the extension x-kubernetes-group-version-kind.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml

from deltalog.wire.records import ClusterDocument
from query.discovery.clusterpedia import COLLECTIONS, GROUP, VERSION
from query.http.protobuf import field

NAME = f"apis/{GROUP}/{VERSION}"
"""The name of its document among those of version 3."""

_KIND = {"group": GROUP, "version": VERSION, "kind": "CollectionResource"}
_LIST = {**_KIND, "kind": "CollectionResourceList"}
_GVK = "x-kubernetes-group-version-kind"
_OF = f"com.github.clusterpedia-io.api.clusterpedia.{VERSION}."
_MEDIA = ("application/json", "application/yaml")
_GZIP_FORMAT, _LEVEL = 31, 6
# Documents of clusters that are kept with the group in them: of both forms, for different users.
_KEPT = 8

_TEXT, _NUMBER, _FLAG = "string", "integer", "boolean"
# What a collection can be asked for, beside what any list can.
_PARAMETERS = {
    "groups": (_TEXT, "Of any: all types of these groups: apps, batch/v1, core, or * for all."),
    "resources": (_TEXT, "Of any: these types: pods, apps/deployments, apps/v1/deployments."),
    "clusters": (_TEXT, "Only objects of these clusters."),
    "namespaces": (_TEXT, "Only objects in these namespaces."),
    "names": (_TEXT, "Only objects of these names."),
    "fuzzyName": (_TEXT, "Only objects whose names have this in them."),
    "since": (_TEXT, "Created at this time or after it."),
    "before": (_TEXT, "Created before this time."),
    "ownerUID": (_TEXT, "What the object with this uid controls."),
    "ownerName": (_TEXT, "What objects of this name control."),
    "ownerGR": (_TEXT, "The type of these: deployments.apps."),
    "ownerSeniority": (_NUMBER, "So many hops further."),
    "filter": (_TEXT, "An expression in CEL that is true of object and cluster."),
    "labelSelector": (_TEXT, "A label selector."),
    "fieldSelector": (_TEXT, "A selector by any fields."),
    "orderby": (
        _TEXT,
        "In this order: cluster, namespace, name, created_at, resource_version, uid, each maybe desc.",
    ),
    "limit": (_NUMBER, "At most so many."),
    "continue": (_TEXT, "Where the page before ended, or how many objects to leave out."),
    "withContinue": (_FLAG, "Whether the answer says where it ends."),
    "withRemainingCount": (_FLAG, "Whether the answer says how many come behind it."),
    "onlyMetadata": (_FLAG, "Only the objects' metadata."),
    "injectEvents": (_FLAG, "The objects with the Events about them."),
    "resourceVersion": (_TEXT, "The version that the answer is to be of, or to go on from."),
    "watch": (_FLAG, "What changes, instead of what there is."),
    "timeoutSeconds": (_NUMBER, "How long a watch lasts."),
}
_OWN = {
    "apiVersion": {"type": _TEXT, "description": "The version of this document's schema."},
    "kind": {"type": _TEXT, "description": "What this document is."},
}


def _schemas(place: str) -> dict[str, Any]:
    """The types; `place`: what references to them begin with."""
    named = {"name": {"type": _TEXT, "description": "The name of the collection."}}
    version = {"resourceVersion": {"type": _TEXT, "description": "The version that the objects are of."}}
    return {
        f"{_OF}CollectionResource": {
            "description": "Several types under one name, which are listed and watched as one.",
            "type": "object",
            "required": ["resourceTypes"],
            "properties": {
                **_OWN,
                "metadata": {
                    "type": "object",
                    "description": "Its name, and the version that the objects are of.",
                    "properties": {**named, **version},
                },
                "resourceTypes": {
                    "type": "array",
                    "description": "The types of the objects.",
                    "items": {"$ref": f"{place}{_OF}CollectionResourceType"},
                },
                "items": {
                    "type": "array",
                    "description": "The objects, each with its own kind and apiVersion.",
                    "items": {"type": "object"},
                },
                "continue": {"type": _TEXT, "description": "Where the next page begins, where there is one."},
                "remainingItemCount": {
                    "type": _NUMBER,
                    "format": "int64",
                    "description": "How many objects come behind this page.",
                },
            },
            _GVK: [_KIND],
        },
        f"{_OF}CollectionResourceList": {
            "description": "The collections that there are, without objects.",
            "type": "object",
            "required": ["items"],
            "properties": {
                **_OWN,
                "metadata": {"type": "object", "description": "Nothing."},
                "items": {
                    "type": "array",
                    "description": "The collections.",
                    "items": {"$ref": f"{place}{_OF}CollectionResource"},
                },
            },
            _GVK: [_LIST],
        },
        f"{_OF}CollectionResourceType": {
            "description": "A type, or all types of a group.",
            "type": "object",
            "required": ["group", "version", "resource"],
            "properties": {
                "group": {"type": _TEXT, "description": "Its group; * for any."},
                "version": {"type": _TEXT, "description": "Its version; none for any."},
                "kind": {"type": _TEXT, "description": "Its kind."},
                "resource": {"type": _TEXT, "description": "Its plural name; none for all types of the group."},
            },
        },
    }


def _paths(version: int) -> dict[str, Any]:
    """The paths, of a document of version 2 or 3."""
    place = "#/definitions/" if version == 2 else "#/components/schemas/"
    parameters = [_parameter(version, name, "query", *about) for name, about in _PARAMETERS.items()]
    name = {**_parameter(version, "name", "path", _TEXT, "The name of the collection."), "required": True}

    def operation(action: str, about: str, kind: Mapping[str, str], schema: str) -> dict[str, Any]:
        of = {"$ref": f"{place}{_OF}{schema}"}
        answer = {"schema": of} if version == 2 else {"content": {media: {"schema": of} for media in _MEDIA}}
        made: dict[str, Any] = {
            "description": about,
            "operationId": f"{action}Clusterpedia{VERSION.capitalize()}{kind['kind']}",
            "responses": {"200": {"description": "OK", **answer}},
            "x-kubernetes-action": action,
            # Of a list it is the kind of what it lists.
            _GVK: _KIND,
        }
        return {**made, "produces": list(_MEDIA)} if version == 2 else made

    return {
        f"/{NAME}/{COLLECTIONS}": {"get": operation("list", "lists the collections", _LIST, "CollectionResourceList")},
        f"/{NAME}/{COLLECTIONS}/{{name}}": {
            "get": {**operation("get", "reads a collection", _KIND, "CollectionResource"), "parameters": parameters},
            "parameters": [name],
        },
    }


def _parameter(version: int, name: str, place: str, kind: str, about: str) -> dict[str, Any]:
    said = {"name": name, "in": place, "description": about}
    return {**said, "type": kind} if version == 2 else {**said, "schema": {"type": kind}}


_INFO = {"title": "kubebraid", "version": VERSION}


@functools.cache
def version3() -> ClusterDocument:
    """The group's document of version 3."""
    schemas = {"schemas": _schemas("#/components/schemas/")}
    text = msgspec.json.encode({"openapi": "3.0.0", "info": _INFO, "paths": _paths(3), "components": schemas})
    return _packed(text)


def with_group(form: str, document: ClusterDocument) -> ClusterDocument:
    """A cluster's document of version 2 with the group added, unless it has it. Blocking for parts of a second."""
    text = zlib.decompress(document.body, _GZIP_FORMAT)
    if f"{_OF}CollectionResource".encode() in text:
        return document
    if form == "protobuf":
        # A message that stands behind another of its type is merged into that (protobuf.dev, "Encoding").
        return _packed(text + _definitions())
    try:
        parts = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        # What a cluster says is passed on, whatever it is.
        return document
    added = {"paths": _paths(2), "definitions": _schemas("#/definitions/")}
    for name, ours in added.items():
        theirs = bytes(parts.get(name, b"{}")).strip()[1:-1].strip()
        inner = msgspec.json.encode(ours)[1:-1]
        parts[name] = msgspec.Raw(b"{%b%b%b}" % (theirs, b"," if theirs else b"", inner))
    return _packed(msgspec.json.encode(parts), paths=document.paths + len(added["paths"]))


class ExtendedDocuments:
    """Clusters' documents of version 2 with the group added, each made once, in a thread."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, str], ClusterDocument] = OrderedDict()
        self._making = asyncio.Lock()

    async def of(self, form: str, document: ClusterDocument) -> ClusterDocument:
        """A document with the group. O(1) if it is known."""
        key = (form, document.hash)
        async with self._making:
            made = self._made.get(key)
            if made is None:
                made = self._made[key] = await asyncio.to_thread(with_group, form, document)
                while len(self._made) > _KEPT:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            return made


def _packed(text: bytes, paths: int = 0) -> ClusterDocument:
    digest = hashlib.sha256(text).hexdigest().upper()
    return ClusterDocument(paths=paths, hash=digest, size=len(text), body=gzip.compress(text, _LEVEL, mtime=0))


# -- protobuf: github.com/google/gnostic, openapiv2/OpenAPIv2.proto ----------------------------------------------------


def _definitions() -> bytes:
    """The types as `definitions` of a Document."""
    return field(9, _named(_schemas("#/definitions/")))


def _named(schemas: Mapping[str, Any]) -> bytes:
    """NamedSchemas, of Definitions and of Properties."""
    return b"".join(field(1, field(1, name.encode()) + field(2, _schema(one))) for name, one in schemas.items())


def _schema(schema: Mapping[str, Any]) -> bytes:
    parts = [
        field(number, schema[key].encode())
        for number, key in ((1, "$ref"), (2, "format"), (4, "description"))
        if key in schema
    ]
    parts += [field(19, name.encode()) for name in schema.get("required", ())]
    if "type" in schema:
        parts.append(field(22, field(1, schema["type"].encode())))
    if "items" in schema:
        parts.append(field(23, field(1, _schema(schema["items"]))))
    if "properties" in schema:
        parts.append(field(25, _named(schema["properties"])))
    if _GVK in schema:
        text = yaml.safe_dump(schema[_GVK], sort_keys=False).encode()
        parts.append(field(31, field(1, _GVK.encode()) + field(2, field(2, text))))
    return b"".join(parts)
