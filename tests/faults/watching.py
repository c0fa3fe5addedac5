"""Watchers that keep a view, move between instances with their version, and count what must never happen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from typing import Any

import aiohttp

ANNOTATION = "shadow.clusterpedia.io/cluster-name"
Key = tuple[str, str, str]


# Types by their kinds, and the collection that has them all.
COLLECTED = {"Pod": "/api/v1/pods", "ConfigMap": "/api/v1/configmaps", "Deployment": "/apis/apps/v1/deployments"}
COLLECTION = "/apis/clusterpedia.io/v1beta1/collectionresources/any?resources=pods,configmaps,apps/deployments"


def key_of(metadata: dict[str, Any]) -> Key:
    return (metadata["annotations"][ANNOTATION], metadata.get("namespace", ""), metadata["name"])


class Watcher:
    """One raw client. `counts`: events, deletions, moves, relists, twice, backwards, wrong, and `needless`.

    Needless is a deletion of what it never held: with a selector, before the window, it may come (docs/versions.md).
    What it holds of a collection is called `Pod:web-1`.
    `told`: all events since `listed`, the index of its first list, as (index, type, key).
    """

    def __init__(self, urls: list[str], path: str, chance: random.Random, *, selector: str = "") -> None:
        self.urls = urls
        self.path = path
        self.selector = selector
        self.objects: dict[Key, str] = {}
        self.version = ""
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.told: list[tuple[int, str, Key]] = []
        self.listed = 0
        self._chance = chance
        self._prefix = ""
        self._index = 0

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Lists and watches until cancelled."""
        while True:
            url = self._chance.choice(self.urls)
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
                if not self.version:
                    await self._list(session, url)
                await self._watch(session, url)
            self.counts["moves"] += 1
            await asyncio.sleep(self._chance.uniform(0.02, 0.2))

    def _query(self, **more: str) -> dict[str, str]:
        return {**({"labelSelector": self.selector} if self.selector else {}), **more}

    async def _list(self, session: aiohttp.ClientSession, url: str) -> None:
        async with session.get(url + self.path, params=self._query()) as answer:
            if answer.status != 200:
                return
            found = await answer.json()
        self.version = found["metadata"]["resourceVersion"]
        prefix, index = self.version.split(".")[:2]
        if self._prefix and (prefix != self._prefix or int(index) < self._index):
            self._problem("backwards", f"list at {self.version} after {self._prefix}.{self._index}")
        self._prefix, self._index = prefix, int(index)
        self.told, self.listed = [], int(index)
        self.objects = {self._key(item): item["metadata"]["resourceVersion"] for item in found["items"] or []}

    async def _watch(self, session: aiohttp.ClientSession, url: str) -> None:
        if not self.version:
            return
        query = self._query(watch="1", resourceVersion=self.version, allowWatchBookmarks="true", timeoutSeconds="20")
        async with session.get(url + self.path, params=query) as answer:
            if answer.status == 410:
                self._relist(await answer.text())
                return
            if answer.status != 200:
                if answer.status not in (429, 503, 504):
                    # The headers say who answered, should it be no instance.
                    text = f"{await answer.text()} {dict(answer.headers)}"
                    self._problem("wrong", f"{answer.status} of {url}: {text}")
                return
            async for line in answer.content:
                if not line.endswith(b"\n"):
                    return
                event = json.loads(line)
                if event["type"] == "ERROR":
                    if event["object"]["code"] == 410:
                        self._relist(json.dumps(event["object"]))
                    elif event["object"]["code"] not in (429, 503, 504):
                        self._problem("wrong", json.dumps(event))
                    return
                self._take(event["type"], event["object"])

    def _relist(self, reason: str) -> None:
        self.counts["relists"] += 1
        self.problems.append(f"relist from {self.version}: {reason}")
        self.version = ""

    def _problem(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.problems.append(f"{self.path} {self.selector}: {kind}: {text}")

    def _key(self, item: dict[str, Any]) -> Key:
        cluster, namespace, name = key_of(item["metadata"])
        return cluster, namespace, f"{item['kind']}:{name}" if self.path == COLLECTION else name

    def _take(self, kind: str, item: dict[str, Any]) -> None:
        metadata = item["metadata"]
        version = metadata["resourceVersion"]
        index = int(version.split(".")[1])
        if kind == "BOOKMARK":
            if index < self._index:
                self._problem("backwards", f"bookmark {version} after {self._index}")
            self.version, self._index = version, max(index, self._index)
            return
        self.counts["events"] += 1
        key = self._key(item)
        known = self.objects.get(key)
        if index < self._index:
            self._problem("backwards", f"{kind} {key} {version} after {self._index}")
        elif known == version or (index == self._index and version == self.version):
            self._problem("twice", f"{kind} {key} {version}")
        self.version, self._index = version, index
        self.told.append((index, kind, key))
        if kind == "DELETED":
            self.counts["deletions"] += 1
            if self.objects.pop(key, None) is None:
                if self.selector:
                    self.counts["needless"] += 1
                else:
                    self._problem("wrong", f"DELETED for {key}, which is unknown")
            return
        if (kind == "ADDED") != (known is None):
            self._problem("wrong", f"{kind} for {key}, which is {'unknown' if known is None else 'known'}")
        self.objects[key] = version
