"""What the real writer appends to a real log, taken in by an instance that follows and by one that starts later."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deltalog import Appender, Log, Reader, Record, decode_control, decode_delta
from deltalog.wire.kubernetes import GroupResource, object_key
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import CONTROL
from materializer.filter import Filter
from materializer.store import Store
from producers.follow.normalize import Normalizer
from producers.follow.ownership import take
from producers.follow.writer import Writer
from tests.patience import PATIENCE

PODS = ResourceType(group="", resource="pods", version="v1", kind="Pod")
Shown = dict[str, tuple[int, str, str, Any]]


def pod(name: str, uid: str, version: int, labels: dict[str, str]) -> bytes:
    metadata = {"name": name, "namespace": "x", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return json.dumps({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"of": version}}).encode()


async def taken_in(store: Store, log: Log, after: int = 0) -> Store:
    """The store with all that the log holds past a sequence."""

    def apply(record: Record) -> None:
        if record.subject.startswith(CONTROL + "."):
            store.apply_control(decode_control(record.data), record.sequence, record.time)
        else:
            store.apply_delta(decode_delta(record.data), record.sequence, record.time)

    async with asyncio.timeout(PATIENCE):
        await Reader(log, apply, after=after, stop_when_caught_up=True).run()
    store.finish_loading((await log.state()).last_time)
    store.check()
    return store


def state(store: Store) -> Shown:
    type_store = store.types.get(GroupResource("", "pods"))
    found = [] if type_store is None else type_store.select(Filter())
    return {entry.name: (entry.index, entry.uid, entry.member_version, json.loads(entry.body)) for entry in found}


@pytest.fixture
async def writer(log: Log) -> AsyncIterator[Writer]:
    async with Appender(log.connection) as appender:
        owner = await take(log, appender, "alpha", "p")
        yield Writer(log, appender, owner, PODS, Normalizer("alpha", PODS))


async def test_both_serve_the_state_of_a_cluster_restored_from_a_backup(log: Log, writer: Writer) -> None:
    """A list is right even if its versions are older than the log's: docstring of Writer.observe."""
    warm = Store(log.prefix, log.tombstone_ttl)
    await writer.observe(pod("n", "u", 90, {"app": "a"}), listed=True)
    await writer.settle()
    await taken_in(warm, log)
    await writer.observe(pod("n", "u", 50, {"app": "b"}), listed=True)
    await writer.settle()
    await taken_in(warm, log, warm.applied)
    cold = await taken_in(Store(log.prefix, log.tombstone_ttl), log)
    assert state(cold)["n"][2] == "50"
    assert state(warm) == state(cold)


@pytest.mark.parametrize("seed", range(3))
async def test_an_instance_that_follows_and_one_that_starts_later_agree(log: Log, writer: Writer, seed: int) -> None:
    chance = random.Random(seed)
    lives: dict[str, tuple[str, int, dict[str, str]]] = {}
    warm = Store(log.prefix, log.tombstone_ttl)
    version = 0
    for _ in range(12):
        for _ in range(15):
            version += 1
            name = chance.choice("abcde")
            labels = chance.choice(({}, {"app": "a"}, {"app": "b"}))
            what = chance.random()
            if name in lives and what < 0.3:
                uid, _, before = lives.pop(name)
                await writer.observe_deleted(pod(name, uid, version, before))
            elif name in lives and what < 0.8:
                lives[name] = (lives[name][0], version, labels)
                await writer.observe(pod(name, *lives[name]), listed=False)
            else:
                lives[name] = (f"u{version}", version, labels)
                await writer.observe(pod(name, *lives[name]), listed=False)
        if chance.random() < 0.5:
            # Some go unseen; the next list misses them.
            for name in [name for name in lives if chance.random() < 0.4]:
                del lives[name]
            version += 1
            seen = {object_key("x", name) for name in lives}
            for name, one in lives.items():
                await writer.observe(pod(name, *one), listed=True)
            await writer.delete_all_but(seen, str(version))
        await writer.settle()
        if chance.random() < 0.3:
            await writer.read_back()
        await taken_in(warm, log, warm.applied)
        cold = await taken_in(Store(log.prefix, log.tombstone_ttl), log)
        assert {name: (uid, str(of)) for name, (uid, of, _) in lives.items()} == {
            name: shown[1:3] for name, shown in state(warm).items()
        }
        assert state(warm) == state(cold)
        for key, entry in warm.types[GroupResource("", "pods")].clusters["alpha"].items():
            other = cold.types[GroupResource("", "pods")].clusters["alpha"][key]
            assert (entry.uid_index, entry.oldest_uid_index) == (other.uid_index, other.oldest_uid_index)
            assert (entry.replaced and entry.replaced.uid) == (other.replaced and other.replaced.uid)
