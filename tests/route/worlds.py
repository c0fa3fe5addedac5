"""Worlds behind a router that differ in what a user may not see, and requests of many kinds."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import Iterable, Iterator
from typing import Any

from query.discovery.paths import SERVED_PATHS
from tests.patience import PATIENCE
from tests.query.access.guarded import DISCOVERY, KINDS, RBAC, World, rule

# Status, body and warnings.
Answer = tuple[int, bytes, list[str]]
FORMS = (
    "application/json",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
    "application/yaml",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
)


def world(hidden: int, make: type[World] = World) -> World:
    """Jane sees all of alpha, `web` of bravo, and config maps of neither; `hidden` is the seed of all else."""
    made = make("alpha", "bravo")
    for cluster in ("alpha", "bravo"):
        made.cluster_role(cluster, "discovery", DISCOVERY, to="group:system:authenticated")
        for name in ("same", f"{cluster}-a", f"{cluster}-b"):
            made.pod(cluster, "web", name, **({"labels": {"app": name}}))
    made.pod("alpha", "db", "database")
    made.put("alpha", "replicasets", "set", "web", "apps", controller_uid="deployment")
    made.pod("alpha", "web", "owned", controller_uid="alpha-web-set")
    made.cluster_role(
        "alpha", "pods", rule("pods", "namespaces"), rule("replicasets", groups=("apps",)), to="user:jane"
    )
    made.cluster_role("bravo", "pods", rule("pods"))
    made.bind("bravo", "web", "pods", "user:jane")
    _hide(made, random.Random(hidden))
    return made


def _hide(made: World, chance: random.Random) -> None:
    """What jane may not see, at random: objects, clusters, types, other users' rights, states of a cluster."""
    for at in range(chance.randrange(5)):
        name = chance.choice(["same", "secret", "database", f"hidden-{at}"])
        made.pod("bravo", chance.choice(["db", "kube-system"]), name, labels={"app": "same"})
        made.put("bravo", "namespaces", f"space-{at}")
        made.put("bravo", "replicasets", f"set-{at}", "web", "apps", controller_uid="deployment")
        # Who is owned by something that is hidden is hidden, too.
        made.pod("bravo", "db", f"owned-{at}", controller_uid=f"bravo-web-set-{at}")
        made.cluster_role("bravo", f"role-{at}", rule("secrets"), to="user:mallory")
        made.bind("bravo", "db", f"role-{at}", "user:mallory")
    for cluster in chance.sample(["charlie", "delta", "echo"], chance.randrange(3)):
        made.add(cluster)
        made.pod(cluster, "web", chance.choice(["same", "other"]))
        made.control("type", cluster, "ships", "sea.example.io", data={"kind": "Ship", "version": "v1"})
        made.control("synced", cluster, "ships", "sea.example.io", data={"version": "1"})
        if chance.random() < 0.5:
            made.control("health", cluster, data={"healthy": False, "reason": "its door is closed"})


def requests() -> Iterator[tuple[str, str, str]]:
    """Method, path and form of requests of all kinds."""
    scopes = ("", "/int", "/clusters/alpha", "/clusters/bravo", "/clusters/charlie", "/clusters/none")
    for scope, path in itertools.product(
        scopes, (*SERVED_PATHS, "/healthz", "/", "/readyz/ping", "/nothing", "/debug")
    ):
        for form in FORMS[:1] + FORMS[4:]:
            yield "GET", scope + path, form
            yield "GET", f"{scope}{path}?verbose", form
    documents = (
        "/api/v1",
        "/apis/apps",
        "/apis/apps/v1",
        f"/apis/{RBAC}/v1",
        "/apis/sea.example.io/v1",
        "/openapi/v3/api/v1",
    )
    for scope, path in itertools.product(scopes, documents):
        yield "GET", scope + path, FORMS[0]
    selectors = (
        "",
        "labelSelector=app%3Dsame",
        "labelSelector=app",
        "fieldSelector=metadata.name%3Dsame",
        "fieldSelector=metadata.namespace%3Ddb",
        "limit=1",
        "limit=2",
        "resourceVersion=0",
        "names=same,secret,database",
        "namespaces=db",
        "clusters=bravo,charlie",
        "clusters=alpha",
        "ownerUID=deployment",
        "ownerUID=deployment&ownerSeniority=1",
        "ownerUID=bravo-web-set-0",
        "ownerUID=alpha-web-set",
        "watch=1&timeoutSeconds=1",
        "watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
        "labelSelector=(",
        "fieldSelector=spec.none%3D1",
        "resourceVersion=abc",
        "continue=abc",
    )
    for group, resource in (*KINDS, ("sea.example.io", "ships"), ("", "secrets")):
        root = f"/apis/{group}/v1" if group else "/api/v1"
        for scope, within in itertools.product(scopes, ("", "/namespaces/web", "/namespaces/db")):
            path = f"{scope}{root}{within}/{resource}"
            for query in selectors if resource in ("pods", "replicasets") or not within else selectors[:4]:
                for form in FORMS[:4] if resource == "pods" and "watch" not in query else FORMS[:1]:
                    yield "GET", f"{path}?{query}" if query else path, form
            for name in ("same", "secret", "database", "bravo-a", "hidden-0", "owned"):
                yield "GET", f"{path}/{name}", FORMS[0]
            yield "GET", f"{path}/same/status", FORMS[0]
            for method in ("POST", "DELETE", "PUT", "PATCH"):
                yield method, f"{path}/same", FORMS[0]
    collections = "/apis/clusterpedia.io/v1beta1/collectionresources"
    named = ("", "/any?resources=pods", "/any?resources=pods,namespaces", "/any?groups=*", "/any?groups=sea.example.io")
    for path in (*named, "/any?groups=apps&limit=1", "/any", "/workloads", "/kuberesources", "/none", "?watch=1"):
        for form in FORMS[:4]:
            yield "GET", collections + path, form


_VERSION = re.compile(rb"abcdefgh(\.[0-9]+)*|\"?(resourceVersion|index|age|observed)\"?: ?\"?[0-9.]+\"?|index [0-9]+")
_TOKEN = re.compile(rb'"continue": ?"[A-Za-z0-9_-]+"|continue: [A-Za-z0-9_-]+')


def bare(body: bytes) -> bytes:
    """An answer without its versions."""
    body = _VERSION.sub(b"V", _TOKEN.sub(b"T", body))
    # Numbers of `/int`, and of bodies that say when they were made.
    body = re.sub(rb'"of":"[0-9]+"|[0-9]+\.[0-9]+\.[0-9]+', b"N", body)
    return re.sub(rb"[0-9]+(ms|s|m)\b", b"TIME", body)


async def ask(user: Any, one: tuple[str, str, str]) -> Answer:
    method, path, form = one
    headers = {"Accept": form, "X-Forwarded-Host": "here.example"}
    async with asyncio.timeout(PATIENCE), user.session.request(method, user.url + path, headers=headers) as answer:
        warned = [re.sub(r"[0-9]+", "N", text) for text in answer.headers.getall("Warning", ())]
        return answer.status, bare(await answer.read()), warned


async def answers_of(
    one: Any, other: Any, asked: Iterable[tuple[str, str, str]]
) -> list[tuple[tuple[str, str, str], Answer, Answer]]:
    """Requests with what two clients are answered."""
    # Each takes its connection and, at first, its handshake; watches take theirs for a second.
    places = asyncio.Semaphore(32)

    async def both(request: tuple[str, str, str]) -> tuple[tuple[str, str, str], Answer, Answer]:
        async with places:
            here, there = await asyncio.gather(ask(one, request), ask(other, request))
            method, path, form = request
            if here != there and "timeoutSeconds=1" in path:
                # On a busy machine its second may be over before all was sent; a true difference comes again.
                longer = method, path.replace("timeoutSeconds=1", "timeoutSeconds=5"), form
                here, there = await asyncio.gather(ask(one, longer), ask(other, longer))
            return request, here, there

    return await asyncio.gather(*(both(request) for request in asked))
