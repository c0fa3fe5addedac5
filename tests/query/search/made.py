"""Entries made by hand."""

from __future__ import annotations

from typing import Any

from materializer.entry import Entry, entry_of
from tests.materializer.conftest import made_delta, with_body


def entry(
    cluster: str = "alpha", namespace: str = "x", name: str = "n", *, body: dict[str, Any] | None = None, **given: Any
) -> Entry:
    """An entry of a pod-like object; `body`: what it has beside its metadata."""
    delta = made_delta(name, cluster=cluster, namespace=namespace, **given)
    return entry_of(delta if body is None else with_body(delta, body), 1, 0, "abcdefgh")
