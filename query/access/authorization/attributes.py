"""Attributes: what a request does, as authorizers see it.

k8s.io/apiserver pkg/endpoints/request/requestinfo.go and pkg/endpoints/filters/authorization.go.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SelectorRequirement:
    """One requirement of a field or label selector, as SubjectAccessReview has them (`operator`: In, NotIn, ...)."""

    key: str
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request does. `path`: of one that is for no resource, "" for one that is; the rest is "" then.

    Examples: `GET /api/v1/namespaces/web/pods?watch=1` is `Attributes("watch", resource="pods", version="v1",
    namespace="web")`; `GET /healthz` is `Attributes("get", path="/healthz")`.
    """

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    fields: tuple[SelectorRequirement, ...] = ()
    labels: tuple[SelectorRequirement, ...] = ()

    @property
    def is_resource(self) -> bool:
        """Whether it is for a resource."""
        return not self.path
