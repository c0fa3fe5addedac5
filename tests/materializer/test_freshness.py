"""How old what is served may be: who last said that all of the log is here."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from materializer.freshness import Freshness
from materializer.timing import Timing

SILENT = Timing(unheard=7.0, origin_unheard=12.0)


def freshness(*, mirror: bool = False, heard: float = 0.0, origin: float = 0.0, current: float = 0.0) -> Freshness:
    """The reader heard of the log, a mirror of its origin, and a consistent read was had so many seconds ago."""
    served = SimpleNamespace(log=SimpleNamespace(mirror=mirror), snapshot_only=False)
    made = Freshness(cast(Any, served), SILENT)
    now = time.monotonic()
    made.reader = cast(Any, SimpleNamespace(heard=now - heard))
    made.origin_heard, made.current_at = now - origin, now - current
    return made


def test_a_log_that_is_heard_of_is_current() -> None:
    assert freshness(heard=2, current=3600).outage_seconds() is None
    assert freshness(mirror=True, heard=2, origin=5, current=3600).outage_seconds() is None


@pytest.mark.parametrize(("mirror", "heard", "origin"), [(False, 8, 0), (True, 8, 0), (True, 1, 13)])
def test_silence_is_an_outage_of_its_own_length(mirror: bool, heard: float, origin: float) -> None:
    out = freshness(mirror=mirror, heard=heard, origin=origin, current=3600).outage_seconds()
    assert out == pytest.approx(max(heard, origin), abs=1)


@pytest.mark.parametrize(("heard", "origin"), [(8, 0), (1, 13), (3600, 3600)])
def test_a_consistent_read_ends_silence_before_the_next_look(heard: float, origin: float) -> None:
    """It asked the log, and of a mirror the origin: nobody can be told in its answer that they cannot be reached."""
    assert freshness(mirror=True, heard=heard, origin=origin, current=0.1).outage_seconds() is None


def test_what_cannot_be_read_is_an_outage_until_it_is_read() -> None:
    made = freshness(heard=1, current=1)
    made.unreadable_since = time.time()
    assert made.outage_seconds() == pytest.approx(1, abs=1)
