"""`--forward impersonate`: with the ClusterRole of docs/security.md, the member's RBAC decides about who asks."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from simulation.access.users import service_account
from simulation.cluster import SimulatedCluster
from simulation.kubeconfig import write_kubeconfig
from tests.e2e.conftest import Service
from tests.e2e.test_who_asks import certificate, pem_of
from tests.patience import PATIENCE
from tests.query.access.authentication.certificates import authority

RBAC = "rbac.authorization.k8s.io"
ADMIN, BOT = "admin-token", "bot-token"
CLIENTS = authority("of clients")
SECURITY = (Path(__file__).parents[2] / "docs/security.md").read_text()
# As which user kubebraid comes to a cluster over plain http, where it shows no credentials.
US = {"kind": "Group", "name": "system:unauthenticated"}
READER: dict[str, Any] = {
    "apiVersion": f"{RBAC}/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "reader"},
    "rules": [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
        {"nonResourceURLs": ["*"], "verbs": ["get"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    ],
}


def documented_role() -> dict[str, Any]:
    for block in SECURITY.split("```"):
        if "kubebraid-impersonator" in block:
            role: dict[str, Any] = yaml.safe_load(block.removeprefix("yaml"))
            return role
    raise AssertionError("docs/security.md has no ClusterRole for impersonation")


def binding(role: str, subject: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{role}-to-{subject['name']}".replace(":", "-")},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }


@pytest.fixture(name="alpha")
async def alpha_fixture(tmp_path: Path) -> AsyncIterator[SimulatedCluster]:
    """A cluster in which jane and the service account `web/bot` may edit, and we may read and impersonate."""
    cluster = SimulatedCluster("alpha", pods=5, token=ADMIN, users={BOT: service_account("web", "bot")})
    async with AsyncExitStack() as stack:
        await cluster.start()
        stack.push_async_callback(cluster.stop)
        session = await stack.enter_async_context(aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN}"}))
        role = documented_role()
        for document in (
            READER,
            role,
            binding("reader", US),
            binding(role["metadata"]["name"], US),
            binding("edit", {"kind": "User", "name": "jane"}),
            binding("edit", {"kind": "ServiceAccount", "name": "bot", "namespace": "web"}),
        ):
            url = f"{cluster.url}/apis/{RBAC}/v1/{document['kind'].lower()}s"
            async with session.post(url, json=document) as answer:
                assert answer.status == 201, await answer.text()
        write_kubeconfig([cluster], tmp_path / "members.kubeconfig")
        yield cluster


async def test_writes_are_those_of_who_asks(alpha: SimulatedCluster, tmp_path: Path) -> None:
    (tmp_path / "clients.pem").write_bytes(CLIENTS.pem)
    service = Service(
        "up",
        *("--kubeconfig", str(tmp_path / "members.kubeconfig"), "--data", str(tmp_path / "data")),
        *("--client-ca-file", str(tmp_path / "clients.pem"), "--token-review-cluster", "alpha"),
        *("--forward", "impersonate"),
        log=tmp_path / "up.log",
    )
    await service.start()
    try:
        url = service.url.replace("http://", "https://")
        await _ready(service, url, tmp_path)
        path = f"{url}/clusters/alpha/api/v1/namespaces/default/configmaps"

        async def write(name: str, user: str = "", token: str = "") -> tuple[int, dict[str, Any]]:
            context = _context(tmp_path)
            if user:
                context.load_cert_chain(pem_of(certificate(user, "dev", by=CLIENTS), tmp_path))
            body = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}}
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with aiohttp.ClientSession() as session:
                async with session.post(path, json=body, headers=headers, ssl=context) as answer:
                    return answer.status, await answer.json()

        code, made = await write("of-jane", user="jane")
        assert code == 201, made
        code, made = await write("of-bot", token=BOT)
        assert code == 201, made
        code, refused = await write("of-joe", user="joe")
        assert code == 403
        assert 'User "joe" cannot create resource "configmaps"' in refused["message"]
        code, refused = await write("of-no-one")
        assert code == 401
    finally:
        await service.stop()


def _context(directory: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=directory / "data/pki/ca.crt")


async def _ready(service: Service, url: str, directory: Path) -> None:
    async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
        while True:
            assert service.child.returncode is None, service.output()
            # The authority is made as it starts.
            with contextlib.suppress(aiohttp.ClientError, FileNotFoundError):
                async with session.get(f"{url}/readyz", ssl=_context(directory)) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)
