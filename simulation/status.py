"""Status: the errors of the Kubernetes API, as exceptions that carry their Status object."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "StatusError",
    "already_exists",
    "bad_request",
    "conflict",
    "expired",
    "forbidden",
    "invalid",
    "not_found",
    "success",
    "unknown_path",
]

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class StatusError(Exception):
    """A request that the API refuses.

    `code` is the HTTP status, `status` the metav1.Status (as JSON has it), `headers` further headers of the answer.
    Named as in k8s.io/apimachinery pkg/api/errors.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        details: dict[str, Any] | None = None,
        continue_token: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        metadata: dict[str, Any] = {"continue": continue_token} if continue_token else {}
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": message,
        }
        known = REASONS.get(code, "Unknown") if reason is None else reason
        if known:
            self.status["reason"] = known
        if details:
            self.status["details"] = details
        self.status["code"] = code
        self.headers: dict[str, str] = {}
        if details and "retryAfterSeconds" in details:
            self.headers["Retry-After"] = str(details["retryAfterSeconds"])

    def encode(self) -> bytes:
        """The Status object as JSON."""
        return msgspec.json.encode(self.status)


def _details(name: str, group: str, kind: str) -> dict[str, Any]:
    return {field: value for field, value in (("name", name), ("group", group), ("kind", kind)) if value}


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def bad_request(message: str) -> StatusError:
    """400: the request cannot be understood."""
    return StatusError(400, message)


def unknown_path() -> StatusError:
    """404 for a path that names no API (a real server says so without a name in the details)."""
    return StatusError(404, "the server could not find the requested resource", details={})


def not_found(group: str, resource: str, name: str) -> StatusError:
    """404 for an object that does not exist."""
    message = f'{_qualified(resource, group)} "{name}" not found'
    return StatusError(404, message, details=_details(name, group, resource))


def already_exists(group: str, resource: str, name: str) -> StatusError:
    """409 for the creation of an object that exists."""
    message = f'{_qualified(resource, group)} "{name}" already exists'
    return StatusError(409, message, reason="AlreadyExists", details=_details(name, group, resource))


def conflict(group: str, resource: str, name: str, why: str = "") -> StatusError:
    """409 for a write to an object that has changed meanwhile, or whose precondition does not hold."""
    why = why or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {why}'
    return StatusError(409, message, details=_details(name, group, resource))


def invalid(group: str, kind: str, name: str, causes: list[tuple[str, str, str]]) -> StatusError:
    """422. Each cause is (reason, message, field): `("FieldValueInvalid", "Invalid value: ...", "metadata.name")`."""
    texts = [f"{field}: {message}" for _, message, field in causes]
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details = _details(name, group, kind)
    details["causes"] = [{"reason": reason, "message": message, "field": field} for reason, message, field in causes]
    return StatusError(422, f'{_qualified(kind, group)} "{name}" is invalid: {joined}', details=details)


def invalid_list_options(causes: list[tuple[str, str, str]]) -> StatusError:
    """422 for a combination of list or watch parameters that the API forbids."""
    return invalid("meta.k8s.io", "ListOptions", "", causes)


def forbidden(group: str, resource: str, name: str, why: str) -> StatusError:
    """403 for a request that is understood and refused."""
    message = f'{_qualified(resource, group)} "{name}" is forbidden: {why}'
    return StatusError(403, message, details=_details(name, group, resource))


def expired(message: str, continue_token: str = "") -> StatusError:
    """410: a resourceVersion or continue token older than the history that is kept."""
    return StatusError(410, message, continue_token=continue_token)


def too_large_resource_version(wanted: int, current: int) -> StatusError:
    """504 for a version that the server has not reached, after it has waited."""
    return StatusError(
        504,
        f"Timeout: Too large resource version: {wanted}, current: {current}",
        details={
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
    )


def success(name: str, group: str, resource: str, uid: str) -> bytes:
    """The Status, as JSON, of a deletion that is complete."""
    return msgspec.json.encode(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {**_details(name, group, resource), "uid": uid},
        }
    )
