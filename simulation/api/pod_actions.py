"""What is done to a pod and answered with a Status: its eviction, and its binding to a node."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from simulation.api.bodies import object_body
from simulation.api.paths import ResourcePath
from simulation.api.responses import json_response, method_not_allowed
from simulation.api.write_parameters import parse_delete_options, parse_write_options
from simulation.registry import Registry
from simulation.status import bad_request, conflict

__all__ = ["ACTIONS", "act_on_pod"]

# The subresources that `act_on_pod` answers.
ACTIONS = ("binding", "eviction")

_DONE = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def act_on_pod(registry: Registry, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
    """Answer a POST of a policy/v1 Eviction or a v1 Binding with a Status of success, code 201.

    Disruption budgets are not looked at. Raises:
        StatusError: 400, 404, 405, 409 (a pod that has a node already) or 422.
    """
    if request.method != "POST":
        raise method_not_allowed()
    body = object_body(request.content_type, await request.read())
    if path.subresource == "eviction":
        wanted = body.get("deleteOptions") or {}
        if not isinstance(wanted, dict):
            raise bad_request("deleteOptions: must be an object")
        registry.delete(path.type, path.namespace, path.name, parse_delete_options(request, wanted))
        return json_response(_DONE, status=201)
    node: Any = body.get("target")
    name = node.get("name") if isinstance(node, dict) else None
    if not isinstance(name, str) or not name:
        raise bad_request("target.name: Required value")
    current = registry.get(path.type, path.namespace, path.name).body()
    if current["spec"].get("nodeName"):
        why = f'pod {path.name} is already assigned to node "{current["spec"]["nodeName"]}"'
        raise conflict("", "pods/binding", path.name, why)
    patch = {"spec": {"nodeName": name}}
    options = parse_write_options(request, path.version)
    registry.patch(path.type, path.namespace, path.name, "application/merge-patch+json", patch, options)
    return json_response(_DONE, status=201)
