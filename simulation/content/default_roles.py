"""Default roles: the ClusterRoles and bindings that a kube-apiserver makes at its start, those that matter to clients.

k8s.io/kubernetes plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go; of groups that are not served here, little.
"""

from __future__ import annotations

from typing import Any

__all__ = ["AGGREGATED", "CLUSTER_ROLES", "CLUSTER_ROLE_BINDINGS"]

StoredRule = dict[str, Any]

_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_HEALTH = ("/healthz", "/livez", "/readyz")


def _rule(verbs: tuple[str, ...], group: str, *resources: str) -> StoredRule:
    return {"verbs": list(verbs), "apiGroups": [group], "resources": list(resources)}


def _paths(*paths: str) -> StoredRule:
    return {"verbs": ["get"], "nonResourceURLs": list(paths)}


_VIEW = [
    _rule(
        _READ,
        "",
        *("configmaps", "endpoints", "persistentvolumeclaims", "persistentvolumeclaims/status", "pods"),
        *("replicationcontrollers", "replicationcontrollers/scale", "serviceaccounts", "services", "services/status"),
    ),
    _rule(
        _READ,
        "",
        *("bindings", "events", "limitranges", "namespaces/status", "pods/log", "pods/status"),
        *("replicationcontrollers/status", "resourcequotas", "resourcequotas/status"),
    ),
    _rule(_READ, "", "namespaces"),
    _rule(_READ, "discovery.k8s.io", "endpointslices"),
    _rule(
        _READ,
        "apps",
        *("controllerrevisions", "daemonsets", "daemonsets/status", "deployments", "deployments/scale"),
        *("deployments/status", "replicasets", "replicasets/scale", "replicasets/status", "statefulsets"),
        *("statefulsets/scale", "statefulsets/status"),
    ),
    _rule(_READ, "autoscaling", "horizontalpodautoscalers", "horizontalpodautoscalers/status"),
    _rule(_READ, "batch", "cronjobs", "cronjobs/status", "jobs", "jobs/status"),
    _rule(_READ, "policy", "poddisruptionbudgets", "poddisruptionbudgets/status"),
    _rule(_READ, "networking.k8s.io", "ingresses", "ingresses/status", "networkpolicies"),
]
_EDIT = [
    _rule(_READ, "", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"),
    _rule(("impersonate",), "", "serviceaccounts"),
    _rule(_WRITE, "", "pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"),
    _rule(("create",), "", "pods/eviction"),
    _rule(
        _WRITE,
        "",
        *("configmaps", "events", "persistentvolumeclaims", "replicationcontrollers", "replicationcontrollers/scale"),
        *("secrets", "serviceaccounts", "services", "services/proxy"),
    ),
    _rule(("create",), "", "serviceaccounts/token"),
    _rule(
        _WRITE,
        "apps",
        *("daemonsets", "deployments", "deployments/rollback", "deployments/scale", "replicasets"),
        *("replicasets/scale", "statefulsets", "statefulsets/scale"),
    ),
    _rule(_WRITE, "autoscaling", "horizontalpodautoscalers"),
    _rule(_WRITE, "batch", "cronjobs", "jobs"),
    _rule(_WRITE, "policy", "poddisruptionbudgets"),
    _rule(_WRITE, "networking.k8s.io", "ingresses", "networkpolicies"),
    _rule((*_WRITE, *_READ), "coordination.k8s.io", "leases"),
]
_ADMIN = [
    _rule(("create",), "authorization.k8s.io", "localsubjectaccessreviews"),
    _rule((*_WRITE, *_READ), "rbac.authorization.k8s.io", "rolebindings", "roles"),
]

CLUSTER_ROLES: dict[str, list[StoredRule]] = {
    "cluster-admin": [_rule(("*",), "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "system:aggregate-to-admin": _ADMIN,
    "system:aggregate-to-edit": _EDIT,
    "system:aggregate-to-view": _VIEW,
    # Their rules are those of the roles above, put together by the controller clusterrole-aggregation.
    "admin": [*_ADMIN, *_EDIT, *_VIEW],
    "edit": [*_EDIT, *_VIEW],
    "view": _VIEW,
    "system:auth-delegator": [
        _rule(("create",), "authentication.k8s.io", "tokenreviews"),
        _rule(("create",), "authorization.k8s.io", "subjectaccessreviews"),
    ],
    "system:basic-user": [
        _rule(("create",), "authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectrulesreviews"),
        _rule(("create",), "authentication.k8s.io", "selfsubjectreviews"),
    ],
    "system:discovery": [
        _paths("/api", "/api/*", "/apis", "/apis/*", *_HEALTH, "/openapi", "/openapi/*", "/version", "/version/")
    ],
    "system:monitoring": [_paths(*(f"{path}/*" for path in _HEALTH), *_HEALTH, "/metrics", "/metrics/slis")],
    "system:node": [_rule(_READ, "", "nodes", "pods")],
    "system:public-info-viewer": [_paths(*_HEALTH, "/version", "/version/")],
    "system:service-account-issuer-discovery": [_paths("/.well-known/openid-configuration", "/openid/v1/jwks")],
}
"""Rules by the names of the roles."""

AGGREGATED = {
    "admin": ("admin", "edit", "view"),
    "edit": ("edit", "view"),
    "view": ("view",),
}
"""Whose labels `rbac.authorization.k8s.io/aggregate-to-...` each role has put together."""

CLUSTER_ROLE_BINDINGS: dict[str, tuple[str, ...]] = {
    "cluster-admin": ("system:masters",),
    "system:basic-user": ("system:authenticated",),
    "system:discovery": ("system:authenticated",),
    "system:monitoring": ("system:monitoring",),
    # The node authorizer decides about kubelets.
    "system:node": (),
    "system:public-info-viewer": ("system:authenticated", "system:unauthenticated"),
    "system:service-account-issuer-discovery": ("system:serviceaccounts",),
}
"""The groups that have each role in all of the cluster."""
