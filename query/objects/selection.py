"""Selection: the filter that a LIST or WATCH asks for, from its path, its selectors and its search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from deltalog.wire.selectable_fields import METADATA_FIELDS, SelectableField, selectable_fields
from deltalog.wire.selectors import BadSelector, Requirement, field_terms, parse_fields, parse_labels
from materializer.filter import Filter
from materializer.visible import EVERYTHING, Visible
from query.discovery.catalogue import ServedType
from query.discovery.paths import RequestTarget
from query.http.status import ApiError
from query.objects.options import Options
from query.search.fields import FieldTerm, field_term, parse_field_terms, uses_paths
from query.search.narrowing import Conditions
from query.search.terms import ChosenNames, Search
from query.search.where import where_of

_NO_CONDITIONS = Conditions()
_LABELS = ("metadata", "labels")


def selection_of(
    target: RequestTarget,
    served: ServedType,
    options: Options,
    search: Search,
    cluster: str | None,
    visible: Visible = EVERYTHING,
) -> Filter:
    """What a request selects of a type. `cluster`: the one in whose scope it is, None for all that is `visible`.

    Where the path and the search speak of the same, the path counts; selectors and the search's expression restrict
    both. `names=a,b` with `metadata.name in` does not exist, but `names=a,b&fieldSelector=metadata.name=b` selects `b`,
    and with `metadata.name=c` nothing. Owners that have to be looked up are those of a moment, and found when a list is
    read: its filter has none until then.

    Raises:
        ApiError: 400, a selector that cannot be parsed, or what a watch cannot be asked for.
    """
    try:
        labels = parse_labels(search.label_selector) if search.label_selector else ()
    except BadSelector as problem:
        raise ApiError(400, str(problem)) from None
    selectable = selectable_fields(target.group_resource, served.info.selectable)
    fields = _field_requirements(selectable, options.field_selector) if options.field_selector else _Fields()
    if target.name and options.field_selector and not _names_exactly(fields.native, target.name):
        raise ApiError(400, "fieldSelector metadata.name doesn't match requested name")
    owner = search.owner
    if owner is not None and not owner.direct and options.watch:
        raise ApiError(
            400, "ownerName and ownerSeniority are for lists; watch the owners between, or by the objects' labels"
        )
    said = _NO_CONDITIONS if search.expression is None else search.expression.conditions
    by_path = _by_path(selectable)
    # What must be, by each: the path or the search, the expression, and the field selector.
    names = _Both(_of_path(target.name, search.names), said.names)
    namespaces = _Both(_of_path(target.namespace, search.namespaces), said.namespaces)
    remaining = [Requirement(by_path[path], "in", values) for path, values in said.fields if path in by_path]
    for requirement in fields.native:
        of = names if requirement.key == "metadata.name" else namespaces
        if requirement.key not in METADATA_FIELDS:
            remaining.append(requirement)
        elif requirement.operator == "in":
            of.restrict(frozenset(requirement.values))
        else:
            of.without |= frozenset(requirement.values)
    clusters = _Both(search.clusters, said.clusters)
    scope, spaces = visible.scope
    if cluster is not None:
        clusters, scope, spaces = _Both(ChosenNames(frozenset({cluster})), said.clusters), None, None
    if scope is not None:
        clusters.restrict(scope)
    return Filter(
        clusters=clusters.only,
        spaces=spaces,
        namespaces=namespaces.only,
        names=names.only,
        not_clusters=clusters.without,
        not_namespaces=namespaces.without,
        not_names=names.without,
        parts=tuple(sorted({*search.contains, *said.parts})),
        not_parts=search.lacks,
        version=target.version if len(served.versions) > 1 else None,
        labels=tuple(sorted({*labels, *fields.labels, *said.labels})),
        fields=tuple(sorted(set(remaining))),
        since=search.since,
        before=search.before,
        controller_uids=frozenset({owner.uid}) if owner is not None and owner.direct else None,
        where=where_of(fields.of_body, search.expression),
    )


class _Both:
    """What several say of the same: all of it has to hold."""

    def __init__(self, chosen: ChosenNames, other: frozenset[str] | None) -> None:
        self.only = chosen.only
        self.without = chosen.without
        if other is not None:
            self.restrict(other)

    def restrict(self, values: frozenset[str]) -> None:
        """Nothing but these."""
        self.only = values if self.only is None else self.only & values


def _of_path(named: str, searched: ChosenNames) -> ChosenNames:
    """A watch of one object is one by its name (k8s.io/apiserver pkg/endpoints/handlers/get.go: forceWatch)."""
    return ChosenNames(frozenset({named})) if named else searched


class _Fields(NamedTuple):
    """A field selector: what Kubernetes' own fields and labels say of it, and what bodies have to be read for."""

    native: tuple[Requirement, ...] = ()
    labels: tuple[Requirement, ...] = ()
    of_body: tuple[FieldTerm, ...] = ()


def _names_exactly(fields: Sequence[Requirement], name: str) -> bool:
    """Whether a field selector is for one name and no other (k8s.io/apiserver pkg/endpoints/handlers/get.go)."""
    return any(one.key == "metadata.name" and one.operator == "in" and one.values == (name,) for one in fields)


def _by_path(selectable: Mapping[str, SelectableField]) -> Mapping[tuple[str | int, ...], str]:
    """Selectable fields that are texts, by their paths: others are written otherwise in objects."""
    return {field.path: label for label, field in selectable.items() if field.path and not field.zero}


def _field_requirements(selectable: Mapping[str, SelectableField], text: str) -> _Fields:
    """A field selector: parted as a kube-apiserver parts it if it can, else as one over paths.

    Never otherwise: who may list is decided by what a kube-apiserver reads, above all by the one name that a selector
    is for (`query.access.authorization.attributes`). What it says there must hold here.

    Raises:
        ApiError: 400, in a kube-apiserver's words of what is written in its grammar.
    """

    def supported(label: str) -> bool:
        return label in METADATA_FIELDS or label in selectable

    try:
        return _Fields(native=parse_fields(text, supported, own=bool(selectable)))
    except BadSelector as found:
        problem = str(found)
    try:
        parted = field_terms(text)
    except BadSelector:
        try:
            terms = parse_field_terms(text)
        except ApiError:
            if uses_paths(text):
                raise
            raise ApiError(400, problem) from None
    else:
        read = [
            FieldTerm((key,), "notin" if operator == "!=" else "in", (value,))
            if supported(key)
            else field_term(key, operator, value)
            for key, operator, value in parted
        ]
        if None in read:
            raise ApiError(400, problem)
        terms = tuple(term for term in read if term is not None)
    native, labels, of_body = [], [], []
    for term in terms:
        path, equals = term.path, term.operator in ("in", "notin")
        if equals and supported(term.key):
            native.append(Requirement(term.key, term.operator, term.values))
        elif path[:2] == _LABELS and len(path) == 3 and isinstance(path[2], str) and "" not in term.values:
            labels.append(Requirement(path[2], term.operator, term.values))
        else:
            of_body.append(term)
    return _Fields(tuple(native), tuple(labels), tuple(of_body))
