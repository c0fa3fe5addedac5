"""Bindings: a Binding posted as an object of its own writes the pod that it names, as the pod's subresource does.

The core group serves both (kubernetes pkg/registry/core/pod/storage: LegacyBindingREST).
"""

from __future__ import annotations

import dataclasses

import msgspec
from aiohttp import web

from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.kubernetes import GroupResource
from query.discovery.catalogue import Catalogue, ServedType
from query.discovery.paths import RequestTarget
from query.http.passthrough import read_body

_BINDINGS = GroupResource("", "bindings")


class _Metadata(msgspec.Struct):
    name: str = ""


class _Binding(msgspec.Struct):
    """A Binding, as far as it is read: it has the name of the pod."""

    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


async def pod_bound_by(
    http: web.Request, target: RequestTarget, catalogue: Catalogue
) -> tuple[RequestTarget, ServedType] | None:
    """The pod that a request binds, as the target of its subresource, and its type; None: it posts no Binding.

    `POST .../namespaces/shop/bindings` of one named web-0 is as `POST .../namespaces/shop/pods/web-0/binding`. The name
    is "" where the body is not in JSON: then which pod is written cannot be told.

    Raises:
        ApiError: 400, 413, the body cannot be read.
    """
    if http.method != "POST" or target.group_resource != _BINDINGS or target.name or not target.namespace:
        return None
    pods = catalogue.find("", target.version, "pods")
    if pods is None:
        return None
    try:
        name = msgspec.json.decode(await read_body(http), type=_Binding).metadata.name
    except UNDECODABLE:
        name = ""
    return dataclasses.replace(target, resource="pods", name=name, subresource="binding"), pods
