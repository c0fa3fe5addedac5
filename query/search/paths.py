"""Paths to values in objects, and reading no more of an object than some paths lead to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from types import GenericAlias
from typing import Any, TypedDict

import msgspec

# Made of what is asked for, which no type checker can follow.
_typed_dict: Any = TypedDict

EACH = -1
"""In a path: every element of a list."""

Path = tuple[str | int, ...]
"""Members by their names, elements of lists by their indexes or `EACH`: `spec.containers[].image` is
`("spec", "containers", EACH, "image")`.
"""


def values_at(value: Any, path: Path, begin: int = 0) -> Iterator[Any]:
    """The values that a path leads to in decoded JSON; null and what is not there are none. O(those).

    `begin`: which of its steps is the first to be taken.
    """
    for at in range(begin, len(path)):
        step = path[at]
        if isinstance(step, str):
            if type(value) is not dict:
                return
            value = value.get(step)
        elif type(value) is not list:
            return
        elif step == EACH:
            for one in value:
                yield from values_at(one, path, at + 1)
            return
        elif step < len(value):
            value = value[step]
        else:
            return
        if value is None:
            return
    if value is not None:
        yield value


def text_of(path: Path) -> str:
    """A path as field selectors have it: `spec.containers[].image`, `metadata.annotations['a.b/c']`."""
    parts = []
    for step in path:
        if isinstance(step, int):
            parts.append("[]" if step == EACH else f"[{step}]")
        elif re.fullmatch(r"[A-Za-z0-9_-]+", step):
            parts.append(f".{step}")
        else:
            parts.append(f"['{step}']")
    return "".join(parts).removeprefix(".")


class _Wanted:
    """What is wanted below a value: all of it, or some members and what is wanted of each element."""

    def __init__(self) -> None:
        self.whole = False
        self.members: dict[str, _Wanted] = {}
        self.elements: _Wanted | None = None

    def add(self, path: Path) -> None:
        if not path:
            self.whole = True
        elif isinstance(path[0], str):
            self.members.setdefault(path[0], _Wanted()).add(path[1:])
        else:
            if self.elements is None:
                self.elements = _Wanted()
            self.elements.add(path[1:])

    def type(self) -> Any:
        """The type that a decoder reads no more for than is wanted, of whatever kind the value is."""
        if self.whole or (self.members and self.elements is not None):
            # Both: it is a map that a loop goes through.
            return Any
        members: Any = dict[str, Any]
        if self.members:
            # msgspec skips the members that a TypedDict does not name.
            named = {name: below.type() for name, below in self.members.items()}
            members = _typed_dict("Members", named, total=False)
        elements: Any = list[Any]
        if self.elements is not None:
            elements = GenericAlias(list, (self.elements.type(),))
        return members | elements | str | bool | int | float | None


class Projection:
    """Reads of JSON what some paths lead to.

    Of what a path does not lead to, members are left out; a list or a map that is met in the place of the other is read
    as a whole.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        wanted = _Wanted()
        for path in paths:
            wanted.add(path)
        self._decoder = msgspec.json.Decoder(wanted.type())

    def read(self, data: bytes) -> Any:
        """The part of a JSON text. O(size), without making what is left out.

        Raises:
            msgspec.DecodeError: it is no JSON.
        """
        return self._decoder.decode(data)


def weight_of(value: Any) -> int:
    """How much there is to look at: elements, members and long texts, the latter by 64 characters. O(that)."""
    weight, rest = 0, [value]
    while rest:
        one = rest.pop()
        weight += 1
        if type(one) is dict:
            rest.extend(one.values())
        elif type(one) is list:
            rest.extend(one)
        elif type(one) is str:
            weight += len(one) >> 6
    return weight
