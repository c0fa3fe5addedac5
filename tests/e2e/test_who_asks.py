"""Who asks, as clients show it: kubectl with certificates, tokens and an OIDC plugin, front proxies, impersonation.

Everything goes through a running `kubebraid up` with https; an issuer in this process signs the ID tokens.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes
import pytest
import pytest_asyncio
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.e2e.conftest import Kubectl, Members, Service
from tests.patience import PATIENCE, eventually
from tests.query.access.authentication import issuer as issuers
from tests.query.access.authentication.certificates import SERVER, Issued, authority, issue, named
from tests.query.access.authentication.issuer import AUTHORITY, CA_PEM, Issuer, rsa

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS, PROXIES = authority("of clients"), authority("of proxies")
TOKEN = "a-token-of-robots"
KEY = rsa("one")
NODE_MODULES = Path(__file__).parents[2] / ".node" / "node_modules"

# Who is in dev may do everything, in all clusters and at the root; that is also: be someone else.
POLICY = {
    "rules": [
        {
            "groups": ["dev"],
            "verbs": ["*"],
            "apiGroups": ["*"],
            "resources": ["*"],
            "namespaces": ["*"],
            "clusters": ["*"],
        },
        {"groups": ["system:authenticated"], "verbs": ["get"], "nonResourceURLs": ["*"], "clusters": ["*"]},
    ]
}


class World:
    """A running service, the issuer that it trusts, and a directory for files of clients."""

    def __init__(self, service: Service, issuer: Issuer, directory: Path) -> None:
        self.service, self.issuer, self.directory = service, issuer, directory
        self.url = service.url.replace("http://", "https://")
        (directory / "ca.pem").write_text(CA_PEM)

    def kubeconfig(self, user: dict[str, Any]) -> str:
        """A kubeconfig's path, for one user."""
        path = self.directory / f"{hashlib.sha256(json.dumps(user).encode()).hexdigest()[:12]}.kubeconfig"
        server = {"server": self.url, "certificate-authority": str(self.directory / "ca.pem")}
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
        return str(path)

    def context(self, client: Issued | None = None) -> ssl.SSLContext:
        """TLS of a client in this process, with its certificate."""
        context = ssl.create_default_context(cadata=CA_PEM)
        if client is not None:
            context.load_cert_chain(pem_of(client, self.directory))
        return context

    async def who(
        self, headers: dict[str, str] | None = None, client: Issued | None = None, path: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """The answer to a SelfSubjectReview: its code, and the user or the Status."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        url = f"{self.url}{path}/apis/authentication.k8s.io/v1/selfsubjectreviews"
        async with aiohttp.ClientSession() as session:
            async with session.post(url, json=body, headers=headers, ssl=self.context(client)) as answer:
                found = await answer.json()
                return answer.status, found["status"]["userInfo"] if answer.status == 201 else found


def pem_of(client: Issued, directory: Path) -> Path:
    """A file with a client's certificate and key."""
    path = directory / f"{hashlib.sha256(client.der).hexdigest()[:12]}.pem"
    key = client.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(client.pem + key)
    return path


def certificate(name: str, *groups: str, by: Issued = CLIENTS, **options: Any) -> Issued:
    return issue(named(name, groups), by, **options)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(shared_members: Members, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("who")
    server = AUTHORITY.issue_cert("localhost", "127.0.0.1")
    files = {
        "server.pem": server.private_key_and_cert_chain_pem.bytes(),
        "clients.pem": CLIENTS.pem,
        "proxies.pem": PROXIES.pem,
        "tokens": f'sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()},robot,7,"bots"\n'.encode(),
        "policy.yaml": yaml.safe_dump(POLICY).encode(),
        "audit.yaml": b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}",
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    async with issuers.running() as issuer:
        issuer.keys = [KEY]
        trust(directory, issuer)
        service = Service(
            "up",
            "--kubeconfig",
            str(shared_members.kubeconfig),
            "--data",
            str(directory / "data"),
            "--tls-cert-file",
            str(directory / "server.pem"),
            "--client-ca-file",
            str(directory / "clients.pem"),
            "--requestheader-client-ca-file",
            str(directory / "proxies.pem"),
            "--requestheader-allowed-names",
            "proxy",
            "--token-auth-file",
            str(directory / "tokens"),
            "--authentication-config",
            str(directory / "authentication.yaml"),
            "--authorization-mode",
            "Policy",
            "--authorization-policy-file",
            str(directory / "policy.yaml"),
            "--audit-policy-file",
            str(directory / "audit.yaml"),
            "--audit-log-path",
            str(directory / "audit.log"),
            log=directory / "up.log",
        )
        await service.start()
        try:
            made = World(service, issuer, directory)
            await _ready(made)
            yield made
        finally:
            await service.stop()


def trust(directory: Path, issuer: Issuer, prefix: str = "oidc:") -> None:
    """Writes the AuthenticationConfiguration."""
    groups = {"claim": "groups", "prefix": ""}
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [
            {
                "issuer": {"url": issuer.url, "certificateAuthority": CA_PEM, "audiences": ["kubebraid"]},
                "claimMappings": {"username": {"claim": "sub", "prefix": prefix}, "groups": groups},
                "userValidationRules": [{"expression": "user.username != 'oidc:root'", "message": "is reserved"}],
            }
        ],
        "anonymous": {"enabled": True, "conditions": [{"path": "/livez"}]},
    }
    (directory / "authentication.yaml").write_text(yaml.safe_dump(document))


async def _ready(world: World) -> None:
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            assert world.service.child.returncode is None, world.service.output()
            try:
                async with session.get(f"{world.url}/readyz", ssl=world.context()) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def whoami(kubectl: Kubectl, kubeconfig: str, *arguments: str) -> dict[str, Any]:
    code, out, err = await kubectl("--kubeconfig", kubeconfig, *arguments, "auth", "whoami", "-o", "json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)["status"]["userInfo"]
    return found


# -- kubectl -------------------------------------------------------------------------------------------------------


async def test_kubectl_with_a_certificate(world: World, kubectl: Kubectl) -> None:
    jane = certificate("jane", "dev")
    path = str(pem_of(jane, world.directory))
    kubeconfig = world.kubeconfig({"client-certificate": path, "client-key": path})
    found = await whoami(kubectl, kubeconfig)
    assert (found["username"], found["groups"]) == ("jane", ["dev", "system:authenticated"])
    assert found["extra"]["authentication.kubernetes.io/credential-id"] == [
        f"X509SHA256={hashlib.sha256(jane.der).hexdigest()}"
    ]
    code, out, err = await kubectl("--kubeconfig", kubeconfig, "get", "pods", "-A", "-o", "name")
    assert code == 0, err
    assert len(out.splitlines()) == 120


async def test_kubectl_with_a_token(world: World, kubectl: Kubectl) -> None:
    found = await whoami(kubectl, world.kubeconfig({"token": TOKEN}))
    assert found == {"username": "robot", "uid": "7", "groups": ["bots", "system:authenticated"]}
    code, _, err = await kubectl("--kubeconfig", world.kubeconfig({"token": "another"}), "get", "pods")
    assert code != 0
    assert "You must be logged in to the server" in err


def by_plugin(world: World, tokens: Path) -> dict[str, Any]:
    """A kubeconfig's user whose token a plugin reads from a file."""
    plugin = world.directory / "plugin.py"
    plugin.write_text(
        "import json, sys\n"
        f"token = open({str(tokens)!r}).read()\n"
        'json.dump({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",\n'
        '           "status": {"token": token}}, sys.stdout)\n'
    )
    arguments = {"command": sys.executable, "args": [str(plugin)], "interactiveMode": "Never"}
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **arguments}}


async def test_kubectl_with_an_oidc_plugin(world: World, kubectl: Kubectl) -> None:
    """The plugin prints a new ID token for each run, as kubelogin does."""
    tokens = world.directory / "id-token"
    kubeconfig = world.kubeconfig(by_plugin(world, tokens))
    tokens.write_text(world.issuer.token(groups=["dev"], jti="t-1"))
    found = await whoami(kubectl, kubeconfig)
    assert found["username"] == "oidc:jane"
    assert found["groups"] == ["dev", "system:authenticated"]
    assert found["extra"]["authentication.kubernetes.io/credential-id"] == ["JTI=t-1"]
    code, out, err = await kubectl("--kubeconfig", kubeconfig, "get", "pods", "-A", "-o", "name")
    assert code == 0, err
    assert len(out.splitlines()) == 120
    for refused in (
        world.issuer.token(exp=1),
        world.issuer.token(aud="another"),
        world.issuer.token(sub="root"),
        world.issuer.token(rsa("one")),
        issuers.unsigned({"alg": "none"}, world.issuer.claims()),
    ):
        tokens.write_text(refused)
        code, _, err = await kubectl("--kubeconfig", kubeconfig, "get", "pods")
        assert code != 0
        assert "You must be logged in to the server" in err


async def test_kubectl_in_anothers_name(world: World, kubectl: Kubectl) -> None:
    path = str(pem_of(certificate("jane", "dev"), world.directory))
    kubeconfig = world.kubeconfig({"client-certificate": path, "client-key": path})
    found = await whoami(kubectl, kubeconfig, "--as", "joe", "--as-group", "a", "--as-group", "b", "--as-uid", "9")
    assert found == {"username": "joe", "uid": "9", "groups": ["a", "b", "system:authenticated"]}
    code, _, err = await kubectl(
        "--kubeconfig", world.kubeconfig({"token": TOKEN}), "--as", "joe", "get", "--raw", "/api/v1/pods"
    )
    assert code != 0
    assert 'User "robot" cannot impersonate-on:user-info:list resource "pods"' in err


@pytest.mark.parametrize(("header", "code"), [("Impersonate-User", 403), ("Impersonate-Group", 400)])
async def test_who_may_not_be_another_is_noted(world: World, header: str, code: int) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Audit-ID": f"refused-{code}", header: "joe"}
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{world.url}/api/v1/pods", ssl=world.context(), headers=headers) as answer:
            assert answer.status == code

    def noted() -> list[dict[str, Any]]:
        lines = (world.directory / "audit.log").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["auditID"] == f"refused-{code}"]

    await eventually(lambda: bool(noted()))
    event = noted()[-1]
    assert (event["stage"], event["user"]["username"], event["verb"]) == ("ResponseComplete", "robot", "list")
    assert event["responseStatus"]["code"] == code
    assert "impersonatedUser" not in event


# -- other clients -----------------------------------------------------------------------------------------------------


def users_of_kubeconfigs(world: World) -> dict[str, dict[str, Any]]:
    """Kubeconfigs' users by their names here, all in dev but for the robot."""
    path = str(pem_of(certificate("jane", "dev"), world.directory))
    tokens = world.directory / "id-token-of-clients"
    tokens.write_text(world.issuer.token(groups=["dev"]))
    return {
        "jane": {"client-certificate": path, "client-key": path},
        "oidc:jane": by_plugin(world, tokens),
        "robot": {"token": TOKEN},
    }


@pytest.mark.parametrize("name", ["jane", "oidc:jane", "robot"])
async def test_the_python_client(world: World, name: str) -> None:
    path = world.kubeconfig(users_of_kubeconfigs(world)[name])

    def ask() -> tuple[Any, int, int]:
        with kubernetes.config.new_client_from_config(path) as client:
            core: Any = kubernetes.client.CoreV1Api(client)
            reviews: Any = kubernetes.client.AuthenticationV1Api(client)
            user = reviews.create_self_subject_review({}).status.user_info
            try:
                listed = core.list_pod_for_all_namespaces()
            except kubernetes.client.ApiException as refused:
                return user.username, int(refused.status or 0), 0
            events = kubernetes.watch.Watch().stream(core.list_pod_for_all_namespaces, timeout_seconds=60)
            assert next(events)["type"] == "ADDED"
            return user.username, 200, len(listed.items)

    found, code, count = await asyncio.to_thread(ask)
    assert found == name
    assert (code, count > 0) == ((403, False) if name == "robot" else (200, True))


NODE = """
import * as k8s from '@kubernetes/client-node';
const config = new k8s.KubeConfig();
config.loadFromFile(process.argv[2]);
const told = {code: 200, count: 0, first: null};
const review = await config.makeApiClient(k8s.AuthenticationV1Api).createSelfSubjectReview({body: {}});
told.name = review.status.userInfo.username;
try {
  told.count = (await config.makeApiClient(k8s.CoreV1Api).listPodForAllNamespaces()).items.length;
  const watch = new k8s.Watch(config);
  told.first = await new Promise((resolve, reject) => watch.watch('/api/v1/pods', {}, resolve, reject));
} catch (refused) {
  told.code = refused.code;
}
console.log(JSON.stringify(told));
process.exit(0);
"""


@pytest.mark.parametrize("name", ["jane", "oidc:jane", "robot"])
async def test_the_node_client(world: World, name: str, tmp_path: Path) -> None:
    if (node := shutil.which("node")) is None or not NODE_MODULES.exists():
        pytest.skip("@kubernetes/client-node is not installed: `make install` where npm is")
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "ask.mjs").write_text(NODE)
    path = world.kubeconfig(users_of_kubeconfigs(world)[name])
    child = await asyncio.create_subprocess_exec(
        node, str(tmp_path / "ask.mjs"), path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    told = json.loads(out)
    assert told["name"] == name
    if name == "robot":
        assert told["code"] == 403
    else:
        assert (told["code"], told["first"]) == (200, "ADDED")
        assert told["count"] > 0


# -- what is shown, without kubectl -----------------------------------------------------------------------------------


async def test_who_shows_nothing_is_anonymous_only_where_that_is_said(world: World) -> None:
    code, status = await world.who()
    assert (code, status["reason"], status["message"]) == (401, "Unauthorized", "Unauthorized")
    async with aiohttp.ClientSession() as session:
        for path, expected in (("/livez", 200), ("/api", 401), ("/clusters/alpha/livez", 401), ("/metrics", 401)):
            async with session.get(world.url + path, ssl=world.context()) as answer:
                assert (path, answer.status) == (path, expected)
                assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize("kind", ["expired", "of another authority", "for servers"])
async def test_a_certificate_that_does_not_hold_is_401_and_no_broken_handshake(world: World, kind: str) -> None:
    clients = {
        "expired": certificate("jane", begins=-600.0, ends=-60.0),
        "of another authority": certificate("jane", by=authority("another")),
        "for servers": certificate("jane", usages=[SERVER]),
    }
    client = clients[kind]
    code, status = await world.who(client=client)
    assert (code, status["reason"]) == (401, "Unauthorized")
    # Another credential counts all the same.
    code, user = await world.who({"Authorization": f"Bearer {TOKEN}"}, client=client)
    assert (code, user["username"]) == (201, "robot")


async def test_a_good_certificate_counts_beside_a_bad_token(world: World) -> None:
    code, user = await world.who({"Authorization": "Bearer nonsense"}, client=certificate("jane", "dev"))
    assert (code, user["username"]) == (201, "jane")


async def test_a_front_proxy_says_who_asks(world: World) -> None:
    headers = {
        "X-Remote-User": "joe",
        "X-Remote-Group": "dev",
        "X-Remote-Uid": "3",
        "X-Remote-Extra-Acme.io%2Fteam": "web",
    }
    code, user = await world.who(headers, client=certificate("proxy", by=PROXIES))
    assert code == 201
    assert user == {
        "username": "joe",
        "uid": "3",
        "groups": ["dev", "system:authenticated"],
        "extra": {"acme.io/team": ["web"]},
    }
    for client in (certificate("another", by=PROXIES), None):
        code, status = await world.who(headers, client=client)
        assert (code, status["reason"]) == (401, "Unauthorized")
    # The headers of whoever is no proxy say nothing.
    code, user = await world.who(headers, client=certificate("jane", "ops"))
    assert (user["username"], user["groups"]) == ("jane", ["ops", "system:authenticated"])


async def test_a_websocket_has_its_token_among_its_protocols(world: World) -> None:
    token = world.issuer.token(groups=["dev"])
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    url = f"{world.url}/api/v1/pods?watch=1"
    async with aiohttp.ClientSession() as session:
        protocols = (f"base64url.bearer.authorization.k8s.io.{encoded}", "binary.k8s.io")
        async with session.ws_connect(url, protocols=protocols, ssl=world.context()) as socket:
            assert socket.protocol == "binary.k8s.io"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(url, protocols=protocols[:1], ssl=world.context())
        assert caught.value.status == 401


async def test_headers_of_impersonation_without_a_user_are_a_bad_request(world: World) -> None:
    code, status = await world.who({"Impersonate-Group": "a"}, client=certificate("jane", "dev"))
    assert (code, status["reason"]) == (400, "BadRequest")
    assert status["message"].endswith("without impersonating a user name")


async def test_files_are_read_anew(world: World) -> None:
    """Tokens and issuers; a watch that is open goes on."""
    url = f"{world.url}/api/v1/pods?watch=1&resourceVersion=0"
    async with aiohttp.ClientSession() as session:
        async with session.get(url, ssl=world.context(certificate("jane", "dev"))) as watch:
            assert watch.status == 200
            new = "a-new-token"
            digest = hashlib.sha256(new.encode()).hexdigest()
            before = (world.directory / "tokens").read_bytes()
            (world.directory / "tokens").write_text(f"{digest},robot,8\n")
            trust(world.directory, world.issuer, prefix="new:")
            try:
                await _until(world, {"Authorization": f"Bearer {new}"}, "robot")
                await _until(world, {"Authorization": f"Bearer {TOKEN}"}, None)
                await _until(world, {"Authorization": f"Bearer {world.issuer.token(sub='joe')}"}, "new:joe")
                assert not watch.content.at_eof()
            finally:
                (world.directory / "tokens").write_bytes(before)
                trust(world.directory, world.issuer)
            await _until(world, {"Authorization": f"Bearer {TOKEN}"}, "robot")


async def _until(world: World, headers: dict[str, str], user: str | None) -> None:
    """Until these headers are that user's; None: no one's."""
    async with asyncio.timeout(PATIENCE):
        while True:
            code, found = await world.who(headers)
            if (found["username"] if code == 201 else None) == user:
                return
            await asyncio.sleep(0.1)


async def test_no_secret_is_logged(world: World) -> None:
    token = world.issuer.token(aud="another")
    await world.who({"Authorization": f"Bearer {token}"})
    await world.who({"Authorization": "Bearer a-secret-that-no-one-knows"})
    logged = world.service.output()
    for secret in (token, token.split(".")[2], "a-secret-that-no-one-knows", TOKEN):
        assert secret not in logged
    assert "Traceback" not in logged
