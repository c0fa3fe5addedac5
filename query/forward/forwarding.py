"""Forwarding: requests below /clusters/<cluster> that memory cannot answer go to that cluster's own API server.

Its answer is passed through as it comes. What it says of an object is the second source: the request is answered when
the object can be read here. Streams that change the protocol (exec, attach, port-forward) are in `tunnels`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from deltalog.handover import NotTaken
from deltalog.wire.delta import newer
from deltalog.wire.kubernetes import ObjectName
from materializer.entry import Entry
from materializer.materializer import Materializer, NotThereYet
from materializer.type_store import TypeStore
from materializer.versions import Named, Numbered
from query.discovery.catalogue import Served
from query.discovery.paths import Target
from query.forward.pruned_guard import refuse_emptied
from query.forward.versions_in_bodies import in_its_own_words, in_our_words
from query.http.status import ApiError
from query.http.tunnels import BrokenTunnel, tunnel, wants_upgrade
from query.http.warnings import warning_headers
from query.http.websocket import refuse_foreign_pages

log = structlog.get_logger("query.forward.forwarding")

# Seconds to connect to a cluster, and that an answer is held back until what it says can be read here.
_CONNECT = 10.0
_READABLE = 3.0
# Bytes of an answer that is looked into; a larger one is a list of what was deleted, or none of ours.
_READ_LIMIT = 16 * 1024 * 1024
_CHUNK = 64 * 1024

# Headers of one connection (RFC 9110, 7.6.1), and those that this side sets itself.
_OF_CONNECTION = frozenset(
    {
        "connection",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Beginnings of headers by which a proxy with a certificate for that says who asks, and by which callers themselves do.
_OF_FRONT_PROXIES = "x-remote-"
_OF_CALLERS = ("authorization", "cookie", "impersonate-")
# Methods after which the cluster's objects may be others.
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class NoUpstream(Exception):
    """This instance cannot reach a cluster's API server by its own means; one line that says why."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a cluster's API server is, and as whom to speak to it.

    `url` without a slash at its end. `identity`: headers that say who asks, instead of all of the caller's that do;
    None: the caller's are passed on. `proxy`: URL of an HTTP proxy on the way.
    """

    url: str
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    identity: Sequence[tuple[str, str]] | None = None
    proxy: str | None = None


class Upstreams(Protocol):
    """Knows the API servers of clusters."""

    def has(self, cluster: str) -> bool:
        """Whether a cluster is one of those that it knows."""
        ...

    def using(self, cluster: str) -> AbstractAsyncContextManager[Upstream]:
        """A cluster's API server, for one request. Raises NoUpstream."""
        ...


class _Meta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: list[str] | None = None


class _Details(msgspec.Struct):
    uid: str = ""


class _Answered(msgspec.Struct, rename="camel"):
    """What an answer may be: an object, a list of deleted ones, or a Status."""

    kind: str = ""
    api_version: str = ""
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    details: _Details | None = None
    items: list[_Answered] | None = None


class _DeleteOptions(msgspec.Struct, rename="camel"):
    dry_run: list[str] | None = None


@dataclass(frozen=True, slots=True)
class _Expected:
    """What must be readable here: an object at least as new as `version`, or that the one with `uid` is gone."""

    place: ObjectName
    uid: str
    version: str
    gone: bool

    def fulfilled(self, kind: TypeStore | None, cluster: str) -> bool:
        entry = None if kind is None else kind.get(cluster, self.place)
        if self.gone:
            return entry is None or entry.uid != self.uid
        known = entry
        if known is None and kind is not None:
            known = kind.tombstones.get(cluster, {}).get(self.place)
        return known is not None and not newer(self.version, known.member_version)


class Forwarding:
    """Passes requests on to clusters. Owned by the service, which closes it."""

    def __init__(self, upstreams: Upstreams, materializer: Materializer) -> None:
        self._upstreams = upstreams
        self._materializer = materializer
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT),
                read_bufsize=_CHUNK,
            )
        return self._session

    async def forward(
        self,
        http: web.Request,
        cluster: str,
        segments: Sequence[str],
        target: Target | None,
        served: Served | None,
        warnings: list[str],
        versions: Named,
    ) -> web.StreamResponse:
        """Answers a request with the cluster's own answer. `segments`: its path below the cluster.

        `target` and `served`: the resource it names, if it is one that is synced. `versions`: how they are written in
        what the client reads here. Raises ApiError 403, 409, 413, 503, 504.
        """
        refuse_foreign_pages(http)
        try:
            async with self._upstreams.using(cluster) as upstream:
                path = "".join("/" + quote(segment, safe=":@!$&'()*+,;=~") for segment in segments)
                if http.rel_url.raw_path.endswith("/"):
                    # To what is behind a proxy subresource it makes a difference.
                    path += "/"
                url = f"{upstream.url}{path}"
                if http.rel_url.raw_query_string:
                    url = f"{url}?{http.rel_url.raw_query_string}"
                headers = identified(forwarded_headers(http), upstream)
                if wants_upgrade(http):
                    if upstream.proxy is not None:
                        raise ApiError(503, f"{cluster} is behind a proxy, through which streams are not passed on")
                    return await tunnel(http, url, headers, upstream.tls, upstream.server_name, _CONNECT)
                return await self._exchange(http, cluster, url, headers, upstream, target, served, warnings, versions)
        except NoUpstream as problem:
            raise ApiError(503, f"requests cannot be passed on to cluster {cluster} from here: {problem}") from None
        except BrokenTunnel as problem:
            raise ApiError(503, f"cluster {cluster}: {problem}") from None

    async def _exchange(
        self,
        http: web.Request,
        cluster: str,
        url: str,
        headers: CIMultiDict[str],
        upstream: Upstream,
        target: Target | None,
        served: Served | None,
        warnings: list[str],
        versions: Named,
    ) -> web.StreamResponse:
        body: bytes | aiohttp.StreamReader | None = None
        looked_into = served is not None and target is not None and http.method in _WRITES
        known: Entry | None = None
        if served is not None and target is not None and looked_into:
            # Every server can answer in JSON; protobuf could not be looked into.
            ranges = [part for part in ",".join(headers.popall("Accept", ())).split(",") if "protobuf" not in part]
            headers["Accept"] = ",".join(ranges) or "application/json"
            headers.popall("Accept-Encoding", None)
            known = self._known(cluster, target, served)
        if http.can_read_body:
            if looked_into:
                body = await read_body(http)
                if http.method == "PUT" and served is not None and served.info.pruned and known is not None:
                    encoded = "Content-Encoding" in http.headers
                    refuse_emptied(http.content_type, encoded, body, known.body, served.info.pruned)
                if "Content-Encoding" not in http.headers:
                    numbered = isinstance(versions, Numbered)
                    words = partial(in_its_own_words, http.content_type, body, known, numbered=numbered)
                    # YAML takes so long to read that others go on meanwhile.
                    body = await asyncio.to_thread(words) if "yaml" in http.content_type else words()
            else:
                body = http.content
                if "Content-Length" in http.headers:
                    headers["Content-Length"] = http.headers["Content-Length"]
        try:
            answer = await self._client().request(
                http.method,
                URL(url, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                skip_auto_headers=("User-Agent", "Accept", "Content-Type", "Accept-Encoding"),
                ssl=True if upstream.tls is None else upstream.tls,
                server_hostname=upstream.server_name,
                proxy=upstream.proxy,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as cause:
            raise ApiError(503, f"cluster {cluster} cannot be reached: {one_line(cause)}") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as cause:
            text = f"cluster {cluster} broke off before it answered: {one_line(cause)}"
            if http.method in _WRITES:
                text += "; whether it did what was asked is unknown"
            raise ApiError(504, text) from None
        async with answer:
            content: bytes | None = None
            if looked_into and (answer.content_length or 0) <= _READ_LIMIT:
                try:
                    content = await answer.read()
                except (aiohttp.ClientError, OSError, TimeoutError) as cause:
                    raise ApiError(
                        504, f"cluster {cluster} broke off in its answer of {answer.status}: {one_line(cause)}"
                    ) from None
            if content is not None and answer.status < 300:
                assert served is not None
                assert target is not None
                found = _parsed(content)
                if found is not None:
                    dry = _dry(http, body if isinstance(body, bytes) else b"")
                    before = "" if known is None else known.uid
                    if not dry and not await self._readable(
                        http.method, cluster, target, served, content, found, before
                    ):
                        warnings.append(f"{cluster} has done it, but it cannot be read here yet")
                    if _is_object(found, target, served):
                        here = self._known(cluster, target, served, found.metadata.name)
                        content = in_our_words(content, here, versions, cluster)
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            copy_headers(answer.headers, response.headers)
            for name, value in warning_headers(warnings):
                response.headers.add(name, value)
            if content is not None:
                response.headers.popall("Content-Length", None)
                response.content_length = len(content)
            await response.prepare(http)
            if content is not None:
                await response.write(content)
            else:
                try:
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
                except (aiohttp.ClientError, TimeoutError) as cause:
                    log.info("a cluster broke off in its answer", cluster=cluster, reason=one_line(cause))
                    return broken_off(http, response)
            await response.write_eof()
            return response

    def _known(self, cluster: str, target: Target, served: Served, name: str = "") -> Entry | None:
        """The object that a request is about as it is here, or another one of that namespace."""
        kind = self._materializer.store.types.get(served.info.group_resource)
        return None if kind is None else kind.get(cluster, ObjectName((target.namespace, name or target.name)))

    # -- the second source -------------------------------------------------------------------------------------------

    async def _readable(
        self, method: str, cluster: str, target: Target, served: Served, text: bytes, found: _Answered, before: str
    ) -> bool:
        """Returns when what a cluster has answered can be read here; False if that takes too long.

        `before`: the uid of the object that was here when it was asked.
        """
        key = served.info.group_resource
        expected = list(_expected(method, target, found, before))
        if not expected:
            return True
        if method != "DELETE" and _is_object(found, target, served) and served.stored.get(cluster) == target.version:
            try:
                await self._materializer.append(cluster, *key, text, timeout=_READABLE)
            except NotTaken as reason:
                log.debug("the cluster's watch has to bring it", cluster=cluster, reason=str(reason))
            except NotThereYet:
                return False
            else:
                return True
        store = self._materializer.store
        kind = store.types.get(key)
        if served.info.namespaces or served.info.selector:
            # What is not here may be none that is synced.
            expected = [one for one in expected if kind is not None and kind.get(cluster, one.place) is not None]

        def there() -> bool:
            kind = store.types.get(key)
            return all(one.fulfilled(kind, cluster) for one in expected)

        try:
            await self._materializer.wait_until(key, there, _READABLE)
        except NotThereYet:
            return False
        return True


def identified(headers: CIMultiDict[str], upstream: Upstream) -> CIMultiDict[str]:
    """Headers of a request, with those that say who asks as the upstream wants them."""
    kept = CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if not name.lower().startswith(_OF_FRONT_PROXIES)
        and (upstream.identity is None or not name.lower().startswith(_OF_CALLERS))
    )
    kept.extend(upstream.identity or ())
    return kept


async def read_body(http: web.BaseRequest) -> bytes:
    """A request's body, of at most the application's limit. Raises ApiError 400 and 413."""
    try:
        return await http.read()
    except web.HTTPRequestEntityTooLarge:
        raise ApiError(413, "the body is too large") from None
    except (web.RequestPayloadError, HttpProcessingError) as cause:
        raise ApiError(400, f"the body cannot be read: {one_line(cause)}") from None


def _parsed(text: bytes) -> _Answered | None:
    """What a cluster has answered, if it is JSON of any use."""
    try:
        return msgspec.json.decode(text, type=_Answered, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _is_object(found: _Answered, target: Target, served: Served) -> bool:
    """Whether the answer is an object of the type that the request is about, whole."""
    api_version = f"{target.group}/{target.version}" if target.group else target.version
    return (found.kind, found.api_version) == (served.info.kind, api_version)


def _expected(method: str, target: Target, found: _Answered, before: str) -> Iterator[_Expected]:
    if found.items is not None:
        for item in found.items:
            yield from _expected(method, target, msgspec.structs.replace(item, items=None), "")
        return
    meta = found.metadata
    if found.kind == "Status":
        # Of a deletion: the object is gone. Others (evictions) tell nothing of it.
        uid = found.details.uid if found.details is not None and found.details.uid else before
        if method == "DELETE" and target.name and not target.subresource and uid:
            yield _Expected(ObjectName((target.namespace, target.name)), uid, "", gone=True)
        return
    name = meta.name or target.name
    if not (meta.uid and meta.resource_version and name):
        return
    gone = method == "DELETE" and (
        meta.deletion_timestamp is None or (meta.deletion_grace_period_seconds == 0 and not meta.finalizers)
    )
    yield _Expected(ObjectName((meta.namespace or target.namespace, name)), meta.uid, meta.resource_version, gone)


def _dry(http: web.Request, body: bytes) -> bool:
    """Whether a request only asks what would happen."""
    if "dryRun" in http.query:
        return True
    if http.method != "DELETE" or not body:
        return False
    try:
        return bool(msgspec.json.decode(body, type=_DeleteOptions).dry_run)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def forwarded_headers(http: web.Request) -> CIMultiDict[str]:
    """A request's headers but for those of its connection (RFC 9110, 7.6.1)."""
    dropped = {name.strip().lower() for name in http.headers.get("Connection", "").split(",")} | _OF_CONNECTION
    return CIMultiDict(
        (name, value) for name, value in http.headers.items() if name.lower() not in dropped | {"content-length"}
    )


def broken_off(http: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Ends an answer whose source broke off, so that the client notices that this was not the end."""
    if http.transport is not None:
        http.transport.close()
    return response


def copy_headers(given: CIMultiDictProxy[str], headers: CIMultiDict[str]) -> None:
    """Copies the headers of an answer that are not of its connection."""
    dropped = {name.strip().lower() for name in given.get("Connection", "").split(",")} | _OF_CONNECTION
    for name, value in given.items():
        if name.lower() not in dropped:
            headers.add(name, value)


def one_line(cause: BaseException) -> str:
    """An error's text, or its type where it has none."""
    return " ".join(str(cause).split()) or type(cause).__name__
