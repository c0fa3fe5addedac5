"""Known matches: those who ask again get what reading all bodies again would give, and only what is new is read."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec

from materializer.entry import Entry
from query.search import known as known_module
from query.search.known import KnownMatches
from tests.query.search.made import entry


class Counted:
    """A condition on bodies that counts what it is asked about."""

    at_once = 256

    def __init__(self) -> None:
        self.asked = 0

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        self.asked += len(entries)
        return [one for one in entries if b'"of":"1' in one.body]

    def unknown(self, entries: Sequence[Entry]) -> list[str]:
        return []


def made(index: int, number: int) -> Entry:
    return msgspec.structs.replace(entry(name=f"n{number:03}", member_version=str(index)), index=index)


def last(known: KnownMatches, search: object, where: Counted, entries: list[Entry], index: int) -> list[Entry]:
    *_, found = known.chosen(search, where, entries, index)
    return found


def test_what_changed_is_read_and_nothing_else() -> None:
    """Over random changes, some of them asked about only later, and of an older state between."""
    draw, known, where, plain = random.Random(4), KnownMatches(), Counted(), Counted()
    live = {number: made(number + 1, number) for number in range(200)}
    index, older = 200, (200, list(live.values()))
    for _ in range(60):
        changed = 0
        for _ in range(draw.randrange(8)):
            index += 1
            number = draw.randrange(250)
            if draw.random() < 0.2:
                live.pop(number, None)
            else:
                live[number] = made(index, number)
                changed += 1
        entries = [live[number] for number in sorted(live)]
        before = where.asked
        assert last(known, "search", where, entries, index) == plain.chosen(entries)
        assert where.asked - before <= (changed if before else len(entries))
        if draw.random() < 0.2:
            assert last(known, "search", where, older[1], older[0]) == plain.chosen(older[1])
            assert last(known, "search", where, entries, index) == plain.chosen(entries)
        if draw.random() < 0.2:
            older = (index, entries)
    assert where.asked < plain.asked / 2


def test_searches_are_known_apart_and_not_for_ever() -> None:
    now = 0.0
    known, where = KnownMatches(lambda: now), Counted()
    entries = [made(number + 1, number) for number in range(20)]
    for search in ("a", "b", "a"):
        last(known, search, where, entries, 20)
    assert where.asked == 40
    assert len(known) == 2
    now = 200.0
    last(known, "a", where, entries, 20)
    assert where.asked == 60
    assert len(known) == 1


def test_there_is_room_for_so_many() -> None:
    known, where = KnownMatches(), Counted()
    entries = [made(number + 100, number) for number in range(50)]
    matches = len(last(known, -1, where, entries, 200))
    assert matches > 10
    room, known_module._MATCHES = known_module._MATCHES, 3 * matches
    try:
        for search in range(10):
            last(known, search, where, entries, 200)
        assert len(known) == 3
    finally:
        known_module._MATCHES = room
    for search in range(known_module._SEARCHES + 10):
        last(known, search, where, [], 200)
    assert len(known) == known_module._SEARCHES
