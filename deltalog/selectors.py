"""Label and field selectors: parsed once, then matched against an entry's labels and fields.

Grammar, validation and error texts follow k8s.io/apimachinery/pkg/labels/selector.go and pkg/fields/selector.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple


class BadSelector(Exception):
    """The selector cannot be parsed; the message is what a kube-apiserver says."""


class Requirement(NamedTuple):
    """One condition; `values` are sorted. Operators: `in`, `notin`, `exists`, `!`, `gt`, `lt`."""

    key: str
    operator: str
    values: tuple[str, ...]


_SPECIAL = "=!,()<>"
_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


def _lex(text: str) -> list[tuple[str, str]]:
    """Tokens as (kind, literal); kinds: `identifier` and the operators themselves."""
    tokens: list[tuple[str, str]] = []
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        if char in " \t\r\n":
            at += 1
            continue
        start = at
        if char in _SPECIAL:
            at += 1
            if text[start : start + 2] in ("==", "!="):
                at += 1
            literal = text[start:at]
            tokens.append((literal, literal))
            continue
        while at < end and text[at] not in _SPECIAL and text[at] not in " \t\r\n":
            at += 1
        literal = text[start:at]
        tokens.append((literal if literal in ("in", "notin") else "identifier", literal))
    tokens.append(("end", ""))
    return tokens


def _check_key(key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    problems = []
    if "/" in prefix or (slash and not prefix):
        problems.append("prefix part must be non-empty" if not prefix else f"a qualified name {_QUALIFIED}")
    elif slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        problems.append(
            "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
            "'-' or '.', and must start and end with an alphanumeric character"
        )
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append("name part must be no more than 63 characters")
    if name and not _NAME.fullmatch(name):
        problems.append(f"name part {_QUALIFIED}")
    if problems:
        raise BadSelector(f'key: Invalid value: "{key}": {"; ".join(problems)}')


def _check_value(key: str, value: str) -> None:
    if len(value) > 63:
        raise BadSelector(f'values[0][{key}]: Invalid value: "{value}": must be no more than 63 characters')
    if value and not _NAME.fullmatch(value):
        raise BadSelector(
            f'values[0][{key}]: Invalid value: "{value}": a valid label must be an empty string or consist of '
            "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
            "(e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
            "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _lex(text)
        self._at = 0

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at]

    def _take(self) -> tuple[str, str]:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def parse(self) -> tuple[Requirement, ...]:
        requirements: list[Requirement] = []
        while True:
            kind, literal = self._peek()
            if kind in ("identifier", "in", "notin", "!"):
                try:
                    requirements.append(self._requirement())
                except BadSelector as cause:
                    raise BadSelector(f"unable to parse requirement: {cause}") from None
                kind, literal = self._take()
                if kind == "end":
                    break
                if kind != ",":
                    raise BadSelector(f"found '{literal}', expected: ',' or 'end of string'")
                if self._peek()[0] not in ("identifier", "in", "notin", "!"):
                    raise BadSelector(f"found '{self._peek()[1]}', expected: identifier after ','")
            elif kind == "end":
                break
            else:
                raise BadSelector(f"found '{literal}', expected: !, identifier, or 'end of string'")
        return tuple(sorted(requirements))

    def _requirement(self) -> Requirement:
        negated = self._peek()[0] == "!"
        if negated:
            self._take()
        kind, key = self._take()
        if kind not in ("identifier", "in", "notin"):
            raise BadSelector(f"found '{key}', expected: identifier")
        try:
            _check_key(key)
        except BadSelector as cause:
            raise BadSelector(str(cause).replace("key:", "<nil>:", 1)) from None
        following = self._peek()[0]
        if negated:
            return Requirement(key, "!", ())
        if following in ("end", ","):
            return Requirement(key, "exists", ())
        operator, literal = self._take()
        if operator in ("in", "notin"):
            values = self._values()
        elif operator in ("=", "==", "!=", "<", ">"):
            values = (self._exact(),)
        else:
            raise BadSelector(
                f"found '{literal}', expected: in, notin, =, ==, !=, gt, lt"
                if operator != "identifier"
                else f"found '{literal}', expected: in, notin, =, ==, !=, <, >"
            )
        for value in values:
            _check_value(key, value)
        if operator in ("<", ">"):
            if _number(values[0]) is None:
                raise BadSelector(
                    f"values[0]: Invalid value: \"{values[0]}\": for 'Gt', 'Lt' operators, the value must be an integer"
                )
            return Requirement(key, "gt" if operator == ">" else "lt", values)
        negative = operator in ("!=", "notin")
        return Requirement(key, "notin" if negative else "in", tuple(sorted(set(values))))

    def _values(self) -> tuple[str, ...]:
        kind, literal = self._take()
        if kind != "(":
            raise BadSelector(f"found '{literal}' expected: '('")
        values: list[str] = []
        expect_value = True
        while True:
            kind, literal = self._take()
            if kind in ("identifier", "in", "notin") and expect_value:
                values.append(literal)
                expect_value = False
            elif kind == ",":
                if expect_value:
                    values.append("")
                expect_value = True
            elif kind == ")":
                if expect_value:
                    values.append("")
                return tuple(values)
            else:
                expected = "',', or identifier" if expect_value else "',' or ')'"
                raise BadSelector(f"found '{literal}', expected: {expected}")

    def _exact(self) -> str:
        kind, literal = self._peek()
        if kind in ("end", ","):
            return ""
        if kind in ("identifier", "in", "notin"):
            return self._take()[1]
        raise BadSelector(f"found '{literal}', expected: identifier")


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The requirements of a labelSelector, sorted; empty for one that selects everything. Raises BadSelector."""
    return _Parser(text).parse()


def _number(text: str | None) -> int | None:
    if text is None or not re.fullmatch(r"[+-]?[0-9]+", text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def matches(requirements: tuple[Requirement, ...], values: Mapping[str, str]) -> bool:
    """Whether a set of labels (or fields) meets all requirements. O(number of requirements)."""
    for key, operator, wanted in requirements:
        value = values.get(key)
        if operator == "in":
            if value not in wanted:
                return False
        elif operator == "notin":
            if value in wanted and value is not None:
                return False
        elif operator == "exists":
            if value is None:
                return False
        elif operator == "!":
            if value is not None:
                return False
        else:
            number = _number(value)
            if number is None:
                return False
            if not (number > int(wanted[0]) if operator == "gt" else number < int(wanted[0])):
                return False
    return True


def _split_terms(text: str) -> list[str]:
    """Splits at commas that no backslash escapes."""
    terms, start, escaped = [], 0, False
    for at, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            terms.append(text[start:at])
            start = at + 1
    terms.append(text[start:])
    return terms


def _unescape(value: str) -> str:
    out, at = [], 0
    while at < len(value):
        char = value[at]
        if char == "\\":
            at += 1
            if at == len(value) or value[at] not in "\\,=":
                raise BadSelector(f"invalid field selector: invalid escape sequence: {value[at - 1 : at + 1]}")
            char = value[at]
        elif char in ",=":
            raise BadSelector(f"invalid field selector: unescaped character in value: {ord(char)}")
        out.append(char)
        at += 1
    return "".join(out)


def parse_fields(text: str, supported: Callable[[str], bool], *, own: bool = True) -> tuple[Requirement, ...]:
    """The requirements of a fieldSelector; `supported` says which labels the type has. Raises BadSelector.

    `own`: whether it has any but those that all types have; an apiserver refuses others with another text then.
    """
    requirements = []
    for term in _split_terms(text):
        if not term:
            continue
        at, operator = _field_operator(text, term)
        key, value = term[:at], _unescape(term[at + len(operator) :])
        if not supported(key):
            if own:
                raise BadSelector(f"field label not supported: {key}")
            known = '"metadata.name", "metadata.namespace"'
            raise BadSelector(f'"{key}" is not a known field selector: only {known}')
        if value == "" and operator != "!=":
            # A field that is absent reads as empty (fields.Set.Get).
            requirements.append(Requirement(key, "in", ("",)))
        else:
            requirements.append(Requirement(key, "notin" if operator == "!=" else "in", (value,)))
    return tuple(sorted(requirements))


def _field_operator(text: str, term: str) -> tuple[int, str]:
    at = 0
    while at < len(term):
        if term[at] == "\\":
            at += 2
            continue
        for operator in ("!=", "==", "="):
            if term.startswith(operator, at):
                return at, operator
        at += 1
    raise BadSelector(f"invalid selector: '{text}'; can't understand '{term}'")
