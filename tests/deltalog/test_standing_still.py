"""What one server says that stood still, in a cluster that went on without it, ends no history and marks no gap."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from deltalog import Connection, HistoryChanged, Log, open_log
from deltalog.history import History, Mark, Probe
from deltalog.jetstream.same_history import Progress, why_not_continued
from deltalog.place import Place, locate
from deltalog.state_keeper import StateKeeper
from tests.ageing import cut, forget_events, kept, state_at
from tests.standing_still import StoodStill

Put = Callable[..., Awaitable[int]]


@pytest.fixture
async def other(connecting: Callable[[], Awaitable[Connection]], log: Log) -> Log:
    """The same log over a connection of its own, on which a server may have stood still."""
    return await open_log(await connecting())


async def progress(log: Log) -> Progress:
    """All that the log has now, read."""
    state = await log.state()
    return Progress(state.last_sequence, state.last_time, state.last_time)


async def test_a_log_that_was_served_further_is_the_same_history(log: Log, other: Log, put: Put) -> None:
    for name in "abc":
        await put(name)
    still = StoodStill(other.connection)
    await still.note(f"STREAM.INFO.{log.name}")
    await put("d")
    assert await why_not_continued(other, await progress(log)) is None
    assert still.told == 1
    # Where it stays so, the end was lost.
    await still.note(f"STREAM.INFO.{log.name}", times=3)
    await put("e")
    reason = await why_not_continued(other, await progress(log))
    assert reason == "the stream ends at 4, 5 was applied"


async def test_a_mark_s_messages_were_not_cut_out(log: Log, other: Log, put: Put) -> None:
    for name in "abc":
        await put(name)
    still = StoodStill(other.connection)
    await state_at(log, 3)
    for name in (log.name, f"{log.name}_STATE"):
        await still.note(f"STREAM.MSG.GET.{name}", {"seq": 4})
        await still.note(f"STREAM.MSG.GET.{name}", {"last_by_subj": "kb.alpha.*.*.pods.x.d"})
    await put("d")
    await state_at(log, 4)
    at = await progress(log)
    probe = Probe(4, "kb.alpha.*.*.pods.x.d")
    mark = Mark(log.created, log.prefix, 4, at.time, at.latest, probes=(probe,))
    await History(log).mark(mark)
    assert await History(other).why_not_served() is None
    assert still.told == 4
    await cut(log, "kb.alpha.*.*.pods.x.d", 5)
    await put("e")
    assert await History(other).why_not_served() == "message 4 (kb.alpha.*.*.pods.x.d) was cut out"


async def test_what_was_cut_out_and_is_appended_again_was_cut_out(
    log: Log, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer begins to do so at once, while it is being asked again."""
    for name in "abc":
        await put(name)
    await state_at(log, 3)
    at = await progress(log)
    probe = Probe(3, "kb.alpha.*.*.pods.x.c")
    await History(log).mark(Mark(log.created, log.prefix, 3, at.time, at.latest, probes=(probe,)))
    await cut(log, "kb.alpha.*.*.pods.x.c", 4)
    await put("d")
    found, looks = log.last, 0

    async def looked(subject: str) -> tuple[int, bytes] | None:
        nonlocal looks
        looks += 1
        if looks == 2:
            await put("c")
        return await found(subject)

    monkeypatch.setattr(log, "last", looked)
    assert await History(log).why_not_served() == "message 3 (kb.alpha.*.*.pods.x.c) was cut out"
    assert looks == 3


async def test_a_consumer_goes_on_from_its_place(log: Log, other: Log, put: Put) -> None:
    await put("a")
    still = StoodStill(other.connection)
    await still.note(f"STREAM.INFO.{log.name}")
    await put("b")
    place = Place(log.prefix, 2, (await progress(log)).time)
    found = await locate(other, place, await other.state())
    assert found.place == place
    assert still.told == 1
    with pytest.raises(HistoryChanged, match="the stream ends at 2, 3 was applied"):
        await locate(other, Place(log.prefix, 3, place.time + 1), await other.state())


async def test_a_state_that_is_about_to_copy_a_message_has_no_gap(
    log: Log, put: Put, connecting: Callable[[], Awaitable[Connection]]
) -> None:
    for name in "abc":
        await put(name)
    await state_at(log, 3)
    connection = await connecting()
    still = StoodStill(connection)
    # As it is where the mirror copies message 4 a moment later.
    await still.note(f"STREAM.INFO.{log.name}_STATE", times=2)
    await still.note(f"STREAM.MSG.GET.{log.name}", {"seq": 4})
    await put("d")
    await StateKeeper(connection, log.name).look()
    assert still.told == 3
    assert (await kept(log)).lacks_to == 0
    # Where the events have forgotten it, it has one.
    await still.note(f"STREAM.INFO.{log.name}_STATE", times=2)
    await put("e")
    await put("f")
    await forget_events(log, 5)
    await StateKeeper(connection, log.name).look()
    assert (await kept(log)).lacks_to == 6
