"""Tables: objects as rows, for clients that accept `as=Table`.

Custom resources have their `additionalPrinterColumns`; built-in types have only Name and Age (a real server has more).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from simulation.resources import CustomColumn, SimulatedType
from simulation.storage import StoredObject

__all__ = ["column_definitions", "partial_metadata", "row"]

_AGE = (CustomColumn("Age", "date", ".metadata.creationTimestamp"),)
_FILTER = re.compile(r'\?\(\s*@\.([\w.]+)\s*==\s*["\']([^"\']*)["\']\s*\)')


def _columns(type: SimulatedType, version: str) -> tuple[CustomColumn, ...]:
    return type.columns.get(version) or _AGE


def column_definitions(type: SimulatedType, version: str) -> list[dict[str, Any]]:
    """The `columnDefinitions` of a type's Table in a version."""
    name = {
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "Name must be unique within a namespace.",
        "priority": 0,
    }
    return [
        name,
        *(
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            }
            for column in _columns(type, version)
        ),
    ]


def row(type: SimulatedType, version: str, stored: StoredObject, include_object: str) -> dict[str, Any]:
    """A row. `include_object` is Metadata, Object or None, as the parameter includeObject has it."""
    body = stored.body()
    cells: list[Any] = [stored.name]
    for column in _columns(type, version):
        found = _find(body, column.path)
        value = found[0] if found else None
        if column.type == "date":
            cells.append(_age(value))
        elif column.type == "string" and value is not None:
            cells.append(str(value))
        else:
            cells.append(value)
    made: dict[str, Any] = {"cells": cells}
    if include_object == "Object":
        made["object"] = {"kind": type.kind, "apiVersion": type.api_version(version), **body}
    elif include_object != "None":
        made["object"] = partial_metadata(body, enveloped=True)
    else:
        made["object"] = None
    return made


def partial_metadata(body: dict[str, Any], *, enveloped: bool) -> dict[str, Any]:
    """The PartialObjectMetadata of an object; with kind and apiVersion if it is `enveloped`."""
    metadata = {"metadata": body["metadata"]}
    if enveloped:
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", **metadata}
    return metadata


def _find(body: Any, path: str) -> list[Any]:
    """The values at a JSONPath of the kind that printer columns use: fields, indexes, `[?(@.a=="b")]`."""
    found = [body]
    for step in re.findall(r"\.?((?:[^.\[\]\\]|\\.)+)|\[((?:[^\[\]\"']|\"[^\"]*\"|'[^']*')*)\]", path):
        field, bracket = step
        following: list[Any] = []
        for value in found:
            if field:
                name = re.sub(r"\\(.)", r"\1", field)
                if isinstance(value, dict) and name in value:
                    following.append(value[name])
            else:
                following += _subscript(value, bracket)
        found = following
    return found


def _subscript(value: Any, bracket: str) -> list[Any]:
    if isinstance(value, dict) and bracket[:1] in ("'", '"'):
        name = bracket[1:-1]
        return [value[name]] if name in value else []
    if not isinstance(value, list):
        return []
    match = _FILTER.fullmatch(bracket)
    if match is not None:
        return [item for item in value if match.group(2) in map(str, _find(item, f".{match.group(1)}"))]
    if bracket == "*":
        return value
    if bracket.isdecimal() and int(bracket[:9]) < len(value):
        return [value[int(bracket[:9])]]
    return []


def _age(value: Any) -> str:
    if value is None:
        return "<none>"
    try:
        then = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return "<unknown>"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = int((datetime.now(UTC) - then).total_seconds())
    if seconds < 0:
        return "<invalid>" if seconds < -1 else "0s"
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 3 * 3600:
        minutes, rest = divmod(seconds, 60)
        return f"{minutes}m{rest}s" if minutes < 10 and rest else f"{minutes}m"
    if seconds < 48 * 3600:
        hours, rest = divmod(seconds, 3600)
        return f"{hours}h{rest // 60}m" if hours < 8 and rest >= 60 else f"{hours}h"
    days, rest = divmod(seconds, 86400)
    return f"{days}d{rest // 3600}h" if days < 8 and rest >= 3600 else f"{days}d"
