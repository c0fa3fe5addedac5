"""What a writer waits for: acknowledgements of its appends; and what outranks lists and watches for a while."""

from __future__ import annotations

import asyncio

from deltalog.wire.kubernetes import object_key
from producers.follow.handed_over import HandedOver
from producers.follow.in_flight import InFlight

A, B = object_key("shop", "a"), object_key("shop", "b")


async def test_all_that_was_sent_before_is_waited_for_and_nothing_later() -> None:
    flight = InFlight()
    flight.begin(A)
    flight.begin(None)
    waiting = asyncio.create_task(flight.all_sent())
    await asyncio.sleep(0)
    flight.begin(B)
    flight.end(A)
    await asyncio.sleep(0)
    assert not waiting.done()
    flight.end(None)
    await waiting
    quiet = asyncio.create_task(flight.none())
    await asyncio.sleep(0)
    assert not quiet.done()
    flight.end(B)
    await quiet
    assert flight.sent == 3
    await flight.all_sent()


async def test_an_objects_sequence_is_waited_for() -> None:
    flight = InFlight()
    await flight.sequence_of(A)
    flight.begin(A)
    flight.begin(B)
    waiting = [asyncio.create_task(flight.sequence_of(A)) for _ in range(2)]
    other = asyncio.create_task(flight.sequence_of(B))
    await asyncio.sleep(0)
    flight.end(A)
    await asyncio.gather(*waiting)
    assert not other.done()
    flight.end(B)
    await other


async def test_one_that_stops_waiting_does_not_hinder_the_others() -> None:
    flight = InFlight()
    flight.begin(A)
    tasks = [asyncio.create_task(flight.all_sent()) for _ in range(2)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    flight.end(A)
    await tasks[1]


def test_what_was_handed_over_outranks_what_is_older() -> None:
    handed = HandedOver(3600.0)
    assert not handed.versions
    handed.note(A, "10")
    assert handed.versions
    assert handed.names() == {A}
    assert handed.outranks(A, "9")
    assert not handed.outranks(B, "9")
    assert not handed.outranks(A, "10"), "the watch has come to it"
    assert not handed.outranks(A, "9"), "it counts until then"
    handed.note(A, "10")
    assert not handed.outranks(A, "11")
    assert not handed.versions


def test_it_counts_for_a_while_only() -> None:
    handed = HandedOver(-1.0)
    handed.note(A, "10")
    assert not handed.outranks(A, "9")
    handed.note(A, "10")
    assert handed.names() == set()
