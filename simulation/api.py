"""The HTTP API of one cluster: paths, methods and bodies of kube-apiserver, over the registry."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import msgspec
import structlog
from aiohttp import web

from simulation import discovery, lists, openapi, patches, streams
from simulation.faults import Faults
from simulation.options import ListOptions, accepted_form, parse_options
from simulation.presentation import Presentation
from simulation.registry import CRDS, DeleteOptions, Registry, WriteOptions, parse_yaml
from simulation.resources import ResourceType
from simulation.status import (
    ApiError,
    bad_request,
    invalid_list_options,
    success,
    too_large_resource_version,
    unknown_path,
)
from simulation.storage import Collection, Stored
from simulation.watches import Watch

__all__ = ["Api"]

log = structlog.get_logger(__name__)

JSON = "application/json"
SLICE = 256
GZIP_FROM = 128 * 1024
MAX_BODY = 3 * 1024 * 1024
# How long a read waits for a version that the cluster has not reached, in seconds.
VERSION_WAIT = 3.0

Control = Callable[[Any], Awaitable[Any]]

_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Target:
    """What a path under a group's version names."""

    type: ResourceType
    version: str
    namespace: str
    name: str
    subresource: str
    watch: bool = False
    # Behind a proxy subresource.
    beyond: str = ""


class Api:
    """Serves one cluster. `controls` are the endpoints under /_simulation: name to function of the JSON body."""

    def __init__(
        self,
        registry: Registry,
        faults: Faults,
        *,
        token: str = "",
        gzip: bool = True,
        bookmark_interval: float = 60.0,
        seed: int | str = 0,
        controls: dict[str, Control] | None = None,
    ) -> None:
        self.registry = registry
        self.storage = registry.storage
        self.faults = faults
        self.token = token
        self.gzip = gzip
        self.bookmark_interval = bookmark_interval
        self.random = random.Random(seed)
        self.controls = controls or {}
        self._discovery: tuple[int, discovery.Groups] | None = None
        self._openapi: tuple[object, openapi.Documents] | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Every error is a Status object."""
        response = await self._answered(request)
        if not response.prepared:
            self._date(response)
        return response

    def _date(self, response: web.StreamResponse) -> None:
        if self.faults.clock:
            response.headers["Date"] = formatdate(time.time() + self.faults.clock, usegmt=True)

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ApiError as error:
            return _status(error)
        except web.HTTPException as error:
            return _status(ApiError(error.status, error.reason or "refused"))
        except (UnicodeError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
            # What a body can hold that the checks let through and JSON or text cannot take.
            return _status(bad_request(f"the request cannot be processed: {error}"))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = request.rel_url.raw_path
        parts = [unquote(part) for part in raw.strip("/").split("/")]
        if parts[0] == "_simulation":
            return await self._control(request, parts[1:])
        await self.faults.before_answer(parts)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise ApiError(401, "Unauthorized")
        head = parts[0]
        if head in ("livez", "readyz", "healthz"):
            return web.Response(text="ok")
        if head == "version" and len(parts) == 1:
            return self._json(request, discovery.version_info())
        if head == "openapi":
            return self._open_api(request, parts[1:])
        if head == "api":
            return await self._group(request, "", parts[1:])
        if head == "apis":
            if len(parts) == 1:
                return self._discover(request, core=False)
            return await self._group(request, parts[1], parts[2:])
        if raw == "/":
            paths = ["/api", "/api/v1", "/apis", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            return self._json(request, {"paths": paths})
        raise unknown_path()

    async def _control(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        control = self.controls.get("/".join(parts))
        if control is None:
            raise unknown_path()
        if request.method not in ("GET", "POST"):
            raise _not_allowed()
        wanted: Any = None
        if request.method == "POST":
            data = await request.read()
            wanted = _json_body(data) if data else {}
        return self._json(request, await control(wanted))

    # Discovery

    def _groups(self) -> discovery.Groups:
        known = self._discovery
        if known is None or known[0] != self.storage.types_changed:
            types = [collection.type for collection in self.storage.collections.values()]
            groups = discovery.groups(types)
            for group, version in sorted(self.registry.aggregation.unanswered):
                groups.setdefault(group, {}).setdefault(version, [])
            known = (self.storage.types_changed, groups)
            self._discovery = known
        return known[1]

    def _away(self, group: str, version: str) -> bool:
        return not self.registry.aggregation.answers(group, version)

    def _listed(self) -> discovery.Groups:
        """The groups that discovery shows."""
        groups = self._groups()
        return discovery.without(groups, self._away) if self.faults.away_shown == "missing" else groups

    def _discover(self, request: web.BaseRequest, *, core: bool) -> web.StreamResponse:
        _only(request, "GET")
        form, _ = accepted_form(request.headers.get("Accept", ""))
        headers = {"Vary": "Accept"}
        if form == "discovery" and self.faults.aggregated_discovery:
            cached = self.faults.away_shown == "cached"
            data = _encode(discovery.aggregated(self._listed(), core=core, stale=self._away, cached=cached))
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest().upper()}"'
            headers["Content-Type"] = discovery.AGGREGATED
            if request.headers.get("If-None-Match") == headers["ETag"]:
                return web.Response(status=304, headers=headers)
            return web.Response(body=data, headers=headers)
        address = request.headers.get("Host", "")
        legacy = discovery.api_versions(address) if core else discovery.api_group_list(self._listed())
        return self._json(request, legacy, headers=headers)

    def _open_api(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        _only(request, "GET")
        documents = self._documents()
        if parts == ["v2"]:
            document = documents.v2(request.headers.get("Accept", ""))
        elif parts == ["v3"]:
            document = documents.index()
        else:
            found = documents.of("/".join(parts[1:])) if parts[:1] == ["v3"] else None
            if found is None:
                raise unknown_path()
            document = found
        etag = f'"{document.etag}"'
        headers = {"ETag": etag, "Vary": "Accept", "Content-Type": document.content_type}
        asked = request.query.get("hash")
        if asked and len(parts) > 1:
            if asked != document.etag:
                moved = f"/openapi/{'/'.join(parts)}?hash={document.etag}"
                return web.Response(status=301, headers={"Location": moved})
            headers["Cache-Control"] = "public, immutable"
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=document.body, headers=headers)

    def _documents(self) -> openapi.Documents:
        definitions = list(self.registry.collection(CRDS).in_order())
        state = (self.storage.types_changed, tuple((one.name, one.version) for one in definitions))
        if self._openapi is None or self._openapi[0] != state:
            self._openapi = (state, openapi.Documents(self._groups(), lambda: openapi.custom_schemas(definitions)))
        return self._openapi[1]

    async def _group(self, request: web.BaseRequest, group: str, parts: list[str]) -> web.StreamResponse:
        if not parts:
            if not group:
                return self._discover(request, core=True)
            _only(request, "GET")
            versions = self._listed().get(group)
            if versions is None:
                raise unknown_path()
            return self._json(request, discovery.api_group(group, versions))
        version, *rest = parts
        if (group, *parts) == ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"):
            return await self._review(request, "SelfSubjectAccessReview")
        if (group, version) in self.registry.aggregation.unanswered:
            raise ApiError(503, "service unavailable")
        types = self._groups().get(group, {}).get(version)
        if types is None:
            raise unknown_path()
        if not rest:
            _only(request, "GET")
            return self._json(request, discovery.api_resource_list(group, version, types))
        return await self._resource(request, self._target(types, version, rest))

    def _target(self, types: list[ResourceType], version: str, parts: list[str]) -> Target:
        watch = parts[0] == "watch" and len(parts) > 1
        if watch:
            parts = parts[1:]
        namespace = ""
        if parts[0] == "namespaces" and len(parts) >= 3 and parts[2] not in ("status", "finalize"):
            namespace, parts = parts[1], parts[2:]
        beyond = ""
        if len(parts) > 3 and parts[2] == "proxy":
            beyond, parts = "/".join(parts[3:]), parts[:3]
        if len(parts) > 3 or "" in parts:
            raise unknown_path()
        resource, name, subresource = [*parts, "", ""][:3]
        for type in types:
            if type.resource == resource:
                break
        else:
            raise unknown_path()
        if (namespace and not type.namespaced) or (name and type.namespaced and not namespace):
            raise unknown_path()
        if subresource and subresource not in type.subresources:
            raise unknown_path()
        return Target(type, version, namespace, name, subresource, watch, beyond)

    # Resources

    async def _resource(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        method = request.method
        if not target.subresource and self._verb(request, target) not in target.type.verbs:
            raise _not_allowed()
        if target.subresource == "log":
            return await self._log(request, target)
        if target.subresource in ("attach", "exec", "portforward", "proxy"):
            return await self._converse(request, target)
        if target.subresource == "scale":
            return await self._scale(request, target)
        if method == "GET":
            if target.name and not target.watch:
                return self._get(request, target)
            query = request.query
            if target.watch or query.get("watch", "false").lower() not in ("false", "0"):
                return await self._watch(request, target)
            return await self._list(request, target)
        if method == "POST" and not target.name:
            return await self._create(request, target)
        if method == "PUT" and target.name:
            return await self._update(request, target)
        if method == "PATCH" and target.name:
            return await self._patch(request, target)
        if method == "DELETE" and not target.subresource:
            return await self._delete(request, target)
        raise _not_allowed()

    def _verb(self, request: web.BaseRequest, target: Target) -> str:
        if request.method == "GET":
            if target.watch or request.query.get("watch", "false").lower() not in ("false", "0"):
                return "get" if target.name and not target.watch else "watch"
            return "get" if target.name else "list"
        if request.method == "DELETE":
            return "delete" if target.name else "deletecollection"
        return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(request.method, "")

    def _presentation(self, request: web.BaseRequest, target: Target) -> Presentation:
        form, version = accepted_form(request.headers.get("Accept", ""))
        include = request.query.get("includeObject", "Metadata")
        return Presentation(target.type, target.version, form, version or "v1", include)

    def _collection(self, target: Target) -> Collection:
        found = self.storage.collections.get(target.type.key)
        if found is None:
            # Removed while the request waited.
            raise unknown_path()
        return found

    def _get(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        presentation = self._presentation(request, target)
        if presentation.form == "metadata_list":
            raise _wrong_form("PartialObjectMetadataList")
        stored = self.registry.get(target.type, target.namespace, target.name)
        return _body(presentation.single(stored))

    async def _list(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        presentation = self._presentation(request, target)
        if presentation.form == "metadata":
            raise _wrong_form("PartialObjectMetadata")
        options = parse_options(target.type, target.namespace, request.query, watch=False)
        await self._reach(self._collection(target), options)
        found = lists.page(self.storage, self._collection(target), options)
        opening, between, closing = presentation.list_frame(found.metadata)
        pieces = _pieces(presentation, found.objects, opening, between, closing)
        return await self._stream(request, pieces, len(found.objects))

    async def _reach(self, collection: Collection, options: ListOptions) -> None:
        """Wait for the version that is asked for. Raises ApiError 504."""
        wanted = options.version or 0
        if self.storage.version >= wanted:
            return
        news = asyncio.Event()
        collection.listeners.add(news.set)
        try:
            async with asyncio.timeout(VERSION_WAIT):
                while self.storage.version < wanted:
                    news.clear()
                    await news.wait()
        except TimeoutError:
            if self.storage.version < wanted:
                raise too_large_resource_version(wanted, self.storage.version) from None
        finally:
            collection.listeners.discard(news.set)

    async def _stream(self, request: web.BaseRequest, pieces: Iterator[bytes], count: int) -> web.StreamResponse:
        """Send a list in pieces, so that a large one holds up nobody; gzip where asked and worth it."""
        first = next(pieces)
        if count <= SLICE:
            data = first + b"".join(pieces)
            if len(data) < GZIP_FROM:
                return _body(data)
            pieces, first = iter((data,)), b""
        response = web.StreamResponse(headers={"Content-Type": JSON})
        compressor = None
        if self.gzip and "gzip" in request.headers.get("Accept-Encoding", ""):
            response.headers["Content-Encoding"] = "gzip"
            response.headers["Vary"] = "Accept-Encoding"
            # Level 1 as kube-apiserver has it; 31: with the header of gzip.
            compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
        response.enable_chunked_encoding()
        self._date(response)
        await response.prepare(request)
        if compressor is None:
            if first:
                await response.write(first)
            for piece in pieces:
                await response.write(piece)
        else:
            packed = compressor.compress(first)
            if packed:
                await response.write(packed)
            for piece in pieces:
                # zlib lets go of the interpreter, so that watches go on meanwhile.
                packed = await asyncio.to_thread(compressor.compress, piece)
                if packed:
                    await response.write(packed)
            await response.write(compressor.flush())
        await response.write_eof()
        return response

    async def _watch(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        presentation = self._presentation(request, target)
        support = self.faults.initial_events
        query: dict[str, str] = dict(request.query)
        if support == "refused" and query.get("sendInitialEvents"):
            message = "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            raise invalid_list_options([("FieldValueForbidden", message, "sendInitialEvents")])
        if target.watch and target.name:
            query["fieldSelector"] = f"metadata.name={target.name}"
        options = parse_options(
            target.type, target.namespace, query, watch=True, initial_events_known=support != "ignored"
        )
        if options.initial_events:
            await self._reach(self._collection(target), options)
        # As a kube-apiserver: none or 0 is a length of its choice, a negative one is over at once.
        lifetime = float(max(options.timeout, 0)) if options.timeout else self.random.uniform(1800, 3600)
        shorter = self.faults.lifetime()
        if shorter is not None:
            lifetime = min(lifetime, shorter)
        watch = Watch(
            self.storage,
            self._collection(target),
            options,
            presentation,
            self.faults,
            self.bookmark_interval,
            lifetime,
        )
        watch.begin()
        response = web.StreamResponse(headers={"Content-Type": JSON, "Cache-Control": "no-cache, private"})
        response.enable_chunked_encoding()
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self.faults.watches[watch_key := object()] = transport
        try:
            self._date(response)
            await response.prepare(request)
            await watch.run(response.write)
            await self.faults.flowing.wait()
            await response.write_eof()
        except ConnectionError:
            # The client is gone, or a fault has cut the connection.
            log.debug("watch broken", resource=target.type.qualified)
        finally:
            self.faults.watches.pop(watch_key, None)
        return response

    async def _create(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        if target.type.namespaced and not target.namespace:
            raise _not_allowed()
        presentation = self._presentation(request, target)
        body = _object_body(request, await request.read())
        stored = self.registry.create(target.type, target.namespace, body, _write_options(request, target))
        return _body(presentation.single(stored), 201)

    async def _update(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        presentation = self._presentation(request, target)
        body = _object_body(request, await request.read())
        stored = self.registry.update(
            target.type,
            target.namespace,
            target.name,
            body,
            _write_options(request, target),
            target.subresource,
        )
        return _body(presentation.single(stored))

    async def _patch(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        presentation = self._presentation(request, target)
        data = await request.read()
        kind = request.content_type
        options = _write_options(request, target)
        if kind == "application/apply-patch+yaml":
            patch = parse_yaml(data.decode())
            options = WriteOptions(request.query.get("fieldManager", ""), options.dry_run, options.version)
        else:
            patch = _json_body(data)
        stored, created = self.registry.patch(
            target.type, target.namespace, target.name, kind, patch, options, target.subresource
        )
        return _body(presentation.single(stored), 201 if created else 200)

    async def _delete(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        type = target.type
        presentation = self._presentation(request, target)
        data = await request.read()
        options = _delete_options(request, _object_body(request, data) if data.strip() else {})
        if target.name:
            stored, gone = self.registry.delete(type, target.namespace, target.name, options)
            # A pod is answered with itself, as a real server does.
            if gone and type.key != ("", "pods"):
                return _body(success(target.name, type.group, type.resource, stored.uid))
            return _body(presentation.single(stored))
        if "deletecollection" not in type.verbs or (type.namespaced and not target.namespace):
            raise _not_allowed()
        parsed = parse_options(type, target.namespace, request.query, watch=False)
        deleted = self.registry.delete_collection(type, parsed.selector, options, max(parsed.limit, 0))
        metadata: dict[str, object] = {"resourceVersion": str(self.storage.version)}
        if presentation.form == "metadata":
            raise _wrong_form("PartialObjectMetadata")
        opening, between, closing = presentation.list_frame(metadata)
        return await self._stream(request, _pieces(presentation, deleted, opening, between, closing), len(deleted))

    # Subresources

    async def _converse(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        name = target.name
        if target.subresource == "proxy":
            # [scheme:]name[:port]
            parts = name.split(":")
            name = parts[1] if len(parts) == 3 else parts[0]
        self.registry.get(target.type, target.namespace, name)
        if target.subresource == "proxy":
            slash = "/" if target.beyond and request.rel_url.raw_path.endswith("/") else ""
            return await streams.say_back(request, f"/{target.beyond}{slash}")
        if request.method not in ("GET", "POST"):
            raise _not_allowed()
        if target.subresource == "portforward":
            return await streams.forward_ports(request)
        command = request.query.getall("command", []) if target.subresource == "exec" else []
        if target.subresource == "exec" and not command:
            raise bad_request("you must specify at least 1 command for the container")
        return await streams.run_command(request, command)

    async def _review(self, request: web.BaseRequest, kind: str) -> web.StreamResponse:
        """Whoever gets this far may do everything."""
        _only(request, "POST")
        data = await request.read()
        given = _json_body(data) if data.startswith(b"{") else {}
        answer = {
            "kind": kind,
            "apiVersion": "authorization.k8s.io/v1",
            "metadata": {},
            "spec": given.get("spec") or {},
            "status": {"allowed": True, "reason": "simulated"},
        }
        response = self._json(request, answer)
        response.set_status(201)
        return response

    async def _log(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        _only(request, "GET")
        stored = self.registry.get(target.type, target.namespace, target.name)
        body = stored.body()
        listed = body.get("spec", {}).get("containers")
        entries = listed if isinstance(listed, list) else []
        containers = [entry.get("name", "") for entry in entries if isinstance(entry, dict)]
        wanted = request.query.get("container") or (containers[0] if containers else "")
        if wanted not in containers:
            raise bad_request(f"container {wanted} is not valid for pod {target.name}")
        if stored.fields.get("status.phase") == "Pending":
            raise bad_request(f'container "{wanted}" in pod "{target.name}" is waiting to start: ContainerCreating')
        statuses = body.get("status", {}).get("containerStatuses") or ()
        restarted = any(one.get("name") == wanted and one.get("restartCount") for one in statuses)
        if request.query.get("previous") in ("1", "true") and not restarted:
            raise bad_request(f'previous terminated container "{wanted}" in pod "{target.name}" not found')
        lines = [
            f'level=info msg="starting" container={wanted} pod={target.name}',
            f'level=info msg="configuration loaded" namespace={target.namespace}',
            'level=info msg="listening" address=0.0.0.0:8080',
            'level=info msg="request" method=GET path=/healthz status=200 duration=0.4ms',
        ]
        tail = request.query.get("tailLines", "")
        if tail.isascii() and tail.isdecimal() and len(tail) < 10:
            lines = lines[-int(tail) :] if int(tail) else []
        if request.query.get("follow") in ("1", "true"):
            return await streams.follow_log(request, lines)
        return web.Response(text="".join(f"{line}\n" for line in lines))

    async def _scale(self, request: web.BaseRequest, target: Target) -> web.StreamResponse:
        stored = self.registry.get(target.type, target.namespace, target.name)
        if request.method == "GET":
            return _body(_encode(_scale_of(stored)))
        data = await request.read()
        before = _scale_of(stored)
        if request.method == "PUT":
            after = _object_body(request, data)
        elif request.method == "PATCH":
            after = _patched(before, request.content_type, _json_body(data))
        else:
            raise _not_allowed()
        spec = after.get("spec") if isinstance(after, dict) else None
        replicas = spec.get("replicas", 0) if isinstance(spec, dict) else None
        if not isinstance(replicas, int) or isinstance(replicas, bool) or not 0 <= replicas < 2**31:
            raise bad_request("spec.replicas: must be a number of at least 0")
        patch: dict[str, Any] = {"spec": {"replicas": replicas}}
        metadata = after.get("metadata")
        if isinstance(metadata, dict) and isinstance(metadata.get("resourceVersion"), str):
            patch["metadata"] = {"resourceVersion": metadata["resourceVersion"]}
        changed, _ = self.registry.patch(
            target.type,
            target.namespace,
            target.name,
            "application/merge-patch+json",
            patch,
            _write_options(request, target),
        )
        return _body(_encode(_scale_of(changed)))

    def _json(self, request: web.BaseRequest, value: Any, headers: dict[str, str] | None = None) -> web.Response:
        return web.Response(body=_encode(value), headers={"Content-Type": JSON, **(headers or {})})


def _patched(before: dict[str, Any], content_type: str, patch: Any) -> Any:
    if content_type == "application/json-patch+json":
        return patches.json_patch(before, patch)
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: the patch is not an object")
    return patches.merge_patch(before, patch)


def _scale_of(stored: Stored) -> dict[str, Any]:
    body = stored.body()
    spec, status = body.get("spec") or {}, body.get("status") or {}
    selector = spec.get("selector")
    labels = selector.get("matchLabels") if isinstance(selector, dict) else None
    metadata = body["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": spec.get("replicas", 0)},
        "status": {
            "replicas": status.get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in (labels or {}).items()),
        },
    }


def _pieces(
    presentation: Presentation, objects: list[Stored], opening: bytes, between: bytes, closing: bytes
) -> Iterator[bytes]:
    """A list as a few large byte strings."""
    yield opening
    # The first item has no comma before it.
    lead = between[1:]
    for start in range(0, len(objects), SLICE):
        chunk = objects[start : start + SLICE]
        items = [stored.tail for stored in chunk] if presentation.plain else map(presentation.item, chunk)
        yield lead + between.join(items)
        lead = between
    yield closing


def _body(data: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=data, headers={"Content-Type": JSON})


def _status(error: ApiError) -> web.Response:
    return web.Response(status=error.code, body=error.encode(), headers={"Content-Type": JSON, **error.headers})


def _not_allowed() -> ApiError:
    return ApiError(405, "the server does not allow this method on the requested resource")


def _wrong_form(kind: str) -> ApiError:
    return ApiError(406, f"the requested object cannot be shown as {kind}")


def _only(request: web.BaseRequest, method: str) -> None:
    if request.method != method:
        raise _not_allowed()


def _json_body(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error


def _object_body(request: web.BaseRequest, data: bytes) -> Any:
    kind = request.content_type
    if kind == "application/yaml":
        body = parse_yaml(data.decode())
    elif kind in (JSON, "application/octet-stream", "text/plain"):
        body = _json_body(data)
    else:
        raise ApiError(
            415,
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml",
        )
    if not isinstance(body, dict):
        raise bad_request("the object provided is unrecognized: it is not an object")
    return body


def _dry_run(values: Any) -> bool:
    if not values:
        return False
    if values not in ("All", ["All"]):
        message = f'Unsupported value: {values!r}: supported values: "All"'
        raise ApiError(422, f'"" is invalid: dryRun: {message}')
    return True


def _write_options(request: web.BaseRequest, target: Target) -> WriteOptions:
    agent = request.headers.get("User-Agent", "unknown").partition("/")[0]
    manager = request.query.get("fieldManager") or agent
    return WriteOptions(manager, _dry_run(request.query.getall("dryRun", [])), target.version)


def _delete_options(request: web.BaseRequest, body: dict[str, Any]) -> DeleteOptions:
    query = request.query
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or "Background"
    if body.get("orphanDependents") or query.get("orphanDependents") == "true":
        propagation = "Orphan"
    if propagation not in ("Background", "Foreground", "Orphan"):
        message = f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "{propagation}"'
        raise ApiError(422, message)
    grace: Any = body.get("gracePeriodSeconds")
    if grace is None and query.get("gracePeriodSeconds"):
        text = query["gracePeriodSeconds"]
        grace = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise bad_request("gracePeriodSeconds: must be a number")
    preconditions = body.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise bad_request("preconditions: must be an object")
    dry_run = _dry_run(body.get("dryRun") or query.getall("dryRun", []))
    return DeleteOptions(
        dry_run=dry_run,
        propagation=propagation,
        grace_seconds=grace,
        uid=str(preconditions.get("uid") or ""),
        resource_version=str(preconditions.get("resourceVersion") or ""),
    )
