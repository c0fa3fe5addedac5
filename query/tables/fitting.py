"""Decoding objects whose fields have odd types: what fits its declared type is kept, all else takes its default."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

S = TypeVar("S", bound=msgspec.Struct)

_MISFIT: Any = object()


def fitted(part: type[S], body: bytes) -> S:
    """`part` with the fields of the JSON object that fit, for when the strict decoder refused it.

    An API server never sends such objects, but what we read came over a log; a null where Go expects a value
    comes this way too, and counts as absent, as in Go.
    """
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return part()
    value = _fit(_shape(part), tree)
    return part() if value is _MISFIT else value


@cache
def _shape(part: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(part)


def _fit(shape: inspect.Type, value: Any) -> Any:
    """`value` as `shape` wants it, or `_MISFIT`."""
    if isinstance(shape, inspect.UnionType):
        for choice in shape.types:
            found = _fit(choice, value)
            if found is not _MISFIT:
                return found
        return _MISFIT
    if isinstance(shape, inspect.StructType):
        if not isinstance(value, dict):
            return _MISFIT
        found = {f.name: _fit(f.type, value[f.encode_name]) for f in shape.fields if f.encode_name in value}
        return shape.cls(**{name: each for name, each in found.items() if each is not _MISFIT})
    if isinstance(shape, inspect.VarTupleType):
        if not isinstance(value, list):
            return _MISFIT
        return tuple(each for each in (_fit_item(shape.item_type, item) for item in value) if each is not _MISFIT)
    if isinstance(shape, inspect.DictType):
        if not isinstance(value, dict):
            return _MISFIT
        pairs = ((key, _fit(shape.value_type, item)) for key, item in value.items())
        return {key: item for key, item in pairs if item is not _MISFIT}
    if isinstance(shape, inspect.RawType):
        return msgspec.Raw(b"null")  # only ever counted
    if isinstance(shape, inspect.AnyType):
        return value
    fits = (
        (isinstance(shape, inspect.NoneType) and value is None)
        or (isinstance(shape, inspect.StrType) and isinstance(value, str))
        or (isinstance(shape, inspect.BoolType) and isinstance(value, bool))
        or (isinstance(shape, inspect.IntType) and isinstance(value, int) and not isinstance(value, bool))
    )
    return value if fits else _MISFIT


def _fit_item(shape: inspect.Type, item: Any) -> Any:
    """An element of a list: an odd struct stays, empty, for lists are counted and paired by position."""
    found = _fit(shape, item)
    return shape.cls() if found is _MISFIT and isinstance(shape, inspect.StructType) else found
