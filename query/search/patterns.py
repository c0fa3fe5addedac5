"""Patterns: what the regular expressions of `matches` cost, told from their text before any is compiled; and calls of
functions that are Python's, which take long too.

cel-cpp compiles a pattern anew for each text that it is matched with. RE2 (github.com/google/re2) repeats what is
counted, `a{100}`, as often as that, and has thousands of instructions for `\\pL`; a text is matched in steps that are
linear in both at worst. Costs are microseconds of either, rounded up generously.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from query.errors import QueryError
from query.search.cel_syntax import Call, Constant, Literal, Loop, Node, children

MOST_COST = 2000
"""What compiling all patterns of an expression once may cost."""
MOST_WORK = 10_000
"""What the patterns may cost for one object."""
AT_ONCE = 4
"""Objects that are matched at one go: so that these take less than 50 ms at worst."""

_TOKEN = re.compile(
    r"""
    (?P<property>\\[pP](?:\{[^}]*\}|.)?)
    | (?P<escape>\\(?:x\{[^}]*\}|x..|.))
    | (?P<many>\[\^?+\]?+(?:\[:\^?\w+:\]|\\.|[^\]\\])*+\])
    | (?P<open>\((?:\?P?<\w+>)?)
    | (?P<close>\))
    | \{(?P<least>[0-9]+)(?:,(?P<most>[0-9]*))?\}
    | (?P<repeated>[*+?])
    | (?P<any>.)
    """,
    re.DOTALL | re.VERBOSE,
)
_PROPERTY = re.compile(r"\\[pP]")
# cel-cpp's own bound of the steps of loops.
_MOST_STEPS = 10_000

_USE = 6.0
_CHARACTER = 1.0
_UNICODE_PROPERTY = 1500.0
_NEGATED = 4.0
_NEGATED_CLASS = 8.0
_CLASS = 1.0
_OF_CLASS = 0.25
# Of a class with letters that are not ASCII, for each: there may be ranges, and other cases of all letters in these.
_BEYOND_ASCII = 20.0
_MAYBE = 2.0
# A function that is Python's, and each element of the list that it is given.
_CALL = 6.0
_CALL_ELEMENT = 0.5
_OF_LISTS = frozenset({"isSorted", "sum", "min", "max"})
_PER_BYTE = 0.01
"""Of each byte of a text, for each microsecond that compiling the pattern takes."""


class CostlyPattern(QueryError):
    """A pattern whose cost is not known."""


def cost_of(pattern: str) -> float:
    """The microseconds that compiling a pattern takes at most. O(its length).

    Raises:
        CostlyPattern: it has parts of which that cannot be told.
    """
    # By open groups what stands in them; and what a repetition that comes next would repeat.
    groups, last = [_USE], 0.0
    for found in _TOKEN.finditer(pattern):
        kind = found.lastgroup
        if kind == "open":
            groups.append(_CHARACTER)
            last = 0.0
        elif kind == "close":
            if len(groups) > 1:
                last = groups.pop()
                groups[-1] += last
        elif kind in ("least", "most"):
            # RE2 has 1,000 at most, also of those within each other, and needs those between least and most singly.
            times = min(max(int(found["least"][:5]), int((found["most"] or "0")[:5]), 1), 1000)
            more = (last + _MAYBE) * times
            groups[-1] += more - last
            last = more
        elif kind == "repeated":
            groups[-1] += _MAYBE
            last += _MAYBE
        else:
            last = _atom(found[0])
            groups[-1] += last
    return sum(groups)


def _atom(text: str) -> float:
    if text[0] == "[":
        if text == "[":
            raise CostlyPattern("a class of characters without an end")
        beyond = len(text) - len(text.encode("ascii", "ignore")) + len(re.findall(r"\\[x0-9]", text))
        own = _CLASS + _OF_CLASS * len(text) + _BEYOND_ASCII * beyond
        if text[1] == "^" or re.search(r"\\[DSW]|\[:\^", text):
            own += _NEGATED_CLASS
        return own + _UNICODE_PROPERTY * len(_PROPERTY.findall(text))
    if _PROPERTY.match(text):
        return _UNICODE_PROPERTY
    if text == r"\Q":
        raise CostlyPattern(r"\Q is not available in filters")
    if text in (".", r"\D", r"\S", r"\W"):
        return _NEGATED
    return _CHARACTER * len(text.encode())


@dataclass(frozen=True, slots=True)
class PatternUse:
    """A pattern that is matched: what that costs once, and how deep in loops it stands."""

    cost: float
    loops: int


class Patterns:
    """All patterns of an expression, and its calls of the functions that are Python's (`ours`)."""

    def __init__(self, tree: Node, growth: int, ours: Collection[str] = ()) -> None:
        self.uses: list[PatternUse] = []
        self.calls: list[tuple[str, int]] = []
        self._ours = ours
        self._growth = growth
        self._longest = 0
        self._elements = 0
        self._splits = False
        self._visit(tree, 0)

    def _visit(self, node: Node, loops: int) -> None:
        if isinstance(node, Constant) and isinstance(node.value, str):
            self._longest = max(self._longest, len(node.value.encode()))
        elif isinstance(node, Literal):
            self._elements = max(self._elements, len(node.elements))
        elif isinstance(node, Call):
            self._splits = self._splits or node.function == "split"
            if node.function in self._ours:
                self.calls.append((node.function, loops))
            if node.function == "matches" and isinstance(pattern := node.arguments[-1], Constant):
                self.uses.append(PatternUse(cost_of(str(pattern.value)), loops))
        for one in children(node):
            within = isinstance(node, Loop) and one is not node.over and one is not node.begin
            self._visit(one, loops + within)

    @property
    def cost(self) -> float:
        """What compiling each of them once takes."""
        return sum(one.cost for one in self.uses)

    def work(self, data: Any, cluster: str) -> float:
        """The microseconds that matching and calls take at most, with what is there of an object. O(that)."""
        elements, longest = _size(data)
        longest = max(longest, len(cluster), self._longest) * self._growth
        elements = (elements + self._elements) * self._growth + (longest if self._splits else 0)
        runs: list[int] = [min(elements**one.loops, _MOST_STEPS) for one in self.uses]
        called = 0.0
        for name, loops in self.calls:
            times = min(elements**loops, _MOST_STEPS)
            called += times * (_CALL + (_CALL_ELEMENT * elements if name in _OF_LISTS else 0))
        once: float = 1 + longest * _PER_BYTE
        return once * (called + sum(one.cost * times for one, times in zip(self.uses, runs, strict=True)))


def _size(data: Any) -> tuple[int, int]:
    """How many values there are, and the bytes of the longest text at most, names of members included."""
    count, longest, rest = 0, 0, [data]
    while rest:
        one = rest.pop()
        count += 1
        if type(one) is dict:
            rest.extend(one.values())
            longest = max(longest, *map(_length, one)) if one else longest
        elif type(one) is list:
            rest.extend(one)
        elif type(one) is str:
            longest = max(longest, _length(one))
    return count, longest


def _length(text: str) -> int:
    return len(text) if text.isascii() else 4 * len(text)
