"""A cluster with users: who is let in, in whose name, what RBAC allows them, and what its reviews say of it."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import yaml

from simulation import ClusterUser, SimulatedCluster, simulate
from simulation.access.users import read_tokens, service_account
from tests.patience import PATIENCE
from tests.simulation.conftest import Client, Start

JANE = ClusterUser("jane", ("dev",), "u1", {"example.io/team": ("blue",)})
USERS = {"jane": JANE, "joe": ClusterUser("joe"), "bot": service_account("payments", "bot")}
RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1"
PODS = "/api/v1/namespaces/payments/pods"
ADMINISTRATOR = {"Authorization": "Bearer admin"}


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **{f"Impersonate-{name}": value for name, value in more.items()}}


@pytest.fixture
async def guarded(start: Start) -> Client:
    return await start(token="admin", users=USERS, pods=20)


async def add(client: Client, path: str, body: dict[str, Any]) -> None:
    status, answer = await client.request("POST", path, body, headers=ADMINISTRATOR)
    assert status == 201, answer


async def allow(client: Client, subject: dict[str, str], namespace: str, *rules: dict[str, Any]) -> None:
    """Gives someone rules in a namespace, or in all of the cluster."""
    name = f"of-{subject['name'].replace(':', '-')}"
    where = f"/namespaces/{namespace}" if namespace else ""
    kind = "Role" if namespace else "ClusterRole"
    role = f"{kind.lower()}s"
    await add(client, f"{RBAC}{where}/{role}", {"metadata": {"name": name}, "rules": list(rules)})
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    body = {"metadata": {"name": name}, "roleRef": ref, "subjects": [subject]}
    await add(client, f"{RBAC}{where}/{kind.lower()}bindings", body)


async def refusal(client: Client, method: str, path: str, headers: dict[str, str]) -> str:
    status, answer = await client.request(method, path, headers=headers)
    assert status == answer["code"] == 403
    return str(answer["message"])


async def test_who_is_unknown_gets_what_everyone_may_get(guarded: Client) -> None:
    assert (await guarded.request("GET", "/livez"))[0] == 200
    assert (await guarded.request("GET", "/version"))[0] == 200
    status, answer = await guarded.request("GET", "/api")
    assert status == 403
    assert answer == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'forbidden: User "system:anonymous" cannot get path "/api"',
        "reason": "Forbidden",
        "details": {},
        "code": 403,
    }
    status, answer = await guarded.request("GET", "/livez", headers=bearer("stolen"))
    assert (status, answer["message"], answer["reason"]) == (401, "Unauthorized", "Unauthorized")


async def test_bindings_decide(guarded: Client) -> None:
    assert (await guarded.request("GET", "/apis/apps/v1", headers=bearer("jane")))[0] == 200
    assert await refusal(guarded, "GET", f"{PODS}/web", bearer("jane")) == (
        'pods "web" is forbidden: User "jane" cannot get resource "pods" in API group "" in the namespace "payments"'
    )
    read = {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}
    await allow(guarded, {"kind": "Group", "name": "dev"}, "payments", read)
    assert (await guarded.request("GET", PODS, headers=bearer("jane")))[0] == 200
    assert (await guarded.request("GET", f"{PODS}/nothing", headers=bearer("jane")))[0] == 404
    assert await refusal(guarded, "GET", f"{PODS}?watch=1&fieldSelector=metadata.name=a", bearer("jane")) == (
        'pods "a" is forbidden: User "jane" cannot watch resource "pods" in API group "" in the namespace "payments"'
    )
    assert (await refusal(guarded, "GET", "/api/v1/pods", bearer("jane"))).endswith("at the cluster scope")
    assert (await refusal(guarded, "GET", PODS, bearer("joe"))).startswith("pods is forbidden: ")


async def test_a_stream_needs_the_right_to_create(guarded: Client) -> None:
    read = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods/exec"]}
    await allow(guarded, {"kind": "User", "name": "jane"}, "payments", read)
    said = await refusal(guarded, "GET", f"{PODS}/web/exec?command=true", bearer("jane"))
    assert 'cannot create resource "pods/exec"' in said


async def test_impersonation(guarded: Client) -> None:
    async def whoami(headers: dict[str, str]) -> Any:
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        return await guarded.request("POST", path, {}, headers=headers)

    assert (await whoami(bearer("jane")))[1]["status"]["userInfo"] == {
        "username": "jane",
        "uid": "u1",
        "groups": ["dev", "system:authenticated"],
        "extra": {"example.io/team": ["blue"]},
    }
    wanted = {"User": "eve", "Group": "ops", "Uid": "7", "Extra-Example.io%2Fteam": "red"}
    assert (await whoami(bearer("admin", **wanted)))[1]["status"]["userInfo"] == {
        "username": "eve",
        "uid": "7",
        "groups": ["ops", "system:authenticated"],
        "extra": {"example.io/team": ["red"]},
    }
    status, answer = await whoami(bearer("jane", User="eve"))
    assert (status, answer["message"]) == (
        403,
        'selfsubjectreviews.authentication.k8s.io is forbidden: User "jane" cannot impersonate-on:user-info:create '
        'resource "selfsubjectreviews" in API group "authentication.k8s.io" at the cluster scope',
    )
    assert (await whoami(bearer("jane", Group="ops")))[0] == 400
    # By the verb of old, for the user but not for its group.
    await allow(
        guarded,
        {"kind": "User", "name": "joe"},
        "",
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"]},
    )
    assert (await whoami(bearer("joe", User="eve")))[0] == 201
    assert (await whoami(bearer("joe", User="eve", Group="ops")))[0] == 403
    # In a constrained mode, for lists alone.
    await allow(
        guarded,
        {"kind": "User", "name": "jane"},
        "",
        {"verbs": ["impersonate:user-info"], "apiGroups": ["authentication.k8s.io"], "resources": ["users"]},
        {"verbs": ["impersonate-on:user-info:list"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]},
    )
    assert (await whoami(bearer("jane", User="eve")))[0] == 403
    said = await refusal(guarded, "GET", PODS, bearer("jane", User="eve"))
    assert said.startswith('pods is forbidden: User "eve" cannot list')


async def test_reviews(guarded: Client) -> None:
    async def review(kind: str, spec: Any, headers: dict[str, str], group: str = "authorization") -> Any:
        path = f"/apis/{group}.k8s.io/v1/{kind}"
        status, answer = await guarded.request("POST", path, {"spec": spec}, headers=headers)
        assert status == 201, answer
        assert answer["spec"] == spec
        return answer["status"]

    read = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["web"]}
    await allow(guarded, {"kind": "ServiceAccount", "name": "bot"}, "payments", read)
    web = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "payments", "name": "web"}}
    assert await review("selfsubjectaccessreviews", web, bearer("bot")) == {
        "allowed": True,
        "reason": 'RBAC: allowed by RoleBinding "of-bot/payments" of Role "of-bot" to ServiceAccount "bot/payments"',
    }
    assert await review("selfsubjectaccessreviews", web, bearer("jane")) == {"allowed": False}
    of_bot = {**web, "user": "system:serviceaccount:payments:bot"}
    assert (await review("subjectaccessreviews", of_bot, ADMINISTRATOR))["allowed"]
    assert (await review("namespaces/payments/localsubjectaccessreviews", of_bot, ADMINISTRATOR))["allowed"]
    path = {"nonResourceAttributes": {"verb": "get", "path": "/apis/apps"}, "groups": ["system:authenticated"]}
    assert (await review("subjectaccessreviews", path, ADMINISTRATOR))["allowed"]
    rules = await review("selfsubjectrulesreviews", {"namespace": "payments"}, bearer("bot"))
    assert read in rules["resourceRules"]
    assert any("/apis/*" in rule["nonResourceURLs"] for rule in rules["nonResourceRules"])
    told = await review("tokenreviews", {"token": "bot"}, ADMINISTRATOR, "authentication")
    assert told["authenticated"]
    assert told["user"]["username"] == "system:serviceaccount:payments:bot"
    assert "system:authenticated" in told["user"]["groups"]
    assert await review("tokenreviews", {"token": "bot", "audiences": ["us"]}, ADMINISTRATOR, "authentication") == {
        "user": {}
    }
    assert "authenticated" not in await review("tokenreviews", {"token": "x"}, ADMINISTRATOR, "authentication")
    for spec in (web, {"user": "jane"}, {"user": "jane", **web, **path}):
        status, _ = await guarded.request(
            "POST", f"{REVIEWS}/subjectaccessreviews", {"spec": spec}, headers=ADMINISTRATOR
        )
        assert status == 422
    assert "cannot create" in await refusal(guarded, "POST", f"{REVIEWS}/subjectaccessreviews", bearer("jane"))


async def test_default_roles_have_what_their_parts_have(guarded: Client) -> None:
    """admin, edit and view, as the controller of aggregated roles puts them together."""
    _, listed = await guarded.request("GET", f"{RBAC}/clusterroles", headers=ADMINISTRATOR)
    roles = {one["metadata"]["name"]: one for one in listed["items"]}
    for name in ("admin", "edit", "view"):
        selectors = [
            tuple(one["matchLabels"].items()) for one in roles[name]["aggregationRule"]["clusterRoleSelectors"]
        ]
        parts = [
            rule
            for selector in selectors
            for role in roles.values()
            if set(selector) <= role["metadata"].get("labels", {}).items()
            for rule in role["rules"]
        ]
        assert roles[name]["rules"] == parts


async def test_certificates_are_users(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    text = authority.cert_pem.bytes().decode()
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    async with SimulatedCluster("alpha", users=USERS, tls=context, authority=text) as cluster:
        client = ssl.create_default_context(cadata=text)
        authority.issue_cert(common_name="eve", organization_name="ops").configure_cert(client)
        async with aiohttp.ClientSession() as session, session.post(cluster.url + path, json={}, ssl=client) as answer:
            told = (await answer.json())["status"]["userInfo"]
            assert told == {"username": "eve", "groups": ["ops", "system:authenticated"]}


async def test_files_of_the_command(tmp_path: Path) -> None:
    """`kubebraid simulate` with users and a certificate: its kubeconfig has all that an administrator needs."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    certificate, key, users = tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "users.csv"
    certificate.write_bytes(b"".join(one.bytes() for one in (*leaf.cert_chain_pems, authority.cert_pem)))
    key.write_bytes(leaf.private_key_pem.bytes())
    users.write_text("of-jane,jane,,dev\n")
    made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    options: dict[str, Any] = {"token_auth_file": users, "tls_cert_file": certificate, "tls_private_key_file": key}
    running = asyncio.create_task(
        simulate(1, 5, 0, tmp_path / "kubeconfig", ready=lambda _: made.set_result(None), **options)
    )
    try:
        async with asyncio.timeout(PATIENCE):
            await made
        written = yaml.safe_load((tmp_path / "kubeconfig").read_text())
        server = written["clusters"][0]["cluster"]
        trust = ssl.create_default_context(cadata=base64.b64decode(server["certificate-authority-data"]).decode())
        async with aiohttp.ClientSession() as session:
            for token, status in ((written["users"][0]["user"]["token"], 200), ("of-jane", 403), ("other", 401)):
                url = f"{server['server']}/api/v1/pods"
                async with session.get(url, headers={"Authorization": f"Bearer {token}"}, ssl=trust) as answer:
                    assert answer.status == status
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_tokens_of_a_file(tmp_path: Any) -> None:
    file = tmp_path / "users.csv"
    file.write_text('t1,jane,u1,"dev,ops"\nt2,joe,u2\n')
    assert read_tokens(file) == {"t1": ClusterUser("jane", ("dev", "ops"), "u1"), "t2": ClusterUser("joe", (), "u2")}
    file.write_text("t1,jane\n")
    with pytest.raises(ValueError, match="line 1"):
        read_tokens(file)
