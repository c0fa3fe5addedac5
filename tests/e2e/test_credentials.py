"""Member clusters behind TLS: client certificates, tokens from an exec plugin, tokens that change."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import aiohttp
import pytest
import trustme

from simulation import SimulatedCluster
from tests.e2e.conftest import Starter, TlsFront, WriteKubeconfig
from tests.patience import PATIENCE


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


async def test_client_certificate(
    tmp_path: Path, authority: trustme.CA, start: Starter, tls_front: type[TlsFront], kubeconfig: WriteKubeconfig
) -> None:
    client = authority.issue_cert("reader@example.com")
    client.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    async with SimulatedCluster("inner", pods=5) as cluster:
        async with tls_front(cluster.port, authority.issue_cert("127.0.0.1"), authority) as front:
            config = kubeconfig(
                tmp_path / "kubeconfig",
                f"https://127.0.0.1:{front.port}",
                tmp_path / "ca.pem",
                {"client-certificate": "cert.pem", "client-key": "key.pem"},
            )
            service = await start("--kubeconfig", str(config), "--data", str(tmp_path / "data"))
            assert len((await service.get("/clusters/secured/api/v1/pods"))["items"]) == 5


async def test_exec_plugin(
    tmp_path: Path, authority: trustme.CA, start: Starter, tls_front: type[TlsFront], kubeconfig: WriteKubeconfig
) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"#!{sys.executable}\n"
        "import json\n"
        'print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", '
        '"status": {"token": "let-me-in"}}))\n'
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    async with SimulatedCluster("inner", pods=5, token="let-me-in") as cluster:
        async with tls_front(cluster.port, authority.issue_cert("127.0.0.1"), None) as front:
            config = kubeconfig(
                tmp_path / "kubeconfig",
                f"https://127.0.0.1:{front.port}",
                tmp_path / "ca.pem",
                {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1",
                        "command": str(plugin),
                        "interactiveMode": "Never",
                    }
                },
            )
            service = await start("--kubeconfig", str(config), "--data", str(tmp_path / "data"))
            assert len((await service.get("/clusters/secured/api/v1/pods"))["items"]) == 5


async def test_a_refused_token_is_stale_and_a_new_one_mends_it(
    tmp_path: Path, authority: trustme.CA, start: Starter, tls_front: type[TlsFront], kubeconfig: WriteKubeconfig
) -> None:
    async with SimulatedCluster("inner", pods=5, token="right") as cluster:
        async with tls_front(cluster.port, authority.issue_cert("127.0.0.1"), None) as front:

            def write(token: str) -> Path:
                server = f"https://127.0.0.1:{front.port}"
                return kubeconfig(tmp_path / "kubeconfig", server, tmp_path / "ca.pem", {"token": token})

            service = await start("--kubeconfig", str(write("wrong")), "--data", str(tmp_path / "data"), ready=False)
            async with asyncio.timeout(PATIENCE):
                while "401" not in service.output():
                    await asyncio.sleep(0.05)
            await service.ready()
            assert "401" in str(await service.get("/clusters")), "it is stale, and does not keep others waiting"
            write("right")
            async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
                while True:
                    async with session.get(f"{service.url}/api/v1/pods") as answer:
                        if answer.status == 200 and len((await answer.json())["items"]) == 5:
                            break
                    await asyncio.sleep(0.1)


async def test_an_untrusted_certificate_is_told(
    tmp_path: Path, authority: trustme.CA, start: Starter, tls_front: type[TlsFront], kubeconfig: WriteKubeconfig
) -> None:
    other = trustme.CA()
    async with SimulatedCluster("inner", pods=5) as cluster:
        async with tls_front(cluster.port, other.issue_cert("127.0.0.1"), None) as front:
            config = kubeconfig(tmp_path / "kubeconfig", f"https://127.0.0.1:{front.port}", tmp_path / "ca.pem", {})
            service = await start("--kubeconfig", str(config), "--data", str(tmp_path / "data"))
            clusters = (await service.get("/clusters"))["clusters"]
            assert "certificate verify failed" in clusters[0]["stale"]
