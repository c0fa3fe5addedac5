"""Responses: how answers and refusals become HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import msgspec
from aiohttp import web

from simulation.status import StatusError

__all__ = [
    "JSON",
    "NOT_KEPT",
    "error_response",
    "json_response",
    "method_not_allowed",
    "not_acceptable",
    "object_response",
    "require_method",
    "set_date",
]

JSON = "application/json"
# Cache-Control of whatever says nothing else (k8s.io/apiserver pkg/endpoints/filters/cachecontrol.go).
NOT_KEPT = "no-cache, private"


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A value as JSON."""
    return object_response(msgspec.json.encode(value) + b"\n", status=status, headers=headers)


def object_response(data: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON that is encoded already."""
    return web.Response(
        status=status, body=data, headers={"Content-Type": JSON, "Cache-Control": NOT_KEPT, **(headers or {})}
    )


def error_response(error: StatusError) -> web.Response:
    """A refusal, as its Status object."""
    return object_response(error.encode() + b"\n", status=error.code, headers=error.headers)


def set_date(response: web.StreamResponse, ahead: float) -> None:
    """Set the Date header of a cluster whose clock is `ahead` seconds ahead; aiohttp sets it where that is 0."""
    if ahead:
        response.headers["Date"] = formatdate(time.time() + ahead, usegmt=True)


def require_method(request: web.BaseRequest, method: str) -> None:
    """Refuse a request with another method.

    Raises:
        StatusError: 405.
    """
    if request.method != method:
        raise method_not_allowed()


def method_not_allowed() -> StatusError:
    """405 for a method that a path does not have."""
    return StatusError(405, "the server does not allow this method on the requested resource")


def not_acceptable(kind: str) -> StatusError:
    """406 for a form, by its kind, that an answer does not have: PartialObjectMetadata for a list, say."""
    return StatusError(406, f"the requested object cannot be shown as {kind}")
