"""Refusals: 401 and 403, in kube-apiserver's words.

k8s.io/apiserver pkg/endpoints/handlers/responsewriters/errors.go.
"""

from __future__ import annotations

from simulation.access.actions import Action
from simulation.access.users import ClusterUser
from simulation.status import StatusError

__all__ = ["denied", "unauthorized"]


def denied(user: ClusterUser, action: Action, reason: str = "") -> StatusError:
    """403 for who may not do something."""
    message = f'User "{user.name}" cannot {action.sentence()}'
    for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        message = message.replace(plain, escaped)
    if reason:
        message = f"{message}: {reason}"
    details: dict[str, str] = {}
    if action.path:
        message = f"forbidden: {message}"
    else:
        qualified = f"{action.resource}.{action.group}" if action.group else action.resource
        shown = f'{qualified} "{action.name}"' if action.name else qualified
        message = f"{shown} is forbidden: {message}"
        fields = (("name", action.name), ("group", action.group), ("kind", action.resource))
        details = {field: value for field, value in fields if value}
    error = StatusError(403, message)
    del error.status["code"]
    error.status |= {"details": details, "code": 403}
    error.headers["X-Content-Type-Options"] = "nosniff"
    return error


def unauthorized() -> StatusError:
    """401, without a cause."""
    return StatusError(401, "Unauthorized")
