"""Clusterpedia's paths: the same answers as natively, discovery of its group, and reads that the cluster answers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from urllib.parse import quote

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from query.forward.forwarding import NoUpstream
from query.http.passthrough import Upstream
from query.identity import Identity
from tests.query.scene import Scene

GROUP = "/apis/clusterpedia.io/v1beta1"
BELOW = f"{GROUP}/resources"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def scene() -> Scene:
    made = Scene()
    for cluster in ("alpha", "bravo"):
        for name in ("one", "two"):
            # Rows of tables are kept by uid and index, for all tests of a process.
            made.delta(name, uid=f"path-{cluster}-{name}", namespace="web", cluster=cluster, labels={"app": name})
    return made


@pytest.mark.parametrize("scope", ["", "/clusters/alpha", "/clusters/nobody"])
@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/apis",
        "/api/v1",
        "/version",
        "/openapi/v2",
        "/readyz",
        "/api/v1/pods",
        "/api/v1/pods?limit=1",
        "/api/v1/namespaces/web/pods/one",
        "/api/v1/pods?labelSelector=app%3Done,search.clusterpedia.io/clusters%3Dbravo",
        "/api/v1/watch/pods?timeoutSeconds=1",
        "/api/v1/secrets",
        "/nothing",
    ],
)
async def test_a_path_below_resources_is_the_native_one(scope: str, path: str) -> None:
    made = scene()
    async with made.serving() as ask:
        for form in ("application/json", TABLE, AGGREGATED + ",application/json"):
            status, body = await ask.text(scope + path, form)
            other, found = await ask.text(BELOW + scope + path, form)
            if path == "/apis" and not scope:
                # The root also has the group itself.
                assert (other, b"clusterpedia.io" in found) == (status, False)
                assert (b"clusterpedia.io" in body) == (status == 200)
            else:
                assert (other, found.replace(BELOW.encode(), b"")) == (status, body)
    if scope.endswith("nobody"):
        assert status == 404


async def test_versions_as_numbers() -> None:
    async with scene().serving() as ask:
        found = await ask.json(f"/int{BELOW}/clusters/alpha/api/v1/pods")
    assert found["metadata"]["resourceVersion"].isdigit()


async def test_what_is_below_resources_once_is_not_below_it_twice() -> None:
    async with scene().serving() as ask:
        for path in (f"{BELOW}{BELOW}/api/v1/pods", f"{BELOW}{GROUP}", f"/clusters/alpha{BELOW}/api/v1/pods"):
            await ask.json(path, code=404)
        assert "clusterpedia.io" not in json.dumps(await ask.json(f"{BELOW}/apis"))


async def test_the_group_is_discovered_at_the_root() -> None:
    async with scene().serving() as ask:
        groups = (await ask.json("/apis"))["groups"]
        [group] = [one for one in groups if one["name"] == "clusterpedia.io"]
        assert group["preferredVersion"] == {"groupVersion": "clusterpedia.io/v1beta1", "version": "v1beta1"}
        assert await ask.json("/apis/clusterpedia.io") == {"kind": "APIGroup", "apiVersion": "v1", **group}
        listed = await ask.json(GROUP)
        assert (listed["kind"], listed["groupVersion"]) == ("APIResourceList", "clusterpedia.io/v1beta1")
        assert {one["name"]: (one["kind"], one["namespaced"], one["verbs"]) for one in listed["resources"]} == {
            "collectionresources": ("CollectionResource", False, ["get", "list"]),
            "resources": ("Resources", False, []),
        }
        aggregated = await ask.json("/apis", AGGREGATED)
        assert [one["metadata"]["name"] for one in aggregated["items"]] == [one["name"] for one in groups]
        [version] = aggregated["items"][-1]["versions"]
        assert {one["resource"] for one in version["resources"]} == {"collectionresources", "resources"}
        # One cluster's scope has that cluster's groups.
        assert "clusterpedia.io" not in json.dumps(await ask.json("/clusters/alpha/apis"))


class _Members:
    """One API server behind the name alpha."""

    as_caller = False

    def __init__(self, url: str) -> None:
        self._url = url

    def has(self, cluster: str) -> bool:
        return cluster == "alpha"

    def using(self, cluster: str, who: Identity) -> AbstractAsyncContextManager[Upstream]:
        return self._using(cluster)

    @contextlib.asynccontextmanager
    async def _using(self, cluster: str) -> AsyncIterator[Upstream]:
        if cluster != "alpha":
            raise NoUpstream("it is not known here")
        yield Upstream(self._url)


@contextlib.asynccontextmanager
async def member(asked: list[str]) -> AsyncIterator[_Members]:
    async def answer(http: web.Request) -> web.Response:
        asked.append(http.raw_path)
        return web.json_response({"live": True})

    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", answer)
    async with TestServer(application) as server:
        yield _Members(str(server.make_url("")).rstrip("/"))


LABEL = quote("app=one,search.clusterpedia.io/forward=true")


@pytest.mark.parametrize("below", ["", BELOW])
async def test_a_read_is_answered_by_the_cluster_where_that_is_asked(below: str) -> None:
    asked: list[str] = []
    header = {"X-Clusterpedia-Forward": "true"}
    async with member(asked) as members, scene().serving(members) as ask:
        root = f"{below}/clusters/alpha/api/v1"
        assert (await ask.json(f"{root}/pods"))["kind"] == "PodList"
        for path, seen in (
            (f"{root}/pods?limit=2", "/api/v1/pods?limit=2"),
            (f"{root}/namespaces/web/pods/one", "/api/v1/namespaces/web/pods/one"),
            (f"{root}/pods?watch=1", "/api/v1/pods?watch=1"),
            (f"{root}/secrets", "/api/v1/secrets"),
        ):
            status, body = await ask.text(path, **header)
            assert (status, json.loads(body), asked.pop()) == (200, {"live": True}, seen)
        # By label, which the cluster is not shown.
        assert await ask.json(f"{root}/pods?labelSelector={LABEL}&limit=1") == {"live": True}
        assert asked.pop() == "/api/v1/pods?labelSelector=app%3Done&limit=1"
        assert (await ask.json(f"{root}/pods?labelSelector={quote('search.clusterpedia.io/forward=false')}"))["kind"]
        refused = await ask.text(f"{root}/pods?orderby=name", **header)
        assert refused[0] == 400
        assert b"knows no searches" in refused[1]
        await ask.json(f"{root}/pods?labelSelector={LABEL}&resourceVersion=abcdefgh.7", code=410)
        await ask.json(f"{below}/api/v1/pods?labelSelector={LABEL}", code=400)
        await ask.json(f"{below}/clusters/bravo/api/v1/pods?labelSelector={LABEL}", code=503)
        assert (await ask.text(f"{root}/pods", **{"X-Clusterpedia-Forward": "maybe"}))[0] == 400
    assert asked == []


@pytest.mark.parametrize(
    "query",
    [
        "fuzzyName=nope",
        "names=nope&limit=1",
        "filter=false",
        "whereSQL=x",
        "ownerName=nope",
        "labelSelector=" + quote("app=one,search.clusterpedia.io/names!=one"),
        "labelSelector=" + quote("search.clusterpedia.io/fuzzy-name notin (one)"),
    ],
)
async def test_a_cluster_that_ignores_a_search_deletes_nothing_by_it(query: str) -> None:
    asked: list[str] = []
    async with member(asked) as members, scene().serving(members) as ask:
        for of in ("/api/v1/namespaces/web/pods", "/api/v1/namespaces/web/secrets"):
            async with ask.session.delete(f"{ask.url}/clusters/alpha{of}?{query}") as answer:
                assert answer.status == 400
                assert "DELETE knows no searches" in (await answer.json())["message"]
        assert asked == []
        path = "/api/v1/namespaces/web/pods?limit=1&labelSelector=app%3Done&fieldSelector=spec.nodeName%3Dx"
        async with ask.session.delete(f"{ask.url}/clusters/alpha{path}") as answer:
            assert answer.status == 200
    assert asked == [path]


async def test_nothing_is_passed_on_by_an_instance_that_passes_nothing_on() -> None:
    async with scene().serving() as ask:
        found = await ask.json(f"/clusters/alpha/api/v1/pods?labelSelector={LABEL}", code=400)
    assert "--forward" in found["message"]
