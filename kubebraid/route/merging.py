"""Merging: one document made of those of several groups: of discovery, and of what a user may do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

# What identifies entries of lists in discovery documents, in the order in which it is tried: `deployments/scale` has a
# version as well, that of Scale.
_NAMES = ("name", "groupVersion", "resource", "subresource", "version")


def merge(documents: Sequence[Any]) -> Any:
    """The union of discovery documents of one kind: each entry as the first document has it, with the union of lists.

    Of two that differ the one with more entries counts as the first: a group that passes requests on to a cluster
    lists everything in the cluster, in the cluster's own order, and one that only reads it lists what it has of it.
    Merging v1 of `[pods]` and of `[pods, nodes]` has `[pods, nodes]`. O(size of the documents).
    """
    first, *rest = documents
    for other in rest:
        first = _merge_two(first, other)
    return first


def _merge_two(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        if _count_listed(other) > _count_listed(one):
            one, other = other, one
        both = {
            key: _merge_two(one[key], other[key]) if key in one and key in other else one.get(key, other.get(key))
            for key in {**one, **other}
        }
        if "Current" in (one.get("freshness"), other.get("freshness")):
            # What one group can read of a version is available, whether its server answers the cluster or not.
            both["freshness"] = "Current"
        return both
    if isinstance(one, list) and isinstance(other, list):
        found = {_name(entry): entry for entry in one}
        for entry in other:
            name = _name(entry)
            found[name] = _merge_two(found[name], entry) if name in found else entry
        return list(found.values())
    return one


def _count_listed(document: dict[str, Any]) -> int:
    """How many entries the lists in a document have, not those within them."""
    return sum(len(value) for value in document.values() if isinstance(value, list))


def _name(entry: Any) -> str:
    if not isinstance(entry, dict):
        return str(entry)
    metadata = entry.get("metadata")
    if isinstance(metadata, dict):
        return str(metadata.get("name", ""))
    return next((str(entry[key]) for key in _NAMES if key in entry), json.dumps(entry, sort_keys=True))


def merge_rules(reviews: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A SelfSubjectRulesReview with the rules of all of these, each once, in their order; the spec is the first's.

    O(rules).
    """
    first = reviews[0]
    status: dict[str, Any] = {**first["status"]}
    for name in ("resourceRules", "nonResourceRules"):
        rules = {json.dumps(rule, sort_keys=True): rule for one in reviews for rule in one["status"].get(name) or ()}
        status[name] = list(rules.values())
    status["incomplete"] = any(one["status"].get("incomplete", False) for one in reviews)
    if errors := [error for one in reviews if (error := one["status"].get("evaluationError"))]:
        status["evaluationError"] = ", ".join(dict.fromkeys(errors))
    return {**first, "status": status}
