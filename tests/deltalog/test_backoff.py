"""Pauses grow, are spread and start again; a reason is said once while it lasts."""

from __future__ import annotations

from deltalog.jetstream.backoff import Backoff, Once


def test_pauses_double_up_to_the_last_one() -> None:
    backoff = Backoff(0.5, 10.0, jitter=0.0)
    assert [backoff.pause() for _ in range(7)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    backoff.reset()
    assert backoff.pause() == 0.5


def test_pauses_are_spread_in_both_directions() -> None:
    pauses = []
    for _ in range(300):
        pauses.append(Backoff(2.0, 10.0, jitter=0.5).pause())
    assert 1.0 <= min(pauses) < 1.5
    assert 2.5 < max(pauses) <= 3.0


async def test_waiting_takes_the_pauses() -> None:
    backoff = Backoff(0.001, 0.004, jitter=0.0)
    await backoff.wait()
    await backoff.wait()
    assert backoff.pause() == 0.004


def test_a_reason_is_said_once_until_it_changes_or_is_cleared() -> None:
    said: list[str] = []
    say = Once(said.append)
    for reason in ("full", "full", ValueError("away"), "away", "full"):
        say(reason)
    assert said == ["full", "away", "full"]
    say.clear()
    say("full")
    assert said == ["full", "away", "full", "full"]
