"""What a guarded service must not tell by the way: names of clusters, versions, who owns what, columns of tables."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from query.forward.forwarding import NoUpstream
from query.http.passthrough import Upstream
from query.identity import Identity
from tests.query.access.guarded import DISCOVERY, KINDS, World, rule


@pytest.fixture(name="world")
async def world_fixture() -> World:
    """Jane may see the pods of alpha, and nothing of charlie."""
    world = World("alpha", "charlie")
    world.cluster_role("alpha", "discovery", DISCOVERY, to="group:system:authenticated")
    world.cluster_role("alpha", "pods", rule("pods"), to="user:jane")
    world.pod("alpha", "web", "same")
    world.pod("charlie", "web", "same")
    return world


@pytest.mark.parametrize("path", ["/a//b", "/api/v1/watch", "/clusters/alpha/api/v1//pods"])
async def test_a_path_that_is_none_tells_nobody_which_clusters_are_being_discovered(world: World, path: str) -> None:
    world.control("type", "hidden-one", "pods", data={"kind": "Pod", "version": "v1", "namespaced": True})
    async with world.serving() as as_user:
        status, body = await as_user("jane").text(path)
        assert b"hidden-one" not in body
        assert status == (403 if path.endswith("watch") else 404)


async def test_versions_of_hidden_clusters_are_not_told(world: World) -> None:
    """Of one object as of many: what is asked of a cluster that is not seen is as if there were none."""
    asked = quote(json.dumps({"charlie": "99999999"}))
    async with world.serving() as as_user:
        for path in ("/api/v1/namespaces/web/pods", "/api/v1/namespaces/web/pods/same", "/clusters/alpha/api/v1/pods"):
            found = await as_user("jane").json(f"{path}?resourceVersion={asked}")
            assert "charlie" not in json.dumps(found)


async def test_who_owns_what_is_not_told_by_the_pages_of_another(world: World) -> None:
    world.put("alpha", "replicasets", "rs", "web", "apps", controller_uid="deployment")
    for at in range(3):
        world.pod("alpha", "web", f"owned-{at}", controller_uid="alpha-web-rs")
    for user in ("mallory", "root"):
        world.cluster_role("alpha", f"sees-{user}", rule("pods"), to=f"user:{user}")
    world.cluster_role("alpha", "sets", rule("replicasets", groups=("apps",)), to="user:jane")
    query = "/clusters/alpha/api/v1/pods?ownerUID=deployment&ownerSeniority=1&limit=1"
    async with world.serving() as as_user:
        page = await as_user("jane").json(query)
        assert page["metadata"]["remainingItemCount"] == 2
        version = page["metadata"]["resourceVersion"]
        # Her own pages go on.
        rest = await as_user("jane").json(f"{query}&continue={page['metadata']['continue']}")
        assert len(rest["items"]) == 1
        assert (await as_user("jane").json(f"{query}&resourceVersion={version}"))["items"]
        assert not (await as_user("mallory").json(query))["items"]
        assert not (await as_user("mallory").json(f"{query}&resourceVersion={version}"))["items"]


async def test_columns_of_a_hidden_cluster_are_not_shared(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two users watch the same objects as tables, of which one sees more clusters that define the type."""

    def ship(cluster: str, column: str) -> None:
        told = [{"name": column, "type": "string", "jsonPath": ".spec.x"}]
        data = {"kind": "Ship", "version": "v1", "namespaced": True, "custom": True, "columns": told}
        world.control("type", cluster, "ships", "sea.example.io", data=data)
        world.control("synced", cluster, "ships", "sea.example.io", data={"version": "1"})

    ship("zulu", "Own")
    world.control("cluster", "zulu", data={"version": {"major": "1"}})
    world.add("zulu")
    world.cluster_role("zulu", "discovery", DISCOVERY, to="group:system:authenticated")
    world.cluster_role("zulu", "ships", rule("ships", groups=("sea.example.io",)), to="user:jane")
    ship("charlie", "Hidden")
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    path = "/apis/sea.example.io/v1/ships?clusters=zulu&watch=1&timeoutSeconds=2"
    async with world.serving() as as_user:
        version = (await as_user("jane").json("/apis/sea.example.io/v1/ships"))["metadata"]["resourceVersion"]

        async def watch(user: Any) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = await user.events(f"{path}&resourceVersion={version}", table)
            return found

        watches = [asyncio.create_task(watch(user)) for user in (as_user("root", "system:masters"), as_user("jane"))]
        await asyncio.sleep(0.5)
        monkeypatch.setitem(KINDS, ("sea.example.io", "ships"), ("Ship", True))
        world.put("zulu", "ships", "boat", "web", "sea.example.io", spec={"x": "y"})
        roots, janes = await asyncio.gather(*watches)
        assert "Hidden" in json.dumps(roots), roots
        assert "Own" in json.dumps(janes), janes
        assert "Hidden" not in json.dumps(janes)


@pytest.mark.parametrize("above", ["arn:of:clusters", "alpha"])
async def test_slashes_in_a_hidden_name_part_no_path(world: World, above: str) -> None:
    """Who may see nothing of a cluster is not told that there is one of this name."""
    hidden, none = (f"/clusters/{above}/{name}" for name in ("hidden", "nonesuc"))
    world.add(f"{above}/hidden")
    world.cluster_role(f"{above}/hidden", "pods", rule("pods"), to="user:mallory")
    async with world.serving() as as_user:
        for within in ("", "/api", "/api/v1/pods", "/readyz?verbose", "/api/v1/namespaces/web/pods/same"):
            told = [await as_user("jane").text(path + within) for path in (hidden, none)]
            assert told[0] == (told[1][0], told[1][1].replace(b"nonesuc", b"hidden")), within
        # Who has rights there, if not to discover it, finds it.
        assert (await as_user("mallory").text(f"{hidden}/api/v1/pods"))[0] == 200
        assert (await as_user("root", "system:masters").text(f"{hidden}/readyz?verbose"))[0] == 200


class _Unreachable:
    """Clusters that requests are passed on to as of who asks, none of which can be reached."""

    as_caller = True

    def has(self, cluster: str) -> bool:
        return True

    @contextlib.asynccontextmanager
    async def using(self, cluster: str, who: Identity) -> AsyncIterator[Upstream]:
        raise NoUpstream("https://10.0.0.7:6443 does not answer")
        yield


async def test_that_a_hidden_cluster_cannot_be_reached_is_not_told() -> None:
    world = World("alpha", "charlie")
    world.cluster_role("alpha", "discovery", DISCOVERY, to="group:system:authenticated")
    async with world.serving(upstreams=_Unreachable()) as as_user:
        jane = as_user("jane")
        for method, path in (
            ("POST", "api/v1/namespaces/web/pods"),
            ("GET", "api/v1/namespaces/web/secrets"),
            ("GET", "logs/kubelet"),
            ("PUT", "api/v1/namespaces/web/pods/same"),
        ):
            answers = []
            for cluster in ("charlie", "none"):
                url = f"{jane.url}/clusters/{cluster}/{path}"
                async with jane.session.request(method, url, data=b"{}") as answer:
                    answers.append((answer.status, await answer.read()))
            assert answers[0] == answers[1], path
            assert answers[0][0] == 403
        # Of one that she may know of it is said.
        refused = await jane.json("/clusters/alpha/api/v1/namespaces/web/secrets", code=503)
        assert "10.0.0.7" in refused["message"]
