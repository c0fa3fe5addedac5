"""Label and field selectors: parsed once, then matched against an entry's labels and fields.

Grammar, validation and error texts follow k8s.io/apimachinery/pkg/labels/selector.go and pkg/fields/selector.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from deltalog.wire.errors import BadInput


class BadSelector(BadInput):
    """The selector cannot be parsed; the message is what a kube-apiserver says."""


class Requirement(NamedTuple):
    """One condition on a label or field; `values` are sorted and each is there once.

    Operators: `in` (also for `=`), `notin` (also for `!=`; met where the key is absent), `exists`, `!` (absent), and
    `gt` and `lt` (one value, a 64-bit integer). `app=web` is `("app", "in", ("web",))`.
    """

    key: str
    operator: str
    values: tuple[str, ...]


_SPECIAL = "=!,()<>"
_BLANK = " \t\r\n"
_NAME_FORM = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_FORM = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_FORM = rf"{_LABEL_FORM}(\.{_LABEL_FORM})*"
_NAME = re.compile(_NAME_FORM)
_SUBDOMAIN = re.compile(_SUBDOMAIN_FORM)
_ALPHANUMERIC = "and must start and end with an alphanumeric character"
_QUALIFIED = (
    f"must consist of alphanumeric characters, '-', '_' or '.', {_ALPHANUMERIC} "
    f"(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '{_NAME_FORM}')"
)
_PREFIX = (
    f"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', {_ALPHANUMERIC} "
    f"(e.g. 'example.com', regex used for validation is '{_SUBDOMAIN_FORM}')"
)
_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    f"{_ALPHANUMERIC} (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '({_NAME_FORM})?')"
)
# What may stand for a binary operator, as error messages list it.
_BINARY = "in, notin, =, ==, !=, gt, lt"
_ESCAPES = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v", '"': '"', "\\": "\\"}


def _lex(text: str) -> list[tuple[str, str]]:
    """Tokens as (what it is, literal): `identifier`, `end`, or an operator itself. A NUL ends what it stands in."""
    tokens: list[tuple[str, str]] = []
    at, end = 0, len(text)
    while at < end:
        char = text[at]
        if char in _BLANK:
            at += 1
            continue
        start = at
        if char == "\0":
            break
        if char in _SPECIAL:
            at += 1
            if text[start : start + 2] in ("==", "!="):
                at += 1
            literal = text[start:at]
            tokens.append((literal, literal))
        else:
            while at < end and text[at] not in _SPECIAL and text[at] not in _BLANK and text[at] != "\0":
                at += 1
            literal = text[start:at]
            tokens.append((literal if literal in ("in", "notin") else "identifier", literal))
        if at < end and text[at] == "\0":
            at += 1
    tokens.append(("end", ""))
    return tokens


def quoted(text: str) -> str:
    """A text as Go's %q writes it."""
    out = []
    for char in text:
        code = ord(char)
        if char in _ESCAPES:
            out.append("\\" + _ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(out)}"'


def _too_long(text: str, most: int) -> bool:
    return len(text.encode(errors="surrogatepass")) > most


def _check_key(key: str) -> None:
    """Raises BadSelector."""
    *before, name = key.split("/")
    problems = []
    if len(before) > 1:
        problems.append(
            f"a qualified name {_QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        )
    else:
        if before and not before[0]:
            problems.append("prefix part must be non-empty")
        elif before:
            if _too_long(before[0], 253):
                problems.append("prefix part must be no more than 253 bytes")
            if not _SUBDOMAIN.fullmatch(before[0]):
                problems.append(f"prefix part {_PREFIX}")
        if not name:
            problems.append("name part must be non-empty")
        elif _too_long(name, 63):
            problems.append("name part must be no more than 63 bytes")
        if not _NAME.fullmatch(name):
            problems.append(f"name part {_QUALIFIED}")
    if problems:
        raise BadSelector(f"<nil>: Invalid value: {quoted(key)}: {'; '.join(problems)}")


def _check_values(key: str, values: tuple[str, ...], *, numbers: bool) -> None:
    """Raises BadSelector, which tells of all that is wrong."""
    problems = []
    if numbers:
        problems += [
            f"values[{at}]: Invalid value: {quoted(value)}: for 'Gt', 'Lt' operators, the value must be an integer"
            for at, value in enumerate(values)
            if _number(value) is None
        ]
    for at, value in enumerate(values):
        wrong = ["must be no more than 63 bytes"] if _too_long(value, 63) else []
        if value and not _NAME.fullmatch(value):
            wrong.append(_VALUE)
        if wrong:
            problems.append(f"values[{at}][{key}]: Invalid value: {quoted(value)}: {'; '.join(wrong)}")
    if problems:
        raise BadSelector(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")


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
            token, literal = self._peek()
            if token in ("identifier", "in", "notin", "!"):
                try:
                    requirements.append(self._requirement())
                except BadSelector as cause:
                    raise BadSelector(f"unable to parse requirement: {cause}") from None
                token, literal = self._take()
                if token == "end":
                    break
                if token != ",":
                    raise BadSelector(f"found '{literal}', expected: ',' or 'end of string'")
                if self._peek()[0] not in ("identifier", "in", "notin", "!"):
                    raise BadSelector(f"found '{self._peek()[1]}', expected: identifier after ','")
            elif token == "end":
                break
            else:
                raise BadSelector(f"found '{literal}', expected: !, identifier, or 'end of string'")
        return tuple(sorted(requirements))

    def _requirement(self) -> Requirement:
        negated = self._peek()[0] == "!"
        if negated:
            self._take()
        token, key = self._take()
        if token not in ("identifier", "in", "notin"):
            raise BadSelector(f"found '{key}', expected: identifier")
        _check_key(key)
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
            raise BadSelector(f"found '{literal}', expected: {_BINARY}")
        values = tuple(sorted(set(values)))
        _check_values(key, values, numbers=operator in ("<", ">"))
        if operator in ("<", ">"):
            return Requirement(key, "gt" if operator == ">" else "lt", values)
        return Requirement(key, "notin" if operator in ("!=", "notin") else "in", values)

    def _values(self) -> tuple[str, ...]:
        token, literal = self._take()
        if token != "(":
            raise BadSelector(f"found '{literal}' expected: '('")
        token, literal = self._peek()
        if token == ")":
            self._take()
            return ("",)
        if token not in ("identifier", "in", "notin", ","):
            raise BadSelector(f"found '{literal}', expected: ',', ')' or identifier")
        values = self._list()
        self._take()
        return values

    def _list(self) -> tuple[str, ...]:
        """What stands between parentheses, up to the closing one. As in a kube-apiserver, `(a,,)` is none."""
        values: list[str] = []
        while True:
            token, literal = self._take()
            if token in ("identifier", "in", "notin"):
                values.append(literal)
                token, literal = self._peek()
                if token == ")":
                    return tuple(values)
                if token != ",":
                    raise BadSelector(f"found '{literal}', expected: ',' or ')'")
            elif token == ",":
                if not values:
                    values.append("")
                following, _ = self._peek()
                if following in (")", ","):
                    values.append("")
                if following == ")":
                    return tuple(values)
                if following == ",":
                    self._take()
            else:
                raise BadSelector(f"found '{literal}', expected: ',', or identifier")

    def _exact(self) -> str:
        token, literal = self._peek()
        if token in ("end", ","):
            return ""
        if token in ("identifier", "in", "notin"):
            return self._take()[1]
        raise BadSelector(f"found '{literal}', expected: identifier")


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The requirements of a labelSelector, sorted; none for one that selects everything.

    Raises:
        BadSelector: with the text of a kube-apiserver.
    """
    return _Parser(text).parse()


def _number(text: str | None) -> int | None:
    if text is None or not re.fullmatch(r"[+-]?[0-9]+", text):
        return None
    # Python refuses to read very long numbers, which zeros may begin.
    digits = text.lstrip("+-").lstrip("0") or "0"
    if len(digits) > 19:
        return None
    number = -int(digits) if text.startswith("-") else int(digits)
    return number if -(2**63) <= number < 2**63 else None


def matches(requirements: tuple[Requirement, ...], values: Mapping[str, str]) -> bool:
    """Whether labels (or fields) meet all requirements, as labels.Selector.Matches. O(requirements)."""
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


def field_terms(text: str) -> list[tuple[str, str, str]]:
    """The terms of a fieldSelector as (field label, operator, value), whichever labels a type has.

    Operators: `=`, `==`, `!=`. In the order in which a kube-apiserver looks at them, which is that of their texts: of
    several faults the same one is told. Example: `b!=1,a=2` is `[("a", "=", "2"), ("b", "!=", "1")]`.

    Raises:
        BadSelector: with the text of a kube-apiserver.
    """
    found = []
    for term in sorted(_split_terms(text)):
        if term:
            key, operator, value = _field_term(text, term)
            found.append((key, operator, _unescape(value)))
    return found


def parse_fields(text: str, supported: Callable[[str], bool], *, own: bool = True) -> tuple[Requirement, ...]:
    """The requirements of a fieldSelector, sorted.

    `supported`: whether the type has a field label. `own`: whether it has any but those of all types; a kube-apiserver
    refuses an unknown label of a type that has none with another text.

    Raises:
        BadSelector: with the text of a kube-apiserver.
    """
    requirements = []
    for key, operator, value in field_terms(text):
        if not supported(key):
            if own:
                raise BadSelector(f"field label not supported: {key}")
            known = '"metadata.name", "metadata.namespace"'
            raise BadSelector(f'"{key}" is not a known field selector: only {known}')
        # A field that is absent reads as empty (fields.Set.Get).
        requirements.append(Requirement(key, "notin" if operator == "!=" else "in", (value,)))
    return tuple(sorted(requirements))


def _field_term(text: str, term: str) -> tuple[str, str, str]:
    """Field label, operator and escaped value. A backslash escapes nothing in a label. Raises BadSelector."""
    for at in range(len(term)):
        for operator in ("!=", "==", "="):
            if term.startswith(operator, at):
                return term[:at], operator, term[at + len(operator) :]
    raise BadSelector(f"invalid selector: '{text}'; can't understand '{term}'")
