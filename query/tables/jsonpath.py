"""JSONPath as additionalPrinterColumns use it: compiled once, then finding values in decoded JSON.

The grammar and its oddities are those of k8s.io/client-go/util/jsonpath (parser.go, jsonpath.go) without templates
around the path: fields, `\\.` for a dot in a field, `['field']` (in which dots separate too, unless escaped),
`[0]`, `[-1]`, `[1:3]`, `[*]`, `.*`, `..field`, `[a,b]` unions and `[?(@.type=="Ready")]` filters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from query.errors import QueryError

Step = Callable[[list[Any]], list[Any]]
"""From the values found so far to those found next."""

_QUOTED_KEY = re.compile(r"^'([^']*)'$")
_SLICE = re.compile(r"^(-?[0-9]*)(:-?[0-9]*)?(:-?[0-9]*)?$")
_COMPARISON = re.compile(r"^([^!<>=]+)([!<>=]+)(.+?)$")
_NUMBER = re.compile(r"[+-]?[0-9.]*")
_TERMINATORS = frozenset(" \t\r\n.,[]$@{}")
_MOST_STEPS = 1000
"""A path as long as this is no path: it keeps unions and filters, which nest, off the bottom of the stack."""


class PathError(QueryError):
    """The path cannot be understood, or does not fit the value: an index out of bounds, a field of a list."""


class Path:
    """A compiled JSONPath."""

    __slots__ = ("_keys", "_steps", "root")

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        # Most paths are fields only: these are walked without any lists.
        self._keys = tuple(step.key for step in steps if isinstance(step, _Field))
        if len(self._keys) != len(steps):
            self._keys = ()
        self.root = steps[0].key if steps and isinstance(steps[0], _Field) else None
        """The one field of the object that the path looks into; None if it looks into all."""

    def misses(self, root: str, fields: tuple[str, ...]) -> bool:
        """Whether it surely looks into none of these fields of the object's field `root`."""
        if self.root is None or (self.root == root and len(self._keys) < 2):
            return False
        return self.root != root or self._keys[1] not in fields

    def find(self, value: Any) -> list[Any]:
        """The values at this path, in order; none if something on the way is missing.

        Raises PathError if the path does not fit the value.
        """
        if self._keys:
            for key in self._keys:
                if not isinstance(value, dict) or key not in value:
                    return []
                value = value[key]
            return [value]
        found = [value]
        for step in self._steps:
            found = step(found)
        return found


@lru_cache(maxsize=4096)
def compiled(text: str) -> Path:
    """The path that `text` says, without braces. Raises PathError if it says none."""
    return Path(_Parser(text).steps())


def _indirect(values: list[Any]) -> list[Any]:
    return [value for value in values if value is not None]


class _Field:
    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, values: list[Any]) -> list[Any]:
        key = self.key
        return [value[key] for value in values if isinstance(value, dict) and key in value]


class _Literal:
    __slots__ = ("value",)

    def __init__(self, value: str | int | float | bool) -> None:
        self.value = value

    def __call__(self, values: list[Any]) -> list[Any]:
        # A text stands for itself even where there is nothing; a number once for each value.
        return [self.value] if isinstance(self.value, str) else [self.value] * len(values)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list):
        return value
    # Go walks a string by its bytes.
    return list(value.encode("utf-8", "replace")) if isinstance(value, str) else []


def _wildcard(values: list[Any]) -> list[Any]:
    return [child for value in values for child in _children(value)]


def _recursive(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    waiting = list(reversed(values))
    while waiting:
        value = waiting.pop()
        children = _children(value)
        if children:
            found.append(value)
            if not isinstance(value, str):
                waiting.extend(reversed(children))
    return found


class _Slice:
    """`[start:end:step]`; a single index is the slice that begins there, and must be within bounds."""

    __slots__ = ("derived", "end", "start", "step")

    def __init__(self, start: int | None, end: int | None, step: int | None, derived: bool) -> None:
        self.start = start
        self.end = end
        self.step = step
        self.derived = derived

    def __call__(self, values: list[Any]) -> list[Any]:
        found: list[Any] = []
        for value in _indirect(values):
            if not isinstance(value, list):
                raise PathError("not a list")
            size = len(value)
            start = self.start or 0
            if start < 0:
                start += size
            end = size if self.end is None else self.end
            if end < 0 or (end == 0 and self.derived):
                end += size
            if start == end:
                break  # client-go gives up on the values that follow too
            if not (0 <= start < size and 0 <= end <= size and start <= end):
                raise PathError("index out of bounds")
            if self.step is not None and self.step <= 0:
                raise PathError("step must be positive")
            found += value[start : end : self.step or 1]
        return found


class _Union:
    __slots__ = ("branches",)

    def __init__(self, branches: list[list[Step]]) -> None:
        self.branches = branches

    def __call__(self, values: list[Any]) -> list[Any]:
        return [value for branch in self.branches for value in _walk(branch, values)]


def _walk(steps: list[Step], values: list[Any]) -> list[Any]:
    for step in steps:
        values = step(values)
    return values


def _kind(value: Any) -> type:
    """What a value can be compared as (client-go third_party/forked/golang/template: basicKind)."""
    kind = type(value)
    if kind not in (bool, int, float, str):
        raise PathError("values cannot be compared")
    return kind


def _compare(operator: str, left: Any, right: Any) -> bool:
    kind = _kind(left)
    if kind is not _kind(right):
        raise PathError("values of two types cannot be compared")
    if operator == "==":
        return bool(left == right)
    if operator == "!=":
        return bool(left != right)
    if kind is bool:
        raise PathError("booleans have no order")
    if operator == "<":
        return bool(left < right)
    if operator == "<=":
        return bool(left <= right)
    if operator == ">":
        return bool(left > right)
    if operator == ">=":
        return bool(left >= right)
    raise PathError(f"no such operator: {operator}")


class _Filter:
    """`[?(left operator right)]`, or `[?(left)]` for those that have it."""

    __slots__ = ("left", "operator", "right")

    def __init__(self, left: list[Step], operator: str, right: list[Step]) -> None:
        self.left = left
        self.operator = operator
        self.right = right

    def __call__(self, values: list[Any]) -> list[Any]:
        return [each for value in values for each in self._kept(value)]

    def _kept(self, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise PathError("not a list")
        return [each for each in value if self._passes(each)]

    def _passes(self, each: Any) -> bool:
        if not self.operator:
            try:
                return bool(_walk(self.left, [each]))
            except PathError:
                return False
        lefts = _walk(self.left, [each])
        if not lefts:
            return False
        rights = _walk(self.right, [each])
        if not rights:
            return False
        if len(lefts) > 1 or len(rights) > 1:
            raise PathError("one value can be compared at a time")
        return _compare(self.operator, lefts[0], rights[0])


class _Parser:
    """One pass over a path; `_at` is where it stands."""

    __slots__ = ("_at", "_text")

    def __init__(self, text: str) -> None:
        if len(text) > _MOST_STEPS:
            raise PathError("path is too long")
        self._text = text
        self._at = 0

    def steps(self) -> list[Step]:
        steps: list[Step] = []
        text = self._text
        while self._at < len(text):
            mark = text[self._at]
            if text.startswith("[?(", self._at):
                steps.append(self._filter())
            elif text.startswith("..", self._at):
                if steps and steps[-1] is _recursive:
                    raise PathError("invalid multiple recursive descent")
                self._at += 2
                steps.append(_recursive)
                if self._at < len(text) and (text[self._at].isalnum() or text[self._at] == "_"):
                    steps.append(self._field())
            elif mark in " @$":
                self._at += 1
            elif mark == "[":
                steps += self._brackets()
            elif mark in "\"'":
                steps.append(_Literal(self._quoted(mark)))
            elif mark == ".":
                self._at += 1
                steps.append(self._field())
            elif mark in "+-" or mark.isdigit():
                steps.append(_Literal(self._number()))
            elif mark.isalpha() or mark == "_":
                steps.append(self._word())
            else:
                raise PathError(f"unrecognized character {mark!r}")
        return steps

    def _until_terminator(self) -> str:
        begin = self._at
        text = self._text
        while self._at < len(text) and text[self._at] not in _TERMINATORS:
            self._at += 2 if text[self._at] == "\\" else 1
        return text[begin : self._at]

    def _field(self) -> Step:
        name = self._until_terminator()
        return _wildcard if name == "*" else _Field(name.replace("\\", ""))

    def _word(self) -> Step:
        word = self._until_terminator()
        if word not in ("true", "false"):
            raise PathError(f"unrecognized identifier {word}")
        return _Literal(word == "true")

    def _number(self) -> int | float:
        match = _NUMBER.match(self._text, self._at)
        text = match.group() if match else ""
        self._at += len(text)
        try:
            return float(text) if "." in text else int(text)
        except ValueError:
            raise PathError(f"cannot parse number {text}") from None

    def _quoted(self, quote: str) -> str:
        begin = self._at
        end = begin + 1
        while True:
            end = self._text.find(quote, end)
            if end < 0:
                raise PathError("unterminated quoted string")
            end += 1
            if self._text[end - 2] != "\\":
                break
        self._at = end
        return re.sub(r"\\(.)", r"\1", self._text[begin + 1 : end - 1])

    def _brackets(self) -> list[Step]:
        end = self._text.find("]", self._at)
        if end < 0:
            raise PathError("unterminated array")
        inner = self._text[self._at + 1 : end]
        self._at = end + 1
        if inner == "*":
            inner = ":"
        parts = inner.split(",")
        if len(parts) > 1:
            return [_Union([_Parser(f"[{part.strip(' ')}]").steps() for part in parts])]
        key = _QUOTED_KEY.match(inner)
        if key:
            return _Parser(f".{key.group(1)}").steps()
        match = _SLICE.match(inner)
        if not match:
            raise PathError(f"invalid array index {inner}")
        return [_slice(*match.groups())]

    def _filter(self) -> Step:
        begin = self._at + 3
        text = self._text
        at = begin
        pair = ""
        closed = False
        while True:
            if at >= len(text) or text[at] == "\n":
                raise PathError("unterminated filter")
            mark = text[at]
            at += 1
            if mark in "\"'":
                if not pair:
                    pair = mark
                elif text[at - 2] != "\\" and mark == pair:
                    closed = True
            elif mark == ")" and bool(pair) == closed:
                break
        if not text.startswith("]", at):
            raise PathError("unclosed array expect ]")
        self._at = at + 1
        inner = text[begin : at - 1]
        match = _COMPARISON.match(inner)
        if not match:
            return _Filter(_Parser(inner).steps(), "", [])
        left, operator, right = match.groups()
        return _Filter(_Parser(left).steps(), operator, _Parser(right).steps())


def _slice(first: str, second: str | None, third: str | None) -> Step:
    try:
        start = int(first) if first else None
        if second is None:
            # `[n]`; `[]` reads as `[0]`.
            return _Slice(start, (start or 0) + 1, None, derived=True)
        end = int(second[1:]) if second != ":" else None
        step = int(third[1:]) if third and third != ":" else None
    except ValueError:
        raise PathError("array index is not a number") from None
    return _Slice(start, end, step, derived=False)
