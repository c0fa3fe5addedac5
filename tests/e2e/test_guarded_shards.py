"""Guarded shards: two logs by type, served over https in several processes, and a router with a certificate of its own.

kubectl asks it by tokens and by certificates; each cluster's own RBAC, which is in both logs, decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes
import pytest
import yaml

from kubebraid.command.broker import EmbeddedBroker
from tests import processes
from tests.e2e.conftest import Kubectl, Members, Service, StartProcess
from tests.patience import PATIENCE
from tests.route.guarded_instances import PEOPLE, Authorities

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux' SO_REUSEPORT")
RBAC = "rbac.authorization.k8s.io"
READ = ["get", "list", "watch"]
DISCOVERY = {"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/openapi*", "/version"]}
BASIC = {"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews"], "verbs": ["create"]}


async def grant(members: Members, cluster: str, name: str, subject: dict[str, Any], *rules: dict[str, Any]) -> None:
    """A ClusterRole, bound as a whole."""
    about = {"apiVersion": f"{RBAC}/v1", "metadata": {"name": name}}
    bound = {"roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}, "subjects": [subject]}
    async with aiohttp.ClientSession() as session:
        for path, document in (
            ("clusterroles", {**about, "kind": "ClusterRole", "rules": list(rules)}),
            (
                "clusterrolebindings",
                {**about, "kind": "ClusterRoleBinding", **bound},
            ),
        ):
            async with session.post(f"{members[cluster].url}/apis/{RBAC}/v1/{path}", json=document) as answer:
                assert answer.status == 201, await answer.text()


class Shards:
    """Two groups of guarded instances, and the router before them."""

    def __init__(self, directory: Path, groups: dict[str, Service]) -> None:
        self.directory = directory
        self.authorities = Authorities(directory)
        self.groups = groups
        self.router = Service("route", *self._routing, log=directory / "route.log")
        self.url = self.router.url.replace("http://", "https://")

    def file(self, name: str) -> str:
        return str(self.directory / name)

    @property
    def guards(self) -> tuple[str, ...]:
        """Options of an instance."""
        return (
            *("--tls-cert-file", self.file("server.pem"), "--client-ca-file", self.file("users.crt")),
            *("--token-auth-file", self.file("tokens.csv")),
            *("--requestheader-client-ca-file", self.file("proxies.crt"), "--requestheader-allowed-names", "router"),
        )

    @property
    def _routing(self) -> tuple[str, ...]:
        groups = [
            part
            for name, service in self.groups.items()
            for part in ("--group", f"{name}={service.url.replace('http://', 'https://')}")
        ]
        return (
            *groups,
            *("--tls-cert-file", self.file("server.pem"), "--client-ca-file", self.file("users.crt")),
            *("--instance-ca-file", self.file("servers.crt")),
            *("--proxy-client-cert-file", self.file("front.crt"), "--proxy-client-key-file", self.file("front.key")),
        )

    def by_certificate(self, name: str) -> tuple[str, ...]:
        """What kubectl shows of who has a certificate."""
        groups = PEOPLE[name]
        issued = self.authorities.users.issue_cert(common_name=name, organization_name=groups[0] if groups else None)
        issued.private_key_pem.write_to_path(self.file(f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(self.file(f"{name}.crt"))
        return ("--client-certificate", self.file(f"{name}.crt"), "--client-key", self.file(f"{name}.key"))

    @staticmethod
    def by_token(name: str) -> tuple[str, ...]:
        """What kubectl shows of who has a token."""
        return ("--token", f"token-of-{name}")

    async def ready(self) -> None:
        """Returns once all is there."""
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
            while True:
                assert self.router.child.returncode is None, self.router.output()
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{self.url}/readyz", ssl=self.authorities.context()) as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.1)


@pytest.fixture
async def shards(tmp_path: Path, members: Members, process: StartProcess) -> AsyncIterator[Shards]:
    everyone = {"kind": "Group", "name": "system:authenticated", "apiGroup": RBAC}
    jane = {"kind": "User", "name": "jane", "apiGroup": RBAC}
    for name in ("alpha", "bravo"):
        await grant(members, name, "all-may-discover", everyone, DISCOVERY, BASIC)
    pods = {"apiGroups": ["", "apps"], "resources": ["pods", "deployments"], "verbs": READ}
    await grant(members, "alpha", "janes", jane, pods)
    async with EmbeddedBroker(tmp_path / "nats") as broker, contextlib.AsyncExitStack() as stack:
        kubeconfig = ("--nats", broker.url, "--kubeconfig", str(members.kubeconfig))
        of_pods = ("--include", "pods", "--include", f"*.{RBAC}")
        await process("produce", *kubeconfig, "--stream", "PODS", *of_pods)
        await process("produce", *kubeconfig, "--include", "*", "--exclude", "pods")
        groups = {name: Service("serve", log=tmp_path / f"{name}.log") for name in ("pods", "rest")}
        made = Shards(tmp_path, groups)
        for name, stream, workers in (("pods", "PODS", "2"), ("rest", "KUBEBRAID", "1")):
            service = groups[name]
            more = ("--nats", broker.url, "--stream", stream, "--workers", workers, *made.guards)
            service.arguments = (*service.arguments, *more)
            await service.start()
            stack.push_async_callback(service.stop)
        await made.router.start()
        stack.push_async_callback(made.router.stop)
        await made.ready()
        yield made


async def test_kubectl_by_token_and_certificate(shards: Shards, kubectl: Kubectl, tmp_path: Path) -> None:
    trusting = ("--certificate-authority", shards.file("servers.crt"))

    async def run(who: tuple[str, ...], *arguments: str, cluster: str = "") -> tuple[int, str, str]:
        server = f"{shards.url}/clusters/{cluster}" if cluster else shards.url
        # Discovery is cached by server: each user has another one.
        cache = ("--cache-dir", str(tmp_path / f"cache-{abs(hash(who))}"))
        return await kubectl("--server", server, *trusting, *cache, *who, *arguments)

    root, jane = shards.by_certificate("root"), shards.by_certificate("jane")
    by_token = shards.by_token("jane")
    code, everything, err = await run(root, "get", "pods,deployments", "-A", "-o", "name")
    assert code == 0, err
    for who in (jane, by_token):
        code, seen, err = await run(who, "get", "pods,deployments", "-A", "-o", "name")
        assert code == 0, err
        assert 0 < len(seen.split()) < len(everything.split())
        assert set(seen.split()) < set(everything.split())
        code, out, err = await run(who, "get", "pods", "-A", "-o", "name", cluster="alpha")
        assert (code, len(out.split())) == (0, 60), err
        code, _, err = await run(who, "get", "pods", "-A", cluster="bravo")
        assert code == 1
        assert 'pods is forbidden: User "jane" cannot list resource "pods" in API group "" at the cluster scope' in err
        code, out, err = await run(who, "auth", "whoami", "-o", "json")
        assert json.loads(out)["status"]["userInfo"]["username"] == "jane", err
        code, out, err = await run(who, "auth", "can-i", "list", "pods")
        assert (code, out.strip()) == (0, "yes"), err
        code, out, err = await run(who, "auth", "can-i", "list", "nodes")
        assert (code, out.strip().splitlines()[-1:]) == (1, ["no"]), (out, err)
    code, _, err = await run(shards.by_token("nobody"), "get", "pods", "-A")
    assert code == 1
    assert "You must be logged in to the server" in err
    # Rules of access are in both logs; they are asked for at the root like any other type.
    code, out, err = await run(root, "get", "clusterrolebindings", "-o", "name")
    assert code == 0, err
    assert out.split().count("clusterrolebinding.rbac.authorization.k8s.io/all-may-discover") == 2


NODE_MODULES = Path(__file__).parents[2] / ".node" / "node_modules"
NODE = """
import * as k8s from '@kubernetes/client-node';
const config = new k8s.KubeConfig();
config.loadFromFile(process.argv[2]);
const review = await config.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({body: {}});
const pods = await config.makeApiClient(k8s.CoreV1Api).listPodForAllNamespaces();
const deployments = await config.makeApiClient(k8s.AppsV1Api).listDeploymentForAllNamespaces();
const first = await new Promise((ok, failed) => new k8s.Watch(config).watch('/api/v1/pods', {}, ok, failed));
console.log(JSON.stringify([review.status.userInfo.username, pods.items.length, deployments.items.length > 0, first]));
process.exit(0);
"""


@pytest.mark.parametrize("way", ["certificate", "token"])
async def test_programs_by_token_and_certificate(shards: Shards, tmp_path: Path, way: str) -> None:
    """The Python and the Node client: each sees, through the router, what alpha lets jane see, of both logs."""
    options = shards.by_certificate("jane") if way == "certificate" else shards.by_token("jane")
    user = {option.removeprefix("--"): value for option, value in zip(options[::2], options[1::2], strict=True)}
    server = {"server": shards.url, "certificate-authority": shards.file("servers.crt")}
    path = tmp_path / "client.kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "k", "cluster": server}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "current-context": "c",
            }
        )
    )

    def ask() -> list[Any]:
        with kubernetes.config.new_client_from_config(str(path)) as client:
            core: Any = kubernetes.client.CoreV1Api(client)
            reviews: Any = kubernetes.client.AuthenticationV1Api(client)
            review = reviews.create_self_subject_review({})
            pods = core.list_pod_for_all_namespaces().items
            apps: Any = kubernetes.client.AppsV1Api(client)
            deployments = apps.list_deployment_for_all_namespaces().items
            events = kubernetes.watch.Watch().stream(core.list_pod_for_all_namespaces, timeout_seconds=60)
            return [review.status.user_info.username, len(pods), bool(deployments), next(events)["type"]]

    expected = ["jane", 60, True, "ADDED"]
    assert await asyncio.to_thread(ask) == expected
    if (node := shutil.which("node")) is None or not NODE_MODULES.exists():
        pytest.skip("@kubernetes/client-node is not installed: `make install` where npm is")
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "ask.mjs").write_text(NODE)
    child = await asyncio.create_subprocess_exec(
        node, str(tmp_path / "ask.mjs"), str(path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    assert json.loads(out) == expected


async def test_a_group_that_is_down(shards: Shards) -> None:
    """Who had discovery, still has it; nobody gets it who had not, or where instances are."""
    context = shards.authorities.context("jane")
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector) as jane, aiohttp.ClientSession() as others:
        async with jane.get(f"{shards.url}/apis") as answer:
            before = await answer.json()
            assert answer.status == 200
        await shards.groups["rest"].stop()
        async with jane.get(f"{shards.url}/apis") as answer:
            assert (answer.status, await answer.json()) == (200, before)
        async with jane.get(f"{shards.url}/apis/apps/v1/deployments") as answer:
            assert answer.status == 503
            assert "rest" not in await answer.text()
        for name, code in (("mallory", 503), ("nobody", 401)):
            headers = {"Authorization": f"Bearer token-of-{name}"}
            async with others.get(f"{shards.url}/apis", headers=headers, ssl=shards.authorities.context()) as answer:
                assert answer.status == code, await answer.text()


async def test_what_is_no_good_is_one_line(process: StartProcess, tmp_path: Path) -> None:
    authorities = Authorities(tmp_path)
    group = ("--group", "all=https://127.0.0.1:1")
    front = ("--proxy-client-cert-file", str(authorities.file("front.crt")))
    tls = ("--tls-cert-file", str(authorities.file("server.pem")))
    for arguments, text in (
        ((*group, *front), "front.crt and its key cannot be used"),
        ((*group, "--proxy-client-key-file", "x"), "give that, too"),
        ((*group, *tls, "--client-ca-file", str(authorities.file("users.crt"))), "--proxy-client-cert-file"),
        ((*group, "--client-ca-file", str(authorities.file("users.crt"))), "--tls-cert-file"),
        (("--group", "all=http://127.0.0.1:1", *front), "is no https"),
        ((*group, "--listen", "0.0.0.0:0"), "--insecure-listen"),
        ((*group, "--instance-ca-file", str(tmp_path / "none.crt")), "none.crt has no authority"),
    ):
        failed = await process("route", *arguments)
        async with asyncio.timeout(PATIENCE):
            assert await failed.child.wait() == 2, failed.output()
        [line] = failed.output().strip().splitlines()
        assert text in line


async def test_commands_that_ask_it(shards: Shards, kubectl: Kubectl, tmp_path: Path) -> None:
    """`status`, `clusters list` and `kubeconfig`: by files, and by a kubeconfig's context, as kubectl would."""

    async def run(*arguments: str) -> tuple[int, str, str]:
        environment = {**os.environ, "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "none")}
        return await processes.run(*arguments, environment=environment)

    (tmp_path / "janes.token").write_text("token-of-jane\n")
    shards.by_certificate("root")
    here = ("--server", shards.url, "--certificate-authority", shards.file("servers.crt"))
    jane = ("--token-file", str(tmp_path / "janes.token"))
    root = ("--client-certificate", shards.file("root.crt"), "--client-key", shards.file("root.key"))
    for name, who in (("jane", jane), ("root", root)):
        code, out, err = await run("kubeconfig", *here, *who)
        assert code == 0, err
        path = str(tmp_path / f"{name}.kubeconfig")
        Path(path).write_text(out)
        for more in ((*here, *who), ("--kubeconfig", path), ("--kubeconfig", path, "--context", "kubebraid-alpha")):
            code, out, err = await run("clusters", "list", "-o", "name", *more)
            assert (code, out.split()) == (0, ["alpha", "bravo"]), err
            code, out, err = await run("status", "--types", *more)
            assert code == 0, out + err
            assert out.startswith(f"{shards.url}: ready")
        # What such a file makes of itself is as good.
        code, out, err = await run("kubeconfig", "--int", "--kubeconfig", path, "--context", "kubebraid-bravo")
        assert code == 0, err
        Path(path).write_text(out)
        code, out, err = await kubectl("--kubeconfig", path, "--context", "kubebraid-int-alpha", "get", "pods", "-A")
        assert (code, len(out.splitlines())) == (0, 61), err
    (tmp_path / "wrong.token").write_text("nobodys")
    for command in ("status", "kubeconfig"):
        for more, text in (
            (here, "answers 401: say who asks, by --client-certificate, --token-file or --kubeconfig"),
            ((*here, "--token-file", str(tmp_path / "wrong.token")), "answers 401: say who asks"),
            (("--server", shards.url), "give its authority with --certificate-authority"),
            (("--kubeconfig", str(tmp_path / "none")), "none"),
            (("--kubeconfig", path, "--context", "nothing"), "nothing"),
            (("--kubeconfig", path, *here[:2]), "--server is said in the file"),
        ):
            code, out, err = await run(command, *more)
            assert (code, out) == (2, ""), (more, out)
            [line] = err.strip().splitlines()
            assert text in line
            assert "nobodys" not in line
