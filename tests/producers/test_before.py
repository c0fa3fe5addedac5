"""What a delta tells of the state before it, for selectors: exactly the last message of its object, over a real log."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from deltalog import (
    ADDED,
    DELETED,
    MODIFIED,
    UNCHANGED,
    Appender,
    Connection,
    Delta,
    Log,
    Reader,
    Selectables,
    decode_delta,
    encode_delta,
    open_log,
)
from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import OBJECTS, object_subject, type_prefix
from deltalog.wire.summary import summary_headers
from producers.follow.normalize import Normalizer
from producers.follow.ownership import Owner, take
from producers.follow.writer import Writer
from producers.rules.pruning import Pruning
from tests.ageing import cut

PODS = ResourceType(group="", resource="pods", version="v1", kind="Pod")


def pod(name: str, version: int, *, uid: str = "u", phase: str = "Running", owner: str = "", **labels: str) -> bytes:
    metadata: dict[str, Any] = {"name": name, "namespace": "x", "uid": uid, "resourceVersion": str(version)}
    if labels:
        metadata["labels"] = labels
    if owner:
        metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "R", "name": "r", "uid": owner, "controller": True}]
    body = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "status": {"phase": phase}}
    return json.dumps(body).encode()


class Producing:
    """Writers of one cluster over a log that keeps every message, one after the other as restarts make them."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.stack = AsyncExitStack()
        self.appender: Appender
        self.owner: Owner

    async def writer(self, pruning: Pruning | None = None, window: int = 1024) -> Writer:
        self.appender = await self.stack.enter_async_context(Appender(self.log.connection, window=window))
        self.owner = await take(self.log, self.appender, "alpha", "p")
        writer = Writer(self.log, self.appender, self.owner, PODS, Normalizer("alpha", PODS, pruning))
        await writer.read_back()
        return writer

    async def deltas(self) -> list[Delta]:
        found: list[Delta] = []

        def take_in(record: Any) -> None:
            if record.subject.startswith(OBJECTS + "."):
                found.append(decode_delta(record.data))

        await Reader(self.log, take_in, stop_when_caught_up=True).run()
        return found


@pytest.fixture
async def producing(connection: Connection) -> AsyncIterator[Producing]:
    producing = Producing(await open_log(connection))
    async with producing.stack:
        yield producing


@pytest.fixture
def asked(producing: Producing, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The subjects whose last messages the log was asked for."""
    subjects: list[str] = []
    last = producing.log.events.last

    async def noted(subject: str) -> tuple[int, bytes] | None:
        if subject.startswith(OBJECTS + "."):
            subjects.append(subject)
        return await last(subject)

    monkeypatch.setattr(producing.log.events, "last", noted)
    return subjects


def looks(delta: Delta) -> Selectables:
    return Selectables(delta.labels, delta.fields, delta.controller_uid)


def exactly_what_was(deltas: list[Delta]) -> dict[str, int]:
    """Each delta's `was` is the message before of its uid; how many had which."""
    last: dict[str, Delta] = {}
    count = {"added": 0, "unchanged": 0, "changed": 0}
    for delta in deltas:
        before = last.get(delta.name)
        if delta.type == ADDED:
            assert delta.was is None
            count["added"] += 1
        else:
            assert before is not None
            assert before.uid == delta.uid
            if looks(before) == looks(delta):
                assert delta.was is UNCHANGED
                count["unchanged"] += 1
            else:
                assert delta.was == looks(before)
                count["changed"] += 1
        last[delta.name] = delta
    return count


@pytest.mark.parametrize(("seed", "window"), [(1, 1024), (2, 1024), (3, 2), (4, 2)])
async def test_every_delta_says_what_was(producing: Producing, seed: int, window: int) -> None:
    """Whatever changes, by watch or list, in flight or acknowledged, before and after restarts and failures."""
    chance = random.Random(seed)
    version = 1000
    writer = await producing.writer(window=window)
    names = [f"p{number}" for number in range(12)]
    uids = dict.fromkeys(names, 0)

    def some(name: str) -> bytes:
        nonlocal version
        version += 1
        labels = {"app": chance.choice("aaab")} if chance.random() < 0.8 else {}
        phase, owner = chance.choice(["Pending", *3 * ["Running"]]), chance.choice(["", "", "o"])
        return pod(name, version, uid=f"{name}-{uids[name]}", phase=phase, owner=owner, **labels)

    for _ in range(40):
        for name in chance.choices(names, k=chance.randrange(1, 20)):
            if chance.random() < 0.15:
                await writer.observe_deleted(some(name))
                uids[name] += 1
            elif chance.random() < 0.1:
                uids[name] += 1
                await writer.observe(some(name), listed=False)
            else:
                await writer.observe(some(name), listed=chance.random() < 0.3)
        chosen = chance.random()
        if chosen < 0.1:
            writer = await producing.writer(window=window)
        elif chosen < 0.2:
            await writer.read_back()
        elif chosen < 0.3:
            await writer.settle()
        elif chosen < 0.35:
            await writer.delete_all_but({key for key in writer._known if chance.random() < 0.8}, str(version))
    await writer.settle()
    count = exactly_what_was(await producing.deltas())
    assert min(count.values()) > 20


async def test_the_log_is_asked_only_for_what_changed_and_is_not_remembered(
    producing: Producing, asked: list[str]
) -> None:
    writer = await producing.writer(window=8)
    for number in range(30):
        await writer.observe(pod(f"p{number}", 1, app="web"), listed=True)
    # In flight still: nothing can be asked for.
    await writer.observe(pod("p29", 2, app="api"), listed=False)
    await writer.settle()
    for number in range(30):
        await writer.observe(pod(f"p{number}", 3, app="api" if number == 29 else "web"), listed=False)
    assert asked == []
    await writer.observe(pod("p0", 4, app="api"), listed=False)
    prefix = type_prefix("alpha", "", "v1", "pods")
    assert asked == [object_subject(prefix, "x", "p0")], "8 to 16 appends are remembered, 29 came after it"
    writer = await producing.writer()
    del asked[:]
    await writer.observe(pod("p1", 5, app="web"), listed=False)
    assert asked == [], "its digest was read back"
    await writer.observe(pod("p2", 5, app="other"), listed=False)
    assert asked == [object_subject(prefix, "x", "p2")]
    await writer.settle()
    exactly_what_was(await producing.deltas())


async def test_messages_of_an_older_release_are_asked_for(producing: Producing, asked: list[str]) -> None:
    writer = await producing.writer()
    await writer.observe(pod("a", 1, app="web"), listed=True)
    await writer.observe(pod("b", 1, app="web"), listed=True)
    await writer.settle()
    prefix = type_prefix("alpha", "", "v1", "pods")
    for delta in await producing.deltas():
        # As it wrote them: without a digest.
        subject, headers = object_subject(prefix, "x", delta.name), summary_headers(delta)
        await producing.appender.append_wait(subject, encode_delta(delta), headers, producing.owner.fence)
    await writer.read_back()
    await writer.observe(pod("a", 2, app="web"), listed=False)
    await writer.observe(pod("b", 2, app="api"), listed=False)
    await writer.observe(pod("b", 3, app="api"), listed=False)
    await writer.settle()
    assert len(asked) == 2
    found = [(one.name, one.was) for one in await producing.deltas() if one.type == MODIFIED]
    assert found == [
        ("a", UNCHANGED),
        ("b", Selectables({"app": "web"}, {"status.phase": "Running", "spec.hostNetwork": "false"}, "")),
        ("b", UNCHANGED),
    ]


async def test_what_the_log_has_lost_is_not_known(producing: Producing) -> None:
    writer = await producing.writer()
    for name in ("a", "b"):
        await writer.observe(pod(name, 1, app="web"), listed=True)
    await writer.settle()
    writer = await producing.writer()
    await cut(
        producing.log, object_subject(type_prefix("alpha", "", "v1", "pods"), "x", "a"), await producing.log.head() + 1
    )
    for name in ("a", "b"):
        await writer.observe(pod(name, 2, app="api"), listed=False)
    await writer.settle()
    changed = {one.name: one.was for one in await producing.deltas() if one.type == MODIFIED}
    assert changed["a"] is None
    assert changed["b"] is not None
    assert changed["b"].labels == {"app": "web"}


async def test_a_deletion_says_what_was_where_its_state_is_another(producing: Producing) -> None:
    writer = await producing.writer()
    for name in ("same", "other", "missed"):
        await writer.observe(pod(name, 1, app="web"), listed=True)
    await writer.observe_deleted(pod("same", 2, app="web"))
    await writer.observe_deleted(pod("other", 3, app="api"))
    await writer.delete_all_but(set(), "4")
    await writer.settle()
    gone = {one.name: one for one in await producing.deltas() if one.type == DELETED}
    assert gone["same"].was is UNCHANGED
    assert gone["missed"].was is UNCHANGED
    assert gone["other"].labels == {"app": "api"}
    assert gone["other"].was is not None
    assert gone["other"].was.labels == {"app": "web"}


async def test_what_is_pruned_now_is_not_in_what_was(producing: Producing) -> None:
    writer = await producing.writer()
    await writer.observe(pod("a", 1, phase="NEEDLE", app="web"), listed=True)
    await writer.settle()
    writer = await producing.writer(Pruning(pointers=(("pods", ("/status",)),)))
    await writer.observe(pod("a", 2, phase="NEEDLE", app="api"), listed=True)
    await writer.settle()
    last = (await producing.deltas())[-1]
    assert last.was == Selectables({"app": "web"}, {"spec.hostNetwork": "false"}, "")
    assert b"NEEDLE" not in encode_delta(last)
