"""Routing: one address for several groups of serving instances, each with the types or clusters of its own log.

A request goes to the group that has what it names. Which that is, the groups themselves tell (`/clusters`). What is
about all types, discovery above all, is put together from all groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
import structlog
from aiohttp import web
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from yarl import URL

from query.discovery.access_reviews import review_kind
from query.discovery.catalogue import aggregated_type
from query.discovery.paths import cluster_scope, resource_target, split
from query.forward.forwarding import broken_off, copy_headers, forwarded_headers, one_line, read_body
from query.http.accept import negotiate_document, prefers_yaml
from query.http.application import entrance, refused
from query.http.rendering import Rendering, answer, rendering
from query.http.status import ApiError, no_such_path
from query.http.tunnels import BrokenTunnel, tunnel, wants_upgrade
from query.http.websocket import refuse_foreign_pages
from query.service import host_name

log = structlog.get_logger("kubebraid.route.router")

# Seconds between two looks at an instance, for its answer, and to connect to it.
_EVERY = 2.0
_PATIENCE = 5.0
_CONNECT = 3.0
# How long the first looks at all instances may take before requests are answered without them, in seconds.
_FIRST = 3.0
# Looks in a row without an answer after which nobody waits for an instance any more.
_HANGS = 2
_SILENT = "does not answer"
# Instances that are about to serve say so by these.
_NOT_YET = frozenset({429, 503})
_PATHS = ("/api", "/apis", "/clusters", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version")


class _Types(msgspec.Struct):
    name: str
    known: bool = False
    missing: tuple[str, ...] = ()
    stale: str | None = None
    producer: str = ""
    epoch: int = 0
    types: dict[str, dict[str, Any]] = {}


class _Document(msgspec.Struct):
    """What /clusters of an instance answers."""

    ready: bool
    index: int = 0
    prefix: str = ""
    outage: float | None = None
    clusters: tuple[_Types, ...] = ()


class Instance:
    """One serving instance. `reason`: why it is not asked now, None if it is; `document`: what it last said."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.reason: str | None = "not seen yet"
        self.document: _Document | None = None
        self.looked = asyncio.Event()
        self._limits: set[asyncio.Timeout] = set()

    @contextlib.asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        """While it is being asked: a TimeoutError ends the block if it turns out to hang."""
        async with asyncio.timeout(None) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    def leave(self) -> None:
        """Ends what waits for it: a process that stands still, or a host that is gone, would never say so itself."""
        now = asyncio.get_running_loop().time()
        for limit in tuple(self._limits):
            limit.reschedule(now)


class Group:
    """Serving instances of the same log, any of which answers."""

    def __init__(self, name: str, urls: Sequence[str]) -> None:
        self.name = name
        self.instances = [Instance(url) for url in urls]

    @property
    def ready(self) -> bool:
        return any(one.reason is None for one in self.instances)

    @property
    def document(self) -> _Document | None:
        """What the group has, as the instance that is furthest told it; None if none was ever seen."""
        told = [one for one in self.instances if one.document is not None]
        if not told:
            return None
        best = max(told, key=lambda one: (one.reason is None, one.document.index if one.document else 0))
        return best.document

    def chosen(self, client: str) -> list[Instance]:
        """The instances in the order to ask them in for a client: the same one first, as long as it is there.

        What a client is amid, the pages of a list, is at one instance (rendezvous hashing).
        """
        ranked = sorted(self.instances, key=lambda one: zlib.crc32(f"{client} {one.url}".encode()))
        return [one for one in ranked if one.reason is None] + [one for one in ranked if one.reason is not None]


class _Collector(Collector):
    def __init__(self, groups: Iterable[Group]) -> None:
        self._groups = groups

    def collect(self) -> Iterable[Metric]:
        ready = GaugeMetricFamily(
            "kubebraid_router_instance_ready", "1 if an instance is asked", labels=("group", "instance")
        )
        for group in self._groups:
            for one in group.instances:
                ready.add_metric((group.name, one.url), 1.0 if one.reason is None else 0.0)
        yield ready


class Router:
    """Answers requests from groups. `hosts`: as for `QueryService`."""

    def __init__(self, groups: Mapping[str, Sequence[str]], *, hosts: frozenset[str] | None = None) -> None:
        self.groups = [Group(name, urls) for name, urls in groups.items()]
        self._hosts = hosts
        self._client: aiohttp.ClientSession | None = None
        # Discovery as groups last told it, for when one of them is down.
        self._told: dict[tuple[str, str, str], tuple[int, Any]] = {}
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "kubebraid_router_requests_total", "Requests passed on", ("group", "code"), registry=self.registry
        )
        self.registry.register(_Collector(self.groups))

    def application(self) -> web.Application:
        return entrance(self._handle)

    async def run(self) -> None:
        """Looks after the instances until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for group in self.groups:
                for one in group.instances:
                    tasks.create_task(self._look_after(group, one), name=f"look after {one.url}")

    async def first_looks(self) -> None:
        """Returns when all instances have been looked at once, or that takes too long."""
        looks = [asyncio.ensure_future(one.looked.wait()) for group in self.groups for one in group.instances]
        try:
            await asyncio.wait(looks, timeout=_FIRST)
        finally:
            for look in looks:
                look.cancel()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Has connections to instances while the block lasts."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT),
            max_line_size=256 * 1024,
            max_field_size=256 * 1024,
        ) as self._client:
            yield

    # -- looking after instances -------------------------------------------------------------------------------------

    async def _look_after(self, group: Group, one: Instance) -> None:
        silent = 0
        while True:
            before = one.reason
            one.reason = await self._look(one)
            silent = silent + 1 if one.reason is not None and one.reason.startswith(_SILENT) else 0
            if silent >= _HANGS:
                one.leave()
            if one.reason != before:
                log.info("instance", group=group.name, url=one.url, state=one.reason or "ready")
            one.looked.set()
            await asyncio.sleep(_EVERY * random.uniform(0.8, 1.2))

    async def _look(self, one: Instance) -> str | None:
        """Why an instance cannot be asked; None if it can."""
        assert self._client is not None
        timeout = aiohttp.ClientTimeout(total=_PATIENCE, sock_connect=_CONNECT)
        try:
            async with self._client.get(f"{one.url}/clusters", timeout=timeout) as response:
                body = await response.read()
                if response.status != 200:
                    return "being started" if response.status in _NOT_YET else f"answers {response.status}"
                one.document = msgspec.json.decode(body, type=_Document)
        except (aiohttp.ClientError, OSError, TimeoutError) as cause:
            return f"{_SILENT}: {one_line(cause)}"
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return "is no kubebraid"
        return None if one.document.ready else "not ready"

    # -- what groups have --------------------------------------------------------------------------------------------

    def _clusters(self) -> set[str]:
        return {
            cluster.name for group in self.groups if (told := group.document) is not None for cluster in told.clusters
        }

    def _with(self, cluster: str | None, kind: str | None = None) -> list[Group]:
        """The groups that have a cluster (None: any), and a type in it."""
        found = []
        for group in self.groups:
            document = group.document
            for one in () if document is None else document.clusters:
                if cluster in (None, one.name) and (kind is None or kind in one.types):
                    found.append(group)
                    break
        return found

    def _unseen(self) -> list[Group]:
        return [group for group in self.groups if group.document is None]

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        accept = ",".join(http.headers.getall("Accept", ()))
        render = rendering(http.headers, http.query, in_yaml=prefers_yaml(accept))
        try:
            return await self._route(http, render)
        except (ApiError, web.HTTPException) as problem:
            error = refused(problem) if isinstance(problem, web.HTTPException) else problem
            response = answer(error.body(), render, (), status=error.code)
            if error.retry_after is not None:
                response.headers["Retry-After"] = str(error.retry_after)
            return response

    async def _route(self, http: web.Request, render: Rendering) -> web.StreamResponse:
        if self._hosts is not None and host_name(http.host) not in self._hosts:
            raise ApiError(403, f"requests for host {http.host[:64]!r} are not answered here")
        segments = split(http.rel_url.raw_path)
        if segments[:1] == ["int"]:
            segments = segments[1:]
        elif len(segments) <= 1 or segments == ["clusters"]:
            own = self._own(http, segments, render)
            if own is not None:
                return own
        if segments[:1] == ["clusters"] and segments[1:] and (unseen := self._unseen()) and not self._named(segments):
            raise _unknown(unseen)
        cluster, rest = cluster_scope(segments, self._clusters())
        groups = self._with(cluster) if cluster is not None else self.groups
        if not rest or rest[0] in ("version", "clusters"):
            return await self._pass(http, groups)
        if rest[0] == "openapi":
            if rest[1:] == ["v3"]:
                return await self._merged(http, groups)
            return await self._pass(http, groups, unless=frozenset({404}))
        if rest[0] not in ("api", "apis"):
            if cluster is None:
                raise no_such_path()
            return await self._pass(http, groups)
        if len(rest) <= (2 if rest[0] == "api" else 3):
            return await self._merged(http, groups, aggregated=len(rest) == 1)
        if cluster is None and review_kind(rest) is not None:
            return await self._review(http, groups)
        target = resource_target(rest)
        kind = str(target.group_resource)
        having = self._with(cluster, kind)
        if not having:
            if unseen := self._unseen():
                raise _unknown(unseen)
            # One of those that know the cluster says what is to be said of a type that is not served.
            having = groups[:1]
        elif len(having) > 1 and cluster is None:
            names = ", ".join(group.name for group in having)
            raise ApiError(
                400, f"{kind} are in several groups, by cluster ({names}), which have no version in common: "
                "ask /clusters/<cluster>"
            )  # fmt: skip
        return await self._pass(http, having[:1])

    def _named(self, segments: list[str]) -> bool:
        with contextlib.suppress(ApiError):
            cluster_scope(segments, self._clusters())
            return True
        return False

    def _own(self, http: web.Request, segments: list[str], render: Rendering) -> web.Response | None:
        """The answer to what is asked of the router itself; None if it is not."""
        name = segments[0] if segments else ""
        if name not in ("", "livez", "healthz", "readyz", "metrics", "clusters"):
            return None
        if http.method not in ("GET", "HEAD"):
            raise ApiError(405, f"the server does not allow {http.method} on this path")
        if not name:
            return answer(msgspec.json.encode({"paths": _PATHS}), render, ())
        if name == "clusters":
            return answer(msgspec.json.encode(self._document()), render, ())
        if name == "metrics":
            return web.Response(
                body=generate_latest(self.registry),
                headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
            )
        if name == "readyz":
            ready = all(group.ready for group in self.groups)
            verbose = not ready or "verbose" in http.query
            return web.Response(status=200 if ready else 503, text=self._report() if verbose else "ok")
        return web.Response(text="ok")

    def _report(self) -> str:
        lines = []
        for group in self.groups:
            count = sum(one.reason is None for one in group.instances)
            lines.append(f"[{'+' if count else '-'}]group {group.name}: {count} of {len(group.instances)} ready")
            lines += [f"[!]{one.url} {one.reason}" for one in group.instances if one.reason is not None]
        passed = all(group.ready for group in self.groups)
        return "\n".join([*lines, "readyz check passed" if passed else "readyz check failed"]) + "\n"

    def _document(self) -> dict[str, Any]:
        """What an instance that had all of it would answer for /clusters, and each group's position."""
        clusters: dict[str, dict[str, Any]] = {}
        positions = {}
        outages = []
        for group in self.groups:
            told = group.document
            if told is None:
                continue
            positions[group.name] = {"index": told.index, "prefix": told.prefix, "ready": group.ready}
            if told.outage is not None:
                outages.append(told.outage)
            for one in told.clusters:
                known = clusters.setdefault(one.name, {**msgspec.to_builtins(one), "types": {}, "missing": []})
                known["types"].update(one.types)
                known["missing"] += one.missing
                known["stale"] = known["stale"] or one.stale
                known["known"] = known["known"] and one.known
        return {
            "ready": all(group.ready for group in self.groups),
            "outage": max(outages, default=None),
            "index": max((told.index for group in self.groups if (told := group.document) is not None), default=0),
            "prefix": "",
            "groups": positions,
            "clusters": [clusters[name] for name in sorted(clusters)],
        }

    # -- passing on --------------------------------------------------------------------------------------------------

    async def _pass(
        self, http: web.Request, groups: Sequence[Group], *, unless: frozenset[int] = frozenset()
    ) -> web.StreamResponse:
        """Answers with what the first instance of the groups says that can be asked.

        `unless`: answers for which the next group is asked. Raises ApiError 503, 504.
        """
        # A page of another site must not speak through us; the instance would not know whose page it is.
        refuse_foreign_pages(http)
        headers = forwarded_headers(http)
        headers.popall("Origin", None)
        headers.popall("Host", None)
        client = _client(http)
        problem = "no group has it"
        for at, group in enumerate(groups):
            last = at == len(groups) - 1
            instances = group.chosen(client)
            for number, one in enumerate(instances):
                only = last and number == len(instances) - 1
                url = f"{one.url}{http.rel_url.raw_path_qs}"
                try:
                    if wants_upgrade(http):
                        return await tunnel(http, url, headers, None, None, _CONNECT)
                    unwanted = frozenset() if only else _NOT_YET | unless
                    found = await self._ask(http, group, one, url, headers, unwanted)
                except _Elsewhere as other:
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
        self,
        http: web.Request,
        group: Group,
        one: Instance,
        url: str,
        headers: CIMultiDict[str],
        unless: frozenset[int],
    ) -> web.StreamResponse:
        """Asks one instance and passes its answer through. Raises _Elsewhere if another one may be asked as well."""
        begun: list[web.StreamResponse] = []
        try:
            async with one.asked():
                return await self._exchange(http, group, url, headers, unless, begun)
        except TimeoutError:
            if begun:
                log.info("an instance hangs in its answer", group=group.name, url=one.url)
                return broken_off(http, begun[0])
            if http.method in ("GET", "HEAD"):
                raise _Elsewhere("it hangs") from None
            raise ApiError(504, f"group {group.name} does not answer: whether it did it is unknown") from None

    async def _exchange(
        self,
        http: web.Request,
        group: Group,
        url: str,
        headers: CIMultiDict[str],
        unless: frozenset[int],
        begun: list[web.StreamResponse],
    ) -> web.StreamResponse:
        """`begun` gets the answer when its head is sent."""
        assert self._client is not None
        body: aiohttp.StreamReader | None = None
        if http.can_read_body:
            body = http.content
            if "Content-Length" in http.headers:
                headers["Content-Length"] = http.headers["Content-Length"]
        try:
            found = await self._client.request(
                http.method,
                URL(url, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Content-Type", "Accept-Encoding"),
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as cause:
            # Nothing was sent.
            raise _Elsewhere(one_line(cause)) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as cause:
            if http.method in ("GET", "HEAD"):
                raise _Elsewhere(one_line(cause)) from None
            raise ApiError(
                504, f"group {group.name} broke off before it answered: whether it did it is unknown"
            ) from None
        async with found:
            if found.status in unless and body is None:
                raise _Elsewhere(f"answers {found.status}", found.status)
            self._requests.labels(group.name, str(found.status)).inc()
            response = web.StreamResponse(status=found.status, reason=found.reason)
            copy_headers(found.headers, response.headers)
            begun.append(response)
            await response.prepare(http)
            try:
                async for chunk in found.content.iter_any():
                    await response.write(chunk)
            except (aiohttp.ClientError, TimeoutError) as cause:
                log.info("an instance broke off in its answer", group=group.name, reason=one_line(cause))
                return broken_off(http, response)
            await response.write_eof()
            return response

    async def _review(self, http: web.Request, groups: Sequence[Group]) -> web.StreamResponse:
        """An access review: what any group allows is allowed."""
        refuse_foreign_pages(http)
        body = await read_body(http)
        assert self._client is not None
        headers = {name: http.headers[name] for name in ("Content-Type", "Accept") if name in http.headers}
        chosen: web.Response | None = None
        for group in groups:
            one = group.chosen(_client(http))[0]
            try:
                async with self._client.request(
                    http.method, URL(one.url + http.rel_url.raw_path_qs, encoded=True), headers=headers, data=body
                ) as found:
                    text = await found.read()
                    kind, status = found.headers.get("Content-Type", "application/json"), found.status
            except (aiohttp.ClientError, OSError, TimeoutError) as cause:
                raise ApiError(503, f"group {group.name}: {one_line(cause)}", retry_after=1) from None
            reviewed = web.Response(status=status, body=text, headers={"Content-Type": kind})
            with contextlib.suppress(ValueError, AttributeError):
                if json.loads(text).get("status", {}).get("allowed") is True:
                    return reviewed
            chosen = chosen or reviewed
        assert chosen is not None
        return chosen

    # -- what is put together ----------------------------------------------------------------------------------------

    async def _merged(self, http: web.Request, groups: Sequence[Group], *, aggregated: bool = False) -> web.Response:
        """One document made of those of all groups; maybe of aggregated discovery. Raises ApiError 404 to 406, 503."""
        if http.method not in ("GET", "HEAD"):
            raise ApiError(405, f"the server does not allow {http.method} on this path")
        document = negotiate_document(",".join(http.headers.getall("Accept", ())), aggregated=aggregated)
        render = rendering(http.headers, http.query, in_yaml=document.in_yaml)
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
        response = answer(body, render, headers)
        if form and merged.get("kind") == "APIGroupDiscoveryList":
            response.headers["Content-Type"] = aggregated_type(form)
        return response

    async def _discovered(self, group: Group, path: str, accept: str, client: str) -> tuple[int, Any]:
        """A group's document, or the one that it had last; its code if it has none. Raises ApiError 503."""
        assert self._client is not None
        timeout = aiohttp.ClientTimeout(total=_PATIENCE, sock_connect=_CONNECT)
        key = (group.name, path, accept)
        problem = ""
        for one in group.chosen(client):
            try:
                async with self._client.get(
                    URL(one.url + quote(path, safe="/%:@!$&'()*+,;=~"), encoded=True),
                    headers={"Accept": accept},
                    timeout=timeout,
                ) as found:
                    text = await found.read()
                    if found.status in (200, 404):
                        told = (found.status, msgspec.json.decode(text) if found.status == 200 else None)
                        if len(self._told) > 4096:
                            self._told.clear()
                        self._told[key] = told
                        return told
                    problem = f"{one.url} answers {found.status}"
            except (aiohttp.ClientError, OSError, TimeoutError) as cause:
                problem = f"{one.url}: {one_line(cause)}"
        if key in self._told:
            return self._told[key]
        raise ApiError(503, f"the types of group {group.name} are not known: {problem}", retry_after=1)


class _Elsewhere(Exception):
    """An instance cannot answer this; `code`: with what it said so, 0 if with nothing."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


def _unknown(groups: Sequence[Group]) -> ApiError:
    names = ", ".join(group.name for group in groups)
    return ApiError(503, f"what the group {names} has is not known yet: none of its instances answers", retry_after=1)


def _client(http: web.Request) -> str:
    peer = http.transport.get_extra_info("peername") if http.transport is not None else None
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""


# What entries of lists in discovery documents are known by, in the order they are tried in: `deployments/scale` has a
# version, too, that of Scale.
_NAMES = ("name", "groupVersion", "resource", "subresource", "version")


def merge(documents: Sequence[Any]) -> Any:
    """The union of discovery documents of one kind: of each entry what the first has, and all that lists in it name.

    The first is the one that has more: of a cluster that requests are passed on to, a group says all that there is, in
    the cluster's own order; of one that it only reads, what it has of it.
    """
    first, *rest = documents
    for other in rest:
        first = _both(first, other)
    return first


def _both(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        if _listed(other) > _listed(one):
            one, other = other, one
        both = {
            key: _both(one[key], other[key]) if key in one and key in other else one.get(key, other.get(key))
            for key in {**one, **other}
        }
        if "Current" in (one.get("freshness"), other.get("freshness")):
            # What one group can read of a version is there, whether its server answers the cluster or not.
            both["freshness"] = "Current"
        return both
    if isinstance(one, list) and isinstance(other, list):
        found = {_name(entry): entry for entry in one}
        for entry in other:
            name = _name(entry)
            found[name] = _both(found[name], entry) if name in found else entry
        return list(found.values())
    return one


def _listed(document: dict[str, Any]) -> int:
    """How many entries the lists in a document have, not those within them."""
    return sum(len(value) for value in document.values() if isinstance(value, list))


def _name(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    metadata = entry.get("metadata")
    if isinstance(metadata, dict):
        return str(metadata.get("name", ""))
    return next((str(entry[key]) for key in _NAMES if key in entry), json.dumps(entry, sort_keys=True))


def parse_groups(texts: Iterable[str]) -> dict[str, list[str]]:
    """Groups as NAME=URL[,URL...]. Raises ValueError with the mend."""
    groups: dict[str, list[str]] = {}
    for text in texts:
        name, equals, urls = text.partition("=")
        found = [url.strip() for url in urls.split(",") if url.strip()]
        if not equals or not name or not found:
            raise ValueError(f"{text!r}: write NAME=URL[,URL...], as in pods=http://10.0.0.1:8001,http://10.0.0.2:8001")
        for url in found:
            try:
                parts = urlsplit(url)
                good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            except ValueError:
                good = False
            if not good:
                raise ValueError(f"{url!r} is no URL of an instance, as in http://10.0.0.1:8001")
        if name in groups:
            raise ValueError(f"group {name!r} is there twice: write all its URLs at once, with commas")
        groups[name] = found
    return groups
