"""Discovery as kubebraid answers it: lists and the aggregated form, the union of all clusters and one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.conftest import Service

pytestmark = pytest.mark.asyncio(loop_scope="module")
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList"
V2, V2BETA1 = AGGREGATED.format("v2"), AGGREGATED.format("v2beta1")
# What client-go has asked for since 1.30.
CLIENT_GO = f"{V2},{V2BETA1},application/json"


Ask = Callable[..., Awaitable[tuple[aiohttp.ClientResponse, Any]]]


@pytest_asyncio.fixture(loop_scope="module")
async def ask(shared_service: Service) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession() as session:

        async def get(
            path: str, accept: str = "application/json", **headers: str
        ) -> tuple[aiohttp.ClientResponse, Any]:
            sent = {"Accept": accept, **{name.replace("_", "-"): value for name, value in headers.items()}}
            async with session.get(shared_service.url + path, headers=sent) as answer:
                return answer, await answer.json() if answer.status != 304 else None

        yield get


@pytest.mark.parametrize("scope", ["", "/clusters/alpha", "/int", "/int/clusters/alpha"])
async def test_lists_and_the_aggregated_form_say_the_same(ask: Ask, scope: str) -> None:
    _, core = await ask(f"{scope}/api")
    assert (core["kind"], core["versions"]) == ("APIVersions", ["v1"])
    _, groups = await ask(f"{scope}/apis")
    assert groups["kind"] == "APIGroupList"
    listed: dict[tuple[str, str], dict[str, list[str]]] = {}
    for group in [{"name": "", "versions": [{"groupVersion": "v1"}]}, *groups["groups"]]:
        for version in group["versions"]:
            root = f"/apis/{version['groupVersion']}" if group["name"] else f"/api/{version['groupVersion']}"
            _, resources = await ask(scope + root)
            assert (resources["kind"], resources["groupVersion"]) == ("APIResourceList", version["groupVersion"])
            listed[group["name"], version["groupVersion"].split("/")[-1]] = {
                one["name"]: one["verbs"] for one in resources["resources"]
            }
        if group["name"]:
            _, alone = await ask(f"{scope}/apis/{group['name']}")
            assert alone == {"kind": "APIGroup", "apiVersion": "v1", **group}
    for accept, version in ((CLIENT_GO, "v2"), (V2, "v2"), (V2BETA1, "v2beta1"), (f"{V2BETA1},{V2}", "v2beta1")):
        aggregated: dict[tuple[str, str], dict[str, list[str]]] = {}
        for path in ("/api", "/apis"):
            answer, found = await ask(scope + path, accept)
            # Only by this does a client know the form.
            assert answer.headers["Content-Type"] == AGGREGATED.format(version)
            assert (found["kind"], found["apiVersion"]) == ("APIGroupDiscoveryList", f"apidiscovery.k8s.io/{version}")
            for item in found["items"]:
                for one in item["versions"]:
                    assert one["freshness"] == "Current"
                    types = aggregated[item["metadata"].get("name", ""), one["version"]] = {}
                    for resource in one["resources"]:
                        types[resource["resource"]] = resource["verbs"]
                        for below in resource.get("subresources", ()):
                            types[f"{resource['resource']}/{below['subresource']}"] = below["verbs"]
        assert aggregated == listed


async def test_what_is_known_is_not_sent_again(ask: Ask) -> None:
    for scope in ("", "/clusters/alpha"):
        for path in ("/api", "/apis", "/api/v1", "/apis/apps"):
            for accept in (CLIENT_GO, "application/json"):
                answer, _ = await ask(scope + path, accept)
                assert answer.headers["Vary"] == "Accept"
                again, nothing = await ask(scope + path, accept, If_None_Match=answer.headers["ETag"])
                assert (again.status, nothing) == (304, None)
                other, _ = await ask(scope + path, accept, If_None_Match='"other"')
                assert other.status == 200
    plain, _ = await ask("/apis")
    aggregated, _ = await ask("/apis", CLIENT_GO)
    assert plain.headers["ETag"] != aggregated.headers["ETag"]


async def test_verbs_are_those_that_are_answered(ask: Ask) -> None:
    """Reading what is synced at the root; below a cluster all that the cluster itself offers."""
    for scope, wanted in (("", False), ("/clusters/alpha", True)):
        _, found = await ask(f"{scope}/api/v1")
        verbs = {one["name"]: set(one["verbs"]) for one in found["resources"]}
        assert {"get", "list", "watch"} <= verbs["pods"]
        assert ({"create", "update", "patch", "delete", "deletecollection"} <= verbs["pods"]) is wanted
        assert ({"pods/log", "pods/exec", "pods/status"} <= set(verbs)) is wanted
        assert ("secrets" in verbs) is wanted


async def test_what_is_not_there(ask: Ask) -> None:
    for scope in ("", "/clusters/alpha"):
        for path in ("/apis/unheard.of", "/apis/unheard.of/v1", "/apis/apps/v9", "/api/v9", "/apis/apps/v1/unheard"):
            answer, status = await ask(scope + path)
            assert (answer.status, status["reason"]) == (404, "NotFound"), scope + path
    for path in ("/logs", "/.well-known/openid-configuration", "/clusters/zulu/api"):
        answer, _ = await ask(path)
        assert answer.status == 404
