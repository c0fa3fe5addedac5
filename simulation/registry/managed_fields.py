"""managedFields: which manager wrote which fields of an object, as server-side apply records it (KEP-555).

Simplified: a manager owns every field of the parts that it wrote; there are no conflicts between managers.
"""

from __future__ import annotations

from typing import Any

from simulation.registry.options import WriteOptions
from simulation.registry.patches import MERGE_KEYS
from simulation.resources import SimulatedType

__all__ = ["field_set", "managed_fields_entry", "record_write"]


def field_set(value: dict[str, Any]) -> dict[str, Any]:
    """The FieldsV1 that owns every field of a tree.

    An item of a keyed list is named by its key: of `{"ports": [{"port": 80}]}` the field set is
    `{"f:ports": {".": {}, 'k:{"port":80}': {".": {}, "f:port": {}}}}`.
    """
    return {f"f:{name}": _owned(name, inner) for name, inner in value.items()}


def _owned(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        inner = field_set(value)
        return {".": {}, **inner} if inner else {}
    if isinstance(value, list) and value:
        for key in MERGE_KEYS.get(name, ()):
            if all(isinstance(item, dict) and isinstance(item.get(key), str | int) for item in value):
                items = {}
                for item in value:
                    text = f'"{item[key]}"' if isinstance(item[key], str) else str(item[key])
                    items[f'k:{{"{key}":{text}}}'] = {".": {}, **field_set(item)}
                return {".": {}, **items}
    return {}


def managed_fields_entry(
    manager: str,
    api_version: str,
    time: str,
    fields: dict[str, Any],
    *,
    operation: str = "Update",
    subresource: str = "",
) -> dict[str, Any]:
    """A ManagedFieldsEntry: `manager` wrote `fields` (FieldsV1) at `time`, by Update or Apply."""
    entry: dict[str, Any] = {
        "manager": manager,
        "operation": operation,
        "apiVersion": api_version,
        "time": time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }
    if subresource:
        entry["subresource"] = subresource
    return entry


def record_write(
    type: SimulatedType,
    body: dict[str, Any],
    before: dict[str, Any] | None,
    options: WriteOptions,
    time: str,
    *,
    subresource: str = "",
    applying: bool = False,
) -> None:
    """Set `metadata.managedFields` of a body that is about to be stored.

    The entry of the manager, operation and subresource at hand is replaced; all others of `before` stay.
    """
    metadata = body["metadata"]
    written = (
        {"status": body.get("status", {})}
        if subresource == "status"
        else {
            key: value
            for key, value in body.items()
            if key not in ("kind", "apiVersion", "metadata") and not (key == "status" and type.has_status)
        }
    )
    own = {key: metadata[key] for key in ("labels", "annotations", "ownerReferences") if metadata.get(key)}
    entry = managed_fields_entry(
        options.manager,
        type.api_version(options.version),
        time,
        field_set({"metadata": own, **written} if own else written),
        operation="Apply" if applying else "Update",
        subresource=subresource,
    )
    known = before["metadata"].get("managedFields", []) if before else []
    same = (entry["manager"], entry["operation"], subresource)
    others = [
        other for other in known if (other.get("manager"), other.get("operation"), other.get("subresource", "")) != same
    ]
    metadata["managedFields"] = [*others, entry]
