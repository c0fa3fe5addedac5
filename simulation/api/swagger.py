"""Swagger: an OpenAPI v2 document in the protobuf form that kubectl reads (github.com/google/gnostic, OpenAPIv2.proto).

Only the definitions are written, which are what such clients use; the JSON form has the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

__all__ = ["protobuf"]

_EXTENSION = "x-"


def protobuf(document: dict[str, Any]) -> bytes:
    """`gnostic.openapi.v2.Document` with swagger (1), info (2), paths (8, none) and definitions (9)."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    definitions = _named(document["definitions"])
    return _text(1, document["swagger"]) + _bytes(2, info) + _bytes(8, b"") + _bytes(9, definitions)


def _named(schemas: dict[str, Any]) -> bytes:
    """Definitions and Properties: NamedSchema (1), each a name (1) and its schema (2)."""
    return b"".join(_bytes(1, _text(1, name) + _bytes(2, _schema(schema))) for name, schema in schemas.items())


def _schema(schema: dict[str, Any]) -> bytes:
    parts = [
        _text(number, schema[key])
        for number, key in ((1, "$ref"), (2, "format"), (3, "title"), (4, "description"), (13, "pattern"))
        if schema.get(key)
    ]
    parts += [_text(19, name) for name in schema.get("required") or ()]
    if "additionalProperties" in schema:
        further = schema["additionalProperties"]
        item = _number(2, int(further)) if isinstance(further, bool) else _bytes(1, _schema(further))
        parts.append(_bytes(21, item))
    if "type" in schema:
        parts.append(_bytes(22, _text(1, schema["type"])))
    if "items" in schema:
        parts.append(_bytes(23, _bytes(1, _schema(schema["items"]))))
    parts += [_bytes(24, _schema(one)) for one in schema.get("allOf") or ()]
    if "properties" in schema:
        parts.append(_bytes(25, _named(schema["properties"])))
    parts += [_bytes(31, one) for one in _extensions(schema)]
    return b"".join(parts)


def _extensions(schema: dict[str, Any]) -> Iterable[bytes]:
    """NamedAny: a name (1) and an Any (2), which holds YAML (2)."""
    for key, value in schema.items():
        if key.startswith(_EXTENSION):
            yield _text(1, key) + _bytes(2, _text(2, yaml.safe_dump(value, sort_keys=False)))


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode())


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
