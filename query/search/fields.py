"""Field selectors over any path of any object: Clusterpedia's grammar, of which Kubernetes' own is a part.

`spec.replicas>3`, `!spec.paused`, `spec.containers[].image in (a, b)`, `metadata.annotations['a.b/c']=x`; a comma is
AND. Grammar: Clusterpedia api/clusterpedia/fields/{lexer,selector}.go; what its storage ignores or refuses (`>`, `<`,
lists) means here what it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from query.http.status import ApiError
from query.search.paths import EACH, Path, values_at


class FieldTerm(NamedTuple):
    """One condition on a path; `values` are sorted.

    Operators: `in` (also for `=`), `notin` (also for `!=`), `exists`, `!`, `gt` and `lt` (one value, an integer). Of a
    path that leads to several values one of them has to meet it; `notin` and `!` are the opposites of `in` and
    `exists`. As with Kubernetes' fields, what is not there reads as empty.
    """

    path: Path
    operator: str
    values: tuple[str, ...]

    @property
    def key(self) -> str:
        """The path as Kubernetes' field labels are written; "" if it is no such."""
        return ".".join(self.path) if all(isinstance(one, str) for one in self.path) else ""  # type: ignore[arg-type]

    def matches(self, data: Any) -> bool:
        """Whether decoded JSON meets the condition. O(values at the path)."""
        if self.operator == "exists":
            return any(True for _ in values_at(data, self.path))
        if self.operator == "!":
            return not any(True for _ in values_at(data, self.path))
        if self.operator in ("gt", "lt"):
            limit, more = int(self.values[0]), self.operator == "gt"
            numbers = (_number(one) for one in values_at(data, self.path))
            return any(one is not None and (one > limit if more else one < limit) for one in numbers)
        return self._equals(data) is (self.operator == "in")

    def _equals(self, data: Any) -> bool:
        empty = True
        for one in values_at(data, self.path):
            empty = False
            if _is_one_of(one, self.values):
                return True
        return empty and "" in self.values


def _is_one_of(value: Any, wanted: tuple[str, ...]) -> bool:
    if isinstance(value, str):
        return value in wanted
    if isinstance(value, bool):
        return ("true" if value else "false") in wanted
    if isinstance(value, int | float):
        return any(value == _number_of(text) for text in wanted)
    return False


def _number_of(text: str) -> int | float | None:
    if re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        return int(text)
    if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text):
        return float(text)
    return None


def _number(value: Any) -> int | float | None:
    """The number that a value is, or that a text of digits is."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[+-]?[0-9]{1,30}", value) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


# -- parsing -----------------------------------------------------------------------------------------------------------

_MEMBER = re.compile(r"[^\s.\[\]'\"=!<>(),]+")
_QUOTED = re.compile(r"'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"")
_BRACKETS = re.compile(r"\[\s*(?:(?P<index>[0-9]{1,9})|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\")?\s*\]")
_OPERATOR = re.compile(r"==|!=|=|>|<|(?P<set>in|notin)\s*\(")
_BLANK = re.compile(r"\s*")


def parse_field_terms(text: str) -> tuple[FieldTerm, ...]:
    """The terms of a field selector, sorted.

    Raises:
        ApiError: 400, with the column that cannot be read.
    """
    return tuple(sorted(set(_Parser(text).terms()), key=repr))


def field_term(key: str, operator: str, value: str) -> FieldTerm | None:
    """A term as Kubernetes' own grammar parts it; None if its key is no path. The value may stand between quotes."""
    parser = _Parser(key.strip())
    try:
        path = parser.path()
    except ApiError:
        return None
    if not parser.done:
        return None
    quoted = _QUOTED.fullmatch(value.strip())
    if quoted is not None:
        value = quoted["single"] if quoted["single"] is not None else quoted["double"]
    return FieldTerm(path, "notin" if operator == "!=" else "in", (value.strip(),))


def uses_paths(text: str) -> bool:
    """Whether a field selector uses what Kubernetes' grammar does not have."""
    return re.search(r"[\[(<>'\"]|\s(?:not)?in\s|(?:^|,)\s*[.!]", text) is not None


# What reads a path goes down by a call for each step.
_MOST_STEPS = 64


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def terms(self) -> Iterator[FieldTerm]:
        while True:
            self._blank()
            if self._at == len(self._text):
                return
            if self._next() != ",":
                yield self._term()
                self._blank()
                if self._at < len(self._text) and self._next() != ",":
                    raise self._bad("a comma or the end is expected")
            self._at += 1

    @property
    def done(self) -> bool:
        """Whether all has been read."""
        return self._at == len(self._text)

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _blank(self) -> None:
        found = _BLANK.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _bad(self, why: str, at: int | None = None) -> ApiError:
        at = self._at if at is None else at
        return ApiError(400, f"fieldSelector: column {at + 1}: {why}: {self._text[at : at + 32]!r}")

    def _term(self) -> FieldTerm:
        absent = self._next() == "!"
        if absent:
            self._at += 1
            self._blank()
        path = self.path()
        self._blank()
        if self._next() in ("", ","):
            return FieldTerm(path, "!" if absent else "exists", ())
        operator = _OPERATOR.match(self._text, self._at)
        if operator is None or absent:
            expected = "a comma or the end" if absent else "one of =, ==, !=, >, <, in (...), notin (...)"
            raise self._bad(f"{expected} is expected")
        self._at = operator.end()
        if operator["set"]:
            values = tuple(sorted(set(self._values())))
            return FieldTerm(path, operator["set"], values)
        begin = self._at
        value = self._value(",")
        if operator[0] in (">", "<"):
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
                raise self._bad("an integer is expected", begin)
            return FieldTerm(path, "gt" if operator[0] == ">" else "lt", (value,))
        return FieldTerm(path, "notin" if operator[0] == "!=" else "in", (value,))

    def path(self) -> Path:
        """A path; its first step is a member. Raises ApiError 400."""
        path: list[str | int] = []
        if self._next() == ".":
            self._at += 1
        while True:
            if len(path) == _MOST_STEPS:
                raise self._bad(f"a path has at most {_MOST_STEPS} steps")
            if path and self._next() == "[":
                found = _BRACKETS.match(self._text, self._at)
                if found is None:
                    raise self._bad("[], [0] or ['name'] is expected")
                name = found["single"] if found["single"] is not None else found["double"]
                path.append(name if name is not None else EACH if found["index"] is None else int(found["index"]))
            else:
                found = _QUOTED.match(self._text, self._at) or _MEMBER.match(self._text, self._at)
                if found is None:
                    raise self._bad("the name of a field is expected")
                quoted = found.re is _QUOTED
                path.append((found["single"] or found["double"] or "") if quoted else found[0])
            self._at = found.end()
            if self._next() == ".":
                self._at += 1
                if self._next() == "[":
                    raise self._bad("the name of a field is expected")
            elif self._next() != "[":
                return tuple(path)

    def _values(self) -> Iterator[str]:
        while True:
            yield self._value(",)")
            if self._next() == ")":
                self._at += 1
                return
            if self._next() != ",":
                raise self._bad("a comma or `)` is expected")
            self._at += 1

    def _value(self, ends: str) -> str:
        """A value up to one of `ends` or the end: between quotes, or plain with backslashes before `,`, `=`, `\\`."""
        self._blank()
        if (found := _QUOTED.match(self._text, self._at)) is not None:
            self._at = found.end()
            self._blank()
            return found["single"] if found["single"] is not None else found["double"]
        out = []
        while self._at < len(self._text) and self._next() not in ends:
            char = self._next()
            if char == "\\":
                self._at += 1
                char = self._next()
                if char not in ("\\", ",", "="):
                    raise self._bad("only a backslash, a comma and an equals sign are escaped", self._at - 1)
            elif char == "=":
                raise self._bad("an equals sign in a value is escaped by a backslash")
            out.append(char)
            self._at += 1
        return "".join(out).strip()
