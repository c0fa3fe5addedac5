"""Decisions of a real kube-apiserver: its SubjectAccessReviews and its own answers, against ours by the same objects.

`make real-cluster`, then `make test-clusters ARGS=tests/real` with its KUBECONFIG. It makes cluster roles, bindings and
namespaces whose names begin with `kubebraid-rbac-`, and removes them. KUBEBRAID_RBAC_WORLDS says how many worlds.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
import pytest
import pytest_asyncio
import yaml

from query.access.authorization.attributes import attributes_of
from query.access.authorization.denied import forbidden
from query.access.authorization.rbac import GROUP, ClusterRbac
from query.discovery.paths import split
from query.identity import AUTHENTICATED, UNAUTHENTICATED, Identity
from tests.query.access.authorization import plain_rbac, worlds
from tests.query.access.authorization.plain_rbac import World

KUBECONFIG = os.environ.get("KUBEBRAID_TEST_KUBECONFIG")
WORLDS = int(os.environ.get("KUBEBRAID_RBAC_WORLDS", "8"))
SEED = int(os.environ.get("KUBEBRAID_RBAC_SEED", "1"))
REQUESTS = 250
PREFIX = "kubebraid-rbac-"
RBAC = f"/apis/{GROUP}/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
Object = dict[str, Any]

pytestmark = [
    pytest.mark.clusters,
    pytest.mark.asyncio(loop_scope="module"),
]


class Real:
    """The cluster of the current context, as its administrator."""

    def __init__(self, session: aiohttp.ClientSession, url: str, context: ssl.SSLContext) -> None:
        self._session = session
        self._url = url
        self._context = context

    async def ask(self, method: str, path: str, body: Any = None, whom: Identity | None = None) -> tuple[int, Any]:
        """Status and JSON, None for what is not JSON. `whom`: on whose behalf."""
        sent = [] if whom is None else [("Impersonate-User", whom.name)]
        sent += [("Impersonate-Group", group) for group in (whom.groups if whom is not None else ())]
        request = self._session.request(method, self._url + path, json=body, headers=sent, ssl=self._context)
        async with request as answer:
            if answer.content_type != "application/json" or "watch=" in path:
                return answer.status, None
            return answer.status, await answer.json()

    async def must(self, method: str, path: str, body: Any = None) -> Any:
        code, found = await self.ask(method, path, body)
        assert code < 300, (code, found)
        return found

    async def write(self, made: Object, kind: str) -> None:
        """Creates an object of RBAC."""
        namespace, _ = worlds.place(made)
        where = f"{RBAC}/namespaces/{namespace}" if namespace else RBAC
        await self.must("POST", f"{where}/{kind}", {"apiVersion": f"{GROUP}/v1", **made})

    async def rbac(self) -> World:
        """All roles and bindings that it has."""
        kinds = ("clusterroles", "roles", "clusterrolebindings", "rolebindings")
        return World(*[(await self.must("GET", f"{RBAC}/{kind}"))["items"] for kind in kinds])

    async def clean(self) -> None:
        for kind in ("rolebindings", "roles", "clusterrolebindings", "clusterroles"):
            for one in (await self.must("GET", f"{RBAC}/{kind}"))["items"]:
                namespace, name = worlds.place(one)
                if PREFIX in name:
                    where = f"{RBAC}/namespaces/{namespace}" if namespace else RBAC
                    await self.ask("DELETE", f"{where}/{kind}/{name}")

    async def review(self, asked: plain_rbac.Request) -> Object:
        """The status of a SubjectAccessReview."""
        spec: Object = {"user": asked.user, "groups": list(asked.groups)}
        if asked.resource_request:
            fields = ("namespace", "verb", "group", "resource", "subresource", "name")
            spec["resourceAttributes"] = {field: getattr(asked, field) for field in fields}
        else:
            spec["nonResourceAttributes"] = {"path": asked.path, "verb": asked.verb}
        review = {"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": spec}
        return dict((await self.must("POST", REVIEWS, review))["status"])

    async def settled(self) -> None:
        """Returns when its authorizer has seen all that was written before, of each type."""
        name = f"{PREFIX}{secrets.token_hex(4)}"
        namespace = f"{PREFIX}web"
        rule = {"verbs": ["get"], "apiGroups": [name], "resources": ["r"]}
        subject = {"kind": "User", "apiGroup": GROUP, "name": name}
        for kind, space in (("Role", namespace), ("ClusterRole", "")):
            metadata = {"name": name, "namespace": space} if space else {"name": name}
            await self.write({"metadata": metadata, "rules": [rule]}, f"{kind.lower()}s")
            ref = {"apiGroup": GROUP, "kind": kind, "name": name}
            bindings = "rolebindings" if space else "clusterrolebindings"
            await self.write({"metadata": metadata, "roleRef": ref, "subjects": [subject]}, bindings)
        question = plain_rbac.Request(name, (), "get", group=name, resource="r")
        async with asyncio.timeout(60):
            while not (
                (await self.review(question))["allowed"]
                and (await self.review(replace(question, namespace=namespace)))["allowed"]
            ):
                await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def real() -> AsyncIterator[Real]:
    assert KUBECONFIG is not None
    path = Path(KUBECONFIG)
    config = yaml.safe_load(path.read_text())
    current = next(one["context"] for one in config["contexts"] if one["name"] == config["current-context"])
    cluster = next(one["cluster"] for one in config["clusters"] if one["name"] == current["cluster"])
    user = next(one["user"] for one in config["users"] if one["name"] == current["user"])
    with TemporaryDirectory() as directory:

        def file(of: Object, key: str) -> str:
            """The file of a certificate or key, which may stand in the kubeconfig itself."""
            if data := of.get(f"{key}-data"):
                inline = Path(directory) / key
                inline.write_bytes(base64.b64decode(data))
                return str(inline)
            return str(path.parent / of[key])

        context = ssl.create_default_context(cafile=file(cluster, "certificate-authority"))
        headers = {}
        if "token" in user:
            headers["Authorization"] = f"Bearer {user['token']}"
        else:
            context.load_cert_chain(file(user, "client-certificate"), file(user, "client-key"))
    async with aiohttp.ClientSession(headers=headers) as session:
        made = Real(session, cluster["server"].rstrip("/"), context)
        for namespace in worlds.NAMESPACES:
            body = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": PREFIX + namespace}}
            code, found = await made.ask("POST", "/api/v1/namespaces", body)
            assert code in (201, 409), found
        yield made
        await made.clean()
        for namespace in worlds.NAMESPACES:
            await made.ask("DELETE", f"/api/v1/namespaces/{PREFIX}{namespace}")


def named(made: Object) -> Object:
    """An object of a random world under names that this cluster does not have."""
    metadata = {key: PREFIX + value for key, value in made["metadata"].items()}
    found = {**made, "metadata": metadata}
    if "roleRef" in made:
        found["roleRef"] = {**made["roleRef"], "name": PREFIX + made["roleRef"]["name"]}
        found["subjects"] = [
            {**one, "namespace": PREFIX + one["namespace"]} if one["kind"] == "ServiceAccount" else one
            for one in made["subjects"]
        ]
    return found


async def written(real: Real, random: Random) -> tuple[World, ClusterRbac]:
    """What the cluster has once a random world was written into it: as its objects, and compiled."""
    await real.clean()
    world = worlds.world(random)
    for kind, objects in (
        ("clusterroles", world.cluster_roles),
        ("roles", world.roles),
        ("clusterrolebindings", world.cluster_role_bindings),
        ("rolebindings", world.role_bindings),
    ):
        for one in objects:
            await real.write(named(one), kind)
    await real.settled()
    found = await real.rbac()
    return found, worlds.compiled(found)


def ours(world: World) -> World:
    """What of a cluster's roles and bindings is from here."""

    def from_here(objects: list[Object]) -> list[Object]:
        return [one for one in objects if PREFIX in one["metadata"]["name"]]

    return World(
        from_here(world.cluster_roles),
        from_here(world.roles),
        from_here(world.cluster_role_bindings),
        from_here(world.role_bindings),
    )


def asks(random: Random, world: World) -> plain_rbac.Request:
    asked = worlds.request(random, world if random.random() < 0.3 else ours(world))
    if asked.namespace and random.random() < 0.7 and not asked.namespace.startswith(PREFIX):
        asked = replace(asked, namespace=PREFIX + random.choice(worlds.NAMESPACES))
    # What every cluster has of its own allows a few things, too.
    return replace(asked, groups=(*asked.groups, random.choice((AUTHENTICATED, UNAUTHENTICATED, "system:monitoring"))))


@pytest.mark.parametrize("number", range(WORLDS))
async def test_decisions_are_those_of_its_subject_access_reviews(real: Real, number: int) -> None:
    random = Random(f"{SEED}/{number}")
    world, rbac = await written(real, random)
    asked = [asks(random, world) for _ in range(REQUESTS)]
    places = asyncio.Semaphore(16)

    async def reviewed(request: plain_rbac.Request) -> Object:
        async with places:
            return await real.review(request)

    statuses = await asyncio.gather(*(reviewed(one) for one in asked))
    allowed = 0
    for request, status in zip(asked, statuses, strict=True):
        verdict = rbac.decide(worlds.identity(request), worlds.attributes(request))
        assert verdict.allowed == status["allowed"], (request, status)
        allowed += verdict.allowed
        plain, reasons, errors = plain_rbac.authorize(world, request)
        assert plain == status["allowed"], (request, status)
        if worlds.identity(request).masters:
            assert "reason" not in status, (request, status)
            assert verdict.reason == "", (request, status)
        elif plain:
            assert status["reason"] in reasons, (request, status)
            assert verdict.reason in reasons, (request, status)
        elif len(errors) < 2:
            assert verdict.reason == status.get("reason", ""), (request, status)
    assert 0 < allowed < REQUESTS


PATHS = (
    "/", "/healthz", "/version/", "/version", "/api", "/api/", "/apis", "/api/v1", "/apis/apps/v1", "/metrics",
    "/openapi/v2", "/logs/x", "/a%20b",
)  # fmt: skip
SELECTORS = (
    "metadata.name=a", "metadata.name==web", "metadata.name!=a", "metadata.name=b,metadata.name=a", "metadata.name=..",
    "metadata.name=a%b", "x", "metadata.namespace=web", "",
)  # fmt: skip


def http_request(random: Random) -> tuple[str, str, dict[str, str]]:
    """Method, path and query of a request that changes nothing."""
    if random.random() < 0.15:
        return random.choice(("GET", "HEAD", "POST")), random.choice(PATHS), {}
    root = random.choice(("/api/v1", "/apis/apps/v1", "/apis/sea.example.io/v1"))
    method = random.choice(("GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
    path = root
    if random.random() < 0.1 and method == "GET":
        path += "/watch"
    if random.random() < 0.7:
        path += f"/namespaces/{PREFIX}{random.choice(worlds.NAMESPACES)}"
        path += random.choice(("", "", "/status")) if random.random() < 0.2 else f"/{random.choice(worlds.RESOURCES)}"
    else:
        path += f"/{random.choice(worlds.RESOURCES)}"
    if random.random() < 0.5:
        path += f"/{random.choice(worlds.OBJECTS)}"
        if random.random() < 0.4:
            path += f"/{random.choice(('log', 'scale', 'status'))}"
    query = {"timeoutSeconds": "1"} if method in ("GET", "HEAD") else {"dryRun": "All"}
    if random.random() < 0.5:
        query["fieldSelector"] = random.choice(SELECTORS)
    if random.random() < 0.3:
        query["watch"] = random.choice(("1", "true", "0", "false", ""))
    if random.random() < 0.2:
        query["labelSelector"] = random.choice(("app=a", "a b"))
    return method, path, query


@pytest.mark.parametrize("number", range(WORLDS))
async def test_refusals_are_its_own_word_by_word(real: Real, number: int) -> None:
    """Requests as they are, on behalf of others: the same are refused, with the same Status."""
    random = Random(f"refused/{SEED}/{number}")
    world, rbac = await written(real, random)
    refused = passed = 0
    for _ in range(REQUESTS):
        method, path, query = http_request(random)
        asked = worlds.request(random, world)
        if asked.user == "system:anonymous":
            continue
        groups = tuple(one for one in asked.groups if one not in (AUTHENTICATED, UNAUTHENTICATED))
        who = Identity(asked.user, groups=(*groups, AUTHENTICATED))
        if who.name.startswith("system:serviceaccount:") and not groups:
            # It is put into its own groups then.
            namespace = who.name.split(":")[2]
            own = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
            who = replace(who, groups=(*own, AUTHENTICATED))
        what = attributes_of(method, split(path), query, trailing_slash=path.endswith("/"))
        verdict = rbac.decide(who, what)
        target = f"{path}?{urlencode(query)}" if query else path
        body: Object | None = {} if method in ("POST", "PUT", "PATCH") else None
        code, answer = await real.ask(method, target, body, Identity(who.name, groups=groups))
        context = (method, target, who, verdict, code, answer)
        assert (code == 403) == (not verdict.allowed), context
        if code == 403 and answer is not None:
            wanted = forbidden(who, what, verdict.reason).status()
            if "RBAC: [" not in verdict.reason:
                assert answer == wanted, context
        refused += code == 403
        passed += code != 403
    assert refused
    assert passed


@pytest.mark.parametrize("number", range(max(WORLDS // 4, 1)))
async def test_rules_are_those_of_its_self_subject_rules_reviews(real: Real, number: int) -> None:
    random = Random(f"rules/{SEED}/{number}")
    world, rbac = await written(real, random)
    found = 0
    for _ in range(60):
        asked = worlds.request(random, ours(world))
        groups = tuple(one for one in asked.groups if one not in (AUTHENTICATED, UNAUTHENTICATED)) or ("dev",)
        if asked.user == "system:anonymous":
            continue
        namespace = PREFIX + random.choice(worlds.NAMESPACES)
        review = {
            "kind": "SelfSubjectRulesReview",
            "apiVersion": "authorization.k8s.io/v1",
            "spec": {"namespace": namespace},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        code, answer = await real.ask("POST", path, review, Identity(asked.user, groups=groups))
        assert code == 201, answer
        rules, _ = rbac.rules(Identity(asked.user, groups=(*groups, AUTHENTICATED)), namespace)
        mine = [text_of(msgspec.to_builtins(one)) for one in rules]
        status = answer["status"]
        assert sorted(mine) == sorted(text_of(one) for one in (*status["resourceRules"], *status["nonResourceRules"]))
        found += len(rules)
    assert found


def text_of(rule: Object) -> str:
    """A rule in one way of writing: what is empty is left out."""
    return repr(sorted((key, list(value)) for key, value in rule.items() if value))
