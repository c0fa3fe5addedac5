"""What a user sees of all clusters and of one, by what each cluster's own RBAC says."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.query.access.guarded import DISCOVERY, READ, World, rule


@pytest.fixture(name="world")
async def world_fixture() -> World:
    """Jane may see all pods of alpha, those of `web` in bravo, and nothing of charlie."""
    world = World("alpha", "bravo", "charlie")
    for cluster in ("alpha", "bravo", "charlie"):
        for namespace in ("web", "db"):
            world.pod(cluster, namespace, f"{cluster}-{namespace}")
        world.pod(cluster, "web", "same")
    for cluster in ("alpha", "bravo"):
        world.cluster_role(cluster, "discovery", DISCOVERY, to="group:system:authenticated")
    world.cluster_role("alpha", "pods", rule("pods"), to="user:jane")
    world.cluster_role("bravo", "pods", rule("pods"))
    world.bind("bravo", "web", "pods", "user:jane")
    return world


def names(found: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in found["items"]]


JANES = ["alpha-db", "alpha-web", "same", "bravo-web", "same"]


async def test_a_list_of_all_clusters_is_what_each_allows(world: World) -> None:
    async with world.serving() as as_user:
        found = await as_user("jane").json("/api/v1/pods")
        assert names(found) == JANES
        assert names(await as_user("root", "system:masters").json("/api/v1/pods")) == [
            *("alpha-db", "alpha-web", "same", "bravo-db", "bravo-web", "same", "charlie-db", "charlie-web", "same")
        ]
        assert names(await as_user("jane").json("/api/v1/namespaces/db/pods")) == ["alpha-db"]
        page = await as_user("jane").json("/api/v1/pods?limit=2")
        assert page["metadata"]["remainingItemCount"] == 3
        rest = await as_user("jane").json(f"/api/v1/pods?limit=9&continue={page['metadata']['continue']}")
        assert names(page) + names(rest) == JANES
        table = await as_user("jane").json("/api/v1/pods", "application/json;as=Table;v=v1;g=meta.k8s.io")
        assert len(table["rows"]) == 5


async def test_who_may_see_nothing_is_refused_in_kubernetes_words(world: World) -> None:
    async with world.serving() as as_user:
        text = 'pods is forbidden: User "mallory" cannot list resource "pods" in API group "" at the cluster scope'
        for path in ("/api/v1/pods", "/clusters/alpha/api/v1/pods", "/clusters/none/api/v1/pods"):
            refused = await as_user("mallory").json(path, code=403)
            assert (refused["message"], refused["reason"]) == (text, "Forbidden")
        refused = await as_user("jane").json("/clusters/bravo/api/v1/namespaces/db/pods", code=403)
        assert refused["message"] == (
            'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "db"'
        )
        # Of one cluster a list over all namespaces is allowed as a whole or not at all.
        await as_user("jane").json("/clusters/bravo/api/v1/pods", code=403)
        assert len((await as_user("jane").json("/clusters/bravo/api/v1/namespaces/web/pods"))["items"]) == 2
        await as_user("jane").json("/apis/none.example.io/v1/things", code=403)
        await as_user("root", "system:masters").json("/apis/none.example.io/v1/things", code=404)


async def test_one_object_is_looked_for_where_it_may_be_seen(world: World) -> None:
    async with world.serving() as as_user:
        jane = as_user("jane")
        refused = await jane.json("/api/v1/namespaces/web/pods/same", code=400)
        assert "is in alpha, bravo;" in refused["message"]
        assert (await jane.json("/api/v1/namespaces/db/pods/alpha-db"))["metadata"]["name"] == "alpha-db"
        await jane.json("/api/v1/namespaces/db/pods/bravo-db", code=404)
        await as_user("mallory").json("/api/v1/namespaces/db/pods/bravo-db", code=403)


async def test_a_role_in_a_namespace_may_be_for_the_namespace_itself(world: World) -> None:
    for cluster in ("alpha", "bravo"):
        world.put(cluster, "namespaces", "web")
        world.put(cluster, "namespaces", "db")
    world.cluster_role("bravo", "namespaces", rule("namespaces"))
    world.bind("bravo", "web", "namespaces", "user:jane")
    async with world.serving() as as_user:
        found = await as_user("jane").json("/api/v1/namespaces/web")
        assert found["metadata"]["uid"] == "bravo--web"
        await as_user("jane").json("/api/v1/namespaces/db", code=403)
        await as_user("jane").json("/api/v1/namespaces", code=403)


async def test_documents_tell_of_clusters_that_may_be_discovered(world: World) -> None:
    async with world.serving() as as_user:
        jane = as_user("jane")
        assert [one["name"] for one in (await jane.json("/clusters"))["clusters"]] == ["alpha", "bravo"]
        status, text = await jane.text("/readyz?verbose")
        assert (status, b"charlie" in text, b"cluster bravo" in text) == (200, False, True)
        world.control("type", "charlie", "ships", "sea.example.io", data={"kind": "Ship", "version": "v1"})
        assert "sea.example.io" not in json.dumps(await jane.json("/apis"))
        assert "sea.example.io" in json.dumps(await as_user("root", "system:masters").json("/apis"))
        for path in ("/metrics", "/clusters/charlie/api", "/clusters/none/api"):
            refused = await jane.json(path, code=403)
            assert refused["message"].startswith('forbidden: User "jane" cannot get path "/')
        assert (await as_user("root", "system:masters").text("/metrics"))[0] == 200
        assert (await as_user("system:anonymous").text("/livez"))[0] == 200
        await as_user("system:anonymous").json("/clusters", code=403)


async def test_what_lies_between_an_object_and_its_owner_has_to_be_seen_as_well(world: World) -> None:
    world.put("alpha", "replicasets", "rs", "web", "apps", controller_uid="deployment-uid")
    world.pod("alpha", "web", "owned", controller_uid="alpha-web-rs")
    query = "/api/v1/pods?ownerUID=deployment-uid&ownerSeniority=1"
    async with world.serving() as as_user:
        assert names(await as_user("root", "system:masters").json(query)) == ["owned"]
        assert names(await as_user("jane").json(query)) == []
        world.cluster_role("alpha", "sets", rule("replicasets", groups=("apps",)), to="user:jane")
        assert names(await as_user("jane").json(query)) == ["owned"]


async def test_continue_tokens_are_their_users(world: World) -> None:
    world.cluster_role("alpha", "all", rule("pods"), to="user:mallory")
    async with world.serving() as as_user:
        page = await as_user("jane").json("/api/v1/pods?limit=1")
        token = page["metadata"]["continue"]
        refused = await as_user("mallory").json(f"/api/v1/pods?limit=1&continue={token}", code=400)
        assert refused["message"] == "invalid continue token: continue key is not valid: it is another user's"


async def _line(answer: Any) -> dict[str, Any]:
    async with asyncio.timeout(10):
        found: dict[str, Any] = json.loads(await answer.content.readline())
        return found


async def test_a_watch_ends_when_its_user_comes_to_see_less_or_more_and_no_other(world: World) -> None:
    world.cluster_role("charlie", "pods", rule("pods"))
    world.cluster_role("alpha", "mallory", rule("pods"), to="user:mallory")
    async with world.serving() as as_user:
        jane, mallory = as_user("jane"), as_user("mallory")
        version = (await jane.json("/api/v1/pods"))["metadata"]["resourceVersion"]

        async def watch(user: Any, path: str) -> Any:
            return await user.session.get(f"{user.url}{path}?watch=1&resourceVersion={version}&timeoutSeconds=60")

        everywhere = await watch(jane, "/api/v1/pods")
        one = await watch(jane, "/clusters/alpha/api/v1/pods")
        other = await watch(mallory, "/api/v1/pods")
        world.pod("bravo", "db", "hidden")
        world.pod("alpha", "db", "seen")
        for answer in (everywhere, one, other):
            assert (await _line(answer))["object"]["metadata"]["name"] == "seen"
        # More: a namespace of another cluster.
        world.bind("charlie", "web", "pods", "user:jane")
        ended = await _line(everywhere)
        assert (ended["type"], ended["object"]["code"]) == ("ERROR", 410)
        # The others go on.
        world.pod("alpha", "db", "later")
        assert (await _line(one))["object"]["metadata"]["name"] == "later"
        assert (await _line(other))["object"]["metadata"]["name"] == "later"
        # Less: nothing of alpha.
        world.put("alpha", "clusterrolebindings", "pods", group="rbac.authorization.k8s.io", gone=True)
        assert (await _line(one))["object"]["code"] == 410
        world.pod("alpha", "db", "last")
        assert (await _line(other))["object"]["metadata"]["name"] == "last"


async def test_a_watch_of_a_namespace_ends_by_what_may_be_seen_in_it(world: World) -> None:
    """Also where rights in one cluster are to that namespace alone."""
    world.cluster_role("charlie", "pods", rule("pods"))
    async with world.serving() as as_user:
        jane = as_user("jane")
        version = (await jane.json("/api/v1/pods"))["metadata"]["resourceVersion"]
        path = f"/api/v1/namespaces/web/pods?watch=1&resourceVersion={version}&timeoutSeconds=60"
        watch = await jane.session.get(f"{jane.url}{path}")
        everywhere = await jane.session.get(f"{jane.url}/api/v1/pods?watch=1&resourceVersion={version}")
        # Changes what may be seen in another namespace, and so ends the watch of all: open watches were looked at.
        world.bind("charlie", "db", "pods", "user:jane")
        assert (await _line(everywhere))["object"]["code"] == 410
        world.pod("bravo", "web", "later")
        assert (await _line(watch))["object"]["metadata"]["name"] == "later"
        world.bind("charlie", "web", "pods", "user:jane")
        assert (await _line(watch))["object"]["code"] == 410


async def test_a_cluster_whose_rules_are_not_known_is_closed_and_that_is_said(world: World) -> None:
    world.add("delta", synced=False)
    world.pod("delta", "web", "there")
    world.cluster_role("delta", "pods", rule("pods"), to="user:jane")
    async with world.serving() as as_user:
        jane = as_user("jane")
        async with jane.session.get(f"{jane.url}/api/v1/pods") as answer:
            assert len((await answer.json())["items"]) == 5
            assert "access rules" in answer.headers["Warning"]
        refused = await jane.json("/clusters/delta/api/v1/pods", code=403)
        assert "the RBAC of this cluster is not known here" in refused["message"]
        world.sync("delta")
        world.materializer._waiting.schedule_flush()
        async with jane.session.get(f"{jane.url}/api/v1/pods") as answer:
            assert len((await answer.json())["items"]) == 6
            assert "access rules" not in answer.headers.get("Warning", "")


async def test_reviews_tell_the_truth_of_each_scope(world: World) -> None:
    async def review(
        user: Any, where: str, kind: str, spec: dict[str, Any], group: str = "authorization.k8s.io"
    ) -> Any:
        body = {"kind": kind, "apiVersion": f"{group}/v1", "spec": spec}
        url = f"{user.url}{where}/apis/{group}/v1/{kind.lower()}s"
        async with user.session.post(url, json=body) as answer:
            return answer.status, await answer.json()

    def pods(verb: str, namespace: str = "") -> dict[str, Any]:
        return {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": namespace}}

    def reviews(resource: str) -> dict[str, Any]:
        return {"resourceAttributes": {"verb": "create", "group": "authorization.k8s.io", "resource": resource}}

    for cluster in ("alpha", "bravo"):
        own = rule(
            "selfsubjectaccessreviews", "selfsubjectrulesreviews", verbs=["create"], groups=("authorization.k8s.io",)
        )
        world.cluster_role(cluster, "basic", own, to="group:system:authenticated")
    kind = "SelfSubjectAccessReview"
    async with world.serving() as as_user:
        jane, mallory = as_user("jane"), as_user("mallory")
        for where, spec, allowed in (
            ("", pods("list"), True),
            ("", pods("list", "db"), True),
            ("", pods("create"), False),
            ("", reviews("selfsubjectaccessreviews"), True),
            ("", reviews("subjectaccessreviews"), False),
            ("/clusters/alpha", pods("list"), True),
            ("/clusters/bravo", pods("list"), False),
            ("/clusters/bravo", pods("list", "web"), True),
            ("/clusters/bravo", pods("list", "db"), False),
        ):
            status, answer = await review(jane, where, kind, spec)
            assert (status, answer["status"]["allowed"]) == (201, allowed), (where, spec, answer)
        status, answer = await review(mallory, "", kind, pods("list"))
        assert (status, answer["status"]["allowed"]) == (201, False)
        _, rules = await review(jane, "", "SelfSubjectRulesReview", {"namespace": "web"})
        assert {"verbs": READ, "apiGroups": [""], "resources": ["pods"]} in rules["status"]["resourceRules"]
        _, rules = await review(jane, "/clusters/bravo", "SelfSubjectRulesReview", {"namespace": "db"})
        assert not any("pods" in one["resources"] for one in rules["status"]["resourceRules"])
        _, me = await review(as_user("jane", "dev"), "", "SelfSubjectReview", {}, "authentication.k8s.io")
        assert me["status"]["userInfo"] == {"username": "jane", "groups": ["dev", "system:authenticated"]}
        # An account that a question to one cluster names is that cluster's own.
        world.cluster_role("bravo", "account", rule("pods"))
        world.bind("bravo", "web", "account", "user:system:serviceaccount:web:bot")
        about = {**pods("list", "web"), "user": "system:serviceaccount:web:bot"}
        root = as_user("root", "system:masters")
        for where, allowed in (("/clusters/bravo", True), ("/clusters/alpha", False)):
            status, answer = await review(root, where, "SubjectAccessReview", about)
            assert (status, answer["status"]["allowed"]) == (201, allowed)
        # About others only who may ask that.
        status, _ = await review(jane, "", "SubjectAccessReview", {**pods("list"), "user": "mallory"})
        assert status == 403


async def test_a_stream_needs_the_right_to_create_and_that_is_said(world: World) -> None:
    world.cluster_role("alpha", "exec", rule("pods/exec", verbs=["get"]), to="user:jane")
    async with world.serving() as as_user:
        refused = await as_user("jane").json("/clusters/alpha/api/v1/namespaces/web/pods/same/exec", code=403)
        assert refused["message"] == (
            'pods "same" is forbidden: User "jane" cannot create resource "pods/exec" in API group "" in the namespace '
            '"web"'
        )
