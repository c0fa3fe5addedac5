"""The list of collections: which there are and what types they have, in each form that may be asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web

from query.discovery.clusterpedia import GROUP, VERSION
from query.http.accept import Form
from query.http.request import Request
from query.search.collections import CollectedTypes, ResourceCollection

_COLUMNS = [
    {"name": name, "type": "string", "format": "", "description": "", "priority": 0} for name in ("Name", "Resources")
]


class _Type(msgspec.Struct):
    """As Clusterpedia's CollectionResourceType. `*`: any group; an empty resource: all of the group."""

    group: str
    version: str
    resource: str

    def __str__(self) -> str:
        return f"{self.group}.{self.resource or '*'}"


class _Metadata(msgspec.Struct):
    name: str
    creation_timestamp: None = msgspec.field(default=None, name="creationTimestamp")


class _Item(msgspec.Struct, rename="camel"):
    metadata: _Metadata
    resource_types: list[_Type]


class _List(msgspec.Struct):
    items: list[_Item]


def answer_collections(request: Request, collections: Iterable[ResourceCollection]) -> web.Response:
    """The list of these. Raises ApiError 406."""
    wanted = request.accept.objects(listing=True)
    request.in_yaml = wanted.in_yaml
    items = [_Item(_Metadata(one.name), [_type_of(types) for types in one.patterns or ()]) for one in collections]
    partial = {"kind": "PartialObjectMetadata", "apiVersion": wanted.api_version}
    content: dict[str, Any] = {"kind": "CollectionResourceList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}}
    if wanted.form is Form.TABLE:
        content |= {"kind": "Table", "apiVersion": wanted.api_version, "columnDefinitions": _COLUMNS}
        content["rows"] = [
            {
                "cells": [one.metadata.name, ",".join(map(str, one.resource_types)) or "*"],
                "object": {**partial, "metadata": one.metadata},
            }
            for one in items
        ]
    elif wanted.form is Form.METADATA:
        content |= {"kind": "PartialObjectMetadataList", "apiVersion": wanted.api_version}
        content["items"] = [{**partial, "metadata": one.metadata} for one in items]
    else:
        content["items"] = items
    return request.answer(msgspec.json.encode(content) + b"\n")


def collections_in(body: bytes) -> dict[str, ResourceCollection]:
    """The collections of such a list in JSON, by name. Raises ValueError: it is none."""
    found = msgspec.json.decode(body, type=_List)
    return {
        one.metadata.name: ResourceCollection(one.metadata.name, tuple(map(_types_of, one.resource_types)) or None)
        for one in found.items
    }


def _type_of(one: CollectedTypes) -> _Type:
    return _Type("*" if one.group is None else one.group, one.version or "", one.resource or "")


def _types_of(one: _Type) -> CollectedTypes:
    return CollectedTypes(None if one.group == "*" else one.group, one.resource or None, one.version or None)
