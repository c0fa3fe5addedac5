"""A router before guarded instances: who asks gets through it what they would get from the instances, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from deltalog.wire.subjects import CLUSTER, SYNCED, TYPE
from tests.patience import PATIENCE
from tests.query.access.guarded import DISCOVERY, KINDS, RBAC, World
from tests.query.scene import Answers
from tests.route.guarded_instances import CONSOLE, PEOPLE, Authorities, Guarded, guarded
from tests.route.worlds import answers_of, requests, world

RULES = frozenset((RBAC, one) for one in ("roles", "rolebindings", "clusterroles", "clusterrolebindings"))


class PartOfWorld(World):
    """A log with some types, and the rules that are needed to know who may see them."""

    kept = frozenset(KINDS)

    def add(self, cluster: str, *, synced: bool = True) -> None:
        for group, resource in self.kept:
            kind, namespaced = KINDS[group, resource]
            self.control(TYPE, cluster, resource, group, data={"kind": kind, "version": "v1", "namespaced": namespaced})
        self.control(CLUSTER, cluster, data={"version": {"major": "1"}})
        for group, resource in self.kept:
            self.control(SYNCED, cluster, resource, group, data={"version": "1"})

    def put(self, cluster: str, resource: str, name: str, namespace: str = "", group: str = "", **body: Any) -> None:
        if (group, resource) in self.kept:
            super().put(cluster, resource, name, namespace, group, **body)


class Pods(PartOfWorld):
    kept = RULES | {("", "pods")}


class Rest(PartOfWorld):
    kept = RULES | (frozenset(KINDS) - {("", "pods")})


@contextlib.asynccontextmanager
async def parts(directory: Path, hidden: int = 1) -> AsyncIterator[Guarded]:
    """The same world in two logs: pods, and all other types."""
    async with guarded(directory, pods=world(hidden, Pods), rest=world(hidden, Rest)) as made:
        yield made


async def names(user: Answers, path: str) -> set[str]:
    return {item["metadata"]["name"] for item in (await user.json(path))["items"]}


def resources(document: dict[str, Any]) -> set[str]:
    return {one["name"] for one in document["resources"]}


@pytest.mark.slow
async def test_one_group_answers_as_its_instance_does(tmp_path: Path) -> None:
    """All kinds of requests, by a certificate and by a token: the same status, bytes and warnings."""
    async with guarded(tmp_path, all=world(1)) as made:
        direct = made.instances["all"].url
        asked = [one for one in list(requests())[::5] if one[1] not in ("/readyz", "/clusters", "/clusters?verbose")]
        assert len(asked) > 500
        for way in ("certificate", "token"):
            codes: dict[int, int] = {}
            through, straight = [
                await (made.certified("jane", url) if way == "certificate" else made.client(url, token="jane"))
                for url in ("", direct)
            ]
            for request, here, there in await answers_of(through, straight, asked):
                assert here == there, (way, request)
                codes[here[0]] = codes.get(here[0], 0) + 1
            assert {200, 400, 403, 404, 410} <= codes.keys(), codes


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_what_is_hidden_changes_no_byte(tmp_path: Path, seed: int) -> None:
    """Two worlds, each in two logs, that differ in what jane may not see."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    async with parts(tmp_path / "one", 0) as one, parts(tmp_path / "other", seed) as other:
        asked = list(requests())[seed::4]
        codes: dict[int, int] = {}
        here, there = await one.certified("jane"), await other.certified("jane")
        for request, first, second in await answers_of(here, there, asked):
            assert first == second, request
            codes[first[0]] = codes.get(first[0], 0) + 1
        assert {200, 400, 403, 404, 410} <= codes.keys(), codes


async def test_users_get_their_own(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        jane, by_token = await made.certified("jane"), await made.client(token="jane")
        root, nobody, mallory = await made.certified("root"), await made.client(), await made.certified("mallory")
        # Two groups have alpha's and bravo's rules: each decides alike.
        for user in (jane, by_token):
            assert {"owned", "database"} <= await names(user, "/clusters/alpha/api/v1/pods")
            assert await names(user, "/clusters/bravo/api/v1/namespaces/web/pods") == {"same", "bravo-a", "bravo-b"}
            status = await user.json("/clusters/bravo/api/v1/namespaces/db/pods", code=403)
            assert status["message"] == (
                'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "db"'
            )
            who = await _reviewed(user, "authentication.k8s.io", "selfsubjectreviews", {})
            assert who["userInfo"]["username"] == "jane"
            found = {one["name"] for one in (await user.json("/clusters"))["clusters"]}
            assert found == {"alpha", "bravo"}
            assert "groups" not in await user.json("/clusters")
        everything = await root.json("/clusters")
        assert set(everything["groups"]) == {"pods", "rest"}
        assert resources(await root.json("/api/v1")) == {"pods", "namespaces"} == resources(await jane.json("/api/v1"))
        # One group has the rules of all clusters, which the other one has as well.
        assert await names(root, f"/apis/{RBAC}/v1/clusterroles")
        status = await nobody.json("/api/v1", code=401)
        assert (status["message"], status["reason"]) == ("Unauthorized", "Unauthorized")
        for path in ("/", "/clusters", "/metrics", "/readyz?verbose", "/apis", "/openapi/v3", "/clusters/none/api"):
            assert await nobody.json(path, code=401) == status, path
        refused = await mallory.json("/api/v1/pods", code=403)
        assert refused["message"].startswith('pods is forbidden: User "mallory" cannot list resource "pods"')


async def _reviewed(user: Answers, group: str, resource: str, spec: dict[str, Any]) -> dict[str, Any]:
    path = f"{user.url}/apis/{group}/v1/{resource}"
    async with user.session.post(path, json={"apiVersion": f"{group}/v1", "spec": spec}) as answer:
        assert answer.status == 201, await answer.text()
        status: dict[str, Any] = (await answer.json())["status"]
        return status


async def test_rights_are_those_of_all_groups(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        jane = await made.certified("jane")

        async def may(resource: str, group: str = "", verb: str = "list") -> bool:
            spec = {"resourceAttributes": {"verb": verb, "group": group, "resource": resource}}
            found = await _reviewed(jane, "authorization.k8s.io", "selfsubjectaccessreviews", spec)
            return bool(found["allowed"])

        assert await may("pods")
        assert await may("replicasets", "apps")
        assert not await may("secrets")
        assert not await may("pods", verb="delete")
        rules = await _reviewed(jane, "authorization.k8s.io", "selfsubjectrulesreviews", {"namespace": "web"})
        assert {one for each in rules["resourceRules"] for one in each["resources"]} >= {"pods", "replicasets"}
        texts = [json.dumps(each, sort_keys=True) for each in rules["resourceRules"]]
        assert len(texts) == len(set(texts))


async def test_where_instances_are_is_for_who_looks_after_them(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        places = [one.url for one in made.instances.values()]
        for name in ("root", "prometheus"):
            for user in (await made.certified(name), await made.client(token=name)):
                _, text = await user.text("/metrics")
                assert all(place.encode() in text for place in places)
                status, text = await user.text("/readyz?verbose")
                assert (status, b"group pods" in text) == (200, True)
        jane, nobody = await made.certified("jane"), await made.client()
        status, text = await jane.text("/metrics")
        assert (status, json.loads(text)["message"]) == (403, 'forbidden: User "jane" cannot get path "/metrics"')
        status, text = await jane.text("/readyz?verbose")
        assert status == 200
        assert b"[+]cluster alpha ok" in text
        assert b"group" not in text
        await made.instances["rest"].stop()
        await made.until_ready(ready=False)
        assert await nobody.text("/readyz") == (503, b"[-]not all groups are ready\nreadyz check failed\n")
        assert (await nobody.text("/livez"))[0] == 200
        for user in (jane, nobody):
            for path in ("/api/v1/namespaces", "/apis/apps/v1/replicasets", "/readyz?verbose", "/clusters/alpha/x"):
                _, text = await user.text(path)
                assert not any(place.encode() in text for place in places), text
                assert b"rest" not in text


async def test_what_is_remembered_is_the_callers_own(tmp_path: Path) -> None:
    """Of a group that is down: discovery as this caller had it, as long as others know who that is."""
    async with parts(tmp_path) as made:
        rest = made.instances["rest"]
        # Mallory may not even know that there is alpha, nor which APIs it has.
        rest.world.put("alpha", "clusterrolebindings", "discovery", group=RBAC, gone=True)
        rest.world.cluster_role("alpha", "of-jane", DISCOVERY, to="user:jane")
        jane, by_token, root = (
            await made.certified("jane"),
            await made.client(token="jane"),
            await made.certified("root"),
        )
        before = {}
        paths = ("/apis", "/apis/apps/v1", "/clusters/alpha/apis/apps/v1")
        for path in paths:
            before[path] = await jane.json(path)
            assert await by_token.json(path) == before[path]
        admins = await root.json("/apis")
        late, mallory = await made.certified("dora"), await made.certified("mallory")
        await mallory.json("/clusters/alpha/apis/apps/v1", code=403)
        await rest.stop()
        await made.until_ready(ready=False)
        for path in paths:
            assert await jane.json(path) == before[path]
            assert await by_token.json(path) == before[path]
        assert await root.json("/apis") == admins
        # Who asks for the first time gets nothing of what others had.
        assert (await late.json("/apis", code=503))["reason"] == "ServiceUnavailable"
        for user in (late, mallory):
            await user.json("/clusters/alpha/apis/apps/v1", code=503)
        # In somebody else's name it is somebody else who asks.
        impersonating = await made.client(
            context=made.authorities.context("root", PEOPLE["root"]), headers={"Impersonate-User": "jane"}
        )
        await impersonating.json("/apis", code=503)
        await (await made.client()).json("/apis", code=401)
        await (await made.client(token="jane-no-more")).json("/apis", code=401)
        # Nobody else knows any more whether they are who they were.
        await made.instances["pods"].stop()
        for user in (jane, by_token, root):
            await user.json("/apis", code=503)


async def test_callers_cannot_say_who_they_are(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        claims = {"X-Remote-User": "root", "X-Remote-Group": "system:masters", "x-remote-extra-a": "b"}
        await (await made.client(headers=claims)).json("/api/v1/pods", code=401)
        for jane in (
            await made.client(token="jane", headers=claims),
            await made.client(context=made.authorities.context("jane"), headers=claims),
            # By the certificate, whatever stands beside it, as at an instance.
            await made.client(context=made.authorities.context("jane"), token="root", headers=claims),
            await made.client(
                context=made.authorities.context("jane"), headers={**claims, "Connection": "X-Remote-User"}
            ),
        ):
            for path in ("/api/v1", "/api/v1/pods", "/clusters"):
                await jane.json(path)
            assert (await jane.json("/clusters/bravo/api/v1/pods", code=403))["message"].startswith(
                'pods is forbidden: User "jane" cannot list'
            )
        # The one who impersonates has to have that right.
        for name, code in (("root", 200), ("jane", 403)):
            user = await made.client(
                context=made.authorities.context(name, PEOPLE[name]), headers={"Impersonate-User": "jane"}
            )
            await user.json("/clusters/alpha/api/v1/pods", code=code)
        as_jane = await made.client(token="root", headers={"Impersonate-User": "jane"})
        who = await _reviewed(as_jane, "authentication.k8s.io", "selfsubjectreviews", {})
        assert who["userInfo"]["username"] == "jane"
        assert {one["name"] for one in (await as_jane.json("/clusters"))["clusters"]} == {"alpha", "bravo"}


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("root ", None),
        ("mallory", " system:masters"),
        ("mallory\r\nX-Remote-Group: system:masters", None),
        ("a\tb ", "x"),
    ],
)
async def test_names_that_no_header_can_say(tmp_path: Path, name: str, group: str | None) -> None:
    """A space at the end of a header is none of its value: the authority signed for somebody else."""
    async with parts(tmp_path) as made:
        user = await made.client(context=made.authorities.context(name, [group] if group else ()))
        for path in ("/api/v1/pods", "/clusters", "/metrics"):
            await user.json(path, code=401)


async def test_names_of_any_alphabet(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        user = await made.client(context=made.authorities.context("Дора Ünal", ["Grüße"]))
        found = (await _reviewed(user, "authentication.k8s.io", "selfsubjectreviews", {}))["userInfo"]
        assert (found["username"], found["groups"]) == ("Дора Ünal", ["Grüße", "system:authenticated"])
        assert list(found["extra"]) == ["authentication.kubernetes.io/credential-id"]
        # As a WebSocket, too, whose head another one writes.
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await user.session.ws_connect(f"{user.url}/clusters/alpha/api/v1/pods?watch=1")
        assert refused.value.status == 403


async def test_certificates_that_do_not_hold(tmp_path: Path) -> None:
    """401, but for a token beside it."""
    async with parts(tmp_path) as made:
        strange = made.authorities.context("root", ["system:masters"], made.authorities.strangers)
        assert (await (await made.client(context=strange)).json("/clusters", code=401))["message"] == "Unauthorized"
        await (await made.client(context=strange, headers={"Authorization": "Basic cm9vdDpyb290"})).json(
            "/clusters", code=401
        )
        await (await made.client(context=strange, token="none")).json("/clusters", code=401)
        await (await made.client(context=strange, token="jane")).json("/clusters/bravo/api/v1/pods", code=403)
        # The router's own is of an authority that names no users here.
        own = made.authorities.context("router", (), made.authorities.proxies)
        await (await made.client(context=own, headers={"X-Remote-User": "root"})).json("/clusters", code=401)


async def test_the_routers_certificate_is_not_its_callers(tmp_path: Path) -> None:
    """Also where one authority signs for users and for the router, callers are not taken for it."""
    authority = trustme.CA()

    class Shared(Authorities):
        def __init__(self, directory: Path) -> None:
            super().__init__(directory)
            self.users = self.proxies = authority
            for name in ("users", "proxies"):
                authority.cert_pem.write_to_path(str(self.file(f"{name}.crt")))
            self.front()

    async with guarded(tmp_path, authorities=Shared(tmp_path), all=world(1)) as made:
        await (await made.client()).json("/clusters", code=401)
        await (await made.client(token="none")).json("/clusters", code=401)
        who = await _reviewed(await made.client(token="jane"), "authentication.k8s.io", "selfsubjectreviews", {})
        assert who["userInfo"]["username"] == "jane"


async def test_watches(tmp_path: Path) -> None:
    """Each sees their own, over HTTP and over WebSocket, and ends once what they may see has changed."""
    async with parts(tmp_path) as made:
        jane, by_token = await made.certified("jane"), await made.client(token="jane")
        pods = made.instances["pods"].world
        path = "/clusters/alpha/api/v1/pods"
        version = (await jane.json(path))["metadata"]["resourceVersion"]
        watching = f"{path}?watch=1&resourceVersion={version}"
        async with asyncio.timeout(PATIENCE):
            async with contextlib.AsyncExitStack() as stack:
                sockets = [
                    await stack.enter_async_context(user.session.ws_connect(user.url + watching))
                    for user in (jane, by_token)
                ]
                encoded = "base64url.bearer.authorization.k8s.io.dG9rZW4tb2YtamFuZQ"
                nobody = await made.client()
                protocols = (encoded, "base64.binary.k8s.io")
                sockets.append(
                    await stack.enter_async_context(
                        nobody.session.ws_connect(nobody.url + watching, protocols=protocols)
                    )
                )
                lines = [
                    await stack.enter_async_context(user.session.get(user.url + watching)) for user in (jane, by_token)
                ]
                pods.pod("alpha", "web", "new")
                for socket in sockets:
                    event = json.loads((await socket.receive()).data)
                    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "new")
                for answer in lines:
                    assert json.loads(await answer.content.readline())["object"]["metadata"]["name"] == "new"
                pods.put("alpha", "clusterrolebindings", "pods", group=RBAC, gone=True)
                for answer in lines:
                    assert json.loads(await answer.content.readline())["object"]["code"] == 410
                    assert not await answer.content.read()
                for socket in sockets:
                    assert json.loads((await socket.receive()).data)["object"]["code"] == 410
            for user in (jane, by_token):
                await user.json(watching, code=403)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await jane.session.ws_connect(jane.url + watching)
            assert refused.value.status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError) as unknown:
                await nobody.session.ws_connect(nobody.url + watching)
            assert unknown.value.status == 401


async def test_the_routers_certificate_and_authority_change(tmp_path: Path) -> None:
    """Files are read anew: new connections have what they say by then, watches stay."""
    async with parts(tmp_path) as made:
        authorities, jane = made.authorities, await made.certified("jane")
        path = "/clusters/alpha/api/v1/pods"
        version = (await jane.json(path))["metadata"]["resourceVersion"]
        async with jane.session.get(f"{jane.url}{path}?watch=1&resourceVersion={version}") as watch:
            # A key that is not the certificate's: what was there before stays.
            before = authorities.file("front.key").read_bytes()
            authorities.strangers.issue_cert(common_name="x").private_key_pem.write_to_path(
                str(authorities.file("front.key"))
            )
            await asyncio.sleep(1.1)
            await jane.json("/clusters")
            assert authorities.file("front.key").read_bytes() != before
            # One that no instance believes, and then a good one.
            authorities.front(authorities.strangers)
            await _until(made, jane, 401)
            authorities.front()
            await _until(made, jane, 200)
            # Another authority of servers, beside the first, as the instances' certificates come to be of it.
            authorities.servers = trustme.CA()
            with authorities.file("servers.crt").open("ab") as bundle:
                bundle.write(authorities.servers.cert_pem.bytes())
            authorities.serve()
            await _until(made, jane, 200)
            made.instances["pods"].world.pod("alpha", "web", "new")
            async with asyncio.timeout(PATIENCE):
                assert json.loads(await watch.content.readline())["object"]["metadata"]["name"] == "new"


async def _until(made: Guarded, user: Answers, code: int) -> None:
    """Waits until new connections to instances get this answer."""
    async with asyncio.timeout(PATIENCE):
        while True:
            status, _ = await user.text("/clusters")
            if status == code:
                return
            await asyncio.sleep(0.1)


async def test_many_clusters(tmp_path: Path) -> None:
    """What instances would send compressed, as it is large, is read all the same."""
    made_of = world(1)
    for number in range(600):
        made_of.add(f"cluster-{number:04}")
    async with guarded(tmp_path, one=made_of) as made:
        root = await made.certified("root")
        status, body = await root.text("/clusters")
        assert status == 200
        assert len(body) > 256 * 1024
        assert len(json.loads(body)["clusters"]) > 600
        assert made.router.groups.ready


async def test_pages_of_other_origins(tmp_path: Path) -> None:
    """A console's may use it, with whatever its user shows; another's may not."""
    async with parts(tmp_path) as made:
        jane = await made.client(token="jane")
        path = f"{jane.url}/clusters/alpha/api/v1/pods"
        asking = {"Origin": CONSOLE, "Access-Control-Request-Method": "GET"}
        async with (await made.client()).session.options(path, headers=asking) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, CONSOLE)
        async with jane.session.get(path, headers={"Origin": CONSOLE}) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, CONSOLE)
        async with jane.session.ws_connect(f"{path}?watch=1", origin=CONSOLE) as socket:
            assert json.loads((await socket.receive()).data)["type"] == "ADDED"
        async with jane.session.get(path, headers={"Origin": "https://other.example"}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await jane.session.ws_connect(f"{path}?watch=1", origin="https://other.example")
        assert refused.value.status == 403
