"""What a request searches for: one value, parsed once from URL query and search labels.

A parameter of the URL counts before the label of the same meaning; what the path says counts before both. Contract:
Clusterpedia's ListOptions (api/clusterpedia/v1beta1: types.go, conversion.go), corrected where docs/search.md says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, unquote_plus

from deltalog.wire.kubernetes import GroupResource
from query.http.status import ApiError
from query.search.expression import FilterExpression, parse_expression
from query.search.labels import PREFIX, SearchLabel, split_labels
from query.search.order import ListOrder, parse_order
from query.search.times import parse_time

# Hops are few in reality; each costs a look at what the hop before found.
_SENIORITY = 10
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ChosenNames:
    """Names that are searched for: those of `only` (None: all) but for those of `without`."""

    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SoughtOwner:
    """Whose dependents are searched for: of the controller with this uid, or else with this name and type.

    `resource` None: of any type. `seniority`: how many hops below it the objects' own controllers are: 0 for its own
    dependents, 1 for what those control (a Deployment's Pods).
    """

    uid: str = ""
    name: str = ""
    resource: GroupResource | None = None
    seniority: int = 0

    @property
    def direct(self) -> bool:
        """Whether the objects name this owner itself, so that nothing else has to be looked up."""
        return bool(self.uid) and not self.seniority


_ALL = ChosenNames()
_BY_PLACE = ListOrder()


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for, and how it is answered.

    - `contains`, `lacks`: parts of names. `since` (at or after), `before`: of the creation, in seconds since 1970.
    - `owner`: None: whoever controls it. `expression`: of the `filter`.
    - `order`, `limit` (None: as the request's own `limit` says), `offset`: of lists.
    - `with_continue`, `with_remaining_count`: None: as Kubernetes has it.
    - `only_metadata`, `inject_events`, `forward`: how it is answered.
    - `label_selector`: the request's, without the search labels.
    """

    clusters: ChosenNames = _ALL
    namespaces: ChosenNames = _ALL
    names: ChosenNames = _ALL
    contains: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    since: int | None = None
    before: int | None = None
    owner: SoughtOwner | None = None
    expression: FilterExpression | None = None
    order: ListOrder = _BY_PLACE
    limit: int | None = None
    offset: int | None = None
    with_continue: bool | None = None
    with_remaining_count: bool | None = None
    only_metadata: bool = False
    inject_events: bool = False
    forward: bool = False
    label_selector: str = ""

    @property
    def sees_others(self) -> bool:
        """Whether its answer depends on objects of other types: owners that are looked up, or Events."""
        return self.inject_events or (self.owner is not None and not self.owner.direct)


FORWARD_HEADER = "x-clusterpedia-forward"
"""By which Clusterpedia's clients have a request answered by the cluster itself."""

# By the labels' names, the URL's parameters of the same meaning.
PARAMETERS: Mapping[str, str] = {
    "clusters": "clusters",
    "namespaces": "namespaces",
    "names": "names",
    "fuzzy-name": "fuzzyName",
    "since": "since",
    "before": "before",
    "owner-uid": "ownerUID",
    "owner-name": "ownerName",
    "owner-gr": "ownerGR",
    "owner-seniority": "ownerSeniority",
    "filter": "filter",
    "orderby": "orderby",
    "limit": "limit",
    "size": "limit",
    "offset": "continue",
    "with-continue": "withContinue",
    "with-remaining-count": "withRemainingCount",
    "only-metadata": "onlyMetadata",
    "inject-events": "injectEvents",
    "forward": "forward",
}
_LABELS = frozenset(PARAMETERS)
_WHERE_SQL = frozenset({"whereSQL", "whereSQLStatement", "whereSQLParam", "whereSQLJSONParams"})
# `limit` and `continue` are Kubernetes' own, and of the query they are read as its options.
_PARAMETERS = frozenset({*PARAMETERS.values(), *_WHERE_SQL, "offset"}) - {"limit", "continue", "forward"}
_NOTHING = Search()


def parse_search(query: Mapping[str, str]) -> Search:
    """The search of a request, of its URL's parameters and its labelSelector.

    Raises:
        ApiError: 400, a parameter or search label that cannot be read, or one that does not go with another.
    """
    selector = query.get("labelSelector", "")
    labels, rest = split_labels(selector, _LABELS)
    if not labels and _PARAMETERS.isdisjoint(query) and not is_offset(query.get("continue", "")):
        return Search(label_selector=rest) if rest else _NOTHING
    if asked := sorted(_WHERE_SQL & query.keys()):
        raise ApiError(400, f"{asked[0]}: there is no SQL here; write a CEL expression instead: filter=...")
    given = _Given(query, labels)
    since, before = given.one("since", parse_time), given.one("before", parse_time)
    if since is not None and before is not None and since > before:
        raise ApiError(400, "since is after before: nothing can have been created then")
    contains, lacks = given.fuzzy()
    return Search(
        clusters=given.chosen("clusters"),
        namespaces=given.chosen("namespaces", absent=""),
        names=given.chosen("names"),
        contains=contains,
        lacks=lacks,
        since=since,
        before=before,
        owner=_owner(given),
        expression=given.one("filter", _expression),
        order=given.order(),
        limit=given.of_label("limit", _number) or given.of_label("size", _number),
        offset=_offset(given),
        with_continue=given.one("with-continue", _flag),
        with_remaining_count=given.one("with-remaining-count", _flag),
        only_metadata=bool(given.one("only-metadata", _flag)),
        inject_events=bool(given.one("inject-events", _flag)),
        forward=bool(given.of_label("forward", _flag)),
        label_selector=rest,
    )


def asked_of(query: Mapping[str, str]) -> list[str]:
    """The search parameters and search labels that a request has, by their names; whatever they say.

    Raises:
        ApiError: 400, a search label that cannot be read.
    """
    labels, _ = split_labels(query.get("labelSelector", ""), _LABELS)
    return sorted({*(_PARAMETERS & query.keys()), *(one.label for one in labels)})


def asks_events(query: Mapping[str, str]) -> bool:
    """Whether a GET asks for the object's Events. Raises ApiError 400, a value that is none."""
    return bool(_Given(query, ()).one("inject-events", _flag))


def asks_forward(query: Mapping[str, str], headers: Mapping[str, str]) -> bool:
    """Whether a request is to be passed on to its cluster as it is: by Clusterpedia's header, or the search label.

    Raises:
        ApiError: 400, a search label, or that value, that cannot be read.
    """
    if _flag(FORWARD_HEADER, headers.get(FORWARD_HEADER) or "false"):
        return True
    labels, _ = split_labels(query.get("labelSelector", ""), _LABELS)
    return bool(_Given(query, labels).of_label("forward", _flag)) if labels else False


def without_labels(given: str) -> str:
    """A raw query without the search labels of its labelSelector, for a server that knows none.

    Raises:
        ApiError: 400, a search label that cannot be read.
    """
    parts = []
    for part in given.split("&") if given else ():
        name, _, value = part.partition("=")
        if unquote_plus(name) == "labelSelector":
            _, rest = split_labels(unquote_plus(value), _LABELS)
            part = f"{name}={quote(rest, safe='')}"
        parts.append(part)
    return "&".join(parts)


class _Given:
    """What a request gives, by the names of labels."""

    def __init__(self, query: Mapping[str, str], labels: tuple[SearchLabel, ...]) -> None:
        self._query = query
        self._labels: dict[str, list[SearchLabel]] = {}
        for label in labels:
            self._labels.setdefault(label.name, []).append(label)

    def _of_url(self, name: str) -> str:
        """The parameter of the URL, "" if it is empty or absent: then the label counts."""
        return self._query.get(PARAMETERS[name], "").strip()

    def one(self, name: str, read: Callable[[str, str], _T | None]) -> _T | None:
        """A parameter that has one value, None without one."""
        text = self._of_url(name)
        return read(PARAMETERS[name], text) if text else self.of_label(name, read)

    def of_label(self, name: str, read: Callable[[str, str], _T | None]) -> _T | None:
        """The same of the search label alone."""
        values = self._values(name)
        if len(values) > 1:
            raise ApiError(400, f"labelSelector: {PREFIX}{name} has one value, and not {', '.join(values)[:128]}")
        return read(PREFIX + name, values[0]) if values and values[0] else None

    def _values(self, name: str) -> tuple[str, ...]:
        """The values of an option that is no selection, in the order given."""
        values: dict[str, None] = {}
        for label in self._labels.get(name, ()):
            if label.operator != "in":
                raise ApiError(400, f"labelSelector: {label.label} is an option: write {label.label}=<value>")
            values |= dict.fromkeys(label.values)
        return tuple(values)

    def chosen(self, name: str, absent: str | None = None) -> ChosenNames:
        """A selection by names. `absent`: what of which there is none is called; None: there always is one."""
        text = self._of_url(name)
        if text:
            only = frozenset(one.strip() for one in text.split(",")) - {""}
            return ChosenNames(only or None)
        chosen, without = None, frozenset[str]()
        for _, operator, values in self._labels.get(name, ()):
            if operator == "!":
                values = () if absent is None else (absent,)
            if operator in ("in", "!"):
                chosen = frozenset(values) if chosen is None else chosen & frozenset(values)
            elif operator == "notin":
                without |= frozenset(values)
            elif absent is not None:
                without |= {absent}
        return ChosenNames(chosen, without)

    def fuzzy(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Parts that names have, each of them, and parts that they do not have."""
        name = "fuzzy-name"
        if text := self._of_url(name):
            return tuple(sorted({one.strip() for one in text.split(",")} - {""})), ()
        contains: set[str] = set()
        lacks: set[str] = set()
        for label in self._labels.get(name, ()):
            if label.operator == "!":
                raise ApiError(400, f"labelSelector: {label.label}: every object has a name")
            if label.operator != "exists":
                (contains if label.operator == "in" else lacks).update(one.strip() for one in label.values)
        return tuple(sorted(contains - {""})), tuple(sorted(lacks - {""}))

    def order(self) -> ListOrder:
        """The order, in which the terms count as they are written."""
        if text := self._of_url("orderby"):
            return parse_order(text.split(","), " ")
        return parse_order(self._values("orderby"), "_")

    def has(self, name: str) -> bool:
        """Whether anything is given for it."""
        return bool(self._of_url(name) or self._labels.get(name))


def _owner(given: _Given) -> SoughtOwner | None:
    uid, name = given.one("owner-uid", _text) or "", given.one("owner-name", _text) or ""
    resource, seniority = given.one("owner-gr", _group_resource), given.one("owner-seniority", _seniority)
    if not uid and not name:
        for alone in ("owner-gr", "owner-seniority"):
            if given.has(alone):
                raise ApiError(400, f"{PARAMETERS[alone]} needs ownerUID or ownerName")
        return None
    # As at Clusterpedia, a uid says it all.
    return SoughtOwner(uid, "" if uid else name, None if uid else resource, seniority or 0)


def _offset(given: _Given) -> int | None:
    # Clusterpedia's clients page by `continue=20`; an own token is none of digits alone.
    text = given._of_url("offset")
    if text:
        return int(text) if is_offset(text) else None
    text = given._query.get("offset", "").strip()
    return _number("offset", text) if text else given.of_label("offset", _number)


def is_offset(token: str) -> bool:
    """Whether what stands for a continue token is an offset: a number, as Clusterpedia's clients send it."""
    return bool(re.fullmatch(r"[0-9]{1,18}", token))


def _text(name: str, text: str) -> str:
    return text


def _expression(name: str, text: str) -> FilterExpression:
    return parse_expression(text)


def _group_resource(name: str, text: str) -> GroupResource:
    resource, _, group = text.partition(".")
    if not resource:
        raise ApiError(400, f"{name}: {text[:64]!r} is no type; write pods, or deployments.apps")
    return GroupResource(group, resource)


def _seniority(name: str, text: str) -> int:
    if not (re.fullmatch(r"[0-9]{1,3}", text) and int(text) <= _SENIORITY):
        raise ApiError(400, f"{name}: {text[:64]!r} is no number from 0 to {_SENIORITY}")
    return int(text)


def _number(name: str, text: str) -> int:
    if not is_offset(text):
        raise ApiError(400, f"{name}: {text[:64]!r} is no number")
    return int(text)


def _flag(name: str, text: str) -> bool:
    # As strconv.ParseBool, and Kubernetes' own conversion, which takes any other text for true.
    if text.lower() in ("false", "f", "0"):
        return False
    if text.lower() in ("true", "t", "1"):
        return True
    raise ApiError(400, f"{name}: {text[:64]!r} is neither true nor false")
