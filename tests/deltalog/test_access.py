"""Ways into NATS: user and password, token, nkey, JWT, TLS; what is said where they are wrong, or become so."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import secrets
import ssl
import time
from pathlib import Path
from typing import Any

import nkeys
import pytest
import structlog
import trustme
import uvloop
from nacl.signing import SigningKey

from deltalog import (
    Access,
    Appender,
    BadAccess,
    BrokerUnavailable,
    Connection,
    LogSettings,
    Reader,
    Record,
    connect,
    open_log,
)
from deltalog.jetstream.connection import BrokerRefuses
from kubebraid.command.broker import EmbeddedBroker
from tests.nats_cluster import Lone
from tests.patience import PATIENCE
from tests.ports import free_port

pytestmark = pytest.mark.usefixtures("limited")


@pytest.fixture(params=[True, False], ids=["fast", "public"])
def fast(request: pytest.FixtureRequest) -> bool:
    """All of this holds without nats-py's private names, too."""
    return bool(request.param)


def new_key(kind: int) -> nkeys.KeyPair:
    """`kind`: one of nkeys' prefix bytes."""
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), kind)))


def public(pair: nkeys.KeyPair) -> str:
    return str(pair.public_key.decode())


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def signed(issuer: nkeys.KeyPair, subject: str, claims: dict[str, Any], **more: Any) -> str:
    """A NATS JWT."""
    body = {"iat": int(time.time()), "iss": public(issuer), "sub": subject, "nats": {"version": 2, **claims}, **more}
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).rstrip(b"=").decode()
    text = f"{encoded({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{encoded(body)}"
    return f"{text}.{base64.urlsafe_b64encode(issuer.sign(text.encode())).rstrip(b'=').decode()}"


class Operator:
    """A server in operator mode with one account, whose users have JWTs."""

    def __init__(self) -> None:
        self.operator, self.account, self.system = (
            new_key(nkeys.PREFIX_BYTE_OPERATOR),
            new_key(nkeys.PREFIX_BYTE_ACCOUNT),
            new_key(nkeys.PREFIX_BYTE_ACCOUNT),
        )
        none = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True}
        limits = {**none, "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
        accounts = "".join(
            f"  {public(one)}: {signed(self.operator, public(one), {'type': 'account', 'limits': allowed})}\n"
            for one, allowed in ((self.account, limits), (self.system, {**none, "conn": -1, "leaf": -1}))
        )
        operator = signed(
            self.operator, public(self.operator), {"type": "operator", "system_account": public(self.system)}
        )
        self.configuration = (
            f"operator: {operator}\nsystem_account: {public(self.system)}\n"
            f"resolver: MEMORY\nresolver_preload: {{\n{accounts}}}\n"
        )

    def credentials(self, file: Path, **more: Any) -> str:
        """Writes a user's file; `more`: claims as `exp`."""
        user = new_key(nkeys.PREFIX_BYTE_USER)
        none = {"type": "user", "subs": -1, "data": -1, "payload": -1}
        token = signed(self.account, public(user), none, **more)
        written = file.with_suffix(".new")
        written.write_text(
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )
        written.replace(file)
        return str(file)


async def works(url: str, access: Access, *, fast: bool) -> None:
    connection = await connect(url, name="test", access=access, patience=PATIENCE, fast=fast)
    try:
        await open_log(connection, LogSettings(name="WORKS"))
    finally:
        await connection.close()


async def moves_much(url: str, access: Access, *, fast: bool) -> None:
    """15 MB into a log and out of it again."""
    connection = await connect(url, name="test", access=access, patience=PATIENCE, fast=fast)
    try:
        log, tag = await open_log(connection, LogSettings(name="WORKS")), secrets.token_hex(4)
        found: list[Record] = []
        async with asyncio.timeout(PATIENCE), Appender(connection, ingest=log.ingest) as appender:
            for number in range(500):
                await appender.append(f"kb.{tag}.{number}", bytes(30_000), lambda *_: None, {"Kb": "a"})
            await appender.drain()
        await Reader(log, found.append, stop_when_caught_up=True).run()
        assert [len(one.data) for one in found if one.subject.startswith(f"kb.{tag}.")] == [30_000] * 500
    finally:
        await connection.close()


async def refused(url: str, access: Access, *, fast: bool) -> str:
    """What is said to who is refused. On a busy machine a first attempt may end before the server has said anything."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with pytest.raises(BrokerUnavailable) as told:
                await connect(url, name="test", access=access, patience=1.0, fast=fast)
            assert "\n" not in str(told.value)
            if isinstance(told.value, BrokerRefuses):
                return str(told.value)


def test_a_key_of_ours_is_one() -> None:
    pair = new_key(nkeys.PREFIX_BYTE_USER)
    assert public(pair).startswith("U")
    assert pair.seed.startswith(b"SU")
    SigningKey(bytes(nkeys.decode_seed(bytearray(pair.seed))[1]))


@pytest.mark.processes
async def test_users_tokens_and_nkeys(tmp_path: Path, fast: bool) -> None:
    pair, other = new_key(nkeys.PREFIX_BYTE_USER), new_key(nkeys.PREFIX_BYTE_USER)
    password, seed, wrong = tmp_path / "password", tmp_path / "seed", tmp_path / "wrong"
    password.write_text("open sesame\n")
    seed.write_bytes(pair.seed + b"\n")
    wrong.write_bytes(other.seed)
    users = f'{{user: ali, password: "open sesame"}}, {{nkey: {public(pair)}}}'
    async with (
        Lone(tmp_path, f"authorization {{ users: [{users}] }}\n") as server,
        Lone(tmp_path, "authorization { token: secret }\n", "token") as guarded,
    ):
        await works(server.url, Access(user="ali", password="open sesame"), fast=fast)
        await works(server.url, Access(user="ali", password_file=str(password)), fast=fast)
        await works(server.url.replace("//", "//ali:open%20sesame@"), Access(), fast=fast)
        await works(server.url, Access(nkey=str(seed)), fast=fast)
        await works(guarded.url, Access(token="secret"), fast=fast)
        await works(guarded.url.replace("//", "//secret@"), Access(), fast=fast)
        answers = await asyncio.gather(
            refused(server.url, Access(), fast=fast),
            refused(server.url, Access(user="ali", password="nothing"), fast=fast),
            refused(server.url, Access(nkey=str(wrong)), fast=fast),
            refused(guarded.url, Access(token="nothing"), fast=fast),
        )
        for answer in answers:
            assert answer.startswith(f"NATS at nats://127.0.0.1:{answer.split(':')[2].split()[0]} cannot be used: it ")
            assert "refuses who we are (Authorization Violation); check `creds`" in answer


@pytest.mark.processes
async def test_jwts_and_their_expiry(tmp_path: Path, fast: bool) -> None:
    operator, stranger = Operator(), Operator()
    file = tmp_path / "user.creds"
    async with Lone(tmp_path, operator.configuration) as server:
        await works(server.url, Access(creds=operator.credentials(file)), fast=fast)
        theirs = stranger.credentials(tmp_path / "theirs.creds")
        old = operator.credentials(tmp_path / "old.creds", exp=int(time.time()) - 60)
        for answer in await asyncio.gather(
            refused(server.url, Access(creds=theirs), fast=fast), refused(server.url, Access(creds=old), fast=fast)
        ):
            assert "it refuses who we are" in answer
        # One that expires ends the connection; it is back once the file has another. Not so with the public client.
        operator.credentials(file, exp=int(time.time()) + 6)
        connection = await connect(server.url, name="test", fast=fast, access=Access(creds=str(file)))
        try:
            async with asyncio.timeout(PATIENCE):
                while not connection.disconnections or connection.connected:
                    await asyncio.sleep(0.05)
                if not fast:
                    while not connection.problem:
                        await asyncio.sleep(0.05)
                    assert connection.client.is_closed
                    assert "the credentials have expired; give new ones" in connection.problem
                    return
                while "credentials" not in connection.problem and "who we are" not in connection.problem:
                    await asyncio.sleep(0.05)
                file.write_text("half a fi")
                while "cannot be read" not in connection.problem:
                    await asyncio.sleep(0.05)
                operator.credentials(file)
                while not connection.connected:
                    await asyncio.sleep(0.05)
            await open_log(connection, LogSettings(name="WORKS"))
            async with asyncio.timeout(PATIENCE):
                while connection.problem:
                    await asyncio.sleep(0.05)
        finally:
            await connection.close()


def written(directory: Path, name: str, certificate: trustme.LeafCert) -> dict[str, str]:
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    for file, blob in ((cert, certificate.cert_chain_pems[0]), (key, certificate.private_key_pem)):
        blob.write_to_path(str(file) + ".new")
        Path(f"{file}.new").replace(file)
    return {"cert": str(cert), "key": str(key)}


@pytest.mark.processes
async def test_websockets(tmp_path: Path, fast: bool) -> None:
    port = free_port()
    async with Lone(tmp_path, f"websocket {{ listen: '127.0.0.1:{port}', no_tls: true }}\n") as server:
        await works(server.url, Access(), fast=fast)
        await moves_much(f"ws://127.0.0.1:{port}", Access(), fast=fast)


@pytest.mark.processes
async def test_tls(tmp_path: Path, fast: bool) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    ca = tmp_path / "ca.pem"
    ours.cert_pem.write_to_path(str(ca))
    server_files = written(tmp_path, "server", ours.issue_cert("127.0.0.1"))
    elsewhere = written(tmp_path, "elsewhere", ours.issue_cert("nats.example.com"))
    client = written(tmp_path, "client", ours.issue_cert("somebody@example.com"))
    foreign = written(tmp_path, "foreign", theirs.issue_cert("somebody@example.com"))

    def tls(files: dict[str, str], more: str = "") -> str:
        # The server gives a handshake 2 s if nothing else is said.
        return f'tls {{ timeout: 30, cert_file: "{files["cert"]}", key_file: "{files["key"]}", {more} }}\n'

    mutual = tls(server_files, f'ca_file: "{ca}", verify: true')
    async with (
        Lone(tmp_path, tls(server_files), "plain") as server,
        Lone(tmp_path, mutual, "mutual") as strict,
        Lone(tmp_path, tls(elsewhere), "elsewhere") as misnamed,
        Lone(tmp_path, "", "bare") as bare,
        Lone(tmp_path, tls(server_files) + "allow_non_tls: true\n", "both") as both,
    ):
        trusting = Access(ca=str(ca))
        await works(server.url, trusting, fast=fast)
        await works(server.url.replace("nats:", "tls:"), trusting, fast=fast)
        await works(strict.url, Access(ca=str(ca), **client), fast=fast)
        for run in (asyncio.run, uvloop.run):
            await asyncio.to_thread(run, moves_much(server.url, trusting, fast=fast))
        if fast:
            await works(both.url, trusting, fast=fast)
        else:
            assert "the server has no TLS, which is asked for" in await refused(both.url, trusting, fast=fast)
        untrusted, misdirected, asked, wrong, naked, scheme = await asyncio.gather(
            refused(server.url, Access(), fast=fast),
            refused(misnamed.url, trusting, fast=fast),
            refused(strict.url, trusting, fast=fast),
            refused(strict.url, Access(ca=str(ca), **foreign), fast=fast),
            refused(bare.url, Access(ca=str(ca), user="ali", password="open sesame"), fast=fast),
            refused(bare.url.replace("nats:", "tls:"), Access(), fast=fast),
        )
        assert "its certificate is not trusted" in untrusted
        assert "give its authority with `ca`" in untrusted
        assert "its certificate is for another name" in misdirected
        assert "it asks for a client certificate; give `cert` and `key`" in asked
        assert "it refuses the client certificate of `cert`" in wrong
        assert "the server has no TLS, which is asked for" in naked
        assert "the server has no TLS, which is asked for" in scheme
        # A certificate is replaced by another authority's, on both sides, while we are connected.
        connection = await connect(strict.url, name="test", fast=fast, access=Access(ca=str(ca), **client))
        try:
            theirs.cert_pem.write_to_path(str(ca))
            written(tmp_path, "server", theirs.issue_cert("127.0.0.1"))
            written(tmp_path, "client", theirs.issue_cert("somebody@example.com"))
            await strict.kill()
            await strict.start()
            async with asyncio.timeout(PATIENCE):
                while not (connection.disconnections and connection.connected):
                    await asyncio.sleep(0.05)
            await open_log(connection, LogSettings(name="WORKS"))
        finally:
            await connection.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"creds": "none"}, r"`creds` .*none: No such file"),
        ({"creds": "text"}, "it has no user JWT"),
        ({"nkey": "text"}, "it holds no nkey seed"),
        ({"user": "ali"}, "`user` needs `password_file`"),
        ({"user": "ali", "password": "x", "token": "y"}, "`user` and `token`: choose one"),
        ({"user": "ali", "password_file": "none"}, "`password_file` .*none: No such file"),
        ({"token_file": "none"}, "`token_file`"),
        ({"ca": "text"}, "`ca` .*: it is no PEM file"),
        ({"ca": "none"}, "`ca` .*: No such file"),
        ({"cert": "text"}, "`cert` .*: it is no PEM file"),
        ({"key": "text"}, "`key` is the key of `cert`"),
        ({"cert": "one.pem", "key": "two.key"}, "the key is not that of the certificate"),
        ({"domain": "a.b"}, "`domain`"),
        ({"inbox": "a.>"}, "`inbox`"),
    ],
)
def test_what_cannot_be_is_said_before(tmp_path: Path, given: dict[str, str], said: str) -> None:
    (tmp_path / "text").write_text("just text")
    authority = trustme.CA()
    for name in ("one", "two"):
        written(tmp_path, name, authority.issue_cert("127.0.0.1"))
    files = {"creds", "nkey", "password_file", "token_file", "ca", "cert", "key"}
    access = Access(**{name: str(tmp_path / value) if name in files else value for name, value in given.items()})
    with pytest.raises(BadAccess, match=said) as told:
        access.check()
    assert "\n" not in str(told.value)


def test_the_system_is_trusted_by_default() -> None:
    context = Access().tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    "url",
    [
        "foo://x",
        "NATS://x",
        "http://127.0.0.1:4222",
        "nats://127.0.0.1:abc",
        "nats://",
        "",
        "nats://a:4222,nats://a:99999",
    ],
)
async def test_urls_that_can_be_no_servers(url: str) -> None:
    with pytest.raises(BadAccess, match=r"`url` .*(begins with nats://|write it as nats://host:port)") as raised:
        await connect(url, name="test")
    assert raised.value.fields == ("url",)


async def test_no_secret_of_a_bad_url_is_said() -> None:
    with pytest.raises(BadAccess) as raised:
        await connect("http://me:secret@127.0.0.1:4222", name="test")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["127.0.0.1:{}", "nats://127.0.0.1:{}", "nats://127.0.0.1:{},nats://[::1]:{}"])
async def test_urls_that_can(url: str, broker: EmbeddedBroker) -> None:
    port = broker.url.rpartition(":")[2]
    connection = await connect(url.format(port, port), name="test")
    assert connection.connected
    await connection.close()


async def test_attempts_that_fail_are_no_disconnections() -> None:
    connection = Connection(f"nats://127.0.0.1:{free_port()}", name="test")
    with structlog.testing.capture_logs() as said:
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="does not answer"):
                await connection.open(0.1)
    assert connection.disconnections == 0
    assert [line for line in said if line["log_level"] != "debug"] == []
