"""Two worlds that differ in what a user may not see, and in nothing else, give that user the same bytes."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import itertools
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote

import msgspec
import pytest

from deltalog.wire.records import ClusterDocument, DocumentName
from query import service
from query.discovery import access_reviews
from query.discovery.paths import SERVED_PATHS
from query.http.accept import Form
from query.objects import options
from query.search import terms
from tests.query.access.guarded import DISCOVERY, KINDS, RBAC, World, rule

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
FORMS = (
    "application/json",
    TABLE,
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json",
    "application/yaml",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
)
SHIPS = "sea.example.io"
OWN_REVIEWS = (
    rule("selfsubjectaccessreviews", "selfsubjectrulesreviews", verbs=["create"], groups=("authorization.k8s.io",)),
    rule("selfsubjectreviews", verbs=["create"], groups=("authentication.k8s.io",)),
    rule("subjectaccessreviews", "localsubjectaccessreviews", verbs=["create"], groups=("authorization.k8s.io",)),
)


# Of each pair of worlds, in the suite and in `make soak`.
STEPS = int(os.environ.get("KUBEBRAID_SOAK_STEPS", "1600"))
SEEDS = [int(seed) for seed in os.environ.get("KUBEBRAID_SOAK_SEEDS", "1,2").split(",")]


def world(hidden: int, make: type[World] = World) -> World:
    """Jane sees all of alpha, `web` of bravo, and config maps of neither; `hidden` is the seed of all else."""
    made = make("alpha", "bravo")
    for cluster in ("alpha", "bravo"):
        made.cluster_role(cluster, "discovery", DISCOVERY, to="group:system:authenticated")
        for name in ("same", f"{cluster}-a", f"{cluster}-b"):
            made.pod(cluster, "web", name, **({"labels": {"app": name}}))
        _document(made, cluster, f"of {cluster}")
    made.pod("alpha", "db", "database")
    made.put("alpha", "replicasets", "set", "web", "apps", controller_uid="deployment")
    made.pod("alpha", "web", "owned", controller_uid="alpha-web-set")
    made.cluster_role(
        "alpha", "pods", rule("pods", "namespaces"), rule("replicasets", groups=("apps",)), to="user:jane"
    )
    made.cluster_role("alpha", "reviews", *OWN_REVIEWS, to="user:jane")
    made.cluster_role("bravo", "pods", rule("pods"))
    made.bind("bravo", "web", "pods", "user:jane")
    _hide(made, random.Random(hidden))
    return made


def _document(made: World, cluster: str, text: str) -> None:
    """OpenAPI documents of a cluster, as records of the log bring them."""
    body = json.dumps({"openapi": "3.0.0", "info": text}).encode()
    document = ClusterDocument(
        paths=len(text),
        hash=hashlib.sha256(body).hexdigest().upper(),
        size=len(body),
        body=gzip.compress(body, mtime=0),
    )
    documents = made.store.clusters[cluster].documents
    for name in (DocumentName("v3", "api/v1"), DocumentName("v2", "json"), DocumentName("v3", f"apis/{text[-5:]}")):
        documents[name] = document
    made.store.documents += 1


def _ships(made: World, cluster: str, chance: random.Random) -> None:
    """A custom type that a cluster defines in its own way."""
    columns = [{"name": f"Of {cluster}", "type": "string", "jsonPath": ".spec.x"}]
    data = {"kind": "Ship", "version": chance.choice(["v1", "v2"]), "namespaced": True, "columns": columns}
    made.control("type", cluster, "ships", SHIPS, data=data)
    made.control("synced", cluster, "ships", SHIPS, data={"version": "1"})


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
        if chance.random() < 0.5:
            made.pod("bravo", "db", f"owned-{at}", gone=True)
    for cluster in chance.sample(HIDDEN, chance.randrange(len(HIDDEN) + 1)):
        made.add(cluster)
        made.pod(cluster, "web", chance.choice(["same", "other"]))
        made.pod(cluster, "web", "owned", controller_uid=f"{cluster}-web-set")
        made.put(cluster, "replicasets", "set", "web", "apps", controller_uid="deployment")
        made.cluster_role(cluster, "pods", rule("pods"), to="user:mallory")
        _ships(made, cluster, chance)
        _document(made, cluster, f"of {cluster} {'more ' * chance.randrange(9)}")
        if chance.random() < 0.5:
            made.control("health", cluster, data={"healthy": False, "reason": "its door is closed"})
    if chance.random() < 0.5:
        _undiscovered(made)


HIDDEN = ("charlie", "delta", "none/x", "alpha/x", "aardvark")


def _undiscovered(made: World) -> None:
    """A cluster whose rules are there, and of which it is not known yet what it has."""
    for (group, resource), (kind, spaced) in KINDS.items():
        data = {"kind": kind, "version": "v1", "namespaced": spaced}
        made.control("type", "foxtrot", resource, group, data=data)
    made.sync("foxtrot")


class Asked(NamedTuple):
    """A request. `follow`: with its continue tokens to the end. `body`: of a POST."""

    method: str
    path: str
    form: str = FORMS[0]
    follow: bool = False
    body: bytes = b""
    version: str = ""
    """A path whose resourceVersion goes behind the request's own path."""


def _filter(text: str) -> str:
    return f"filter={quote(text)}"


BELOW = "/apis/clusterpedia.io/v1beta1/resources"
SCOPES = (
    "",
    "/int",
    *(f"/clusters/{name}" for name in ("alpha", "bravo", "charlie", "none", "none/x", "alpha/x", "foxtrot", "a%2Fb")),
    "/int/clusters/alpha",
    "/int/clusters/delta",
    BELOW,
    *(f"{BELOW}/clusters/{name}" for name in ("alpha", "charlie", "alpha/x")),
)
# What is asked below the scopes, each path of the service; `test_all_is_asked_for` has the list.
PATHS = (*SERVED_PATHS, "/healthz", "/", "/readyz/ping", "/nothing", "/debug", "/healthz/log", "/metrics/slis")
ODD = (
    "/api/v1//pods",
    "/api/v1/pods/",
    "/%61pi/v1/pods",
    "/api%2Fv1/pods",
    "/%2Fapi/v1/pods",
    "/api/v1/namespaces/web%2Fpods",
    "/api/v1/namespaces/db%2Fpods/pods",
    "/api/v1/namespaces/db/pods%2Fhidden-0",
    "/api/v1/watch",
    "/api/v1/proxy",
    "/api/v1/proxy/namespaces/db/pods/hidden-0",
    "/api/v1/proxy//pods",
    "/api/v1/watch/pods?timeoutSeconds=1",
    "/api/v1/watch/namespaces/db/pods?timeoutSeconds=1",
    "/api/v1/watch/namespaces/db/pods/hidden-0?timeoutSeconds=1",
    "/api/v1/watch/namespaces/web/pods/same?timeoutSeconds=1",
    "/api/v1/namespaces/db",
    "/api/v1/namespaces/space-0",
    "/api/v1/namespaces/db/status",
    "/api/v1/pods/%EF%BC%8E",
    "/api/v1/p%C3%B6ds",
    "/API/V1/pods",
    "/clusters/charlie",
    "/clusters/charlie/api/v1/pods",
    f"{BELOW}/api/v1/pods",
    f"{BELOW}%2Fclusters/charlie/api/v1/pods",
    "/apis/clusterpedia.io",
    "/apis/clusterpedia.io/v1beta1",
    *(
        f"/apis/clusterpedia.io/v1beta1/collectionresources{rest}"
        for rest in (
            "",
            "/any",
            "/nothing",
            "/workloads",
            "/any/status",
            "%2Fany?groups=*",
            *(
                f"/{name}&{query}" if "?" in name else f"/{name}?{query}"
                for name in ("any?groups=*", "any?resources=pods,secrets", "kuberesources", f"any?groups={SHIPS},apps")
                for query in (
                    "",
                    "limit=1",
                    "limit=2&orderby=name+desc&withRemainingCount=true",
                    "fuzzyName=hidden",
                    "ownerUID=deployment&ownerSeniority=1",
                    "ownerName=set-1&ownerGR=replicasets.apps",
                    "fieldSelector=metadata.name%3Dhidden-0,metadata.namespace%3Ddb",
                    _filter('has(object.spec.of) || cluster == "charlie"'),
                    "onlyMetadata=true&clusters=bravo,charlie",
                    "watch=1&timeoutSeconds=1",
                    "watch=1&timeoutSeconds=1&labelSelector=app%3Dsame",
                )
            ),
        )
    ),
)
DOCUMENTS = (
    "/api/v1",
    "/apis/apps",
    "/apis/apps/v1",
    f"/apis/{RBAC}/v1",
    f"/apis/{SHIPS}",
    f"/apis/{SHIPS}/v1",
    "/openapi/v3/api/v1",
    "/openapi/v3/api/v1?hash=0",
    "/openapi/v3/apis/alpha",
    "/openapi/v3/apis/arlie",
)


WATCH = "watch=1&timeoutSeconds=1"
FROM = "charlie", "99999999"
SELECTORS = (
    "",
    "labelSelector=app%3Dsame",
    "labelSelector=app",
    "labelSelector=app+notin+(same)",
    "fieldSelector=metadata.name%3Dsame",
    "fieldSelector=metadata.namespace%3Ddb",
    "fieldSelector=metadata.name%3Dhidden-0,metadata.namespace%3Ddb",
    "limit=2",
    "resourceVersion=0",
    "resourceVersion=0&resourceVersionMatch=NotOlderThan",
    "names=same,secret,database",
    "namespaces=db",
    "clusters=bravo,charlie",
    "clusters=alpha",
    "clusters=aardvark",
    "since=2001-01-01",
    "before=2001-01-01",
    "ownerUID=deployment",
    "ownerUID=deployment&ownerSeniority=1",
    "ownerUID=deployment&ownerSeniority=1&limit=1",
    "ownerUID=bravo-web-set-0",
    "ownerName=set",
    "ownerName=set-0",
    "ownerName=set&ownerGR=replicasets.apps&orderby=uid",
    "ownerName=set&ownerGR=deployments.apps",
    "ownerName=set-1&ownerSeniority=1",
    "ownerName=same&ownerSeniority=2&withRemainingCount=true&limit=1",
    "fuzzyName=a",
    "fuzzyName=hidden&withRemainingCount=true",
    "orderby=name+desc",
    "orderby=resource_version+desc,uid&limit=2",
    "orderby=cluster+desc,created_at&limit=1&withRemainingCount=true",
    "orderby=size",
    "limit=2&continue=1",
    "offset=3&limit=1&withRemainingCount=true",
    "limit=1&labelSelector=app&withRemainingCount=true",
    "limit=1&withContinue=false&injectEvents=true",
    "onlyMetadata=true",
    "whereSQL=1",
    "whereSQLStatement=1",
    "whereSQLParam=1",
    "whereSQLJSONParams=1",
    _filter("has(object.metadata.labels)") + "&limit=1&withRemainingCount=1",
    _filter('cluster.contains("a") || object.metadata.namespace == "db"') + "&orderby=name",
    _filter('object.metadata.name.startsWith("hidden") || object.spec.of == "1"'),
    "filter=object.",
    "fieldSelector=spec.of%3D1&limit=1&withRemainingCount=1",
    "fieldSelector=metadata.namespace+in+(db,kube-system)",
    "fieldSelector=spec.of%3E0",
    "fieldSelector=!spec.of",
    "fieldSelector=spec[",
    "labelSelector=search.clusterpedia.io/clusters+notin+(alpha)",
    "labelSelector=search.clusterpedia.io/owner-name=set,search.clusterpedia.io/with-remaining-count=true",
    "labelSelector=search.clusterpedia.io/namespaces!=web,app",
    "labelSelector=search.clusterpedia.io/nothing",
    "labelSelector=search.clusterpedia.io/forward%3Dtrue",
    "ownerUID=charlie-web-set",
    "ownerUID=alpha-web-set",
    f"resourceVersion={quote(json.dumps({'charlie': '99999999'}))}",
    f"resourceVersion={quote(json.dumps({'charlie': 'abc', 'alpha': '1'}))}",
    f"{WATCH}&resourceVersion={quote(json.dumps({'delta': '99999999'}))}",
    WATCH,
    f"{WATCH}&clusters=charlie&allowWatchBookmarks=1",
    f"{WATCH}&fieldSelector=spec.of%3D1",
    f"{WATCH}&" + _filter('object.metadata.namespace == "db" || has(object.spec.of)'),
    f"{WATCH}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
    "watch=0&watch=1",
    "labelSelector=(",
    "fieldSelector=spec.none%3D1",
    "resourceVersion=abc",
    "continue=abc",
    "includeObject=Object",
    "pretty=1",
)
# With the version that the first answer has.
AT_VERSIONS = ("resourceVersionMatch=Exact", "limit=1", "", "ownerUID=deployment&ownerSeniority=1&limit=1", WATCH)


def requests() -> Iterator[Asked]:
    """Requests of all kinds."""
    for scope, path in itertools.product(SCOPES, PATHS):
        for form in FORMS[:1] + FORMS[4:]:
            yield Asked("GET", scope + path, form)
            yield Asked("GET", f"{scope}{path}?verbose", form)
    for scope, path in itertools.product(SCOPES, (*DOCUMENTS, *ODD)):
        yield Asked("GET", scope + path)
    for method, scope in itertools.product(("HEAD", "OPTIONS", "POST", "DELETE", "TRACE"), SCOPES):
        for path in (*PATHS, "/api/v1/pods", "/apis/apps/v1/namespaces/db/replicasets"):
            yield Asked(method, scope + path)
    for scope in SCOPES:
        yield from _reviews(scope)
        yield from _of_types(scope)


def _of_types(scope: str) -> Iterator[Asked]:
    for group, resource in (*KINDS, (SHIPS, "ships"), ("", "secrets")):
        root = f"/apis/{group}/v1" if group else "/api/v1"
        main = resource in ("pods", "replicasets")
        for within in ("", "/namespaces/web", "/namespaces/db"):
            path = f"{scope}{root}{within}/{resource}"
            for query in SELECTORS if main or not within else SELECTORS[:4]:
                for form in FORMS[:4] if resource == "pods" and not within else FORMS[:1]:
                    yield Asked("GET", f"{path}?{query}" if query else path, form)
            if main:
                for limit, form in itertools.product((1, 2, 3), (FORMS[0], TABLE)):
                    yield Asked("GET", f"{path}?limit={limit}", form, follow=True)
                for order, limit in itertools.product(("name+desc", "created_at,uid+desc", "resource_version"), (1, 2)):
                    yield Asked("GET", f"{path}?orderby={order}&limit={limit}&withRemainingCount=1", follow=True)
                for query in AT_VERSIONS:
                    yield Asked("GET", f"{path}?{query}", version=path)
            for name in ("same", "secret", "database", "bravo-a", "hidden-0", "owned"):
                yield Asked("GET", f"{path}/{name}")
            hidden = quote(json.dumps(dict([FROM])))
            yield Asked("GET", f"{path}/same?resourceVersion={hidden}")
            yield Asked("GET", f"{path}/same?{WATCH}")
            yield Asked("GET", f"{path}/same/status")
            for method in ("POST", "DELETE", "PUT", "PATCH"):
                yield Asked(method, f"{path}/same")
            yield Asked("DELETE", path)


def _reviews(scope: str) -> Iterator[Asked]:
    def pods(**attributes: str) -> dict[str, Any]:
        return {"resourceAttributes": {"verb": "list", "resource": "pods", **attributes}}

    about: list[dict[str, Any]] = [
        {"namespace": "web"},
        {"namespace": "db"},
        {"nonResourceAttributes": {"verb": "get", "path": "/api"}},
        {"nonResourceAttributes": {"verb": "get", "path": "/metrics"}},
        pods(),
        pods(namespace="db"),
        pods(namespace="web", verb="get", name="same"),
        pods(group=SHIPS, resource="ships"),
        pods(group=SHIPS, resource="*"),
        pods(resource="secrets"),
        {**pods(namespace="db"), "user": "mallory"},
        {**pods(), "user": "jane", "groups": ["dev"]},
    ]
    for (group, resource), kind in access_reviews._KINDS.items():
        for spec in about:
            body = json.dumps({"kind": kind, "apiVersion": f"{group}/v1", "spec": spec}).encode()
            yield Asked("POST", f"{scope}/apis/{group}/v1/{resource}", body=body)
    for namespace, spec in itertools.product(("web", "db"), about):
        path = f"{scope}/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews"
        yield Asked("POST", path, body=json.dumps({"spec": spec}).encode())
    yield Asked("POST", f"{scope}/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=b"{")


_VERSION = re.compile(
    rb"abcdefgh(\.[0-9]+)*|\"?(resourceVersion|index|age|observed)\"?: ?\"?[0-9.]+\"?|index [0-9]+|current: [0-9]+"
)
_TOKEN = re.compile(rb'"continue": ?"[A-Za-z0-9_-]+"|continue: [A-Za-z0-9_-]+')


def bare(body: bytes) -> bytes:
    """An answer without its versions."""
    body = _VERSION.sub(b"V", _TOKEN.sub(b"T", body))
    # Numbers of `/int`, and of bodies that say when they were made.
    body = re.sub(rb'"of":"[0-9]+"|[0-9]+\.[0-9]+\.[0-9]+', b"N", body)
    return re.sub(rb"[0-9]+(ms|s|m)\b", b"TIME", body)


Answer = tuple[int, bytes, list[str]]
_PLAIN = ("Content-Type", "Allow", "Retry-After", "Vary", "Cache-Control", "Location")


async def ask(user: Any, one: Asked) -> Answer:
    """Code, bare body, and the headers that say something."""
    headers = {"Accept": one.form, "X-Forwarded-Host": "here.example", "Content-Type": "application/json"}
    path, codes, found = one.path, 0, b""
    said: list[str] = []
    if one.version:
        async with user.session.get(user.url + one.version, headers=headers) as answer:
            listed = await answer.read()
        version = re.search(rb'"resourceVersion":"([^"]+)"', listed)
        path += f"&resourceVersion={version[1].decode() if version else 1}"
    for _ in range(50):
        async with (
            asyncio.timeout(30),
            user.session.request(one.method, user.url + path, headers=headers, data=one.body or None) as answer,
        ):
            body = await answer.read()
            codes = codes * 1000 + answer.status
            said += [re.sub(r"[0-9]+", "N", text) for text in answer.headers.getall("Warning", ())]
            said += [f"{name}: {answer.headers.get(name)}" for name in _PLAIN]
        found += bare(body)
        token = re.search(rb'"continue":"([A-Za-z0-9_-]+)"', body) if one.follow else None
        if token is None:
            break
        path = f"{one.path}&continue={token[1].decode()}"
    return codes, found, said


async def compare(seed: int, asked: list[Asked]) -> Counter[int]:
    """Asks both worlds the same, while others, who see more, ask the second one; how often which code came."""
    one, other = world(0), world(seed)
    codes: Counter[int] = Counter()
    if "foxtrot" in {*one.store.clusters, *other.store.clusters}:
        # Whether all of it is ready, probes are told, and so is everyone.
        asked = [each for each in asked if "/readyz" not in each.path]
    async with one.serving() as first, other.serving() as second:
        for begin in range(0, len(asked), 128):
            some = asked[begin : begin + 128]
            answers, others, _, _ = await asyncio.gather(
                *(
                    asyncio.gather(*(ask(user, each) for each in some))
                    for user in (first("jane"), second("jane"), second("root", "system:masters"), second("mallory"))
                )
            )
            for request, here, there in zip(some, answers, others, strict=True):
                if here != there and WATCH in request.path:
                    # On a busy machine its second may be over before all was sent; a true difference comes again.
                    longer = request._replace(path=request.path.replace("timeoutSeconds=1", "timeoutSeconds=5"))
                    here, there = await asyncio.gather(ask(first("jane"), longer), ask(second("jane"), longer))
                assert here == there, request
                codes[here[0]] += 1
    return codes


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
async def test_what_is_hidden_changes_no_byte(seed: int) -> None:
    asked = list(requests())
    assert len(asked) > 7000
    # Those of one batch are of all kinds.
    random.Random(seed).shuffle(asked)
    codes = await compare(seed, asked[:STEPS])
    # Of all kinds: what is shown, what is refused, what does not exist and what cannot be read.
    assert {200, 201, 400, 403, 404, 410, 422} <= codes.keys(), codes
    assert codes[200] > 70, codes
    assert any(code > 1000 for code in codes), codes


def test_all_is_asked_for() -> None:
    """Whoever adds a path, a parameter, a form or a review adds it to what is compared."""
    asked = list(requests())
    paths = {one.path.partition("?")[0] for one in asked}
    assert {*SERVED_PATHS, *(f"/{name}" for name in service._HEALTH)} <= paths
    parameters = {name for one in asked for name in parse_qs(one.path.partition("?")[2], keep_blank_values=True)}
    assert {*options._PARAMETERS, *terms._PARAMETERS, "watch", "verbose", "includeObject", "hash"} <= parameters
    assert len(Form) == 3, "a form that is not in FORMS"
    reviews = {f"/apis/{group}/v1/{resource}" for group, resource in access_reviews._KINDS}
    assert reviews <= {one.path for one in asked if one.method == "POST"}
    assert msgspec.json.decode(next(one.body for one in asked if one.body))
