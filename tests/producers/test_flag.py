"""A flag that tasks wait for behaves as asyncio's event does, and takes less memory."""

from __future__ import annotations

import asyncio
import tracemalloc

from producers.flag import Flag


async def test_all_who_wait_are_woken_by_what_was_set_for_a_moment() -> None:
    flag = Flag()
    waiting = [asyncio.create_task(flag.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    flag.set()
    flag.clear()
    later = asyncio.create_task(flag.wait())
    assert await asyncio.gather(*waiting) == [True] * 3
    assert not later.done()
    assert not flag.is_set()
    flag.set()
    assert await later
    assert await flag.wait()


async def test_who_gives_up_is_forgotten() -> None:
    flag = Flag()
    gone, stays = (asyncio.create_task(flag.wait()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait((gone,))
    assert gone.cancelled()
    # Woken and cancelled in one turn of the loop.
    third = asyncio.create_task(flag.wait())
    await asyncio.sleep(0)
    flag.set()
    third.cancel()
    assert await stays
    await asyncio.wait((third,))
    flag.clear()
    again = asyncio.create_task(flag.wait())
    await asyncio.sleep(0)
    again.cancel()
    await asyncio.wait((again,))
    assert flag._waiting is None


async def test_it_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        flags = [Flag() for _ in range(1000)]
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / len(flags) < 80
