"""Snapshots of paged lists: by version and scope, bounded, released by themselves; pages that go on after a 410."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from materializer.entry import Entry
from materializer.versions import Named, list_version
from query.http.status import ApiError
from query.objects import lists
from query.objects.lists import Page, Snapshot, Snapshots, decode_token, first_page, further_page
from query.objects.options import Options, parse_options
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
                body=b"{}",
                version_offset=0,
                version_end=0,
                metadata_end=0,
            )
            for at, name in enumerate(names, 1)
        ]

    return made


def ask(**query: str) -> Options:
    return parse_options(query)


def names(page: Page) -> str:
    return "".join(entry.name for entry in page.entries)


async def test_pages_are_of_the_first_ones_state(entries: Callable[[str], list[Entry]]) -> None:
    kept = Snapshots()
    page = first_page(kept, entries("abcde"), ask(limit="2"), list_version("abcdefgh", 9), 9, "scope")
    assert (names(page), page.remaining) == ("ab", 3)
    page = further_page(kept, lambda: entries("xyz"), ask(limit="2", **{"continue": page.token}), VERSIONS, "", "scope")
    assert (names(page), page.version) == ("cd", list_version("abcdefgh", 9))
    page = further_page(kept, lambda: entries("xyz"), ask(limit="2", **{"continue": page.token}), VERSIONS, "", "scope")
    assert (names(page), page.token) == ("e", "")
    kept.close()


async def test_after_a_410_pages_go_on_from_one_newer_state(entries: Callable[[str], list[Entry]]) -> None:
    kept = Snapshots()
    page = first_page(kept, entries("abcdefghi"), ask(limit="2"), list_version("abcdefgh", 9), 9, "scope")
    kept.close()
    with pytest.raises(ApiError) as gone:
        further_page(
            kept, lambda: entries("abcdefghi"), ask(limit="2", **{"continue": page.token}), VERSIONS, "", "scope"
        )
    assert gone.value.code == 410
    token, seen, states = gone.value.token, "", ["abdefghij", "abd", "ab"]
    version = list_version("abcdefgh", 12)
    while token:
        # What has changed meanwhile is not in further pages, and none of them is a 410 again.
        present = entries(states.pop(0) if states else "")
        page = further_page(
            kept, lambda present=present: present, ask(limit="2", **{"continue": token}), VERSIONS, version, "scope"
        )
        seen += names(page)
        token = page.token
    assert seen == "defghij"
    kept.close()


async def test_another_scope_or_history_has_no_part_in_a_snapshot(entries: Callable[[str], list[Entry]]) -> None:
    kept = Snapshots()
    page = first_page(kept, entries("abc"), ask(limit="2"), list_version("abcdefgh", 9), 9, ("pods", 1))
    assert kept.find(9, ("pods", 1)) is not None
    assert kept.find(9, ("pods", 2)) is None
    assert decode_token(page.token).rv == list_version("abcdefgh", 9)
    kept.close()


async def test_snapshots_go_by_themselves(
    entries: Callable[[str], list[Entry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_SNAPSHOT_SECONDS", 0.05)
    monkeypatch.setattr(lists, "_SNAPSHOTS", 3)
    kept = Snapshots()
    for index in range(9):
        kept.keep(Snapshot(index, "scope", entries("a")))
    assert len(kept) == 3
    async with asyncio.timeout(PATIENCE):
        while len(kept):
            await asyncio.sleep(0.01)
    kept.keep(Snapshot(1, "scope", entries("a")))
    async with asyncio.timeout(PATIENCE):
        while len(kept):
            await asyncio.sleep(0.01)
    kept.close()


async def test_nobody_ends_the_paging_of_others(
    entries: Callable[[str], list[Entry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there is too much of goes from whom has most of it, the longest unused first."""
    kept = Snapshots()
    kept.keep(Snapshot(1, "one", entries("abc")), "10.0.0.1")
    monkeypatch.setattr(lists, "_SNAPSHOT_BYTES", 20 * kept.size)
    for index in range(100):
        kept.keep(Snapshot(index, "many", entries("abc")), "10.0.0.2")
    assert kept.find(1, "one") is not None
    assert (len(kept), kept.evicted) == (20, 81)
    assert kept.find(99, "many") is not None
    assert kept.find(80, "many") is None
    # Several tokens of one state share it, and one that is larger than all may be is still kept, alone.
    for _ in range(50):
        kept.keep(Snapshot(1, "one", entries("abc")), "10.0.0.1")
    assert len(kept) == 20
    monkeypatch.setattr(lists, "_SNAPSHOT_BYTES", 1)
    kept.keep(Snapshot(7, "large", entries("abc")), "10.0.0.1")
    assert len(kept) == 1
    kept.close()
    assert kept.size == 0


async def test_too_many_go_from_whom_has_most_of_them(
    entries: Callable[[str], list[Entry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "_SNAPSHOTS", 5)
    kept = Snapshots()
    # One that costs more than all others together is still but one.
    kept.keep(Snapshot(1, "large", entries("abcdefghijklmnopqrstuvwxyz" * 100)), "10.0.0.1")
    for index in range(50):
        kept.keep(Snapshot(index, "many", entries("abc")), "10.0.0.2")
    assert kept.find(1, "large") is not None
    assert len(kept) == 5
    kept.close()


async def test_what_changes_makes_a_frozen_list_cost_more(
    entries: Callable[[str], list[Entry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    living: set[int] = set()
    old, new = entries("abcdefgh" * 50), entries("abcdefgh" * 50)
    living |= {id(entry) for entry in (*old, *new)}
    kept = Snapshots()
    kept.keep(Snapshot(1000, "one", old, lambda entry: id(entry) in living))
    kept.keep(Snapshot(1001, "one", old, lambda entry: id(entry) in living))
    kept.keep(Snapshot(1001, "other", new, lambda entry: id(entry) in living))
    before = kept.size
    living -= {id(entry) for entry in old}
    kept.weigh()
    # Two lists keep the same old states alive: these cost once.
    assert 400 * 1000 < kept.size - before < 2 * 400 * 1000
    monkeypatch.setattr(lists, "_SNAPSHOT_BYTES", 300 * 1000)
    kept.weigh()
    assert kept.find(1000, "one") is None
    assert kept.find(1001, "other") is not None
    kept.close()
