"""Collections show of each type what its own list shows, and no more; watches of them end when that changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.query.access.guarded import DISCOVERY, World, rule
from tests.query.access.test_two_worlds import compare, requests

ROOT = "/apis/clusterpedia.io/v1beta1/collectionresources"


def world() -> World:
    """Jane sees pods of alpha and in `web` of bravo, and replica sets of alpha."""
    made = World("alpha", "bravo")
    for cluster in ("alpha", "bravo"):
        made.cluster_role(cluster, "discovery", DISCOVERY, to="group:system:authenticated")
        made.cluster_role(cluster, "pods", rule("pods"))
        for namespace in ("web", "db"):
            made.pod(cluster, namespace, f"{namespace}-pod")
            made.put(cluster, "replicasets", f"{namespace}-set", namespace, "apps", controller_uid="deployment")
    made.cluster_role("alpha", "readers", rule("pods"), rule("replicasets", groups=("apps",)), to="user:jane")
    made.bind("bravo", "web", "pods", "user:jane")
    return made


def names(found: Any) -> list[tuple[str, str]]:
    return [(item["kind"], item["metadata"]["uid"]) for item in found["items"]]


SEEN = [
    ("Pod", "alpha-db-db-pod"),
    ("Pod", "alpha-web-web-pod"),
    ("Pod", "bravo-web-web-pod"),
    ("ReplicaSet", "alpha-db-db-set"),
    ("ReplicaSet", "alpha-web-web-set"),
]


async def test_what_may_be_listed_of_each_type() -> None:
    async with world().serving() as as_user:
        jane, nobody = as_user("jane"), as_user("system:anonymous")
        found = await jane.json(f"{ROOT}/any?groups=*&withRemainingCount=true")
        assert names(found) == SEEN
        assert [one["resource"] for one in found["resourceTypes"]] == ["pods", "replicasets"]
        page = await jane.json(f"{ROOT}/any?groups=*&limit=2")
        assert (names(page), page["remainingItemCount"]) == (SEEN[:2], 3)
        assert names(await jane.json(f"{ROOT}/any?groups=*&ownerUID=deployment")) == SEEN[3:]
        refused = await jane.json(f"{ROOT}/any?resources=namespaces", code=403)
        assert 'cannot list resource "namespaces"' in refused["message"]
        refused = await jane.json(f"{ROOT}/any?resources=namespaces&watch=1", code=403)
        assert 'cannot watch resource "namespaces"' in refused["message"]
        assert len(names(await as_user("root", "system:masters").json(f"{ROOT}/any?groups=*"))) > 8
        # The list of them tells nothing, and is for who is known.
        assert (await jane.json(ROOT))["items"]
        for path in (ROOT, f"{ROOT}/any?groups=*", f"{ROOT}/nothing"):
            await nobody.json(path, code=403)


async def test_another_path_of_a_collection_is_no_way_around() -> None:
    async with world().serving() as as_user:
        jane = as_user("jane")
        for path in (
            f"{ROOT}%2Fany?groups=*",
            f"{ROOT}/any/status?groups=*",
            f"/apis/clusterpedia.io/v1beta1/resources{ROOT}/any?groups=*",
            "/apis/clusterpedia.io/v1beta1/watch/collectionresources/any?groups=*",
            "/apis/clusterpedia.io/v1/collectionresources/any?groups=*",
            f"/clusters/bravo{ROOT}/any?groups=*",
        ):
            status, body = await jane.text(path)
            assert status in (403, 404), path
            assert json.loads(body)["kind"] == "Status"


async def test_a_watch_ends_when_more_or_less_may_be_seen() -> None:
    made = world()
    async with made.serving() as as_user:
        jane = as_user("jane")
        path = f"{jane.url}{ROOT}/any?groups=*&watch=1&timeoutSeconds=20"
        changes: tuple[Callable[[], object], ...] = (
            # A type of which nothing was seen, too.
            lambda: made.cluster_role("bravo", "more", rule("namespaces"), to="user:jane"),
            lambda: made.bind("bravo", "web", "pods", "user:jane", gone=True),
        )
        for change in changes:
            async with asyncio.timeout(15), jane.session.get(path) as answer:
                assert answer.status == 200
                seen = []
                begun = False
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        assert event["object"]["code"] == 410
                        break
                    seen.append(event["object"]["metadata"]["uid"])
                    if len(seen) == len(SEEN) and not begun:
                        begun = True
                        change()
                else:
                    raise AssertionError("it ended without an error")
            assert {uid for _, uid in SEEN} <= set(seen)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
async def test_what_is_hidden_changes_no_byte_of_a_collection(seed: int) -> None:
    asked = [one for one in requests() if "collectionresources" in one.path and not one.path.startswith("/clusters")]
    assert len(asked) > 80
    codes = await compare(seed, asked)
    assert codes[200] > 60
