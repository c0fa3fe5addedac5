"""Whole last bodies are bounded in bytes, whatever it was that ended the objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deltalog.wire.kubernetes import GroupResource
from materializer.burying import bury, due
from materializer.store import Store
from tests.materializer.conftest import SECOND

PODS = GroupResource("", "pods")


def test_what_was_replaced_without_a_deletion_is_stripped_early_too(delta: Callable[..., Any]) -> None:
    """A cluster that was built anew has the same names with other uids: as many last bodies as it has objects."""
    store = Store("h", 1000)
    store.finish_loading(0)
    for round_ in range(2):
        for number in range(500):
            index = 500 * round_ + number + 1
            store.apply_delta(delta(f"n{number}", uid=f"u{index}", member_version=str(index)), index, index * SECOND)
    before = due(store, 0, 100_000)
    assert 500 * SECOND < before < 1000 * SECOND
    while bury(store, before):
        pass
    whole = [entry for entry in store.types[PODS].live() if entry.replaced and b'"spec"' in entry.replaced.rest]
    assert 50 < len(whole) < 250
    store.check()
