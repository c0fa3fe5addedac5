"""Bodies read in long lists: those that were read lately stay plain, and the next ones are read in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from deltalog.wire.kubernetes import GroupResource
from materializer import read_ahead, reading
from materializer.bodies import CorruptFrame, Dictionary, Packing
from materializer.entry import Entry
from materializer.filter import Filter
from materializer.read_ahead import ReadAhead
from materializer.reading import KeptRests
from materializer.record import with_body
from materializer.store import Store
from tests.materializer.test_plain import pod

Make = Callable[..., Any]
PODS = GroupResource("", "pods")


@pytest.fixture
def entries(delta: Make) -> list[Entry]:
    """Most of them packed, the last ones plain."""
    store = Store("h", 1000, 0, Packing())
    store.finish_loading(0)
    for number in range(1000):
        store.apply_delta(pod(delta, number), number + 1, number)
        if number == 899:
            store.pack()
    return store.types[PODS].select(Filter())


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> KeptRests:
    kept = KeptRests(600_000)
    monkeypatch.setattr(reading, "KEPT", kept)
    monkeypatch.setattr(read_ahead, "KEPT", kept)
    return kept


def parts(entries: list[Entry]) -> Iterator[list[Entry]]:
    return (entries[at : at + 50] for at in range(0, len(entries), 50))


async def read(ahead: ReadAhead) -> list[bytes]:
    found: list[bytes] = []
    while True:
        await ahead.ready()
        try:
            part, rests = next(ahead)
        except StopIteration:
            return found
        found += reading.rests(part) if rests is None else map(bytes, rests)


def test_what_is_kept_is_bounded_and_found_again(entries: list[Entry], kept: KeptRests) -> None:
    expected = [entry.rest for entry in entries]
    for _ in range(3):
        before = set(kept._rests)
        assert reading.rests(entries) == expected
        assert 590_000 < kept.size <= 600_000
        again = len(before & set(kept._rests))
    assert again > len(kept) * 0.8
    packed = [entry for entry in entries if entry.record in kept._rests]
    found, missing = kept.find(packed)
    assert (found, missing) == ([entry.rest for entry in packed], [])
    kept.forget_unused()
    assert len(kept) > 0, "they were used"
    kept.forget_unused()
    assert (len(kept), kept.size) == (0, 0)


def test_the_same_frame_under_another_dictionary_is_not_taken_for_it(entries: list[Entry], kept: KeptRests) -> None:
    entry = next(entry for entry in entries if entry.dictionary is not None)
    reading.rests([entry])
    assert kept.find([entry])[1] == []
    assert entry.dictionary is not None
    entry.dictionary = Dictionary(entry.dictionary.content + b"x")
    assert kept.find([entry])[1] == [0]


@pytest.mark.parametrize("helps", [True, False])
async def test_lists_are_read_ahead_each_with_its_own(
    entries: list[Entry], monkeypatch: pytest.MonkeyPatch, helps: bool
) -> None:
    monkeypatch.setattr(read_ahead, "_HELPS", helps)
    monkeypatch.setattr(read_ahead, "_MOST", 3)
    lists = [entries[at:] for at in range(0, 80, 10)]
    all_ahead = [ReadAhead(parts(some)) for some in lists]
    for ahead in all_ahead:
        await ahead.ready()
    assert len(read_ahead._held) == (3 if helps else 0), "as many as may be"
    found = await asyncio.gather(*map(read, all_ahead))
    assert found == [[entry.rest for entry in some] for some in lists]
    assert not read_ahead._held


async def test_one_that_ends_early_gives_its_place_back(entries: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_HELPS", True)
    with closing(ReadAhead(parts(entries))) as ahead:
        await ahead.ready()
        assert len(read_ahead._held) == 1
    assert not read_ahead._held


async def test_a_broken_frame_is_an_error_of_its_list(entries: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_HELPS", True)
    wrong = next(entry for entry in entries[100:] if entry.dictionary is not None)
    wrong.record = with_body(wrong.record, b"\xff" * 40)
    with closing(ReadAhead(parts(entries))) as ahead:
        with pytest.raises(CorruptFrame):
            await read(ahead)
    assert not read_ahead._held
