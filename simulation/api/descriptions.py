"""The endpoints by which a cluster describes itself: /version, /api, /apis and /openapi."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from aiohttp import web

from simulation.api import discovery
from simulation.api.openapi import OpenApiDocuments, custom_schemas
from simulation.api.options import accepted_form
from simulation.api.responses import json_response, require_method
from simulation.faults import Faults
from simulation.registry import Registry
from simulation.resources import CUSTOM_RESOURCE_DEFINITIONS, SimulatedType
from simulation.status import unknown_path

__all__ = ["DescriptionHandlers"]


class DescriptionHandlers:
    """Discovery and OpenAPI of one cluster. What they say is made anew when the served types have changed."""

    def __init__(self, registry: Registry, faults: Faults) -> None:
        self._registry = registry
        self._storage = registry.storage
        self._faults = faults
        self._discovery: tuple[int, discovery.ServedGroups] | None = None
        self._openapi: tuple[object, OpenApiDocuments] | None = None

    def served_groups(self) -> discovery.ServedGroups:
        """All groups and versions with their types, those that only an APIService registers without any."""
        known = self._discovery
        if known is None or known[0] != self._storage.types_changed:
            types = [collection.type for collection in self._storage.collections.values()]
            groups = discovery.groups(types)
            for group, version in sorted(self._registry.aggregation.unanswered):
                groups.setdefault(group, {}).setdefault(version, [])
            known = (self._storage.types_changed, groups)
            self._discovery = known
        return known[1]

    def types(self, group: str, version: str) -> list[SimulatedType]:
        """The types that are served in a group's version.

        Raises:
            StatusError: 404 if there is no such group or version.
        """
        found = self.served_groups().get(group, {}).get(version)
        if found is None:
            raise unknown_path()
        return found

    def version(self) -> web.StreamResponse:
        """The answer of /version."""
        return json_response(discovery.version_info())

    def groups(self, request: web.BaseRequest, *, core: bool) -> web.StreamResponse:
        """The answer of /api (`core`) or /apis: aggregated discovery where it is accepted, else the older lists.

        Raises:
            StatusError: 405, or 406 where no form is acceptable.
        """
        require_method(request, "GET")
        form, _ = accepted_form(request.headers.get("Accept", ""))
        headers = {"Vary": "Accept"}
        if form == "discovery" and self._faults.aggregated_discovery:
            cached = self._faults.away_shown == "cached"
            data = msgspec.json.encode(
                discovery.aggregated(self._listed(), core=core, stale=self._unavailable, cached=cached)
            )
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest().upper()}"'
            headers["Content-Type"] = discovery.AGGREGATED
            if request.headers.get("If-None-Match") == headers["ETag"]:
                return web.Response(status=304, headers=headers)
            return web.Response(body=data, headers=headers)
        address = request.headers.get("Host", "")
        return json_response(
            discovery.api_versions(address) if core else discovery.api_group_list(self._listed()), headers=headers
        )

    def group(self, request: web.BaseRequest, group: str) -> web.StreamResponse:
        """The answer of /apis/<group>.

        Raises:
            StatusError: 404 or 405.
        """
        require_method(request, "GET")
        versions = self._listed().get(group)
        if versions is None:
            raise unknown_path()
        return json_response(discovery.api_group(group, versions))

    def resources(self, request: web.BaseRequest, group: str, version: str) -> web.StreamResponse:
        """The answer of /api/v1 or /apis/<group>/<version>.

        Raises:
            StatusError: 404 or 405.
        """
        types = self.types(group, version)
        require_method(request, "GET")
        return json_response(discovery.api_resource_list(group, version, types))

    def openapi(self, request: web.BaseRequest, parts: Sequence[str]) -> web.StreamResponse:
        """The answer of /openapi/v2, /openapi/v3 and /openapi/v3/<path>; `parts` are those after /openapi.

        With a `hash` that is out of date, the answer is a redirection to the present one, as in
        k8s.io/kube-openapi pkg/handler3.

        Raises:
            StatusError: 404, 405, or 406 where no form is acceptable.
        """
        require_method(request, "GET")
        documents = self._documents()
        if [*parts] == ["v2"]:
            document = documents.v2(request.headers.get("Accept", ""))
        elif [*parts] == ["v3"]:
            document = documents.index()
        else:
            found = documents.of("/".join(parts[1:])) if [*parts[:1]] == ["v3"] else None
            if found is None:
                raise unknown_path()
            document = found
        etag = f'"{document.etag}"'
        headers = {"ETag": etag, "Vary": "Accept", "Content-Type": document.content_type}
        asked = request.query.get("hash")
        if asked and len(parts) > 1:
            if asked != document.etag:
                moved = f"/openapi/{'/'.join(parts)}?hash={document.etag}"
                return web.Response(status=301, headers={"Location": moved})
            headers["Cache-Control"] = "public, immutable"
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=document.body, headers=headers)

    def _listed(self) -> discovery.ServedGroups:
        """The groups that discovery shows."""
        groups = self.served_groups()
        return discovery.without(groups, self._unavailable) if self._faults.away_shown == "missing" else groups

    def _unavailable(self, group: str, version: str) -> bool:
        return not self._registry.aggregation.answers(group, version)

    def _documents(self) -> OpenApiDocuments:
        definitions = list(self._registry.collection(CUSTOM_RESOURCE_DEFINITIONS).in_order())
        state = (self._storage.types_changed, tuple((one.name, one.version) for one in definitions))
        if self._openapi is None or self._openapi[0] != state:
            documents = OpenApiDocuments(self.served_groups(), lambda: custom_schemas(definitions))
            self._openapi = (state, documents)
        return self._openapi[1]
