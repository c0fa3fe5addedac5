"""The subresource scale: an autoscaling/v1 Scale of an object that has `spec.replicas`."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from simulation.api.bodies import json_body, object_body
from simulation.api.paths import ResourcePath
from simulation.api.responses import json_response, method_not_allowed
from simulation.api.write_parameters import parse_write_options
from simulation.registry import Registry
from simulation.registry.patches import json_patch, merge_patch
from simulation.status import bad_request
from simulation.storage import StoredObject

__all__ = ["handle_scale", "scale_of"]


async def handle_scale(registry: Registry, request: web.BaseRequest, path: ResourcePath) -> web.StreamResponse:
    """Answer a GET, PUT or PATCH of a scale.

    Raises:
        StatusError: 400, 404, 405, 409 or 422.
    """
    stored = registry.get(path.type, path.namespace, path.name)
    before = scale_of(stored)
    if request.method == "GET":
        return json_response(before)
    data = await request.read()
    if request.method == "PUT":
        after: Any = object_body(request.content_type, data)
    elif request.method == "PATCH":
        after = _patched(before, request.content_type, json_body(data))
    else:
        raise method_not_allowed()
    spec = after.get("spec") if isinstance(after, dict) else None
    replicas = spec.get("replicas", 0) if isinstance(spec, dict) else None
    if not isinstance(replicas, int) or isinstance(replicas, bool) or not 0 <= replicas < 2**31:
        raise bad_request("spec.replicas: must be a number of at least 0")
    patch: dict[str, Any] = {"spec": {"replicas": replicas}}
    metadata = after.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("resourceVersion"), str):
        patch["metadata"] = {"resourceVersion": metadata["resourceVersion"]}
    changed, _ = registry.patch(
        path.type,
        path.namespace,
        path.name,
        "application/merge-patch+json",
        patch,
        parse_write_options(request, path.version),
    )
    return json_response(scale_of(changed))


def _patched(before: dict[str, Any], content_type: str, patch: Any) -> Any:
    if content_type == "application/json-patch+json":
        return json_patch(before, patch)
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: the patch is not an object")
    return merge_patch(before, patch)


def scale_of(stored: StoredObject) -> dict[str, Any]:
    """The Scale of an object: its replicas as wanted and as they are, and its selector as text."""
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
