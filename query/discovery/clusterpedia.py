"""Clusterpedia's paths and API group: the same requests as at the root, and collections of several types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

GROUP = "clusterpedia.io"
VERSION = "v1beta1"
COLLECTIONS = "collectionresources"
_ROOT = ["apis", GROUP, VERSION]

# What is served at the root beside the clusters' types. The paths below `resources` are no objects, which clients know
# by its verbs; a collection can be watched, but not as a type is: clients that look for types to follow must not.
OFFERED: dict[str, Any] = {
    "metadata": {"name": GROUP},
    "versions": [
        {
            "version": VERSION,
            "resources": [
                {
                    "resource": COLLECTIONS,
                    "responseKind": {
                        "group": GROUP,
                        "version": VERSION,
                        "kind": "CollectionResource",
                    },
                    "scope": "Cluster",
                    "singularResource": "collectionresource",
                    "verbs": ["get", "list"],
                },
                {
                    "resource": "resources",
                    "responseKind": {
                        "group": GROUP,
                        "version": VERSION,
                        "kind": "Resources",
                    },
                    "scope": "Cluster",
                    "singularResource": "resources",
                    "verbs": [],
                },
            ],
            "freshness": "Current",
        }
    ],
}
"""The group, as aggregated discovery has it."""


def below_resources(segments: Sequence[str]) -> list[str] | None:
    """The path that one of Clusterpedia's stands for, None of any other.

    `apis/clusterpedia.io/v1beta1/resources/clusters/alpha/api/v1/pods` is `clusters/alpha/api/v1/pods`: the same
    request in all that is decided about it. What that has below `clusterpedia.io` is the cluster's own.
    """
    return list(segments[4:]) if segments[:4] == [*_ROOT, "resources"] else None


def collection_named(segments: Sequence[str]) -> str | None:
    """The collection that a path at the root names, "" for the list of all; None of any other path.

    `apis/clusterpedia.io/v1beta1/collectionresources/any` is `any`.
    """
    if segments[:4] != [*_ROOT, COLLECTIONS] or len(segments) > 5:
        return None
    return segments[4] if len(segments) == 5 else ""
