"""Requests for one cluster that change something or stream: passed on, and read back here at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import trustme
import yaml
from yarl import URL

from kubebraid.command.broker import EmbeddedBroker
from simulation import SimulatedCluster, write_kubeconfig
from tests.e2e.conftest import Kubectl, Members, Service, Starter, TlsFront, WriteKubeconfig
from tests.patience import PATIENCE
from tests.producers.upstream.servers import HttpProxy, SocksProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


def deployment(name: str, **metadata: Any) -> dict[str, Any]:
    container = {"name": "c", "image": "x"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, **metadata},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"a": name}},
            "template": {"metadata": {"labels": {"a": name}}, "spec": {"containers": [container]}},
        },
    }


Ask = Callable[..., Awaitable[tuple[aiohttp.ClientResponse, Any]]]


@pytest_asyncio.fixture(loop_scope="module")
async def ask(shared_service: Service) -> AsyncIterator[Ask]:
    async with aiohttp.ClientSession() as session:

        async def send(
            method: str,
            path: str,
            body: Any = None,
            *,
            cluster: str = "alpha",
            headers: dict[str, str] | None = None,
            **query: str,
        ) -> tuple[aiohttp.ClientResponse, Any]:
            root = f"{shared_service.url}/clusters/{cluster}" if cluster else shared_service.url
            data = None if body is None else json.dumps(body)
            sent = {"Content-Type": "application/json", **(headers or {})}
            async with session.request(method, root + path, data=data, headers=sent, params=query) as answer:
                text = await answer.read()
                return answer, json.loads(text) if text.startswith(b"{") else text

        yield send


async def test_writers_read_their_own_writes(ask: Ask) -> None:
    for number in range(5):
        name = f"own-{number}"
        answer, made = await ask("POST", DEPLOYMENTS, deployment(name))
        assert answer.status == 201, made
        assert "Warning" not in answer.headers
        # With version 0: what is in memory, without asking the log for its head.
        _, found = await ask("GET", f"{DEPLOYMENTS}/{name}", resourceVersion="0")
        assert found["metadata"]["uid"] == made["metadata"]["uid"]
        # The answer has the version that is read here, so that a client may watch from it.
        assert found["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        assert found["metadata"]["annotations"] == made["metadata"]["annotations"]
        patch = {"metadata": {"labels": {"number": str(number)}}}
        kind = {"Content-Type": "application/merge-patch+json"}
        answer, changed = await ask("PATCH", f"{DEPLOYMENTS}/{name}", patch, headers=kind)
        assert answer.status == 200, changed
        _, listed = await ask("GET", DEPLOYMENTS, cluster="", resourceVersion="0", labelSelector=f"number={number}")
        assert [item["metadata"]["name"] for item in listed["items"]] == [name]
        answer, _ = await ask(
            "PUT", f"{DEPLOYMENTS}/{name}", {**changed, "metadata": {**changed["metadata"], "labels": {}}}
        )
        assert answer.status == 200
        _, listed = await ask("GET", DEPLOYMENTS, resourceVersion="0", labelSelector=f"number={number}")
        assert listed["items"] == []
        answer, _ = await ask("DELETE", f"{DEPLOYMENTS}/{name}")
        assert answer.status == 200
        answer, _ = await ask("GET", f"{DEPLOYMENTS}/{name}", resourceVersion="0")
        assert answer.status == 404


@pytest.mark.parametrize("scope", ["", "/int"], ids=["named", "numbered"])
async def test_what_was_read_here_can_be_written_back(
    ask: Ask, shared_service: Service, shared_members: Members, scope: str
) -> None:
    """As it is, version and all: the cluster takes it at its own version, and refuses it at an older one."""
    name = f"back{scope.replace('/', '-')}"
    await ask("POST", DEPLOYMENTS, deployment(name))
    path = f"{DEPLOYMENTS}/{name}"
    url = f"{shared_service.url}{scope}/clusters/alpha{path}"
    async with aiohttp.ClientSession() as session:

        async def send(method: str, body: Any, kind: str = "application/json") -> tuple[int, dict[str, Any]]:
            sent: dict[str, Any] = (
                {"data": json.dumps(body), "headers": {"Content-Type": kind}} if body is not None else {}
            )
            async with session.request(method, url, **sent) as answer:
                return answer.status, dict(await answer.json())

        async def of_the_cluster() -> dict[str, Any]:
            async with session.get(shared_members["alpha"].url + path) as answer:
                return dict(await answer.json())

        _, read = await send("GET", None)
        changed = {**read, "spec": {**read["spec"], "replicas": 3}}
        code, written = await send("PUT", changed)
        assert (code, written["spec"]["replicas"]) == (200, 3), written
        assert "annotations" not in (await of_the_cluster())["metadata"]
        code, status = await send("PUT", {**changed, "spec": {**read["spec"], "replicas": 9}})
        assert (code, status["reason"]) == (409, "Conflict")
        # On from the answer, without reading again.
        version = written["metadata"]["resourceVersion"]
        assert version == (await send("GET", None))[1]["metadata"]["resourceVersion"]
        for kind in ("merge-patch", "strategic-merge-patch", "json-patch"):
            patch: Any = {"metadata": {"resourceVersion": version, "labels": {"by": kind}}}
            if kind == "json-patch":
                patch = [
                    {"op": "test", "path": "/metadata/resourceVersion", "value": version},
                    {"op": "replace", "path": "/spec/replicas", "value": 5},
                ]
            code, answered = await send("PATCH", patch, f"application/{kind}+json")
            assert code == 200, (kind, answered)
            before, version = version, answered["metadata"]["resourceVersion"]
            assert before != version
        found = await of_the_cluster()
        assert (found["metadata"]["labels"]["by"], found["spec"]["replicas"]) == ("strategic-merge-patch", 5)
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": version}}
        old = {**options, "preconditions": {"resourceVersion": read["metadata"]["resourceVersion"]}}
        code, status = await send("DELETE", old)
        assert (code, status["reason"]) == (409, "Conflict"), status
        code, _ = await send("DELETE", options)
        assert code == 200


async def test_one_write_is_one_event_for_watchers(ask: Ask, shared_service: Service) -> None:
    _, listed = await ask("GET", DEPLOYMENTS)
    version = listed["metadata"]["resourceVersion"]
    await ask("POST", DEPLOYMENTS, deployment("watched"))
    kind = {"Content-Type": "application/merge-patch+json"}
    await ask("PATCH", f"{DEPLOYMENTS}/watched", {"metadata": {"labels": {"x": "y"}}}, headers=kind)
    await ask("DELETE", f"{DEPLOYMENTS}/watched")
    _, marker = await ask("POST", DEPLOYMENTS, deployment("marker"))
    seen = []
    async with (
        aiohttp.ClientSession() as session,
        asyncio.timeout(PATIENCE),
        session.get(
            f"{shared_service.url}/clusters/alpha{DEPLOYMENTS}", params={"watch": "1", "resourceVersion": version}
        ) as answer,
    ):
        async for line in answer.content:
            event = json.loads(line)
            name = event["object"]["metadata"]["name"]
            if name in ("watched", "marker"):
                seen.append((event["type"], name))
            if name == "marker":
                break
    assert seen[-1] == ("ADDED", "marker")
    assert [kind for kind, name in seen if name == "watched"] == ["ADDED", "MODIFIED", "DELETED"]
    await ask("DELETE", f"{DEPLOYMENTS}/marker")
    assert marker["kind"] == "Deployment"


async def test_finalizers_keep_an_object_that_is_deleted(ask: Ask) -> None:
    await ask("POST", DEPLOYMENTS, deployment("held", finalizers=["example.com/hold"]))
    answer, _ = await ask("DELETE", f"{DEPLOYMENTS}/held")
    assert answer.status in (200, 202)
    assert "Warning" not in answer.headers
    _, found = await ask("GET", f"{DEPLOYMENTS}/held", resourceVersion="0")
    assert found["metadata"]["deletionTimestamp"]
    kind = {"Content-Type": "application/merge-patch+json"}
    await ask("PATCH", f"{DEPLOYMENTS}/held", {"metadata": {"finalizers": None}}, headers=kind)
    async with asyncio.timeout(PATIENCE):
        while (await ask("GET", f"{DEPLOYMENTS}/held"))[0].status != 404:
            await asyncio.sleep(0.02)


async def test_subresources_that_answer_with_something_else(ask: Ask) -> None:
    await ask("POST", DEPLOYMENTS, deployment("scaled"))
    answer, scale = await ask("GET", f"{DEPLOYMENTS}/scaled/scale")
    assert (answer.status, scale["kind"]) == (200, "Scale")
    scale["spec"]["replicas"] = 4
    answer, _ = await ask("PUT", f"{DEPLOYMENTS}/scaled/scale", scale)
    assert answer.status == 200
    _, found = await ask("GET", f"{DEPLOYMENTS}/scaled", resourceVersion="0")
    assert found["spec"]["replicas"] == 4
    await ask("DELETE", f"{DEPLOYMENTS}/scaled")


PODS = "/api/v1/namespaces/default/pods"


def pod_of(name: str, **metadata: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "x"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


@pytest.fixture
def late(shared_members: Members) -> Iterator[None]:
    """The cluster's watches tell nothing for a while."""
    shared_members["alpha"].faults.hang_watches()
    yield
    shared_members["alpha"].faults.hang_watches(False)


async def test_what_a_status_does_not_tell_is_read_from_the_cluster(ask: Ask, late: None) -> None:
    """An eviction and a binding are answered with a Status that says nothing of the pod."""
    assert (await ask("POST", PODS, pod_of("bound", finalizers=["example.com/held"])))[0].status == 201
    binding = {
        **{"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"}},
        "target": {"kind": "Node", "name": "alpha-node-1"},
    }
    answer, status = await ask("POST", f"{PODS}/bound/binding", binding)
    assert (answer.status, status["kind"], status["status"]) == (201, "Status", "Success")
    assert "Warning" not in answer.headers
    _, found = await ask("GET", f"{PODS}/bound", resourceVersion="0")
    assert found["spec"]["nodeName"] == "alpha-node-1"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "bound"}}
    answer, status = await ask("POST", f"{PODS}/bound/eviction", eviction)
    assert (answer.status, status["kind"]) == (201, "Status")
    assert "Warning" not in answer.headers
    _, found = await ask("GET", f"{PODS}/bound", resourceVersion="0")
    assert found["metadata"]["deletionTimestamp"]
    kind = {"Content-Type": "application/merge-patch+json"}
    await ask("PATCH", f"{PODS}/bound", {"metadata": {"finalizers": None}}, headers=kind)


async def test_what_an_eviction_removes_at_once_is_gone_or_a_warning_says_so(ask: Ask, shared_members: Members) -> None:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "deleteOptions": {"gracePeriodSeconds": 0}}
    for number in range(10):
        await ask("POST", PODS, pod_of(f"out-{number}"))
        answer, _ = await ask(
            "POST", f"{PODS}/out-{number}/eviction", eviction | {"metadata": {"name": f"out-{number}"}}
        )
        assert (answer.status, "Warning" in answer.headers) == (201, False)
        assert (await ask("GET", f"{PODS}/out-{number}", resourceVersion="0"))[0].status == 404
    await ask("POST", PODS, pod_of("late"))
    faults = shared_members["alpha"].faults
    faults.hang_watches()
    answer, _ = await ask("POST", f"{PODS}/late/eviction", eviction | {"metadata": {"name": "late"}})
    faults.hang_watches(False)
    assert answer.status == 201
    assert answer.headers["Warning"] == '299 kubebraid "alpha has done it, but it cannot be read here yet"'


async def test_answers_in_another_form_are_read_back_too(ask: Ask, late: None) -> None:
    rows = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
    kind = {"Content-Type": "application/merge-patch+json"}
    await ask("POST", DEPLOYMENTS, deployment("in-rows"))
    patch = {"metadata": {"labels": {"in": "rows"}}}
    answer, table = await ask("PATCH", f"{DEPLOYMENTS}/in-rows", patch, headers=rows | kind)
    assert (answer.status, table["kind"]) == (200, "Table")
    assert "Warning" not in answer.headers
    _, found = await ask("GET", f"{DEPLOYMENTS}/in-rows", resourceVersion="0")
    assert found["metadata"]["labels"] == {"in": "rows"}


async def test_many_deleted_at_once(ask: Ask) -> None:
    for number in range(4):
        await ask("POST", DEPLOYMENTS, deployment(f"many-{number}", labels={"many": "yes"}))
    answer, _ = await ask("DELETE", DEPLOYMENTS, labelSelector="many=yes")
    assert answer.status == 200
    _, listed = await ask("GET", DEPLOYMENTS, resourceVersion="0", labelSelector="many=yes")
    assert listed["items"] == []


async def test_what_is_only_tried_changes_nothing(ask: Ask) -> None:
    answer, made = await ask("POST", DEPLOYMENTS, deployment("dry"), dryRun="All")
    assert answer.status == 201
    assert made["metadata"]["name"] == "dry"
    answer, _ = await ask("GET", f"{DEPLOYMENTS}/dry")
    assert answer.status == 404
    await ask("POST", DEPLOYMENTS, deployment("wet"))
    answer, _ = await ask(
        "DELETE", f"{DEPLOYMENTS}/wet", {"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]}
    )
    assert answer.status == 200
    assert "Warning" not in answer.headers
    answer, _ = await ask("GET", f"{DEPLOYMENTS}/wet")
    assert answer.status == 200
    await ask("DELETE", f"{DEPLOYMENTS}/wet")


async def test_refusals_are_the_clusters_own(ask: Ask, shared_members: Members) -> None:
    await ask("POST", DEPLOYMENTS, deployment("twice"))
    answer, status = await ask("POST", DEPLOYMENTS, deployment("twice"))
    assert (answer.status, status["reason"]) == (409, "AlreadyExists")
    await ask("DELETE", f"{DEPLOYMENTS}/twice")
    answer, status = await ask("POST", DEPLOYMENTS, {"kind": "Deployment", "apiVersion": "apps/v1"})
    async with aiohttp.ClientSession() as session:
        own = shared_members["alpha"].url + DEPLOYMENTS
        async with session.post(own, json={"kind": "Deployment", "apiVersion": "apps/v1"}) as direct:
            assert (answer.status, status) == (direct.status, await direct.json())


async def test_at_the_root_the_way_to_do_it_is_told(ask: Ask) -> None:
    for method, path in (("POST", DEPLOYMENTS), ("DELETE", f"{DEPLOYMENTS}/x"), ("PATCH", f"{DEPLOYMENTS}/x")):
        answer, status = await ask(method, path, {}, cluster="")
        assert (answer.status, status["reason"]) == (405, "MethodNotAllowed")
        assert "/clusters/<cluster>" in status["message"]
    answer, status = await ask("GET", "/api/v1/namespaces/default/pods/x/log", cluster="")
    assert answer.status == 405
    assert "/clusters/<cluster>" in status["message"]


async def test_pages_of_other_origins_are_refused(ask: Ask, shared_service: Service) -> None:
    answer, status = await ask("POST", DEPLOYMENTS, deployment("evil"), headers={"Origin": "http://evil.example"})
    assert (answer.status, status["reason"]) == (403, "Forbidden")
    own = {"Origin": shared_service.url}
    answer, _ = await ask("POST", DEPLOYMENTS, deployment("good"), headers=own)
    assert answer.status == 201
    await ask("DELETE", f"{DEPLOYMENTS}/good")


@pytest_asyncio.fixture(loop_scope="module")
async def pod(ask: Ask) -> str:
    _, listed = await ask("GET", "/api/v1/pods", fieldSelector="status.phase=Running", limit="1")
    metadata = listed["items"][0]["metadata"]
    return f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"


async def test_logs_stream(ask: Ask, pod: str, shared_service: Service) -> None:
    answer, text = await ask("GET", f"{pod}/log", tailLines="2")
    assert answer.status == 200
    assert text.count(b"\n") == 2
    async with (
        aiohttp.ClientSession() as session,
        asyncio.timeout(PATIENCE),
        session.get(f"{shared_service.url}/clusters/alpha{pod}/log", params={"follow": "true"}) as answer,
    ):
        while b"number=2" not in await answer.content.readline():
            pass


async def test_proxies_pass_everything_on(ask: Ask, pod: str) -> None:
    answer, told = await ask("GET", f"{pod}/proxy/some/path/", a="1")
    assert told == {"method": "GET", "path": "/some/path/", "query": {"a": "1"}, "body": ""}
    answer, told = await ask("POST", f"{pod}/proxy/x", {"b": 2})
    assert (answer.status, told["body"]) == (201, '{"b": 2}')


async def test_commands_run_over_websocket(pod: str, shared_service: Service) -> None:
    url = f"{shared_service.url}/clusters/alpha{pod}/exec?command=cat&stdin=1&stdout=1&stderr=1"
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
        async with session.ws_connect(url, protocols=["v5.channel.k8s.io"]) as socket:
            assert socket.protocol == "v5.channel.k8s.io"
            blob = bytes(range(256)) * 400
            for _ in range(3):
                await socket.send_bytes(b"\x00" + blob)
                assert await socket.receive_bytes() == b"\x01" + blob
            await socket.send_bytes(b"\xff\x00")
            assert json.loads((await socket.receive_bytes())[1:])["status"] == "Success"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url, protocols=["unheard.of"])
        assert refused.value.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url, origin="http://evil.example", protocols=["v5.channel.k8s.io"])
        assert refused.value.status == 403
    ports = f"{shared_service.url}/clusters/alpha{pod}/portforward?ports=80"
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
        async with session.ws_connect(ports, protocols=["v4.channel.k8s.io"]) as socket:
            assert await socket.receive_bytes() == b"\x00\x50\x00"
            assert await socket.receive_bytes() == b"\x01\x50\x00"
            await socket.send_bytes(b"\x00hello")
            assert await socket.receive_bytes() == b"\x00hello"


async def test_kubectl_changes_and_follows(kubectl: Kubectl, shared_service: Service, tmp_path: Path, pod: str) -> None:
    server = ("--server", f"{shared_service.url}/clusters/bravo")
    manifest = tmp_path / "deployment.yaml"
    made = deployment("by-kubectl")
    made["metadata"]["namespace"] = "default"
    manifest.write_text(yaml.safe_dump(made))
    for arguments, said in (
        (("apply", "-f", str(manifest)), "created"),
        (("apply", "-f", str(manifest)), "unchanged"),
        (("get", "deployment", "by-kubectl", "-o", "name"), "deployment.apps/by-kubectl"),
        (("scale", "deployment", "by-kubectl", "--replicas", "3"), "scaled"),
        (("label", "deployment", "by-kubectl", "color=red"), "labeled"),
        (("annotate", "deployment", "by-kubectl", "why=so"), "annotated"),
        (("get", "deployment", "-l", "color=red", "-o", "jsonpath={.items[0].spec.replicas}"), "3"),
        (("patch", "deployment", "by-kubectl", "-p", '{"spec":{"paused":true}}'), "patched"),
        (("apply", "--server-side", "--force-conflicts", "-f", str(manifest)), "serverside-applied"),
        (("delete", "deployment", "by-kubectl"), "deleted"),
    ):
        code, out, err = await kubectl(*server, *arguments)
        assert code == 0, (arguments, err)
        assert said in out, arguments
    code, _, err = await kubectl(*server, "get", "deployment", "by-kubectl")
    assert code == 1
    assert "NotFound" in err
    code, _, err = await kubectl("--server", shared_service.url, "delete", "deployment", "x")
    assert code == 1
    _, _, _, _, namespace, _, name = pod.split("/")
    at = ("--server", f"{shared_service.url}/clusters/alpha", "-n", namespace)
    code, out, err = await kubectl(*at, "logs", name, "--tail", "1")
    assert (code, out.count("\n")) == (0, 1), err
    code, out, err = await kubectl(*at, "exec", name, "--", "echo", "hello")
    assert (code, out) == (0, "hello\n"), err
    code, out, err = await kubectl(*at, "exec", "-i", name, "--", "cat", input="through and back")
    assert (code, out) == (0, "through and back"), err
    code, _, _ = await kubectl(*at, "exec", name, "--", "exit", "3")
    assert code == 3


async def test_access_reviews(ask: Ask, kubectl: Kubectl, shared_service: Service) -> None:
    async def allowed(*arguments: str, cluster: str = "") -> str:
        server = f"{shared_service.url}/clusters/{cluster}" if cluster else shared_service.url
        _, out, _ = await kubectl("--server", server, "auth", "can-i", *arguments)
        return out.split()[0]

    assert await allowed("list", "pods") == "yes"
    assert await allowed("watch", "deployments.apps") == "yes"
    assert await allowed("create", "pods") == "no"
    assert await allowed("get", "pods", "--subresource", "log") == "no"
    assert await allowed("get", "/version") == "yes"
    assert await allowed("get", "/logs") == "no"
    # A cluster answers for itself.
    assert await allowed("create", "pods", cluster="alpha") == "yes"
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    spec = {"resourceAttributes": {"verb": "list", "group": "", "resource": "*"}}
    answer, review = await ask("POST", path, {"spec": spec}, cluster="")
    assert (answer.status, review["kind"], review["status"]) == (201, "SelfSubjectAccessReview", {"allowed": True})
    for body, code in (({"spec": {}}, 422), ({"spec": 3}, 400), ({"kind": "Pod", "spec": spec}, 400)):
        answer, status = await ask("POST", path, body, cluster="")
        assert (answer.status, status["code"]) == (code, code)
    answer, _ = await ask("POST", path, spec, cluster="", headers={"Content-Type": "text/plain"})
    assert answer.status == 415
    answer, _ = await ask("GET", path, cluster="")
    assert answer.status == 405
    _, out, _ = await kubectl("--server", shared_service.url, "auth", "can-i", "--list")
    assert "[get list watch]" in out


async def test_access_reviews_take_no_bombs(shared_service: Service) -> None:
    """A circle, a few lines that stand for gigabytes, a pit: refused; and what is unknown is not echoed."""
    url = f"{shared_service.url}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    asked = "spec: {resourceAttributes: {verb: list, resource: pods, namespace: n, name: m}}\n"
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    laughs += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    before = shared_service.output().count("Traceback")
    async with aiohttp.ClientSession() as session:
        for text, code in (
            (asked, 201),
            (asked + "a: &a [*a]\n", 400),
            (asked + laughs, 400),
            (asked + f"x: [{'a,' * 500_000}]\n", 413),
            (asked + f"x: {'[' * 30_000}\n", 400),
            # Of so many the C parser would die.
            (asked + f"x: {'[' * 32_000}{']' * 32_000}\n", 400),
            (asked + f"x: {'[' * 400}{']' * 400}\n", 201),
        ):
            async with session.post(url, data=text, headers={"Content-Type": "application/yaml"}) as answer:
                body = await answer.read()
                assert answer.status == code, (text[:100], body[:300])
                if code != 201:
                    assert json.loads(body)["code"] == code
        deep = b'{"spec": {"resourceAttributes": {"verb": "list", "resource": "pods"}}, "x": %b}' % (
            b"[" * 900 + b"]" * 900
        )
        async with session.post(url, data=deep, headers={"Content-Type": "application/json"}) as answer:
            review = await answer.json()
            assert (answer.status, set(review)) == (201, {"kind", "apiVersion", "metadata", "spec", "status"})
            assert review["spec"] == {"resourceAttributes": {"verb": "list", "resource": "pods"}}
    assert shared_service.output().count("Traceback") == before


async def test_watches_over_websocket(ask: Ask, shared_service: Service) -> None:
    url = f"{shared_service.url}/clusters/alpha{DEPLOYMENTS}"
    _, listed = await ask("GET", DEPLOYMENTS)
    query = {"watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
        async with session.ws_connect(url, params=query) as socket:
            await ask("POST", DEPLOYMENTS, deployment("by-socket"))
            event = await socket.receive_json()
            assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "by-socket")
            await ask("DELETE", f"{DEPLOYMENTS}/by-socket")
            while (event := await socket.receive_json())["type"] != "DELETED":
                pass
        async with session.ws_connect(url, params={**query, "timeoutSeconds": "1"}) as socket:
            kinds = [message.type async for message in socket]
            assert set(kinds) <= {aiohttp.WSMsgType.TEXT}
        async with session.ws_connect(url, params={**query, "resourceVersion": "nowhere.1."}) as socket:
            event = await socket.receive_json()
            assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url, params=query, origin="http://evil.example")
        assert refused.value.status == 403


# -- as whom -----------------------------------------------------------------------------------------------------------


async def answer_of(service: Service, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, service.url + path, json=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


@pytest.mark.asyncio(loop_scope="function")
async def test_callers_show_who_they_are(
    tmp_path: Path, start: Starter, tls_front: type[TlsFront], kubeconfig: WriteKubeconfig
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with SimulatedCluster("inner", pods=5, token="right") as cluster:
        async with tls_front(cluster.port, authority.issue_cert("127.0.0.1"), None) as front:
            server = f"https://127.0.0.1:{front.port}"
            config = kubeconfig(tmp_path / "kubeconfig", server, tmp_path / "ca.pem", {"token": "right"})
            service = await start("--kubeconfig", str(config), "--data", str(tmp_path / "data"))
            path = "/clusters/secured" + DEPLOYMENTS
            code, status = await answer_of(service, "POST", path, deployment("one"))
            assert (code, status["reason"]) == (401, "Unauthorized")
            code, _ = await answer_of(service, "POST", path, deployment("one"), Authorization="Bearer right")
            assert code == 201


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_all_goes_through_the_clusters_proxy(
    tmp_path: Path, start: Starter, tls_front: type[TlsFront], kubeconfig: WriteKubeconfig, kind: str
) -> None:
    """What is read, what is written and what runs: the server's name is known to the proxy alone."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with contextlib.AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(SimulatedCluster("inner", pods=5, token="right"))
        front = await stack.enter_async_context(tls_front(cluster.port, authority.issue_cert("api.example.test"), None))
        names = {"api.example.test": front.port}
        proxy: HttpProxy | SocksProxy = HttpProxy(names) if kind == "http" else SocksProxy(names)
        await stack.enter_async_context(proxy.running())
        config = kubeconfig(
            tmp_path / "kubeconfig", "https://api.example.test:6443", tmp_path / "ca.pem", {"token": "right"}
        )
        document = yaml.safe_load(config.read_text())
        document["clusters"][0]["cluster"]["proxy-url"] = f"{kind}://127.0.0.1:{proxy.port}"
        config.write_text(yaml.safe_dump(document))
        service = await start("--kubeconfig", str(config), "--data", str(tmp_path / "data"))
        pods = (await service.get("/api/v1/pods"))["items"]
        assert len(pods) == 5
        headers = {"Authorization": "Bearer right"}
        path = "/clusters/secured" + DEPLOYMENTS
        code, _ = await answer_of(service, "POST", path, deployment("one"), **headers)
        assert code == 201
        before = len(proxy.asked)
        metadata = pods[0]["metadata"]
        run = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/exec?command=cat&stdin=1&stdout=1"
        async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
            url = f"{service.url}/clusters/secured{run}"
            async with session.ws_connect(url, protocols=["v5.channel.k8s.io"], headers=headers) as socket:
                await socket.send_bytes(b"\x00hello")
                assert await socket.receive_bytes() == b"\x01hello"
        assert len(proxy.asked) == before + 1
        assert {one.target for one in proxy.asked} == {"api.example.test:6443"}


@pytest.mark.asyncio(loop_scope="function")
async def test_or_the_kubeconfigs_user_acts(
    tmp_path: Path, start: Starter, tls_front: type[TlsFront], kubeconfig: WriteKubeconfig
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    client = authority.issue_cert("writer@example.com")
    client.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    async with SimulatedCluster("inner", pods=40, token="right") as cluster:
        async with tls_front(cluster.port, authority.issue_cert("127.0.0.1"), authority) as front:
            user = {"client-certificate": "cert.pem", "client-key": "key.pem", "token": "right"}
            config = kubeconfig(tmp_path / "kubeconfig", f"https://127.0.0.1:{front.port}", tmp_path / "ca.pem", user)
            service = await start(
                *("--kubeconfig", str(config), "--data", str(tmp_path / "data"), "--forward", "configured")
            )
            path = "/clusters/secured" + DEPLOYMENTS
            code, _ = await answer_of(service, "POST", path, deployment("one"), Authorization="Bearer wrong")
            assert code == 201
            listed = await service.get("/clusters/secured/api/v1/pods", fieldSelector="status.phase=Running")
            meta = listed["items"][0]["metadata"]
            pod = f"/clusters/secured/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(
                    f"{service.url}{pod}/exec?command=echo&command=secured&stdout=1", protocols=["v5.channel.k8s.io"]
                ) as socket,
            ):
                assert await socket.receive_bytes() == b"\x01secured\n"


@pytest.mark.asyncio(loop_scope="function")
async def test_an_instance_that_only_serves_passes_on_for_those_it_was_given(
    broker: EmbeddedBroker, members: Members, start: Starter
) -> None:
    nats = broker.url
    up = await start("--kubeconfig", str(members.kubeconfig), "--nats", nats, "--forward", "off")
    plain = await start("--nats", nats, command="serve")
    passing = await start(
        *("--nats", nats, "--forward", "caller", "--kubeconfig", str(members.kubeconfig), "--context", "alpha"),
        command="serve",
    )
    for service in (up, plain):
        code, status = await answer_of(service, "POST", "/clusters/alpha" + DEPLOYMENTS, deployment("one"))
        assert code == 405
        assert "--forward" in status["message"]
        code, _ = await answer_of(service, "GET", "/clusters/alpha/api/v1/namespaces/default/pods/x/log")
        assert code == 405
    code, _ = await answer_of(passing, "POST", "/clusters/alpha" + DEPLOYMENTS, deployment("one"))
    assert code == 201
    code, _ = await answer_of(passing, "GET", f"/clusters/alpha{DEPLOYMENTS}/one?resourceVersion=0")
    assert code == 200
    code, status = await answer_of(passing, "POST", "/clusters/bravo" + DEPLOYMENTS, deployment("one"))
    assert (code, status["reason"]) == (503, "ServiceUnavailable")
    assert "none of the clusters" in status["message"]


@pytest.mark.asyncio(loop_scope="function")
async def test_a_cluster_that_is_away_is_told(tmp_path: Path, members: Members, start: Starter) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    listed = await service.get("/clusters/alpha/api/v1/pods", fieldSelector="status.phase=Running")
    meta = listed["items"][0]["metadata"]
    pod = f"/clusters/alpha/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    await members["alpha"].stop()
    for method, path in (("POST", "/clusters/alpha" + DEPLOYMENTS), ("GET", pod + "/log")):
        code, status = await answer_of(service, method, path, deployment("one") if method == "POST" else None)
        assert (code, status["reason"]) == (503, "ServiceUnavailable")
        assert "alpha" in status["message"]
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{service.url}{pod}/exec?command=cat")
        assert refused.value.status == 503
    # What is in memory is served all the same.
    assert (await service.get(pod))["metadata"]["name"] == meta["name"]
    with contextlib.suppress(OSError):
        await members["alpha"].start()


@pytest.mark.asyncio(loop_scope="function")
async def test_of_clusters_names_that_fit_the_longest_is_meant(tmp_path: Path, start: Starter) -> None:
    """As k3s and `oc login` name contexts: writes go to the right cluster, through a router too."""
    names = ("default", "default/api-host:6443/me", "default/api-host:6443")
    async with contextlib.AsyncExitStack() as stack:
        clusters = {
            name: await stack.enter_async_context(SimulatedCluster(name, seed=number, pods=3))
            for number, name in enumerate(names)
        }
        write_kubeconfig(list(clusters.values()), tmp_path / "kubeconfig")
        service = await start("--kubeconfig", str(tmp_path / "kubeconfig"), "--data", str(tmp_path / "data"))
        router = await start("--group", f"ALL={service.url}", command="route")
        for asked in (service, router):
            for name in names:
                for slash in ("/", "%2F"):
                    made = f"to-{asked.url[-2:]}-{len(name)}-{len(slash)}"
                    path = f"/clusters/{name.replace('/', slash)}{DEPLOYMENTS}"
                    async with aiohttp.ClientSession() as session:
                        url = URL(asked.url + path, encoded=True)
                        async with session.post(url, json=deployment(made)) as answer:
                            assert answer.status == 201, await answer.text()
                        async with session.get(URL(f"{asked.url}{path}/{made}", encoded=True)) as answer:
                            annotations = (await answer.json())["metadata"]["annotations"]
                            assert annotations["shadow.clusterpedia.io/cluster-name"] == name
                        for other, cluster in clusters.items():
                            async with session.get(f"{cluster.url}{DEPLOYMENTS}/{made}") as answer:
                                assert answer.status == (200 if other == name else 404), (name, other)
