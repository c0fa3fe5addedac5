"""Paths below a group's version: which resource, object and subresource a request names, and which verb it uses.

The scheme is "Resource URIs" of "Kubernetes API Concepts": `/api/v1/namespaces/shop/pods/web-0/log` names the
subresource log of the pod web-0 in the namespace shop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from simulation.resources import SimulatedType
from simulation.status import unknown_path

__all__ = ["ResourcePath", "parse_resource_path", "verb_of"]


@dataclass(frozen=True, slots=True)
class ResourcePath:
    """What a path below a group's version names.

    `namespace`, `name` and `subresource` are empty where the path has none. `watch` is set by the old form of WATCH
    (`/api/v1/watch/pods`). `beyond` is what follows a proxy subresource, without a slash in front.
    """

    type: SimulatedType
    version: str
    namespace: str
    name: str
    subresource: str
    watch: bool = False
    beyond: str = ""


def parse_resource_path(types: Iterable[SimulatedType], version: str, parts: Sequence[str]) -> ResourcePath:
    """What the `parts` of a path name, at least one, of the types that a group serves in a version.

    Raises:
        StatusError: 404 if they name nothing.
    """
    watch = parts[0] == "watch" and len(parts) > 1
    if watch:
        parts = parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) >= 3 and parts[2] not in ("status", "finalize"):
        namespace, parts = parts[1], parts[2:]
    beyond = ""
    if len(parts) > 3 and parts[2] == "proxy":
        beyond, parts = "/".join(parts[3:]), parts[:3]
    if len(parts) > 3 or "" in parts:
        raise unknown_path()
    resource, name, subresource = [*parts, "", ""][:3]
    for type in types:
        if type.resource == resource:
            break
    else:
        raise unknown_path()
    if (namespace and not type.namespaced) or (name and type.namespaced and not namespace):
        raise unknown_path()
    if subresource and subresource not in type.subresources:
        raise unknown_path()
    return ResourcePath(type, version, namespace, name, subresource, watch, beyond)


def verb_of(method: str, path: ResourcePath, query: Mapping[str, str]) -> str:
    """The verb of Kubernetes that a request uses: get, list, watch, create, ...; empty for another method."""
    if method == "GET":
        if path.watch:
            return "watch"
        if query.get("watch", "false").lower() not in ("false", "0"):
            return "get" if path.name else "watch"
        return "get" if path.name else "list"
    if method == "DELETE":
        return "delete" if path.name else "deletecollection"
    return {"POST": "create", "PUT": "update", "PATCH": "patch"}.get(method, "")
