"""The query service: takes HTTP requests in, finds out what they ask, answers from the store."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec
import structlog
from aiohttp import HttpVersion11, web

from deltalog.wire.delta import newer, numeric
from deltalog.wire.kubernetes import GroupResource, ObjectName
from deltalog.wire.selectable_fields import METADATA_FIELDS, selectable_fields
from deltalog.wire.selectors import BadSelector, parse_fields, parse_labels
from materializer.cluster_facts import Cluster
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.materializer import LogUnreachable, Materializer, NotThereYet
from materializer.originals import seen
from materializer.resume import Expired, Resumption, from_member_versions, from_now, from_version
from materializer.versions import Named, Numbered, list_version
from query.discovery.access_reviews import review, review_kind
from query.discovery.catalogue import Catalogues, Served, aggregated_type, server_version
from query.discovery.openapi import OpenApi
from query.discovery.paths import Target, cluster_scope, resource_target, split
from query.discovery.readiness import Readiness
from query.forward.forwarding import Forwarding, Upstreams, read_body
from query.http.accept import Document, negotiate, negotiate_document, prefers_yaml
from query.http.application import entrance, refused
from query.http.connections import STALLS
from query.http.rendering import LARGE_YAML, answer, rendering, send_list
from query.http.slow_clients import Stalls
from query.http.status import ApiError, UnknownPath, expired, no_such_path, not_found, too_large_version, undiscovered
from query.http.warnings import of_other_versions, of_stale, warning_headers
from query.http.websocket import Send, converse, is_websocket, refuse_foreign_pages
from query.metrics import Metrics
from query.objects.lists import Page, Snapshots, first_page, further_page, slices
from query.objects.options import Options, originals_of, parse_options, version_of
from query.objects.representations import Encoder, include_object
from query.objects.search import parse_search
from query.objects.watches import NotTaken, Watches, WatchRequest, error_event

log = structlog.get_logger("query.service")

# How long a read waits for an index that is ahead, in seconds (apiserver storage/cacher: blockTimeout).
_AHEAD_WAIT = 3.0
_JSON = "application/json"
_HEALTH = ("healthz", "livez", "readyz")
# What metrics tell apart: a client may send any word.
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_PATHS = ("/api", "/apis", "/clusters", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version")
# Subresources that are streams between a client and a container.
_STREAMS = frozenset({"attach", "exec", "log", "portforward", "proxy"})


class _Request:
    """One request with what was found out about it: scope, options, and warnings to send along."""

    def __init__(self, http: web.Request, cluster: str | None) -> None:
        self.http = http
        self.cluster = cluster
        self.warnings: list[str] = []
        # Whether one of them says that the log cannot be reached.
        self.old = False
        # An answer that has begun cannot become an error any more.
        self.begun = False
        self.resource = ""
        # By the parameter or by the path.
        self.watching = http.query.get("watch") not in (None, "0", "false")
        # Whether versions are to be numbers.
        self.numbered = False
        self.accept = ",".join(http.headers.getall("Accept", ()))
        # Until more is known, so that errors found before have a form.
        self.render = rendering(http.headers, http.query, in_yaml=prefers_yaml(self.accept))

    def headers(self) -> list[tuple[str, str]]:
        return warning_headers(self.warnings)


class QueryService:
    """Answers the Kubernetes API from one materializer.

    `expected`: names of clusters that must have been listed before /readyz says so. `hosts`: host names that
    requests may be addressed to, None for any; without authentication this keeps a web page that rebinds its
    name to loopback from reading clusters (as `kubectl proxy --accept-hosts` does). `upstreams`: where requests for one
    cluster are passed on to; None: nowhere.
    """

    def __init__(
        self,
        materializer: Materializer,
        version: str,
        expected: Callable[[], Iterable[str]] = tuple,
        *,
        hosts: frozenset[str] | None = None,
        upstreams: Upstreams | None = None,
        not_ready_after: float = 0.0,
        notes: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.readiness = Readiness(materializer, expected, not_ready_after, notes)
        self.watches = Watches(materializer)
        self._materializer = materializer
        self._version = version
        self._hosts = hosts
        self._forwarding = None if upstreams is None else Forwarding(upstreams, materializer)
        self._catalogues = Catalogues(lambda cluster: upstreams is not None and upstreams.has(cluster))
        self._snapshots = Snapshots()
        self._openapi = OpenApi()
        self.metrics = Metrics(materializer, self.watches, self._snapshots)
        self._stalls = Stalls(self.metrics.stalls)
        self._list_turns = asyncio.Lock()

    def application(self) -> web.Application:
        """The aiohttp application that serves everything."""
        application = entrance(self._handle)
        application[STALLS] = self._stalls
        application.on_cleanup.append(self._end)
        return application

    async def _end(self, _: web.Application) -> None:
        if self._forwarding is not None:
            await self._forwarding.close()

    async def wait_ready(self) -> None:
        """Returns once /readyz is 200."""
        while not self.readiness.ready():
            await self._materializer.wait_control()

    def close(self) -> None:
        """Ends the watches; what is being answered otherwise goes on to its end."""
        self.watches.close()
        self._snapshots.close()

    # -- the outermost layer -----------------------------------------------------------------------------------------

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        started = time.monotonic()
        request = _Request(http, None)
        code = 500
        try:
            response = await self._route(request)
            code = response.status
        except ApiError as error:
            if isinstance(error, UnknownPath) and (missing := self.readiness.undiscovered(request.cluster)):
                error = undiscovered(missing)
            code = error.code
            response = self._failure(request, error)
        except web.HTTPException as problem:
            # Before it has begun, whatever was to begin.
            code = problem.status
            response = self._failure(request, refused(problem))
        except (ConnectionError, asyncio.CancelledError):
            code = 499
            raise
        except Exception:
            log.exception("request failed", method=http.method, path=http.rel_url.path)
            if request.begun:
                raise
            response = self._failure(request, ApiError(500, "kubebraid failed on this request; its log has the reason"))
        finally:
            verb = "watch" if request.watching else http.method.lower() if http.method in _METHODS else "other"
            self.metrics.requests.labels(verb, request.resource, str(code)).inc()
            if not request.watching:
                self.metrics.seconds.labels(verb).observe(time.monotonic() - started)
        return response

    @staticmethod
    def _failure(request: _Request, error: ApiError) -> web.Response:
        response = answer(error.body(), request.render, request.headers(), status=error.code)
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        if error.code == 405:
            response.headers["Allow"] = "GET"
        return response

    async def _route(self, request: _Request) -> web.StreamResponse:
        if self._hosts is not None and host_name(request.http.host) not in self._hosts:
            raise ApiError(403, f"requests for host {request.http.host[:64]!r} are not answered here")
        segments = split(request.http.rel_url.raw_path)
        if segments[:1] == ["int"]:
            request.numbered, segments = True, segments[1:]
        store = self._materializer.store
        if segments[:1] in (["api"], ["apis"], ["clusters"], ["openapi"]):
            self._check_ready()
        request.cluster, segments = cluster_scope(segments, store.clusters)
        if not segments:
            self._only_get(request)
            return _json(request, {"paths": list(_PATHS)})
        first = segments[0]
        if len(segments) == 1 and first in (*_HEALTH, "metrics", "version"):
            # Probes may come by any method, as HEAD does from many a load balancer.
            if first == "version":
                self._only_get(request)
            return await self._probe(request, first)
        if len(segments) == 2 and first in _HEALTH and segments[1] == "ping" and request.cluster is None:
            return web.Response(text="ok")
        if segments == ["clusters"] and request.cluster is None:
            self._only_get(request)
            return _json(request, self.readiness.document())
        if first == "openapi" and (documents := self._openapi.of(store, request.cluster)) is not None:
            self._only_get(request)
            return await documents.answer(request.http, segments[1:])
        if first not in ("api", "apis"):
            if request.cluster is not None and self._forwarding is not None:
                with self._stalls.borne(request.http):
                    return await self._forwarding.forward(
                        request.http, request.cluster, segments, None, None, [], self._versions(request)
                    )
            raise no_such_path()
        if len(segments) <= (2 if first == "api" else 3):
            self._only_get(request)
            return self._discovery(request, segments)
        if (kind := review_kind(segments)) is not None and (request.cluster is None or self._forwarding is None):
            return await self._review(request, kind)
        target = resource_target(segments)
        return await self._resource(request, target, segments)

    def _only_get(self, request: _Request) -> None:
        method = request.http.method
        if method == "GET":
            return
        if request.cluster is not None:
            hint = "send it to the cluster's own API server (this instance was started without --forward)"
        elif self._forwarding is not None:
            hint = "objects of many clusters are read here; send it to /clusters/<cluster>, which passes it on"
        else:
            hint = "objects of many clusters are read here; send it to the cluster's own API server"
        raise ApiError(405, f"the server does not allow {method} on this path: {hint}")

    # -- what is not a resource --------------------------------------------------------------------------------------

    async def _probe(self, request: _Request, name: str) -> web.Response:
        if name == "metrics":
            text = self.metrics.text() if self.metrics.gather is None else await self.metrics.gather()
            return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
        if name == "version":
            self._negotiated(request, strict=False)
            return _json(request, server_version(self._materializer.store, request.cluster, self._version))
        if name == "readyz":
            ready = self.readiness.ready()
            verbose = not ready or "verbose" in request.http.query
            return web.Response(status=200 if ready else 503, text=self.readiness.report() if verbose else "ok")
        verbose = "verbose" in request.http.query
        return web.Response(text=f"[+]ping ok\n{name} check passed\n" if verbose else "ok")

    def _discovery(self, request: _Request, segments: list[str]) -> web.Response:
        catalogue = self._catalogues.of(self._materializer.store, request.cluster)
        name = "/".join(segments)
        aggregated = self._negotiated(request, aggregated=name in ("api", "apis")).aggregated
        found = catalogue.document(name, aggregated=aggregated)
        if found is None or self.readiness.blank(request.cluster):
            raise no_such_path()
        body, etag = found
        headers = {"ETag": etag, "Vary": "Accept", "Cache-Control": "no-cache, private"}
        if etag in request.http.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        response = answer(body, request.render, headers.items())
        if aggregated:
            # The parameters are what a client knows the form by.
            response.headers["Content-Type"] = aggregated_type(aggregated)
        return response

    @staticmethod
    def _negotiated(request: _Request, *, aggregated: bool = False, strict: bool = True) -> Document:
        """Raises ApiError 406."""
        document = negotiate_document(request.accept, aggregated=aggregated, strict=strict)
        request.render = rendering(request.http.headers, request.http.query, in_yaml=document.in_yaml)
        return document

    async def _review(self, request: _Request, kind: str) -> web.Response:
        if request.http.method != "POST":
            raise ApiError(405, f"the server does not allow {request.http.method} on this path: POST a {kind}")
        refuse_foreign_pages(request.http)
        self._negotiated(request)
        catalogue = self._catalogues.of(self._materializer.store, request.cluster)
        body = review(kind, request.http.content_type, await read_body(request.http), catalogue)
        return answer(body, request.render, request.headers(), status=201)

    # -- resources ---------------------------------------------------------------------------------------------------

    async def _resource(self, request: _Request, target: Target, segments: list[str]) -> web.StreamResponse:
        catalogue = self._catalogues.of(self._materializer.store, request.cluster)
        served = catalogue.find(target.group, target.version, target.resource)
        if served is not None:
            # Only what there is: a label's values must not be up to clients.
            request.resource = str(target.group_resource)
        if target.watch and request.http.method != "GET":
            raise ApiError(405, f"the server does not allow {request.http.method} on this path: it is for watches")
        if request.cluster is not None and self._forwarding is not None:
            method = request.http.method
            if method == "GET" and served is None and (missing := self.readiness.undiscovered(request.cluster)):
                # The cluster's versions would mean nothing here once the type is known.
                raise undiscovered(missing)
            if method != "GET" or served is None or target.subresource or self._beyond(request.cluster, target, served):
                # What streams is no object, and must not be held back.
                looked_into = None if target.subresource.partition("/")[0] in _STREAMS else target
                with self._stalls.borne(request.http):
                    return await self._forwarding.forward(
                        *(request.http, request.cluster, segments, looked_into, served),
                        *(request.warnings, self._versions(request)),
                    )
        if served is None or (target.namespace and not served.info.namespaced):
            raise no_such_path()
        if target.subresource:
            self._only_get(request)
            where = "the cluster's own API server" if self._forwarding is None else "/clusters/<cluster>"
            raise ApiError(405, f"{target.resource}/{target.subresource} is not served here; send it to {where}")
        if target.name and served.info.namespaced and not target.namespace:
            raise no_such_path()
        self._only_get(request)
        if target.name and not target.watch:
            request.watching = False
            self._warn(request, served, target.version, None)
            return await self._get(request, target, served)
        options = parse_options(request.http.query, watch=target.watch)
        request.watching = options.watch
        wanted = self._filter(request, target, served, options)
        self._warn(request, served, target.version, wanted.clusters)
        encoder = self._encoder(request, target, served, listing=True, watching=options.watch)
        if options.watch:
            return await self._watch(request, served, wanted, options, encoder)
        return await self._list(request, served, wanted, options, encoder, parse_search(request.http.query).seniority)

    def _beyond(self, cluster: str, target: Target, served: Served) -> bool:
        """Whether what is read may be in the cluster and not here, where not all of a type is synced."""
        if target.namespace and not served.info.covers(target.namespace):
            return True
        if not (served.info.selector and target.name) or target.watch:
            return False
        kind = self._materializer.store.types.get(served.info.group_resource)
        return kind is None or kind.get(cluster, ObjectName((target.namespace, target.name))) is None

    def _warn(self, request: _Request, served: Served, version: str, chosen: frozenset[str] | None) -> None:
        """Notes what the client should know of the clusters that its request is about; `chosen` None: all in scope."""
        store = self._materializer.store
        if (outage := self._materializer.outage()) is not None:
            self._warn_of_age(request, LogUnreachable(outage))
        scope = [request.cluster] if request.cluster is not None else list(served.stored)
        found = ((name, store.clusters.get(name)) for name in scope if chosen is None or name in chosen)
        stale = [
            (name, reason)
            for name, cluster in found
            if cluster is not None and (reason := self._stale(cluster, served)) is not None
        ]
        request.warnings += of_stale(stale)
        left_out = sorted(
            (name, stored)
            for name, stored in served.stored.items()
            if stored != version and (chosen is None or name in chosen)
        )
        if left_out:
            request.warnings.append(of_other_versions(version, left_out))

    @staticmethod
    def _warn_of_age(request: _Request, problem: LogUnreachable) -> None:
        if not request.old:
            request.old = True
            request.warnings.append(str(problem))

    def _stale(self, cluster: Cluster, served: Served) -> str | None:
        if (reason := self._materializer.stale(cluster)) is not None:
            return reason
        health = cluster.type_health.get(served.info.group_resource)
        return None if health is None or health.healthy else health.reason

    def _encoder(
        self, request: _Request, target: Target, served: Served, *, listing: bool, watching: bool = False
    ) -> Encoder:
        representation = negotiate(request.accept, listing=listing, streaming=watching)
        request.render = rendering(request.http.headers, request.http.query, in_yaml=representation.in_yaml)
        return Encoder(
            served.info,
            target.version,
            representation,
            self._versions(request),
            across=request.cluster is None,
            include=include_object(request.http.query.get("includeObject")),
        )

    def _versions(self, request: _Request) -> Named:
        prefix = self._materializer.store.prefix
        return Numbered(prefix) if request.numbered else Named(prefix)

    def _filter(self, request: _Request, target: Target, served: Served, options: Options) -> Filter:
        """Raises ApiError 400 for a selector that cannot be parsed."""
        selectable = selectable_fields(target.group_resource, served.info.selectable)

        def supported(label: str) -> bool:
            return label in METADATA_FIELDS or label in selectable

        try:
            labels = parse_labels(options.label_selector)
            fields = parse_fields(options.field_selector, supported, own=bool(selectable))
        except BadSelector as problem:
            raise ApiError(400, str(problem)) from None
        search = parse_search(request.http.query)
        if search.seniority and options.watch:
            raise ApiError(400, "ownerSeniority is for lists; watch the owners between, or by their labels")
        # Names and namespaces, wanted and not, by the field label that speaks of them.
        wanted: dict[str, frozenset[str] | None] = {
            # A watch of one object is one by its name (k8s.io/apiserver pkg/endpoints/handlers/get.go: forceWatch).
            "metadata.name": frozenset({target.name}) if target.name else search.names,
            "metadata.namespace": frozenset({target.namespace}) if target.namespace else search.namespaces,
        }
        unwanted: dict[str, frozenset[str]] = dict.fromkeys(wanted, frozenset())
        remaining = []
        for requirement in fields:
            values = frozenset(requirement.values)
            if requirement.key not in wanted:
                remaining.append(requirement)
            elif requirement.operator == "in":
                before = wanted[requirement.key]
                wanted[requirement.key] = values if before is None else before & values
            else:
                unwanted[requirement.key] |= values
        versions_differ = len(served.versions) > 1
        clusters = search.clusters if request.cluster is None else frozenset({request.cluster})
        return Filter(
            clusters=clusters,
            namespaces=wanted["metadata.namespace"],
            names=wanted["metadata.name"],
            not_namespaces=unwanted["metadata.namespace"],
            not_names=unwanted["metadata.name"],
            version=target.version if versions_differ else None,
            labels=labels,
            fields=tuple(remaining),
            since=search.since,
            before=search.before,
            controller_uids=frozenset({search.owner}) if search.owner else None,
        )

    async def _current(self, request: _Request) -> None:
        """A consistent read, or, with a warning, what is known while the log cannot be asked."""
        try:
            await self._materializer.wait_current()
        except LogUnreachable as problem:
            self._check_ready()
            self._warn_of_age(request, problem)
        self._check_ready()

    def _check_ready(self) -> None:
        """Raises ApiError 429 while the log is being replayed, which may begin anew while a request waits.

        Nobody is told of something missing while it may only not have been read yet.
        """
        if not self._materializer.ready.is_set():
            raise ApiError(429, "the log is being replayed: not ready yet", retry_after=1)

    async def _known(self, request: _Request, key: GroupResource, originals: Mapping[str, str]) -> None:
        """Waits until all that clusters had of a type at versions of theirs is here. Raises ApiError 410, 504."""
        store = self._materializer.store

        def behind() -> list[str]:
            return [
                cluster
                for cluster, version in originals.items()
                if version and cluster in store.clusters and newer(version, seen(store, key, cluster) or "0")
            ]

        for cluster, version in originals.items():
            if version and not numeric(version):
                raise expired(f"{version[:64]!r} is no resourceVersion of cluster {cluster[:64]}")
        await self._current(request)
        try:
            await self._materializer.wait_until(key, lambda: not behind(), _AHEAD_WAIT)
            self._check_ready()
        except NotThereYet:
            self._check_ready()
            for cluster in behind():
                known = seen(store, key, cluster) or "0"
                raise too_large_version(f"{originals[cluster]} of {cluster}", known) from None

    async def _at_least(self, request: _Request, text: str) -> int:
        """Waits for the index of a version to be here. Raises ApiError 410, 504."""
        index = version_of(text, self._versions(request)).index
        try:
            await self._materializer.wait_applied(index, _AHEAD_WAIT)
        except NotThereYet:
            self._check_ready()
            raise too_large_version(index, self._materializer.store.applied) from None
        self._check_ready()
        # The history may have become another one meanwhile.
        return version_of(text, self._versions(request)).index

    async def _get(self, request: _Request, target: Target, served: Served) -> web.Response:
        encoder = self._encoder(request, target, served, listing=False)
        version = request.http.query.get("resourceVersion", "")
        if not version:
            await self._current(request)
        elif (originals := originals_of(version)) is not None:
            await self._known(request, served.info.group_resource, originals)
        elif version != "0":
            await self._at_least(request, version)
        kind = self._materializer.store.types.get(target.group_resource)
        found: list[Entry] = []
        if kind is not None:
            scope = sorted(kind.clusters) if request.cluster is None else [request.cluster]
            key = ObjectName((target.namespace, target.name))
            entries = [entry for name in scope if (entry := kind.get(name, key)) is not None]
            found = [entry for entry in entries if entry.version == target.version]
        if not found:
            raise not_found(target.group, target.resource, target.name)
        if len(found) > 1:
            names = ", ".join(entry.cluster for entry in found)
            raise ApiError(
                400,
                f'please specify the cluster name: {target.resource} "{target.name}" is in {names}; '
                f"use /clusters/<cluster>",
            )
        body = encoder.one(found[0])
        if request.render.yaml and len(body) > LARGE_YAML:
            # Others go on meanwhile.
            return await asyncio.to_thread(answer, body, request.render, request.headers())
        return answer(body, request.render, request.headers())

    async def _list(
        self,
        request: _Request,
        served: Served,
        wanted: Filter,
        options: Options,
        encoder: Encoder,
        seniority: int,
    ) -> web.StreamResponse:
        """`seniority`: how many hops below the owner that is `wanted` the owners to ask for are."""
        exact: int | None = None
        if options.token or not options.version:
            await self._current(request)
        elif (originals := originals_of(options.version)) is not None:
            if options.match == "Exact":
                raise ApiError(400, "a list is exact at versions of this service only, not at those of the clusters")
            await self._known(request, served.info.group_resource, originals)
        elif options.version != "0":
            index = await self._at_least(request, options.version)
            if options.match == "Exact" or (options.limit and not options.match):
                exact = index
        store = self._materializer.store
        kind = store.types.get(served.info.group_resource)
        index = store.applied
        version = list_version(store.prefix, index)
        scope = (served.info.group_resource, wanted, seniority, self._materializer.generation)
        if seniority:
            assert wanted.controller_uids is not None
            [owner] = wanted.controller_uids
            wanted = dataclasses.replace(wanted, controller_uids=store.owned(owner, seniority, wanted.clusters))
        if exact is not None and exact != index:
            snapshot = self._snapshots.find(exact, scope)
            unchanged = kind is None or kind.order.last() <= exact
            if snapshot is None and not (
                unchanged and exact >= store.floor_of(served.info.group_resource, wanted.clusters)
            ):
                raise expired(f"The resourceVersion for the provided list is too old: {options.version[:128]}")
            found = snapshot.entries if snapshot is not None else None
            index, version = exact, list_version(store.prefix, exact)
        else:
            found = None

        def entries() -> list[Entry]:
            if found is not None:
                return found
            return [] if kind is None else kind.select(wanted)

        def lives(entry: Entry) -> bool:
            # Not the store of this moment: a list must not keep alive one that was replaced.
            now = self._materializer.store.types.get(served.info.group_resource)
            return now is not None and now.get(entry.cluster, entry.key) is entry

        owner = request.http.remote or ""
        page: Page
        if options.token:
            page = further_page(
                self._snapshots, entries, options, self._versions(request), version, scope, owner, lives
            )
        else:
            # "0" means any state, and its answer is whole (apiserver: limit is ignored there).
            unlimited = options.version == "0" and options.match != "NotOlderThan"
            limited = dataclasses.replace(options, limit=0) if unlimited else options
            page = first_page(self._snapshots, entries(), limited, version, index, scope, owner, lives)
        return await self._stream(request, page, encoder)

    async def _stream(self, request: _Request, page: Page, encoder: Encoder) -> web.StreamResponse:
        index = version_of(page.version, encoder.versions).index
        head = encoder.list_head(encoder.versions.of_list(index), page.token, page.remaining)
        size = encoder.size(page.entries)
        if size:
            size += len(page.entries) - 1

        def begun() -> None:
            request.begun = True

        items = (encoder.items(part) for part in slices(page.entries))
        return await send_list(
            *(request.http, request.render, request.headers(), head, items, size, begun), self._list_turns
        )

    async def _watch(
        self, request: _Request, served: Served, wanted: Filter, options: Options, encoder: Encoder
    ) -> web.StreamResponse:
        start: Resumption | None = None
        late: ApiError | None = None
        initial = options.version in ("", "0")
        if options.initial_events is not None:
            initial = options.initial_events
        originals = originals_of(options.version)
        key = served.info.group_resource
        try:
            if originals is not None:
                if initial:
                    await self._known(request, key, originals)
                else:
                    await self._current(request)
                    start = from_member_versions(self._materializer.store, key, wanted, originals)
            elif options.version not in ("", "0"):
                if initial:
                    # A present state at least as new as a forgotten one can be given.
                    await self._at_least(request, options.version)
                else:
                    start = from_version(
                        self._materializer.store, key, wanted, options.version, self._versions(request)
                    )
            elif options.version == "":
                await self._current(request)
        except Expired as problem:
            late = expired(str(problem))
        except ApiError as problem:
            if problem.code != 410:
                raise
            # As an event, which a kube-apiserver does too: some clients know an expired version by nothing else.
            late = problem
        if not initial and start is None:
            start = from_now(self._materializer.store, wanted)
        if late is None:
            watch = WatchRequest(
                key=key,
                wanted=wanted if start is None else start.wanted,
                encoder=encoder,
                start=start,
                bookmarks=options.bookmarks,
                mark_initial_end=bool(options.initial_events) and options.bookmarks,
                timeout=float(options.timeout) if options.timeout else None,
            )
        counted = self.metrics.watch_bytes

        async def serve(send: Send) -> None:
            if late is not None:
                await send(error_event(late))
                return

            async def counting(payload: bytes) -> None:
                counted.inc(len(payload))
                await send(payload)

            try:
                await self.watches.serve(watch, counting)
            except NotTaken as overdue:
                self._stalls.end(request.http)
                raise ConnectionResetError(str(overdue)) from None

        if is_websocket(request.http):
            refuse_foreign_pages(request.http)
            request.begun = True
            return await converse(request.http, request.headers(), serve)
        response = web.StreamResponse()
        response.content_type = _JSON
        response.headers["Cache-Control"] = "no-cache, private"
        for name, value in request.headers():
            response.headers.add(name, value)
        if request.http.version >= HttpVersion11:
            # To an HTTP/1.0 client the end of the connection is the end of the stream.
            response.enable_chunked_encoding()
        request.begun = True
        await response.prepare(request.http)
        try:
            await serve(response.write)
        except ConnectionError:
            return response
        await response.write_eof()
        return response


def host_name(host: str) -> str:
    """A Host header without its port."""
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _json(request: _Request, content: object) -> web.Response:
    return answer(msgspec.json.encode(content) + b"\n", request.render)
