"""Reviews of access and of tokens: what someone may do, who a token's owner is.

A cluster without a guard answers SelfSubjectAccessReviews alone: everyone may do everything. With one it answers all of
authorization.k8s.io/v1 and authentication.k8s.io/v1 (k8s.io/kubernetes pkg/registry/authorization, .../authentication).
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from simulation.access.actions import Action
from simulation.access.guard import Guard
from simulation.access.rbac import RbacDecision
from simulation.access.users import ClusterUser
from simulation.api.bodies import json_body
from simulation.api.options import accepted_form
from simulation.api.responses import json_response, require_method
from simulation.status import StatusError, bad_request, invalid, unknown_path

__all__ = ["SELF_REVIEW", "is_review", "review", "review_access"]

# Group, version and resource, as a path has them.
SELF_REVIEW = ("authorization.k8s.io", "v1", "selfsubjectaccessreviews")

_AUTHORIZATION, _AUTHENTICATION = "authorization.k8s.io", "authentication.k8s.io"
_KINDS = {
    (_AUTHORIZATION, "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    (_AUTHORIZATION, "selfsubjectrulesreviews"): "SelfSubjectRulesReview",
    (_AUTHORIZATION, "subjectaccessreviews"): "SubjectAccessReview",
    (_AUTHORIZATION, "localsubjectaccessreviews"): "LocalSubjectAccessReview",
    (_AUTHENTICATION, "selfsubjectreviews"): "SelfSubjectReview",
    (_AUTHENTICATION, "tokenreviews"): "TokenReview",
}
# What tokens are for that are given no audience of their own (--api-audiences).
_AUDIENCE = "https://kubernetes.default.svc.cluster.local"


async def review_access(request: web.BaseRequest) -> web.StreamResponse:
    """Answer a POST of a SelfSubjectAccessReview with itself and `allowed`. A body that is not JSON is not looked at.

    Raises:
        StatusError: 400, 405, or 406: there are no tables of reviews.
    """
    require_method(request, "POST")
    accepted_form(request.headers.get("Accept", ""), tables=False)
    data = await request.read()
    given = json_body(data) if data.startswith(b"{") else {}
    answer = {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {},
        "spec": given.get("spec") or {},
        "status": {"allowed": True, "reason": "simulated"},
    }
    return json_response(answer, status=201)


def is_review(group: str, parts: list[str]) -> bool:
    """Whether a path below a group is for reviews; `parts` begin with the version."""
    return len(parts) in (2, 4) and parts[0] == "v1" and (group, parts[-1]) in _KINDS


async def review(
    request: web.BaseRequest, group: str, parts: list[str], guard: Guard, user: ClusterUser
) -> web.Response:
    """Answer a POST of any review, asked for by `user`, with itself and its status.

    Raises:
        StatusError: 400, 404, 405, 406 or 422.
    """
    kind = _KINDS[group, parts[-1]]
    namespace = parts[2] if len(parts) == 4 and parts[1] == "namespaces" else ""
    if (kind == "LocalSubjectAccessReview") != bool(namespace) or (len(parts) == 4 and not namespace):
        raise unknown_path()
    require_method(request, "POST")
    accepted_form(request.headers.get("Accept", ""), tables=False)
    given = json_body(await request.read())
    spec = given.get("spec", {}) if isinstance(given, dict) else None
    if not isinstance(spec, dict):
        raise bad_request(f"the body is no {kind}")
    if kind == "TokenReview":
        status = _review_token(spec, guard)
    elif kind == "SelfSubjectReview":
        status = {"userInfo": user.info()}
    elif kind == "SelfSubjectRulesReview":
        status = _review_rules(spec, guard, user)
    else:
        if kind != "SelfSubjectAccessReview":
            user = _subject(kind, spec, namespace)
        status = _status_of(guard.rbac.decide(user, _action(kind, spec)))
    answer = {"kind": kind, "apiVersion": f"{group}/v1", "metadata": {}, "spec": spec, "status": status}
    return json_response(answer, status=201)


def _review_token(spec: dict[str, Any], guard: Guard) -> dict[str, Any]:
    token = spec.get("token")
    if not token:
        raise bad_request("token is required for TokenReview in authentication")
    wanted = spec.get("audiences") or [_AUDIENCE]
    owner = guard.user_of(str(token))
    if owner is None:
        return {"user": {}, "error": "invalid bearer token"}
    if _AUDIENCE not in wanted:
        return {"user": {}}
    return {"authenticated": True, "user": owner.info(), "audiences": [_AUDIENCE]}


def _review_rules(spec: dict[str, Any], guard: Guard, user: ClusterUser) -> dict[str, Any]:
    if not spec.get("namespace"):
        raise bad_request("no namespace on request")
    rules, error = guard.rbac.rules(user, str(spec["namespace"]))
    fields = ("verbs", "apiGroups", "resources", "resourceNames")
    status: dict[str, Any] = {
        "resourceRules": [
            {field: rule[field] for field in fields if rule.get(field)} for rule in rules if rule.get("resources")
        ],
        "nonResourceRules": [
            {field: rule[field] for field in ("verbs", "nonResourceURLs") if rule.get(field)}
            for rule in rules
            if rule.get("nonResourceURLs")
        ],
        "incomplete": False,
    }
    if error:
        status["evaluationError"] = error
    return status


def _subject(kind: str, spec: dict[str, Any], namespace: str) -> ClusterUser:
    name, groups = spec.get("user") or "", tuple(spec.get("groups") or ())
    if not name and not groups:
        raise _refused(kind, 'Invalid value: "": at least one of user or group must be specified', "spec.user")
    if namespace:
        resource = spec.get("resourceAttributes") or {}
        if spec.get("nonResourceAttributes"):
            raise _refused(kind, "Invalid value: disallowed on this kind of request", "spec.nonResourceAttributes")
        if resource.get("namespace", "") != namespace:
            raise bad_request(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
    extra = {key.lower(): tuple(values or ()) for key, values in (spec.get("extra") or {}).items()}
    return ClusterUser(name, groups, spec.get("uid") or "", extra)


def _action(kind: str, spec: dict[str, Any]) -> Action:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(resource, dict) == isinstance(path, dict):
        why = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise _refused(kind, why, "spec.resourceAttributes")
    if isinstance(path, dict):
        # A path that is not said is the root's; it matches what the root would.
        return Action(path.get("verb", ""), path=path.get("path", "") or "/")
    assert isinstance(resource, dict)
    fields = ("verb", "group", "resource", "subresource", "namespace", "name")
    return Action(**{field: resource.get(field) or "" for field in fields})


def _refused(kind: str, message: str, field: str) -> StatusError:
    return invalid(_AUTHORIZATION, kind, "", [("FieldValueInvalid", message, field)])


def _status_of(decision: RbacDecision) -> dict[str, Any]:
    return {"allowed": decision.allowed, **({"reason": decision.reason} if decision.reason else {})}
