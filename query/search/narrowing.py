"""What a CEL expression says without an object's body: conditions that indexes answer, and verdicts by the name alone.

A part of the expression that is ANDed with all else is a necessary condition of the whole. Besides, an expression over
the cluster, the name and the labels has its value without the body; where a part needs that, the rest may decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from deltalog.wire.selectors import Requirement
from query.search.cel_syntax import Call, Constant, Ident, Literal, Node, Select
from query.search.paths import Path

OBJECT = "object"
CLUSTER = "cluster"
_LABELS: Path = ("metadata", "labels")
_PLACES: Mapping[Path, str] = {
    (CLUSTER,): "cluster",
    (OBJECT, "metadata", "namespace"): "namespace",
    (OBJECT, "metadata", "name"): "name",
}

_PLAIN_SELECTIONS = frozenset({"_[_]"})
_SELECTIONS = _PLAIN_SELECTIONS | {"_[?_]", "_?._"}


class EntryPlace(NamedTuple):
    """What is known of an object without its body."""

    cluster: str
    namespace: str
    name: str
    labels: Mapping[str, str]


class _Unknown(Enum):
    BODY = "the body has to be read"
    ERROR = "it has no value"


_BODY, _ERROR = _Unknown.BODY, _Unknown.ERROR
_Verdict = Callable[[EntryPlace], object]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Necessary conditions. None, and an empty tuple, are no restriction.

    `fields`: values by paths, which a type may have as selectable fields; none of them is empty. `parts`: of names.
    """

    clusters: frozenset[str] | None = None
    namespaces: frozenset[str] | None = None
    names: frozenset[str] | None = None
    parts: tuple[str, ...] = ()
    labels: tuple[Requirement, ...] = ()
    fields: tuple[tuple[Path, tuple[str, ...]], ...] = ()


def path_of(node: Node, variables: Mapping[str, Path | None], *, optional: bool = False) -> Path | None:
    """The path that a node selects, beginning with a variable's own; None if it is no plain selection.

    `optional`: whether one whose value is an optional is such, `object.?spec` and `object[?"spec"]`: it reads the same,
    and equals no text.
    """
    if isinstance(node, Ident):
        return variables.get(node.name)
    if isinstance(node, Select):
        of = path_of(node.of, variables, optional=optional)
        return None if of is None else (*of, node.field)
    selections = _SELECTIONS if optional else _PLAIN_SELECTIONS
    if isinstance(node, Call) and node.function in selections and len(node.arguments) == 2:
        of, step = path_of(node.arguments[0], variables, optional=optional), node.arguments[1]
        if of is not None and isinstance(step, Constant):
            if isinstance(step.value, str):
                return (*of, step.value)
            if type(step.value) is int and 0 <= step.value < 1 << 31:
                return (*of, step.value)
    return None


_ROOTS: Mapping[str, Path] = {OBJECT: (OBJECT,), CLUSTER: (CLUSTER,)}


def _conjuncts(node: Node) -> Iterator[Node]:
    if isinstance(node, Call) and node.function == "_&&_":
        for one in node.arguments:
            yield from _conjuncts(one)
    else:
        yield node


def conditions_of(tree: Node) -> Conditions:
    """The necessary conditions of an expression that indexes may answer."""
    chosen: dict[str, frozenset[str]] = {}
    parts: list[str] = []
    labels: list[Requirement] = []
    fields: list[tuple[Path, tuple[str, ...]]] = []
    for one in _conjuncts(tree):
        if (equal := _equality(one)) is not None:
            path, values = equal
            place = _PLACES.get(path)
            if place is not None:
                chosen[place] = chosen[place] & values if place in chosen else values
            elif path[1:3] == _LABELS and len(path) == 4 and isinstance(path[3], str):
                labels.append(Requirement(path[3], "in", tuple(sorted(values))))
            elif path[0] == OBJECT and "" not in values:
                fields.append((path[1:], tuple(sorted(values))))
        elif (key := _label_that_exists(one)) is not None:
            labels.append(Requirement(key, "exists", ()))
        elif isinstance(one, Call) and one.function in ("contains", "startsWith", "endsWith") and one.target:
            path_, part = path_of(one.target, _ROOTS), one.arguments[0] if one.arguments else None
            if path_ and _PLACES.get(path_) == "name" and isinstance(part, Constant) and isinstance(part.value, str):
                parts.append(part.value)
    return Conditions(
        clusters=chosen.get("cluster"),
        namespaces=chosen.get("namespace"),
        names=chosen.get("name"),
        parts=tuple(sorted({*parts} - {""})),
        labels=tuple(sorted(set(labels))),
        fields=tuple(sorted(set(fields), key=repr)),
    )


def _equality(node: Node) -> tuple[Path, frozenset[str]] | None:
    """A path and the texts that it equals one of: `a == "x"`, `a in ["x", "y"]`, `a == "x" || a == "y"`."""
    if not isinstance(node, Call) or len(node.arguments) != 2:
        return None
    left, right = node.arguments
    if node.function == "_||_":
        one, other = _equality(left), _equality(right)
        return (one[0], one[1] | other[1]) if one and other and one[0] == other[0] else None
    if node.function == "_==_":
        if isinstance(left, Constant):
            left, right = right, left
        wanted = (right,)
    elif node.function == "@in" and isinstance(right, Literal):
        wanted = right.elements  # type: ignore[assignment]  # of any number
    else:
        return None
    path = path_of(left, _ROOTS)
    values = [one.value for one in wanted if isinstance(one, Constant)]
    texts = frozenset(one for one in values if isinstance(one, str))
    if path is None or not texts or len(values) != len(wanted) or len([*filter(_is_text, values)]) != len(values):
        return None
    return path, texts


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _label_that_exists(node: Node) -> str | None:
    """`"app" in object.metadata.labels`, `has(object.metadata.labels.app)`."""
    if isinstance(node, Select) and node.test:
        path = path_of(node, _ROOTS)
        if path is not None and path[1:3] == _LABELS and len(path) == 4:
            return node.field
    if isinstance(node, Call) and node.function == "@in":
        key, of = node.arguments
        if isinstance(key, Constant) and isinstance(key.value, str) and path_of(of, _ROOTS) == (OBJECT, *_LABELS):
            return key.value
    return None


# -- verdicts ----------------------------------------------------------------------------------------------------------


def early_verdict(tree: Node) -> Callable[[EntryPlace], bool | None] | None:
    """What tells whether an object is selected by what is known without its body: None of one that has to be read.

    None itself, if that would be all objects.
    """
    verdict = _verdict(tree)
    if verdict is None:
        return None

    def decide(place: EntryPlace) -> bool | None:
        found = verdict(place)
        return None if found is _BODY else found is True

    return decide


def _verdict(node: Node) -> _Verdict | None:
    """The value of a node at a place: `_BODY` where the body has to be read; None: always."""
    if isinstance(node, Constant):
        constant = node.value
        return lambda _: constant
    path = path_of(node, _ROOTS)
    if path is not None:
        return _place_verdict(path, test=isinstance(node, Select) and node.test)
    if not isinstance(node, Call):
        return None
    operands = [*((node.target,) if node.target is not None else ()), *node.arguments]
    if node.function in ("_&&_", "_||_"):
        return _junction([_verdict(one) for one in operands], stops=node.function == "_||_")
    if node.function == "@in":
        return _membership(*node.arguments)
    work = _OPERATORS.get(node.function)
    verdicts = [_verdict(one) for one in operands]
    if work is None or len(verdicts) != work[0] or any(one is None for one in verdicts):
        return None

    def value(place: EntryPlace) -> object:
        found = [one(place) for one in verdicts]  # type: ignore[misc]  # none is None
        for each in (_ERROR, _BODY):
            if any(one is each for one in found):
                return each
        return work[1](*found)

    return value


def _place_verdict(path: Path, *, test: bool) -> _Verdict | None:
    if (attribute := _PLACES.get(path)) is not None:
        if attribute == "namespace":
            # What has no namespace has no such member.
            if test:
                return lambda place: bool(place.namespace)
            return lambda place: place.namespace or _ERROR
        if test:
            return lambda _: True
        return (lambda place: place.cluster) if attribute == "cluster" else (lambda place: place.name)
    if path[:3] == (OBJECT, *_LABELS) and len(path) == 4 and isinstance(key := path[3], str):
        if test:
            # Without any labels there is an error, unless they are there as an empty map: the body says which.
            return lambda place: (key in place.labels) if place.labels else _BODY
        return lambda place: place.labels.get(key, _ERROR)
    return None


def _junction(verdicts: list[_Verdict | None], *, stops: bool) -> _Verdict | None:
    """AND (`stops` False) and OR (`stops` True), in which that value counts before errors."""
    known = [one for one in verdicts if one is not None]
    if not known:
        return None
    unread = len(known) < len(verdicts)

    def value(place: EntryPlace) -> object:
        found = [one(place) for one in known]
        if any(one is stops for one in found):
            return stops
        if unread or any(one is _BODY for one in found):
            return _BODY
        return _ERROR if any(not isinstance(one, bool) for one in found) else not stops

    return value


def _membership(left: Node, right: Node) -> _Verdict | None:
    of = _verdict(left)
    if of is None:
        return None
    if path_of(right, _ROOTS) == (OBJECT, *_LABELS):
        return lambda place: (of(place) in place.labels) if place.labels and _is_text(of(place)) else _BODY
    if not isinstance(right, Literal) or not all(isinstance(one, Constant) for one in right.elements):
        return None
    texts = [one.value for one in right.elements if isinstance(one, Constant)]
    if not all(_is_text(one) for one in texts):
        return None
    return lambda place: found if isinstance(found := of(place), _Unknown) else found in texts


def _of_texts(work: Callable[[str, str], bool]) -> Callable[[object, object], object]:
    return lambda one, other: work(one, other) if isinstance(one, str) and isinstance(other, str) else _BODY


def _same(one: object, other: object) -> object:
    # Of numbers CEL has several kinds; only texts are compared here.
    return one == other if isinstance(one, str) and isinstance(other, str) else _BODY


def _negated(one: object) -> object:
    return not one if isinstance(one, bool) else _BODY


def _different(one: object, other: object) -> object:
    return _negated(_same(one, other))


# Of operators and functions, how many operands they take and what they do; what has another value is read.
_OPERATORS: Mapping[str, tuple[int, Callable[..., object]]] = {
    "_==_": (2, _same),
    "_!=_": (2, _different),
    "!_": (1, _negated),
    "startsWith": (2, _of_texts(str.startswith)),
    "endsWith": (2, _of_texts(str.endswith)),
    "contains": (2, _of_texts(lambda one, other: other in one)),
}
