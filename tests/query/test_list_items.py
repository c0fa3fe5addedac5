"""Items of lists as a kube-apiserver writes them: only those of custom resources with kind and apiVersion."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
import yaml

from tests.query.scene import Answers, Scene

PODS, SHIPS = "/api/v1/pods", "/apis/sea.example.io/v1/ships"
POD, SHIP = "/api/v1/namespaces/x/pods/a", "/apis/sea.example.io/v1/namespaces/x/ships/a"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
# Without asking a log.
ANY = "?resourceVersion=0"


def lead(found: dict[str, object]) -> list[object]:
    """What an object begins with, up to its metadata."""
    return [*list(found.items())[: list(found).index("metadata")]]


OF = {PODS: [("kind", "Pod"), ("apiVersion", "v1")], SHIPS: [("kind", "Ship"), ("apiVersion", "sea.example.io/v1")]}


@pytest.fixture
async def scene() -> Scene:
    made = Scene()
    made.custom("ships", "Ship")
    for name in "abc":
        made.delta(name, uid=f"pod-{name}")
        made.delta(name, uid=f"ship-{name}", group="sea.example.io", resource="ships", kind="Ship")
    return made


@pytest.mark.parametrize("scope", ["", "/clusters/alpha", "/int", "/int/clusters/alpha"])
async def test_only_custom_ones_say_what_they_are(scene: Scene, scope: str) -> None:
    async with scene.serving() as served:
        for path, item in ((PODS, []), (SHIPS, OF[SHIPS])):
            for query in (
                ANY,
                f"{ANY}&pretty=1",
                f"{ANY}&labelSelector=!none",
                f"{ANY}&fieldSelector=metadata.name!=z",
            ):
                found = await served.json(scope + path + query)
                assert [lead(one) for one in found["items"]] == [item] * 3
                assert lead(found) == [("kind", f"{OF[path][0][1]}List"), OF[path][1]]
            status, text = await served.text(scope + path + ANY, "application/yaml")
            assert status == 200
            assert [lead(one) for one in yaml.safe_load(text)["items"]] == [sorted(item) for _ in range(3)]
            for one in (POD, SHIP):
                assert lead(await served.json(scope + one + ANY)) == OF[PODS if one == POD else SHIPS]


async def test_pages(scene: Scene) -> None:
    async with scene.serving() as served:
        for path, item in ((PODS, []), (SHIPS, OF[SHIPS])):
            page = await served.json(f"{path}?limit=2")
            rest = await served.json(f"{path}?limit=2&continue={page['metadata']['continue']}")
            assert [lead(one) for one in page["items"] + rest["items"]] == [item] * 3


async def test_watches_rows_and_metadata_say_it_always(scene: Scene) -> None:
    partial = [("kind", "PartialObjectMetadata"), ("apiVersion", "meta.k8s.io/v1")]
    async with scene.serving() as served:
        for path in (PODS, SHIPS):
            events = await served.events(f"{path}{ANY}&watch=1&timeoutSeconds=1")
            assert [lead(event["object"]) for event in events] == [OF[path]] * 3
            found = await served.json(path + ANY, METADATA)
            assert [lead(one) for one in found["items"]] == [partial] * 3
            for include, shown in (("", partial), ("Metadata", partial), ("Object", OF[path])):
                rows = (await served.json(f"{path}{ANY}&includeObject={include}", TABLE))["rows"]
                assert [lead(row["object"]) for row in rows] == [shown] * 3


async def test_lists_of_many_slices_have_the_length_that_they_say(scene: Scene) -> None:
    """Also where the client takes gzip, and an answer is large enough for it."""
    for at in range(3000):
        for given in ({}, {"group": "sea.example.io", "resource": "ships", "kind": "Ship"}):
            scene.delta(
                f"web-{at:04}", uid=f"{at}", labels={"text": "x" * 60, **{f"a{n}": "y" * 30 for n in range(4)}}, **given
            )
    async with scene.serving() as served:
        for path, item in ((PODS, []), (SHIPS, OF[SHIPS])):
            plain = await _read(served, path, "identity")
            assert json.loads(plain) == json.loads(gzip.decompress(await _read(served, path, "gzip")))
            assert [lead(one) for one in json.loads(plain)["items"]] == [item] * 3003


async def _read(served: Answers, path: str, encoding: str) -> bytes:
    async with served.session.get(
        served.url + path + ANY, headers={"Accept-Encoding": encoding}, auto_decompress=False
    ) as answer:
        if encoding == "identity":
            assert answer.content_length is not None
        return await answer.read()


@pytest.mark.parametrize(
    "shown", [{"columns": [{"name": "X", "type": "string", "jsonPath": ".x"}]}, {"selectable": [".x"]}, {}]
)
async def test_what_a_record_of_an_older_release_shows(scene: Scene, shown: dict[str, Any]) -> None:
    """It does not state that a definition defines its type, only what the definition says of it."""
    scene.custom("ships", "Ship", custom=False, **shown)
    async with scene.serving() as served:
        found = await served.json(SHIPS + ANY)
        assert [lead(one) for one in found["items"]] == [OF[SHIPS] if shown else []] * 3
