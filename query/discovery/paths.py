"""Paths: what a request's URL names, in the scope of all clusters or of one.

`/api/v1/...` and `/apis/<group>/<version>/...` stand at the root for all clusters and below
`/clusters/<cluster>` for one. Clusterpedia's clients have the same below `/apis/clusterpedia.io/v1beta1/resources`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from deltalog.wire.kubernetes import GroupResource
from query.http.status import UnknownPath, no_such_path

SERVED_PATHS = ("/api", "/apis", "/clusters", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version")
"""What the document at `/` lists."""

# First segments of what an API server serves: what stands behind a cluster's name.
_ROOTS = frozenset(
    (
        *("api", "apis", "openapi", "version", "healthz", "livez", "readyz", "metrics", "logs", "debug", "configz"),
        *("flagz", "statusz", "openid", ".well-known", "swagger.json", "swagger-2.0.0.pb-v1", "swaggerapi"),
    )
)

# Subresources of a namespace itself; any other word behind its name is a resource type in it.
_OF_NAMESPACE = ("status", "finalize")


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """A resource type, or one object of it, as a path names it.

    `namespace`, `name` and `subresource` are "" where the path has none; a subresource may have several segments,
    `proxy/a/b`. `watch`: the path is of the deprecated form `/api/v1/watch/pods`.
    """

    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    watch: bool = False

    @property
    def group_resource(self) -> GroupResource:
        """The type, whatever its version."""
        return GroupResource(self.group, self.resource)


def split(path: str) -> list[str]:
    """The segments of a raw path, decoded; slashes at its ends do not count.

    `/api/v1/namespaces/a%20b/` is `["api", "v1", "namespaces", "a b"]`. Only behind a `proxy` segment may one be empty,
    as what follows is the path of another server. None may be `.` or `..`, or have these behind an encoded slash.

    Raises:
        ApiError: 404.
    """
    segments = [unquote(segment, errors="replace") for segment in path.strip("/").split("/")]
    if segments == [""]:
        return []
    if "" in segments and "proxy" not in segments[: segments.index("")]:
        raise no_such_path()
    # Servers on the way would take them for different paths, perhaps for one of another cluster.
    if any(not {".", ".."}.isdisjoint(segment.split("/")) for segment in segments):
        raise no_such_path()
    return segments


def cluster_scope(segments: list[str], known: Iterable[str]) -> tuple[str | None, list[str]]:
    """The cluster whose scope a path is in (None: all), and the path within. `known`: names of clusters.

    `clusters/alpha/api` is in the scope of `alpha`, its path within is `api`. A cluster's name may have slashes, as
    that of an EKS context has; they may stand in the URL as they are. Of several names that fit the shortest is meant
    behind which a path of an API server begins: `clusters/default/api-host:6443/me/api` is in the scope of
    `default/api-host:6443/me`, though there is a `default`, and `clusters/default/api/v1/pods` in that of `default`,
    though there may be a `default/api`: no name takes another cluster's paths, and what clients send there. One that
    is hidden so is asked for by `default%2Fapi`. Of other paths the longest name's cluster is meant.

    Raises:
        UnknownPath: there is no such cluster.
    """
    if not segments or segments[0] != "clusters":
        return None, segments
    if len(segments) == 1:
        return None, segments
    names = set(known)
    deepest = max((name.count("/") for name in names), default=0)
    ends = range(2, min(len(segments), deepest + 2) + 1)
    fitting = [end for end in ends if "/".join(segments[1:end]) in names]
    meant = next((end for end in fitting if end == len(segments) or segments[end] in _ROOTS), None)
    if meant is None:
        if not fitting:
            raise no_such_cluster(segments[1], names)
        meant = fitting[-1]
    return "/".join(segments[1:meant]), segments[meant:]


def no_such_cluster(name: str, names: Iterable[str]) -> UnknownPath:
    """The answer to a request for a cluster that there is none of; `names`: those that there are."""
    return UnknownPath(
        f'clusters "{name}" not found; there are: {", ".join(sorted(names)) or "none yet"}',
        details={"name": name, "kind": "clusters"},
    )


def resource_target(segments: list[str]) -> RequestTarget:
    """The resource that `api/v1/...` or `apis/<group>/<version>/...` names, from at least one segment behind those.

    k8s.io/apiserver pkg/endpoints/request/requestinfo.go: NewRequestInfo.
    """
    if segments[0] == "api":
        group, rest = "", segments[1:]
    else:
        group, rest = segments[1], segments[2:]
    version, *rest = rest
    # k8s.io/apiserver pkg/endpoints/request/requestinfo.go: specialVerbs.
    watch = rest[0] == "watch" and len(rest) > 1
    if watch:
        rest = rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and not (len(rest) == 3 and rest[2] in _OF_NAMESPACE and not group):
        namespace, rest = rest[1], rest[2:]
    resource, *rest = rest
    name = rest[0] if rest else ""
    return RequestTarget(group, version, resource, namespace, name, "/".join(rest[1:]), watch)
