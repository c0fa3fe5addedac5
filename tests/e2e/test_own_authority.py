"""An authority of our own: what `up` makes for itself, how long that is good, and who gets in by it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import socket
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog.testing
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from kubebraid.command.doors import Doors
from kubebraid.command.own_authority import OwnAuthority
from kubebraid.command.settings import Address, BadSetting
from query.http.accepting import Site
from query.http.connections import Runner
from query.http.tls import ServingContext, peer_chain
from tests import processes
from tests.e2e.conftest import Members, Process, Starter, StartProcess
from tests.patience import PATIENCE
from tests.ports import free_port

HERE = Address("127.0.0.1", 8001, secure=True)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(found: x509.Certificate) -> set[str]:
    extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(one.value) for one in extension}


# -- what is made ------------------------------------------------------------------------------------------------------


def test_what_is_made_and_who_may_read_it(tmp_path: Path) -> None:
    own = OwnAuthority(tmp_path, HERE, ["kubebraid.example.org", "10.1.2.3", "under_score"])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in own.directory.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.pem": 0o600, "admin.pem": 0o600, "url": 0o600}
    assert stat.S_IMODE(own.directory.stat().st_mode) == 0o700
    server, admin = certificate(own.server), certificate(own.admin)
    assert {"localhost", "127.0.0.1", "::1", "kubebraid.example.org", "10.1.2.3"} <= names(server)
    assert socket.gethostname().lower() in names(server)
    for found, usage in ((server, ExtendedKeyUsageOID.SERVER_AUTH), (admin, ExtendedKeyUsageOID.CLIENT_AUTH)):
        assert list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
        assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert admin.subject.rfc4514_string() == "CN=kubebraid:admin,O=system:masters"
    assert (own.directory / "url").read_text() == "https://127.0.0.1:8001\n"


def test_all_addresses(tmp_path: Path) -> None:
    """Of a service that listens at each: those by which this machine is known elsewhere."""
    own = OwnAuthority(tmp_path, Address("0.0.0.0", 8001, secure=True))
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no way to others")
        assert probe.getsockname()[0] in names(certificate(own.server))


def test_the_next_start_finds_what_is_there(tmp_path: Path) -> None:
    first = OwnAuthority(tmp_path, HERE)
    before = {path.name: path.read_bytes() for path in first.directory.iterdir()}
    OwnAuthority(tmp_path, HERE)
    assert {path.name: path.read_bytes() for path in first.directory.iterdir()} == before
    # Another name needs another certificate, of the same authority.
    OwnAuthority(tmp_path, HERE, ["other.example.org"])
    after = {path.name: path.read_bytes() for path in first.directory.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"server.pem"}


def test_what_ends_is_renewed_in_time(tmp_path: Path) -> None:
    own = OwnAuthority(tmp_path, HERE)
    authority, server, admin = (path.read_bytes() for path in (own.authority, own.server, own.admin))
    now = datetime.now(UTC)
    own.renew(now + timedelta(days=200))
    assert own.server.read_bytes() == server
    own.renew(now + timedelta(days=300))
    assert own.server.read_bytes() != server
    assert own.admin.read_bytes() != admin
    assert own.authority.read_bytes() == authority
    assert certificate(own.server).not_valid_after_utc > now + timedelta(days=600)
    with structlog.testing.capture_logs() as logged:
        own.renew(now + timedelta(days=3600))
    assert [line["event"][:38] for line in logged if line["log_level"] == "warning"] == [
        "the authority of our own ends soon; re"
    ]


@pytest.mark.parametrize("file", ["server.pem", "admin.pem"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None, "of another"])
def test_what_was_lost_is_made_again(tmp_path: Path, file: str, content: bytes | str | None) -> None:
    path = OwnAuthority(tmp_path, HERE).directory / file
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        other = OwnAuthority(tmp_path / "other", HERE).directory
        shutil.copy(other / file, path)
    own = OwnAuthority(tmp_path, HERE)
    certificate(path).verify_directly_issued_by(certificate(own.authority))


@pytest.mark.parametrize("file", ["ca.key", "ca.crt"])
@pytest.mark.parametrize("content", [b"nonsense", None, "of another"])
def test_an_authority_that_cannot_be_used_is_not_replaced(
    tmp_path: Path, file: str, content: bytes | str | None
) -> None:
    """Clients trust it: another would be a stranger."""
    directory = OwnAuthority(tmp_path, HERE).directory
    if content is None:
        (directory / file).unlink()
    elif isinstance(content, bytes):
        (directory / file).write_bytes(content)
    else:
        shutil.copy(OwnAuthority(tmp_path / "other", HERE).directory / file, directory / file)
    left = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(BadSetting, match=r"ca\.crt and ca\.key"):
        OwnAuthority(tmp_path, HERE)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == left


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "pki").write_text("a file")
    with pytest.raises(BadSetting, match="File exists"):
        OwnAuthority(tmp_path, HERE)


# -- over TLS ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(doors: Doors) -> AsyncIterator[str]:
    """A server behind the doors that says who came, and that it has two clusters."""

    async def handle(http: web.Request) -> web.Response:
        if http.path == "/clusters":
            chain = peer_chain(http.transport)
            if not chain and http.headers.get("Authorization") != "Bearer secret":
                return web.Response(status=401)
            return web.json_response({"clusters": [{"name": "alpha"}, {"name": "bravo"}]})
        return web.json_response([one.hex() for one in peer_chain(http.transport)])

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = Runner(application, shutdown_timeout=0.1)
    await runner.setup()
    bound = socket.create_server(("127.0.0.1", 0))
    await Site(runner, bound, doors.serving_context(), 128).start()
    yield f"https://127.0.0.1:{bound.getsockname()[1]}"
    await runner.cleanup()


async def test_the_administrator_comes_in_over_tls(tmp_path: Path) -> None:
    own = OwnAuthority(tmp_path, HERE)
    doors = own.guards(Doors(own=True))
    assert isinstance(doors.serving_context(), ServingContext)
    context = ssl.create_default_context(cafile=own.authority)
    context.load_cert_chain(own.admin)
    async with serving(doors) as url, aiohttp.ClientSession() as session:
        async with session.get(url, ssl=context) as answer:
            der = certificate(own.admin).public_bytes(serialization.Encoding.DER)
            # Its client may send the authority along.
            assert (await answer.json())[0] == der.hex()
        # Renewed while it serves: who trusts the authority trusts that, too.
        before = own.server.read_bytes()
        own.renew(datetime.now(UTC) + timedelta(days=300))
        assert own.server.read_bytes() != before


# -- kubebraid kubeconfig ----------------------------------------------------------------------------------------------


async def kubeconfig(*arguments: str, home: Path, code: int = 0) -> str:
    """What `kubebraid kubeconfig` prints; on failure, what it complains of."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "XDG_DATA_HOME": str(home)}
    ended, out, err = await processes.run("kubeconfig", *arguments, environment=environment)
    assert ended == code, (out, err)
    return out if code == 0 else err


def decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


async def test_kubeconfig_of_our_own_authority(tmp_path: Path) -> None:
    own = OwnAuthority(tmp_path / "kubebraid", HERE)
    async with serving(own.guards(Doors(own=True))) as url:
        found = yaml.safe_load(await kubeconfig("--server", url, home=tmp_path))
        assert [one["name"] for one in found["contexts"]] == ["kubebraid", "kubebraid-alpha", "kubebraid-bravo"]
        for one in found["clusters"]:
            assert one["cluster"]["server"].startswith(url)
            assert decoded(one["cluster"]["certificate-authority-data"]) == own.authority.read_bytes()
            assert "insecure-skip-tls-verify" not in one["cluster"]
        [user] = found["users"]
        both = decoded(user["user"]["client-certificate-data"]) + decoded(user["user"]["client-key-data"])
        assert both == own.admin.read_bytes()
        # Without --server, where the service says that it is.
        (own.directory / "url").write_text(url)
        assert yaml.safe_load(await kubeconfig(home=tmp_path)) == found
        shutil.move(tmp_path / "kubebraid", tmp_path / "elsewhere")
        assert yaml.safe_load(await kubeconfig("--data", str(tmp_path / "elsewhere"), home=tmp_path)) == found


async def test_kubeconfig_of_who_may_not_read_the_key(tmp_path: Path) -> None:
    """Somebody else of the machine, who has the authority's certificate and a token."""
    own = OwnAuthority(tmp_path / "kubebraid", HERE)
    shutil.copy(own.authority, tmp_path / "ca.crt")
    token = tmp_path / "token"
    token.write_text("secret\n")
    async with serving(own.guards(Doors(own=True))) as url:
        (tmp_path / "other").mkdir()
        given = ("--server", url, "--certificate-authority", str(tmp_path / "ca.crt"))
        said = await kubeconfig(*given, home=tmp_path / "other", code=2)
        assert "answers 401: say who asks, by --client-certificate, --token-file or --kubeconfig" in said
        found = yaml.safe_load(await kubeconfig(*given, "--token-file", str(token), home=tmp_path / "other"))
        assert found["users"] == [{"name": "kubebraid", "user": {"tokenFile": str(token)}}]
        assert "secret" not in json.dumps(found)
        # Who has the administrator's, and names another, is the other.
        found = yaml.safe_load(await kubeconfig("--server", url, "--token-file", str(token), home=tmp_path))
        assert list(found["users"][0]["user"]) == ["tokenFile"]
        said = await kubeconfig("--server", url, home=tmp_path / "other", code=2)
        assert "is not known by its certificate" in said
        assert "--certificate-authority" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--client-key", "key.pem"), "--client-certificate"),
        (("--client-certificate", "c.pem", "--token-file", "t"), "both say who asks"),
        (("--server", "localhost:8001"), "write a URL"),
        (("--server", "http://127.0.0.1:1", "--token-file", "t"), "over https only"),
        (("--server", "https://127.0.0.1:1", "--token-file", "none"), "--token-file none: No such file"),
        (("--server", "https://127.0.0.1:1", "--certificate-authority", "none"), "--certificate-authority none"),
        (("--server", "https://127.0.0.1:1", "--client-certificate", "none"), "--client-certificate none"),
    ],
)
async def test_what_cannot_be_given(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    found = await kubeconfig(*arguments, home=tmp_path, code=2)
    assert said in found
    assert found.count("\n") == 1


# -- up ----------------------------------------------------------------------------------------------------------------


async def served(process: Process) -> None:
    async with asyncio.timeout(PATIENCE):
        while "try:" not in process.output():
            assert process.child.returncode is None, process.output()
            await asyncio.sleep(0.05)


async def test_up_for_others_lets_in_who_started_it(
    members: Members, process: StartProcess, start: Starter, tmp_path: Path
) -> None:
    """At another address than loopback, with nothing else said: https, the administrator, and nobody else."""
    port, data = free_port(), tmp_path / "data"
    common = ("--kubeconfig", str(members.kubeconfig), "--data", str(data))
    up = await process("up", *common, "--listen", f"0.0.0.0:{port}", "--tls-san", "kubebraid.example.org")
    await served(up)
    assert f"kubebraid kubeconfig --server https://127.0.0.1:{port} --data {data} >" in up.output()
    found: dict[str, Any] = yaml.safe_load(await kubeconfig("--data", str(data), home=tmp_path))
    assert {one["name"] for one in found["clusters"]} == {"kubebraid", "kubebraid-alpha", "kubebraid-bravo"}
    assert "kubebraid.example.org" in names(certificate(data / "pki" / "server.pem"))
    context = ssl.create_default_context(cafile=data / "pki" / "ca.crt")
    url = f"https://localhost:{port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/api/v1/pods", ssl=context) as answer:
            assert answer.status == 401
            assert (await answer.json())["message"] == "Unauthorized"
        # Over another connection.
        admin = ssl.create_default_context(cafile=data / "pki" / "ca.crt")
        admin.load_cert_chain(data / "pki" / "admin.pem")
        async with session.get(f"{url}/api/v1/pods", ssl=admin) as answer:
            assert answer.status == 200
            assert len((await answer.json())["items"]) == 120
    for command in ("status", "clusters list"):
        async with asyncio.timeout(PATIENCE):
            # 1 as long as there is a type that has not been listed yet.
            while (found_out := await processes.run(*command.split(), "--data", str(data)))[0] == 1:
                await asyncio.sleep(0.2)
        assert found_out[0] == 0, found_out
    if (kubectl := shutil.which("kubectl")) is not None:
        path = tmp_path / "kubebraid.kubeconfig"
        path.write_text(yaml.safe_dump(found))
        reading = await asyncio.create_subprocess_exec(
            kubectl, "--kubeconfig", str(path), "get", "pods", "-A", "--no-headers", stdout=subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(reading.communicate(), PATIENCE)
        assert len(out.splitlines()) == 120


async def test_up_on_loopback_stays_as_it_is(members: Members, start: Starter, tmp_path: Path) -> None:
    service = await start("--kubeconfig", str(members.kubeconfig), "--data", str(tmp_path / "data"))
    assert len((await service.get("/api/v1/pods"))["items"]) == 120
    assert not (tmp_path / "data" / "pki").exists()
