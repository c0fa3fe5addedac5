"""What a request may ask for and gets: media types of one object, a list and a watch; methods; parameters; probes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.conftest import Service

pytestmark = pytest.mark.asyncio(loop_scope="module")
JSON, YAML = "application/json", "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
CBOR = "application/cbor"
META = ";v={};g=meta.k8s.io"
TABLE, TABLE_BETA = (f"{JSON};as=Table{META.format(version)}" for version in ("v1", "v1beta1"))
ONE, ONE_BETA = (f"{JSON};as=PartialObjectMetadata{META.format(version)}" for version in ("v1", "v1beta1"))
MANY, MANY_BETA = (f"{JSON};as=PartialObjectMetadataList{META.format(version)}" for version in ("v1", "v1beta1"))


Ask = Callable[..., Awaitable[tuple[int, str, bytes]]]


@pytest_asyncio.fixture(loop_scope="module")
async def ask(shared_service: Service) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession() as session:

        async def send(
            path: str, accept: str | None = JSON, method: str = "GET", **query: str
        ) -> tuple[int, str, bytes]:
            headers = {} if accept is None else {"Accept": accept}
            async with session.request(
                method, shared_service.url + path, params=query, headers=headers, skip_auto_headers=("Accept",)
            ) as answer:
                return answer.status, answer.headers.get("Content-Type", ""), await answer.read()

        yield send


@pytest_asyncio.fixture(loop_scope="module")
async def paths(shared_service: Service) -> dict[str, str]:
    metadata = (await shared_service.get("/api/v1/pods"))["items"][0]["metadata"]
    return {"list": "/api/v1/pods", "one": f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"}


@pytest.mark.parametrize(
    ("accept", "one", "many"),
    [
        (None, ("Pod", "v1"), ("PodList", "v1")),
        ("*/*", ("Pod", "v1"), ("PodList", "v1")),
        (JSON, ("Pod", "v1"), ("PodList", "v1")),
        (TABLE, ("Table", "meta.k8s.io/v1"), ("Table", "meta.k8s.io/v1")),
        (TABLE_BETA, ("Table", "meta.k8s.io/v1beta1"), ("Table", "meta.k8s.io/v1beta1")),
        # As kubectl asks.
        (f"{TABLE},{TABLE_BETA},{JSON}", ("Table", "meta.k8s.io/v1"), ("Table", "meta.k8s.io/v1")),
        (ONE, ("PartialObjectMetadata", "meta.k8s.io/v1"), None),
        (ONE_BETA, ("PartialObjectMetadata", "meta.k8s.io/v1beta1"), None),
        (MANY, None, ("PartialObjectMetadataList", "meta.k8s.io/v1")),
        (MANY_BETA, None, ("PartialObjectMetadataList", "meta.k8s.io/v1beta1")),
        # Go clients of built-in types, and metadata clients: they take the second best.
        (f"{PROTOBUF},{JSON}", ("Pod", "v1"), ("PodList", "v1")),
        (f"{ONE.replace(JSON, PROTOBUF)},{ONE}", ("PartialObjectMetadata", "meta.k8s.io/v1"), None),
        (f"{CBOR},{JSON}", ("Pod", "v1"), ("PodList", "v1")),
        (PROTOBUF, None, None),
        (CBOR, None, None),
        ("text/html", None, None),
        (f"{JSON};as=Table;v=v2;g=meta.k8s.io", None, None),
    ],
)  # fmt: skip
async def test_media_types(
    ask: Ask, paths: dict[str, str], accept: str, one: tuple[str, str] | None, many: tuple[str, str] | None
) -> None:
    for scope in ("", "/clusters/alpha", "/clusters/bravo"):
        for path, wanted in ((paths["one"], one), (paths["list"], many)):
            code, content_type, body = await ask(scope + path, accept)
            found = json.loads(body)
            if code == 404:
                # The one pod is in one of the two clusters.
                assert (scope, path) != ("", paths["list"])
                continue
            assert content_type.startswith(JSON)
            if wanted is None:
                assert (code, found["reason"]) == (406, "NotAcceptable")
            else:
                assert (code, (found["kind"], found["apiVersion"])) == (200, wanted)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (JSON, "Pod"),
        (f"{JSON};stream=watch", "Pod"),
        (TABLE, "Table"),
        (ONE, "PartialObjectMetadata"),
        (ONE_BETA, "PartialObjectMetadata"),
        (f"{ONE.replace(JSON, PROTOBUF)},{ONE},{JSON}", "PartialObjectMetadata"),
        (MANY, "PartialObjectMetadata"),
        (f"{PROTOBUF};stream=watch,{JSON};stream=watch", "Pod"),
        (PROTOBUF, None),
        (YAML, None),
    ],
)
async def test_media_types_of_watches(ask: Ask, accept: str, kind: str | None) -> None:
    code, content_type, body = await ask("/api/v1/pods", accept, watch="1", timeoutSeconds="1")
    if kind is None:
        assert (code, json.loads(body)["reason"] if content_type == JSON else "NotAcceptable") == (406, "NotAcceptable")
        return
    assert (code, content_type) == (200, JSON)
    assert {json.loads(line)["object"]["kind"] for line in body.splitlines()} == {kind}


V2 = f"{JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2_BETA = V2.replace("v2", "v2beta1")


@pytest.mark.parametrize(
    ("accept", "lists", "root"),
    [
        ("", "list", "list"),
        ("*/*", "list", "list"),
        ("application/*", "list", "list"),
        (f"{JSON};q=0.5,text/html", "list", "list"),
        (f"{JSON};q=0.5,{YAML}", "yaml", "yaml"),
        (PROTOBUF, "list", "list"),
        (f"{V2},{V2_BETA},{JSON}", "list", "v2"),
        (f"{V2_BETA},{JSON}", "list", "v2beta1"),
        (f"{V2};q=0.1,{JSON}", "list", "list"),
        (f"{V2.replace('v2', 'v9')},{V2_BETA}", None, "v2beta1"),
        (V2, None, "v2"),
        (V2.replace("apidiscovery", "other"), None, None),
        (V2.replace("v2", "v9"), None, None),
        (TABLE, None, None),
        ("text/html", None, None),
        ("garbage", None, None),
    ],
)
async def test_media_types_of_discovery(ask: Ask, accept: str, lists: str | None, root: str | None) -> None:
    for scope in ("", "/clusters/alpha"):
        for path in ("/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1"):
            wanted = root if path in ("/api", "/apis") else lists
            code, content_type, body = await ask(scope + path, accept)
            if wanted is None:
                assert (code, json.loads(body)["reason"]) == (406, "NotAcceptable"), path
                continue
            assert code == 200, path
            if wanted == "yaml":
                assert content_type.startswith(YAML)
                assert b"kind: API" in body
                continue
            found = json.loads(body)
            if wanted == "list":
                assert content_type.startswith(JSON)
                assert "as=" not in content_type
                assert found["kind"] in ("APIVersions", "APIGroupList", "APIGroup", "APIResourceList")
            else:
                assert content_type == V2.replace("v2", wanted)
                assert (found["kind"], found["apiVersion"]) == (
                    "APIGroupDiscoveryList",
                    f"apidiscovery.k8s.io/{wanted}",
                )


@pytest.mark.parametrize(
    ("accept", "code"), [("", 200), (TABLE, 200), (V2, 200), (PROTOBUF, 200), ("text/html", 406), ("garbage", 406)]
)
async def test_media_types_of_the_version(ask: Ask, accept: str, code: int) -> None:
    assert (await ask("/version", accept))[0] == code


async def test_methods(ask: Ask, paths: dict[str, str]) -> None:
    """GET alone at the root; no HEAD, as in a kube-apiserver."""
    for method in ("POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"):
        for path in (*paths.values(), "/api", "/apis", "/version", "/clusters", "/openapi/v3"):
            code, _, _ = await ask(path, JSON, method)
            assert code == 405, (method, path)


async def test_probes_by_any_method(ask: Ask) -> None:
    for path in ("/livez", "/readyz", "/healthz", "/metrics", "/livez/ping", "/readyz/ping", "/healthz/ping"):
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            code, content_type, body = await ask(path, None, method)
            assert (code, content_type.split(";")[0], bool(body)) == (200, "text/plain", method != "HEAD"), (
                method,
                path,
            )
    for name in ("livez", "healthz"):
        _, _, body = await ask(f"/{name}", None, verbose="")
        assert body == f"[+]ping ok\n{name} check passed\n".encode()
    assert (await ask("/livez/unheard", None))[0] == 404


async def test_parameters_that_say_nothing_here(ask: Ask, paths: dict[str, str]) -> None:
    """Unknown ones are ignored, and those of other verbs, as a kube-apiserver does."""
    for query in ({"unheard": "of"}, {"timeoutSeconds": "1"}, {"allowWatchBookmarks": "true"}, {"dryRun": "All"}):
        code, _, body = await ask("/api/v1/pods", **query)
        assert (code, len(json.loads(body)["items"])) == (200, 120)
    for query in ({"watch": "true"}, {"limit": "1"}, {"exact": "true"}, {"labelSelector": "no=one"}):
        code, _, body = await ask(paths["one"], **query)
        assert (code, json.loads(body)["kind"]) == (200, "Pod")


async def test_one_object_at_least_as_new(ask: Ask, paths: dict[str, str]) -> None:
    _, _, body = await ask(paths["one"])
    version = json.loads(body)["metadata"]["resourceVersion"]
    for given in ("0", version, version.rsplit(".", 1)[0]):
        code, _, again = await ask(paths["one"], resourceVersion=given)
        assert (code, again) == (200, body)
    prefix, index, _ = version.split(".")
    code, _, body = await ask(paths["one"], resourceVersion=f"{prefix}.{int(index) + 10**9}")
    assert (code, json.loads(body)["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")
    code, _, body = await ask(paths["one"], resourceVersion="another.1")
    assert (code, json.loads(body)["reason"]) == (410, "Expired")


async def test_probes(ask: Ask) -> None:
    for scope in ("", "/clusters/alpha", "/int"):
        for name in ("livez", "readyz", "healthz"):
            assert (await ask(f"{scope}/{name}"))[::2] == (200, b"ok")
    code, _, body = await ask("/readyz", verbose="")
    assert code == 200
    assert b"[+]cluster alpha ok\n[+]cluster bravo ok\nreadyz check passed" in body
    code, content_type, body = await ask("/metrics")
    assert (code, content_type.split(";")[0]) == (200, "text/plain")
    assert b"kubebraid_requests_total" in body
    code, _, body = await ask("/")
    assert "/openapi/v3" in json.loads(body)["paths"]
    code, _, body = await ask("/version")
    assert "+kubebraid-" in json.loads(body)["gitVersion"]
    code, _, body = await ask("/clusters")
    assert [one["name"] for one in json.loads(body)["clusters"]] == ["alpha", "bravo"]
