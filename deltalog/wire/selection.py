"""Selection: which objects a consumer wants, as subjects for the server and as conditions on what it sends."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from deltalog.wire.errors import BadInput
from deltalog.wire.selectors import BadSelector, Requirement, matches, parse_labels
from deltalog.wire.subjects import CONTROL, OWNER, REMOVED, STATUS, encode_token, object_filter, parse_object

# The server compares each filter of a consumer with each other one; beyond so many we ask for more and leave out here.
_SUBJECTS = 64

_TYPE = re.compile(r"\*|(\*|[a-z0-9-]+)\.[a-z0-9.-]*|[a-z0-9-]+")
_FORMS = "write pods, deployments.apps, *.apps or *"


class BadSelection(BadInput):
    """A selection that cannot be; the message is one line that says what to write instead."""


class SelectedTypes(NamedTuple):
    """One type, all types of a group (`resource` None), or all types (both None). The core group is empty."""

    group: str | None
    resource: str | None


def parse_type(text: str) -> SelectedTypes:
    """What a text selects: `pods`, `deployments.apps`, `*.apps`, `*.` (all of the core group) or `*`.

    Raises:
        BadSelection: it is of none of these forms.
    """
    if not _TYPE.fullmatch(text):
        raise BadSelection(f"{text!r} names no type; {_FORMS}")
    if text == "*":
        return SelectedTypes(None, None)
    resource, _, group = text.partition(".")
    return SelectedTypes(group, None if resource == "*" else resource)


def _several(given: str | Iterable[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer wants to see. Made by `select`; an empty tuple is no restriction.

    - `clusters`, `names`: as they are, without wildcards.
    - `types`: texts of `parse_type`.
    - `namespaces`: names; the empty string selects cluster-scoped objects.
    - `labels`: a label selector as in a LIST's parameter.
    """

    clusters: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    labels: str = ""

    def subjects(self) -> list[str]:
        """Subject filters of the objects, 64 at most. None overlaps another, which JetStream refuses of a consumer.

        They may match more than is selected: `takes` decides.
        """
        dimensions: list[Sequence[str | None]] = [
            self.names or (None,),
            self.namespaces or (None,),
            self.clusters or (None,),
        ]
        types: Sequence[SelectedTypes] = self._types()
        for widened in range(len(dimensions)):
            if len(types) * _product(dimensions) <= _SUBJECTS:
                break
            dimensions[widened] = (None,)
        if len(types) * _product(dimensions) > _SUBJECTS:
            types = (SelectedTypes(None, None),)
        names, namespaces, clusters = dimensions
        return [
            object_filter(cluster, group, resource, namespace, name)
            for cluster, (group, resource), namespace, name in itertools.product(clusters, types, namespaces, names)
        ]

    def controls(self) -> list[str]:
        """Subject filters of the control records that say how far the log is, and what was removed as a whole."""
        clusters = [encode_token(one) for one in self.clusters] if 0 < len(self.clusters) <= _SUBJECTS // 4 else ["*"]
        return [
            f"{CONTROL}.{cluster}.{record}"
            for cluster in clusters
            for record in (OWNER, STATUS, REMOVED, f"{REMOVED}.*.*")
        ]

    def _types(self) -> tuple[SelectedTypes, ...]:
        """The types, without those that another one includes."""
        return _distinct(self.types)

    def takes(self, subject: str) -> bool:
        """Whether an object with this subject is selected, its labels left aside.

        Raises:
            ValueError: it is no object's subject.
        """
        address = parse_object(subject)
        return (
            (not self.clusters or address.cluster in self.clusters)
            and (not self.namespaces or address.namespace in self.namespaces)
            and (not self.names or address.name in self.names)
            and self._takes_type(address.group, address.resource)
        )

    def takes_removal(self, cluster: str, group: str, resource: str) -> bool:
        """Whether the removal of a type, or (`resource` empty) of a cluster, may be one of selected objects."""
        if self.clusters and cluster not in self.clusters:
            return False
        return not resource or self._takes_type(group, resource)

    def _takes_type(self, group: str, resource: str) -> bool:
        return not self.types or any(
            one.group in (None, group) and one.resource in (None, resource) for one in self._types()
        )

    def takes_labels(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected, all else left aside."""
        return matches(_requirements(self.labels), labels)

    def __str__(self) -> str:
        """The same text for the same selection, whatever the order it was given in."""
        given = {
            "cluster": self.clusters,
            "type": self.types,
            "namespace": self.namespaces,
            "name": self.names,
            "labels": (self.labels,) if self.labels else (),
        }
        return " ".join(f"{key}={','.join(sorted(values))}" for key, values in given.items() if values) or "everything"


@functools.lru_cache(maxsize=64)
def _distinct(types: tuple[str, ...]) -> tuple[SelectedTypes, ...]:
    named = tuple(dict.fromkeys(parse_type(text) for text in types)) or (SelectedTypes(None, None),)
    whole = {one.group for one in named if one.resource is None}
    if None in whole:
        return (SelectedTypes(None, None),)
    return tuple(one for one in named if one.resource is None or one.group not in whole)


@functools.lru_cache(maxsize=64)
def _requirements(labels: str) -> tuple[Requirement, ...]:
    return parse_labels(labels)


def _product(dimensions: Iterable[Sequence[str | None]]) -> int:
    count = 1
    for one in dimensions:
        count *= len(one)
    return count


def select(
    *,
    cluster: str | Iterable[str] | None = None,
    type: str | Iterable[str] | None = None,
    namespace: str | Iterable[str] | None = None,
    name: str | Iterable[str] | None = None,
    labels: str = "",
) -> Selection:
    """A checked selection: one or several of each; None: any.

    `select(cluster="alpha", type=["pods", "deployments.apps"], labels="app=web")`; the parameters are the fields of
    `Selection`.

    Raises:
        BadSelection: a type or the label selector cannot be read, or a name is empty.
    """
    selection = Selection(
        clusters=_several(cluster),
        types=_several(type),
        namespaces=_several(namespace),
        names=_several(name),
        labels=labels,
    )
    for text in selection.types:
        parse_type(text)
    if "" in selection.clusters or "" in selection.names:
        raise BadSelection("a cluster's or an object's name is not empty")
    try:
        parse_labels(labels)
    except BadSelector as cause:
        raise BadSelection(f"{labels!r} is no label selector: {cause}") from None
    return selection
