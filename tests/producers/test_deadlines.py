"""Deadlines of very many on one timer: each passes once, not before its time, however often that was changed."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable

import pytest

from producers.follow.nothing import NOTHING
from producers.upstream.deadlines import CLOCK, Deadline, Deadlines


class Noted(Deadline):
    """What notes when it passed."""

    __slots__ = ("passed_at", "then")

    def __init__(self, then: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.passed_at: list[float] = []
        self.then = then

    def passed(self) -> None:
        self.passed_at.append(asyncio.get_running_loop().time())
        if self.then is not None:
            self.then()


async def test_each_passes_once_not_before_its_time() -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    begun = loop.time()
    some = [Noted() for _ in range(50)]
    chosen = random.Random(1)
    for one in some:
        one.deadline = begun + chosen.uniform(0.01, 0.2)
        deadlines.note(one)
    wanted = [one.deadline for one in some]
    while not all(one.passed_at for one in some):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    for one, at in zip(some, wanted, strict=True):
        assert len(one.passed_at) == 1
        assert one.passed_at[0] >= at - 2 * CLOCK
        assert one.deadline == math.inf
    assert len(deadlines) == 0


async def test_put_off_without_a_word_and_brought_forward_with_one() -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    begun = loop.time()
    late, soon, never = Noted(), Noted(), Noted()
    for one in (late, soon, never):
        one.deadline = begun + 0.05
        deadlines.note(one)
    late.deadline = begun + 0.25
    never.deadline = math.inf
    soon.deadline = begun + 0.01
    deadlines.note(soon)
    assert len(deadlines) == 4
    while not (soon.passed_at and late.passed_at):
        await asyncio.sleep(0.01)
    assert len(soon.passed_at) == 1
    assert late.passed_at[0] >= begun + 0.25 - 2 * CLOCK
    assert not never.passed_at
    assert len(deadlines) == 0


async def test_what_passes_may_set_others() -> None:
    """Also itself, and what is earlier than all that is looked at."""
    loop, deadlines = asyncio.get_running_loop(), Deadlines()

    def again() -> None:
        if len(first.passed_at) < 3:
            first.deadline = loop.time() + 0.01
            deadlines.note(first)

    first, last = Noted(again), Noted()
    first.deadline, last.deadline = loop.time() + 0.01, loop.time() + 0.3
    deadlines.note(last)
    deadlines.note(first)
    while not last.passed_at:
        await asyncio.sleep(0.01)
    assert len(first.passed_at) == 3


async def test_closed_it_looks_at_nothing() -> None:
    deadlines, one = Deadlines(), Noted()
    one.deadline = asyncio.get_running_loop().time() + 0.01
    deadlines.note(one)
    deadlines.close()
    await asyncio.sleep(0.05)
    assert not one.passed_at


@pytest.mark.parametrize(
    "put", [lambda: NOTHING.__setitem__("a", 1), lambda: NOTHING.update(a=1), lambda: NOTHING.setdefault("a", 1)]
)
def test_nothing_stays_nothing(put: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="many share"):
        put()
    assert not NOTHING
    assert NOTHING.pop("a", None) is None
    NOTHING.clear()
