"""Actions: what a request does, as an authorizer sees it.

A transcription of k8s.io/apiserver pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from simulation.registry.selectors import exact_values, parse_selector
from simulation.resources import BUILT_IN
from simulation.status import StatusError

__all__ = ["Action", "action_of"]

_SPECIAL_VERBS = ("proxy", "watch")
_NAMESPACE_SUBRESOURCES = ("status", "finalize")
_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Action:
    """A verb on a resource, or where `path` is set on a path that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    def sentence(self) -> str:
        """What a 403 says that a user cannot do."""
        if self.path:
            return f'{self.verb} path "{self.path}"'
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        return f'{self.verb} resource "{resource}" in API group "{self.group}" {where}'


def action_of(method: str, path: str, query: Mapping[str, str]) -> Action:
    """What a request does. `path` is decoded; of repeated parameters `query` has the first.

    Raises:
        StatusError: 500, a path that ends with one of the old verbs `watch` and `proxy`.
    """
    stripped = path.strip("/")
    parts = stripped.split("/") if stripped else []
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return Action(method.lower(), path=path)
    prefix, *parts = parts
    group = ""
    if prefix == "apis":
        if len(parts) < 3:
            return Action(method.lower(), path=path)
        group, *parts = parts
    parts = parts[1:]
    verb = _VERBS.get(method, "")
    if parts[0] in _SPECIAL_VERBS:
        if len(parts) < 2:
            raise StatusError(500, f"unable to determine kind and namespace from url, {path}")
        verb, *parts = parts
        verb_from_path = True
    else:
        verb_from_path = False
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    subresource = parts[2] if len(parts) >= 3 and verb != "proxy" else ""
    name = parts[1] if len(parts) >= 2 else ""
    resource = parts[0]
    if not name and verb == "get":
        watch = query.get("watch")
        verb = "list" if watch is None or watch.lower() in ("false", "0") else "watch"
        if not verb_from_path:
            name = _name_selected(query)
    elif not name and verb == "delete":
        verb = "deletecollection"
    return Action(verb, group, resource, subresource, namespace, name)


def _name_selected(query: Mapping[str, str]) -> str:
    """The one name that a list or watch is for; "" where its parameters cannot be decoded."""
    text = query.get("fieldSelector", "")
    for parameter in ("limit", "timeoutSeconds"):
        if parameter in query and not re.fullmatch(r"[+-]?[0-9]{1,18}", query[parameter]):
            return ""
    try:
        # Of which type does not matter to labels.
        parse_selector(BUILT_IN[0], "", query.get("labelSelector", ""), "")
        # fields.ParseSelector sorts its terms.
        names = exact_values(",".join(sorted(re.split(r"(?<!\\),", text))), "metadata.name")
    except StatusError:
        return ""
    name = names[0] if names else ""
    return "" if name in (".", "..") or "/" in name or "%" in name else name
