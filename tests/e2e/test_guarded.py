"""A guarded service over clusters with rules of their own: kubectl with tokens, and as whom clusters are asked.

The clusters authenticate and decide themselves: what is passed on to them they answer, or refuse, in the name of who
asked. kubebraid's own user there may read everything and impersonate, nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from kubebraid.command.broker import EmbeddedBroker
from simulation import ClusterUser, SimulatedCluster, write_kubeconfig
from simulation.access.users import service_account
from tests.e2e.conftest import Kubectl, Service, View
from tests.e2e.guards import Authority, GuardedService, bearer, exchange, write_tokens
from tests.patience import PATIENCE, eventually_awaited

pytestmark = pytest.mark.asyncio(loop_scope="module")

RBAC = "/apis/rbac.authorization.k8s.io/v1"
READ = ["get", "list", "watch"]
BOT = service_account("payments", "bot")
# Whom kubebraid knows by its file, with tokens like their names.
USERS = {"jane": ClusterUser("jane", ("dev",)), "joe": ClusterUser("joe"), "mallory": ClusterUser("mallory")}
SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


def of_the_documentation(kind: str, name: str) -> dict[str, Any]:
    """An object that docs/security.md has."""
    blocks = re.findall(r"```yaml\n(.*?)```", SECURITY.read_text(), re.DOTALL)
    objects = [one for block in blocks for one in yaml.safe_load_all(block)]
    found: dict[str, Any] = next(one for one in objects if one.get("kind") == kind and one["metadata"]["name"] == name)
    return found


IMPERSONATE: list[dict[str, Any]] = of_the_documentation("ClusterRole", "kubebraid-impersonator")["rules"]
# What kubebraid's own user may do in each cluster, beside that.
READER: list[dict[str, Any]] = [
    {"verbs": READ, "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"]},
]
CONFIGURATION = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AuthorizationConfiguration",
    "authorizers": [
        {
            "type": "Members",
            "name": "members",
            "members": {"names": [{"clusters": ["bravo"], "userPrefix": "corp:", "groups": {"dev": "developers"}}]},
        }
    ],
}

Rules = list[dict[str, Any]]
# kubectl writes what it makes by itself in protobuf, which the simulation does not read.
DEPLOYMENT = json.dumps(
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "own", "namespace": "payments"},
        "spec": {
            "selector": {"matchLabels": {"a": "own"}},
            "template": {"metadata": {"labels": {"a": "own"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    }
)
CREATE, DELETE = ("create", "--validate=false", "-f", "-"), ("delete", "deployment", "own", "-n", "payments")


def rule(verbs: list[str], *resources: str, group: str = "", **more: Any) -> dict[str, Any]:
    return {"verbs": verbs, "apiGroups": [group], "resources": list(resources), **more}


class Scene:
    """Two clusters, and services over them: one that asks them in the name of who asks, one that shows them who."""

    def __init__(self, clusters: list[SimulatedCluster], authority: Authority, directory: Path) -> None:
        self.clusters = {cluster.name: cluster for cluster in clusters}
        self.authority = authority
        self.directory = directory
        self.impersonating: GuardedService
        self.showing: GuardedService

    async def admin(self, cluster: str, method: str, path: str, body: Any = None) -> Any:
        """A request to a cluster itself, by its administrator, that must succeed."""
        one = self.clusters[cluster]
        async with aiohttp.ClientSession() as session:
            code, answer = await exchange(
                session, method, one.url + path, body, bearer(one.token), self.authority.client
            )
        assert code in (200, 201), answer
        return answer

    async def allow(self, cluster: str, subject: str, namespace: str, name: str, rules: Rules) -> str:
        """Gives a subject (`User:jane`, `ServiceAccount:bot`) rules in a namespace, or all; the binding's path."""
        kind = "Role" if namespace else "ClusterRole"
        where = f"{RBAC}/namespaces/{namespace}/" if namespace else f"{RBAC}/"
        await self.admin(cluster, "POST", f"{where}{kind.lower()}s", {"metadata": {"name": name}, "rules": rules})
        of, _, named = subject.partition(":")
        body = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"kind": of, "name": named}],
        }
        await self.admin(cluster, "POST", f"{where}{kind.lower()}bindings", body)
        return f"{where}{kind.lower()}bindings/{name}"

    async def pod(self, cluster: str, namespace: str) -> str:
        """The name of a pod that runs."""
        listed = await self.admin(
            cluster, "GET", f"/api/v1/namespaces/{namespace}/pods?fieldSelector=status.phase=Running"
        )
        return str(listed["items"][0]["metadata"]["name"])

    def kubeconfig(self, service: Service, token: str, cluster: str = "") -> str:
        """A kubeconfig's path, for the owner of a token, of one cluster or all."""
        path = self.directory / f"{service.port}-{token}-{cluster}.kubeconfig"
        server = f"{service.url}/clusters/{cluster}" if cluster else service.url
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "k", "cluster": {"server": server, "certificate-authority": str(self.authority.ca)}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "current-context": "c",
        }
        path.write_text(yaml.safe_dump(content))
        return str(path)


async def set_up(scene: Scene) -> None:
    """Rules of alpha and bravo. Jane is `jane` in the one and `corp:jane` in the other."""
    for cluster in scene.clusters:
        await scene.allow(cluster, "User:kubebraid", "", "kubebraid", [*READER, *IMPERSONATE])
        await scene.allow(cluster, "ServiceAccount:bot", "payments", "bot", [rule(READ, "pods")])
    await scene.allow("alpha", "Group:dev", "", "pods", [rule(READ, "pods")])
    in_payments = [
        rule([*READ, "create", "patch", "delete"], "deployments", group="apps"),
        rule(["get", "create"], "pods/exec", "pods/log"),
    ]
    await scene.allow("alpha", "User:jane", "payments", "payments", in_payments)
    await scene.allow("bravo", "Group:developers", "checkout", "pods", [rule(READ, "pods")])
    await scene.allow("bravo", "User:corp:jane", "checkout", "logs", [rule(["get"], "pods/log")])
    # Who impersonates here may not be everybody.
    path = f"{RBAC}/clusterroles/kubebraid"
    some: dict[str, Any] = {"resourceNames": ["corp:jane", "corp:joe", "developers"]}
    rules = [*READER, *({**one, **some} for one in IMPERSONATE)]
    await scene.admin("bravo", "PUT", path, {"metadata": {"name": "kubebraid"}, "rules": rules})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    directory = tmp_path_factory.mktemp("guarded")
    authority = Authority(directory)
    users = {"kubebraid": ClusterUser("kubebraid"), "jane": USERS["jane"]}
    clusters = [
        SimulatedCluster(
            name,
            seed=number,
            pods=60,
            token=f"admin-{name}",
            # Only alpha has given the account this token.
            users={**users, "of-bot": BOT} if name == "alpha" else users,
            tls=authority.serving(),
            authority=authority.text,
        )
        for number, name in enumerate(("alpha", "bravo"))
    ]
    made = Scene(clusters, authority, directory)
    async with contextlib.AsyncExitStack() as stack:
        for cluster in clusters:
            await stack.enter_async_context(cluster)
        await set_up(made)
        kubeconfig = directory / "kubeconfig"
        write_kubeconfig(clusters, kubeconfig)
        content = yaml.safe_load(kubeconfig.read_text())
        for user in content["users"]:
            user["user"] = {"token": "kubebraid"}
        kubeconfig.write_text(yaml.safe_dump(content))
        tokens = write_tokens(directory / "tokens", USERS)
        configuration = directory / "authorization.yaml"
        configuration.write_text(yaml.safe_dump(CONFIGURATION))
        broker = await stack.enter_async_context(EmbeddedBroker(directory / "nats"))
        log = ("--nats", broker.url, "--kubeconfig", str(kubeconfig))
        producer = Service("produce", *log, log=directory / "produce.log")
        made.impersonating = GuardedService(
            "serve",
            *(*log, "--token-auth-file", str(tokens), "--authorization-config", str(configuration)),
            *("--token-review-cluster", "alpha", "--forward", "impersonate"),
            log=directory / "impersonating.log",
            authority=authority,
        )
        made.showing = GuardedService(
            "serve",
            *(*log, "--token-auth-file", str(tokens), "--token-review-cluster", "alpha"),
            *("--authorization-mode", "Members", "--forward", "caller"),
            log=directory / "showing.log",
            authority=authority,
        )
        for process in (producer, made.impersonating, made.showing):
            await process.start()
            stack.push_async_callback(process.stop)
        for service in (made.impersonating, made.showing):
            await service.ready()
        yield made


Run = Callable[..., Any]


@pytest.fixture
def run(scene: Scene, kubectl: Kubectl) -> Run:
    """kubectl of a token's owner: code, standard output, standard error."""

    async def made(
        token: str, *arguments: str, at: str = "", showing: bool = False, **more: Any
    ) -> tuple[int, str, str]:
        service = scene.showing if showing else scene.impersonating
        return await kubectl("--kubeconfig", scene.kubeconfig(service, token, at), *arguments, **more)

    return made


async def pods_of(scene: Scene, **namespaces: set[str]) -> set[tuple[str, str, str]]:
    """Keys of the pods of clusters, of some of their namespaces where any are named."""
    found = set()
    for cluster, wanted in namespaces.items():
        for item in (await scene.admin(cluster, "GET", "/api/v1/pods"))["items"]:
            metadata = item["metadata"]
            if not wanted or metadata["namespace"] in wanted:
                found.add((cluster, metadata["namespace"], metadata["name"]))
    return found


def keys(listed: str) -> set[tuple[str, str, str]]:
    return {View.key(item) for item in json.loads(listed)["items"]}


# -- what is seen --------------------------------------------------------------------------------------------------


async def test_one_list_has_what_each_cluster_allows(scene: Scene, run: Run) -> None:
    code, out, err = await run("jane", "get", "pods", "-A", "-o", "json")
    assert code == 0, err
    assert keys(out) == await pods_of(scene, alpha=set(), bravo={"checkout"})
    code, out, _ = await run("jane", "get", "pods", "-A", "--no-headers")
    assert (code, len(out.splitlines())) == (0, len(await pods_of(scene, alpha=set(), bravo={"checkout"})))
    code, _, err = await run("joe", "get", "pods", "-A")
    assert code == 1
    assert 'pods is forbidden: User "joe" cannot list resource "pods" in API group "" at the cluster scope' in err
    code, _, err = await run("jane", "get", "pods", "-A", at="bravo")
    # As bravo would say it, of who she is here.
    assert code == 1
    assert (
        'pods is forbidden: User "jane" cannot list' in err or 'pods is forbidden: User "corp:jane" cannot list' in err
    )
    code, _, err = await run("nobody", "get", "pods", "-A")
    assert code == 1
    assert "must be logged in to the server" in err


async def test_whoami(run: Run) -> None:
    code, out, err = await run("jane", "auth", "whoami", "-o", "json")
    assert code == 0, err
    assert json.loads(out)["status"]["userInfo"] == {"username": "jane", "groups": ["dev", "system:authenticated"]}
    code, out, err = await run("joe", "auth", "whoami", "-o", "json", at="alpha")
    assert code == 0, err
    assert json.loads(out)["status"]["userInfo"] == {"username": "joe", "groups": ["system:authenticated"]}


@pytest.mark.parametrize(
    ("token", "at", "question", "answer"),
    [
        ("jane", "", ("list", "pods", "-A"), "yes"),
        ("jane", "", ("list", "pods", "-n", "checkout"), "yes"),
        ("jane", "", ("list", "configmaps", "-A"), "no"),
        ("jane", "", ("create", "deployments.apps", "-n", "payments"), "no"),
        ("jane", "alpha", ("create", "deployments.apps", "-n", "payments"), "yes"),
        ("jane", "alpha", ("create", "deployments.apps", "-n", "checkout"), "no"),
        ("jane", "alpha", ("create", "pods", "--subresource", "exec", "-n", "payments"), "yes"),
        ("jane", "bravo", ("list", "pods", "-n", "payments"), "no"),
        ("jane", "bravo", ("get", "pods", "--subresource", "log", "-n", "checkout"), "yes"),
        ("joe", "", ("list", "pods", "-A"), "no"),
        ("joe", "alpha", ("get", "/version"), "yes"),
        ("joe", "", ("get", "/clusters"), "yes"),
        ("joe", "", ("get", "/metrics"), "no"),
    ],
)
async def test_can_i(run: Run, token: str, at: str, question: tuple[str, ...], answer: str) -> None:
    code, out, err = await run(token, "auth", "can-i", *question, at=at)
    assert (code, out.split()[:1]) == (0 if answer == "yes" else 1, [answer]), (out, err)


async def test_can_i_list(run: Run) -> None:
    async def verbs(resource: str, namespace: str, at: str = "") -> set[str]:
        code, out, err = await run("jane", "auth", "can-i", "--list", "-n", namespace, at=at)
        assert code == 0, err
        lines = [line for line in out.splitlines() if line.split()[:1] == [resource]]
        return {verb for line in lines for verb in line.rpartition("[")[2].rstrip("]").split()}

    assert await verbs("pods", "checkout") == set(READ)
    assert await verbs("deployments.apps", "payments") == set(READ)
    assert await verbs("deployments.apps", "payments", "alpha") == {*READ, "create", "patch", "delete"}
    assert await verbs("deployments.apps", "payments", "bravo") == set()
    assert await verbs("pods", "checkout", "bravo") == set(READ)
    for at in ("", "alpha"):
        assert await verbs("selfsubjectreviews.authentication.k8s.io", "checkout", at) == {"create"}
    # Paths of the root are decided there, and not by what any cluster allows.
    assert await verbs("[/clusters/*]", "checkout") == {"get"}
    assert await verbs("[/clusters/*]", "checkout", "alpha") == set()


# -- in the name of who asks ---------------------------------------------------------------------------------------


async def test_writes_are_the_users_own(scene: Scene, run: Run) -> None:
    code, _, err = await run("jane", *CREATE, at="alpha", input=DEPLOYMENT)
    assert code == 0, err
    code, out, err = await run("jane", "get", "deployments", "-n", "payments", "-o", "name", at="alpha")
    assert "deployment.apps/own" in out, err
    code, _, err = await run("jane", *DELETE, at="alpha")
    assert code == 0, err
    code, _, err = await run("jane", *CREATE, at="bravo", input=DEPLOYMENT)
    assert code == 1
    said = 'cannot create resource "deployments" in API group "apps" in the namespace "payments"'
    assert f'User "corp:jane" {said}' in err
    code, _, err = await run("joe", *CREATE, at="alpha", input=DEPLOYMENT)
    assert code == 1
    assert f'User "joe" {said}' in err
    # kubebraid's own user may not be just anybody there, and says so.
    code, _, err = await run("mallory", *CREATE, at="bravo", input=DEPLOYMENT)
    assert code == 1
    assert 'User "kubebraid" cannot impersonate' in err
    for cluster in scene.clusters:
        listed = await scene.admin(cluster, "GET", "/apis/apps/v1/deployments")
        assert "own" not in [item["metadata"]["name"] for item in listed["items"]]


async def test_logs_and_exec(scene: Scene, run: Run) -> None:
    name = await scene.pod("alpha", "payments")
    code, out, err = await run("jane", "exec", name, "-n", "payments", "--", "echo", "hello", at="alpha")
    assert (code, out) == (0, "hello\n"), err
    code, out, err = await run("jane", "logs", name, "-n", "payments", "--tail", "1", at="alpha")
    assert (code, len(out.splitlines())) == (0, 1), err
    name = await scene.pod("bravo", "checkout")
    code, out, err = await run("jane", "logs", name, "-n", "checkout", "--tail", "1", at="bravo")
    assert (code, len(out.splitlines())) == (0, 1), err
    code, _, err = await run("jane", "exec", name, "-n", "checkout", "--", "echo", "hello", at="bravo")
    assert code == 1
    assert 'User "corp:jane" cannot' in err
    assert 'resource "pods/exec"' in err


async def test_what_is_not_synced_is_the_clusters_to_allow(scene: Scene, run: Run) -> None:
    """Secrets are in no log: the cluster itself is asked for them, as of who asks."""
    await scene.allow("bravo", "User:corp:jane", "payments", "secrets", [rule(READ, "secrets")])
    code, out, err = await run("jane", "get", "secrets", "-n", "payments", "-o", "name", at="bravo")
    assert code == 0, err
    listed = await scene.admin("bravo", "GET", "/api/v1/namespaces/payments/secrets")
    assert out.split() == [f"secret/{item['metadata']['name']}" for item in listed["items"]]
    code, _, err = await run("joe", "get", "secrets", "-n", "payments", at="bravo")
    assert code == 1
    assert 'secrets is forbidden: User "corp:joe" cannot list resource "secrets"' in err


async def test_who_asks_may_be_another_where_the_clusters_let_them(scene: Scene) -> None:
    """Impersonation here needs the right in the cluster; what goes on is whom it is for, and none of its headers."""
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    for at, told in (("alpha", 403), ("bravo", 403)):
        code, _ = await scene.impersonating.ask("POST", f"/clusters/{at}{path}", {}, headers=bearer("jane", User="joe"))
        assert code == told
    await scene.allow("alpha", "User:jane", "", "as-joe", [rule(["impersonate"], "users", resourceNames=["joe"])])

    async def as_joe() -> Any:
        code, answer = await scene.impersonating.ask(
            "POST", f"/clusters/alpha{path}", {}, headers=bearer("jane", User="joe")
        )
        return code == 201 and answer

    answer = await eventually_awaited(as_joe)
    assert answer["status"]["userInfo"] == {"username": "joe", "groups": ["system:authenticated"]}


async def test_headers_of_impersonation_go_as_far_as_they_may(scene: Scene) -> None:
    """The cluster that decides about a write is told who it is for: by us, or by the caller's own headers."""
    await scene.allow("alpha", "User:jane", "", "as-max", [rule(["impersonate"], "users", resourceNames=["max"])])
    path = "/clusters/alpha/api/v1/namespaces/payments/configmaps"

    for service in (scene.impersonating, scene.showing):

        async def asked(service: GuardedService = service) -> Any:
            code, answer = await service.ask("POST", path, {}, headers=bearer("jane", User="max"))
            assert code == 403
            # Until what she may has come here.
            return "impersonate" not in answer["message"] and answer["message"]

        assert 'User "max" cannot create resource "configmaps"' in await eventually_awaited(asked)


async def test_a_service_account_is_its_clusters_own(scene: Scene, run: Run) -> None:
    await scene.allow(
        "alpha", "ServiceAccount:bot", "payments", "deploys", [rule(["create"], "deployments", group="apps")]
    )
    await scene.allow(
        "bravo", "ServiceAccount:bot", "payments", "deploys", [rule(["create"], "deployments", group="apps")]
    )
    code, _, err = await run("of-bot", *CREATE, at="alpha", input=DEPLOYMENT)
    assert code == 0, err
    await scene.admin("alpha", "DELETE", "/apis/apps/v1/namespaces/payments/deployments/own")
    code, _, err = await run("of-bot", *CREATE, at="bravo", input=DEPLOYMENT)
    assert code == 1
    assert "forbidden" in err
    code, out, err = await run("of-bot", "get", "pods", "-A", "-o", "json")
    assert keys(out) == await pods_of(scene, alpha={"payments"}), err


@pytest.mark.parametrize("showing", [False, True])
async def test_a_console_shows_its_token_as_a_subprotocol(scene: Scene, showing: bool) -> None:
    service = scene.showing if showing else scene.impersonating
    name = await scene.pod("alpha", "payments")
    url = (
        f"{service.url}/clusters/alpha/api/v1/namespaces/payments/pods/{name}/exec?command=echo&command=hello&stdout=1"
    )
    async with aiohttp.ClientSession() as session:

        async def told(token: str) -> bytes:
            encoded = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
            protocols = (f"base64url.bearer.authorization.k8s.io.{encoded}", "v5.channel.k8s.io")
            async with session.ws_connect(url, protocols=protocols, ssl=scene.authority.client) as socket:
                assert socket.protocol == "v5.channel.k8s.io"
                return (await socket.receive_bytes(timeout=PATIENCE))[1:]

        assert await told("jane") == b"hello\n"
        for token, status in (("joe", 401 if showing else 403), ("unheard-of", 401)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await told(token)
            assert refused.value.status == status


# -- shown to the clusters -----------------------------------------------------------------------------------------


async def test_a_cluster_says_whose_a_token_is(scene: Scene, run: Run) -> None:
    """alpha's account sees what alpha gives it, and nothing of bravo, which has an account of the same name."""
    code, out, err = await run("of-bot", "auth", "whoami", "-o", "json", showing=True)
    assert code == 0, err
    assert json.loads(out)["status"]["userInfo"]["username"] == BOT.name
    code, out, err = await run("of-bot", "get", "pods", "-A", "-o", "json", showing=True)
    assert code == 0, err
    assert keys(out) == await pods_of(scene, alpha={"payments"})
    code, _, err = await run("of-bot", "get", "pods", "-n", "payments", at="bravo", showing=True)
    assert code == 1
    code, _, err = await run("unheard-of", "get", "pods", "-A", showing=True)
    assert code == 1
    assert "must be logged in to the server" in err


async def test_the_caller_is_shown(scene: Scene, run: Run) -> None:
    code, _, err = await run("jane", *CREATE, at="alpha", showing=True, input=DEPLOYMENT)
    assert code == 0, err
    code, _, err = await run("jane", *DELETE, at="alpha", showing=True)
    assert code == 0, err
    # bravo knows her token, too, and gives `jane` nothing; joe's it does not know.
    for token, said in (("jane", 'User "jane" cannot create resource "deployments"'), ("joe", "must be logged in")):
        code, _, err = await run(token, *CREATE, at="bravo", showing=True, input=DEPLOYMENT)
        assert code == 1
        assert said in err
    name = await scene.pod("alpha", "payments")
    code, out, err = await run("jane", "exec", name, "-n", "payments", "--", "echo", "hello", at="alpha", showing=True)
    assert (code, out) == (0, "hello\n"), err


# -- rules change --------------------------------------------------------------------------------------------------


async def test_a_watch_ends_when_a_cluster_takes_a_right_away(scene: Scene) -> None:
    service = scene.impersonating
    binding = await scene.allow("bravo", "User:corp:joe", "checkout", "joe", [rule(READ, "pods")])

    async def seen() -> Any:
        code, answer = await service.ask("GET", "/api/v1/pods", token="joe")
        return code == 200 and answer

    listed = await eventually_awaited(seen)
    assert {View.key(item) for item in listed["items"]} == await pods_of(scene, bravo={"checkout"})
    url = f"{service.url}/api/v1/pods?watch=1&resourceVersion={listed['metadata']['resourceVersion']}"
    async with aiohttp.ClientSession() as session:
        async with session.get(url, headers=bearer("joe"), ssl=scene.authority.client) as answer:
            assert answer.status == 200
            await scene.admin("bravo", "DELETE", binding)
            async with asyncio.timeout(PATIENCE):
                events = [json.loads(line) async for line in answer.content]
    assert (events[-1]["type"], events[-1]["object"]["code"]) == ("ERROR", 410)
    code, _ = await service.ask("GET", "/api/v1/pods", token="joe")
    assert code == 403
