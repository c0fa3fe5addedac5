"""Collections: names for several types that are listed and watched as one, and the types that `any` is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deltalog.wire.kubernetes import GroupResource
from query.http.status import ApiError

_VERSION = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?", re.ASCII)
# What one request may name.
_MOST = 500


@dataclass(frozen=True, slots=True)
class CollectedTypes:
    """Types of a group. `resource` None: all of them. `version`: only objects in this one; None: whichever they are in.

    `group` None: of any group.
    """

    group: str | None
    resource: str | None = None
    version: str | None = None

    def matches(self, key: GroupResource) -> bool:
        """Whether a type is one of them. O(1)."""
        return self.group in (None, key.group) and self.resource in (None, key.resource)


@dataclass(frozen=True, slots=True)
class ResourceCollection:
    """Several types under one name. `patterns` None: those that a request names (`any`)."""

    name: str
    patterns: tuple[CollectedTypes, ...] | None


_WORKLOADS = ("deployments", "daemonsets", "statefulsets")
# Groups of a kube-apiserver itself and of the two servers within it (k8s.io/kubernetes pkg/controlplane).
_BUILT_IN = (
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "extensions",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
)

COLLECTIONS: Mapping[str, ResourceCollection] = {
    one.name: one
    for one in (
        ResourceCollection("any", None),
        ResourceCollection("workloads", tuple(CollectedTypes("apps", resource) for resource in _WORKLOADS)),
        ResourceCollection("kuberesources", tuple(CollectedTypes(group) for group in _BUILT_IN)),
    )
}
"""Those that there always are, as at Clusterpedia."""


def patterns_of(query: Mapping[str, str]) -> tuple[CollectedTypes, ...]:
    """The types that a request for `any` names, by its parameters `groups` and `resources`.

    `groups=apps,batch/v1` and `resources=pods,apps/deployments,batch/v1/jobs,ships.sea.example.io` are all of apps, of
    batch what is in v1, and four types; the core group is `core`, and `groups=*` is everything.

    Raises:
        ApiError: 400, it names none, too many, or something that is no type.
    """
    groups = [one.strip() for one in query.get("groups", "").split(",") if one.strip()]
    resources = [one.strip() for one in query.get("resources", "").split(",") if one.strip()]
    if not groups and not resources:
        raise ApiError(400, "collection any: name its types: groups=apps,core or resources=pods,apps/deployments")
    if len(groups) + len(resources) > _MOST:
        raise ApiError(400, f"collection any: more than {_MOST} groups and resources")
    found = dict.fromkeys([*map(_of_group, groups), *map(_of_resource, resources)])
    return tuple(found)


def _of_group(text: str) -> CollectedTypes:
    group, slash, version = text.partition("/")
    if text == "*":
        return CollectedTypes(None)
    if "/" in version or (slash and not version) or not group:
        raise ApiError(400, f"groups: {text[:64]!r} is no group; write apps, batch/v1, core or *")
    return CollectedTypes(group_named(group), version=version or None)


def _of_resource(text: str) -> CollectedTypes:
    parts = text.split("/")
    if not parts[-1] or len(parts) > 3:
        raise ApiError(400, f"resources: {text[:64]!r} is no type; write pods, apps/deployments or apps/v1/deployments")
    if len(parts) == 3:
        return CollectedTypes(group_named(parts[0]), parts[2], parts[1])
    if len(parts) == 2:
        if _VERSION.fullmatch(parts[0]):
            return CollectedTypes("", parts[1], parts[0])
        return CollectedTypes(group_named(parts[0]), parts[1])
    resource, _, group = text.partition(".")
    if not resource:
        raise ApiError(400, f"resources: {text[:64]!r} is no type; write pods or deployments.apps")
    return CollectedTypes(group, resource)


def group_named(text: str) -> str:
    """The group that a text stands for: `core` is the one without a name."""
    return "" if text == "core" else text


def with_configured(configured: Iterable[ResourceCollection]) -> Mapping[str, ResourceCollection]:
    """All collections by name: those that there always are, then those of the configuration."""
    return {**COLLECTIONS, **{one.name: one for one in configured}}
