"""Roles: RBAC as clusters of benchmarks have it: about what each has from its start on, and a few teams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from deltalog.wire.resource_type import ResourceType
from query.access.authorization.rbac import GROUP

USUAL = 70
"""Of the ClusterRoles of a cluster, each with a binding of its own."""
TEAMS = 20
"""So many namespaces have a team that may see its pods."""

_KINDS = {
    "clusterroles": "ClusterRole",
    "roles": "Role",
    "clusterrolebindings": "ClusterRoleBinding",
    "rolebindings": "RoleBinding",
}


class Rule(NamedTuple):
    """One object of RBAC. `resource`: that of its type; `content`: what it has beside its metadata."""

    resource: str
    namespace: str
    name: str
    content: dict[str, Any]


def type_of(resource: str) -> ResourceType:
    """One of the four types."""
    namespaced = not resource.startswith("cluster")
    return ResourceType(group=GROUP, resource=resource, version="v1", kind=_KINDS[resource], namespaced=namespaced)


def reading(groups: list[str], resources: list[str]) -> dict[str, Any]:
    """A role's content: get, list and watch."""
    return {"rules": [{"verbs": ["get", "list", "watch"], "apiGroups": groups, "resources": resources}]}


def bound(role: str, subject: str, kind: str = "User") -> dict[str, Any]:
    """A binding's content: a ClusterRole for one subject."""
    ref = {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}
    return {"roleRef": ref, "subjects": [{"apiGroup": GROUP, "kind": kind, "name": subject}]}


def usual(number: int) -> Iterator[Rule]:
    """What cluster `number` of many has. The ClusterRole `view` reads pods; group50 and higher ones have nothing."""
    for role in range(USUAL):
        rules = [reading([f"g{role}"], [f"r{part}", f"r{part}/status"])["rules"][0] for part in range(6)]
        yield Rule("clusterroles", "", f"system:role-{role}", {"rules": rules})
        yield Rule("clusterrolebindings", "", f"system:role-{role}", bound(f"system:role-{role}", f"user{role}"))
    yield Rule("clusterroles", "", "view", reading(["", "apps"], ["pods", "pods/log"]))
    for team in range(TEAMS):
        yield Rule("rolebindings", f"team-{team}", "view", bound("view", f"group{(team + number) % 50}", "Group"))
