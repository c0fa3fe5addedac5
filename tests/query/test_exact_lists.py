"""Exact lists and further pages: the state of any index within the window of events, at any instance of a history."""

from __future__ import annotations

import random
from typing import Any

import pytest

from deltalog.wire.delta import ADDED, DELETED, MODIFIED
from deltalog.wire.subjects import REMOVED, TYPE
from tests.query.scene import Answers, Scene

PODS = "/api/v1/pods"
SELECTED = ("", "&labelSelector=app=a", "&fieldSelector=metadata.name=n1", "&clusters=bravo", "&names=n0,n2")


def at(index: int) -> str:
    return f"resourceVersion=abcdefgh.{index}"


def changed(draw: random.Random, scenes: list[Scene], step: int) -> None:
    """One change, the same in all scenes."""
    name, cluster = f"n{draw.randrange(4)}", draw.choice(["alpha", "bravo"])
    type_store = scenes[0].store.types.get(scenes[0].served.resource)
    live = None if type_store is None else type_store.get(cluster, ("x", name))  # type: ignore[arg-type]
    kind = ADDED if live is None else draw.choice([MODIFIED, MODIFIED, DELETED])
    uid = f"{cluster}-{name}-{step}" if live is None else live.uid
    labels = {"app": draw.choice("ab")}
    for scene in scenes:
        scene.delta(name, kind, uid=uid, member_version=str(step + 1), cluster=cluster, labels=labels)


async def items(served: Answers, query: str, scope: str = "") -> list[dict[str, Any]]:
    found = await served.json(f"{scope}{PODS}?{query}")
    return list(found["items"])


@pytest.mark.parametrize("seed", range(3))
async def test_every_state_within_the_window(seed: int) -> None:
    draw, scene = random.Random(seed), Scene()
    async with scene.serving() as served:
        then: dict[tuple[int, str], list[dict[str, Any]]] = {}
        for step in range(40):
            changed(draw, [scene], step)
            for selected in SELECTED:
                then[scene.index, selected] = await items(served, f"resourceVersion=0{selected}")
        for (index, selected), wanted in then.items():
            found = await served.json(f"{PODS}?{at(index)}&resourceVersionMatch=Exact{selected}")
            assert found["metadata"]["resourceVersion"] == f"abcdefgh.{index}"
            assert found["items"] == wanted
            # With a limit and no match it is the same ("legacy exact").
            page = await served.json(f"{PODS}?{at(index)}&limit=1{selected}")
            assert page["items"] == wanted[:1]
            assert page["metadata"]["resourceVersion"] == f"abcdefgh.{index}"


async def test_pages_go_on_at_any_instance() -> None:
    """Each page at the other one, while all goes on changing; none keeps anything for the other."""
    draw, scenes = random.Random(7), [Scene(), Scene()]
    for step in range(30):
        changed(draw, scenes, step)
    async with scenes[0].serving() as one, scenes[1].serving() as other:
        wanted = await items(one, "resourceVersion=0")
        assert len(wanted) > 3
        page = await one.json(f"{PODS}?{at(scenes[0].index)}&limit=1")
        version = page["metadata"]["resourceVersion"]
        found = page["items"]
        turn = 0
        while token := page["metadata"].get("continue"):
            turn += 1
            changed(draw, scenes, 100 + turn)
            page = await (other if turn % 2 else one).json(f"{PODS}?limit=1&continue={token}")
            assert page["metadata"]["resourceVersion"] == version
            assert page["metadata"].get("remainingItemCount", 0) == len(wanted) - len(found) - 1
            found += page["items"]
        assert found == wanted


async def test_a_cluster_that_was_removed_is_in_the_lists_of_before() -> None:
    scene = Scene()
    for cluster in ("alpha", "bravo"):
        scene.delta("n", uid=cluster, cluster=cluster)
    before = scene.index
    scene.control(REMOVED, "bravo", data={"types": ["pods"]})
    async with scene.serving() as served:
        assert len(await items(served, f"{at(before)}&resourceVersionMatch=Exact")) == 2
        assert len(await items(served, f"{at(scene.index)}&resourceVersionMatch=Exact")) == 1


async def test_before_the_window() -> None:
    """410, for pages with a token to go on with; unless nothing changed since, or the pages are being read here."""
    scene = Scene()
    for name in "abc":
        scene.delta(name, uid=name)
    last = scene.index
    async with scene.serving() as here, scene.serving() as elsewhere:
        page = await here.json(f"{PODS}?{at(last)}&limit=2")
        token = page["metadata"]["continue"]
        scene.store.window.open(last)
        # Of no other type either.
        assert len(await items(elsewhere, f"{at(last)}&resourceVersionMatch=Exact")) == 3
        scene.delta("b2", uid="b2")
        scene.delta("c", MODIFIED, uid="c", member_version="9")
        scene.store.window.open(scene.index)
        for query in ("resourceVersionMatch=Exact", "limit=2"):
            found = await elsewhere.json(f"{PODS}?{at(last)}&{query}", code=410)
            assert found["reason"] == "Expired"
            assert found["message"].startswith("The resourceVersion for the provided list is too old")
        # Here its snapshot is kept.
        [rest] = await items(here, f"limit=2&continue={token}")
        assert (rest["metadata"]["name"], rest["metadata"]["resourceVersion"]) == ("c", f"abcdefgh.{last}.1")
        found = await elsewhere.json(f"{PODS}?limit=2&continue={token}", code=410)
        assert found["message"].startswith("The provided continue parameter is too old")
        rest_of = await items(elsewhere, f"limit=2&continue={found['metadata']['continue']}")
        assert [one["metadata"]["name"] for one in rest_of] == ["b2", "c"]


async def test_tokens_that_cannot_be_used() -> None:
    scene = Scene()
    for name in "abc":
        scene.delta(name, uid=name)
    async with scene.serving() as served:
        token = (await served.json(f"{PODS}?{at(scene.index)}&limit=1"))["metadata"]["continue"]
        refused = await served.json(f"{PODS}?continue={token}&{at(scene.index)}", code=400)
        assert refused["message"] == "specifying resource version is not allowed when using continue"
        assert len(await items(served, f"continue={token}&resourceVersion=0")) == 2
        # What is said first is that it is none.
        refused = await served.json(f"{PODS}?continue=!&{at(scene.index)}", code=400)
        assert refused["message"].startswith("invalid continue token: continue key is not valid: illegal base64")
        scene.replace()
        scene.control(TYPE, "alpha", "pods", data={"kind": "Pod", "version": "v1", "namespaced": True})
        assert (await served.json(f"{PODS}?continue={token}", code=410))["reason"] == "Expired"
