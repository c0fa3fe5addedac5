r"""The router: one address for several groups of serving instances, each with the types or clusters of its own log.

A request goes to the group that has what it names, as the groups themselves say \(`/clusters`\). What is about all
types, discovery above all, is merged from all groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from yarl import URL

from kubebraid.route.groups import ANSWER_PATIENCE, CONNECT_PATIENCE, NOT_YET, Group, Groups, Instance
from kubebraid.route.merging import merge
from query.discovery.access_reviews import review_kind
from query.discovery.catalogue import aggregated_type
from query.discovery.paths import SERVED_PATHS, cluster_scope, resource_target, split
from query.http.application import as_api_error, single_handler_application
from query.http.health import report
from query.http.origins import refuse_foreign_hosts, refuse_foreign_pages
from query.http.passthrough import (
    BrokenAnswer,
    NoAnswer,
    PassThrough,
    Upstream,
    UpstreamUnreachable,
    begin_response,
    break_off,
    one_line,
    read_body,
    request_headers,
    stream_response,
)
from query.http.rendering import answer
from query.http.request import Request, client_address
from query.http.status import ApiError, no_such_path
from query.http.tunnels import BrokenTunnel, wants_upgrade

log = structlog.get_logger("kubebraid.route.router")

# Discovery documents that are remembered for when a group is down.
_REMEMBERED = 4096


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
    """Answers requests from groups, given as their URLs by name. `hosts`: as for `QueryService`."""

    def __init__(self, groups: Mapping[str, Sequence[str]], *, hosts: frozenset[str] | None = None) -> None:
        self._hosts = hosts
        self._pass_through = PassThrough(CONNECT_PATIENCE)
        self.groups = Groups(groups, self._pass_through)
        # Discovery documents as groups last answered with them, for when one of them is down.
        self._last_documents: dict[tuple[str, str, str], tuple[int, Any]] = {}
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "kubebraid_router_requests_total", "Requests passed on", ("group", "code"), registry=self.registry
        )
        self.registry.register(_Collector(self.groups))

    def application(self) -> web.Application:
        """The aiohttp application that serves everything."""
        return single_handler_application(self._handle)

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

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        request = Request(http)
        try:
            return await self._route(request)
        except (ApiError, web.HTTPException) as problem:
            return request.failure(as_api_error(problem) if isinstance(problem, web.HTTPException) else problem)

    async def _route(self, request: Request) -> web.StreamResponse:
        http = request.http
        refuse_foreign_hosts(http, self._hosts)
        segments = split(http.rel_url.raw_path)
        if segments[:1] == ["int"]:
            segments = segments[1:]
        elif len(segments) <= 1 or segments == ["clusters"]:
            own = self._own(request, segments)
            if own is not None:
                return own
        clusters = self.groups.clusters()
        unseen = self.groups.unseen()
        if unseen and segments[:1] == ["clusters"] and segments[1:] and not _is_known(segments, clusters):
            raise _unknown(unseen)
        cluster, rest = cluster_scope(segments, clusters)
        groups = list(self.groups) if cluster is None else self.groups.having(cluster)
        if not rest or rest[0] in ("version", "clusters"):
            return await self._pass(http, groups)
        if rest[0] == "openapi":
            if rest[1:] == ["v3"]:
                return await self._merged(request, groups)
            return await self._pass(http, groups, unless=frozenset({404}))
        if rest[0] not in ("api", "apis"):
            if cluster is None:
                raise no_such_path()
            return await self._pass(http, groups)
        if len(rest) <= (2 if rest[0] == "api" else 3):
            return await self._merged(request, groups, aggregated=len(rest) == 1)
        if cluster is None and review_kind(rest) is not None:
            return await self._review(http, groups)
        resource = str(resource_target(rest).group_resource)
        having = self.groups.having(cluster, resource)
        if not having:
            if unseen:
                raise _unknown(unseen)
            # One that knows the cluster answers for a type that is not served.
            having = groups[:1]
        elif len(having) > 1 and cluster is None:
            names = ", ".join(group.name for group in having)
            raise ApiError(
                400,
                f"{resource} are in several groups, by cluster ({names}), which have no version in common: "
                "ask /clusters/<cluster>",
            )
        return await self._pass(http, having[:1])

    def _own(self, request: Request, segments: list[str]) -> web.Response | None:
        """The answer to what is asked of the router itself; None if it is not."""
        name, http = segments[0] if segments else "", request.http
        if name not in ("", "livez", "healthz", "readyz", "metrics", "clusters"):
            return None
        if http.method not in ("GET", "HEAD"):
            raise ApiError(405, f"the server does not allow {http.method} on this path")
        if not name:
            return answer(msgspec.json.encode({"paths": SERVED_PATHS}), request.rendering())
        if name == "clusters":
            return answer(msgspec.json.encode(self.groups.document()), request.rendering())
        if name == "metrics":
            return web.Response(
                body=generate_latest(self.registry),
                headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
            )
        if name == "readyz":
            ready = self.groups.ready
            verbose = not ready or "verbose" in http.query
            text = report(self.groups.checks()) if verbose else "ok"
            return web.Response(status=200 if ready else 503, text=text)
        return web.Response(text="ok")

    # -- passing on --------------------------------------------------------------------------------------------------

    async def _pass(
        self, http: web.Request, groups: Sequence[Group], *, unless: frozenset[int] = frozenset()
    ) -> web.StreamResponse:
        """Answers with what the first instance of the groups says that can be asked.

        `unless`: answers for which the next group is asked. Raises ApiError 503, 504.
        """
        # A page of another site must not speak through us; the instance would not know whose page it is.
        refuse_foreign_pages(http)
        headers = request_headers(http)
        headers.popall("Origin", None)
        # For the commands that its refusals name.
        headers["X-Forwarded-Proto"], headers["X-Forwarded-Host"] = client_address(http)
        client = _client(http)
        problem = "no group has it"
        for at, group in enumerate(groups):
            last = at == len(groups) - 1
            instances = group.chosen(client)
            for number, one in enumerate(instances):
                only = last and number == len(instances) - 1
                try:
                    if wants_upgrade(http):
                        return await self._pass_through.tunnel(
                            http, Upstream(one.url), http.rel_url.raw_path_qs, headers
                        )
                    unwanted = frozenset() if only else NOT_YET | unless
                    found = await self._ask(http, group, one, headers, unwanted)
                except _AskAnother as other:
                    problem = f"group {group.name}, {one.url}: {other}"
                    if other.code in unless:
                        break
                    continue
                except BrokenTunnel as cause:
                    problem = f"group {group.name}, {one.url}: {cause}"
                    continue
                return found
        raise ApiError(503, f"nobody answers: {problem}", retry_after=1)

    async def _ask(
        self, http: web.Request, group: Group, one: Instance, headers: CIMultiDict[str], unless: frozenset[int]
    ) -> web.StreamResponse:
        """Asks one instance and passes its answer through. Raises _AskAnother if another one may be asked as well."""
        begun: list[web.StreamResponse] = []
        try:
            async with one.asked():
                return await self._exchange(http, group, Upstream(one.url), headers, unless, begun)
        except TimeoutError:
            if begun:
                log.info("an instance hangs in its answer", group=group.name, url=one.url)
                break_off(http)
                return begun[0]
            if http.method in ("GET", "HEAD"):
                raise _AskAnother("it hangs") from None
            raise ApiError(504, f"group {group.name} does not answer: whether it did it is unknown") from None

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
            raise ApiError(
                504, f"group {group.name} broke off before it answered: whether it did it is unknown"
            ) from None
        except BrokenAnswer as cause:
            log.info("an instance broke off in its answer", group=group.name, reason=str(cause))
        return response

    async def _review(self, http: web.Request, groups: Sequence[Group]) -> web.StreamResponse:
        """An access review: what any group allows is allowed."""
        refuse_foreign_pages(http)
        body = await read_body(http)
        headers = {name: http.headers[name] for name in ("Content-Type", "Accept") if name in http.headers}
        chosen: web.Response | None = None
        for group in groups:
            one = group.chosen(_client(http))[0]
            try:
                async with self._pass_through.session.request(
                    http.method, URL(one.url + http.rel_url.raw_path_qs, encoded=True), headers=headers, data=body
                ) as found:
                    text = await found.read()
                    content_type, status = found.headers.get("Content-Type", "application/json"), found.status
            except (aiohttp.ClientError, OSError, TimeoutError) as cause:
                raise ApiError(503, f"group {group.name}: {one_line(cause)}", retry_after=1) from None
            reviewed = web.Response(status=status, body=text, headers={"Content-Type": content_type})
            with contextlib.suppress(msgspec.MsgspecError, ValueError, AttributeError):
                if msgspec.json.decode(text).get("status", {}).get("allowed") is True:
                    return reviewed
            chosen = chosen or reviewed
        assert chosen is not None
        return chosen

    # -- what is merged from all groups ------------------------------------------------------------------------------

    async def _merged(self, request: Request, groups: Sequence[Group], *, aggregated: bool = False) -> web.Response:
        """One document made of those of all groups; maybe of aggregated discovery. Raises ApiError 404 to 406, 503."""
        http = request.http
        if http.method not in ("GET", "HEAD"):
            raise ApiError(405, f"the server does not allow {http.method} on this path")
        document = request.accept.document(aggregated=aggregated)
        request.in_yaml = document.in_yaml
        form = document.aggregated
        accept = aggregated_type(form) if form else "application/json"
        path = http.rel_url.raw_path
        documents = await asyncio.gather(*(self._discovered(group, path, accept, _client(http)) for group in groups))
        found = [document for status, document in documents if status == 200]
        if not found:
            raise no_such_path()
        merged = merge(found)
        body = msgspec.json.encode(merged) + b"\n"
        etag = f'"{hashlib.sha256(body).hexdigest()[:32].upper()}"'
        headers = [("ETag", etag), ("Vary", "Accept"), ("Cache-Control", "no-cache, private")]
        if etag in http.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        response = answer(body, request.rendering(), headers)
        if form and merged.get("kind") == "APIGroupDiscoveryList":
            response.headers["Content-Type"] = aggregated_type(form)
        return response

    async def _discovered(self, group: Group, path: str, accept: str, client: str) -> tuple[int, Any]:
        """A group's document, or the one that it had last; its code if it has none. Raises ApiError 503."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_PATIENCE, sock_connect=CONNECT_PATIENCE)
        key = (group.name, path, accept)
        problem = ""
        for one in group.chosen(client):
            try:
                async with self._pass_through.session.get(
                    URL(one.url + quote(path, safe="/%:@!$&'()*+,;=~"), encoded=True),
                    headers={"Accept": accept},
                    timeout=timeout,
                ) as found:
                    text = await found.read()
                    if found.status in (200, 404):
                        document = (found.status, msgspec.json.decode(text) if found.status == 200 else None)
                        if len(self._last_documents) > _REMEMBERED:
                            self._last_documents.clear()
                        self._last_documents[key] = document
                        return document
                    problem = f"{one.url} answers {found.status}"
            except (aiohttp.ClientError, OSError, TimeoutError) as cause:
                problem = f"{one.url}: {one_line(cause)}"
        if key in self._last_documents:
            return self._last_documents[key]
        raise ApiError(503, f"the types of group {group.name} are not known: {problem}", retry_after=1)


class _AskAnother(Exception):
    """An instance cannot answer this, another one may. `code`: of its answer, 0 if there was none."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


def _is_known(segments: list[str], clusters: set[str]) -> bool:
    """Whether a path is below one of these clusters."""
    with contextlib.suppress(ApiError):
        cluster_scope(segments, clusters)
        return True
    return False


def _unknown(groups: Sequence[Group]) -> ApiError:
    names = ", ".join(group.name for group in groups)
    return ApiError(503, f"what the group {names} has is not known yet: none of its instances answers", retry_after=1)


def _client(http: web.Request) -> str:
    """The address of a request's client."""
    peer = http.transport.get_extra_info("peername") if http.transport is not None else None
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
