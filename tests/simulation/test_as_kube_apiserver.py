"""What a kube-apiserver 1.36 does to the letter: bytes, texts of refusals, every event of a change."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.simulation.conftest import Client, MakeConfigMap, Start

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
CERTIFICATES = "/apis/certs.example.io/v1/certificates"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def body(client: Client, path: str, **params: str) -> bytes:
    async with client.session.get(client.cluster.url + path, params=params) as response:
        assert response.status == 200
        return await response.read()


def pod(name: str, node: str | None = "alpha-node-000") -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": "a", "image": "b"}]}
    return {"metadata": {"name": name}, "spec": {**spec, "nodeName": node} if node else spec}


async def test_bytes_of_built_in_types(client: Client, config_map: MakeConfigMap) -> None:
    await client.create(MAPS, config_map("a", x="<&>\u2028"))
    one = await body(client, f"{MAPS}/a")
    assert one.startswith(b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"default","uid":"')
    # encoding/json escapes what HTML could take for its own.
    assert one.endswith(b',"data":{"x":"\\u003c\\u0026\\u003e\\u2028"}}\n')
    listed = await body(client, MAPS, fieldSelector="metadata.name=a")
    assert listed.startswith(b'{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"')
    item = one.replace(b'"kind":"ConfigMap","apiVersion":"v1",', b"")[:-1]
    assert listed.endswith(b'},"items":[' + item + b"]}\n")
    async with client.watch(MAPS, fieldSelector="metadata.name=a") as stream:
        assert await stream.response.content.readline() == b'{"type":"ADDED","object":' + one[:-1] + b"}\n"


async def test_metadata_is_escaped_as_well(client: Client, config_map: MakeConfigMap) -> None:
    made = config_map("a")
    made["metadata"]["annotations"] = {"text": "<&>"}
    await client.create(MAPS, made)
    headers = {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
    async with client.session.get(f"{client.cluster.url}{MAPS}/a", headers=headers) as response:
        assert b'"annotations":{"text":"\\u003c\\u0026\\u003e"}' in await response.read()


async def test_custom_resources_are_maps_by_name(client: Client) -> None:
    listed = await body(client, CERTIFICATES, limit="1")
    assert list(json.loads(listed)) == ["apiVersion", "items", "kind", "metadata"]
    assert list(json.loads(listed)["metadata"]) == ["continue", "remainingItemCount", "resourceVersion"]
    whole = json.loads(await body(client, CERTIFICATES))
    assert whole["metadata"]["continue"] == ""
    metadata = whole["items"][0]["metadata"]
    path = CERTIFICATES.replace("certificates", f"namespaces/{metadata['namespace']}/certificates/{metadata['name']}")
    changes = {"dummy": "test", "metadata": {"annotations": {"resourceVersion": "1"}}}
    changed = await client.patch(path, changes)

    def by_name(value: Any) -> None:
        if isinstance(value, dict):
            assert list(value) == sorted(value)
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            by_name(one)

    by_name(changed)
    assert list(changed) == ["apiVersion", "dummy", "kind", "metadata", "spec", "status"]
    async with client.watch(CERTIFICATES, resourceVersion=changed["metadata"]["resourceVersion"]) as stream:
        await client.delete(path)
        [gone] = await stream.take(1)
    by_name(gone["object"])
    # The annotation of that name is none.
    changed["metadata"]["resourceVersion"] = str(client.cluster.storage.version)
    assert gone == {"type": "DELETED", "object": changed}


async def test_nothing_is_to_be_kept(client: Client) -> None:
    for path, params in ((MAPS, {}), (f"{MAPS}/absent", {}), ("/version", {}), (MAPS, {"watch": "1"}), ("/livez", {})):
        async with client.session.get(client.cluster.url + path, params=params) as response:
            assert response.headers["Cache-Control"] == "no-cache, private", path


@pytest.mark.parametrize(
    ("node", "grace", "told"),
    [
        ("alpha-node-000", 0, [("MODIFIED", 0), ("DELETED", 0)]),
        (None, None, [("MODIFIED", 0), ("DELETED", 0)]),
        ("alpha-node-000", 7, [("MODIFIED", 7), ("MODIFIED", 0), ("DELETED", 0)]),
        ("alpha-node-000", None, [("MODIFIED", 30), ("MODIFIED", 0), ("DELETED", 0)]),
    ],
)
async def test_events_of_a_pods_deletion(
    client: Client, node: str | None, grace: int | None, told: list[tuple[str, int]]
) -> None:
    made = await client.create(PODS, pod("a", node))
    async with client.watch(PODS, resourceVersion=made["metadata"]["resourceVersion"]) as stream:
        await client.delete(f"{PODS}/a", None if grace is None else {"gracePeriodSeconds": grace})
        events = await stream.take(len(told))
    seen = [(event["type"], event["object"]["metadata"]["deletionGracePeriodSeconds"]) for event in events]
    assert seen == told
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    assert client.cluster.storage.get(("", "pods"), "default", "a") is None


async def test_the_last_finalizer_is_followed_by_the_deletion_alone(client: Client, config_map: MakeConfigMap) -> None:
    held = config_map("a")
    held["metadata"]["finalizers"] = ["example.io/hold"]
    made = await client.create(MAPS, held)
    async with client.watch(MAPS, resourceVersion=made["metadata"]["resourceVersion"]) as stream:
        await client.delete(f"{MAPS}/a")
        await client.patch(f"{MAPS}/a", {"metadata": {"finalizers": None}})
        await client.create(MAPS, config_map("b"))
        marked, gone, other = await stream.take(3)
    assert (marked["type"], gone["type"], other["type"]) == ("MODIFIED", "DELETED", "ADDED")
    # What was stored last.
    assert gone["object"]["metadata"]["finalizers"] == ["example.io/hold"]


@pytest.mark.parametrize("version", [None, "0"])
async def test_initial_events_end_where_they_were_not_asked_for(client: Client, version: str | None) -> None:
    params = {"allowWatchBookmarks": "1", **({} if version is None else {"resourceVersion": version})}
    async with client.watch(MAPS, **params) as stream:
        first, end = await stream.take(2)
    assert (first["type"], end["type"]) == ("ADDED", "BOOKMARK")
    assert end["object"]["metadata"] == {
        "resourceVersion": str(client.cluster.storage.version),
        "annotations": {"k8s.io/initial-events-end": "true"},
    }
    # By the path of former times the parameter `watch` is missing, and with it the default.
    async with client.session.get(
        client.cluster.url + MAPS.replace("/v1/", "/v1/watch/"), params={**params, "timeoutSeconds": "1"}
    ) as response:
        events = [json.loads(line) async for line in response.content]
    assert [event["type"] for event in events] == ["ADDED"]


async def test_initial_events_of_a_version_ahead(start: Start) -> None:
    client = await start(version_wait=0.05)
    ahead = client.cluster.storage.version + 5
    params = {"sendInitialEvents": "1", "resourceVersionMatch": "NotOlderThan", "resourceVersion": str(ahead)}
    async with client.watch(MAPS, **params) as stream:
        [error] = await stream.rest()
    assert error["type"] == "ERROR"
    status = error["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 504, "Timeout")
    assert status["message"] == f"Timeout: Too large resource version: {ahead}, current: {ahead - 5}"


async def test_initial_events_have_no_table(client: Client) -> None:
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    params = {"watch": "1", "sendInitialEvents": "1", "resourceVersionMatch": "NotOlderThan"}
    bookmarked = {**params, "allowWatchBookmarks": "1"}

    async def first(accept: str, params: dict[str, str]) -> tuple[int, Any]:
        async with client.session.get(client.cluster.url + MAPS, params=params, headers={"Accept": accept}) as response:
            return response.status, json.loads(await response.content.readline())

    assert (await first(table, bookmarked))[0] == 406
    status, event = await first(f"{table},application/json", bookmarked)
    assert (status, event["object"]["kind"]) == (200, "ConfigMap")
    status, event = await first(table, params)
    assert (status, event["object"]["kind"]) == (200, "Table")


def token(**fields: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("path", "params", "message"),
    [
        (MAPS, {"limit": ""}, 'strconv.ParseInt: parsing "": invalid syntax'),
        (MAPS, {"limit": "+"}, 'strconv.ParseInt: parsing "+": invalid syntax'),
        (MAPS, {"limit": "9223372036854775808"}, 'strconv.ParseInt: parsing "9223372036854775808": value out of range'),
        (MAPS, {"timeoutSeconds": "", "watch": "1"}, 'strconv.ParseInt: parsing "": invalid syntax'),
        (
            MAPS.replace("/v1/", "/v1/watch/") + "/a",
            {"fieldSelector": "metadata.name=b"},
            "fieldSelector metadata.name doesn't match requested name",
        ),
        (
            MAPS.replace("/v1/", "/v1/watch/") + "/a",
            {"fieldSelector": "metadata.namespace=default"},
            "fieldSelector metadata.name doesn't match requested name",
        ),
        (
            MAPS,
            {"resourceVersion": "x"},
            'invalid resource version: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": '
            "invalid syntax",
        ),
        (
            MAPS,
            {"continue": token(v="v9", rv=1, start="a")},
            "invalid continue token: continue key is not valid: server does not recognize this encoded version v9",
        ),
        (
            MAPS,
            {"continue": token(v="meta.k8s.io/v1", start="a")},
            "invalid continue token: continue key is not valid: incorrect encoded start resourceVersion "
            "(version meta.k8s.io/v1)",
        ),
        (
            MAPS,
            {"continue": token(v="meta.k8s.io/v1", rv=1)},
            "invalid continue token: continue key is not valid: encoded start key empty (version meta.k8s.io/v1)",
        ),
        (
            MAPS,
            {"continue": token(v="meta.k8s.io/v1", rv=1, start="a/../b")},
            "invalid continue token: continue key is not valid: a/../b",
        ),
        (
            MAPS,
            {"continue": token(v="meta.k8s.io/v1", rv=1, start="a"), "resourceVersion": "1"},
            "specifying resource version is not allowed when using continue",
        ),
    ],
)
async def test_texts_of_bad_requests(client: Client, path: str, params: dict[str, str], message: str) -> None:
    status, error = await client.request("GET", path, params=params)
    assert (status, error["reason"], error["message"]) == (400, "BadRequest", message)


async def test_a_watch_of_one_object_may_name_it_again(client: Client, config_map: MakeConfigMap) -> None:
    await client.create(MAPS, config_map("a"))
    await client.create(MAPS, config_map("b"))
    path = MAPS.replace("/v1/", "/v1/watch/") + "/a"
    async with client.watch(path, fieldSelector="metadata.name=a,metadata.namespace=default") as stream:
        [first] = await stream.take(1)
    assert first["object"]["metadata"]["name"] == "a"


async def test_a_watch_from_what_is_no_version_is_an_internal_error(client: Client) -> None:
    status, error = await client.request("GET", MAPS, params={"watch": "1", "resourceVersion": "x"})
    assert status == error["code"] == 500
    assert "reason" not in error
    assert error["message"] == ('resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax')


@pytest.mark.parametrize(
    ("params", "causes"),
    [
        (
            {"resourceVersionMatch": "Odd", "sendInitialEvents": "1"},
            [
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
                'resourceVersionMatch: Unsupported value: "Odd": supported values: "Exact", "NotOlderThan", ""',
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ],
        ),
        (
            {"sendInitialEvents": ""},
            ["sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"],
        ),
        (
            {"watch": "1", "sendInitialEvents": "", "resourceVersionMatch": "Exact"},
            [
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to "
                "NotOlderThan",
                'resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"',
            ],
        ),
    ],
)
async def test_texts_of_what_does_not_go_together(client: Client, params: dict[str, str], causes: list[str]) -> None:
    status, error = await client.request("GET", MAPS, params=params)
    assert (status, error["reason"]) == (422, "Invalid")
    told = causes[0] if len(causes) == 1 else f"[{', '.join(causes)}]"
    assert error["message"] == f'ListOptions.meta.k8s.io "" is invalid: {told}'
    assert [f"{cause['field']}: {cause['message']}" for cause in error["details"]["causes"]] == causes


async def test_version_zero_is_never_paged(client: Client) -> None:
    for match in ({}, {"resourceVersionMatch": "NotOlderThan"}):
        listed = await client.get("/api/v1/pods", resourceVersion="0", limit="3", **match)
        assert len(listed["items"]) == 40
        assert "continue" not in listed["metadata"]
    version = listed["metadata"]["resourceVersion"]
    listed = await client.get("/api/v1/pods", resourceVersion=version, limit="3", resourceVersionMatch="NotOlderThan")
    assert len(listed["items"]) == 3


async def test_a_token_from_the_future_is_waited_for(start: Start) -> None:
    client = await start(version_wait=0.05)
    ahead = token(v="meta.k8s.io/v1", rv=client.cluster.storage.version + 5, start="a\x00")
    status, error = await client.request("GET", MAPS, params={"continue": ahead})
    assert (status, error["reason"]) == (504, "Timeout")


@pytest.mark.parametrize("change", ["versions", "deletion"])
async def test_a_definition_that_changes_or_goes_ends_its_watches(client: Client, change: str) -> None:
    path = f"{CRDS}/certificates.certs.example.io"
    version = str(client.cluster.storage.version)
    async with client.watch(CERTIFICATES, resourceVersion=version) as stream:
        if change == "deletion":
            count = len((await client.get(CERTIFICATES))["items"])
            await client.delete(path)
            assert [event["type"] for event in await stream.rest()] == ["DELETED"] * count
            assert (await client.request("GET", CERTIFICATES))[0] == 404
        else:
            versions = (await client.get(path))["spec"]["versions"]
            await client.patch(
                path, {"spec": {"versions": [*versions, {**versions[0], "name": "v2", "storage": False}]}}
            )
            assert await stream.rest() == []
            assert (await client.get(CERTIFICATES.replace("/v1/", "/v2/")))["items"]
