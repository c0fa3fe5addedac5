"""Attributes: what a request does, as authorizers see it.

k8s.io/apiserver pkg/endpoints/request/requestinfo.go and pkg/endpoints/filters/authorization.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deltalog.wire.selectors import BadSelector, field_terms, parse_labels


@dataclass(frozen=True, slots=True)
class SelectionRequirement:
    """One requirement of a field or label selector, as SubjectAccessReview has them.

    `operator`: In or NotIn; of labels Exists and DoesNotExist, too.
    """

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
    fields: tuple[SelectionRequirement, ...] = ()
    labels: tuple[SelectionRequirement, ...] = ()

    @property
    def is_resource(self) -> bool:
        """Whether it is for a resource."""
        return not self.path


_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# Words before the resource that are verbs (requestinfo.go: specialVerbs).
_SPECIAL = ("proxy", "watch")
# Subresources of a namespace itself; any other word behind its name is a resource in it (namespaceSubresources).
_OF_NAMESPACE = ("status", "finalize")
_SELECTING = frozenset({"list", "watch", "deletecollection"})
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
# Of the operators that selectors are parsed into; a SubjectAccessReview has none for `gt` and `lt`.
_OPERATORS = {"in": "In", "notin": "NotIn", "exists": "Exists", "!": "DoesNotExist"}


def attributes_of(
    method: str, segments: Sequence[str], query: Mapping[str, str], *, trailing_slash: bool = False
) -> Attributes:
    """What a request does. O(its length).

    `segments`: its decoded path, without `/clusters/<cluster>`, as `query.discovery.paths.split` gives it; a slash
    that was encoded parts them here, as it does in a kube-apiserver. `query`: of repeated parameters the first counts,
    as in a multidict. `trailing_slash`: whether the path ends with one, which matters to paths of no resource alone.
    A path that ends with one of the old words `watch` and `proxy` is for the resource "", which there is none of.
    """
    path = "/".join(segments)
    parts = path.strip("/").split("/")
    grouped = parts[0] == "apis"
    if parts[0] not in ("api", "apis") or len(parts) < (4 if grouped else 3):
        return Attributes(method.lower(), path=f"/{path}/" if path and trailing_slash else f"/{path}")
    group = parts[1] if grouped else ""
    version, *parts = parts[2 if grouped else 1 :]
    special = parts[0] in _SPECIAL
    if special:
        verb, *parts = parts
        if not parts:
            # An error in a kube-apiserver. It is for nothing, which only who may do all is told.
            return Attributes(verb, group, version)
    else:
        verb = _VERBS.get(method, "")
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _OF_NAMESPACE:
            parts = parts[2:]
    resource = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 and verb != "proxy" else ""
    if not name and verb == "get":
        verb, name = _collection_verb(query)
    elif not name and verb == "delete":
        verb = "deletecollection"
    fields: tuple[SelectionRequirement, ...] = ()
    labels: tuple[SelectionRequirement, ...] = ()
    if query and not special and verb in _SELECTING:
        fields = _field_requirements(query.get("fieldSelector", ""))
        labels = _label_requirements(query.get("labelSelector", ""))
    return Attributes(verb, group, version, resource, subresource, namespace, name, "", fields, labels)


def _collection_verb(query: Mapping[str, str]) -> tuple[str, str]:
    """`list` or `watch`, and the one name that a field selector is for, "" for none.

    Options that cannot be decoded name nothing; whoever reads them answers 400 (requestinfo.go: NewRequestInfo).
    """
    if not query:
        return "list", ""
    watch = query.get("watch")
    verb = "list" if watch is None or watch.lower() in ("false", "0") else "watch"
    text = query.get("fieldSelector", "")
    if not text or not all(_is_int64(query[key]) for key in ("limit", "timeoutSeconds") if key in query):
        return verb, ""
    try:
        parse_labels(query.get("labelSelector", ""))
        terms = field_terms(text)
    except BadSelector:
        return verb, ""
    name = next((value for key, operator, value in terms if key == "metadata.name" and operator != "!="), "")
    # apimachinery pkg/api/validation/path: IsValidPathSegmentName.
    return verb, "" if name in (".", "..") or "/" in name or "%" in name else name


def _is_int64(text: str) -> bool:
    """As strconv.ParseInt has it."""
    if not _INTEGER.fullmatch(text):
        return False
    digits = text.lstrip("+-").lstrip("0")
    return len(digits) < 20 and -(2**63) <= int((text[0] if text[0] == "-" else "") + (digits or "0")) < 2**63


def _field_requirements(text: str) -> tuple[SelectionRequirement, ...]:
    """None of what cannot be parsed: that is no reason to deny (authorization.go: FieldSelectorParsingErr)."""
    if not text:
        return ()
    try:
        terms = field_terms(text)
    except BadSelector:
        return ()
    return tuple(SelectionRequirement(key, "NotIn" if sign == "!=" else "In", (value,)) for key, sign, value in terms)


def _label_requirements(text: str) -> tuple[SelectionRequirement, ...]:
    if not text:
        return ()
    try:
        requirements = parse_labels(text)
    except BadSelector:
        return ()
    return tuple(
        SelectionRequirement(one.key, _OPERATORS[one.operator], one.values)
        for one in requirements
        if one.operator in _OPERATORS
    )
