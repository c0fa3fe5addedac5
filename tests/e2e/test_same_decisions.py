"""The same decisions: random roles and bindings in clusters, and what they and kubebraid say of random requests.

The clusters decide by an evaluation of their own; kubebraid has followed their objects through producer and log. Not
one answer may differ: reviews, the requests themselves, impersonation, rules, and which objects the root shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import pytest
import pytest_asyncio

from kubebraid.command.broker import EmbeddedBroker
from simulation import ClusterUser, SimulatedCluster, write_kubeconfig
from tests.e2e.conftest import Service, View
from tests.e2e.guards import MASTER, Authority, GuardedService, bearer, exchange, write_tokens
from tests.patience import PATIENCE
from tests.query.access.authorization import worlds
from tests.query.access.authorization.plain_rbac import Request, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

GROUP = "rbac.authorization.k8s.io"
RBAC = f"/apis/{GROUP}/v1"
SELF = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
OTHERS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
RULES = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
KINDS = {
    "clusterroles": "cluster_roles",
    "roles": "roles",
    "clusterrolebindings": "cluster_role_bindings",
    "rolebindings": "role_bindings",
}
# In the suite two, one of them with rules that are odd; `make soak` has many, of a seed of its own.
ROUNDS = int(os.environ.get("KUBEBRAID_DECISION_ROUNDS", "2"))
SEED = os.environ.get("KUBEBRAID_DECISION_SEED", "")
# Of each kind of question, in a round and a cluster.
REVIEWS, REQUESTS, PATHS, OTHER_USERS = 200, 200, 150, 150
AT_ONCE = 12

Object = dict[str, Any]

# Every user with up to three groups, as random requests have them; each has a token.
USERS = {
    f"{name}|{','.join(groups)}".replace(":", "."): ClusterUser(name, groups)
    for name in (*worlds.USERS, "nobody")
    for count in range(4)
    for groups in itertools.permutations(worlds.GROUPS, count)
}
# Who is asked for at the root, by every cluster's rules.
SOME = [ClusterUser(name, groups) for name in worlds.USERS for groups in ((), ("dev",), ("ops",), ("dev", "ops"))]


def token_of(name: str, groups: Iterable[str]) -> str:
    return f"{name}|{','.join(groups)}".replace(":", ".")


def groups_of(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """Those that a user has after authentication."""
    if name == "system:anonymous" or "system:authenticated" in groups:
        return groups
    return (*groups, "system:authenticated")


# -- what is asked -------------------------------------------------------------------------------------------------


def spec_of(asked: Request) -> Object:
    if not asked.resource_request:
        return {"nonResourceAttributes": {"verb": asked.verb, "path": asked.path}}
    fields = ("namespace", "verb", "group", "resource", "subresource", "name")
    return {"resourceAttributes": {field: getattr(asked, field) for field in fields}}


METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE", "deletecollection": "DELETE"}


def http_of(random: Random, asked: Request) -> tuple[str, str] | None:
    """Method and path with query that do this, or None. Nothing is changed by any."""
    if not asked.resource_request:
        method = asked.verb.upper()
        return (method, asked.path) if method in ("GET", "HEAD", "POST") and asked.path[:1] == "/" else None
    named, query = asked.name, {}
    if asked.verb in ("list", "watch"):
        if asked.subresource:
            return None
        if named:
            terms = [f"metadata.name={named}", "metadata.namespace!=elsewhere"]
            random.shuffle(terms)
            query["fieldSelector"] = ",".join(terms[: random.randint(1, 2)] if terms[0][13] == "=" else terms)
        named = ""
        if asked.verb == "watch":
            query |= {"watch": random.choice(("1", "true", "yes")), "timeoutSeconds": "1"}
        elif random.random() < 0.2:
            query["watch"] = random.choice(("0", "False"))
    elif asked.verb in METHODS:
        query["dryRun"] = "All"
        if asked.verb in ("create", "deletecollection"):
            if named or asked.subresource:
                return None
        elif not named:
            return None
    elif asked.verb != "get" or not named:
        return None
    root = f"/apis/{asked.group}/v1" if asked.group else "/api/v1"
    parts = [root]
    if asked.namespace and asked.resource != "namespaces":
        parts.append(f"namespaces/{asked.namespace}")
    parts += [quote(one, safe="*") for one in (asked.resource, named, asked.subresource) if one]
    path = "/".join(parts)
    return METHODS.get(asked.verb, "GET"), f"{path}?{urlencode(query)}" if query else path


# What paths are made of, some of it where it has no place. Empty parts and dots are 404 here, whoever asks.
PARTS = (
    *("api", "apis", "v1", "apps", "v1", "watch", "proxy", "namespaces", "web", "pods", "deployments", "a", "status"),
    *("finalize", "log", "exec", "b%20c", "a%2Fb", "*", "healthz", "openapi", "v2", "version", "metrics"),
)
QUERIES = (
    *("", "watch=1", "watch=0&watch=1", "watch=", "watch=FALSE", "fieldSelector=metadata.name=a", "limit=1x&watch=1"),
    *("fieldSelector=metadata.name%3D%3Da,metadata.namespace%3Dweb", "fieldSelector=metadata.name!%3Da", "watch=no"),
    *(
        "fieldSelector=metadata.name%3Da&limit=x",
        "fieldSelector=metadata.name%3Db,metadata.name%3Da",
        "timeoutSeconds=1",
    ),
    *("fieldSelector=metadata.name%3D", "fieldSelector=metadata.name%3Da%2Fb", "fieldSelector=a&watch=1", "dryRun=All"),
    *("fieldSelector=metadata.name%3D..", "labelSelector=!&fieldSelector=metadata.name%3Da", "labelSelector=x%3Dy"),
)
BEGINNINGS = (
    "/",
    "/apis/",
    "/api/v1/",
    "/api/v1/namespaces/web/",
    "/apis/apps/v1/",
    "/api/v1/watch/",
    "/api/v1/proxy/",
)
WORDS = ("GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get")


def odd_http(random: Random) -> tuple[str, str]:
    """A method and any path and query."""
    path = random.choice(BEGINNINGS) + "/".join(random.choices(PARTS, k=random.randint(0, 4)))
    path = path.rstrip("/") + random.choice(("", "", "/"))
    query = random.choice(QUERIES)
    return random.choice(WORDS), f"{path}?{query}" if query else path


IDENTITIES = ("users", "groups", "serviceaccounts", "uids", "userextras/example.io/team", "userextras/*", "nodes")
MODES = ("serviceaccount", "user-info", "arbitrary-node", "associated-node")


def impersonation_rules(random: Random) -> list[Object]:
    """Of one mode, or that of old; often all that it needs."""
    mode = random.choice((*MODES, "user-info", "", ""))
    found: Object = {
        "verbs": [f"impersonate:{mode}" if mode else "impersonate"],
        "apiGroups": random.choice(([""], ["authentication.k8s.io"], ["", "authentication.k8s.io"], ["*"], ["*"])),
        "resources": random.choice((["*"], random.sample(IDENTITIES, random.randint(2, 5)))),
    }
    if random.random() < 0.3:
        found["resourceNames"] = random.sample(("jane", "dev", "ops", "bot", "blue", "u1", "*", "n1"), 5)
    if not mode:
        return [found]
    verbs = [f"impersonate-on:{mode}:{random.choice(('create', 'create', 'list'))}"]
    groups = random.choice((["*"], ["authorization.k8s.io"], [""]))
    return [found, {"verbs": verbs, "apiGroups": groups, "resources": ["*"]}]


def add_more(random: Random, made: World) -> None:
    """Readers of what there is, and users who may be others: by themselves worlds have few of them."""

    def bind(name: str, kind: str, namespace: str, subjects: list[Object]) -> None:
        bound = worlds.binding(random, name, namespace)
        bound["roleRef"] = {"apiGroup": GROUP, "kind": kind, "name": name}
        bound["subjects"] = subjects
        (made.role_bindings if namespace else made.cluster_role_bindings).append(bound)

    for number in range(4):
        made.cluster_roles.append({"metadata": {"name": f"double{number}"}, "rules": impersonation_rules(random)})
        bind(f"double{number}", "ClusterRole", "", [worlds.subject(random, wild=False) for _ in range(3)])
    for namespace in random.sample(("", *worlds.NAMESPACES), 2):
        name = f"sees-{namespace or 'everything'}"
        rule = {
            "verbs": random.sample(("get", "list", "watch"), 2),
            "apiGroups": ["", "apps"],
            "resources": random.sample(("pods", "deployments", "namespaces", "pods/log", "pods/exec"), 3),
        }
        metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
        (made.roles if namespace else made.cluster_roles).append({"metadata": metadata, "rules": [rule]})
        bind(name, "Role" if namespace else "ClusterRole", namespace, [worlds.subject(random, wild=False)])


def impersonation(random: Random) -> list[tuple[str, str]]:
    names = (
        "jane",
        "joe",
        "system:serviceaccount:web:bot",
        "system:node:n1",
        "system:anonymous",
        "system:node:",
        "A b",
    )
    headers = [("Impersonate-User", random.choice(names))]
    if random.random() < 0.5:
        groups = ("dev", "ops", "system:masters", "system:unauthenticated", "system:authenticated", "")
        some = random.choices(groups, weights=(9, 9, 1, 1, 1, 0.3), k=random.choice((1, 1, 2, 5)))
        headers += [("Impersonate-Group", group) for group in some]
    if random.random() < 0.2:
        headers.append(("Impersonate-Uid", random.choice(("u1", "u2"))))
    if random.random() < 0.25:
        key = random.choice(("example.io%2Fteam", "Example.io%2fTeam", "team"))
        headers += [(f"Impersonate-Extra-{key}", value) for value in random.sample(("blue", "red", ""), 2)]
    if random.random() < 0.05:
        headers = headers[1:]
    return headers


# -- the parts -----------------------------------------------------------------------------------------------------


class Fleet:
    """The clusters, and two services: one passes on what it allows as an administrator, the other answers by itself."""

    def __init__(
        self, clusters: list[SimulatedCluster], passing: GuardedService, alone: GuardedService, authority: Authority
    ) -> None:
        self.clusters = clusters
        self.passing = passing
        self.alone = alone
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE * 4, ssl=authority.client))
        self.made: dict[str, list[str]] = {cluster.name: [] for cluster in clusters}

    async def of_cluster(
        self, cluster: SimulatedCluster, method: str, path: str, body: Any = None, headers: Any = None
    ) -> tuple[int, Any]:
        return await exchange(self.session, method, cluster.url + path, body, headers or bearer(cluster.token))

    async def ours(
        self, service: Service, cluster: str, method: str, path: str, body: Any = None, headers: Any = None
    ) -> tuple[int, Any]:
        below = f"/clusters/{cluster}" if cluster else ""
        return await exchange(self.session, method, service.url + below + path, body, headers)

    async def write(self, cluster: SimulatedCluster, made: World) -> None:
        """Replaces what an earlier world left in a cluster."""
        for path in self.made[cluster.name]:
            assert (await self.of_cluster(cluster, "DELETE", path))[0] == 200
        paths = self.made[cluster.name] = []
        for resource, attribute in KINDS.items():
            for one in getattr(made, attribute):
                namespace, name = worlds.place(one)
                where = f"{RBAC}/namespaces/{namespace}/{resource}" if namespace else f"{RBAC}/{resource}"
                code, answer = await self.of_cluster(cluster, "POST", where, one)
                assert code == 201, answer
                paths.append(f"{where}/{name}")

    async def followed(self) -> None:
        """Returns when both services have the roles and bindings of all clusters."""
        for service, cluster, resource in itertools.product((self.passing, self.alone), self.clusters, KINDS):
            _, theirs = await self.of_cluster(cluster, "GET", f"{RBAC}/{resource}")
            wanted = {version_of(one) for one in theirs["items"]}
            limit = asyncio.get_running_loop().time() + PATIENCE
            while True:
                told = await self.ours(service, cluster.name, "GET", f"{RBAC}/{resource}", headers=bearer(MASTER))
                if told[0] == 200 and {version_of(one) for one in told[1]["items"]} == wanted:
                    break
                assert asyncio.get_running_loop().time() < limit, str(told)
                await asyncio.sleep(0.1)


def version_of(one: Object) -> tuple[str, str, str]:
    metadata = one["metadata"]
    return metadata.get("namespace", ""), metadata["name"], metadata["resourceVersion"].split(".")[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    directory = tmp_path_factory.mktemp("decisions")
    authority = Authority(directory)
    clusters = [
        SimulatedCluster(
            name,
            seed=number,
            pods=30,
            token=f"admin-{name}",
            users=USERS,
            tls=authority.serving(),
            authority=authority.text,
        )
        for number, name in enumerate(("alpha", "bravo"))
    ]
    async with contextlib.AsyncExitStack() as stack:
        for cluster in clusters:
            await stack.enter_async_context(cluster)
        kubeconfig = str(directory / "kubeconfig")
        write_kubeconfig(clusters, Path(kubeconfig))
        # Else a service account's token of a file would be of no cluster.
        (directory / "authorization.yaml").write_text(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\n"
            "authorizers:\n- type: Members\n  name: members\n"
            "  members: {names: [{clusters: ['*'], serviceAccounts: true}]}\n"
        )
        broker = await stack.enter_async_context(EmbeddedBroker(directory / "nats"))
        tokens = write_tokens(directory / "tokens", USERS)
        guard = (
            *("--nats", broker.url, "--token-auth-file", str(tokens), "--anonymous-auth"),
            *("--authorization-config", str(directory / "authorization.yaml")),
        )
        passing = ("--forward", "configured", "--kubeconfig", kubeconfig)
        producer = Service("produce", "--kubeconfig", kubeconfig, "--nats", broker.url, log=directory / "produce.log")
        services = [
            GuardedService("serve", *guard, *passing, log=directory / "passing.log"),
            GuardedService("serve", *guard, log=directory / "alone.log"),
        ]
        for process in (producer, *services):
            await process.start()
            stack.push_async_callback(process.stop)
        for service in services:
            await service.ready()
        made = Fleet(clusters, services[0], services[1], authority)
        stack.push_async_callback(made.session.close)
        for cluster, namespace in itertools.product(clusters, ("web", "db")):
            code, _ = await made.of_cluster(cluster, "POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            assert code == 201
            pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
            code, _ = await made.of_cluster(cluster, "POST", f"/api/v1/namespaces/{namespace}/pods", pod)
            assert code == 201
        yield made


class Tally:
    """Compared answers: how many of which kind, and those that differ."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.differences: list[str] = []

    def note(self, kind: str, ours: object, theirs: object, *about: object) -> None:
        self.counts[f"{kind} {theirs if isinstance(theirs, bool) else ''}".rstrip()] += 1
        if ours != theirs:
            self.differences.append(f"{kind}: ours {ours!r}, theirs {theirs!r}: {about}")


async def all_of(questions: Iterable[Awaitable[None]]) -> None:
    some = asyncio.Semaphore(AT_ONCE)

    async def ask(question: Awaitable[None]) -> None:
        async with some:
            await question

    async with asyncio.TaskGroup() as group:
        for question in questions:
            group.create_task(ask(question))


async def test_every_answer_is_the_clusters_own(fleet: Fleet) -> None:
    tally = Tally()
    for number in range(ROUNDS):
        await compare(fleet, tally, number)
        wrong = [f"{len(tally.differences)} differ in round {number} of seed {SEED!r}:", *tally.differences[:40]]
        assert not tally.differences, "\n".join(wrong)
    # Each kind had both outcomes, or it would show nothing.
    for kind in ("review", "review of others", "alone", "request", "read", "path", "as another", "root"):
        for outcome in (True, False):
            assert tally.counts[f"{kind} {outcome}"] >= 2 * ROUNDS, tally.counts


async def compare(fleet: Fleet, tally: Tally, number: int) -> None:
    """One round, with rules and questions of its own."""
    random = Random(f"decisions {SEED}{number}")
    made = {cluster.name: worlds.world(random, wild=number % 2 == 1) for cluster in fleet.clusters}
    for cluster in fleet.clusters:
        add_more(random, made[cluster.name])
        await fleet.write(cluster, made[cluster.name])
    await fleet.followed()
    for cluster in fleet.clusters:
        world = made[cluster.name]
        questions: list[Awaitable[None]] = []
        for ask, count in ((review, REVIEWS), (request, REQUESTS), (odd_path, PATHS), (as_another, OTHER_USERS)):
            questions += [ask(fleet, tally, Random(random.random()), cluster, world) for _ in range(count)]
        questions += [rules(fleet, tally, cluster, user) for user in SOME]
        await all_of(questions)
    await all_of(at_the_root(fleet, tally, user) for user in SOME)


async def review(fleet: Fleet, tally: Tally, random: Random, cluster: SimulatedCluster, world: World) -> None:
    """Reviews of oneself and of others."""
    asked = worlds.request(random, world)
    asked = replace(asked, groups=asked.groups[:3])
    headers = bearer(token_of(asked.user, asked.groups))
    spec = spec_of(asked)
    body = {"spec": {**spec, "user": asked.user, "groups": groups_of(asked.user, asked.groups)}}
    code, answer = await fleet.of_cluster(cluster, "POST", OTHERS, body)
    assert code == 201, answer
    theirs = answer["status"]
    code, answer = await fleet.ours(fleet.passing, cluster.name, "POST", OTHERS, body, bearer(MASTER))
    tally.note("review of others", code == 201 and answer["status"]["allowed"], theirs["allowed"], asked)
    code, answer = await fleet.ours(fleet.passing, cluster.name, "POST", SELF, {"spec": spec}, headers)
    if code == 201:
        tally.note("review", answer["status"]["allowed"], theirs["allowed"], asked)
        if not theirs["allowed"]:
            reasons = [told.get("reason", "").partition(" [")[0] for told in (answer["status"], theirs)]
            tally.note("reason", reasons[0], reasons[1], asked)
    else:
        tally.note("no review", (code, answer), await fleet.of_cluster(cluster, "POST", SELF, {"spec": spec}, headers))
    known = (asked.group, asked.resource) in {("", "pods"), ("", "namespaces"), ("apps", "deployments")}
    if known and asked.verb in ("get", "list", "watch") and not asked.subresource:
        code, answer = await fleet.ours(fleet.alone, cluster.name, "POST", SELF, {"spec": spec}, headers)
        if code == 201:
            tally.note("alone", answer["status"]["allowed"], theirs["allowed"], asked)


async def request(fleet: Fleet, tally: Tally, random: Random, cluster: SimulatedCluster, world: World) -> None:
    """The request itself: refused in the same words, or not refused."""
    while (done := http_of(random, asked := worlds.request(random, world))) is None:
        pass
    method, path = done
    body = None if method in ("GET", "HEAD") else {"metadata": {"name": "new"}}
    headers = bearer(token_of(asked.user, asked.groups[:3]))
    if method == "PATCH":
        headers["Content-Type"] = "application/merge-patch+json"
    theirs = await fleet.of_cluster(cluster, method, path, body, headers)
    ours = await fleet.ours(fleet.passing, cluster.name, method, path, body, headers)
    if (theirs[0], ours[0]) == (403, 403) and method != "HEAD" and "[" not in theirs[1]["message"]:
        tally.note("words", ours[1], theirs[1], method, path, asked)
    tally.note("request", ours[0] != 403, theirs[0] != 403, method, path, asked, ours[1])
    here = (asked.group, asked.resource) in {("", "pods"), ("", "namespaces")} and not asked.subresource
    if method in ("GET", "HEAD") and here:
        ours = await fleet.ours(fleet.alone, cluster.name, method, path, None, headers)
        tally.note("read", ours[0] != 403, theirs[0] != 403, method, path, asked, ours[1])


async def odd_path(fleet: Fleet, tally: Tally, random: Random, cluster: SimulatedCluster, _: World) -> None:
    """Any path at all, of a user who may do hardly anything: what was understood of it stands in the refusal."""
    method, path = odd_http(random)
    headers = bearer(token_of(random.choice(worlds.USERS), ()))
    theirs = await fleet.of_cluster(cluster, method, path, None, headers)
    ours = await fleet.ours(fleet.passing, cluster.name, method, path, None, headers)
    if theirs[0] == 500:
        # What ends with an old verb is for nothing: an error there before it is known who asks, here 403 to all but who
        # may do everything, so that it tells nothing of clusters.
        assert path.partition("?")[0].rstrip("/").endswith(("/watch", "/proxy")), theirs
        tally.note("path for nothing", ours[0] in (403, 404), True, method, path, headers, ours[1])
        return
    tally.note("path", ours[0] != 403, theirs[0] != 403, method, path, headers, ours[1], theirs[1])
    if (theirs[0], ours[0]) == (403, 403) and "[" not in str(theirs[1]):
        tally.note("words of a path", ours[1], theirs[1], method, path, headers)


async def as_another(fleet: Fleet, tally: Tally, random: Random, cluster: SimulatedCluster, world: World) -> None:
    """A review of oneself as somebody else: whether that may be, and whose rights count then."""
    asked = worlds.request(random, world)
    headers = [*bearer(token_of(asked.user, asked.groups[:3])).items(), *impersonation(random)]
    headers.append(("Content-Type", "application/json"))
    answers = []
    for base in (f"{fleet.passing.url}/clusters/{cluster.name}", cluster.url):
        data = json.dumps({"spec": spec_of(asked)})
        async with fleet.session.post(base + SELF, data=data, headers=headers) as answer:
            found = await answer.json()
            if answer.status == 403:
                # The first mode that failed is told of, and that is up to what succeeded before.
                found = "403"
            answers.append(
                (
                    answer.status,
                    found["status"]["allowed"]
                    if answer.status == 201
                    else found["reason"]
                    if answer.status == 400
                    else found,
                )
            )
    tally.note("as another", answers[0], answers[1], asked, headers)
    tally.counts[f"as another {answers[1][0] == 201}"] += 1


async def rules(fleet: Fleet, tally: Tally, cluster: SimulatedCluster, user: ClusterUser) -> None:
    """The rules of a user in each namespace, one by one."""
    headers = bearer(token_of(user.name, user.groups))

    def listed(code: int, answer: Any) -> Any:
        if code != 201:
            return code, answer
        status = answer["status"]
        found = [
            sorted(json.dumps({key: one[key] for key in sorted(one) if one[key]}) for one in status[kind] or ())
            for kind in ("resourceRules", "nonResourceRules")
        ]
        return code, found, status["incomplete"], bool(status.get("evaluationError"))

    for namespace in ("web", "elsewhere"):
        body = {"spec": {"namespace": namespace}}
        theirs = listed(*await fleet.of_cluster(cluster, "POST", RULES, body, headers))
        ours = listed(*await fleet.ours(fleet.passing, cluster.name, "POST", RULES, body, headers))
        tally.note("rules", ours, theirs, user)


# Namespace and name that are asked for, where any are.
AT_THE_ROOT = (("", ""), ("web", ""), ("", "a"), ("db", "a"))


async def at_the_root(fleet: Fleet, tally: Tally, user: ClusterUser) -> None:
    """Lists over all clusters: what each allows, all of it or by namespace; and one object, where it may be seen."""
    who = {"user": user.name, "groups": groups_of(user.name, user.groups)}
    headers = bearer(token_of(user.name, user.groups))
    pods = {one.name: (await fleet.of_cluster(one, "GET", "/api/v1/pods"))[1]["items"] for one in fleet.clusters}

    async def allows(cluster: SimulatedCluster, verb: str, namespace: str, name: str) -> bool:
        attributes = {"verb": verb, "resource": "pods", "namespace": namespace, "name": name}
        _, answer = await fleet.of_cluster(cluster, "POST", OTHERS, {"spec": {**who, "resourceAttributes": attributes}})
        return bool(answer["status"]["allowed"])

    for namespace, name in AT_THE_ROOT:
        wanted = set()
        somewhere = False
        for cluster in fleet.clusters:
            everything = not namespace and await allows(cluster, "list", "", name)
            for one in (namespace,) if namespace else worlds.NAMESPACES:
                somewhere = somewhere or everything or await allows(cluster, "list", one, name)
            for metadata in [one["metadata"] for one in pods[cluster.name]]:
                within = metadata["namespace"]
                if namespace not in ("", within) or name not in ("", metadata["name"]):
                    continue
                if everything or await allows(cluster, "list", within, name):
                    wanted.add((cluster.name, within, metadata["name"]))
        path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
        query = f"?fieldSelector=metadata.name%3D{name}" if name else "?limit=500"
        for service in (fleet.passing, fleet.alone):
            code, answer = await fleet.ours(service, "", "GET", path + query, headers=headers)
            tally.note("root", code == 200, somewhere, path, query, user)
            found = sorted(map(View.key, answer.get("items", ())))
            tally.note("pods at the root", found, sorted(wanted), path, query, user)
        if wanted and not name:
            _, page = await fleet.ours(fleet.alone, "", "GET", f"{path}?limit=1", headers=headers)
            left = page["metadata"].get("remainingItemCount", 0)
            tally.note("left of a page", left, len(wanted) - 1, path, user)
        if namespace and name:
            code, _ = await fleet.ours(fleet.alone, "", "GET", f"{path}/{name}", headers=headers)
            seen = [await allows(cluster, "get", namespace, name) for cluster in fleet.clusters]
            tally.note("one of the root", code != 403, any(seen), path, name, user)
