"""Member clusters behind TLS: client certificates, tokens from an exec plugin, tokens that change."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import aiohttp
import pytest
import trustme
import yaml

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


OIDC = {"idp-issuer-url": "http://a.test", "client-id": "s3cret", "refresh-token": "s3cret"}
BROKEN: dict[str, dict[str, object]] = {
    "inline": {"token": "s3cret\n"},
    "file": {"tokenFile": "two-lines"},
    "lost": {"tokenFile": "lost"},
    "unpaired": {"client-certificate-data": "eA==", "client-key-data": "eA=="},
    "gone": {"auth-provider": {"name": "gcp"}},
    "oidc": {"auth-provider": {"name": "oidc", "config": OIDC}},
    "line": {"exec": {"command": "./line"}},
    "fails": {"exec": {"command": "./fails", "args": ["s3cret"]}},
    "missing": {"exec": {"command": "no-such-plugin"}},
    "hangs": {"exec": {"command": "./hangs"}},
}
REASONS = {
    "inline": "control characters in it, such as a line break at its end",
    "file": "two-lines has control characters",
    "lost": "lost: No such file or directory",
    "unpaired": "client-certificate-data: no certificate in PEM in it",
    "gone": "gke-gcloud-auth-plugin",
    "oidc": "idp-issuer-url is plain http",
    "line": "the token of plugin line has control characters, such as a line break at its end",
    "fails": "plugin fails failed with exit code 3",
    "missing": "plugin no-such-plugin is not installed",
    "hangs": "plugin hangs has not answered yet",
}


async def test_credentials_that_are_broken_concern_their_cluster_alone(tmp_path: Path, start: Starter) -> None:
    version = "client.authentication.k8s.io/v1"
    bodies = {
        "line": f"""printf %s '{{"apiVersion": "{version}", "status": {{"token": "s3cret\\n"}}}}'""",
        "fails": "echo s3cret >&2; exit 3",
        "hangs": "trap '' TERM; echo $$ >>pids; sleep 1000 & echo $! >>pids; wait",
    }
    for name, body in bodies.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "two-lines").write_text("s3cret\ns3cret\n")
    async with SimulatedCluster("healthy", pods=5) as cluster:
        users = {"healthy": {}, **BROKEN}
        for user in users.values():
            if isinstance(plugin := user.get("exec"), dict):
                plugin.update({"apiVersion": version, "interactiveMode": "Never"})
        servers = {name: cluster.url if name == "healthy" else f"https://127.0.0.1:1/{name}" for name in users}
        document = {
            "clusters": [{"name": name, "cluster": {"server": server}} for name, server in servers.items()],
            "users": [{"name": name, "user": user} for name, user in users.items()],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in users],
        }
        config = tmp_path / "kubeconfig"
        config.write_text(yaml.safe_dump(document))
        service = await start("--kubeconfig", str(config), "--data", str(tmp_path / "data"), "--log-level", "info")
        assert len((await service.get("/clusters/healthy/api/v1/pods"))["items"]) == 5
        found = {one["name"]: str(one["stale"]) for one in (await service.get("/clusters"))["clusters"]}
        assert set(found) == set(users)
        assert {name: found[name] for name, part in REASONS.items() if part not in found[name]} == {}
        async with aiohttp.ClientSession() as session:
            said = service.output()
            for path in ("/readyz?verbose", "/clusters", "/metrics"):
                async with session.get(service.url + path) as answer:
                    said += await answer.text()
        assert "s3cret" not in said
        assert "Traceback" not in said
        pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
        assert len(pids) == 2, "one run, and its child"
        assert await service.stop() == 0
        assert not [pid for pid in pids if alive(pid)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


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
