"""The syntax tree of a CEL expression, as cel-cpp hands it out: a serialized `cel.expr.CheckedExpr`.

Field numbers are those of github.com/google/cel-spec proto/cel/expr/{checked,syntax}.proto; wire types those of
protobuf.dev "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal."""

    value: object


@dataclass(frozen=True, slots=True)
class Ident:
    """A variable, of the expression or of a loop."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`of.field`; `test`: `has(of.field)`."""

    of: Node
    field: str
    test: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function or operator (`_&&_`, `_==_`, `_[_]`, `@in`); `target`: of a method."""

    target: Node | None
    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """A list, map or message that is written out."""

    elements: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """What the macros `all`, `exists`, `map` and `filter` are: `accumulated` begins as `begin`, and is `step` after
    each element of `over` (called `variable`, and its value `value` where there are two) while `goes_on`.
    """

    variable: str
    value: str
    over: Node
    accumulated: str
    begin: Node
    goes_on: Node
    step: Node
    result: Node


Node = Constant | Ident | Select | Call | Literal | Loop
_NULL = Constant(None)


def read_tree(serialized: bytes) -> Node:
    """The tree of a serialized CheckedExpr, within a google.protobuf.Any.

    Raises:
        ValueError: it is none.
    """
    for at, checked in _fields(serialized):
        if at == 2:
            for number, value in _fields(_bytes(checked)):
                if number == 4:
                    return _node(_bytes(value))
    raise ValueError("no checked expression")


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below one."""
    if isinstance(node, Select):
        return (node.of,)
    if isinstance(node, Call):
        return (*((node.target,) if node.target is not None else ()), *node.arguments)
    if isinstance(node, Literal):
        return node.elements
    if isinstance(node, Loop):
        return (node.over, node.begin, node.goes_on, node.step, node.result)
    return ()


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a message."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            yield tag >> 3, data[at : at + size]
            at += size
        elif kind == 2:
            size, at = _varint(data, at)
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("a number that is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message stands")
    return value


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()


def _signed(value: int | bytes) -> int:
    assert isinstance(value, int)
    return value - (1 << 64) if value >= 1 << 63 else value


def _node(data: bytes) -> Node:
    for number, value in _fields(data):
        if number == 3:
            return _constant(_bytes(value))
        if number == 4:
            return Ident(next((_text(one) for at, one in _fields(_bytes(value)) if at == 1), ""))
        if number == 5:
            return _select(_bytes(value))
        if number == 6:
            return _call(_bytes(value))
        if number == 7:
            return Literal(tuple(_node(_bytes(one)) for at, one in _fields(_bytes(value)) if at == 1))
        if number == 8:
            entries = [_bytes(one) for at, one in _fields(_bytes(value)) if at == 2]
            return Literal(tuple(_node(_bytes(one)) for each in entries for at, one in _fields(each) if at in (3, 4)))
        if number == 9:
            return _loop(_bytes(value))
    return _NULL


def _constant(data: bytes) -> Constant:
    for number, value in _fields(data):
        if number == 2:
            return Constant(bool(value))
        if number == 3:
            return Constant(_signed(value))
        if number == 4:
            return Constant(value)
        if number == 5:
            return Constant(struct.unpack("<d", _bytes(value))[0])
        if number == 6:
            return Constant(_text(value))
        if number == 7:
            return Constant(_bytes(value))
    return _NULL


def _select(data: bytes) -> Select:
    of: Node = _NULL
    field, test = "", False
    for number, value in _fields(data):
        if number == 1:
            of = _node(_bytes(value))
        elif number == 2:
            field = _text(value)
        elif number == 3:
            test = bool(value)
    return Select(of, field, test)


def _call(data: bytes) -> Call:
    target: Node | None = None
    function = ""
    arguments = []
    for number, value in _fields(data):
        if number == 1:
            target = _node(_bytes(value))
        elif number == 2:
            function = _text(value)
        elif number == 3:
            arguments.append(_node(_bytes(value)))
    return Call(target, function, tuple(arguments))


def _loop(data: bytes) -> Loop:
    texts = {1: "", 3: "", 8: ""}
    nodes: dict[int, Node] = dict.fromkeys((2, 4, 5, 6, 7), _NULL)
    for number, value in _fields(data):
        if number in texts:
            texts[number] = _text(value)
        elif number in nodes:
            nodes[number] = _node(_bytes(value))
    return Loop(texts[1], texts[8], nodes[2], texts[3], nodes[4], nodes[5], nodes[6], nodes[7])
