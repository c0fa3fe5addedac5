"""Pruned guard: an object that was read here without its pruned values must not empty them in its cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from query.http.protobuf import PROTOBUF
from query.http.status import ApiError
from query.http.yaml_bodies import from_yaml

_EMPTY: tuple[object, ...] = ("", 0, False, None, [])


def refuse_emptying(content_type: str, encoded: bool, body: bytes, known: bytes, pointers: Iterable[str]) -> None:
    """Refuses to replace an object by what is served of it here, without the values that `pointers` prune.

    `encoded`: whether the body has a Content-Encoding. `known`: the object as it is served. `pointers`: RFC 6901.
    A body that cannot be read is for the cluster to refuse.

    Raises:
        ApiError: 415, the body is none that could be looked into; 422, it would empty pruned values.
    """
    if encoded or content_type == PROTOBUF:
        raise ApiError(
            415, "of this type not all values are here, so what replaces an object has to be plain JSON or YAML"
        )
    try:
        given = from_yaml(body) if "yaml" in content_type else msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        return
    ours = msgspec.json.decode(known)
    for pointer in pointers:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/")]
        if _empties(given, ours, steps):
            raise ApiError(
                422,
                f"the values of {pointer} are left out here (--prune), and this would empty them in the cluster: PATCH "
                "what is to change, or read the object at the cluster's own API server",
            )


def _empties(given: Any, ours: Any, steps: Sequence[str]) -> bool:
    """Whether a value at these steps is the empty one that is served here instead of it."""
    if isinstance(given, dict) and isinstance(ours, dict):
        keys = given.keys() & ours.keys() if not steps or steps[0] == "*" else {steps[0]} & given.keys() & ours.keys()
        return any(_empties(given[key], ours[key], steps[1:]) for key in keys)
    if isinstance(given, list) and isinstance(ours, list) and steps:
        places = range(min(len(given), len(ours)))
        return any(_empties(given[at], ours[at], steps[1:]) for at in places if steps[0] in ("*", str(at)))
    return not steps and given in _EMPTY and given == ours
