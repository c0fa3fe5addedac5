"""RBAC: what the roles and bindings that are stored in a cluster allow.

A transcription, as plain as can be, of k8s.io/kubernetes pkg/registry/rbac/validation/rule.go,
plugin/pkg/auth/authorizer/rbac/rbac.go and pkg/apis/rbac/v1/evaluation_helpers.go: nothing is compiled or remembered,
every decision reads all bindings. That writers grant no more than they have themselves is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from simulation.access.actions import Action
from simulation.access.users import MASTERS, ClusterUser
from simulation.storage import ClusterStorage

__all__ = ["Rbac", "RbacDecision"]

_GROUP = "rbac.authorization.k8s.io"

StoredRule = dict[str, Any]


class RbacDecision(NamedTuple):
    """Whether something is allowed, and what is said about it. What is not allowed is not denied either."""

    allowed: bool
    reason: str = ""


class _Visited(NamedTuple):
    """A rule with the binding that gives it, or an error."""

    source: str = ""
    rule: StoredRule | None = None
    error: str = ""


class Rbac:
    """Decides by the objects of a storage, as they are at that moment."""

    def __init__(self, storage: ClusterStorage) -> None:
        self._storage = storage

    def decide(self, user: ClusterUser, action: Action) -> RbacDecision:
        """Whether a user may do something. system:masters may do everything, whatever is stored."""
        if MASTERS in user.groups:
            return RbacDecision(True)
        errors: list[str] = []
        for visited in self._visit_rules(user, action.namespace):
            if visited.rule is not None and _rule_allows(action, visited.rule):
                return RbacDecision(True, f"RBAC: allowed by {visited.source}")
            if visited.error:
                errors.append(visited.error)
        return RbacDecision(False, f"RBAC: {_aggregate(errors)}" if errors else "")

    def rules(self, user: ClusterUser, namespace: str) -> tuple[list[StoredRule], str]:
        """All rules of a user in a namespace, and the errors met on the way."""
        rules: list[StoredRule] = []
        errors: list[str] = []
        for visited in self._visit_rules(user, namespace):
            if visited.rule is not None:
                rules.append(visited.rule)
            else:
                errors.append(visited.error)
        return rules, _aggregate(errors)

    def _visit_rules(self, user: ClusterUser, namespace: str) -> Iterator[_Visited]:
        for binding in self._bodies("clusterrolebindings"):
            yield from self._visit_binding(user, binding, "")
        if namespace:
            for binding in self._bodies("rolebindings"):
                if binding["metadata"]["namespace"] == namespace:
                    yield from self._visit_binding(user, binding, namespace)

    def _visit_binding(self, user: ClusterUser, binding: dict[str, Any], namespace: str) -> Iterator[_Visited]:
        for subject in binding.get("subjects") or ():
            if _applies_to_user(user, subject, namespace):
                break
        else:
            return
        ref = binding.get("roleRef") or {}
        rules, error = self._role_reference_rules(ref, namespace)
        if error:
            yield _Visited(error=error)
            return
        name = binding["metadata"]["name"]
        kind, shown = ("RoleBinding", f"{name}/{namespace}") if namespace else ("ClusterRoleBinding", name)
        source = f'{kind} "{shown}" of {ref["kind"]} "{ref["name"]}" to {_describe_subject(subject, namespace)}'
        for rule in rules:
            yield _Visited(source, rule)

    def _role_reference_rules(self, ref: dict[str, Any], namespace: str) -> tuple[list[StoredRule], str]:
        kind, name = ref.get("kind", ""), ref.get("name", "")
        if kind == "Role":
            stored = self._storage.get((_GROUP, "roles"), namespace, name) if namespace else None
        elif kind == "ClusterRole":
            stored = self._storage.get((_GROUP, "clusterroles"), "", name)
        else:
            return [], f'unsupported role reference kind: "{kind}"'
        if stored is None:
            return [], f'{kind.lower()}.{_GROUP} "{name}" not found'
        return stored.body().get("rules") or [], ""

    def _bodies(self, resource: str) -> Iterator[dict[str, Any]]:
        for stored in list(self._storage.collections[(_GROUP, resource)].in_order()):
            yield stored.body()


def _applies_to_user(user: ClusterUser, subject: dict[str, Any], namespace: str) -> bool:
    kind, name = subject.get("kind", ""), subject.get("name", "")
    if kind == "User":
        return bool(user.name == name)
    if kind == "Group":
        return any(name == group for group in user.groups)
    if kind == "ServiceAccount":
        namespace = subject.get("namespace") or namespace
        if not namespace:
            return False
        return user.name == f"system:serviceaccount:{namespace}:{name}"
    return False


def _describe_subject(subject: dict[str, Any], namespace: str) -> str:
    if subject["kind"] == "ServiceAccount":
        return f'ServiceAccount "{subject["name"]}/{subject.get("namespace") or namespace}"'
    return f'{subject["kind"]} "{subject["name"]}"'


def _rule_allows(action: Action, rule: StoredRule) -> bool:
    if action.path:
        return _verb_matches(rule, action.verb) and _non_resource_url_matches(rule, action.path)
    combined = f"{action.resource}/{action.subresource}" if action.subresource else action.resource
    return (
        _verb_matches(rule, action.verb)
        and _api_group_matches(rule, action.group)
        and _resource_matches(rule, combined, action.subresource)
        and _resource_name_matches(rule, action.name)
    )


def _verb_matches(rule: StoredRule, verb: str) -> bool:
    return any(one in ("*", verb) for one in rule.get("verbs") or ())


def _api_group_matches(rule: StoredRule, group: str) -> bool:
    return any(one in ("*", group) for one in rule.get("apiGroups") or ())


def _resource_matches(rule: StoredRule, combined: str, subresource: str) -> bool:
    for one in rule.get("resources") or ():
        if one in ("*", combined):
            return True
        if subresource and one == f"*/{subresource}":
            return True
    return False


def _resource_name_matches(rule: StoredRule, name: str) -> bool:
    names = rule.get("resourceNames") or ()
    return not names or name in names


def _non_resource_url_matches(rule: StoredRule, path: str) -> bool:
    for one in rule.get("nonResourceURLs") or ():
        if one in ("*", path):
            return True
        if one.endswith("*") and path.startswith(one.rstrip("*")):
            return True
    return False


def _aggregate(errors: list[str]) -> str:
    """As utilerrors.NewAggregate says it: several in brackets, each once."""
    distinct = list(dict.fromkeys(errors))
    return distinct[0] if len(distinct) == 1 else f"[{', '.join(distinct)}]" if distinct else ""
