"""Plain RBAC: rule.go, rbac.go and evaluation_helpers.go of Kubernetes 1.36 transcribed, function by function.

A second implementation for tests to compare with: objects are the dicts that their JSON is, nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """authorizer.Attributes."""

    user: str
    groups: tuple[str, ...]
    verb: str
    resource_request: bool = True
    group: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    namespace: str = ""
    path: str = ""


@dataclass
class World:
    """What a cluster's listers have: objects by kind."""

    cluster_roles: list[Object]
    roles: list[Object]
    cluster_role_bindings: list[Object]
    role_bindings: list[Object]


# -- pkg/apis/rbac/v1/evaluation_helpers.go ------------------------------------------------------------------------


def verb_matches(rule: Object, verb: str) -> bool:
    return any(one in ("*", verb) for one in rule.get("verbs") or [])


def api_group_matches(rule: Object, group: str) -> bool:
    return any(one in ("*", group) for one in rule.get("apiGroups") or [])


def resource_matches(rule: Object, combined: str, subresource: str) -> bool:
    for one in rule.get("resources") or []:
        if one == "*":
            return True
        if one == combined:
            return True
        if len(subresource) == 0:
            continue
        if len(one) == len(subresource) + 2 and one.startswith("*/") and one.endswith(subresource):
            return True
    return False


def resource_name_matches(rule: Object, name: str) -> bool:
    names = rule.get("resourceNames") or []
    if len(names) == 0:
        return True
    return any(one == name for one in names)


def non_resource_url_matches(rule: Object, url: str) -> bool:
    for one in rule.get("nonResourceURLs") or []:
        if one == "*":
            return True
        if one == url:
            return True
        if one.endswith("*") and url.startswith(one.rstrip("*")):
            return True
    return False


# -- plugin/pkg/auth/authorizer/rbac/rbac.go -----------------------------------------------------------------------


def rule_allows(request: Request, rule: Object) -> bool:
    if request.resource_request:
        combined = request.resource
        if request.subresource:
            combined = request.resource + "/" + request.subresource
        return (
            verb_matches(rule, request.verb)
            and api_group_matches(rule, request.group)
            and resource_matches(rule, combined, request.subresource)
            and resource_name_matches(rule, request.name)
        )
    return verb_matches(rule, request.verb) and non_resource_url_matches(rule, request.path)


def authorize(world: World, request: Request) -> tuple[bool, set[str], set[str]]:
    """Whether it is allowed; the reasons that may be told, as listers have no order; the errors met if it is not."""
    reasons, errors = set(), set()
    for source, rule, error in visit_rules(world, request.user, request.groups, request.namespace):
        if error:
            errors.add(error)
        elif rule is not None and rule_allows(request, rule):
            reasons.add(f"RBAC: allowed by {source}")
    return bool(reasons), reasons, errors


# -- pkg/registry/rbac/validation/rule.go --------------------------------------------------------------------------


def visit_rules(
    world: World, user: str, groups: tuple[str, ...], namespace: str
) -> Iterator[tuple[str, Object | None, str]]:
    for binding in world.cluster_role_bindings:
        index = applies_to(user, groups, binding.get("subjects") or [], "")
        if index is None:
            continue
        rules, error = role_reference_rules(world, binding["roleRef"], "")
        if error:
            yield "", None, error
            continue
        for rule in rules:
            yield describe_cluster_binding(binding, index), rule, ""
    if len(namespace) > 0:
        for binding in world.role_bindings:
            if binding["metadata"]["namespace"] != namespace:
                continue
            index = applies_to(user, groups, binding.get("subjects") or [], namespace)
            if index is None:
                continue
            rules, error = role_reference_rules(world, binding["roleRef"], namespace)
            if error:
                yield "", None, error
                continue
            for rule in rules:
                yield describe_binding(binding, index), rule, ""


def role_reference_rules(world: World, ref: Object, namespace: str) -> tuple[list[Object], str]:
    if ref["kind"] == "Role":
        for role in world.roles:
            if role["metadata"]["namespace"] == namespace and role["metadata"]["name"] == ref["name"]:
                return role.get("rules") or [], ""
        return [], f'role.rbac.authorization.k8s.io "{ref["name"]}" not found'
    if ref["kind"] == "ClusterRole":
        for role in world.cluster_roles:
            if role["metadata"]["name"] == ref["name"]:
                return role.get("rules") or [], ""
        return [], f'clusterrole.rbac.authorization.k8s.io "{ref["name"]}" not found'
    return [], f'unsupported role reference kind: "{ref["kind"]}"'


def applies_to(user: str, groups: tuple[str, ...], subjects: list[Object], namespace: str) -> int | None:
    for index, subject in enumerate(subjects):
        if applies_to_user(user, groups, subject, namespace):
            return index
    return None


def applies_to_user(user: str, groups: tuple[str, ...], subject: Object, namespace: str) -> bool:
    kinds: dict[str, Callable[[], bool]] = {
        "User": lambda: user == subject["name"],
        "Group": lambda: subject["name"] in groups,
        "ServiceAccount": lambda: matches_username(subject.get("namespace") or namespace, subject["name"], user),
    }
    applies = kinds.get(subject["kind"])
    return applies is not None and applies()


def matches_username(namespace: str, name: str, username: str) -> bool:
    if len(namespace) == 0:
        return False
    prefix = "system:serviceaccount:"
    if not username.startswith(prefix):
        return False
    username = username[len(prefix) :]
    if not username.startswith(namespace):
        return False
    username = username[len(namespace) :]
    if not username.startswith(":"):
        return False
    return username[1:] == name


def describe_subject(subject: Object, namespace: str) -> str:
    if subject["kind"] == "ServiceAccount":
        return f'ServiceAccount "{subject["name"]}/{subject.get("namespace") or namespace}"'
    return f'{subject["kind"]} "{subject["name"]}"'


def describe_cluster_binding(binding: Object, index: int) -> str:
    ref = binding["roleRef"]
    subject = describe_subject(binding["subjects"][index], "")
    return f'ClusterRoleBinding "{binding["metadata"]["name"]}" of {ref["kind"]} "{ref["name"]}" to {subject}'


def describe_binding(binding: Object, index: int) -> str:
    ref, namespace = binding["roleRef"], binding["metadata"]["namespace"]
    subject = describe_subject(binding["subjects"][index], namespace)
    return f'RoleBinding "{binding["metadata"]["name"]}/{namespace}" of {ref["kind"]} "{ref["name"]}" to {subject}'
