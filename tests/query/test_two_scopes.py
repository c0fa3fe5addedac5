"""Types that are namespaced in one cluster and cluster-scoped in another: found by both forms of path."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from deltalog.wire.resource_type import ResourceType
from deltalog.wire.subjects import SYNCED, TYPE
from materializer.cluster_facts import ClusterFacts
from query.discovery.catalogue import Catalogue
from tests.query.scene import Scene

GROUP = "sea.example.io"
ROOT = f"/apis/{GROUP}/v1"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def scene() -> Scene:
    """Ships are in namespaces in bravo and in none in alpha."""
    made = Scene()
    for cluster, namespaced in (("alpha", False), ("bravo", True)):
        data = {"kind": "Ship", "version": "v1", "namespaced": namespaced}
        made.control(TYPE, cluster, "ships", GROUP, data=data)
        made.control(SYNCED, cluster, "ships", GROUP, data={"version": "1"})
        for name in ("same", cluster):
            made.delta(
                name,
                uid=f"ship-{cluster}-{name}",
                cluster=cluster,
                group=GROUP,
                resource="ships",
                kind="Ship",
                namespace="web" if namespaced else "",
            )
    return made


def uids(found: Any) -> list[str]:
    return [item["metadata"]["uid"] for item in found["items"]]


async def test_both_forms_of_path() -> None:
    async with scene().serving() as ask:
        assert uids(await ask.json(f"{ROOT}/ships")) == [
            "ship-alpha-alpha",
            "ship-alpha-same",
            "ship-bravo-bravo",
            "ship-bravo-same",
        ]
        assert uids(await ask.json(f"{ROOT}/namespaces/web/ships")) == ["ship-bravo-bravo", "ship-bravo-same"]
        assert (await ask.json(f"{ROOT}/ships/same"))["metadata"]["uid"] == "ship-alpha-same"
        assert (await ask.json(f"{ROOT}/namespaces/web/ships/same"))["metadata"]["uid"] == "ship-bravo-same"
        await ask.json(f"{ROOT}/ships/bravo", code=404)
        await ask.json(f"{ROOT}/namespaces/web/ships/alpha", code=404)
        events = await ask.events(f"{ROOT}/watch/ships/same?timeoutSeconds=1")
        assert {one["object"]["metadata"]["uid"] for one in events} == {"ship-alpha-same", "ship-bravo-same"}
        assert len((await ask.json(f"{ROOT}/ships", TABLE))["rows"]) == 4
        # Each cluster's scope has the one form that is its own.
        await ask.json(f"/clusters/alpha{ROOT}/namespaces/web/ships", code=404)
        await ask.json(f"/clusters/bravo{ROOT}/ships/same", code=404)
        assert (await ask.json(f"/clusters/alpha{ROOT}/ships/same"))["metadata"]["uid"] == "ship-alpha-same"
        # Others are as they were.
        await ask.json("/api/v1/pods/one", code=404)


async def test_lists_warn_of_it() -> None:
    async with scene().serving() as ask:

        async def warnings(path: str) -> str:
            async with ask.session.get(ask.url + path) as answer:
                assert answer.status == 200
                return " ".join(answer.headers.getall("Warning", ()))

        text = "ships.sea.example.io are in namespaces in some clusters, and in none in alpha"
        assert text in await warnings(f"{ROOT}/ships")
        assert text in await warnings(f"{ROOT}/ships?limit=1")
        assert text in await warnings(f"{ROOT}/ships?watch=1&timeoutSeconds=1")
        for path in (f"{ROOT}/ships?clusters=bravo", f"{ROOT}/ships?clusters=alpha", f"/clusters/alpha{ROOT}/ships"):
            assert "namespaces" not in await warnings(path)


@pytest.mark.parametrize("namespaced", sorted(set(permutations((True, False, False)))))
def test_discovery_does_not_depend_on_what_clusters_are_called(namespaced: tuple[bool, ...]) -> None:
    made = []
    for name, spaced in zip(("alpha", "bravo", "charlie"), namespaced, strict=True):
        cluster = ClusterFacts(name, 1)
        info = ResourceType(group=GROUP, resource="ships", version="v1", kind="Ship", namespaced=spaced)
        cluster.types[info.group_resource] = info
        made.append(cluster)
    for clusters in permutations(made):
        found = Catalogue(list(clusters)).find(GROUP, "v1", "ships")
        assert found is not None
        assert found.info.namespaced
        assert found.without_namespaces == tuple(
            one.name for one in made if not one.types[info.group_resource].namespaced
        )


def test_another_version_may_have_namespaces() -> None:
    made = []
    for name, version, spaced in (("alpha", "v1", False), ("bravo", "v1", False), ("charlie", "v2", True)):
        cluster = ClusterFacts(name, 1)
        info = ResourceType(group=GROUP, resource="ships", version=version, kind="Ship", namespaced=spaced)
        cluster.types[info.group_resource] = info
        made.append(cluster)
    found = Catalogue(made).find(GROUP, "v1", "ships")
    assert found is not None
    assert (found.info.namespaced, found.info.version, found.versions) == (True, "v1", ("v1", "v2"))
