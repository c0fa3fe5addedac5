"""Denied: the answers to who may not do what they asked for, in kube-apiserver's words.

k8s.io/apiserver pkg/endpoints/handlers/responsewriters/errors.go and apimachinery pkg/api/errors.
"""

from __future__ import annotations

from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.selectors import quoted
from query.access.authorization.attributes import Attributes
from query.http.status import ApiError
from query.identity import Identity

_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def forbidden(who: Identity, what: Attributes, reason: str = "") -> ApiError:
    """403: nobody allows it; `reason`: what an authorizer says about that.

    Example: `pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "web"`.
    """
    text = _cannot(who, what).translate(_ESCAPED)
    if reason:
        text = f"{text}: {reason}"
    if what.path:
        return ApiError(403, f"forbidden: {text}", details={})
    details = {"name": what.name, "group": what.group, "kind": what.resource}
    qualified = str(GroupResource(what.group, what.resource))
    if what.name:
        qualified = f"{qualified} {quoted(what.name)}"
    return ApiError(
        403, f"{qualified} is forbidden: {text}", details={key: value for key, value in details.items() if value}
    )


def _cannot(who: Identity, what: Attributes) -> str:
    if what.path:
        return f"User {quoted(who.name)} cannot {what.verb} path {quoted(what.path)}"
    resource = f"{what.resource}/{what.subresource}" if what.subresource else what.resource
    where = f"in the namespace {quoted(what.namespace)}" if what.namespace else "at the cluster scope"
    return (
        f"User {quoted(who.name)} cannot {what.verb} resource {quoted(resource)} "
        f"in API group {quoted(what.group)} {where}"
    )


def unauthorized() -> ApiError:
    """401: not known who asks. A kube-apiserver tells no cause."""
    return ApiError(401, "Unauthorized")
