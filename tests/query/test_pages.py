"""Pages: snapshots by version and scope, bounded, dropped when unused; pages that go on after a 410."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

import pytest

from materializer.entry import Entry
from materializer.versions import Named, list_version
from query.http.status import ApiError
from query.objects.options import Options, parse_options
from query.objects.pages import (
    FrozenLists,
    ListPage,
    Snapshot,
    SnapshotLimits,
    decode_continue,
    first_page,
    further_page,
)
from query.timing import QueryTiming
from tests.patience import PATIENCE

VERSIONS = Named("abcdefgh")


@pytest.fixture
def entries() -> Callable[[str], list[Entry]]:
    def made(names: str) -> list[Entry]:
        return [
            Entry(
                index=at,
                uid_index=at,
                selectable_since=at,
                deleted=False,
                cluster="alpha",
                namespace="x",
                name=name,
                version="v1",
                uid=name,
                member_version="1",
                labels={},
                fields={},
                controller_uid="",
                created=0,
                time=0,
                type_meta=b"",
                content=b"{}",
                version_end=0,
                metadata_end=0,
            )
            for at, name in enumerate(names, 1)
        ]

    return made


def ask(**query: str) -> Options:
    return parse_options(query, watch=False)


def names(page: ListPage) -> str:
    return "".join(entry.name for entry in page.entries)


async def test_pages_are_of_the_first_ones_state(entries: Callable[[str], list[Entry]]) -> None:
    kept = FrozenLists()

    def present() -> Snapshot:
        return Snapshot(12, "scope", entries("xyz"))

    page = first_page(kept, Snapshot(9, "scope", entries("abcde")), ask(limit="2"), "abcdefgh", "10.0.0.1")
    assert (names(page), page.remaining) == ("ab", 3)
    page = further_page(kept, present, "scope", ask(limit="2", **{"continue": page.token}), VERSIONS, "10.0.0.1")
    assert (names(page), page.index, page.remaining) == ("cd", 9, 1)
    page = further_page(kept, present, "scope", ask(limit="2", **{"continue": page.token}), VERSIONS, "10.0.0.1")
    assert (names(page), page.token, page.remaining) == ("e", "", None)
    kept.close()


async def test_after_a_410_pages_go_on_from_one_newer_state(entries: Callable[[str], list[Entry]]) -> None:
    kept = FrozenLists()
    page = first_page(kept, Snapshot(9, "scope", entries("abcdefghi")), ask(limit="2"), "abcdefgh", "10.0.0.1")
    kept.close()
    with pytest.raises(ApiError) as gone:
        further_page(
            kept,
            lambda: Snapshot(9, "scope", entries("abcdefghi")),
            "scope",
            ask(limit="2", **{"continue": page.token}),
            VERSIONS,
            "10.0.0.1",
        )
    assert gone.value.code == 410
    token, seen, states = gone.value.token, "", ["abdefghij", "abd", "ab"]
    while token:
        # What has changed meanwhile is not in further pages, and none of them is a 410 again.
        present = functools.partial(Snapshot, 12, "scope", entries(states.pop(0) if states else ""))
        page = further_page(
            kept,
            present,
            "scope",
            ask(limit="2", **{"continue": token}),
            VERSIONS,
            "10.0.0.1",
        )
        assert page.index == 12
        seen += names(page)
        token = page.token
    assert seen == "defghij"
    kept.close()


async def test_a_snapshot_is_of_one_scope_and_history(entries: Callable[[str], list[Entry]]) -> None:
    kept = FrozenLists()
    page = first_page(kept, Snapshot(9, ("pods", 1), entries("abc")), ask(limit="2"), "abcdefgh", "10.0.0.1")
    assert kept.find(9, ("pods", 1)) is not None
    assert kept.find(9, ("pods", 2)) is None
    assert decode_continue(page.token).rv == list_version("abcdefgh", 9)
    kept.close()


async def test_snapshots_are_dropped_unused(entries: Callable[[str], list[Entry]]) -> None:
    kept = FrozenLists(QueryTiming(snapshot_life=0.05), SnapshotLimits(number=3))
    for index in range(9):
        kept.keep(Snapshot(index, "scope", entries("a")), "10.0.0.1")
    assert len(kept) == 3
    async with asyncio.timeout(PATIENCE):
        while len(kept):
            await asyncio.sleep(0.01)
    kept.keep(Snapshot(1, "scope", entries("a")), "10.0.0.1")
    async with asyncio.timeout(PATIENCE):
        while len(kept):
            await asyncio.sleep(0.01)
    kept.close()


async def test_one_client_does_not_end_the_paging_of_others(entries: Callable[[str], list[Entry]]) -> None:
    """When they cost too much, the client that has most loses its least recently used one."""
    measured = FrozenLists()
    measured.keep(Snapshot(1, "one", entries("abc")), "10.0.0.1")
    kept = FrozenLists(limits=SnapshotLimits(bytes=20 * measured.size))
    measured.close()
    kept.keep(Snapshot(1, "one", entries("abc")), "10.0.0.1")
    for index in range(100):
        kept.keep(Snapshot(index, "many", entries("abc")), "10.0.0.2")
    assert kept.find(1, "one") is not None
    assert (len(kept), kept.evicted) == (20, 81)
    assert kept.find(99, "many") is not None
    assert kept.find(80, "many") is None
    # Several tokens of one state share it.
    for _ in range(50):
        kept.keep(Snapshot(1, "one", entries("abc")), "10.0.0.1")
    assert len(kept) == 20
    kept.close()
    assert kept.size == 0


async def test_one_that_is_larger_than_all_may_be_is_kept_alone(entries: Callable[[str], list[Entry]]) -> None:
    kept = FrozenLists(limits=SnapshotLimits(bytes=1))
    kept.keep(Snapshot(1, "one", entries("abc")), "10.0.0.1")
    kept.keep(Snapshot(7, "large", entries("abc")), "10.0.0.1")
    assert len(kept) == 1
    assert kept.find(7, "large") is not None
    kept.close()


async def test_too_many_go_from_the_client_that_has_most(entries: Callable[[str], list[Entry]]) -> None:
    kept = FrozenLists(limits=SnapshotLimits(number=5))
    # One that costs more than all others together is still but one.
    kept.keep(Snapshot(1, "large", entries("abcdefghijklmnopqrstuvwxyz" * 100)), "10.0.0.1")
    for index in range(50):
        kept.keep(Snapshot(index, "many", entries("abc")), "10.0.0.2")
    assert kept.find(1, "large") is not None
    assert len(kept) == 5
    kept.close()


async def test_changes_make_a_frozen_list_cost_more(entries: Callable[[str], list[Entry]]) -> None:
    old, new = entries("abcdefgh" * 50), entries("abcdefgh" * 50)
    living = {id(entry) for entry in (*old, *new)}
    kept = FrozenLists(limits=SnapshotLimits(bytes=300 * 1000))
    for index, scope, of in ((1000, "one", old), (1001, "one", old), (1001, "other", new)):
        kept.keep(Snapshot(index, scope, of, lambda entry: id(entry) in living), "10.0.0.1")
    before = kept.size
    assert len(kept) == 3
    living -= {id(entry) for entry in old}
    unbound = FrozenLists()
    for index in (1000, 1001):
        unbound.keep(Snapshot(index, "one", old, lambda entry: id(entry) in living), "10.0.0.1")
    unbound.weigh()
    # Two lists keep the same old states alive: these cost once.
    assert 400 * 1000 < unbound.size < 2 * 400 * 1000
    unbound.close()
    kept.weigh()
    assert kept.size < before + 400 * 1000
    assert kept.find(1000, "one") is None
    assert kept.find(1001, "other") is not None
    kept.close()
