"""What the materializer makes of each kind of message that a log may hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from deltalog import ADDED, DELETED, Appender, Delta, Log, encode_delta
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.subjects import control_subject, object_subject, type_prefix
from materializer.filter import Filter
from materializer.materializer import Materializer
from materializer.plain import LOADING_BYTES
from materializer.timing import DEFAULT, Timing
from tests.ageing import cut
from tests.patience import PATIENCE, eventually

PODS = type_prefix("alpha", "", "v1", "pods")
DELTA = Delta(
    type=ADDED,
    cluster="alpha",
    group="",
    version="v1",
    resource="pods",
    namespace="x",
    name="a",
    uid="u",
    member_version="7",
    time=1_700_000_000_000,
    producer="p",
    epoch=1,
    labels={"app": "web"},
    version_offset=44,
    metadata_end=55,
    object=b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{}}',
)


@pytest.fixture
async def materializer(log: Log, request: pytest.FixtureRequest) -> AsyncIterator[Materializer]:
    """One that runs, with the timing that a test is parametrized with."""
    made = Materializer(log, timing=getattr(request, "param", DEFAULT))
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def append(log: Log, *messages: tuple[str, bytes, dict[str, str]]) -> int:
    async with asyncio.timeout(PATIENCE), Appender(log.connection) as appender:
        for subject, payload, headers in messages:
            last = await appender.append_wait(subject, payload, headers)
    return last


@pytest.mark.parametrize("following", [False, True], ids=["first replay", "following"])
async def test_markers_and_what_nobody_can_read_are_passed_over(
    log: Log, materializer: Materializer, following: bool
) -> None:
    if following:
        async with asyncio.timeout(PATIENCE):
            await materializer.ready.wait()
    broken = encode_delta(DELTA)[:40]
    newer = encode_delta(msgspec.structs.replace(DELTA, v=2))
    last = await append(
        log,
        (object_subject(PODS, "x", "a"), encode_delta(DELTA), {}),
        (object_subject(PODS, "x", "gone"), b"", {"Nats-Marker-Reason": "MaxAge"}),
        (object_subject(PODS, "x", "empty"), b"", {}),
        (object_subject(PODS, "x", "broken"), broken, {"Kb": "ADDED u 1 0 0"}),
        (object_subject(PODS, "x", "newer"), newer, {}),
        (object_subject(PODS, "x", "b"), encode_delta(msgspec.structs.replace(DELTA, name="b", uid="w")), {}),
    )
    await materializer.wait_applied(last, PATIENCE)
    async with asyncio.timeout(PATIENCE):
        await materializer.ready.wait()
    assert materializer.unreadable == 3
    assert materializer.replayed == last
    store = materializer.store
    store.check()
    found = store.types[GroupResource("", "pods")].select(Filter())
    assert [entry.name for entry in found] == ["a", "b"]
    assert found[0].labels == {"app": "web"}
    gone = msgspec.structs.replace(DELTA, type=DELETED, member_version="8", uid_index=found[0].uid_index)
    last = await append(log, (object_subject(PODS, "x", "a"), encode_delta(gone), {}))
    await materializer.wait_applied(last, PATIENCE)
    store.check()
    assert [entry.name for entry in store.types[GroupResource("", "pods")].select(Filter())] == ["b"]


async def test_control_records_whose_data_cannot_be_are_passed_over(log: Log, materializer: Materializer) -> None:
    def record(kind: str, resource: str = "", /, **data: object) -> tuple[str, bytes, dict[str, str]]:
        found = {"v": 1, "record": kind, "cluster": "alpha", "group": "", "resource": resource, "data": data}
        found |= {"time": 1_700_000_000_000, "producer": "p", "epoch": 1}
        subject = control_subject("alpha", kind, *(("", resource) if resource else ()))
        return subject, msgspec.msgpack.encode(found), {}

    last = await append(
        log,
        record("status", every="30s"),
        record("type", "odd", kind=[]),
        record("type", "pods", version="v1", kind="Pod"),
        (object_subject(PODS, "x", "a"), encode_delta(DELTA), {}),
    )
    await materializer.wait_applied(last, PATIENCE)
    assert materializer.unreadable == 2
    assert materializer.store.clusters["alpha"].types[GroupResource("", "pods")].kind == "Pod"
    assert len(materializer.store.types[GroupResource("", "pods")].select(Filter())) == 1


async def test_messages_of_others_hide_no_cut(log: Log, materializer: Materializer) -> None:
    names = [chr(letter) for letter in range(ord("a"), ord("k"))]
    await append(
        log,
        ("kb.somebody", b"else", {}),
        (object_subject(PODS, "x", "newer"), encode_delta(msgspec.structs.replace(DELTA, v=2)), {}),
        *[
            (object_subject(PODS, "x", name), encode_delta(msgspec.structs.replace(DELTA, name=name, uid=name)), {})
            for name in names
        ],
    )
    async with asyncio.timeout(PATIENCE):
        await materializer.ready.wait()
    delta = msgspec.structs.replace(DELTA, name="last", uid="last")
    last = await append(log, (object_subject(PODS, "x", "last"), encode_delta(delta), {}))
    await materializer.wait_applied(last, PATIENCE)
    prefix = materializer.store.prefix
    await cut(log, object_subject(PODS, "x", "c"), last + 1)
    async with asyncio.timeout(PATIENCE):
        while materializer.store.prefix == prefix or not materializer.ready.is_set():
            await asyncio.sleep(0.05)
    assert len(materializer.store.types[GroupResource("", "pods")].select(Filter())) == len(names)


@pytest.mark.parametrize("materializer", [Timing(rest_factor=1e9, longest_rest=4.0)], indirect=True, ids=["long rests"])
async def test_listeners_that_take_long_are_told_of_several_changes_together(
    log: Log, materializer: Materializer
) -> None:
    """And of the last one always; who waits for an index waits for none of them."""
    async with asyncio.timeout(PATIENCE):
        await materializer.ready.wait()
    told: list[int] = []
    stop = materializer.listen(GroupResource("", "pods"), lambda: told.append(materializer.store.applied))
    first = 0
    async with asyncio.timeout(PATIENCE), Appender(log.connection) as appender:
        for number in range(30):
            delta = msgspec.structs.replace(DELTA, name=f"n{number}", uid=f"u{number}")
            subject = object_subject(PODS, "x", delta.name)
            last = await appender.append_wait(subject, encode_delta(delta), {})
            await materializer.wait_applied(last, PATIENCE)
            first = first or last
        while not told or told[-1] != last:
            await asyncio.sleep(0.01)
    assert told[0] == first
    assert told == sorted(set(told))
    # Two, if those thirty were appended within four seconds; none waits for more than a minute.
    assert len(told) < 25
    stop()


async def test_what_the_first_replay_left_plain_is_packed_when_it_is_over(log: Log) -> None:
    """Without another message of the log."""
    names = [f"a{number}" for number in range(24)]
    bodies = [DELTA.object[:-1] + b',"status":"%b"}' % (name.encode() * 30_000) for name in names]
    deltas = [
        msgspec.structs.replace(DELTA, name=name, uid=name, object=body)
        for name, body in zip(names, bodies, strict=True)
    ]
    last = await append(log, *((object_subject(PODS, "x", one.name), encode_delta(one), {}) for one in deltas))
    made = Materializer(log)
    assert made.store.plain.limit == LOADING_BYTES
    running = asyncio.create_task(made.run())
    try:
        await made.wait_applied(last, PATIENCE)
        async with asyncio.timeout(PATIENCE):
            await made.ready.wait()
        plain = made.store.plain
        assert plain.limit < sum(map(len, bodies)) / 1.5
        await eventually(lambda: not plain.out and plain.size <= plain.limit)
        made.store.check()
        assert made.store.types[GroupResource("", "pods")].saved > 0
        found = made.store.types[GroupResource("", "pods")].live()
        assert sorted(entry.rest for entry in found) == sorted(body[DELTA.version_offset :] for body in bodies)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
