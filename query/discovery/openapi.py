"""OpenAPI: the documents of member clusters, from memory: /openapi/v3 by group and version, /openapi/v2 as a whole.

Below `/clusters/<c>` exactly that cluster's. At the root the union: of each group and version the document that most
clusters have, and the version 2 document with the most paths; both with our own group, which is served there.
k8s.io/kube-openapi, pkg/handler and pkg/handler3.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import zlib
from collections import OrderedDict
from collections.abc import Container, Iterable
from email.utils import formatdate
from urllib.parse import quote

import msgspec
from aiohttp import web

from deltalog.wire.records import ClusterDocument, DocumentName
from materializer.cluster_facts import ClusterFacts
from materializer.store import Store
from query.discovery import clusterpedia_openapi
from query.discovery.clusterpedia_openapi import ExtendedDocuments
from query.http.accept import Accept
from query.http.rendering import JSON, takes_gzip
from query.http.status import ApiError, no_such_path

# Bytes of text from which on unpacking is left to a thread.
_LARGE = 256 * 1024
# Seconds that what has its hash in its URL may be kept.
_YEAR = 365 * 24 * 3600
_GZIP_FORMAT = 31
# Documents of different parts of the clusters that are kept.
_SCOPES = 256

# As clients ask for it, older and newer ones (pkg/handler/handler.go); `*` is JSON.
_JSON_RANGES = frozenset({"application/json", "application/*", "*/*"})
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_PROTOBUF_RANGES = frozenset({_PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"})
_TYPES = {"json": JSON, "protobuf": _PROTOBUF}

_VERSION2_JSON = DocumentName("v2", "json")


class ScopedOpenApi:
    """The documents of one scope at one state of the log. `version2`: by their form, `json` and `protobuf`.

    `extended`: adds our own group to those; None: that is not served in this scope.
    """

    def __init__(
        self,
        version2: dict[str, ClusterDocument],
        version3: dict[str, ClusterDocument],
        extended: ExtendedDocuments | None = None,
    ) -> None:
        self.version2 = version2
        self.version3 = version3
        self._extended = extended

    async def answer(self, http: web.Request, segments: list[str]) -> web.Response:
        """Answers for the path below /openapi, given as its segments.

        Raises:
            ApiError: 404, there is no such document; 406, it has no form that is accepted.
        """
        if segments == ["v3"]:
            return self._index(http)
        if segments == ["v2"]:
            if not self.version2:
                raise no_such_path()
            form = _negotiated(http, self.version2)
            found = self.version2[form]
            if self._extended is not None:
                found = await self._extended.of(form, found)
            return await _send(http, found, _TYPES[form], {})
        document = self.version3.get("/".join(segments[1:])) if segments[:1] == ["v3"] else None
        if document is None:
            raise no_such_path()
        _negotiated(http, ("json",))
        headers = {}
        if wanted := http.query.get("hash"):
            if wanted != document.hash:
                moved = f"{_prefix(http, segments)}/v3/{quote('/'.join(segments[1:]))}?hash={document.hash}"
                return web.Response(status=301, headers={"Location": moved})
            headers["Cache-Control"] = "public, immutable"
            headers["Expires"] = formatdate(time.time() + _YEAR, usegmt=True)
        return await _send(http, document, JSON, headers)

    def _index(self, http: web.Request) -> web.Response:
        """Where the documents are. Their URLs are the server's, whole, so that clients of any age find them.

        client-go takes URLs that begin with /openapi/v3 as relative to what it was given as the server's address, and
        all others as they are; before 1.28 all as they are (k8s.io/client-go, openapi/client.go).
        """
        if not self.version3:
            raise no_such_path()
        prefix = _prefix(http, ["v3"])
        paths = {
            name: {"serverRelativeURL": f"{prefix}/v3/{quote(name)}?hash={document.hash}"}
            for name, document in sorted(self.version3.items())
        }
        body = msgspec.json.encode({"paths": paths}) + b"\n"
        headers = {"ETag": f'"{hashlib.sha256(body).hexdigest().upper()}"', "Cache-Control": "no-cache, private"}
        if _is_known(http, headers["ETag"]):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=JSON, headers=headers)


async def _send(
    http: web.Request, document: ClusterDocument, content_type: str, headers: dict[str, str]
) -> web.Response:
    headers = {
        "Cache-Control": "no-cache, private",
        **headers,
        "ETag": f'"{document.hash}"',
        "Vary": "Accept, Accept-Encoding",
    }
    if _is_known(http, headers["ETag"]):
        return web.Response(status=304, headers=headers)
    # What the member said it is does not count: it is shown under our name.
    headers["Content-Type"] = content_type
    body = document.body
    if takes_gzip(http.headers.get("Accept-Encoding", "")):
        headers["Content-Encoding"] = "gzip"
    elif document.size < _LARGE:
        body = zlib.decompress(body, _GZIP_FORMAT)
    else:
        body = await asyncio.to_thread(zlib.decompress, body, _GZIP_FORMAT)
    return web.Response(body=body, headers=headers)


def _negotiated(http: web.Request, forms: Container[str]) -> str:
    """The preferred form of those that exist. Raises ApiError 406."""
    accept = Accept.of(http.headers)
    for media in ("*/*",) if accept.any else (given.name for given in accept.ranges):
        form = "json" if media in _JSON_RANGES else "protobuf" if media in _PROTOBUF_RANGES else ""
        if form in forms:
            return form
    known = ", ".join(content_type for form, content_type in _TYPES.items() if form in forms)
    raise ApiError(406, f"only the following media types are accepted: {known}")


def _is_known(http: web.Request, etag: str) -> bool:
    """Whether If-None-Match names an entity tag, or any (RFC 9110, 13.1.2)."""
    named = [part.strip().removeprefix("W/") for part in http.headers.get("If-None-Match", "").split(",")]
    return etag in named or "*" in named


def _prefix(http: web.Request, segments: list[str]) -> str:
    """The path up to and including /openapi, as the client wrote it: the scope that it asked in."""
    return "/" + "/".join(http.rel_url.raw_path.strip("/").split("/")[: -len(segments)])


def _of_all(clusters: Iterable[ClusterFacts], extended: ExtendedDocuments | None) -> ScopedOpenApi:
    """The union of all clusters' documents, with our own group if they are to be `extended`."""
    named = sorted(clusters, key=lambda cluster: cluster.name)
    having: dict[str, dict[str, list[ClusterDocument]]] = {}
    for cluster in named:
        for (version, name), document in cluster.documents.items():
            if version == "v3":
                having.setdefault(name, {}).setdefault(document.hash, []).append(document)
    # Of those that equally many have, the first cluster's: dictionaries keep the order, max takes the first.
    version3 = {name: max(by_hash.values(), key=len)[0] for name, by_hash in having.items()}
    version2: dict[str, ClusterDocument] = {}
    # Both forms of the same cluster, as far as it has them.
    described = [cluster for cluster in named if _VERSION2_JSON in cluster.documents]
    if described:
        chosen = max(described, key=lambda cluster: cluster.documents[_VERSION2_JSON].paths)
        version2 = _version2(chosen)
    if extended is not None:
        version3[clusterpedia_openapi.NAME] = clusterpedia_openapi.version3()
    return ScopedOpenApi(version2, version3, extended)


def _version2(cluster: ClusterFacts) -> dict[str, ClusterDocument]:
    return {name: document for (version, name), document in cluster.documents.items() if version == "v2"}


def _of_one(cluster: ClusterFacts) -> ScopedOpenApi:
    version3 = {name: document for (version, name), document in cluster.documents.items() if version == "v3"}
    return ScopedOpenApi(_version2(cluster), version3)


class OpenApiByScope:
    """The documents of all scopes, put together when first asked for after a change."""

    def __init__(self) -> None:
        self._state: tuple[int, int] = (-1, -1)
        self._made: dict[tuple[str | None, bool], ScopedOpenApi] = {}
        # Of some of the clusters, as users may see them.
        self._among: OrderedDict[tuple[frozenset[str], bool], ScopedOpenApi] = OrderedDict()
        self._extended = ExtendedDocuments()

    def of(
        self,
        generation: int,
        store: Store,
        cluster: str | None,
        among: frozenset[str] | None = None,
        *,
        own: bool = False,
    ) -> ScopedOpenApi | None:
        """The documents of one cluster, of all (None), or of those in `among`; None if the one cluster has none.

        `own`: those of all with our own group. `generation`: the store's, see `Materializer.generation`. O(1) unless
        documents have changed since the last call.
        """
        state = (generation, store.documents)
        if state != self._state:
            self._state = state
            self._made.clear()
            self._among.clear()
        if cluster is None and among is not None and not among >= store.clusters.keys():
            return self._of_some(store, frozenset(among & store.clusters.keys()), own)
        key = (cluster, own)
        made = self._made.get(key)
        if made is None:
            if cluster is None:
                made = _of_all(store.clusters.values(), self._extended if own else None)
            elif store.clusters[cluster].documents:
                made = _of_one(store.clusters[cluster])
            else:
                return None
            self._made[key] = made
        return made

    def _of_some(self, store: Store, among: frozenset[str], own: bool) -> ScopedOpenApi:
        key = (among, own)
        made = self._among.get(key)
        if made is None:
            clusters = [store.clusters[name] for name in among]
            made = self._among[key] = _of_all(clusters, self._extended if own else None)
            while len(self._among) > _SCOPES:
                self._among.popitem(last=False)
        self._among.move_to_end(key)
        return made
