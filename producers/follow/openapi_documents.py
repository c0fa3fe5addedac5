"""OpenAPI: a member cluster's documents, kept in the log so that they can be served while it is down.

One control record for each document: `v2` as JSON and protobuf, `v3` by group and version. What is unchanged
by its hash or ETag is not read again (k8s.io/kube-openapi, pkg/handler and pkg/handler3).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

import msgspec
import structlog

from deltalog import HistoryEnded, LogUnavailable
from deltalog.jetstream.backoff import Backoff, Once
from deltalog.wire.delta import UNDECODABLE
from deltalog.wire.kubernetes import GroupVersion
from deltalog.wire.records import ClusterDocument, DocumentName, OpenApiDocument
from producers.flag import Flag
from producers.follow.documents import KnownDocument, fits, packed
from producers.follow.ownership import Deposed
from producers.follow.recorded import Recorded
from producers.supervision import Complaints, being_cancelled
from producers.timing import DEFAULT, ProducerTiming
from producers.upstream.apiserver import ApiServer, RequestRefused, Unreachable

log = structlog.get_logger("producers.follow.openapi_documents")

V2 = "v2"
V3 = "v3"
JSON = "json"
PROTOBUF = "protobuf"
# How one begins: its first field, swagger, is "2.0" (github.com/google/gnostic, openapiv2/OpenAPIv2.proto).
_SWAGGER = b"\x0a\x032."

# Documents that may take longer than that until the look ends.
_TIRED = 3
# Bytes of a document before compression; a real cluster's largest has about five million.
_LARGEST = 32 * 1024 * 1024

_MEDIA = {
    JSON: "application/json",
    PROTOBUF: "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
}
# Answers of servers without documents for us: no failures to retry soon.
_NOTHING = (401, 403, 404, 405, 406)


class _Unusable(Exception):
    """What was answered is no OpenAPI document, or too large."""


class _Place(msgspec.Struct, rename="camel"):
    server_relative_url: str = msgspec.field(default="", name="serverRelativeURL")


class _Index(msgspec.Struct):
    paths: dict[str, _Place]


class _V2(msgspec.Struct):
    swagger: str
    paths: dict[str, msgspec.Raw] = {}


class _V3(msgspec.Struct):
    openapi: str


class _Answer(NamedTuple):
    body: bytes
    content_type: str
    etag: str


class OpenApi:
    """Keeps the log's documents of one cluster current for as long as it is owned. Never the cause that it is not.

    `first_lists` returns when more important things have been read.
    """

    def __init__(
        self,
        server: ApiServer,
        recorded: Recorded,
        *,
        first_lists: Callable[[], Awaitable[None]],
        timing: ProducerTiming = DEFAULT,
    ) -> None:
        self._server = server
        self._recorded = recorded
        self._known = recorded.openapi.known
        self._first_lists = first_lists
        self._timing = timing
        self._woken = Flag()
        # Documents that are too large, by the tag they had.
        self._left_out: dict[DocumentName, str] = {}
        self._complain = Once(
            lambda reason: log.info("OpenAPI cannot be read", cluster=recorded.owner.cluster, reason=reason)
        )

        self._failed = Complaints(log, "OpenAPI failed", cluster=recorded.owner.cluster)

    def look(self) -> None:
        """The cluster's types may have changed, and so may its documents."""
        self._woken.set()

    async def run(self) -> None:
        """Reads what changed, again and again. Raises what appending raises."""
        timing = self._timing
        await self._woken.wait()
        try:
            async with asyncio.timeout(timing.openapi_first_lists):
                await self._first_lists()
        except TimeoutError:
            pass
        whole = True
        retry = Backoff(timing.openapi_again, timing.openapi_every, jitter=0.2)
        follow_ups: list[float] = []
        while True:
            self._woken.clear()
            if await self._read(whole=whole):
                retry.reset()
                pause = (follow_ups.pop(0) if follow_ups else timing.openapi_every) * random.uniform(0.8, 1.2)
            else:
                pause = retry.pause()
            whole = True
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
                whole, follow_ups = False, list(timing.openapi_after)
            except TimeoutError:
                pass

    async def _read(self, *, whole: bool) -> bool:
        """Reads what changed; without version 2 unless `whole`. False if it is worth to try again soon."""
        try:
            good = await self._read_v3()
            if whole:
                for name in _MEDIA:
                    good = await self._read_v2(name) and good
        except (Unreachable, TimeoutError) as cause:
            self._complain(str(cause) or f"no answer within {self._timing.openapi_document:g} s")
            return False
        except (LogUnavailable, HistoryEnded, Deposed):
            raise
        except Exception as cause:
            if being_cancelled():
                raise
            self._failed(cause)
            return False
        if good:
            self._complain.clear()
            self._failed.clear()
        return good

    # -- asking ----------------------------------------------------------------------------------------------------

    async def _get(self, path: str, query: dict[str, str], *, accept: str, known: str) -> _Answer | None:
        """An answer; None if the server has none for us, or the document is the known one.

        Raises Unreachable, TimeoutError, _Unusable; RequestRefused for a server that is in trouble.
        """
        try:
            async with (
                asyncio.timeout(self._timing.openapi_document),
                self._server.open(path, query, accept=accept, known=known) as (response, _),
            ):
                body = bytearray()
                async for chunk in response.chunks():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise _Unusable(f"{path} is larger than {_LARGEST} bytes")
                headers = response.headers
                return _Answer(bytes(body), headers.get("Content-Type", ""), headers.get("ETag", ""))
        except RequestRefused as refused:
            if refused.code == 304 or refused.code in _NOTHING:
                return None
            raise

    async def _read_v3(self) -> bool:
        try:
            answer = await self._get("/openapi/v3", {}, accept=_MEDIA[JSON], known="")
            if answer is None:
                return True
            index = msgspec.json.decode(answer.body, type=_Index)
        except (RequestRefused, _Unusable, *UNDECODABLE) as cause:
            self._complain(f"/openapi/v3: {cause}")
            return False
        good, late = True, 0
        for name, place in sorted(index.paths.items()):
            if not name:
                continue
            tag = parse_qs(urlsplit(place.server_relative_url).query).get("hash", [""])[0]
            try:
                await self._read_document(name, tag)
            except TimeoutError:
                # An aggregated API may hang; it is not to take the others along.
                late += 1
                if late == _TIRED:
                    raise
                good = False
                self._complain(f"/openapi/v3/{name}: no answer within {self._timing.openapi_document:g} s")
            except (RequestRefused, _Unusable, *UNDECODABLE) as cause:
                self._complain(f"/openapi/v3/{name}: {cause}")
                good = False
        served = self._recorded.versions()
        for key in [key for key in self._known if key[0] == V3 and key[1] not in index.paths]:
            # A server that has just started has no documents of custom types for a while.
            if _group_version(key[1]) not in served:
                gone = OpenApiDocument(name=key, document=None)
                await self._recorded.append(gone, ttl=self._recorded.log.tombstone_ttl)
                del self._known[key]
        return good

    async def _read_document(self, name: str, tag: str) -> None:
        key = DocumentName(V3, name)
        known = self._known.get(key)
        if tag and (self._left_out.get(key) == tag or (known is not None and known.tag == tag)):
            return
        etag = known.tag if known is not None and not tag else ""
        path = f"/openapi/v3/{quote(name)}"
        answer = await self._get(path, {"hash": tag} if tag else {}, accept=_MEDIA[JSON], known=etag)
        if answer is not None:
            await self._take(key, answer, tag or answer.etag)

    async def _read_v2(self, name: str) -> bool:
        key = DocumentName(V2, name)
        known = self._known.get(key)
        etag = known.tag if known is not None else self._left_out.get(key, "")
        try:
            answer = await self._get("/openapi/v2", {}, accept=_MEDIA[name], known=etag)
            if answer is not None:
                await self._take(key, answer, answer.etag)
        except (RequestRefused, _Unusable, *UNDECODABLE) as cause:
            self._complain(f"/openapi/v2: {cause}")
            return False
        return True

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _take(self, key: DocumentName, answer: _Answer, tag: str) -> None:
        """Appends a document if it is another one. Raises _Unusable, what decoding raises, what appending raises."""
        known = self._known.get(key)
        # Megabytes take a while; others have their turn meanwhile.
        document = await asyncio.to_thread(_document, key, answer, "" if known is None else known.hash)
        if document is not None:
            fact = OpenApiDocument(name=key, document=document, tag=tag)
            control = self._recorded.owner.control(fact)
            if not fits(control, self._recorded.limit, f"openapi/{'/'.join(key)}", logged=key in self._left_out):
                self._left_out[key] = tag
                return
            await self._recorded.append(fact)
            self._known[key] = KnownDocument(document.hash, tag)
        elif known is not None:
            # The same by another name: the log need not know.
            self._known[key] = KnownDocument(known.hash, tag)
        self._left_out.pop(key, None)


def _document(key: DocumentName, answer: _Answer, known: str) -> ClusterDocument | None:
    """What was answered, as the log has it; None if it is the document with the hash that is known.

    Raises _Unusable and what is in UNDECODABLE.
    """
    version, name = key
    paths = 0
    if name == PROTOBUF and version == V2:
        # Not by its content type: up to 1.22 or so a kube-apiserver calls it application/octet-stream.
        if not answer.body.startswith(_SWAGGER):
            raise _Unusable(f"what came as {answer.content_type!r} is no protobuf of version 2")
    elif version == V2:
        found = msgspec.json.decode(answer.body, type=_V2)
        if not found.swagger.startswith("2."):
            raise _Unusable(f"swagger {found.swagger!r}")
        # Of several clusters the one with the most paths is shown where only one can be.
        paths = len(found.paths)
    elif not msgspec.json.decode(answer.body, type=_V3).openapi.startswith("3."):
        raise _Unusable("not of version 3")
    return packed(answer.body, known, paths)


def _group_version(name: str) -> GroupVersion | None:
    """The group and version that a document is of, by its name; None if it is of none."""
    root, *rest = name.split("/")
    if root == "api" and len(rest) == 1:
        return GroupVersion("", rest[0])
    if root == "apis" and len(rest) == 2:
        return GroupVersion(*rest)
    return None
