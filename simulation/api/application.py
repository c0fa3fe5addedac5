"""The application: one request to a simulated cluster, from its path to the handler that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web

from simulation.access.guard import Guard
from simulation.access.users import ClusterUser
from simulation.api.access_reviews import SELF_REVIEW, is_review, review, review_access
from simulation.api.bodies import json_body
from simulation.api.containers import CONVERSATIONS, converse, read_log
from simulation.api.descriptions import DescriptionHandlers
from simulation.api.list_responses import ListSender
from simulation.api.paths import ResourcePath, parse_resource_path, verb_of
from simulation.api.pod_actions import ACTIONS, act_on_pod
from simulation.api.reads import ReadHandlers
from simulation.api.responses import NOT_KEPT, error_response, json_response, method_not_allowed, set_date
from simulation.api.scale import handle_scale
from simulation.api.writes import WriteHandlers
from simulation.faults import Faults
from simulation.registry import Registry
from simulation.status import StatusError, bad_request, unknown_path

__all__ = ["MAX_BODY", "Api", "ControlEndpoint"]

# The largest body of a request, in bytes, as kube-apiserver has it.
MAX_BODY = 3 * 1024 * 1024

# An endpoint under /_simulation: takes the JSON of a POST, or None for a GET, and returns what JSON can have.
ControlEndpoint = Callable[[Any], Awaitable[Any]]

_HEALTH = ("livez", "readyz", "healthz")
_ROOT_PATHS = ["/api", "/api/v1", "/apis", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]


class Api:
    """Serves one cluster.

    Requests need `token` as their bearer token unless it is empty; where there is a `guard`, it decides about each.
    With `gzip`, large lists are compressed for clients that accept it. Watches get a bookmark each `bookmark_interval`
    seconds; reads wait `version_wait` seconds for a version that the cluster has not reached. `controls` are the
    endpoints under /_simulation, by name.
    """

    def __init__(
        self,
        registry: Registry,
        faults: Faults,
        *,
        token: str = "",
        guard: Guard | None = None,
        gzip: bool = True,
        bookmark_interval: float = 60.0,
        version_wait: float = 3.0,
        seed: int | str = 0,
        controls: dict[str, ControlEndpoint] | None = None,
    ) -> None:
        self._registry = registry
        self._faults = faults
        self._token = token
        self._guard = guard
        self._controls = controls or {}
        sender = ListSender(faults, gzip=gzip)
        self.descriptions = DescriptionHandlers(registry, faults)
        self._reads = ReadHandlers(
            registry, faults, sender, bookmark_interval=bookmark_interval, version_wait=version_wait, seed=seed
        )
        self._writes = WriteHandlers(registry, sender)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Every error is a Status object."""
        try:
            response = await self._answer(request)
        except StatusError as error:
            response = error_response(error)
        except web.HTTPException as error:
            response = error_response(StatusError(error.status, error.reason or "refused"))
        except (UnicodeError, RecursionError, OverflowError, msgspec.MsgspecError) as error:
            # What a body can hold that the checks let through and JSON or text cannot take.
            response = error_response(bad_request(f"the request cannot be processed: {error}"))
        if not response.prepared:
            response.headers.setdefault("Cache-Control", NOT_KEPT)
            set_date(response, self._faults.clock)
        return response

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = request.rel_url.raw_path
        parts = [unquote(part) for part in raw.strip("/").split("/")]
        if parts[0] == "_simulation":
            return await self._control(request, parts[1:])
        await self._faults.before_answer(parts)
        user = self._admitted(request, unquote(raw))
        head = parts[0]
        if head in _HEALTH:
            return web.Response(text="ok")
        if head == "version" and len(parts) == 1:
            return self.descriptions.version()
        if head == "openapi":
            return self.descriptions.openapi(request, parts[1:])
        if head == "api":
            return await self._group(request, "", parts[1:], user)
        if head == "apis":
            if len(parts) == 1:
                return self.descriptions.groups(request, core=False)
            return await self._group(request, parts[1], parts[2:], user)
        if raw == "/":
            return json_response({"paths": _ROOT_PATHS})
        raise unknown_path()

    def _admitted(self, request: web.BaseRequest, path: str) -> ClusterUser | None:
        """Who asks, where that is found out. Raises StatusError 400, 401, 403."""
        if self._guard is not None:
            certificate = None if request.transport is None else request.transport.get_extra_info("peercert")
            return self._guard.admit(request.method, path, request.query, request.headers, certificate)
        if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
            raise StatusError(401, "Unauthorized")
        return None

    async def _control(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        control = self._controls.get("/".join(parts))
        if control is None:
            raise unknown_path()
        if request.method not in ("GET", "POST"):
            raise method_not_allowed()
        wanted: Any = None
        if request.method == "POST":
            data = await request.read()
            wanted = json_body(data) if data else {}
        return json_response(await control(wanted))

    async def _group(
        self, request: web.BaseRequest, group: str, parts: list[str], user: ClusterUser | None
    ) -> web.StreamResponse:
        if not parts:
            if group:
                return self.descriptions.group(request, group)
            return self.descriptions.groups(request, core=True)
        version, *rest = parts
        if self._guard is not None and user is not None and is_review(group, parts):
            return await review(request, group, parts, self._guard, user)
        if (group, *parts) == SELF_REVIEW:
            return await review_access(request)
        if (group, version) in self._registry.aggregation.unanswered:
            raise StatusError(503, "service unavailable")
        if not rest:
            return self.descriptions.resources(request, group, version)
        types = self.descriptions.types(group, version)
        return await self._resource(request, parse_resource_path(types, version, rest))

    async def _resource(self, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
        verb = verb_of(request.method, path, request.query)
        if not path.subresource and verb not in path.type.verbs:
            raise method_not_allowed()
        if path.subresource == "log":
            return await read_log(self._registry, request, path)
        if path.subresource in CONVERSATIONS:
            return await converse(self._registry, request, path)
        if path.subresource in ACTIONS:
            return await act_on_pod(self._registry, request, path)
        if path.subresource == "scale":
            return await handle_scale(self._registry, request, path)
        if verb == "get":
            return self._reads.get(request, path)
        if verb == "list":
            return await self._reads.list(request, path)
        if verb == "watch":
            return await self._reads.watch(request, path)
        if verb == "create" and not path.name:
            return await self._writes.create(request, path)
        if verb == "update" and path.name:
            return await self._writes.update(request, path)
        if verb == "patch" and path.name:
            return await self._writes.patch(request, path)
        if verb in ("delete", "deletecollection") and not path.subresource:
            return await self._writes.delete(request, path)
        raise method_not_allowed()
