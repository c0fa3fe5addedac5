"""The endpoints that write: create, update, patch, delete and deletecollection."""

from __future__ import annotations

from aiohttp import web

from simulation.api.bodies import json_body, object_body, yaml_body
from simulation.api.list_responses import ListSender
from simulation.api.options import parse_options
from simulation.api.paths import ResourcePath
from simulation.api.presentation import presentation_for
from simulation.api.responses import method_not_allowed, not_acceptable, object_response
from simulation.api.write_parameters import parse_delete_options, parse_write_options
from simulation.registry import Registry, WriteOptions
from simulation.resources import PODS
from simulation.status import success

__all__ = ["WriteHandlers"]


class WriteHandlers:
    """Writes on one cluster. Each handler raises StatusError as the registry's method of its name does."""

    def __init__(self, registry: Registry, sender: ListSender) -> None:
        self._registry = registry
        self._sender = sender

    async def create(self, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
        """POST of an object: the object as it is stored, with code 201."""
        if path.type.namespaced and not path.namespace:
            raise method_not_allowed()
        presentation = presentation_for(request, path)
        body = object_body(request.content_type, await request.read())
        options = parse_write_options(request, path.version)
        return object_response(
            presentation.single(self._registry.create(path.type, path.namespace, body, options)), status=201
        )

    async def update(self, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
        """PUT of an object or of its status: the object as it is stored."""
        presentation = presentation_for(request, path)
        body = object_body(request.content_type, await request.read())
        options = parse_write_options(request, path.version)
        stored = self._registry.update(path.type, path.namespace, path.name, body, options, path.subresource)
        return object_response(presentation.single(stored))

    async def patch(self, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
        """PATCH of an object or of its status: the object as it is stored, with code 201 where apply created it."""
        presentation = presentation_for(request, path)
        data = await request.read()
        content_type = request.content_type
        options = parse_write_options(request, path.version)
        if content_type == "application/apply-patch+yaml":
            patch = yaml_body(data.decode())
            # Apply has to name its manager.
            options = WriteOptions(request.query.get("fieldManager", ""), options.dry_run, options.version)
        else:
            patch = json_body(data)
        stored, created = self._registry.patch(
            path.type, path.namespace, path.name, content_type, patch, options, path.subresource
        )
        return object_response(presentation.single(stored), status=201 if created else 200)

    async def delete(self, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
        """DELETE of an object: its last form, or a Status of success where it is removed.

        Of a collection: the list of what was deleted.
        """
        type = path.type
        presentation = presentation_for(request, path)
        data = await request.read()
        options = parse_delete_options(request, object_body(request.content_type, data) if data.strip() else {})
        if path.name:
            stored, removed = self._registry.delete(type, path.namespace, path.name, options)
            # A pod is answered with itself, as a real server does.
            if removed and type.key != PODS:
                return object_response(success(path.name, type.group, type.resource, stored.uid))
            return object_response(presentation.single(stored))
        if "deletecollection" not in type.verbs or (type.namespaced and not path.namespace):
            raise method_not_allowed()
        parsed = parse_options(type, path.namespace, request.query, watch=False)
        deleted = self._registry.delete_collection(type, parsed.selector, options, max(parsed.limit, 0))
        if presentation.form == "metadata":
            raise not_acceptable("PartialObjectMetadata")
        version = str(self._registry.storage.version)
        return await self._sender.send(request, presentation, deleted, {"resourceVersion": version})
