r"""The router: one address for several groups of serving instances, each with the types or clusters of its own log.

A request goes to the group that has what it names, as the groups themselves say \(`/clusters`\). What is about all
types, discovery above all, is merged from all groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec
import structlog
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deltalog.wire.kubernetes import GroupResource
from kubebraid.route.callers import ProxiedCallers
from kubebraid.route.collections import GroupCollections
from kubebraid.route.documents import GroupDocuments, InstanceAnswer, NotAnswered, decoded, instance_documents
from kubebraid.route.groups import CONNECT_PATIENCE, NOT_YET, Group, Groups, Instance, clusters_having, merged_documents
from kubebraid.route.instance_tls import InstanceTls
from kubebraid.route.merging import merge, merge_rules
from kubebraid.route.request import RoutedRequest
from query.discovery.access_reviews import review_kind
from query.discovery.catalogue import aggregated_type
from query.discovery.clusterpedia import below_resources, collection_named
from query.discovery.paths import (
    SERVED_PATHS,
    cluster_scope,
    no_such_cluster,
    resource_target,
    split,
)
from query.http.application import as_api_error, single_handler_application
from query.http.cors import Cors
from query.http.health import Check, failed, report
from query.http.health import ready as all_ready
from query.http.origins import ALLOWED_ORIGIN, refuse_foreign_hosts, refuse_foreign_pages
from query.http.passthrough import (
    BrokenAnswer,
    NoAnswer,
    PassThrough,
    Upstream,
    UpstreamUnreachable,
    begin_response,
    break_off,
    read_body,
    stream_response,
)
from query.http.rendering import answer
from query.http.status import ApiError, UnknownPath, no_such_path
from query.http.tunnels import BrokenTunnel, wants_upgrade

log = structlog.get_logger("kubebraid.route.router")

_PROBES = ("livez", "healthz", "readyz")


class _Collector(Collector):
    def __init__(self, groups: Iterable[Group]) -> None:
        self._groups = groups

    def collect(self) -> Iterable[Metric]:
        ready = GaugeMetricFamily(
            "kubebraid_router_instance_ready", "1 if an instance is asked", labels=("group", "instance")
        )
        for group in self._groups:
            for one in group.instances:
                ready.add_metric((group.name, one.url), 1.0 if one.why_not_ready is None else 0.0)
        yield ready


class Router:
    """Answers requests from groups, given as their URLs by name.

    - `hosts`: as for `QueryService`. `cors`: which pages may use it.
    - `tls`: how instances are connected to. With a certificate of the router's own they are taken for guarded: what
      they let a caller have is the caller's alone, and nobody else is told what there is, or where.
    - `callers`: finds out who asks, as far as that ends here.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[str]],
        *,
        hosts: frozenset[str] | None = None,
        tls: InstanceTls | None = None,
        callers: ProxiedCallers | None = None,
        cors: Cors | None = None,
    ) -> None:
        self._hosts = hosts
        self._cors = cors or Cors()
        self._callers = callers or ProxiedCallers()
        self._guarded = tls is not None and tls.identified
        self._pass_through = PassThrough(CONNECT_PATIENCE)
        self.groups = Groups(groups, self._pass_through, tls, self._callers.itself)
        self._documents = GroupDocuments(self.groups, self._pass_through, guarded=self._guarded)
        self._collections = GroupCollections(self.groups, self._documents, guarded=self._guarded)
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "kubebraid_router_requests_total", "Requests passed on", ("group", "code"), registry=self.registry
        )
        self.registry.register(_Collector(self.groups))

    def application(self) -> web.Application:
        """The aiohttp application that serves everything."""
        application = single_handler_application(self._handle)
        application.on_response_prepare.append(self._allow_origin)
        return application

    async def run(self) -> None:
        """Looks after the instances until cancelled."""
        await self.groups.run()

    async def first_looks(self) -> None:
        """Returns when all instances have been looked at once, or that takes too long."""
        await self.groups.first_looks()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Has connections to instances while the block lasts."""
        try:
            yield
        finally:
            await self._pass_through.close()

    async def _allow_origin(self, http: web.Request, response: web.StreamResponse) -> None:
        self._cors.allow(http, response)

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        if (preflight := self._cors.preflight(http)) is not None:
            return preflight
        http[ALLOWED_ORIGIN] = self._cors.allows(http)
        request = RoutedRequest(http)
        try:
            return await self._route(request)
        except (ApiError, web.HTTPException) as problem:
            return request.failure(as_api_error(problem) if isinstance(problem, web.HTTPException) else problem)

    async def _route(self, request: RoutedRequest) -> web.StreamResponse:
        http = request.http
        refuse_foreign_hosts(http, self._hosts)
        segments = split(http.rel_url.raw_path)
        if len(segments) == 1 and segments[0] in _PROBES and "verbose" not in http.query:
            # For probes, which have no credentials.
            return self._probe(request, segments[0])
        request.caller = await self._callers.of(http)
        if segments[:1] == ["int"]:
            segments = segments[1:]
        elif len(segments) <= 1 or segments == ["clusters"]:
            own = await self._own(request, segments)
            if own is not None:
                return own
        collection = collection_named(segments)
        segments = segments if (below := below_resources(segments)) is None else below
        clusters = self.groups.clusters()
        unseen = self.groups.unseen()
        if segments[:1] == ["clusters"] and segments[1:] and not _is_known(segments, clusters):
            return await self._unknown_cluster(request, segments, unseen)
        cluster, rest = cluster_scope(segments, clusters)
        groups = list(self.groups) if cluster is None else self.groups.having(cluster)
        if collection is not None and len(groups) > 1 and http.method in ("GET", "HEAD"):
            return await self._pass_collection(request, collection)
        if not rest or rest[0] in ("version", "clusters"):
            return await self._pass(request, groups)
        if rest[0] == "openapi":
            if rest[1:] == ["v3"]:
                return await self._merged(request, groups)
            return await self._pass(request, groups, unless=frozenset({404}))
        if rest[0] not in ("api", "apis"):
            if cluster is None and not self._guarded:
                raise no_such_path()
            return await self._pass(request, groups)
        if len(rest) <= (2 if rest[0] == "api" else 3):
            return await self._merged(request, groups, aggregated=len(rest) == 1)
        if review_kind(rest) is not None:
            return await self._review(request, groups)
        return await self._pass_resource(request, cluster, rest, groups, unseen)

    async def _pass_collection(self, request: RoutedRequest, name: str) -> web.StreamResponse:
        """A collection from the group that has it; "": the list of them."""
        if not name and "watch" not in request.http.query:
            return await self._collections.listed(request)
        if not name:
            # An instance says what may be watched.
            return await self._pass(request, list(self.groups))
        found = await self._collections.group_of(request, name)
        return await self._pass(request, [found]) if isinstance(found, Group) else found

    async def _pass_resource(
        self,
        request: RoutedRequest,
        cluster: str | None,
        rest: list[str],
        groups: list[Group],
        unseen: list[Group],
    ) -> web.StreamResponse:
        """Objects of a type: from the group that has it."""
        resource = str(resource_target(rest).group_resource)
        having = self.groups.having(cluster, resource)
        if not having:
            # One that knows the cluster answers for a type that is not served.
            having = groups[:1]
            if unseen:
                unknown = self._not_known(unseen)
                if not self._guarded:
                    raise unknown
                # Whoever may not know what there is gets no other answer than from an instance.
                return await self._pass(request, having, unless=frozenset({404}), otherwise=partial(_at_once, unknown))
        elif len(having) > 1 and cluster is None:
            having = await self._one_group(request, resource, having)
        return await self._pass(request, having[:1])

    async def _one_group(self, request: RoutedRequest, resource: str, having: list[Group]) -> list[Group]:
        """The group that is asked for a type that several have. Raises ApiError 400, and what a refusal is."""
        if (whole := self.groups.whole(resource)) is not None:
            return [whole]
        if not self._guarded:
            names = ", ".join(group.name for group in having)
            raise ApiError(
                400,
                f"{resource} are in several groups, by cluster ({names}), which have no version in common: "
                "ask /clusters/<cluster>",
            )
        answers = await self._documents.clusters(self.groups, request.caller, request.place, request.forwarded)
        seen = [group for group, said in instance_documents(answers) if clusters_having(said, None, resource)]
        if len(seen) <= 1:
            # What may be seen of it is all in one; of what may not be, an instance says so.
            return seen or having
        raise ApiError(
            400,
            f"{resource} are in several logs, by cluster, which have no version in common: ask /clusters/<cluster>",
        )

    async def _unknown_cluster(
        self, request: RoutedRequest, segments: list[str], unseen: list[Group]
    ) -> web.StreamResponse:
        """The answer to what is below a cluster that no group has, as far as that is known."""
        if not self._guarded:
            if unseen:
                raise self._not_known(unseen)
            raise no_such_cluster(segments[1], self.groups.clusters())
        otherwise = (
            partial(_at_once, self._not_known(unseen)) if unseen else partial(self._no_cluster, request, segments[1])
        )
        return await self._pass(request, list(self.groups), unless=frozenset({404}), otherwise=otherwise)

    async def _no_cluster(self, request: RoutedRequest, name: str) -> ApiError:
        """What there is instead, of which the caller may know."""
        names: set[str] = set()
        with contextlib.suppress(ApiError):
            answers = await self._documents.clusters(self.groups, request.caller, request.place, request.forwarded)
            names = {one.name for _, said in instance_documents(answers) for one in said.clusters}
        return no_such_cluster(name, names)

    def _not_known(self, unseen: Sequence[Group]) -> ApiError:
        names = ", ".join(group.name for group in unseen)
        text = f"what the group {names} has is not known yet: none of its instances answers"
        if self._guarded:
            text = "what some clusters have is not known yet: no instance answers"
        return ApiError(503, text, retry_after=1)

    # -- what is asked of the router itself --------------------------------------------------------------------------

    def _probe(self, request: RoutedRequest, name: str) -> web.Response:
        """Whether it lives, or is ready."""
        _only_read(request.http)
        if name != "readyz" or self.groups.ready:
            return web.Response(text="ok")
        checks = [failed("not all groups are ready")] if self._guarded else self.groups.checks()
        return web.Response(status=503, text=report(checks))

    async def _own(self, request: RoutedRequest, segments: list[str]) -> web.StreamResponse | None:
        """The answer to what is asked of the router itself; None if it is not."""
        name, http = segments[0] if segments else "", request.http
        if name not in ("", *_PROBES, "metrics", "clusters"):
            return None
        if name in ("", "clusters") and self._guarded and http.method not in ("GET", "HEAD"):
            # An instance says first whether it knows who asks.
            return await self._pass(request, list(self.groups))
        _only_read(http)
        if name in ("livez", "healthz"):
            return await self._pass(request, list(self.groups)) if self._guarded else web.Response(text="ok")
        if name == "readyz":
            return await self._verbose(request)
        if not name:
            if self._guarded:
                return await self._pass(request, list(self.groups))
            return answer(msgspec.json.encode({"paths": SERVED_PATHS}), request.rendering())
        if name == "clusters":
            return await self._clusters(request)
        if (refusal := await self._unless_monitoring(request)) is not None:
            return refusal
        return web.Response(
            body=generate_latest(self.registry),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _clusters(self, request: RoutedRequest) -> web.Response:
        if not self._guarded:
            return answer(msgspec.json.encode(self.groups.document()), request.rendering())
        answers = await self._documents.clusters(self.groups, request.caller, request.place, request.forwarded)
        said = instance_documents(answers)
        if not said:
            return request.relayed(answers[0][1])
        told = await self._unless_monitoring(request) is None
        ready = self.groups.ready if told else all(document.ready for _, document in said)
        return request.document(merged_documents(said, ready=ready, told=told))

    async def _verbose(self, request: RoutedRequest) -> web.Response:
        """What /readyz?verbose tells: of groups to who may see how they are; to others, what instances tell them."""
        checks = list(self.groups.checks())
        if self._guarded and (refusal := await self._unless_monitoring(request)) is not None:
            if refusal.status == 401:
                return refusal
            checks = []
            for said in await self._each(request, "/readyz?verbose"):
                if said.status not in (200, 503):
                    return request.relayed(said)
                lines = said.body.decode(errors="replace").splitlines()
                checks += [Check.of(line) for line in lines if line.startswith("[")]
            checks = list(dict.fromkeys(checks))
        ready = self.groups.ready
        if not ready and all_ready(checks):
            checks.append(failed("not all groups are ready"))
        return web.Response(status=200 if ready else 503, text=report(checks))

    async def _each(self, request: RoutedRequest, path: str) -> list[InstanceAnswer]:
        """What each group that answers says to the caller."""

        async def one(group: Group) -> InstanceAnswer | None:
            with contextlib.suppress(NotAnswered):
                return await self._documents.ask(
                    group, request.caller, request.place, path, request.forwarded, unless=frozenset()
                )
            return None

        found = await asyncio.gather(*map(one, self.groups))
        return [said for said in found if said is not None]

    async def _unless_monitoring(self, request: RoutedRequest) -> web.Response | None:
        """Why a caller may not see how instances are, as those say of their own metrics; None: they may."""
        if not self._guarded or request.caller.monitors:
            return None
        for group in self.groups:
            with contextlib.suppress(NotAnswered):
                headers = [("Accept", "application/json"), *request.forwarded]
                said = await self._documents.ask(group, request.caller, request.place, "/metrics", headers)
                return None if said.status == 200 else request.relayed(said)
        raise self._nobody("no instance answers")

    def _nobody(self, problem: str) -> ApiError:
        """503: no instance could be asked."""
        if self._guarded:
            log.info("nobody answers", reason=problem)
            return ApiError(503, "nobody answers: no instance could be asked", retry_after=1)
        return ApiError(503, f"nobody answers: {problem}", retry_after=1)

    # -- passing on --------------------------------------------------------------------------------------------------

    async def _pass(
        self,
        request: RoutedRequest,
        groups: Sequence[Group],
        *,
        unless: frozenset[int] = frozenset(),
        otherwise: Callable[[], Awaitable[ApiError]] | None = None,
    ) -> web.StreamResponse:
        """Answers with what the first instance of the groups says that can be asked.

        `unless`: answers for which the next group is asked; `otherwise`: what is raised when the last one gives such
        an answer, too. Raises ApiError 503, 504.
        """
        http = request.http
        # A page of another site must not speak through us; the instance would not know whose page it is.
        refuse_foreign_pages(http)
        headers = self._callers.headers(http, request.caller)
        headers.popall("Origin", None)
        for name, value in request.forwarded:
            headers[name] = value
        problem = "no group has it"
        for at, group in enumerate(groups):
            last = at == len(groups) - 1
            instances = group.chosen(request.place)
            for number, one in enumerate(instances):
                only = last and number == len(instances) - 1
                upstream = await self.groups.upstream(one, named=request.caller.named)
                try:
                    if wants_upgrade(http):
                        return await self._pass_through.tunnel(http, upstream, http.rel_url.raw_path_qs, headers)
                    unwanted = NOT_YET | unless
                    if only:
                        unwanted = frozenset() if otherwise is None else unless
                    return await self._ask(http, group, one, upstream, headers, unwanted)
                except _AskAnother as other:
                    problem = f"group {group.name}, {one.url}: {other}"
                    if other.code in unless:
                        if last and otherwise is not None:
                            raise await otherwise() from None
                        break
                    continue
                except BrokenTunnel as cause:
                    problem = f"group {group.name}, {one.url}: {cause}"
                    continue
        raise self._nobody(problem)

    async def _ask(
        self,
        http: web.Request,
        group: Group,
        one: Instance,
        upstream: Upstream,
        headers: CIMultiDict[str],
        unless: frozenset[int],
    ) -> web.StreamResponse:
        """Asks one instance and passes its answer through. Raises _AskAnother if another one may be asked as well."""
        begun: list[web.StreamResponse] = []
        whose = "the instance" if self._guarded else f"group {group.name}"
        try:
            async with one.asked():
                return await self._exchange(http, group, upstream, headers, unless, begun)
        except TimeoutError:
            if begun:
                log.info("an instance hangs in its answer", group=group.name, url=one.url)
                break_off(http)
                return begun[0]
            if http.method in ("GET", "HEAD"):
                raise _AskAnother("it hangs") from None
            raise ApiError(504, f"{whose} does not answer: whether it did it is unknown") from None

    async def _exchange(
        self,
        http: web.Request,
        group: Group,
        upstream: Upstream,
        headers: CIMultiDict[str],
        unless: frozenset[int],
        begun: list[web.StreamResponse],
    ) -> web.StreamResponse:
        """`begun` gets the answer when its head is sent."""
        body = http.content if http.can_read_body else None
        path = http.rel_url.raw_path_qs
        try:
            async with self._pass_through.exchange(http, upstream, path, headers, body) as found:
                if found.status in unless and body is None:
                    raise _AskAnother(f"answers {found.status}", found.status)
                self._requests.labels(group.name, str(found.status)).inc()
                response = begin_response(found)
                begun.append(response)
                await stream_response(http, found, response)
        except UpstreamUnreachable as cause:
            raise _AskAnother(str(cause)) from None
        except NoAnswer as cause:
            if http.method in ("GET", "HEAD"):
                raise _AskAnother(str(cause)) from None
            whose = "the instance" if self._guarded else f"group {group.name}"
            raise ApiError(504, f"{whose} broke off before it answered: whether it did it is unknown") from None
        except BrokenAnswer as cause:
            log.info("an instance broke off in its answer", group=group.name, reason=str(cause))
        return response

    async def _review(self, request: RoutedRequest, groups: Sequence[Group]) -> web.Response:
        """An access review: what any group allows is allowed, and rules are those of all."""
        http = request.http
        refuse_foreign_pages(http)
        request.in_yaml = request.accept.document().in_yaml
        body = await read_body(http)
        headers = [("Accept", "application/json"), *request.forwarded]
        if "Content-Type" in http.headers:
            headers.append(("Content-Type", http.headers["Content-Type"]))
        path, method = http.rel_url.raw_path_qs, http.method
        reviewed: list[tuple[Group, InstanceAnswer]] = []
        for group in groups:
            try:
                said = await self._documents.ask(
                    group, request.caller, request.place, path, headers, method=method, body=body
                )
            except NotAnswered as cause:
                raise self._nobody(f"group {group.name}: {cause}") from None
            with contextlib.suppress(msgspec.MsgspecError, ValueError, AttributeError):
                if msgspec.json.decode(said.body).get("status", {}).get("allowed") is True:
                    return request.relayed(said)
            reviewed.append((group, said))
        return request.relayed(self._together(reviewed))

    def _together(self, reviewed: Sequence[tuple[Group, InstanceAnswer]]) -> InstanceAnswer:
        """What groups said to one review, none of which has allowed anything.

        All rules; of one type, what the group says that has it; else what the first one said.
        """
        first = reviewed[0][1]
        try:
            documents = [msgspec.json.decode(said.body) for _, said in reviewed if said.status == 201]
            if documents and all(one["kind"] == "SelfSubjectRulesReview" for one in documents):
                return first._replace(body=msgspec.json.encode(merge_rules(documents)) + b"\n")
            if documents and (asked := documents[0].get("spec", {}).get("resourceAttributes")):
                of = GroupResource(asked.get("group", ""), asked.get("resource", ""))
                having = self.groups.having(None, str(of))
                return next((said for group, said in reviewed if group in having), first)
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
            log.warning("an instance answers to a review with what is none")
        return first

    # -- what is merged from all groups ------------------------------------------------------------------------------

    async def _merged(
        self, request: RoutedRequest, groups: Sequence[Group], *, aggregated: bool = False
    ) -> web.StreamResponse:
        """One document made of those of all groups; maybe of aggregated discovery. Raises ApiError 404 to 406, 503."""
        http = request.http
        if http.method not in ("GET", "HEAD"):
            if self._guarded:
                return await self._pass(request, groups)
            _only_read(http)
        document = request.accept.document(aggregated=aggregated)
        request.in_yaml = document.in_yaml
        form = document.aggregated
        accept = aggregated_type(form) if form else "application/json"
        path = http.rel_url.raw_path
        answers = await self._documents.of(groups, request.caller, request.place, path, accept, request.forwarded)
        if not answers:
            raise no_such_path()
        if (said := answers[0][1]).status != 200:
            if said.status == 404:
                raise no_such_path()
            return request.relayed(said)
        merged = merge(decoded(answers))
        body = msgspec.json.encode(merged) + b"\n"
        etag = f'"{hashlib.sha256(body).hexdigest()[:32].upper()}"'
        headers = [("ETag", etag), ("Vary", "Accept"), ("Cache-Control", "no-cache, private")]
        if etag in http.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        response = answer(body, request.rendering(), headers)
        if form and merged.get("kind") == "APIGroupDiscoveryList":
            response.headers["Content-Type"] = aggregated_type(form)
        return response


class _AskAnother(Exception):
    """An instance cannot answer this, another one may. `code`: of its answer, 0 if there was none."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


def _is_known(segments: list[str], clusters: set[str]) -> bool:
    """Whether a path is below one of these clusters."""
    with contextlib.suppress(UnknownPath):
        cluster_scope(segments, clusters)
        return True
    return False


def _only_read(http: web.BaseRequest) -> None:
    """Raises ApiError 405."""
    if http.method not in ("GET", "HEAD"):
        raise ApiError(405, f"the server does not allow {http.method} on this path")


async def _at_once(error: ApiError) -> ApiError:
    return error
