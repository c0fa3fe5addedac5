"""Pages: snapshots by version and scope, bounded, dropped when unused; pages that go on after a 410."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

import pytest

from materializer.entry import Entry
from materializer.versions import list_version
from query.http.status import ApiError
from query.objects.options import Options, parse_options
from query.objects.pages import (
    FrozenLists,
    ListPage,
    Snapshot,
    SnapshotLimits,
    decode_continue,
    go_on_inconsistently,
    page_of,
)
from query.timing import QueryTiming
from tests.entries import made_entry
from tests.patience import PATIENCE


@pytest.fixture
def entries() -> Callable[[str], list[Entry]]:
    def made(names: str) -> list[Entry]:
        return [made_entry(name, at, uid=name, rest=b"}") for at, name in enumerate(names, 1)]

    return made


def ask(**query: str) -> Options:
    return parse_options(query, watch=False)


def names(page: ListPage) -> str:
    return "".join(entry.name for entry in page.entries)


async def test_pages_are_of_the_first_ones_state(entries: Callable[[str], list[Entry]]) -> None:
    kept = FrozenLists()
    found, options = Snapshot(9, "scope", entries("abcde")), ask(limit="2")
    page = page_of(kept, found, None, options, "abcdefgh", "10.0.0.1")
    assert (names(page), page.remaining) == ("ab", 3)
    assert kept.find(9, "scope") is found
    page = page_of(kept, found, decode_continue(page.token), options, "abcdefgh", "10.0.0.1")
    assert (names(page), page.index, page.remaining) == ("cd", 9, 1)
    page = page_of(kept, found, decode_continue(page.token), options, "abcdefgh", "10.0.0.1")
    assert (names(page), page.token, page.remaining) == ("e", "", None)
    kept.close()


async def test_a_page_begins_behind_an_object_that_may_have_gone(entries: Callable[[str], list[Entry]]) -> None:
    kept, options = FrozenLists(), ask(limit="2")
    first = page_of(kept, Snapshot(9, "scope", entries("abcdefghi")), None, options, "abcdefgh", "10.0.0.1")
    token = go_on_inconsistently(decode_continue(first.token))
    assert decode_continue(token).rv == ""
    page = page_of(kept, Snapshot(12, "scope", entries("acx")), decode_continue(token), options, "h", "10.0.0.1")
    assert (names(page), page.token) == ("cx", "")
    kept.close()


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("latin-1")).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("token", "why"),
    [
        # What kube-apiserver 1.36 says (apiserver storage/continue.go), with Go's words.
        ("a!", ": illegal base64 data at input byte 1"),
        ("YQ==", ": illegal base64 data at input byte 2"),
        ("YWJjZ", ": illegal base64 data at input byte 4"),
        ("+/", ": illegal base64 data at input byte 0"),
        (encoded(" "), ": unexpected end of JSON input"),
        (encoded("abc"), ": invalid character 'a' looking for beginning of value"),
        (encoded("\x89"), ": invalid character '\x89' looking for beginning of value"),
        (encoded("'"), ": invalid character '\\'' looking for beginning of value"),
        (
            encoded('{"v":"meta.k8s.io/v1","rv":"7","start":["a","b","c"]}'),
            ": server does not recognize this encoded version meta.k8s.io/v1",
        ),
        (encoded('{"v":"kubebraid/v1","rv":"h.7","start":[]}'), ": encoded start key empty (version kubebraid/v1)"),
    ],
)
def test_texts_of_tokens_that_are_none(token: str, why: str) -> None:
    with pytest.raises(ApiError) as error:
        decode_continue(token)
    text = f"invalid continue token: continue key is not valid{why}"
    assert (error.value.code, error.value.message) == (400, text)


@pytest.mark.parametrize("text", ['{"v":', "[1]", "7", '{"v":1,"rv":"","start":[]}', "[" * 5000, "null"])
def test_tokens_of_any_json(text: str) -> None:
    with pytest.raises(ApiError) as error:
        decode_continue(encoded(text))
    assert error.value.message.startswith("invalid continue token: continue key is not valid: ")


async def test_a_snapshot_is_of_one_scope_and_history(entries: Callable[[str], list[Entry]]) -> None:
    kept = FrozenLists()
    page = page_of(kept, Snapshot(9, ("pods", 1), entries("abc")), None, ask(limit="2"), "abcdefgh", "10.0.0.1")
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
