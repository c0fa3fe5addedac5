"""Selectors: label and field selectors as LIST, WATCH and deletecollection take them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from simulation.resources import SimulatedType
from simulation.status import bad_request
from simulation.storage import StoredObject

__all__ = ["EVERYTHING", "ObjectSelector", "exact_values", "parse_selector"]

Matcher = Callable[[StoredObject], bool]

_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|>|<|[^\s=!,()<>]+)")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class ObjectSelector:
    """What a request selects. Without requirements it selects all, and is false."""

    requirements: tuple[Matcher, ...] = ()

    def matches(self, stored: StoredObject) -> bool:
        """Whether every requirement holds."""
        return all(requirement(stored) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)


EVERYTHING = ObjectSelector()


def parse_selector(type: SimulatedType, namespace: str, labels: str, fields: str) -> ObjectSelector:
    """The selector of a request's namespace (empty: all), `labelSelector` and `fieldSelector`.

    `tier in (web, api),!canary`, say, selects objects with either tier and without a label canary.

    Raises:
        StatusError: 400, with Kubernetes' text, for what cannot be parsed and for a field label that the type lacks.
    """
    requirements: list[Matcher] = []
    if namespace:
        requirements.append(lambda stored: stored.namespace == namespace)
    requirements += _label_requirements(labels)
    requirements += _field_requirements(type, fields)
    return ObjectSelector(tuple(requirements))


def exact_values(fields: str, label: str) -> list[str]:
    """The values that a `fieldSelector` requires of one label (`RequiresExactMatch` of k8s.io/apimachinery).

    Raises:
        StatusError: 400, with Kubernetes' text, for what cannot be parsed.
    """
    terms = (_field_term(fields, term) for term in _split_fields(fields))
    return [value for name, operator, value in terms if name == label and operator != "!="]


def _label_requirements(text: str) -> list[Matcher]:
    if not text.strip():
        return []
    tokens: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise _unparsable(f"found '{stripped[position]}', expected: identifier")
        tokens.append(match.group(1))
        position = match.end()
    parser = _LabelParser(tokens)
    return parser.parse()


def _unparsable(why: str) -> Exception:
    return bad_request(f"unable to parse requirement: {why}")


@dataclass(slots=True)
class _LabelParser:
    tokens: list[str]
    position: int = 0

    def parse(self) -> list[Matcher]:
        if not self._at_requirement():
            raise bad_request(f"found '{self.peek()}', expected: !, identifier, or 'end of string'")
        found = [self.requirement()]
        while self.position < len(self.tokens):
            if self.take() != ",":
                raise bad_request(f"found '{self.tokens[self.position - 1]}', expected: ',' or 'end of string'")
            if not self._at_requirement():
                raise bad_request(f"found '{self.peek()}', expected: identifier after ','")
            found.append(self.requirement())
        return found

    def _at_requirement(self) -> bool:
        return self.peek() == "!" or self.peek() not in ("", "=", "==", "!=", ",", "(", ")", ">", "<")

    def take(self) -> str:
        if self.position >= len(self.tokens):
            return ""
        self.position += 1
        return self.tokens[self.position - 1]

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def requirement(self) -> Matcher:
        absent = self.peek() == "!"
        if absent:
            self.take()
        key = self.label_key(self.take())
        if absent:
            return lambda stored: key not in stored.labels
        operator = self.peek()
        if operator in ("", ","):
            return lambda stored: key in stored.labels
        self.take()
        if operator in ("=", "==", "!="):
            value = "" if self.peek() in ("", ",") else self.label_value(self.take())
            if operator == "!=":
                return lambda stored: stored.labels.get(key) != value
            return lambda stored: stored.labels.get(key) == value
        if operator in ("in", "notin"):
            values = self.values()
            if operator == "in":
                return lambda stored: stored.labels.get(key) in values
            return lambda stored: stored.labels.get(key) not in values
        if operator in (">", "<"):
            return self.compared(key, operator)
        raise _unparsable(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def values(self) -> frozenset[str]:
        if self.take() != "(":
            raise _unparsable(f"found '{self.tokens[self.position - 1]}', expected: '('")
        values: set[str] = set()
        expected = True
        while True:
            token = self.take()
            if token == "":
                raise _unparsable("found '', expected: ',', or ')'")
            if token in (",", ")"):
                if expected:
                    values.add("")
                if token == ")":
                    return frozenset(values)
                expected = True
            elif expected:
                values.add(self.label_value(token))
                expected = False
            else:
                raise _unparsable(f"found '{token}', expected: ',', or ')'")

    def compared(self, key: str, operator: str) -> Matcher:
        try:
            bound = int(self.take())
        except ValueError:
            raise _unparsable("for 'Gt', 'Lt' operators, the value must be an integer") from None

        def holds(stored: StoredObject) -> bool:
            value = stored.labels.get(key, "")
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
                return False
            return int(value) > bound if operator == ">" else int(value) < bound

        return holds

    def label_key(self, token: str) -> str:
        prefix, slash, name = token.rpartition("/")
        if not _NAME.match(name) or (slash and not _PREFIX.match(prefix)):
            raise _unparsable(f'<nil>: Invalid value: "{token}": name part must consist of alphanumeric characters')
        return token

    def label_value(self, token: str) -> str:
        if not _NAME.match(token):
            raise _unparsable(
                f'values[0][]: Invalid value: "{token}": a valid label must be an empty string or consist of '
                "alphanumeric characters, '-', '_' or '.'"
            )
        return token


def _split_fields(text: str) -> list[str]:
    """Split at commas that no backslash escapes."""
    return [part for part in re.split(r"(?<!\\),", text) if part]


def _unescape(value: str) -> str:
    return re.sub(r"\\([\\,=])", r"\1", value)


def _field_term(text: str, term: str) -> tuple[str, str, str]:
    """Label, operator and value of a term of the field selector `text`."""
    match = re.match(r"([^=!]*)(==|!=|=)(.*)\Z", term, re.DOTALL)
    if match is None:
        raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
    return match.group(1), match.group(2), _unescape(match.group(3))


def _field_requirements(type: SimulatedType, text: str) -> list[Matcher]:
    requirements: list[Matcher] = []
    for term in _split_fields(text):
        label, operator, value = _field_term(text, term)
        if label not in ("metadata.name", "metadata.namespace") and label not in type.fields:
            # A type without labels of its own has the conversion of all (`DefaultMetaV1FieldSelectorConversion`).
            known = '"metadata.name", "metadata.namespace"'
            raise bad_request(
                f"field label not supported: {label}"
                if type.custom or type.fields
                else f'"{label}" is not a known field selector: only {known}'
            )
        requirements.append(_field_requirement(label, value, negated=operator == "!="))
    return requirements


def _field_requirement(label: str, value: str, *, negated: bool) -> Matcher:
    if negated:
        return lambda stored: stored.fields.get(label, "") != value
    return lambda stored: stored.fields.get(label, "") == value
