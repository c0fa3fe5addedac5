"""Forwarding: requests below /clusters/<cluster> that memory cannot answer go to that cluster's own API server.

Its answer is passed through as it comes, but for objects of synced types that it has written: these bear the version
that they are read with here, and the answer is held back until they can be.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from aiohttp import web
from multidict import CIMultiDict

from deltalog.wire.delta import UNDECODABLE
from materializer.entry import Entry, object_key
from materializer.materializer import Materializer
from materializer.versions import Named, Numbered
from query.access.audit.events import pass_audit_id
from query.discovery.catalogue import ServedType
from query.discovery.paths import RequestTarget
from query.errors import QueryError
from query.forward.pruned_guard import refuse_emptying
from query.forward.readback import UNKNOWN, Answered, NotRead, Readback, ReadObject, is_object, parse_answer
from query.forward.versions_in_bodies import to_cluster_versions, to_our_versions
from query.http.origins import refuse_foreign_pages
from query.http.passthrough import (
    BrokenAnswer,
    HeaderNames,
    NoAnswer,
    PassThrough,
    PassThroughError,
    Upstream,
    UpstreamUnreachable,
    begin_response,
    content_length,
    identified,
    read_answer,
    read_body,
    refuse_large_body,
    request_headers,
    stream_response,
)
from query.http.request import Request
from query.http.status import ApiError
from query.http.tunnels import BrokenTunnel, wants_upgrade
from query.identity import Identity
from query.timing import QueryTiming

log = structlog.get_logger("query.forward.forwarding")

# Bytes of an answer up to which it is looked into; a larger one is a list of deleted objects, or of no synced type.
_READ_LIMIT = 16 * 1024 * 1024
# A percent sign that escapes nothing; how many parameters a query may have.
_WRONG_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PARAMETERS = 1000
# Headers that speak of a request's body.
_OF_BODIES = frozenset({"content-type", "content-encoding", "content-length", "accept"})
# Methods after which the cluster's objects may be others.
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class NoUpstream(QueryError):
    """This instance cannot reach a cluster's API server by its own means; one line that says why."""


class Upstreams(Protocol):
    """Knows the API servers of clusters."""

    def has(self, cluster: str) -> bool:
        """Whether a cluster is one of those that it knows."""
        ...

    @property
    def as_caller(self) -> bool:
        """Whether a cluster is shown who asks, and decides about that, not about us."""
        ...

    def using(self, cluster: str, who: Identity) -> AbstractAsyncContextManager[Upstream]:
        """A cluster's API server, for one request of a user.

        Raises:
            NoUpstream: it is not known, or there are no credentials for it.
        """
        ...


class _DeleteOptions(msgspec.Struct, rename="camel"):
    dry_run: list[str] | None = None


class _Write:
    """A write to a synced type, whose request and answer are looked into.

    `known`: the object as it is here before the write, None if it is not here.
    """

    def __init__(self, cluster: str, target: RequestTarget, served: ServedType, materializer: Materializer) -> None:
        self.cluster = cluster
        self.target = target
        self.served = served
        self._materializer = materializer
        self.known = self.entry(target.name)

    def entry(self, name: str) -> Entry | None:
        """An object of the request's namespace as it is here now."""
        type_store = self._materializer.store.types.get(self.served.resource)
        key = object_key(self.target.namespace, name or self.target.name)
        return None if type_store is None else type_store.get(self.cluster, key)


class Forwarding:
    """Passes requests on to clusters. Owned by the service, which closes it.

    `consumed`: headers by which a front proxy says here who asks; no cluster gets them.
    """

    def __init__(
        self, upstreams: Upstreams, materializer: Materializer, timing: QueryTiming, consumed: HeaderNames
    ) -> None:
        self._upstreams = upstreams
        self._consumed = consumed
        self._materializer = materializer
        self._pass_through = PassThrough(timing.forward_connect)
        self._readback = Readback(materializer, timing.forward_readable)

    @property
    def as_caller(self) -> bool:
        """Whether a cluster is shown who asks, and decides about that, not about us."""
        return self._upstreams.as_caller

    async def close(self) -> None:
        """Ends all connections to clusters."""
        await self._pass_through.close()

    async def forward(
        self,
        request: Request,
        segments: Sequence[str],
        target: RequestTarget | None,
        served: ServedType | None,
        versions: Named,
        until: asyncio.Event | None = None,
        query: str | None = None,
    ) -> web.StreamResponse:
        """Answers a request in the scope of one cluster with that cluster's own answer.

        `segments`: its path below the cluster. `target` and `served`: the resource that it names, if that is synced
        and its objects may be looked into. `versions`: how versions are written in what the client reads here.
        `until`: a watch that is passed on ends once this is set. `query`: the raw one that is passed on, None: its own.

        Raises:
            ApiError: 403, a page of another site; 409, 413, 415, 422, a body that cannot be passed on; 503, the
                cluster cannot be reached from here; 504, it broke off, so that what it did is unknown.
        """
        http, cluster = request.http, request.cluster
        assert cluster is not None
        refuse_foreign_pages(http)
        try:
            async with self._upstreams.using(cluster, request.who) as upstream:
                path = "".join("/" + quote(segment, safe=":@!$&'()*+,;=~") for segment in segments)
                if http.rel_url.raw_path.endswith("/"):
                    # It makes a difference to servers behind a proxy subresource.
                    path += "/"
                given = http.rel_url.raw_query_string if query is None else query
                if given:
                    path = f"{path}?{passed_query(given)}"
                headers = identified(request_headers(http), upstream, self._consumed)
                pass_audit_id(http, headers)
                if wants_upgrade(http):
                    return await self._pass_through.tunnel(http, upstream, path, headers, until)
                write = None
                if target is not None:
                    # One without a length is for the cluster itself to measure; streams have no limit.
                    refuse_large_body(http)
                if served is not None and target is not None and http.method in _WRITES:
                    write = _Write(cluster, target, served, self._materializer)
                return await self._exchange(request, upstream, path, headers, write, versions, until)
        except NoUpstream as problem:
            raise ApiError(503, f"requests cannot be passed on to cluster {cluster} from here: {problem}") from None
        except BrokenTunnel as problem:
            raise ApiError(503, f"cluster {cluster}: {problem}") from None

    async def _exchange(
        self,
        request: Request,
        upstream: Upstream,
        path: str,
        headers: CIMultiDict[str],
        write: _Write | None,
        versions: Named,
        until: asyncio.Event | None,
    ) -> web.StreamResponse:
        http, cluster = request.http, request.cluster
        body: bytes | aiohttp.StreamReader | None = http.content if http.can_read_body else None
        if write is not None:
            # Every server can answer in JSON; protobuf could not be looked into.
            ranges = [part for part in ",".join(headers.popall("Accept", ())).split(",") if "protobuf" not in part]
            headers["Accept"] = ",".join(ranges) or "application/json"
            headers.popall("Accept-Encoding", None)
            if http.body_exists:
                # Also where it was read before: aiohttp keeps it.
                body = await self._translated(http, write, versions)
        try:
            async with self._pass_through.exchange(http, upstream, path, headers, body) as answer:
                response = begin_response(answer)
                dry = _is_dry_run(http, body if isinstance(body, bytes) else b"")
                if write is None or content_length(answer) > _READ_LIMIT:
                    if write is not None and answer.status < 300 and not dry:
                        request.warnings.append(f"{cluster} {UNKNOWN}")
                    self._add_warnings(request, response)
                    await stream_response(http, answer, response, until)
                    return response
                content = await read_answer(answer)
                if answer.status < 300:
                    read = partial(self._read_object, upstream, headers, write.target)
                    content = await self._read_back(request, write, content, versions, None if dry else read)
                self._add_warnings(request, response)
                response.headers.popall("Content-Length", None)
                response.content_length = len(content)
                await response.prepare(http)
                await response.write(content)
                await response.write_eof()
                return response
        except UpstreamUnreachable as cause:
            raise ApiError(503, f"cluster {cluster} cannot be reached: {cause}") from None
        except NoAnswer as cause:
            text = f"cluster {cluster} broke off before it answered: {cause}"
            if http.method in _WRITES:
                text += "; whether it did what was asked is unknown"
            raise ApiError(504, text) from None
        except BrokenAnswer as cause:
            if not response.prepared:
                raise ApiError(504, f"cluster {cluster} broke off in its answer of {answer.status}: {cause}") from None
            log.info("a cluster broke off in its answer", cluster=cluster, reason=str(cause))
            return response

    @staticmethod
    async def _translated(http: web.Request, write: _Write, versions: Named) -> bytes:
        """The body of a write as the cluster knows the object. Raises ApiError 400, 409, 413, 415, 422."""
        body, known, pruned = await read_body(http), write.known, write.served.info.pruned
        encoded = "Content-Encoding" in http.headers
        if http.method == "PUT" and pruned and known is not None:
            refuse_emptying(http.content_type, encoded, body, known.body, pruned)
        if encoded:
            return body
        numbered = isinstance(versions, Numbered)
        translate = partial(to_cluster_versions, http.content_type, body, known, numbered=numbered)
        # YAML takes so long to read that others go on meanwhile.
        return await asyncio.to_thread(translate) if "yaml" in http.content_type else translate()

    async def _read_back(
        self, request: Request, write: _Write, content: bytes, versions: Named, read: ReadObject | None
    ) -> bytes:
        """Waits until what a cluster has answered can be read here; returns the answer with our versions.

        `read`: how to read the object that was written; None: nothing was.
        """
        # YAML is not looked into.
        found = parse_answer(content) or Answered()
        if read is not None:
            before = "" if write.known is None else write.known.uid
            method, cluster = request.method, write.cluster
            problem = await self._readback.wait(
                method, cluster, write.target, write.served, content, found, before, read
            )
            if problem:
                request.warnings.append(f"{cluster} {problem}")
        if is_object(found, write.target, write.served):
            content = to_our_versions(content, write.entry(found.metadata.name), versions, write.cluster)
        return content

    async def _read_object(
        self, upstream: Upstream, sent: CIMultiDict[str], target: RequestTarget, version: str
    ) -> bytes | None:
        """The object of a request as its cluster has it now, read as who asked; None if it has none. Raises NotRead."""
        root = f"/apis/{target.group}/{version}" if target.group else f"/api/{version}"
        within = ["namespaces", target.namespace] if target.namespace else []
        path = "/".join([root, *(quote(one, safe=":") for one in (*within, target.resource, target.name))])
        headers = CIMultiDict((name, value) for name, value in sent.items() if name.lower() not in _OF_BODIES)
        headers["Accept"] = "application/json"
        try:
            async with self._pass_through.get(upstream, path, headers) as answer:
                if answer.status == 404:
                    return None
                if answer.status != 200:
                    raise NotRead(f"HTTP {answer.status}")
                return await read_answer(answer)
        except PassThroughError as cause:
            raise NotRead(str(cause)) from None

    @staticmethod
    def _add_warnings(request: Request, response: web.StreamResponse) -> None:
        for name, value in request.warning_headers():
            response.headers.add(name, value)


def passed_query(text: str) -> str:
    """A query as it is passed on: such that the cluster reads the parameters that were read here.

    Go leaves out a parameter with a semicolon or a wrong escape, and all if there are more than ten thousand (net/url:
    parseQuery); a list of one name, which is allowed, would become one of all. Example: `a=1;2&b=%zz` is
    `a=1%3B2&b=%25zz`.

    Raises:
        ApiError: 400, there are too many parameters.
    """
    if text.count("&") >= _PARAMETERS:
        raise ApiError(400, f"the query has too many parameters: limit is {_PARAMETERS}")
    return _WRONG_ESCAPE.sub("%25", text).replace(";", "%3B")


def _is_dry_run(http: web.Request, body: bytes) -> bool:
    """Whether a request only asks what would happen."""
    if "dryRun" in http.query:
        return True
    if http.method != "DELETE" or not body:
        return False
    try:
        return bool(msgspec.json.decode(body, type=_DeleteOptions).dry_run)
    except UNDECODABLE:
        return False
