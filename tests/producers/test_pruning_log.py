"""What an operator asks to prune leaves the log: also what was appended before it was asked."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from deltalog import DELETED, MODIFIED, Appender, Delta, Log, Record, decode_delta
from deltalog.reader import read_to_end
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import OBJECTS
from deltalog.wire.summary import parse_summary
from materializer.filter import Filter
from materializer.store import Store
from producers.follow.normalize import Normalizer
from producers.follow.ownership import take
from producers.follow.writer import Writer
from producers.rules.pruning import Pruning
from tests.ageing import state_at
from tests.patience import PATIENCE

SECRETS = ResourceType(group="", resource="secrets", version="v1", kind="Secret")
WITHOUT_DATA = Pruning(pointers=(("secrets", ("/data", "/type")),))
NEEDLE = "aHVudGVyMg=="


def secret(name: str, version: int, uid: str = "u") -> bytes:
    metadata = {
        "name": name,
        "namespace": "x",
        "uid": uid,
        "resourceVersion": str(version),
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": f'{{"data":{{"p":"{NEEDLE}"}}}}'},
    }
    body = {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "type": NEEDLE, "data": {"p": NEEDLE}}
    return json.dumps(body).encode()


class Producing:
    """Writers of the same cluster, one after the other, as restarts make them."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.stack = AsyncExitStack()

    async def writer(self, pruning: Pruning | None = None) -> Writer:
        appender = await self.stack.enter_async_context(Appender(self.log.connection))
        owner = await take(self.log, appender, "alpha", "p")
        writer = Writer(self.log, appender, owner, SECRETS, Normalizer("alpha", SECRETS, pruning))
        await writer.read_back()
        return writer

    async def records(self) -> list[Record]:
        """What the state has; the events keep what was before for a while."""
        found: list[Record] = []
        await state_at(self.log, await self.log.head())
        await read_to_end(self.log, found.append)
        return [record for record in found if record.subject.startswith(OBJECTS + ".")]

    async def deltas(self) -> dict[str, Delta]:
        return {delta.name: delta for delta in (decode_delta(record.data) for record in await self.records())}


@pytest.fixture
async def producing(log: Log) -> Any:
    made = Producing(log)
    async with asyncio.timeout(PATIENCE), made.stack:
        yield made


async def listed(writer: Writer, *items: bytes) -> None:
    seen = {key for item in items if (key := await writer.observe(item, listed=True)) is not None}
    await writer.delete_all_but(seen, "90")
    await writer.settle()


async def test_a_change_of_pruning_replaces_what_the_log_has(producing: Producing, log: Log) -> None:
    before = await producing.writer()
    await listed(before, *(secret(name, 5) for name in ("stays", "goes", "missed", "again")))
    await before.observe_deleted(secret("goes", 6))
    await before.observe_deleted(secret("again", 6))
    await before.settle()
    warm = Store(log.prefix, log.tombstone_ttl)
    for record in await producing.records():
        warm.apply_delta(decode_delta(record.data), record.sequence, record.time)

    after = await producing.writer(WITHOUT_DATA)
    # Its name is used again: the delta tells of the one that went.
    await listed(after, secret("stays", 5), secret("again", 8, "v"))
    records = await producing.records()
    assert not [record.subject for record in records if NEEDLE.encode() in record.data]
    assert not [record.subject for record in records if NEEDLE in json.dumps(record.headers)]
    deltas = await producing.deltas()
    assert (deltas["stays"].type, deltas["stays"].restored, deltas["stays"].member_version) == (MODIFIED, True, "5")
    assert deltas["stays"].fields == {}
    assert {name: deltas[name].type for name in ("goes", "missed")} == {"goes": DELETED, "missed": DELETED}
    assert deltas["again"].replaced is not None
    assert deltas["again"].replaced.fields == {}

    for record in records:
        warm.apply_delta(decode_delta(record.data), record.sequence, record.time)
    warm.check()
    shown = {entry.name: json.loads(entry.body) for entry in warm.types[GroupResource("", "secrets")].select(Filter())}
    assert {name: body["data"] for name, body in shown.items()} == {"stays": {"p": ""}, "again": {"p": ""}}

    same = await producing.writer(WITHOUT_DATA)
    await listed(same, secret("stays", 5), secret("again", 8, "v"))
    assert (same.counts.suppressed, same.counts.added, same.counts.modified, same.counts.deleted) == (2, 0, 0, 0)

    back = await producing.writer()
    await listed(back, secret("stays", 5), secret("again", 8, "v"))
    assert back.counts.modified == 2
    assert json.loads((await producing.deltas())["stays"].object)["data"] == {"p": NEEDLE}


async def test_only_pruned_objects_have_the_header_of_pruning(producing: Producing) -> None:
    usual = await producing.writer()
    await listed(usual, secret("a", 5))
    assert [set(record.headers or {}) & {"Kb-Pruned"} for record in await producing.records()] == [set()]
    pruning = await producing.writer(WITHOUT_DATA)
    await pruning.observe(secret("a", 6), listed=False)
    await pruning.observe_deleted(secret("a", 7))
    await pruning.settle()
    (record,) = await producing.records()
    summary = parse_summary(record.headers or {})
    assert summary is not None
    assert (summary.type, summary.pruned) == (DELETED, Normalizer("alpha", SECRETS, WITHOUT_DATA).mark)
    assert NEEDLE.encode() not in record.data


@pytest.mark.parametrize(("uid", "version"), [("a b", "7"), ("u\r\nNats-TTL: 1s", "-"), ("ü%41", "7\n"), ("", "")])
async def test_odd_uids_and_versions_are_read_back_as_they_are(producing: Producing, uid: str, version: str) -> None:
    metadata = {"name": "n", "namespace": "x", "uid": uid, "resourceVersion": version}
    raw = json.dumps({"metadata": metadata}).encode()
    await listed(await producing.writer(), raw)
    again = await producing.writer()
    await listed(again, raw)
    assert (again.counts.suppressed, again.counts.added) == (1, 0)
