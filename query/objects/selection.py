"""Selection: the filter that a LIST or WATCH asks for, from its path, its selectors and its search."""

from __future__ import annotations

from collections.abc import Sequence

from deltalog.wire.selectable_fields import METADATA_FIELDS, selectable_fields
from deltalog.wire.selectors import BadSelector, Requirement, parse_fields, parse_labels
from materializer.filter import Filter
from materializer.visible import EVERYTHING, Visible
from query.discovery.catalogue import ServedType
from query.discovery.paths import RequestTarget
from query.http.status import ApiError
from query.objects.options import Options
from query.objects.search import Search


def selection_of(
    target: RequestTarget,
    served: ServedType,
    options: Options,
    search: Search,
    cluster: str | None,
    visible: Visible = EVERYTHING,
) -> Filter:
    """What a request selects of a type. `cluster`: the one in whose scope it is, None for all that is `visible`.

    Where the path and the search speak of the same, the path counts; a field selector restricts both. `names=a,b` with
    `metadata.name in` does not exist, but `names=a,b&fieldSelector=metadata.name=b` selects `b`, and with
    `metadata.name=c` nothing. Owners of a higher seniority are those of a moment, and found when a list is read.

    Raises:
        ApiError: 400, a selector that cannot be parsed, or a label that the type cannot be selected by.
    """
    # Names and namespaces, selected and excluded, by the field label for them.
    selected: dict[str, frozenset[str] | None] = {
        # A watch of one object is one by its name (k8s.io/apiserver pkg/endpoints/handlers/get.go: forceWatch).
        "metadata.name": frozenset({target.name}) if target.name else search.names,
        "metadata.namespace": frozenset({target.namespace}) if target.namespace else search.namespaces,
    }
    excluded: dict[str, frozenset[str]] = dict.fromkeys(selected, frozenset())
    try:
        labels = parse_labels(options.label_selector) if options.label_selector else ()
        fields = _field_requirements(target, served, options.field_selector) if options.field_selector else ()
    except BadSelector as problem:
        raise ApiError(400, str(problem)) from None
    if target.name and fields and not _names_exactly(fields, target.name):
        raise ApiError(400, "fieldSelector metadata.name doesn't match requested name")
    if search.seniority and options.watch:
        raise ApiError(400, "ownerSeniority is for lists; watch the owners between, or by their labels")
    remaining = []
    for requirement in fields:
        values = frozenset(requirement.values)
        if requirement.key not in selected:
            remaining.append(requirement)
        elif requirement.operator == "in":
            before = selected[requirement.key]
            selected[requirement.key] = values if before is None else before & values
        else:
            excluded[requirement.key] |= values
    clusters, spaces = (frozenset({cluster}), None) if cluster is not None else visible.scope
    if cluster is None and search.clusters is not None:
        clusters = search.clusters if clusters is None else search.clusters & clusters
    return Filter(
        clusters=clusters,
        spaces=spaces,
        namespaces=selected["metadata.namespace"],
        names=selected["metadata.name"],
        not_namespaces=excluded["metadata.namespace"],
        not_names=excluded["metadata.name"],
        version=target.version if len(served.versions) > 1 else None,
        labels=labels,
        fields=tuple(remaining),
        since=search.since,
        before=search.before,
        controller_uids=frozenset({search.owner}) if search.owner else None,
    )


def _names_exactly(fields: Sequence[Requirement], name: str) -> bool:
    """Whether a field selector is for one name and no other (k8s.io/apiserver pkg/endpoints/handlers/get.go)."""
    return any(one.key == "metadata.name" and one.operator == "in" and one.values == (name,) for one in fields)


def _field_requirements(target: RequestTarget, served: ServedType, text: str) -> tuple[Requirement, ...]:
    """A field selector. Raises BadSelector."""
    selectable = selectable_fields(target.group_resource, served.info.selectable)

    def supported(label: str) -> bool:
        return label in METADATA_FIELDS or label in selectable

    return parse_fields(text, supported, own=bool(selectable))
