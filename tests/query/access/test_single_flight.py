"""Single flight: work is done once for all who wait, and ends with who owns it."""

from __future__ import annotations

import asyncio

import pytest

from query.access.single_flight import SingleFlight


class Work:
    def __init__(self) -> None:
        self.begun, self.let = 0, asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        await self.let.wait()
        return self.begun


async def _begun(work: Work, times: int = 1) -> None:
    async with asyncio.timeout(30):
        while work.begun < times:
            await asyncio.sleep(0)


async def test_work_of_a_key_is_done_once_at_a_time() -> None:
    flight: SingleFlight[int] = SingleFlight()
    work = Work()
    waiting = [asyncio.create_task(flight.run("a", work)) for _ in range(3)]
    await _begun(work)
    assert len(flight) == 1
    work.let.set()
    assert await asyncio.gather(*waiting) == [1, 1, 1]
    assert len(flight) == 0
    assert await flight.run("a", work) == 2


async def test_keys_do_not_wait_for_each_other() -> None:
    flight: SingleFlight[int] = SingleFlight()
    slow, quick = Work(), Work()
    quick.let.set()
    waiting = asyncio.create_task(flight.run("slow", slow))
    await _begun(slow)
    assert await flight.run("quick", quick) == 1
    slow.let.set()
    assert await waiting == 1


async def test_who_leaves_ends_nothing() -> None:
    flight: SingleFlight[int] = SingleFlight()
    work = Work()
    first, second = (asyncio.create_task(flight.run("a", work)) for _ in range(2))
    await _begun(work)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.let.set()
    assert await second == 1


async def test_an_error_is_everyones_and_is_not_kept() -> None:
    flight: SingleFlight[int] = SingleFlight()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise KeyError("a")

    ended = await asyncio.gather(*(flight.run("a", fail) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in ended] == [KeyError] * 3
    work = Work()
    work.let.set()
    assert await flight.run("a", work) == 1


async def test_close_ends_what_goes_on() -> None:
    flight: SingleFlight[int] = SingleFlight()
    work = Work()
    waiting = asyncio.create_task(flight.run("a", work))
    flight.start("b", work)
    await _begun(work, 2)
    await flight.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(flight) == 0
