"""Access: the roles and bindings of RBAC."""

from __future__ import annotations

from simulation.content.builder import DAY, ContentBuilder

__all__ = ["add_roles"]


def add_roles(builder: ContentBuilder) -> None:
    """Add a few of the default cluster roles, and the role by which controllers elect their leader."""
    group = "rbac.authorization.k8s.io"
    age = 60 * DAY
    rules = {
        "cluster-admin": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
        "view": [
            {"apiGroups": ["", "apps", "batch"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        ],
        "system:node": [{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"]}],
    }
    bootstrap = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    for name, allowed in rules.items():
        body = {"metadata": {"name": name, "labels": dict(bootstrap)}, "rules": allowed}
        builder.put(group, "clusterroles", body, manager="kube-apiserver", age=age)
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"}
    builder.put(
        group,
        "clusterrolebindings",
        {
            "metadata": {"name": "cluster-admin", "labels": dict(bootstrap)},
            "roleRef": reference,
            "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:masters"}],
        },
        manager="kube-apiserver",
        age=age,
    )
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
