"""Errors as Kubernetes clients read them: a Status with code, reason and details.

k8s.io/apimachinery/pkg/api/errors/errors.go.
"""

from __future__ import annotations

from typing import Any

from deltalog.wire.kubernetes import GroupResource
from query.errors import QueryError
from query.http.replaced import json_of

_REASONS = {
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


class ApiError(QueryError):
    """An answer that is a Status of failure.

    `code`: of HTTP; `reason`: for machines, the usual one of the code unless given. `retry_after` in seconds.
    `token`: a continue token to go on with, of an expired list.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = _REASONS.get(code, "") if reason is None else reason
        # An empty one that was asked for is there, as some of a kube-apiserver's are.
        self._detailed = details is not None
        self.details = dict(details or {})
        self.retry_after = retry_after
        self.token = token
        if retry_after is not None:
            self.details["retryAfterSeconds"] = retry_after

    def status(self) -> dict[str, Any]:
        """The Status object (apimachinery pkg/apis/meta/v1: Status)."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.token} if self.token else {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details or self._detailed:
            status["details"] = self.details
        status["code"] = self.code
        return status

    def body(self) -> bytes:
        """The Status as compact JSON."""
        return json_of(self.status()) + b"\n"


class UnknownPath(ApiError):
    """404: discovery has no such path. While types are still being discovered, it may only not be known yet."""

    def __init__(self, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(404, message, details=details)


def unsettled(reason: str) -> ApiError:
    """503: the path may be one of those that come with clusters, whose types are not known yet. `reason`: of whom.

    A kube-apiserver that is starting answers the same (apiserver pkg/util/notfoundhandler): a client that got 404 would
    believe that the type is gone, forget its objects, or give up.
    """
    return ApiError(503, f"{reason}, please try again", retry_after=1)


def not_found(group: str, resource: str, name: str) -> ApiError:
    """404: there is no such object."""
    details: dict[str, Any] = {"name": name, "kind": resource}
    if group:
        details["group"] = group
    return ApiError(404, f'{GroupResource(group, resource)} "{name}" not found', details=details)


def no_such_path(hint: str = "") -> ApiError:
    """404: there is no such path, see `UnknownPath`. `hint`: the end of the message, where it may be elsewhere."""
    return UnknownPath(f"the server could not find the requested resource{hint}")


def expired(message: str, token: str | None = None) -> ApiError:
    """410: the client has to list again; with a continue token, it may go on inconsistently."""
    return ApiError(410, message, token=token)


def too_large_version(requested: int | str, current: int | str) -> ApiError:
    """504 Timeout with cause ResourceVersionTooLarge (apiserver pkg/storage/errors.go)."""
    return ApiError(
        504,
        f"Timeout: Too large resource version: {requested}, current: {current}",
        details={"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]},
        retry_after=1,
    )


def invalid_options(errors: list[tuple[str, str]]) -> ApiError:
    """422 for options that don't go together; `errors`: field and what is wrong with it."""
    causes = [
        (field, "FieldValueNotSupported", message)
        if message.startswith("Unsupported value")
        else (field, "FieldValueForbidden", f"Forbidden: {message}")
        for field, message in errors
    ]
    # Equal ones once (apimachinery pkg/util/validation/field: ToAggregate).
    texts = list(dict.fromkeys(f"{field}: {message}" for field, _, message in causes))
    return ApiError(
        422,
        f'ListOptions.meta.k8s.io "" is invalid: {texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"}',
        details={
            "group": "meta.k8s.io",
            "kind": "ListOptions",
            "causes": [{"reason": reason, "message": message, "field": field} for field, reason, message in causes],
        },
    )
