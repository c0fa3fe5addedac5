"""Watches of collections: written once for all who watch alike, ended with a type, expired, and of what may be seen."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from deltalog.wire.subjects import REMOVED
from materializer.cursor import ShownChange
from query.objects.representations import Encoder
from tests.patience import PATIENCE
from tests.query.access.guarded import DISCOVERY, World, rule
from tests.query.scene import Answers
from tests.query.test_collections import ALL, ROOT, TABLE, TYPES, fleet, told

METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


async def lines(ask: Answers, path: str, accept: str = "application/json") -> AsyncIterator[dict[str, Any]]:
    async with ask.session.get(ask.url + path, headers={"Accept": accept}) as answer:
        assert answer.status == 200, await answer.text()
        async for line in answer.content:
            yield json.loads(line)


async def taken(stream: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(PATIENCE):
        return [await anext(stream) for _ in range(count)]


async def test_what_watchers_of_one_collection_see_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: Counter[object] = Counter()
    events = Encoder.events

    def counted(self: Encoder, changes: Sequence[ShownChange], **more: Any) -> bytes:
        written[self.form] += len(changes)
        return events(self, changes, **more)

    monkeypatch.setattr(Encoder, "events", counted)
    made = fleet()
    async with made.serving() as ask:
        query = f"groups=*&watch=1&resourceVersion=abcdefgh.{made.index}&allowWatchBookmarks=true"
        forms = ["application/json"] * 6 + [TABLE] * 4 + [METADATA] * 3
        streams = [lines(ask, f"{ROOT}/any?{query}", form) for form in forms]
        # The same types and objects by another name are not the same watch; what is written is.
        streams += [lines(ask, f"{ROOT}/any?{query}&labelSelector=app%3Dnew") for _ in range(3)]
        for stream in streams:
            assert (await taken(stream, 1))[0]["type"] == "BOOKMARK"
        for at in range(40):
            labels = {"app": "new" if at % 4 == 0 else "old"}
            made.one(list(TYPES)[at % 4], f"new-{at}", namespace="web", labels=labels)
        made.tell()
        for stream, form in zip(streams[:13], forms, strict=True):
            found = await taken(stream, 40)
            if form == "application/json":
                assert [one["object"]["metadata"]["name"] for one in found] == [f"new-{at}" for at in range(40)]
        for stream in streams[13:]:
            names = [one["object"]["metadata"]["name"] for one in await taken(stream, 10)]
            assert names == [f"new-{at}" for at in range(0, 40, 4)]
        assert sorted(written.values()) == [40, 40, 50]
        for stream in streams:
            await stream.aclose()  # type: ignore[attr-defined]


async def test_a_type_that_goes_everywhere() -> None:
    made = fleet()
    begin = made.index
    sets = [one for one in ALL if one[0] == "StatefulSet"]
    async with made.serving() as ask:
        root = f"{ROOT}/any?groups=*&watch=1&resourceVersion="
        stream = lines(ask, f"{root}abcdefgh.{begin}&allowWatchBookmarks=true")
        await taken(stream, 1)
        made.control(REMOVED, "alpha", "statefulsets", "apps")
        made.tell()
        # In one cluster it goes on.
        seen = await taken(stream, 2)
        made.one("ships", "late", namespace="web")
        made.tell()
        seen += await taken(stream, 1)
        made.control(REMOVED, "bravo", "statefulsets", "apps")
        made.tell()
        # Then it ends, without an error, once it has told so.
        async with asyncio.timeout(PATIENCE):
            seen += [one async for one in stream]
        deleted = [one for one in seen if one["type"] == "DELETED"]
        assert [told(one) for one in deleted] == [("DELETED", *one) for one in sets]
        assert told(seen[2]) == ("ADDED", "Ship", "alpha", "late")
        last = seen[-1]["object"]["metadata"]["resourceVersion"]
        # From there on it goes on with the others.
        made.one("pods", "later", namespace="web")
        made.tell()
        again = lines(ask, f"{root}{last}")
        assert told((await taken(again, 1))[0]) == ("ADDED", "Pod", "alpha", "later")
        await again.aclose()  # type: ignore[attr-defined]
        # Who had them, and was not told, lists again.
        [error] = await ask.events(f"{root}abcdefgh.{begin}")
        assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert "statefulsets.apps" in error["object"]["message"]
        assert "StatefulSet" not in {one["kind"] for one in (await ask.json(f"{ROOT}/any?groups=*"))["resourceTypes"]}


async def test_a_version_before_what_was_forgotten() -> None:
    made = fleet()
    begin = made.index
    made.one("ships", "one", "DELETED", namespace="web")
    forgotten = made.index
    made.store.forget(10**19)
    made.one("pods", "late", namespace="web")
    async with made.serving() as ask:
        # Of whichever type it was.
        for types in ("groups=*", "resources=pods,apps/deployments"):
            path = f"{ROOT}/any?{types}&watch=1&timeoutSeconds=1&resourceVersion=abcdefgh."
            [error] = await ask.events(f"{path}{begin}")
            assert (error["type"], error["object"]["code"], error["object"]["reason"]) == ("ERROR", 410, "Expired")
            assert error["object"]["message"].startswith("too old resource version: abcdefgh.")
            assert [told(one) for one in await ask.events(f"{path}{forgotten}")] == [("ADDED", "Pod", "alpha", "late")]


async def test_what_may_not_be_seen_does_not_come() -> None:
    """Jane sees pods of alpha and in `web` of bravo, and replica sets of alpha."""
    made = World("alpha", "bravo", "charlie")
    for cluster in ("alpha", "bravo"):
        made.cluster_role(cluster, "discovery", DISCOVERY, to="group:system:authenticated")
        made.cluster_role(cluster, "pods", rule("pods"))
    made.cluster_role("alpha", "readers", rule("pods"), rule("replicasets", groups=("apps",)), to="user:jane")
    made.bind("bravo", "web", "pods", "user:jane")
    made.pod("bravo", "web", "moving")
    async with made.serving() as as_user:
        path = f"{ROOT}/any?resources=pods,namespaces,apps/replicasets&watch=1&allowWatchBookmarks=true"
        start = f"&resourceVersion=abcdefgh.{made.index}"
        watchers = {who: lines(as_user(*who), path + start) for who in (("jane",), ("root", "system:masters"))}
        for stream in watchers.values():
            await taken(stream, 1)

        def change() -> None:
            for cluster in ("alpha", "bravo", "charlie"):
                for namespace in ("web", "db"):
                    made.pod(cluster, namespace, "pod", spec={"n": 1})
                    made.put(cluster, "replicasets", "set", namespace, "apps")
                made.put(cluster, "namespaces", "space")
            made.pod("charlie", "web", "pod", gone=True)
            made.pod("bravo", "db", "pod", gone=True)
            made.pod("bravo", "web", "pod", gone=True)

        change()
        uids = ("alpha-web-pod", "alpha-web-set", "alpha-db-pod", "alpha-db-set", "bravo-web-pod")
        seen = [("ADDED", uid) for uid in uids] + [("DELETED", "bravo-web-pod")]
        found = await taken(watchers["jane",], len(seen))
        assert [(one["type"], one["object"]["metadata"]["uid"]) for one in found] == seen
        assert len(await taken(watchers["root", "system:masters"], 18)) == 18
        for stream in watchers.values():
            await stream.aclose()  # type: ignore[attr-defined]
        # Nor to who comes later, from any version before.
        later = lines(as_user("jane"), path + start)
        found = await taken(later, len(seen) + 1)
        assert [(one["type"], one["object"]["metadata"]["uid"]) for one in found[1:]] == seen
        made.pod("charlie", "web", "last")
        made.pod("alpha", "web", "last")
        assert (await taken(later, 1))[0]["object"]["metadata"]["uid"] == "alpha-web-last"
        await later.aclose()  # type: ignore[attr-defined]
