"""The query service: routes HTTP requests to what answers them, and counts the answers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Set
from functools import partial

import structlog
from aiohttp import web

from deltalog.wire.kubernetes import GroupResource
from materializer.entry import object_key
from materializer.materializer import Materializer
from materializer.visible import EVERYTHING, Visible
from query.access.audit.events import HEADER as AUDIT_ID
from query.access.audit.events import NO_EVENT, AuditEvent, audit_id
from query.access.authorization.attributes import Attributes, attributes_of
from query.access.authorization.denied import forbidden
from query.access.gate import LEFT_OUT, REQUESTER, Caller, Denial, Permit
from query.discovery.access_reviews import ReviewKind, ReviewScope, is_review, review_kind
from query.discovery.catalogue import Catalogue, Catalogues, ServedType
from query.discovery.clusterpedia import GROUP, below_resources, collection_named
from query.discovery.endpoints import Discovery
from query.discovery.followed import Followed
from query.discovery.openapi import OpenApiByScope
from query.discovery.paths import SERVED_PATHS, RequestTarget, cluster_scope, no_such_cluster, resource_target, split
from query.discovery.readiness import Readiness, SeenObjects
from query.entrance import Entrance, lasts
from query.forward.bindings import pod_bound_by
from query.forward.forwarding import Forwarding, Upstreams
from query.http.accept import Form
from query.http.application import as_api_error, single_handler_application
from query.http.connections import SLOW_CLIENTS
from query.http.event_stream import send_events
from query.http.health import Check
from query.http.origins import ALLOWED_ORIGIN, refuse_foreign_hosts
from query.http.request import Request
from query.http.slow_clients import SlowClients
from query.http.status import ApiError, UnknownPath, no_such_path, unsettled
from query.http.warnings import of_passed_on
from query.http.websocket import Send
from query.metrics import ServiceMetrics
from query.objects.collections import Collections
from query.objects.consistency import Consistency
from query.objects.lists import Lists
from query.objects.options import asks_watch, parse_options
from query.objects.pages import DEFAULT_LIMITS, SnapshotLimits
from query.objects.reads import Reads
from query.objects.representations import encoder_for
from query.objects.requests import CollectionRequest, SeenOwners, limited
from query.objects.selection import selection_of
from query.objects.versions import check_foreign, seen_versions_of, versions_for
from query.objects.watch import ClientStalled
from query.objects.watches import Watches
from query.search.collections import COLLECTIONS, ResourceCollection
from query.search.labels import PREFIX
from query.search.terms import asked_of, asks_events, asks_forward, parse_search, without_labels
from query.timing import DEFAULT_TIMING, QueryTiming

log = structlog.get_logger("query")

_HEALTH = ("healthz", "livez", "readyz")
# Methods that metrics tell apart: a client may send any word.
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
# Of a request: what is noted of it.
_EVENT = web.RequestKey("EVENT", AuditEvent)
# What is answered here below /clusters/<cluster>, beside resources, and not passed on.
_FROM_MEMORY = frozenset({"api", "apis", "openapi", "version", *_HEALTH})
# Subresources that are streams between a client and a container.
_STREAMS = frozenset({"attach", "exec", "log", "portforward", "proxy"})


class QueryService:
    """Answers the Kubernetes API from one materializer.

    - `version`: this service's own. `expected`: names of clusters that must have been listed before /readyz is 200.
    - `hosts`: host names that requests may be addressed to, None for any, see `query.http.origins`.
    - `upstreams`: where requests for one cluster are passed on to; None: they are not.
    - `not_ready_after`: seconds without contact to the log after which /readyz is 503, 0: never. `others`: what
      /readyz says of other parts of the process.
    - `timing`, `limits`: how long it waits for what, and how much it keeps for lists that are read in pages.
    - `collections`: those that there are, by name; None: the usual ones.
    - `entrance`: who asks, what they may see and how much at once; None: everyone everything.
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
        others: Callable[[], Iterable[Check]] = tuple,
        timing: QueryTiming = DEFAULT_TIMING,
        limits: SnapshotLimits = DEFAULT_LIMITS,
        entrance: Entrance | None = None,
        collections: Mapping[str, ResourceCollection] | None = None,
    ) -> None:
        self._materializer = materializer
        self._entrance = Entrance() if entrance is None else entrance
        self._gate = self._entrance.gate
        self._hosts = hosts
        self._consistency = Consistency(materializer, timing)
        self.readiness = Readiness(materializer, expected, not_ready_after, others)
        catalogues = Catalogues(lambda cluster: upstreams is not None and upstreams.has(cluster))
        self._discovery = Discovery(materializer, catalogues, self.readiness, version)
        self._openapi = OpenApiByScope()
        # Long work of all requests takes turns.
        turns = asyncio.Lock()
        self._reads = Reads(materializer, self._consistency, turns)
        self._lists = Lists(materializer, self._consistency, timing, limits, self._entrance.limits, turns)
        self.watches = Watches(materializer, self._consistency, timing, turns)
        self._forwarding = None
        if upstreams is not None:
            self._forwarding = Forwarding(upstreams, materializer, timing, self._entrance.consumed)
        self._collections = Collections(
            materializer,
            self._gate,
            self._discovery,
            self._consistency,
            self._lists,
            COLLECTIONS if collections is None else collections,
            self._owners,
            self._watch_with,
        )
        self.metrics = ServiceMetrics(materializer, self.watches, self._lists.frozen)
        self._slow_clients = SlowClients(self.metrics.stalls, timing.client_patience, timing.client_look_every)

    def application(self) -> web.Application:
        """The aiohttp application that serves everything."""
        application = single_handler_application(self._handle)
        application[SLOW_CLIENTS] = self._slow_clients
        application.on_response_prepare.append(self._prepare)
        application.on_cleanup.append(self._end)
        return application

    async def _prepare(self, http: web.Request, response: web.StreamResponse) -> None:
        """What all answers have, before their heads are sent."""
        self._entrance.cors.allow(http, response)
        # Which versions of what answer is nobody's business.
        response.headers["Server"] = "kubebraid"
        if self._entrance.audit is not None:
            response.headers[AUDIT_ID] = audit_id(http)
            http.get(_EVENT, NO_EVENT).started(response.status)

    async def _end(self, _: web.Application) -> None:
        if self._forwarding is not None:
            await self._forwarding.close()

    async def wait_ready(self) -> None:
        """Returns once /readyz is 200."""
        while not self.readiness.ready():
            await self._materializer.wait_control()

    def close(self) -> None:
        """Ends the watches; other answers go on to their end."""
        self.watches.close()
        self._lists.close()

    # -- the outermost layer -----------------------------------------------------------------------------------------

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        """Routes a request, answers with a Status where that fails, and counts the answer."""
        started = time.monotonic()
        if (preflight := self._entrance.cors.preflight(http)) is not None:
            return preflight
        http[ALLOWED_ORIGIN] = self._entrance.cors.allows(http)
        request = Request(http, watching=asks_watch(http.query))
        code, message = 500, ""
        try:
            response = await self._enter(request)
            code = response.status
        except ApiError as error:
            if isinstance(error, UnknownPath) and (why := self.readiness.unsettled(request.cluster, request.visible)):
                error = unsettled(why)
            code, message = error.code, error.message
            response = request.failure(error)
        except web.HTTPException as problem:
            # Raised before an answer has begun.
            code = problem.status
            response = request.failure(as_api_error(problem))
        except (ConnectionError, asyncio.CancelledError):
            code = 499
            raise
        except Exception:
            log.exception("request failed", method=http.method, path=http.rel_url.path)
            http.get(_EVENT, NO_EVENT).panicked("kubebraid failed on this request")
            http[_EVENT] = NO_EVENT
            if request.begun:
                raise
            response = request.failure(ApiError(500, "kubebraid failed on this request; its log has the reason"))
        finally:
            verb = "watch" if request.watching else http.method.lower() if http.method in _METHODS else "other"
            self.metrics.requests.labels(verb, request.resource, str(code)).inc()
            if not request.watching:
                self.metrics.seconds.labels(verb).observe(time.monotonic() - started)
            http.get(_EVENT, NO_EVENT).complete(code, message)
        return response

    async def _enter(self, request: Request) -> web.StreamResponse:
        """Finds out who asks, and what they may see, before anything is looked for."""
        http = request.http
        if not self._gate.open:
            # Also errors before it is known who asks may tell of clusters.
            request.visible = Visible()
        refuse_foreign_hosts(http, self._hosts)
        segments = split(http.rel_url.raw_path)
        if len(segments) == 1 and segments[0] in _HEALTH and "verbose" not in http.query:
            # For probes, which have no credentials (k8s.io/apiserver pkg/server/options/authorization.go).
            return self._health(segments[0], verbose=False, seen=EVERYTHING if self._gate.open else Visible())
        if segments[:1] == ["int"]:
            request.numbered, segments = True, segments[1:]
        if (below := below_resources(segments)) is not None:
            # In all that follows it is the request that it stands for.
            request.below_resources, segments = True, below
        else:
            request.collection = collection_named(segments)
        path = segments
        named, segments = self._named(path)
        what = self._attributes(request, segments)
        caller = await self._caller(http, named, what)
        request.who = caller.who
        request.warnings += caller.warnings
        if named is not None or segments[:1] in (["api"], ["apis"], ["clusters"], ["openapi"]):
            self._consistency.check_ready()
        hidden: set[str] = set()
        while named is not None and "/" in named and await self._is_hidden(request, named, what, hidden):
            hidden.add(named)
            named, segments = self._named(path, hidden)
            what = self._attributes(request, segments)
        if named is not None:
            await self._enter_cluster(request, named, what)
        with self._entrance.limits.admit(request.who, what.verb, lasts(what)):
            if request.cluster is None:
                refusal = await self._look_around(request, what)
            else:
                refusal = await self._gate.refusal(request.who, request.cluster, what)
            try:
                return await self._route(request, segments, what, refusal)
            except ApiError as problem:
                if refusal is None or problem.code not in (503, 504) or await self._knows_cluster(request):
                    raise
                # That it cannot be reached would tell that it is there.
                raise refusal.error from None

    async def _knows_cluster(self, request: Request) -> bool:
        """Whether who asks may know that their request's cluster exists."""
        known = await self._gate.discoverable(request.who)
        return known.whole or request.cluster in known.clusters

    async def _caller(self, http: web.Request, cluster: str | None, what: Attributes) -> Caller:
        """Who asks; the request is noted from here on. Raises ApiError 400, 401, 403."""
        audit = self._entrance.audit
        try:
            caller = await self._gate.caller(http, cluster, what)
        except ApiError as refused:
            if audit is not None and refused.code == 401:
                audit.unauthenticated(http, what, cluster=cluster)
            elif audit is not None and (who := http.get(REQUESTER)) is not None:
                # In whose name they may not ask; it comes to no answer that would last.
                http[_EVENT] = audit.begin(http, who, None, what, cluster=cluster)
            raise
        if audit is not None:
            http[_EVENT] = audit.begin(
                http,
                caller.who,
                caller.impersonator,
                what,
                cluster=cluster,
                lasting=lasts(what),
                constraint=caller.constraint,
            )
        return caller

    def _named(self, segments: list[str], hidden: Set[str] = frozenset()) -> tuple[str | None, list[str]]:
        """The cluster that a path names, whether it exists or not, and the path within. `hidden`: as if not there."""
        if segments[:1] != ["clusters"] or len(segments) == 1:
            return None, segments
        try:
            # Also by those that are about to come: a longer name of theirs is not to be taken for a shorter one's path.
            return cluster_scope(segments, self.readiness.names() - hidden)
        except UnknownPath:
            return segments[1], segments[2:]

    async def _is_hidden(self, request: Request, cluster: str, what: Attributes, hidden: Set[str]) -> bool:
        """Whether a cluster that there is, is to be as if it were not for who asks.

        The slashes of its name must not part paths otherwise than if there were none: errors say what lies within.
        """
        if self._gate.open or cluster in hidden or cluster not in self.readiness.names():
            return False
        refusal = await self._gate.refusal(request.who, cluster, what)
        if refusal is None or (not refusal.final and self._forwarding is not None and self._forwarding.as_caller):
            return False
        seen = await self._gate.discoverable(request.who)
        return not seen.whole and cluster not in seen.clusters

    async def _enter_cluster(self, request: Request, cluster: str, what: Attributes) -> None:
        """Notes the cluster that a request is for. Raises ApiError 403, 404, for one that there is not."""
        if cluster in self._materializer.store.clusters:
            request.cluster = cluster
            if not self._gate.open:
                # What is told of this process, as /readyz does, is what concerns this cluster.
                request.visible = Visible(clusters={cluster: None})
            return
        # To who may see nothing of it, one that does not exist is like one that does.
        refusal = await self._gate.refusal(request.who, cluster, what)
        request.visible = await self._gate.discoverable(request.who)
        if refusal is not None:
            raise refusal.error
        seen = self._materializer.store.clusters.keys() if request.visible.whole else request.visible.clusters
        raise no_such_cluster(cluster, seen)

    async def _look_around(self, request: Request, what: Attributes) -> Denial | None:
        """Notes what may be seen of all clusters; why a request for them may not be answered."""
        gate, who = self._gate, request.who
        if gate.open:
            return None
        if request.collection is not None:
            # What of each type may be seen is decided with the types.
            request.visible = await gate.discoverable(who)
            return await gate.refusal(who, None, Attributes(request.method.lower(), path=f"/apis/{GROUP}"))
        if not what.is_resource or (what.verb == "create" and is_review(what.group, what.resource)):
            request.visible = await gate.discoverable(who)
            return await gate.refusal(who, None, what)
        request.visible = await gate.visible(who, what)
        if request.visible.undecided:
            request.warnings.append(LEFT_OUT)
        if not request.visible.empty:
            return None
        return Denial(forbidden(who, what, LEFT_OUT if request.visible.undecided else ""), True)

    async def _route(
        self, request: Request, segments: list[str], what: Attributes, refusal: Denial | None
    ) -> web.StreamResponse:
        """Answers what may be asked. What may not, may still be what a cluster itself decides (`refusal` not final)."""
        if (event := request.http.get(_EVENT)) is not None:
            event.annotate("authorization.k8s.io/decision", "allow" if refusal is None else "forbid")
        if refusal is not None and (refusal.final or not self._member_decides(request)):
            raise refusal.error
        if request.collection is not None:
            self._only_get(request)
            return await self._collections.answer(request, request.collection)
        if segments[:1] in (["api"], ["apis"]) and len(segments) > (2 if segments[0] == "api" else 3):
            review = review_kind(segments)
            if review is not None and (not self._member_decides(request) or self._known_here(review)):
                writable = request.cluster is not None and self._forwarding is not None
                scope = ReviewScope(request.who, request.cluster, self._gate, writable)
                return await self._discovery.review(request, review, scope)
            return await self._route_resource(request, resource_target(segments), segments, what, refusal)
        if refusal is not None:
            if segments[:1] and segments[0] not in _FROM_MEMORY:
                return await self._forward(request, segments, None, None)
            raise refusal.error
        if not segments:
            self._only_get(request)
            return request.document({"paths": SERVED_PATHS})
        if segments[0] in ("api", "apis"):
            self._only_get(request)
            return self._discovery.document(request, segments)
        return await self._route_other(request, segments)

    def _known_here(self, review: ReviewKind) -> bool:
        """Whether a review is of who asks: that is decided here, as it is for what they read."""
        return not self._gate.open and review.kind.startswith("Self")

    @staticmethod
    def _attributes(request: Request, segments: list[str]) -> Attributes:
        ends = request.http.rel_url.raw_path.endswith("/")
        what = attributes_of(request.method, segments, request.http.query, trailing_slash=ends)
        if request.collection and request.watching and what.verb == "get":
            # To a kube-apiserver a watch of one object by its name is no watch; here it lasts like one.
            what = dataclasses.replace(what, verb="watch")
        return what

    def _member_decides(self, request: Request) -> bool:
        """Whether requests for its cluster are passed on as of who asks, so that the cluster decides about them."""
        return request.cluster is not None and self._forwarding is not None and self._forwarding.as_caller

    def _health(self, name: str, *, verbose: bool, seen: Visible, objects: SeenObjects | None = None) -> web.Response:
        # Probes may come by any method, as HEAD does from many a load balancer.
        status, text = self.readiness.probe(name, verbose=verbose, seen=seen, objects=objects)
        return web.Response(status=status, text=text)

    async def _route_other(self, request: Request, segments: list[str]) -> web.StreamResponse:
        """What is not below /api and /apis."""
        first, verbose = segments[0], "verbose" in request.http.query
        if len(segments) == 1 and first in _HEALTH:
            objects = await self._seen_objects(request) if verbose else None
            return self._health(first, verbose=verbose, seen=request.visible, objects=objects)
        if segments == ["metrics"] and (request.cluster is None or self._gate.open):
            return await self.metrics.answer()
        if segments == ["version"]:
            self._only_get(request)
            return self._discovery.version(request)
        if len(segments) == 2 and first in _HEALTH and segments[1] == "ping" and request.cluster is None:
            return web.Response(text="ok")
        if segments == ["clusters"] and request.cluster is None:
            self._only_get(request)
            return request.document(self.readiness.document(request.visible, await self._seen_objects(request)))
        if first == "openapi":
            generation, store = self._materializer.generation, self._materializer.store
            among = request.visible.scope[0]
            own = request.cluster is None and not request.below_resources
            if (documents := self._openapi.of(generation, store, request.cluster, among, own=own)) is not None:
                self._only_get(request)
                return await documents.answer(request.http, segments[1:])
        if request.cluster is None or self._forwarding is None:
            raise no_such_path()
        return await self._forward(request, segments, None, None)

    def _only_get(self, request: Request) -> None:
        """Raises ApiError 405, with a hint where the request may be sent instead."""
        if request.method == "GET":
            return
        if request.cluster is not None:
            hint = "send it to the cluster's own API server (this instance was started without --forward)"
        elif self._forwarding is not None:
            hint = (
                "objects of many clusters are read here; send it to /clusters/<cluster>, which passes it on "
                f"(kubectl --server {request.server_below('')}<cluster> ...)"
            )
        else:
            hint = "objects of many clusters are read here; send it to the cluster's own API server"
        raise ApiError(405, f"the server does not allow {request.method} on this path: {hint}")

    # -- resources ---------------------------------------------------------------------------------------------------

    async def _route_resource(
        self,
        request: Request,
        target: RequestTarget,
        segments: list[str],
        what: Attributes,
        refusal: Denial | None,
    ) -> web.StreamResponse:
        catalogue = self._discovery.catalogue(request)
        served = catalogue.find(target.group, target.version, target.resource)
        if served is not None:
            # Only types that exist: the values of a metric's label must not be up to clients.
            request.resource = served.title
        if target.watch and request.method != "GET":
            raise ApiError(405, f"the server does not allow {request.method} on this path: it is for watches")
        if request.method == "GET" and asks_forward(request.http.query, request.http.headers):
            return await self._pass_live(request, segments, target, what, refusal)
        if request.method != "GET" and not target.name and (searched := asked_of(request.http.query)):
            # The cluster would ignore them: a DELETE would take all that a GET with the same parameters does not show.
            raise ApiError(400, f"{', '.join(searched)}: {request.method} knows no searches, only GET does")
        if request.cluster is not None and self._forwarding is not None:
            if request.method == "GET" and served is None and (why := self.readiness.unsettled(request.cluster)):
                # The cluster's versions would mean nothing here once the type is known.
                raise unsettled(why)
            if (
                request.method != "GET"
                or served is None
                or target.subresource
                or self._may_be_unsynced(request.cluster, target, served)
            ):
                if refusal is not None and request.method != "GET":
                    # Nothing of what is here may be told by how it is passed on.
                    return await self._forward(request, segments, None, None)
                if served is None and (bound := await pod_bound_by(request.http, target, catalogue)) is not None:
                    return await self._forward(request, segments, *bound)
                if request.method == "GET" and not target.subresource:
                    return await self._pass_read_on(request, segments, target, catalogue, what, refusal)
                return await self._forward(request, segments, target, served)
        if refusal is not None:
            raise refusal.error
        if served is None and request.cluster is None and self._forwarding is not None:
            raise no_such_path(
                "; what no cluster syncs, such as events and secrets, is read below /clusters/<cluster> "
                f"(kubectl --server {request.server_below('')}<cluster> ...)"
            )
        if served is None or (target.namespace and not served.fits(target.namespace, "")):
            raise no_such_path()
        if target.subresource:
            self._only_get(request)
            where = "the cluster's own API server" if self._forwarding is None else "/clusters/<cluster>"
            raise ApiError(405, f"{target.resource}/{target.subresource} is not served here; send it to {where}")
        if not served.fits(target.namespace, target.name):
            raise no_such_path()
        if request.method != "GET":
            self._only_get(request)
        if target.name and not target.watch:
            request.watching = False
            self._consistency.warn(request, served, target.version, None)
            seen = partial(self._owners, request) if asks_events(request.http.query) else None
            return await self._reads.answer(request, target, served, seen)
        request.watching = request.watching or target.watch
        asked = await self._collection(request, target, served)
        return await (self._watch(request, asked, what) if request.watching else self._lists.answer(request, asked))

    async def _collection(self, request: Request, target: RequestTarget, served: ServedType) -> CollectionRequest:
        """What a LIST or WATCH asks. Raises ApiError 400, 406, 422."""
        query = request.http.query
        options = parse_options(query, watch=request.watching)
        search = parse_search(query)
        options, search = limited(options, search)
        selection = selection_of(target, served, options, search, request.cluster, request.visible)
        # Errors from here on have these warnings, too.
        self._consistency.warn(request, served, target.version, selection.clusters)
        representation = request.accept.objects(listing=True, streaming=options.watch)
        if search.only_metadata and representation.form is Form.OBJECT:
            representation = dataclasses.replace(representation, form=Form.METADATA)
        request.in_yaml = representation.in_yaml
        versions = versions_for(self._materializer, request)
        return CollectionRequest(
            key=served.resource,
            options=options,
            member_versions=seen_versions_of(options.version, request) if options.version not in ("", "0") else None,
            search=search,
            selection=selection,
            encoder=encoder_for(request, target, served, representation, versions, ordered=bool(search.order)),
            followed=Followed(
                partial(self._discovery.served, request.cluster, served.resource, request.visible.scope[0]),
                target.version,
            ),
            owners=await self._owners(request) if search.sees_others else None,
        )

    async def _owners(self, request: Request) -> SeenOwners | None:
        """Which owners may be seen on the way from an object to what it controls; None: all."""
        seen = await self._seen_objects(request)
        return None if seen is None else SeenOwners(seen)

    async def _seen_objects(self, request: Request) -> SeenObjects | None:
        """What may be seen of each type; None: everything."""
        if self._gate.open or request.who.masters:
            return None
        store = self._materializer.store
        seen: dict[GroupResource, Visible] = {}
        for key in {*store.types, *(key for cluster in store.clusters.values() for key in cluster.types)}:
            what = Attributes("list", group=key.group, resource=key.resource)
            if request.cluster is None:
                seen[key] = await self._gate.visible(request.who, what)
            elif await self._gate.refusal(request.who, request.cluster, what) is None:
                seen[key] = EVERYTHING
        return seen

    async def _watch(self, request: Request, asked: CollectionRequest, what: Attributes) -> web.StreamResponse:
        with self._gate.watching(request.who, request.cluster, what, request.visible) as permit:
            return await self._watch_with(request, asked, permit)

    async def _watch_with(self, request: Request, asked: CollectionRequest, permit: Permit) -> web.StreamResponse:
        start = await self.watches.begin(request, asked, permit)
        count = self.metrics.watch_bytes.inc

        async def serve(send: Send) -> None:
            async def counting(payload: bytes) -> None:
                count(len(payload))
                await send(payload)

            try:
                await self.watches.serve(start, counting)
            except ClientStalled as overdue:
                self._slow_clients.end(request.http)
                raise ConnectionResetError(str(overdue)) from None

        return await send_events(request, serve)

    # -- forwarding --------------------------------------------------------------------------------------------------

    async def _pass_read_on(
        self,
        request: Request,
        segments: list[str],
        target: RequestTarget,
        catalogue: Catalogue,
        what: Attributes,
        refusal: Denial | None,
    ) -> web.StreamResponse:
        """A GET, LIST or WATCH of what is not in memory, as the cluster answers it. A watch ends once memory has it.

        Raises:
            ApiError: 410, its version is one of this service, which the cluster would refuse for ever; as `_forward`.
        """
        cluster = request.cluster
        assert cluster is not None
        check_foreign(request.http.query.get("resourceVersion", ""), cluster)
        if (asked := asked_of(request.http.query)) and not (target.name and not target.watch):
            # It would ignore them, or select by labels that nothing has.
            raise ApiError(
                400,
                f"{', '.join(asked)}: {target.group_resource} are not synced here, and {cluster}, which answers this "
                "itself, knows no searches",
            )
        if catalogue.watchable(target.group, target.version, target.resource):
            request.warnings.append(of_passed_on(cluster, str(target.group_resource)))
        if not (target.watch or (request.watching and not target.name)):
            return await self._forward(request, segments, target, None)
        served_here = asyncio.Event()

        def look() -> None:
            served = self._discovery.served(cluster, target.group_resource)
            here = served is not None and target.version in served.versions
            if served is not None and here and not self._may_be_unsynced(cluster, target, served):
                served_here.set()

        with contextlib.ExitStack() as stack:
            stack.callback(self._materializer.listen(target.group_resource, look))
            if refusal is None:
                permit = stack.enter_context(self._gate.watching(request.who, cluster, what, EVERYTHING))
                permit.on_end = served_here.set
                look()
            # Else memory will not answer it either, and the cluster decides.
            return await self._forward(request, segments, target, None, served_here)

    async def _pass_live(
        self, request: Request, segments: list[str], target: RequestTarget, what: Attributes, refusal: Denial | None
    ) -> web.StreamResponse:
        """A read that asks to be answered by the cluster itself, though it may be in memory.

        Raises:
            ApiError: 400, it names no one cluster, or searches, which a cluster cannot; 403; 410, its version is one of
                this service; as `_forward`.
        """
        cluster, http = request.cluster, request.http
        if cluster is None:
            raise ApiError(400, "only what is asked of one cluster is passed on: ask /clusters/<cluster>")
        if self._forwarding is None:
            if refusal is not None:
                raise refusal.error
            raise ApiError(400, f"nothing is passed on to {cluster}: this instance was started without --forward")
        if target.subresource:
            return await self._forward(request, segments, target, None)
        check_foreign(http.query.get("resourceVersion", ""), cluster)
        if asked := [one for one in asked_of(http.query) if one != f"{PREFIX}forward"]:
            raise ApiError(400, f"{', '.join(asked)}: {cluster}, which answers this itself, knows no searches")
        query = without_labels(http.rel_url.raw_query_string)
        if refusal is not None or not (target.watch or (request.watching and not target.name)):
            return await self._forward(request, segments, target, None, query=query)
        ended = asyncio.Event()
        with self._gate.watching(request.who, cluster, what, EVERYTHING) as permit:
            permit.on_end = ended.set
            return await self._forward(request, segments, target, None, ended, query)

    async def _forward(
        self,
        request: Request,
        segments: list[str],
        target: RequestTarget | None,
        served: ServedType | None,
        until: asyncio.Event | None = None,
        query: str | None = None,
    ) -> web.StreamResponse:
        """The cluster's own answer; its client may take as long as it wants, as one that follows a log does."""
        assert self._forwarding is not None
        if target is not None and target.subresource.partition("/")[0] in _STREAMS:
            # A stream is no object, and must not be held back.
            target = None
        versions = versions_for(self._materializer, request)
        with self._slow_clients.tolerated(request.http):
            return await self._forwarding.forward(request, segments, target, served, versions, until, query)

    def _may_be_unsynced(self, cluster: str, target: RequestTarget, served: ServedType) -> bool:
        """Whether what is read may be in the cluster and not here, where not all of a type is synced."""
        if target.namespace and not served.info.scope.covers(target.namespace):
            return True
        if not (served.info.selector and target.name) or target.watch:
            return False
        type_store = self._materializer.store.types.get(served.resource)
        return type_store is None or type_store.get(cluster, object_key(target.namespace, target.name)) is None
