"""resourceVersion on the wire: 410, 504, waiting, exact lists, pages, bookmarks, initial events."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml
from multidict import CIMultiDictProxy

from tests import processes
from tests.e2e.conftest import Kubectl, Members, Service
from tests.patience import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def service(shared_service: Service) -> Service:
    return shared_service


@pytest.fixture
def members(shared_members: Members) -> Members:
    return shared_members


Ask = Callable[..., Awaitable[tuple[int, CIMultiDictProxy[str], Any]]]


@pytest_asyncio.fixture(loop_scope="module")
async def ask(service: Service) -> AsyncIterator[Ask]:
    """GET with any status: (status, headers, JSON)."""
    async with aiohttp.ClientSession() as session:

        async def get(
            path: str, headers: dict[str, str] | None = None, **query: str
        ) -> tuple[int, CIMultiDictProxy[str], Any]:
            async with session.get(service.url + path, params=query, headers=headers) as answer:
                return answer.status, answer.headers, json.loads(await answer.read())

        yield get


async def moved_on(ask: Ask, path: str, version: str) -> None:
    """Returns when the log has something that came after a list's version."""
    index = int(version.rpartition(".")[2] or version)
    async with asyncio.timeout(PATIENCE):
        while True:
            _, _, found = await ask(path, limit="1")
            if int(found["metadata"]["resourceVersion"].rpartition(".")[2]) > index:
                return
            await asyncio.sleep(0.05)


async def watch_lines(
    service: Service, path: str, seconds: float = 3.0, headers: dict[str, str] | None = None, **query: str
) -> tuple[int, list[dict[str, Any]]]:
    """The events of a watch that the server ends after `seconds`, and the status of the answer."""
    query = {"watch": "1", "timeoutSeconds": str(int(seconds)), **query}
    async with (
        aiohttp.ClientSession(read_bufsize=2**22) as session,
        session.get(service.url + path, params=query, headers=headers) as answer,
    ):
        body = await answer.read()
        return answer.status, [json.loads(line) for line in body.splitlines()]


@pytest.mark.parametrize(
    "version", ["abc", "1", "x.y", "deadbeef.5", "....", "a.-1", "a.1e3", "%00", "a.99999999999999999999"]
)
async def test_odd_and_foreign_versions_expire(service: Service, ask: Ask, version: str) -> None:
    status, _, answer = await ask("/api/v1/pods", resourceVersion=version)
    assert (status, answer["kind"], answer["reason"], answer["code"]) == (410, "Status", "Expired", 410)
    # A watch that begins and ends with an ERROR event: several clients know an expired version by nothing else.
    status, events = await watch_lines(service, "/api/v1/pods", resourceVersion=version)
    assert (status, [event["type"] for event in events]) == (200, ["ERROR"])
    assert (events[0]["object"]["reason"], events[0]["object"]["code"]) == ("Expired", 410)


async def test_a_list_ahead_of_the_log_times_out_and_a_watch_waits(service: Service, ask: Ask) -> None:
    _, _, found = await ask("/api/v1/pods", limit="1")
    prefix, index = found["metadata"]["resourceVersion"].split(".")
    ahead = f"{prefix}.{int(index) + 1_000_000}"
    status, headers, answer = await ask("/api/v1/pods", resourceVersion=ahead)
    assert (status, answer["reason"], answer["details"]["retryAfterSeconds"]) == (504, "Timeout", 1)
    assert answer["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert headers["Retry-After"] == "1"
    assert await watch_lines(service, "/api/v1/pods", seconds=1, resourceVersion=ahead) == (200, [])


async def test_pages_are_one_snapshot(service: Service, ask: Ask, members: Members) -> None:
    _, _, first = await ask("/api/v1/pods", limit="50")
    whole = 50 + first["metadata"]["remainingItemCount"]
    members["alpha"].churn.step(30)
    await asyncio.sleep(1)
    keys = [item["metadata"]["uid"] for item in first["items"]]
    page = first
    while token := page["metadata"].get("continue"):
        _, _, page = await ask("/api/v1/pods", **{"limit": "50", "continue": token})
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        keys += [item["metadata"]["uid"] for item in page["items"]]
    assert len(keys) == len(set(keys)) == whole


async def test_continue_tokens_that_are_none(ask: Ask) -> None:
    for token in ("nonsense", "e30", "****"):
        status, _, answer = await ask("/api/v1/pods", **{"limit": "5", "continue": token})
        assert (status, answer["reason"]) == (400, "BadRequest"), token


async def test_pages_go_on_after_a_restart(service: Service, ask: Ask, members: Members) -> None:
    """Of the state of the first one, from the events since then: the snapshot that they came from is gone."""
    _, _, first = await ask("/api/v1/pods", limit="50")
    token, version = first["metadata"]["continue"], first["metadata"]["resourceVersion"]
    await service.stop()
    await service.start()
    await service.ready()
    members["alpha"].churn.step(5)
    await moved_on(ask, "/api/v1/pods", version)
    status, _, page = await ask("/api/v1/pods", **{"limit": "500", "continue": token})
    assert (status, page["metadata"]) == (200, {"resourceVersion": version})
    assert len(page["items"]) == first["metadata"]["remainingItemCount"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"resourceVersionMatch": "Exact"}, 422),
        ({"resourceVersionMatch": "Nonsense", "resourceVersion": "0"}, 422),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422),
        ({"sendInitialEvents": "true"}, 422),
        ({"watch": "1", "sendInitialEvents": "true"}, 422),
        ({"watch": "1", "resourceVersionMatch": "NotOlderThan"}, 422),
        ({"limit": "many"}, 400),
        ({"timeoutSeconds": "1.5", "watch": "1"}, 400),
        ({"labelSelector": "a in ("}, 400),
        ({"labelSelector": "a==b=c"}, 400),
        ({"fieldSelector": "spec..color=red"}, 400),
        ({"fieldSelector": "metadata.name=a=b"}, 400),
        ({"continue": "abc", "resourceVersion": "5"}, 400),
    ],
)
async def test_options_that_do_not_go(ask: Ask, query: dict[str, str], code: int) -> None:
    status, headers, answer = await ask("/api/v1/pods", **query)
    assert (status, answer["kind"], answer["code"]) == (code, "Status", code)
    assert headers["Content-Type"].startswith("application/json")


async def test_exact_lists(ask: Ask, members: Members) -> None:
    _, _, found = await ask("/api/v1/configmaps")
    version = found["metadata"]["resourceVersion"]
    status, _, again = await ask("/api/v1/configmaps", resourceVersion=version, resourceVersionMatch="Exact")
    assert status == 200
    assert again == found
    prefix, _ = version.split(".")
    # The log has what happened since its first message, so that is known, too.
    status, _, first = await ask("/api/v1/pods", resourceVersion=f"{prefix}.1", resourceVersionMatch="Exact")
    assert (status, first["items"]) == (200, [])
    status, _, _ = await ask("/api/v1/pods", resourceVersion="another.1", resourceVersionMatch="Exact")
    assert status == 410


async def test_initial_events_end_with_their_bookmark(service: Service) -> None:
    status, events = await watch_lines(
        service,
        "/api/v1/namespaces",
        seconds=1,
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
    )
    assert status == 200
    types = [event["type"] for event in events]
    end = types.index("BOOKMARK")
    assert set(types[:end]) == {"ADDED"}
    bookmark = events[end]["object"]
    assert bookmark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert (bookmark["kind"], bookmark["apiVersion"]) == ("Namespace", "v1")


async def test_a_watch_ends_with_a_bookmark_of_the_whole_log(service: Service, ask: Ask, members: Members) -> None:
    _, _, found = await ask("/api/v1/persistentvolumes")
    watching = asyncio.create_task(
        watch_lines(
            service,
            "/api/v1/persistentvolumes",
            seconds=5,
            resourceVersion=found["metadata"]["resourceVersion"],
            allowWatchBookmarks="true",
        )
    )
    members["alpha"].churn.step(20)
    status, events = await watching
    assert status == 200
    assert events[-1]["type"] == "BOOKMARK"
    last = int(events[-1]["object"]["metadata"]["resourceVersion"].split(".")[1])
    assert last > int(found["metadata"]["resourceVersion"].split(".")[1]), "a quiet type's watch moves with the log"


async def test_what_leaves_and_enters_a_selector(service: Service, ask: Ask, members: Members) -> None:
    alpha = members["alpha"]
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "moving", "namespace": "default", "labels": {"side": "in"}},
        "data": {"n": "1"},
    }
    path = "/api/v1/namespaces/default/configmaps"
    _, _, found = await ask(path)
    query = {"watch": "1", "resourceVersion": found["metadata"]["resourceVersion"], "labelSelector": "side=in"}
    merge = {"Content-Type": "application/merge-patch+json"}
    indexes: list[int] = []
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{service.url}/clusters/alpha{path}", params=query) as watching,
        asyncio.timeout(PATIENCE),
    ):

        async def shows(kind: str) -> None:
            event = json.loads(await watching.content.readline())
            assert event["type"] == kind
            indexes.append(int(event["object"]["metadata"]["resourceVersion"].split(".")[1]))

        async with session.post(alpha.url + path, json=body) as answer:
            assert answer.status == 201
        await shows("ADDED")
        for patch, kind in (
            ({"data": {"n": "2"}}, "MODIFIED"),
            ({"metadata": {"labels": {"side": "out"}}}, "DELETED"),
            ({"metadata": {"labels": {"side": "in"}}}, "ADDED"),
        ):
            async with session.patch(f"{alpha.url}{path}/moving", data=json.dumps(patch), headers=merge) as answer:
                assert answer.status == 200
            await shows(kind)
        async with session.delete(f"{alpha.url}{path}/moving") as answer:
            assert answer.status == 200
        await shows("DELETED")
    assert indexes == sorted(set(indexes))


async def test_metadata_and_table_forms(service: Service, ask: Ask) -> None:
    _, _, found = await ask(
        "/api/v1/pods",
        headers={"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"},
        limit="3",
    )
    assert found["kind"] == "PartialObjectMetadataList"
    assert all(set(item) == {"kind", "apiVersion", "metadata"} for item in found["items"])
    _, _, table = await ask(
        "/api/v1/pods", headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}, limit="3"
    )
    assert table["kind"] == "Table"
    assert [column["name"] for column in table["columnDefinitions"]][:3] == ["Cluster", "Name", "Ready"]
    assert len(table["rows"]) == 3
    assert all(len(row["cells"]) == len(table["columnDefinitions"]) for row in table["rows"])
    status, _, answer = await ask("/api/v1/pods", headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert (status, answer["reason"]) == (406, "NotAcceptable")


async def test_http_1_0(shared_service: Service) -> None:
    """Old proxies: a watch ends with its connection, a list has its length."""
    for query in ("watch=1&timeoutSeconds=1", "limit=1"):
        reader, writer = await asyncio.open_connection("127.0.0.1", shared_service.port)
        writer.write(f"GET /api/v1/namespaces?{query} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 200 OK" in head.splitlines()[0]
        assert json.loads(body.splitlines()[0])["kind" if "limit" in query else "type"] in ("NamespaceList", "ADDED")


async def test_a_selector_of_many_names(ask: Ask) -> None:
    names = ",".join(f"app-{number}" for number in range(5000))
    status, _, answer = await ask("/api/v1/pods", labelSelector=f"app in ({names})")
    assert (status, answer["items"]) == (200, [])


# -- other forms -----------------------------------------------------------------------------------------------------


async def listed_there(members: Members, name: str, path: str) -> tuple[str, list[dict[str, Any]]]:
    """A list as the cluster itself gives it: its version, and the items."""
    async with aiohttp.ClientSession() as session, session.get(members[name].url + path) as answer:
        found = await answer.json()
        return found["metadata"]["resourceVersion"], found["items"]


async def test_watches_go_on_from_the_clusters_own_versions(service: Service, ask: Ask, members: Members) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    alpha, bravo = members["alpha"].url, members["bravo"].url
    async with aiohttp.ClientSession() as session:

        async def write(method: str, url: str, body: object = None) -> None:
            headers = {"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
            async with session.request(method, url, json=body, headers=headers) as answer:
                assert answer.status < 300, await answer.text()

        for name in ("stays", "goes"):
            await write("POST", alpha + path, {"metadata": {"name": f"v-{name}"}})
        version, _ = await listed_there(members, "alpha", path)
        other, _ = await listed_there(members, "bravo", path)
        await write("PATCH", f"{alpha}{path}/v-stays", {"data": {"a": "b"}})
        await write("DELETE", f"{alpha}{path}/v-goes")
        await write("POST", alpha + path, {"metadata": {"name": "v-new"}})
        await write("POST", bravo + path, {"metadata": {"name": "v-bravo"}})
        await write("DELETE", f"{bravo}{path}/v-bravo")
        await write("POST", bravo + path, {"metadata": {"name": "v-last"}})
    # All of that is in the log when the last one of each cluster is.
    async with asyncio.timeout(PATIENCE):
        while True:
            _, _, found = await ask(path)
            if {"v-new", "v-last"} <= {item["metadata"]["name"] for item in found["items"]}:
                break
            await asyncio.sleep(0.05)

    def shown(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return sorted((event["type"], event["object"]["metadata"]["name"]) for event in events)

    alone = [("ADDED", "v-new"), ("DELETED", "v-goes"), ("MODIFIED", "v-stays")]
    text = json.dumps({"alpha": version})
    for one in (text, base64.b64encode(text.encode()).decode()):
        status, events = await watch_lines(service, path, 1, resourceVersion=one)
        assert (status, shown(events)) == (200, alone)
    _, events = await watch_lines(service, path, 1, resourceVersion=json.dumps({"alpha": version, "bravo": other}))
    both = {*alone, ("ADDED", "v-last")}
    assert both <= set(shown(events)) <= {*both, ("DELETED", "v-bravo")}
    _, events = await watch_lines(service, f"/clusters/alpha{path}", 1, resourceVersion=text)
    assert shown(events) == alone
    _, events = await watch_lines(service, path, 1, resourceVersion=json.dumps({}))
    assert events == []
    # And on from there, by the version of the last event.
    last = max((event["object"]["metadata"]["resourceVersion"] for event in events), default="")
    if last:
        _, events = await watch_lines(service, path, 1, resourceVersion=last)
        assert events == []


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("{", 400),
        ('{"alpha":1}', 400),
        (base64.b64encode(b'{"alpha":').decode(), 400),
        ('{"alpha":"1"}', 410),
        ('{"alpha":"abc"}', 410),
        ('{"nobody":"5"}', 410),
    ],
)
async def test_cluster_versions_that_do_not_go(service: Service, ask: Ask, version: str, code: int) -> None:
    status, events = await watch_lines(service, "/api/v1/pods", 1, resourceVersion=version)
    told = events[0] if status != 200 else events[0]["object"]
    assert told["code"] == code
    if code == 400:
        status, _, answer = await ask("/api/v1/pods", resourceVersion=version)
        assert (status, answer["reason"]) == (400, "BadRequest")


async def test_a_list_waits_for_the_clusters_own_versions(service: Service, ask: Ask, members: Members) -> None:
    version, _ = await listed_there(members, "alpha", "/api/v1/pods")
    status, _, found = await ask("/api/v1/pods", resourceVersion=json.dumps({"alpha": str(int(version) + 10_000_000)}))
    assert (status, found["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")
    newest = max(
        int(one["metadata"]["resourceVersion"]) for one in (await listed_there(members, "alpha", "/api/v1/pods"))[1]
    )
    status, _, found = await ask("/api/v1/pods", resourceVersion=json.dumps({"alpha": str(newest)}))
    assert status == 200


async def test_versions_that_are_numbers(service: Service, ask: Ask, members: Members) -> None:
    _, _, named = await ask("/api/v1/pods")
    status, _, found = await ask("/int/api/v1/pods")
    assert status == 200
    assert int(found["metadata"]["resourceVersion"]) >= int(named["metadata"]["resourceVersion"].split(".")[1])
    for item, other in zip(found["items"], named["items"], strict=True):
        _, index, original = other["metadata"]["resourceVersion"].split(".")
        assert item["metadata"]["resourceVersion"] == index
        assert item["metadata"]["annotations"]["kubebraid.io/original-resource-version"] == original
        assert item["spec"] == other["spec"]
    one = found["items"][0]["metadata"]
    cluster = one["annotations"]["shadow.clusterpedia.io/cluster-name"]
    path = f"/int/clusters/{cluster}/api/v1/namespaces/{one['namespace']}/pods/{one['name']}"
    _, _, alone = await ask(path)
    assert alone == {"kind": "Pod", "apiVersion": "v1", **found["items"][0]}
    members[cluster].churn.step(10)
    version = found["metadata"]["resourceVersion"]
    await moved_on(ask, "/int/api/v1/pods", version)
    _, events = await watch_lines(service, "/int/api/v1/pods", 2, resourceVersion=version, allowWatchBookmarks="true")
    assert events
    numbers = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert numbers == sorted(numbers)
    assert (events[0]["type"], numbers[0]) == ("BOOKMARK", int(version))
    assert numbers[1] > int(version)
    # Named ones are taken too, and pages and tables have numbers.
    status, _, _ = await ask("/int/api/v1/pods", resourceVersion=named["metadata"]["resourceVersion"])
    assert status == 200
    _, _, page = await ask("/int/api/v1/pods", limit="7")
    _, _, page = await ask("/int/api/v1/pods", **{"limit": "7", "continue": page["metadata"]["continue"]})
    assert page["metadata"]["resourceVersion"].isdigit()
    for form in ("Table", "PartialObjectMetadataList"):
        accept = {"Accept": f"application/json;as={form};v=v1;g=meta.k8s.io"}
        _, _, found = await ask("/int/api/v1/pods", headers=accept)
        first = found["rows"][0]["object"] if form == "Table" else found["items"][0]
        assert first["metadata"]["resourceVersion"].isdigit()
    status, _, _ = await ask("/int/api/v1/pods", resourceVersion="0017")
    assert status == 410


async def test_names_that_are_not_wanted(ask: Ask) -> None:
    _, _, found = await ask("/api/v1/namespaces")
    names = [item["metadata"]["name"] for item in found["items"]]
    _, _, found = await ask("/api/v1/namespaces", fieldSelector=f"metadata.name!={names[0]}")
    assert names[0] not in [item["metadata"]["name"] for item in found["items"]]
    assert found["items"]


async def test_contexts_with_numbers_for_consoles_that_parse_versions(
    shared_service: Service, kubectl: Kubectl, tmp_path: Path
) -> None:
    """Headlamp drops an update where parseInt of its version is not above that of the list."""
    _, out, _ = await processes.run("kubeconfig", "--int", "--server", shared_service.url)
    file = tmp_path / "numbers"
    file.write_text(out)
    contexts = [one["name"] for one in yaml.safe_load(out)["contexts"]]
    assert contexts == ["kubebraid-int", "kubebraid-int-alpha", "kubebraid-int-bravo"]
    for context in contexts:
        given = ("--kubeconfig", str(file), "--context", context)
        code, listed, err = await kubectl(*given, "get", "pods", "-A", "-o", "json")
        assert code == 0, err
        items = json.loads(listed)["items"]
        assert items
        assert all(item["metadata"]["resourceVersion"].isdecimal() for item in items)
    # As they are elsewhere, a parser of numbers finds none.
    version = (await shared_service.get("/api/v1/pods", limit="1"))["metadata"]["resourceVersion"]
    assert not version[0].isdigit()
