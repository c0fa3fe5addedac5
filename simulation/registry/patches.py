"""Patches: the four ways in which PATCH changes an object, chosen by the content type.

Strategic merge and server-side apply are done without the types' schemas: a list whose name is a known keyed list
(`containers`, `conditions`, ...) is merged by its key, any other list is replaced.
"""

from __future__ import annotations

import copy
from typing import Any

from simulation.status import StatusError, bad_request

__all__ = ["APPLY_PREFIX", "MERGE_KEYS", "json_patch", "merge_patch", "patched", "strategic_merge_patch"]

APPLY_PREFIX = "application/apply-patch"
_JSON_PATCH = "application/json-patch+json"
_MERGE_PATCH = "application/merge-patch+json"
_STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"

# The merge key of each list that built-in types merge, by the list's field name. The first key that all items
# have is used: `ports` are keyed by containerPort in a container and by port in a service.
MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "addresses": ("type",),
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "podIPs": ("ip",),
    "ports": ("containerPort", "port"),
    "resourceClaims": ("name",),
    "secrets": ("name",),
    "taints": ("key",),
    "topologySpreadConstraints": ("topologyKey",),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}

MERGED_SETS = frozenset({"finalizers"})


def patched(content_type: str, before: Any, patch: Any, *, custom: bool) -> Any:
    """`before` as a patch of a content type changes it. Custom resources have no strategic merge.

    Server-side apply is simplified: the configuration is merged in as a strategic merge. What an earlier configuration
    of the same manager set and this one leaves out stays (a real server removes it).

    Raises:
        StatusError: 400 for what is no patch, 415 for a content type that the object cannot be patched with, 422 where
            an operation of a JSON patch cannot be applied.
    """
    if content_type == _JSON_PATCH:
        return json_patch(before, patch)
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: the patch is not an object")
    if content_type == _MERGE_PATCH:
        return merge_patch(before, patch)
    if content_type.startswith(APPLY_PREFIX) or (content_type == _STRATEGIC_MERGE_PATCH and not custom):
        return strategic_merge_patch(before, patch)
    accepted = [_JSON_PATCH, _MERGE_PATCH, *([] if custom else [_STRATEGIC_MERGE_PATCH]), f"{APPLY_PREFIX}+yaml"]
    raise StatusError(
        415,
        "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted),
    )


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: maps merge, null removes, all else replaces. The arguments stay as they are.

    `{"a": {"b": 1}, "c": 2}` patched with `{"a": {"d": 3}, "c": null}` is `{"a": {"b": 1, "d": 3}}`.
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902. The arguments stay as they are.

    Raises:
        StatusError: 400 for what is no patch, 422 where an operation cannot be applied.
    """
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    document = copy.deepcopy(target)
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise bad_request("error decoding patch: an operation needs op and path")
        try:
            document = _operate(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StatusError(
                422, f"the server rejected our request due to an error in our request: {error}"
            ) from error
    return document


def _steps(pointer: str) -> list[str]:
    if pointer == "":
        return []
    if not pointer.startswith("/"):
        raise ValueError(f"not a JSON pointer: {pointer}")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/")]


def _index(items: list[Any], step: str, *, adding: bool = False) -> int:
    if step == "-" and adding:
        return len(items)
    if not step.isdecimal() or len(step) > 9:
        raise IndexError(f"not an index: {step}")
    index = int(step)
    if index > len(items) - (0 if adding else 1):
        raise IndexError(f"index out of bounds: {step}")
    return index


def _find(document: Any, steps: list[str]) -> Any:
    for step in steps:
        if isinstance(document, list):
            document = document[_index(document, step)]
        elif isinstance(document, dict):
            document = document[step]
        else:
            raise KeyError(step)
    return document


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    name = operation.get("op")
    steps = _steps(operation["path"])
    if name == "test":
        if _find(document, steps) != operation.get("value"):
            raise ValueError(f"testing path {operation['path']}: value differs")
        return document
    if name == "add":
        return _add(document, steps, copy.deepcopy(operation.get("value")))
    if name == "remove":
        return _remove(document, steps)
    if name == "replace":
        _find(document, steps)
        if not steps:
            return copy.deepcopy(operation.get("value"))
        return _add(_remove(document, steps), steps, copy.deepcopy(operation.get("value")))
    if name in ("move", "copy"):
        origin = _steps(str(operation.get("from", "")))
        value = copy.deepcopy(_find(document, origin))
        if name == "move":
            document = _remove(document, origin)
        return _add(document, steps, value)
    raise ValueError(f"unexpected kind of operation: {name}")


def _add(document: Any, steps: list[str], value: Any) -> Any:
    if not steps:
        return value
    parent = _find(document, steps[:-1])
    if isinstance(parent, list):
        parent.insert(_index(parent, steps[-1], adding=True), value)
    elif isinstance(parent, dict):
        parent[steps[-1]] = value
    else:
        raise KeyError(steps[-1])
    return document


def _remove(document: Any, steps: list[str]) -> Any:
    if not steps:
        raise ValueError("cannot remove the whole document")
    parent = _find(document, steps[:-1])
    if isinstance(parent, list):
        del parent[_index(parent, steps[-1])]
    elif isinstance(parent, dict):
        del parent[steps[-1]]
    else:
        raise KeyError(steps[-1])
    return document


def strategic_merge_patch(target: Any, patch: Any) -> Any:
    """Strategic merge: maps merge, null removes, keyed lists (MERGE_KEYS) merge by key, with the `$` directives.

    Source: "Strategic Merge Patch" in the API conventions of kubernetes/community.
    """
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: copy.deepcopy(value) for name, value in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            field = name.partition("/")[2]
            if isinstance(merged.get(field), list) and isinstance(value, list):
                merged[field] = [item for item in merged[field] if item not in value]
        elif name.startswith("$"):
            continue
        elif value is None:
            merged.pop(name, None)
        elif isinstance(value, list):
            merged[name] = _merge_list(name, merged.get(name), value)
        elif isinstance(value, dict):
            merged[name] = strategic_merge_patch(merged.get(name), value)
        else:
            merged[name] = value
    return merged


def _merge_key(name: str, *lists: list[Any]) -> str | None:
    for key in MERGE_KEYS.get(name, ()):
        if all(isinstance(item, dict) and isinstance(item.get(key), str | int) for items in lists for item in items):
            return key
    return None


def _merge_list(name: str, target: Any, patch: list[Any]) -> list[Any]:
    current = target if isinstance(target, list) else []
    if name in MERGED_SETS:
        return current + [item for item in patch if item not in current]
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if not (isinstance(item, dict) and "$patch" in item)]
    key = _merge_key(name, current, patch)
    if key is None:
        return copy.deepcopy(patch)
    merged = {item[key]: item for item in current}
    for item in patch:
        if item.get("$patch") == "delete":
            merged.pop(item[key], None)
        else:
            merged[item[key]] = strategic_merge_patch(merged.get(item[key]), item)
    return list(merged.values())
