"""GET: one object by its name, or why no single one can be answered.

Kubernetes API Concepts, "Semantics for get and list".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from materializer.entry import Entry, object_key
from materializer.materializer import Materializer
from query.discovery.catalogue import ServedType
from query.discovery.paths import RequestTarget
from query.http.rendering import LARGE_YAML
from query.http.request import Request
from query.http.status import ApiError, not_found
from query.objects.consistency import Consistency
from query.objects.injected_events import events_of
from query.objects.representations import encoder_for
from query.objects.versions import check_history, seen_versions_of, versions_for
from query.search.owners import Seen
from query.search.terms import parse_search


class Reads:
    """Answers GETs from the store."""

    def __init__(self, materializer: Materializer, consistency: Consistency, turns: asyncio.Lock | None = None) -> None:
        self._materializer = materializer
        self._consistency = consistency
        self._turns = asyncio.Lock() if turns is None else turns

    async def answer(
        self,
        request: Request,
        target: RequestTarget,
        served: ServedType,
        seen: Callable[[], Awaitable[Seen | None]] | None = None,
    ) -> web.Response:
        """The object that a path names, at least as new as the request's resourceVersion.

        `seen`: which Events may be seen, where it is to have its own in its annotations.

        Raises:
            ApiError: 404, it does not exist; 400, several clusters have one of that name, or the version cannot be
                read; 406, it has no form that is accepted; 410, 429, 504, see `Consistency`.
        """
        representation = request.accept.objects(listing=False)
        request.in_yaml = representation.in_yaml
        versions = versions_for(self._materializer, request)
        encoder = encoder_for(request, target, served, representation, versions)
        version = request.http.query.get("resourceVersion", "")
        if not version:
            await self._consistency.current(request)
        elif (member_versions := seen_versions_of(version, request)) is not None:
            await self._consistency.at_member_versions(request, served.resource, member_versions)
        elif version != "0":
            await self._consistency.at_least(request, version)
        check_history(self._materializer, versions)
        entry = self._find(request, target)
        if seen is not None:
            encoder = encoder.with_events(await events_of(self._materializer, self._turns, [entry], await seen()))
        body = encoder.one(entry)
        if request.in_yaml and len(body) > LARGE_YAML:
            # Other requests go on meanwhile.
            return await asyncio.to_thread(request.answer, body)
        return request.answer(body)

    def _find(self, request: Request, target: RequestTarget) -> Entry:
        """The one object of a name, in one cluster or in any. Raises ApiError 400, 404."""
        cluster = request.cluster
        type_store = self._materializer.store.types.get(target.group_resource)
        found: list[Entry] = []
        if type_store is not None:
            chosen = _clusters(request.http.query)
            within = sorted(type_store.clusters) if cluster is None else (cluster,)
            scope = [one for one in within if chosen is None or one in chosen]
            key = object_key(target.namespace, target.name)
            entries = [entry for name in scope if (entry := type_store.get(name, key)) is not None]
            found = [
                entry
                for entry in entries
                if entry.version == target.version and request.visible.sees(entry.cluster, entry.namespace)
            ]
        if not found:
            raise not_found(target.group, target.resource, target.name)
        if len(found) > 1:
            names = ", ".join(entry.cluster for entry in found)
            place = f" -n {target.namespace}" if target.namespace else ""
            raise ApiError(
                400,
                f'please specify the cluster name: {target.resource} "{target.name}" is in {names}; for example '
                f"kubectl --server {request.server_below(found[0].cluster)} get "
                f"{target.group_resource} {target.name}{place}",
            )
        return found[0]


def _clusters(query: Mapping[str, str]) -> frozenset[str] | None:
    """The clusters that a request names by its query, as a list may; None: all. Raises ApiError 400."""
    return parse_search({"clusters": query["clusters"]}).clusters.only if "clusters" in query else None
