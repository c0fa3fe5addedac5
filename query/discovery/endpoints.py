"""Discovery's endpoints: /version, what is below /api and /apis, and access reviews, in the scope of a request."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from deltalog.wire.kubernetes import GroupResource
from materializer.materializer import Materializer
from query.discovery.access_reviews import ReviewKind, ReviewScope, review
from query.discovery.catalogue import Catalogue, Catalogues, ServedType, aggregated_type, server_version
from query.discovery.readiness import Readiness
from query.http.accept import DocumentForm
from query.http.origins import refuse_foreign_pages
from query.http.passthrough import read_body
from query.http.rendering import answer
from query.http.request import Request
from query.http.status import ApiError, no_such_path


class Discovery:
    """Answers which APIs there are. `version`: this service's own."""

    def __init__(self, materializer: Materializer, catalogues: Catalogues, readiness: Readiness, version: str) -> None:
        self._materializer = materializer
        self._catalogues = catalogues
        self._readiness = readiness
        self._version = version

    def catalogue(self, request: Request) -> Catalogue:
        """The types in a request's scope."""
        among = request.visible.scope[0]
        return self._catalogues.of(self._materializer.generation, self._materializer.store, request.cluster, among)

    def served(
        self, cluster: str | None, resource: GroupResource, among: frozenset[str] | None = None
    ) -> ServedType | None:
        """A type as one cluster serves it now, or all of them (None), or those of them in `among`.

        None if they have none, or are not there.
        """
        store = self._materializer.store
        if cluster is not None and cluster not in store.clusters:
            return None
        return self._catalogues.of(self._materializer.generation, store, cluster, among).types.get(resource)

    def document(self, request: Request, segments: list[str]) -> web.Response:
        """A discovery document, by the segments of its path: `api`, `apis`, `api/v1`, ... (KEP-3352 if aggregated).

        Raises:
            ApiError: 404, there is no such group or version; 406; 503, its server does not answer the cluster.
        """
        name = "/".join(segments)
        aggregated = self._negotiate(request, aggregated=name in ("api", "apis")).aggregated
        own = request.cluster is None and not request.below_resources
        found = self.catalogue(request).document(name, aggregated=aggregated, own=own)
        if found is None or self._readiness.blank(request.cluster, request.visible):
            raise no_such_path()
        body, etag = found
        headers = {"ETag": etag, "Vary": "Accept", "Cache-Control": "no-cache, private"}
        if etag in request.http.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        response = answer(body, request.rendering(), headers.items())
        if aggregated:
            # Clients know the form by the parameters.
            response.headers["Content-Type"] = aggregated_type(aggregated)
        return response

    def version(self, request: Request) -> web.Response:
        """The /version document.

        Raises:
            ApiError: 406.
        """
        self._negotiate(request, strict=False)
        return request.document(self._version_of(request))

    def _version_of(self, request: Request) -> dict[str, Any]:
        among = request.visible.scope[0]
        return server_version(self._materializer.store, request.cluster, self._version, among)

    async def review(self, request: Request, of: ReviewKind, scope: ReviewScope) -> web.Response:
        """The answer to an access review.

        Raises:
            ApiError: 400, 413, 415, 422, the body; 403, 405, the way it was sent; 406.
        """
        if request.method != "POST":
            raise ApiError(405, f"the server does not allow {request.method} on this path: POST a {of.kind}")
        refuse_foreign_pages(request.http)
        self._negotiate(request)
        given = await read_body(request.http)
        body = await review(of, request.http.content_type, given, self.catalogue(request), scope)
        return request.answer(body, status=201)

    @staticmethod
    def _negotiate(request: Request, *, aggregated: bool = False, strict: bool = True) -> DocumentForm:
        """Raises ApiError 406."""
        form = request.accept.document(aggregated=aggregated, strict=strict)
        request.in_yaml = form.in_yaml
        return form
