"""OpenAPI through kubebraid: kubectl explain for all clusters and for one, with the member clusters gone."""

from __future__ import annotations

import asyncio
import gzip
import json
from urllib.parse import urljoin

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.conftest import Kubectl, Members, Service
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.shapes.example.io"},
    "spec": {
        "group": "shapes.example.io",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "properties": {"corners": {"type": "integer"}}}},
                    }
                },
            }
        ],
    },
}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def documents(service: Service, scope: str = "", patience: float = PATIENCE, **wanted: bool) -> dict[str, str]:
    """The index of a scope, once it has (or lacks) the groups that are named, and version 2 is there."""
    limit = asyncio.get_running_loop().time() + patience
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{service.url}{scope}/openapi/v3") as answer:
                paths = (await answer.json())["paths"] if answer.status == 200 else {}
            async with session.get(f"{service.url}{scope}/openapi/v2", headers={"Accept": PROTOBUF}) as answer:
                whole = answer.status == 200
            names = {name.replace("/", "_").replace(".", "_") for name in paths}
            if whole and paths and all((name in names) == there for name, there in wanted.items()):
                return {name: one["serverRelativeURL"] for name, one in paths.items()}
            assert asyncio.get_running_loop().time() < limit, sorted(paths)
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stopped(shared_service: Service, shared_members: Members) -> Service:
    """The service with what two clusters, one with a type of its own, told before they went away."""
    async with aiohttp.ClientSession() as session:
        async with session.post(shared_members["bravo"].url + CRDS, json=WIDGETS) as answer:
            assert answer.status == 201, await answer.text()
    await documents(shared_service, "/clusters/alpha")
    await documents(shared_service, "/clusters/bravo", apis_shapes_example_io_v1=True)
    # Version 2 is one document, which follows by itself.
    async with asyncio.timeout(PATIENCE):
        while "io.example.shapes.v1.Widget" not in (await shared_service.get("/openapi/v2"))["definitions"]:
            await asyncio.sleep(0.05)
    # That the type can be asked for is told by itself, too.
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        for scope in ("", "/clusters/bravo"):
            while True:
                async with session.get(f"{shared_service.url}{scope}/apis/shapes.example.io/v1/widgets") as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.05)
    for cluster in shared_members.clusters:
        await cluster.stop()
    return shared_service


async def test_kubectl_explains_while_the_clusters_are_down(stopped: Service, kubectl: Kubectl) -> None:
    for scope in ("", "/clusters/alpha", "/clusters/bravo", "/int", "/int/clusters/alpha"):
        server = ("--server", f"{stopped.url}{scope}")
        code, out, err = await kubectl(*server, "explain", "pod.spec.containers")
        assert code == 0, (scope, err)
        assert "imagePullPolicy" in out
        code, out, err = await kubectl(*server, "explain", "deployments", "--recursive")
        assert code == 0, (scope, err)
        assert "initContainers" in out
        # Our own group is at the root.
        code, out, err = await kubectl(*server, "explain", "collectionresources", "--recursive")
        assert (code == 0) is ("clusters" not in scope), (scope, err)
        assert ("remainingItemCount" in out) is ("clusters" not in scope)
    # A type that one cluster has: known there and at the root.
    for scope, known in (("", True), ("/clusters/bravo", True), ("/clusters/alpha", False)):
        code, out, err = await kubectl("--server", f"{stopped.url}{scope}", "explain", "widgets.spec")
        assert (code == 0) is known, (scope, out, err)
        assert ("corners" in out) is known


async def test_kubectl_explains_by_version_2(stopped: Service, kubectl: Kubectl) -> None:
    for scope in ("", "/clusters/bravo"):
        code, out, err = await kubectl(
            *("--server", f"{stopped.url}{scope}", "explain", "pod.spec.containers", "--output=plaintext-openapiv2")
        )
        assert code == 0, (scope, err)
        assert "imagePullPolicy" in out
    code, out, err = await kubectl(
        *("--server", stopped.url, "explain", "collectionresource.resourceTypes", "--output=plaintext-openapiv2")
    )
    assert code == 0, err
    assert "Its plural name" in out


async def test_urls_lead_to_documents_that_may_be_kept(stopped: Service) -> None:
    tags = {}
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        for scope in ("", "/clusters/alpha", "/clusters/bravo", "/int"):
            paths = await documents(stopped, scope)
            assert ("apis/shapes.example.io/v1" in paths) is (scope != "/clusters/alpha")
            url = urljoin(stopped.url, paths["apis/apps/v1"])
            assert paths["apis/apps/v1"].startswith(f"{scope}/openapi/v3/apis/apps/v1?hash=")
            async with session.get(url, headers={"Accept-Encoding": "gzip"}) as answer:
                assert answer.status == 200
                assert answer.headers["Content-Encoding"] == "gzip"
                assert answer.headers["Cache-Control"] == "public, immutable"
                assert "Expires" in answer.headers
                tags[scope] = answer.headers["ETag"]
                packed = await answer.read()
            async with session.get(url, headers={"Accept-Encoding": "identity"}) as answer:
                assert "Content-Encoding" not in answer.headers
                text = await answer.read()
            assert gzip.decompress(packed) == text
            assert "io.k8s.api.apps.v1.Deployment" in json.loads(text)["components"]["schemas"]
            async with session.get(url, headers={"If-None-Match": f'"other", {tags[scope]}'}) as answer:
                assert answer.status == 304
            old = url.partition("?")[0] + "?hash=0123"
            async with session.get(old, allow_redirects=False) as answer:
                assert answer.status == 301
                assert answer.headers["Location"] == paths["apis/apps/v1"]
            async with session.get(url.partition("?")[0]) as answer:
                assert "immutable" not in answer.headers["Cache-Control"]
            async with session.get(f"{stopped.url}{scope}/openapi/v3") as answer:
                tag = answer.headers["ETag"]
            async with session.get(f"{stopped.url}{scope}/openapi/v3", headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304
    # Clusters of one version have the same document.
    assert len(set(tags.values())) == 1


async def test_forms_of_version_2_and_what_is_not_there(stopped: Service) -> None:
    async with aiohttp.ClientSession() as session:

        async def get(path: str, accept: str = "*/*") -> tuple[int, str, bytes]:
            async with session.get(stopped.url + path, headers={"Accept": accept}) as answer:
                return answer.status, answer.headers["Content-Type"], await answer.read()

        code, kind, body = await get("/openapi/v2")
        assert (code, kind) == (200, "application/json")
        # The cluster with a type more is the one that is shown.
        assert "io.example.shapes.v1.Widget" in json.loads(body)["definitions"]
        assert (await get("/openapi/v2", "application/json;q=0.5,text/html"))[1] == "application/json"
        for accept in (PROTOBUF, PROTOBUF.replace("@", "."), f"{PROTOBUF},application/json;q=0.9"):
            code, kind, body = await get("/clusters/alpha/openapi/v2", accept)
            assert (code, kind) == (200, PROTOBUF.replace("@", "."))
            assert body.startswith(b"\x0a\x032.0")
        for path in ("/openapi/v2", "/openapi/v3/api/v1"):
            code, kind, body = await get(path, "text/html")
            assert (code, json.loads(body)["kind"]) == (406, "Status")
        for path in ("/openapi", "/openapi/v4", "/openapi/v3/apis/none/v1", "/clusters/zulu/openapi/v3"):
            code, kind, body = await get(path)
            assert (code, json.loads(body)["kind"]) == (404, "Status")
        async with session.post(f"{stopped.url}/openapi/v2") as answer:
            assert answer.status == 405
