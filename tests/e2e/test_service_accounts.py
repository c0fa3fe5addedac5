"""Service accounts of a member cluster: its TokenReview says who they are, each cluster's RBAC what they may see."""

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

from simulation.access.users import service_account
from simulation.cluster import SimulatedCluster
from simulation.kubeconfig import write_kubeconfig
from tests.e2e.conftest import Service
from tests.patience import PATIENCE

RBAC = "rbac.authorization.k8s.io"
BOT, ADMIN = "bot-token", "admin-token"


async def _grant(cluster: SimulatedCluster, role: str, subject: dict[str, Any]) -> None:
    """Binds a ClusterRole, as the cluster's administrator."""
    document = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": f"{role}-{subject['name']}".replace(":", "-")},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }
    url = f"{cluster.url}/apis/{RBAC}/v1/clusterrolebindings"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN}"}) as session:
        async with session.post(url, json=document) as answer:
            assert answer.status == 201, await answer.text()


@pytest.fixture(name="clusters")
async def clusters_fixture(tmp_path: Path) -> AsyncIterator[list[SimulatedCluster]]:
    """Two clusters that let the account `web/bot` see all pods; alpha alone knows its token."""
    users = {"alpha": {BOT: service_account("web", "bot")}, "bravo": {}}
    made = [
        SimulatedCluster(name, seed=number, pods=20, token=ADMIN, users=users[name])
        for number, name in enumerate(users)
    ]
    async with AsyncExitStack() as stack:
        for cluster in made:
            await cluster.start()
            stack.push_async_callback(cluster.stop)
            await _grant(cluster, "view", {"kind": "ServiceAccount", "name": "bot", "namespace": "web"})
            # Over plain http kubebraid shows these clusters no credentials.
            await _grant(cluster, "cluster-admin", {"kind": "Group", "name": "system:unauthenticated"})
        write_kubeconfig(made, tmp_path / "members.kubeconfig")
        yield made


async def test_a_service_account_is_one_of_its_own_cluster(clusters: list[SimulatedCluster], tmp_path: Path) -> None:
    arguments = ("--kubeconfig", str(tmp_path / "members.kubeconfig"), "--data", str(tmp_path / "data"))
    service = Service("up", *arguments, "--token-review-cluster", "alpha", log=tmp_path / "up.log")
    await service.start()
    try:
        # Where tokens are shown it is https, with an authority of its own.
        url = service.url.replace("http://", "https://")
        async with aiohttp.ClientSession() as session:
            context = await _ready(service, session, url, tmp_path / "data/pki/ca.crt")

            async def get(path: str, token: str) -> tuple[int, dict[str, Any]]:
                headers = {"Authorization": f"Bearer {token}"}
                async with session.get(url + path, headers=headers, ssl=context) as answer:
                    return answer.status, await answer.json()

            code, pods = await get("/api/v1/pods", BOT)
            assert code == 200, service.output()
            assert len(pods["items"]) == 20
            code, refused = await get("/clusters/bravo/api/v1/pods", BOT)
            assert (code, refused["reason"]) == (403, "Forbidden")
            for token in ("another", BOT.upper()):
                code, refused = await get("/api/v1/pods", token)
                assert (code, refused["reason"]) == (401, "Unauthorized")
            code, pods = await get("/api/v1/pods", ADMIN)
            assert (code, len(pods["items"])) == (200, 40)
            await clusters[0].stop()
            code, pods = await get("/api/v1/pods", BOT)
            assert (code, len(pods["items"])) == (200, 20)
            code, refused = await get("/api/v1/pods", "not-asked-about-yet")
            assert (code, refused["reason"]) == (401, "Unauthorized")
    finally:
        await service.stop()
    assert BOT not in service.output()


async def _ready(service: Service, session: aiohttp.ClientSession, url: str, authority: Path) -> ssl.SSLContext:
    """How to speak to the service, once it has all that the clusters have."""
    async with asyncio.timeout(PATIENCE):
        while True:
            assert service.child.returncode is None, service.output()
            # The authority is made as it starts.
            with contextlib.suppress(aiohttp.ClientError, FileNotFoundError):
                context = ssl.create_default_context(cafile=authority)
                async with session.get(f"{url}/readyz", ssl=context) as answer:
                    if answer.status == 200:
                        return context
            await asyncio.sleep(0.05)
