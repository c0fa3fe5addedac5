"""Access reviews: what a client may do here, for those that ask before they try.

SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview and LocalSubjectAccessReview of
authorization.k8s.io/v1, SelfSubjectReview of authentication.k8s.io/v1. At the root objects are read, and what a subject
may see of any cluster is allowed; below `/clusters/<cluster>` it is what that cluster allows, and the cluster itself
answers where requests are passed on to it as of who asks. Without authorization it is the same for every subject.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from deltalog.wire.kubernetes import GroupResource
from query.access.authentication.impersonation import of_cluster
from query.access.authorization.attributes import Attributes
from query.access.authorization.rules import PolicyRule
from query.access.authorization.verdicts import Decision
from query.access.gate import Gate
from query.discovery.catalogue import READ_VERBS, Catalogue
from query.http.protobuf import PROTOBUF, read_fields, read_object, text_of
from query.http.status import ApiError
from query.http.yaml_bodies import from_yaml
from query.identity import Identity

_PATHS = ("/api", "/apis", "/clusters", "/healthz", "/livez", "/metrics", "/openapi", "/readyz", "/version")


# Bytes that a review may have; none has a hundredth of that.
_LARGEST = 64 * 1024


class _Resource(msgspec.Struct, omit_defaults=True):
    namespace: str = ""
    verb: str = ""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""


class _Path(msgspec.Struct, omit_defaults=True):
    verb: str = ""
    path: str = ""


class _Spec(msgspec.Struct, rename="camel", omit_defaults=True):
    resource_attributes: _Resource | None = None
    non_resource_attributes: _Path | None = None
    namespace: str = ""
    user: str = ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}
    uid: str = ""


class _Review(msgspec.Struct, rename="camel"):
    kind: str = ""
    api_version: str = ""
    spec: _Spec = msgspec.field(default_factory=_Spec)


# Path and kind of each review.
_KINDS = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    ("authorization.k8s.io", "selfsubjectrulesreviews"): "SelfSubjectRulesReview",
    ("authorization.k8s.io", "subjectaccessreviews"): "SubjectAccessReview",
    ("authentication.k8s.io", "selfsubjectreviews"): "SelfSubjectReview",
}
_LOCAL = "LocalSubjectAccessReview"
# About others: who it is must be said, though it makes no difference.
_OF_SUBJECTS = ("SubjectAccessReview", _LOCAL)


class ReviewScope(NamedTuple):
    """Who asks, about which cluster (None: all), and what decides. `writable`: whether that is not only read here."""

    who: Identity
    cluster: str | None
    gate: Gate
    writable: bool = False


class ReviewKind(NamedTuple):
    """The kind of a review, and the namespace of its path, "" for none."""

    kind: str
    namespace: str = ""


def review_kind(segments: list[str]) -> ReviewKind | None:
    """The review that a path is for, if it is for one."""
    match segments:
        case ["apis", group, "v1", resource] if (group, resource) in _KINDS:
            return ReviewKind(_KINDS[group, resource])
        case ["apis", "authorization.k8s.io", "v1", "namespaces", namespace, "localsubjectaccessreviews"]:
            return ReviewKind(_LOCAL, namespace)
    return None


def is_review(group: str, resource: str) -> bool:
    """Whether a resource is one of reviews."""
    return (group, resource) in _KINDS or (group, resource) == ("authorization.k8s.io", "localsubjectaccessreviews")


async def review(of: ReviewKind, content_type: str, body: bytes, catalogue: Catalogue, scope: ReviewScope) -> bytes:
    """The answer to a review, as compact JSON. `catalogue`: the types of the scope that it asks about.

    Raises:
        ApiError: 400, 422, the body is no such review; 413, it is too large; 415, it is of an unknown media type.
    """
    kind = of.kind
    if len(body) > _LARGEST:
        raise ApiError(413, f"the body is too large: a {kind} has {_LARGEST} bytes at most")
    asked = _parsed(kind, content_type, body)
    if kind == "SelfSubjectReview":
        status: dict[str, Any] = {"userInfo": _user_info(scope.who)}
    elif kind == "SelfSubjectRulesReview":
        if not asked.spec.namespace:
            raise ApiError(400, "no namespace on request")
        status = _rules(catalogue) if scope.gate.open else _rules_of(scope, asked.spec.namespace)
    else:
        who = scope.who
        if kind in _OF_SUBJECTS:
            _check_subject(of, asked.spec)
            extra = sorted((key.lower(), tuple(values)) for key, values in asked.spec.extra.items())
            who = Identity(asked.spec.user, asked.spec.uid, tuple(asked.spec.groups), tuple(extra))
            who = of_cluster(who, scope.cluster)
        _check_attributes(asked.spec)
        status = _answered(asked.spec, catalogue)
        if not scope.gate.open and (scope.writable or status["allowed"]):
            status = await _decided(who, asked.spec, scope)
    # Only what was understood of it is sent back: the rest may be of any size and depth.
    return (
        msgspec.json.encode(
            {"kind": kind, "apiVersion": asked.api_version, "metadata": {}, "spec": asked.spec, "status": status}
        )
        + b"\n"
    )


def _check_subject(of: ReviewKind, spec: _Spec) -> None:
    """Raises ApiError 400, 422 (k8s.io/kubernetes pkg/apis/authorization/validation, pkg/registry/authorization)."""
    if not spec.user and not spec.groups:
        raise ApiError(422, 'spec.user: Invalid value: "": at least one of user or group must be specified')
    if of.kind != _LOCAL:
        return
    if spec.resource_attributes is None:
        raise ApiError(422, "spec.nonResourceAttributes: Invalid value: disallowed on this kind of request")
    if spec.resource_attributes.namespace != of.namespace:
        raise ApiError(400, f"spec.resourceAttributes.namespace must match namespace: {of.namespace}")


def _parsed(kind: str, content_type: str, body: bytes) -> _Review:
    try:
        if content_type == PROTOBUF:
            given = _of_protobuf(kind, body)
        elif content_type in ("application/yaml", "text/yaml"):
            given = from_yaml(body)
        elif content_type in ("", "application/json", "application/octet-stream"):
            given = msgspec.json.decode(body)
        else:
            raise ApiError(
                415,
                "the body of the request was in an unknown format - accepted media types include: "
                f"application/json, application/yaml, {PROTOBUF}",
            )
        asked = msgspec.convert(given, _Review, strict=False)
    except (msgspec.MsgspecError, RecursionError, ValueError) as cause:
        raise ApiError(400, f"the body is no {kind}: {' '.join(str(cause).split())[:200]}") from None
    group = "authentication.k8s.io" if kind == "SelfSubjectReview" else "authorization.k8s.io"
    if asked.kind not in ("", kind) or asked.api_version not in ("", f"{group}/v1"):
        raise ApiError(400, f"the body is {asked.kind} of {asked.api_version}, not {kind} of {group}/v1")
    return msgspec.structs.replace(asked, kind=kind, api_version=f"{group}/v1")


def _of_protobuf(kind: str, body: bytes) -> dict[str, Any]:
    """A review from protobuf (k8s.io/api/authorization/v1/generated.proto). Raises ValueError."""
    about, raw = read_object(body)
    spec = read_fields(b"".join(read_fields(raw).get(2, ())))
    if kind == "SelfSubjectRulesReview":
        return {**about, "spec": {"namespace": text_of(spec, 1)}}
    given: dict[str, Any] = {}
    if 1 in spec:
        fields = read_fields(b"".join(spec[1]))
        names = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name"}
        given["resourceAttributes"] = {name: text for at, name in names.items() if (text := text_of(fields, at))}
    if 2 in spec:
        fields = read_fields(b"".join(spec[2]))
        given["nonResourceAttributes"] = {"path": text_of(fields, 1), "verb": text_of(fields, 2)}
    if kind in _OF_SUBJECTS:
        given |= {"user": text_of(spec, 3), "uid": text_of(spec, 6)}
        given["groups"] = [group.decode() for group in spec.get(4, ())]
        given["extra"] = dict(_extra_of(entry) for entry in spec.get(5, ()))
    return {**about, "spec": given}


def _extra_of(entry: bytes) -> tuple[str, list[str]]:
    """An entry of the map `extra` from protobuf: a key, and a message with its values."""
    fields = read_fields(entry)
    values = read_fields(b"".join(fields.get(2, ())))
    return text_of(fields, 1), [value.decode() for value in values.get(1, ())]


def _user_info(who: Identity) -> dict[str, Any]:
    info: dict[str, Any] = {"username": who.name}
    if who.uid:
        info["uid"] = who.uid
    if who.groups:
        info["groups"] = list(who.groups)
    if who.extra:
        info["extra"] = {key: list(values) for key, values in who.extra}
    return info


async def _decided(who: Identity, spec: _Spec, scope: ReviewScope) -> dict[str, Any]:
    """What is decided about a subject: by one cluster, or whether any cluster lets it see something."""
    if (asked := spec.resource_attributes) is not None:
        of = (asked.group, asked.version or "*", asked.resource, asked.subresource)
        what = Attributes(asked.verb, *of, asked.namespace, asked.name)
    else:
        assert spec.non_resource_attributes is not None
        what = Attributes(spec.non_resource_attributes.verb, path=spec.non_resource_attributes.path or "/")
    if scope.cluster is None and what.is_resource and not _of_a_review(asked):
        visible = await scope.gate.visible(who, what)
        if not visible.whole and visible.clusters:
            return {"allowed": True, "reason": f"in {', '.join(sorted(visible.clusters))}"}
        return {"allowed": not visible.empty}
    verdict = await scope.gate.verdict(who, scope.cluster, what)
    status: dict[str, Any] = {"allowed": verdict.allowed}
    if verdict.decision is Decision.DENY:
        status["denied"] = True
    if verdict.reason:
        status["reason"] = verdict.reason
    if verdict.error:
        status["evaluationError"] = verdict.error
    return status


def _rules_of(scope: ReviewScope, namespace: str) -> dict[str, Any]:
    """The rules of who asks; at the root those for reading, of all clusters."""
    found = scope.gate.rules(scope.who, scope.cluster, namespace)
    rules = found.rules
    if scope.cluster is None:
        reading = dict.fromkeys(one for rule in rules if (one := _reading(rule)) is not None)
        rules = (*scope.gate.rules_at_root(scope.who), *reading)
    status: dict[str, Any] = {
        "resourceRules": [rule for rule in rules if rule.resources],
        "nonResourceRules": [rule for rule in rules if rule.non_resource_urls],
        "incomplete": found.incomplete,
    }
    if found.error:
        status["evaluationError"] = found.error
    return status


def _reading(rule: PolicyRule) -> PolicyRule | None:
    """What of a rule is left where objects are read and nothing else."""
    if rule.non_resource_urls:
        return rule
    verbs = tuple(verb for verb in READ_VERBS if verb in (rule.verbs or ()) or "*" in (rule.verbs or ()))
    return msgspec.structs.replace(rule, verbs=verbs) if verbs else None


def _of_a_review(asked: _Resource | None) -> bool:
    """Whether it is about asking such as this, which is done at the root, too."""
    return (
        asked is not None
        and asked.verb == "create"
        and not asked.subresource
        and (asked.group, asked.resource) in _KINDS
    )


def _check_attributes(spec: _Spec) -> None:
    """Raises ApiError 422."""
    if (spec.resource_attributes is None) == (spec.non_resource_attributes is None):
        raise ApiError(
            422,
            "spec.resourceAttributes: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must "
            "be specified",
        )


def _answered(spec: _Spec, catalogue: Catalogue) -> dict[str, Any]:
    """Whether it is something that is answered here, for whomever."""
    if spec.resource_attributes is None:
        assert spec.non_resource_attributes is not None
        path = spec.non_resource_attributes
        if path.verb.lower() in ("get", "head") and path.path.startswith(_PATHS):
            return {"allowed": True}
        return {"allowed": False, "reason": f"{path.verb} {path.path} is nothing that is answered here"}
    asked = spec.resource_attributes
    if _of_a_review(asked):
        return {"allowed": True}
    if asked.verb not in READ_VERBS or asked.subresource:
        return {
            "allowed": False,
            "reason": "objects of many clusters are read here; for all else use /clusters/<cluster>",
        }
    if asked.resource == "*":
        known = asked.group == "*" or any(group == asked.group for group, _ in catalogue.types)
    elif asked.group == "*":
        known = any(resource == asked.resource for _, resource in catalogue.types)
    else:
        known = (asked.group, asked.resource) in catalogue.types
    if known:
        return {"allowed": True}
    asked_for = GroupResource(asked.group, asked.resource)
    return {"allowed": False, "reason": f"no cluster has {asked_for} here"}


def _rules(catalogue: Catalogue) -> dict[str, Any]:
    groups: dict[str, list[str]] = {}
    for group, resource in sorted(catalogue.types):
        groups.setdefault(group, []).append(resource)
    return {
        "resourceRules": [
            {"verbs": list(READ_VERBS), "apiGroups": [group], "resources": resources}
            for group, resources in groups.items()
        ],
        "nonResourceRules": [
            {"verbs": ["get"], "nonResourceURLs": [url for path in _PATHS for url in (path, f"{path}/*")]}
        ],
        "incomplete": False,
    }
