"""Access: the roles and bindings of RBAC."""

from __future__ import annotations

from typing import Any

from simulation.content.builder import DAY, ContentBuilder
from simulation.content.default_roles import AGGREGATED, CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES

__all__ = ["add_roles"]


def add_roles(builder: ContentBuilder) -> None:
    """Add the default cluster roles and bindings, and the role by which controllers elect their leader."""
    group = "rbac.authorization.k8s.io"
    age = 60 * DAY
    for name, rules in CLUSTER_ROLES.items():
        labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
        if (into := name.removeprefix("system:aggregate-to-")) != name:
            labels[f"{group}/aggregate-to-{into}"] = "true"
        body: dict[str, Any] = {"metadata": {"name": name, "labels": labels}, "rules": rules}
        if name in AGGREGATED:
            body["aggregationRule"] = {
                "clusterRoleSelectors": [
                    {"matchLabels": {f"{group}/aggregate-to-{one}": "true"}} for one in AGGREGATED[name]
                ]
            }
        builder.put(group, "clusterroles", body, manager="kube-apiserver", age=age)
    for name, groups in CLUSTER_ROLE_BINDINGS.items():
        bound: dict[str, Any] = {
            "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        }
        if groups:
            bound["subjects"] = [{"apiGroup": group, "kind": "Group", "name": one} for one in groups]
        builder.put(group, "clusterrolebindings", bound, manager="kube-apiserver", age=age)
    builder.put(
        group,
        "roles",
        {
            "metadata": {"name": "leader-election", "namespace": "kube-system"},
            "rules": [
                {
                    "apiGroups": ["coordination.k8s.io"],
                    "resources": ["leases"],
                    "verbs": ["get", "create", "update"],
                }
            ],
        },
        age=age,
    )
    builder.put(
        group,
        "rolebindings",
        {
            "metadata": {"name": "leader-election", "namespace": "kube-system"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "leader-election"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "kube-system"}],
        },
        age=age,
    )
