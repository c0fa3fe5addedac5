"""Paths: what a request's URL names, in the scope of all clusters or of one.

`/api/v1/...` and `/apis/<group>/<version>/...` stand at the root for all clusters and below
`/clusters/<cluster>` for one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from deltalog.wire.kubernetes import GroupResource
from query.http.status import UnknownPath, no_such_path

SERVED_PATHS = ("/api", "/apis", "/clusters", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version")
"""What the document at `/` lists."""

# Subresources of a namespace itself; any other word behind its name is a resource type in it.
_OF_NAMESPACE = ("status", "finalize")


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """A resource type, or one object of it. `namespace` and `name` "" where the path has none.

    `watch`: the path is of the form from before there was a parameter for it, `/api/v1/watch/pods`.
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
        return GroupResource(self.group, self.resource)


def split(path: str) -> list[str]:
    """The segments of a raw path, decoded; a slash at the end counts for nothing. Raises ApiError 404.

    Only behind a `proxy` segment may one be empty: what is behind it is the path of another server. None may be `.` or
    `..`, or hold these behind an encoded slash.
    """
    segments = [unquote(segment, errors="replace") for segment in path.strip("/").split("/")]
    if segments == [""]:
        return []
    if "" in segments and "proxy" not in segments[: segments.index("")]:
        raise no_such_path()
    # To one server on the way they name another path than to the next, perhaps that of another cluster.
    if any(not {".", ".."}.isdisjoint(segment.split("/")) for segment in segments):
        raise no_such_path()
    return segments


def cluster_scope(segments: list[str], known: Iterable[str]) -> tuple[str | None, list[str]]:
    """The cluster that a path is below, and the path within. Raises ApiError 404 for an unknown cluster.

    A cluster's name may hold slashes (an EKS context's does); they may stand in the URL as they are.
    """
    if not segments or segments[0] != "clusters":
        return None, segments
    if len(segments) == 1:
        return None, segments
    names = set(known)
    if segments[1] in names:
        return segments[1], segments[2:]
    for end in range(len(segments), 2, -1):
        name = "/".join(segments[1:end])
        if name in names:
            return name, segments[end:]
    raise UnknownPath(
        f'clusters "{segments[1]}" not found; there are: {", ".join(sorted(names)) or "none yet"}',
        details={"name": segments[1], "kind": "clusters"},
    )


def resource_target(segments: list[str]) -> RequestTarget:
    """The resource that `api/v1/...` or `apis/<group>/<version>/...` names. Raises ApiError 404."""
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
