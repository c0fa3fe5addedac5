"""The owner record goes from the events: renewed before, an owner goes on; a deposed one stays refused for ever."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from deltalog import Appender, Conflict, Connection, Log, LogSettings, Record, connect, open_log
from deltalog.reader import read_to_end
from deltalog.wire import subjects
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import HealthChanged, decode_control
from deltalog.wire.subjects import control_subject, object_subject, type_prefix
from kubebraid.command.broker import EmbeddedBroker
from materializer.entry import object_key
from producers.follow.ownership import Deposed, append_control, release, renew, take
from producers.follow.renewal import Renewal
from producers.timing import ProducerTiming
from tests.ageing import forget_events
from tests.patience import PATIENCE
from tests.producers.conftest import Rig

OWNER = control_subject("alpha", subjects.OWNER)
PODS = type_prefix("alpha", "", "v1", "pods")
Opened = Callable[[], Awaitable[tuple[Log, Appender]]]


@pytest.fixture
async def opened(broker: EmbeddedBroker) -> AsyncIterator[Opened]:
    """Logs of the same stream with an appender each, as processes have them."""
    made: list[tuple[Connection, Appender]] = []

    async def another() -> tuple[Log, Appender]:
        connection = await connect(broker.url, name="test")
        log = await open_log(connection)
        appender = Appender.to(log)
        await appender.__aenter__()
        made.append((connection, appender))
        return log, appender

    yield another
    for connection, appender in made:
        await appender.__aexit__(None, None, None)
        await connection.close()


async def owners(log: Log) -> list[tuple[int, str]]:
    """Epoch and producer of the owner records that the log has."""
    found: list[tuple[int, str]] = []

    def note(record: Record) -> None:
        control = decode_control(record.data)
        found.append((control.epoch, control.producer))

    await read_to_end(log, note, subjects=(OWNER,))
    return found


async def test_an_owner_record_is_kept_for_ever_by_its_age(opened: Opened) -> None:
    log, appender = await opened()
    owner = await take(log, appender, "alpha", "p")
    assert "Nats-TTL: never" in await headers_at(log, owner.sequence)
    await renew(appender, owner)
    assert "Nats-TTL: never" in await headers_at(log, owner.sequence)
    await release(appender, owner)
    assert "Nats-TTL: never" in await headers_at(log, await log.head())


async def headers_at(log: Log, sequence: int) -> str:
    raw = await log.connection.api(f"STREAM.MSG.GET.{log.name}", {"seq": sequence})
    return base64.b64decode(json.loads(bytes(raw))["message"]["hdrs"]).decode()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_nothing_is_lost_twice_or_out_of_order_while_it_is_renewed(opened: Opened, seed: int) -> None:
    """Several writers append as fast as they can; the record is renewed again and again."""
    chance = random.Random(seed)
    log, appender = await opened()
    owner = await take(log, appender, "alpha", "p")
    stored: dict[str, list[int]] = {}
    refused: list[Exception] = []
    done = False

    async def write(name: str) -> None:
        number = 0

        def acknowledged(sequence: int, error: Exception | None) -> None:
            if error is not None:
                refused.append(error)
            else:
                stored.setdefault(name, []).append(sequence)

        while not done:
            subject = object_subject(PODS, "x", f"{name}-{number}")
            await appender.append(subject, b"", acknowledged, {}, owner.fence)
            number += 1
            if number % 50 == 0:
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for name in ("a", "b", "c"):
            tasks.create_task(write(name))
        for _ in range(20):
            await asyncio.sleep(chance.random() / 50)
            before = owner.sequence
            await renew(appender, owner)
            assert owner.sequence > before
        done = True
    async with asyncio.timeout(PATIENCE):
        await appender.drain()
    assert refused == []
    found: dict[str, list[str]] = {}

    def note(record: Record) -> None:
        name, _, number = record.subject.rpartition(".")[2].partition("-")
        found.setdefault(name, []).append(number)

    await read_to_end(log, note, subjects=(f"{subjects.OBJECTS}.>",))
    for name, sequences in stored.items():
        assert sequences == sorted(sequences)
        assert found[name] == [str(number) for number in range(len(sequences))]
    assert set(await owners(log)) == {(1, "p")}


async def test_a_renewed_owner_goes_on_when_the_first_record_has_gone(opened: Opened) -> None:
    log, appender = await opened()
    owner = await take(log, appender, "alpha", "p")
    first = owner.sequence
    await renew(appender, owner)
    await forget_events(log, first)
    await append_control(appender, owner, owner.control(HealthChanged(healthy=True)))


async def test_epochs_go_on_growing_where_the_record_is_lost_for_good(opened: Opened) -> None:
    log, appender = await opened()
    for _ in range(3):
        owner = await take(log, appender, "alpha", "p")
    await append_control(appender, owner, owner.control(HealthChanged(healthy=True)))
    await forget_events(log, owner.sequence)
    assert log.state_stream is not None
    await log.state_stream.purge(OWNER, owner.sequence + 1)
    assert (await take(log, appender, "alpha", "p")).epoch == 4


async def test_an_append_in_flight_is_refused_when_the_cluster_is_taken_meanwhile(opened: Opened) -> None:
    (log, appender), (other_log, other) = await opened(), await opened()
    owner = await take(log, appender, "alpha", "p")
    await take(other_log, other, "alpha", "q")
    with pytest.raises(Conflict):
        await appender.append_wait(object_subject(PODS, "x", "a"), b"", fence=owner.fence)
    with pytest.raises(Deposed):
        await renew(appender, owner)
    # What waited for the renewal is sent, and refused.
    with pytest.raises(Conflict):
        await appender.append_wait(object_subject(PODS, "x", "a"), b"", fence=owner.fence)


async def test_a_deposed_owner_whose_record_has_gone_is_refused(opened: Opened) -> None:
    """Its own has gone, then its successor's too: whatever the events have or not, it is never the one it expects."""
    (log, appender), (other_log, other) = await opened(), await opened()
    owner = await take(log, appender, "alpha", "p")
    successor = await take(other_log, other, "alpha", "q")
    await forget_events(log, owner.sequence)

    async def refused() -> None:
        with pytest.raises(Deposed):
            await append_control(appender, owner, owner.control(HealthChanged(healthy=True)))
        with pytest.raises(Deposed):
            await renew(appender, owner)
        with pytest.raises(Deposed):
            await release(appender, owner)

    await refused()
    await append_control(other, successor, successor.control(HealthChanged(healthy=True)))
    await forget_events(log, await log.head())
    await refused()
    assert await owners(log) == [(2, "q")]


async def test_a_cluster_is_taken_whose_record_has_gone_from_the_events(opened: Opened) -> None:
    (log, appender), (other_log, other) = await opened(), await opened()
    owner = await take(log, appender, "alpha", "p")
    await append_control(appender, owner, owner.control(HealthChanged(healthy=True)))
    await forget_events(log, await log.head())
    with pytest.raises(Deposed):
        await append_control(appender, owner, owner.control(HealthChanged(healthy=True)))
    successor = await take(other_log, other, "alpha", "q")
    assert (successor.epoch, await owners(log)) == (2, [(2, "q")])
    await append_control(other, successor, successor.control(HealthChanged(healthy=True)))
    with pytest.raises(Deposed):
        await append_control(appender, owner, owner.control(HealthChanged(healthy=False)))


async def test_it_is_renewed_in_the_older_half_of_the_events(opened: Opened) -> None:
    log, appender = await opened()
    owner = await take(log, appender, "alpha", "p")
    renewal = Renewal(log, appender, owner)
    assert not renewal.is_due(await log.state())
    for _ in range(20):
        await append_control(appender, owner, owner.control(HealthChanged(healthy=True)))
    assert renewal.is_due(await log.state()), "it is the first to go"
    await renewal.look(await log.state())
    assert owner.sequence == 22
    for _ in range(18):
        await append_control(appender, owner, owner.control(HealthChanged(healthy=True)))
    assert not renewal.is_due(await log.state()), "1 to 40"
    await forget_events(log, 10)
    assert renewal.is_due(await log.state()), "11 to 40"
    before = owner.sequence
    assert renewal.is_due(await log.state())
    await renewal.look(await log.state())
    assert owner.sequence == await log.head() > before
    assert not renewal.is_due(await log.state())


@pytest.mark.parametrize("renewed", [True, False])
async def test_a_producer_goes_on_while_the_events_are_full_again_and_again(rig: Rig, renewed: bool) -> None:
    """In its ownership where the record is renewed in time, in a new one where it went: nothing is lost."""
    rig.settings = LogSettings(events_bytes=3_000_000)
    rig.timing = ProducerTiming(look_at_history_every=0.05 if renewed else 1000.0)
    producer, _ = await rig.produce("pods", "configmaps")
    log = await open_log(await rig.connection("test"), rig.settings)
    informer = producer.clusters["alpha"].informers[GroupResource("", "pods")]
    first = await log.last(OWNER)
    assert first is not None
    path = "/api/v1/namespaces/default/configmaps"
    number = 0
    while (await log.events.state()).first_sequence < first[0] + 150:
        number += 1
        await rig.request("POST", path, {"metadata": {"name": f"large-{number}"}, "data": {"a": "x" * 40_000}})
        rig.cluster.churn.step(3)
        await asyncio.sleep(0.05)
    warm = await rig.materializer()
    await rig.settled(warm, "/api/v1/pods", "", "pods")
    await rig.settled(warm, "/api/v1/configmaps", "", "configmaps")
    epochs = {epoch for epoch, _ in await owners(log)}
    if renewed:
        assert epochs == {1}
        assert producer.clusters["alpha"].informers[GroupResource("", "pods")] is informer
        assert informer.relists == 1
        last = await log.events.last(OWNER)
        assert last is not None
        assert last[0] > first[0]
    else:
        assert max(epochs) > 1
    assert log.prefix == (await open_log(log.connection)).prefix, "the same history"


async def test_a_cluster_that_comes_back_is_read_again(rig: Rig) -> None:
    """Let go, as to another producer that dies afterwards, and taken again: its connections are made anew."""
    producer, _ = await rig.produce("configmaps")
    materializer = await rig.materializer()
    [cluster] = producer.held
    for turn in range(2):
        await producer._drop(cluster.name)
        assert cluster.server.closed
        name = f"back-{turn}"
        path = "/api/v1/namespaces/default/configmaps"
        await rig.request("POST", path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
        producer._take(cluster.name)
        async with asyncio.timeout(PATIENCE):
            store = materializer.store
            while store.types[GroupResource("", "configmaps")].get(cluster.name, object_key("default", name)) is None:
                await asyncio.sleep(0.05)
        assert cluster.unreachable is None
