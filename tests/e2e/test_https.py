"""https end to end: workers, producers and what they note; files that change under open watches; who is refused."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import json
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme

from kubebraid.command.broker import EmbeddedBroker
from tests.e2e.conftest import Members, Process, Starter, StartProcess
from tests.patience import PATIENCE, eventually, eventually_awaited
from tests.ports import free_port

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux' SO_REUSEPORT")
TOKEN = "a-token-of-many-random-bytes"
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[str]:
    async with EmbeddedBroker(tmp_path / "nats") as broker:
        yield broker.url


class Served:
    """`serve` in two processes behind https, which asks for certificates, takes a token, and notes what it is asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self.authority, self.clients = trustme.CA(), trustme.CA()
        self.audit = directory / "audit.log"
        self.write()
        hashed = hashlib.sha256(TOKEN.encode()).hexdigest()
        (directory / "tokens.csv").write_text(f'sha256:{hashed},jane,,"dev"\n')
        (directory / "policy.yaml").write_text(
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n"
        )

    def write(self, authority: trustme.CA | None = None) -> None:
        """A new certificate and key, maybe of another authority; the authority of clients as it is now."""
        made = (authority or self.authority).issue_cert("localhost")
        made.private_key_and_cert_chain_pem.write_to_path(self.directory / "tls.pem")
        self.clients.cert_pem.write_to_path(self.directory / "clients.pem")

    @property
    def arguments(self) -> tuple[str, ...]:
        given = {
            "--tls-cert-file": "tls.pem",
            "--client-ca-file": "clients.pem",
            "--token-auth-file": "tokens.csv",
            "--audit-policy-file": "policy.yaml",
            "--audit-log-path": "audit.log",
        }
        files = [part for option, name in given.items() for part in (option, str(self.directory / name))]
        return (*files, "--authorization-mode", "AlwaysAllow", "--listen", f"127.0.0.1:{self.port}")

    def context(self, shown: trustme.LeafCert | None = None, authority: trustme.CA | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        (authority or self.authority).configure_trust(context)
        if shown is not None:
            shown.configure_cert(context)
        return context

    async def answer(
        self, context: ssl.SSLContext, path: str = "/api/v1/pods?limit=1", token: str = ""
    ) -> tuple[int, dict[str, object]]:
        """A status and a document, over a connection of its own."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.get(self.url + path, headers=headers) as answer,
        ):
            return answer.status, await answer.json()

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.audit.read_text().splitlines()]


@pytest.fixture
async def served(nats: str, members: Members, process: StartProcess, tmp_path: Path) -> Served:
    scene = Served(tmp_path)
    await process("produce", "--nats", nats, "--kubeconfig", str(members.kubeconfig))
    await said(await process("serve", "--nats", nats, "--workers", "2", *scene.arguments))

    async def all_there() -> bool:
        _, found = await scene.answer(scene.context(), "/api/v1/pods", TOKEN)
        items = found.get("items")
        return isinstance(items, list) and len(items) == 120

    await eventually_awaited(all_there)
    return scene


async def said(process: Process) -> None:
    async with asyncio.timeout(PATIENCE):
        while "try:" not in process.output():
            assert process.child.returncode is None, process.output()
            await asyncio.sleep(0.05)


async def test_who_gets_in(served: Served) -> None:
    """What is wrong with a certificate is said by 401, and counts for nothing beside a token."""
    stranger = trustme.CA()
    good = served.clients.issue_cert(common_name="joe", organization_name="ops")
    for leaf in (
        served.clients.issue_cert(common_name="joe", not_after=LONG_AGO),
        stranger.issue_cert(common_name="joe"),
    ):
        status, document = await served.answer(served.context(leaf))
        assert (status, document["reason"], document["message"]) == (401, "Unauthorized", "Unauthorized")
        assert (await served.answer(served.context(leaf), token=TOKEN))[0] == 200
    assert (await served.answer(served.context()))[0] == 401
    assert (await served.answer(served.context(), token="another"))[0] == 401
    assert (await served.answer(served.context(good)))[0] == 200
    assert (await served.answer(served.context(good), token="another"))[0] == 200


async def test_what_is_noted(served: Served) -> None:
    served.audit.write_text("")
    good = served.clients.issue_cert(common_name="joe", organization_name="ops")
    for _ in range(10):
        # Of either process.
        assert (await served.answer(served.context(good), "/clusters/alpha/api/v1/namespaces?limit=1"))[0] == 200
    assert (await served.answer(served.context(), token="secret-of-mine"))[0] == 401
    await eventually(lambda: len(served.events()) == 11)
    *events, refused = served.events()
    for event in events:
        assert (event["stage"], event["verb"], event["level"]) == ("ResponseComplete", "list", "Metadata")
        assert event["user"] == {
            "username": "joe",
            "groups": ["ops", "system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id": [credential_id(good)]},
        }
        assert event["responseStatus"] == {"metadata": {}, "code": 200}
        assert event["annotations"]["kubebraid.io/cluster"] == "alpha"  # type: ignore[index]
    assert refused["responseStatus"]["code"] == 401  # type: ignore[index]
    assert "secret-of-mine" not in served.audit.read_text()
    assert served.audit.stat().st_mode & 0o077 == 0


def credential_id(leaf: trustme.LeafCert) -> str:
    der = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    return f"X509SHA256={hashlib.sha256(der).hexdigest()}"


async def test_everything_is_rotated_under_watches(served: Served, members: Members) -> None:
    """Certificate, key, both authorities, and the file of tokens; no watch ends, and each sees what goes on."""
    count = 200
    seen = [0] * count
    context = served.context()
    connector = aiohttp.TCPConnector(ssl=context, limit=0)

    async def watch(session: aiohttp.ClientSession, at: int) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        query = {"watch": "1", "timeoutSeconds": "3000"}
        async with session.get(f"{served.url}/api/v1/configmaps", params=query, headers=headers) as answer:
            assert answer.status == 200
            async for line in answer.content:
                if b"turn-" in line:
                    seen[at] += 1

    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session,
        aiohttp.ClientSession() as plain,
    ):
        watching = [asyncio.create_task(watch(session, at)) for at in range(count)]
        authority = served.authority
        for turn in range(1, 5):
            made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"turn-{turn}"}}
            async with plain.post(f"{members['alpha'].url}/api/v1/namespaces/default/configmaps", json=made) as answer:
                assert answer.status == 201
            await eventually(lambda turn=turn: min(seen) >= turn)  # type: ignore[misc]
            # Each turn another authority of the server and of clients, and a token that nobody has.
            authority = trustme.CA()
            served.clients = trustme.CA()
            served.write(authority)
            newest = served.clients.issue_cert(common_name="joe")
            shown = served.context(newest, authority)

            async def taken(shown: ssl.SSLContext = shown) -> bool:
                with contextlib.suppress(aiohttp.ClientError):
                    return (await served.answer(shown))[0] == 200
                return False

            for _ in range(4):
                # Of either process.
                await eventually_awaited(taken)
            assert not any(task.done() for task in watching)
        for task in watching:
            task.cancel()
        results = await asyncio.gather(*watching, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    assert set(seen) == {4}


async def test_files_that_cannot_be_used_are_said_in_one_line(nats: str, tmp_path: Path, process: StartProcess) -> None:
    scene = Served(tmp_path)
    (tmp_path / "tls.pem").write_text("nonsense")
    for more in ((), ("--workers", "2")):
        failed = await process("serve", "--nats", nats, *scene.arguments, *more)
        assert await asyncio.wait_for(failed.child.wait(), PATIENCE) == 2
        [line] = [line for line in failed.output().splitlines() if line.startswith("kubebraid: ")]
        assert str(tmp_path / "tls.pem") in line


async def test_workers_note_into_a_file(nats: str, tmp_path: Path, process: StartProcess) -> None:
    Served(tmp_path)
    given = ("--audit-policy-file", str(tmp_path / "policy.yaml"), "--workers", "2")
    failed = await process("serve", "--nats", nats, *given)
    assert await asyncio.wait_for(failed.child.wait(), PATIENCE) == 2
    assert "kubebraid: --audit-log-path: workers have no standard output" in failed.output()


async def test_producers_and_their_metrics(
    nats: str, members: Members, process: StartProcess, start: Starter, tmp_path: Path
) -> None:
    scene = Served(tmp_path)
    given = ("--kubeconfig", str(members.kubeconfig), "--tls-cert-file", str(tmp_path / "tls.pem"))
    await process("produce", "--nats", nats, *given, "--listen", f"127.0.0.1:{scene.port}")
    context = scene.context()

    async def ready() -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
                session.get(f"{scene.url}/readyz") as answer,
            ):
                return answer.status == 200
        return False

    await eventually_awaited(ready)
