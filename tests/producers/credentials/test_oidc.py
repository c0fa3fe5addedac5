"""Users of an identity provider over real HTTPS: refresh tokens that are good once, and kubectl going on with them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trustme
from aiohttp import web
from structlog.testing import capture_logs

from producers.credentials import identity_provider
from producers.credentials.choosing import credential_for
from producers.credentials.credential import BadCredentials, Credential, Presented
from producers.credentials.files import read_file
from producers.credentials.identity_provider import IdentityProvider, Tokens
from producers.credentials.kubeconfig_tokens import RefreshLock, read_tokens, write_tokens
from producers.credentials.oidc import id_token_expiry
from producers.credentials.shared import SharedCredentials, no_proxy
from producers.kubeconfig.entries import AuthProvider, Cluster, Impersonation, User
from producers.kubeconfig.files import access_of
from producers.kubeconfig.model import ClusterAccess
from producers.kubeconfig.yaml_values import dump, parse
from producers.timing import ProducerTiming
from tests.patience import PATIENCE, eventually, eventually_awaited
from tests.producers.credentials.clock import Clock
from tests.producers.credentials.conftest import TIMING, Pair, id_token
from tests.producers.credentials.identity_provider import Provider, providing

SECURE = Cluster("https://127.0.0.1:6443")
UNTRUSTED = {"refresh-token": "x", "idp-certificate-authority-data": ""}
PAUSING = ProducerTiming(identity_provider_backoff=(60.0, 60.0))


@pytest.fixture
async def provider(authority: trustme.CA) -> AsyncIterator[Provider]:
    async with providing(authority) as provider:
        yield provider


class File:
    """A kubeconfig with an OIDC user."""

    def __init__(self, path: Path, server: str = SECURE.server) -> None:
        self.path = path
        self.server = server

    def write(self, config: dict[str, str]) -> None:
        document = {
            "current-context": "dev",
            "clusters": [{"name": "c", "cluster": {"server": self.server, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "ann", "user": {"auth-provider": {"name": "oidc", "config": config}}}],
            "contexts": [{"name": "dev", "context": {"cluster": "c", "user": "ann"}}],
        }
        self.path.write_text(f"# by hand\n{dump(document)}")

    @property
    def access(self) -> ClusterAccess:
        return access_of(str(self.path))

    @property
    def tokens(self) -> Tokens:
        found = read_tokens(str(self.path), "ann")
        assert found is not None
        return found

    def credential(self, shared: SharedCredentials) -> Credential:
        return credential_for(self.access, shared, TIMING)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "config")


def bearer(shown: Presented) -> str:
    ((name, value),) = shown.headers
    assert name == "Authorization"
    return value.removeprefix("Bearer ")


async def reason(credential: Credential) -> str:
    with pytest.raises(BadCredentials) as refused:
        await credential.current()
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert "\n" not in str(refused.value)
    return str(refused.value)


# -- id-tokens ---------------------------------------------------------------------------------------------------------


def payload(text: str) -> str:
    return f"h.{base64.urlsafe_b64encode(text.encode()).decode().rstrip('=')}.s"


@pytest.mark.parametrize(
    ("token", "expires"),
    [
        (id_token(1893456000), 1893456000.0),
        (id_token(1893456000.9), 1893456000.0),
        (id_token("1893456000"), 1893456000.0),
        (id_token("1.8e9"), 1800000000.0),
        (id_token(1e300), float("-inf")),
        (payload("{}"), float("-inf")),
        (payload("null"), float("-inf")),
        (payload('{"exp": 1893456000, "name": "ÿ~ÿ?"}'), 1893456000.0),
        (payload('{"exp": 1}')[:5] + "\r\n" + payload('{"exp": 1}')[5:], 1.0),
    ],
)
def test_when_an_id_token_expires(token: str, expires: float) -> None:
    assert id_token_expiry(token) == expires


def test_letters_of_base64url() -> None:
    token = payload('{"exp": 1893456000, "name": "ÿ~ÿ?>>>"}')
    assert {"-", "_"} & set(token)
    assert id_token_expiry(token) == 1893456000.0


@pytest.mark.parametrize(
    "token",
    [
        "opaque",
        "a.b",
        "a.b.c.d",
        "h.e30=.s",
        "h.e.s",
        "h.{}.s",
        payload("[]"),
        payload("x"),
        payload('{"exp": null}'),
        payload('{"exp": true}'),
        payload('{"exp": "soon"}'),
        payload('{"exp": []}'),
        payload("[" * 100_000),
        "h._w.s",
    ],
)
def test_id_tokens_that_are_none(token: str) -> None:
    with pytest.raises(BadCredentials, match="id-token"):
        id_token_expiry(token)


async def test_an_id_token_is_shown_while_it_lasts(
    shared: SharedCredentials, provider: Provider, file: File, clock: Clock
) -> None:
    first = id_token(int(clock.now) + 60)
    file.write(provider.settings(**{"id-token": first, "refresh-token": provider.login()}))
    credential = file.credential(shared)
    assert bearer(await credential.current()) == first
    await credential.refused(await credential.current())
    assert bearer(await credential.current()) == first, "as with kubectl a 401 renews nothing"
    clock.now += 49
    assert bearer(await credential.current()) == first
    assert provider.posts == []
    clock.now += 2
    second = bearer(await credential.current())
    assert second != first
    assert len(provider.posts) == 1
    assert file.tokens.id_token == second
    assert "# by hand" in file.path.read_text()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"id-token": "opaque", "refresh-token": "s3cret"}, "id-token is no JSON Web Token"),
        ({}, "no valid id-token, and no refresh-token"),
        ({"id-token": id_token(0)}, "no valid id-token, and no refresh-token"),
        ({"id-token": id_token(9e12) + "\n"}, "control characters"),
        ({"idp-issuer-url": ""}, "idp-issuer-url is missing"),
        ({"client-id": ""}, "client-id is missing"),
        ({"idp-issuer-url": "s3cret", "refresh-token": "s3cret"}, "idp-issuer-url is no URL"),
        ({"idp-issuer-url": "ftp://a.test", "refresh-token": "s3cret"}, "idp-issuer-url is no URL"),
        ({"idp-issuer-url": "http://a.test", "refresh-token": "s3cret"}, "is plain http: tokens are not sent there"),
        ({"idp-issuer-url": "https://[::1", "refresh-token": "s3cret"}, "idp-issuer-url is no URL"),
        ({"refresh-token": "s3cret"}, "answered 400 (invalid_grant) to the refresh token; log in again"),
        ({"refresh-token": "x", "idp-certificate-authority-data": "s3cret"}, "data is no base64"),
        ({"refresh-token": "x", "idp-certificate-authority-data": "eA=="}, "no certificate in PEM"),
        ({**UNTRUSTED, "idp-certificate-authority": "/no/ca"}, "idp-certificate-authority /no/ca: No such file"),
        (UNTRUSTED, "certificate verify failed"),
    ],
)  # fmt: skip
async def test_users_that_cannot_be_used(
    shared: SharedCredentials, provider: Provider, config: dict[str, str], said: str
) -> None:
    given = AuthProvider("oidc", tuple(sorted({**provider.settings(), **config}.items())))
    access = ClusterAccess("dev", SECURE, User(auth_provider=given))
    assert said in await reason(credential_for(access, shared, TIMING))


async def test_other_providers(shared: SharedCredentials) -> None:
    for name in ("gcp", "azure", "openstack", ""):
        access = ClusterAccess("dev", SECURE, User(auth_provider=AuthProvider(name)))
        assert "none but oidc is known" in await reason(credential_for(access, shared, TIMING))


# -- refreshing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "methods", "secret", "ways"),
    [
        ("either", None, "s3cret", ["header"]),
        ("header", None, "s3cret", ["header"]),
        ("body", None, "s3cret", ["header", "body"]),
        ("body", ["client_secret_post"], "s3cret", ["body"]),
        ("header", ["client_secret_post", "client_secret_basic"], "s3cret", ["header"]),
        ("header", ["private_key_jwt"], "s3cret", ["body", "header"]),
        ("body", ["none", "client_secret_basic"], "", ["body"]),
        ("body", None, "", ["header", "body"]),
        ("header", "nonsense", "", ["header"]),
    ],
)
async def test_how_a_client_says_who_it_is(
    shared: SharedCredentials,
    provider: Provider,
    file: File,
    clock: Clock,
    way: str,
    methods: object,
    secret: str,
    ways: list[str],
) -> None:
    provider.way, provider.methods, provider.secret = way, methods, secret
    settings = provider.settings(**{"refresh-token": provider.login()})
    if not secret:
        del settings["client-secret"]
    file.write(settings)
    credential = file.credential(shared)
    await credential.current()
    assert provider.ways == ways
    # The way that has worked is the first one then.
    clock.now += 2 * provider.lifetime
    await credential.current()
    assert provider.ways == [*ways, ways[-1]]
    assert not provider.ended


async def cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def always(status: int, body: str, content_type: str = "application/json") -> Callable[[web.Request], object]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type=content_type, headers={"Location": "/elsewhere"})

    return answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (cut, "cannot be asked: ServerDisconnectedError"),
        (always(500, "s3cret"), "answered 500 to the refresh token"),
        (always(503, '{"error": "temporarily_unavailable"}'), "answered 503 (temporarily_unavailable)"),
        (always(429, "{}"), "answered 429 to"),
        (always(302, ""), "answered 302 to"),
        (always(307, ""), "answered 307 to"),
        (always(200, "s3cret"), "what is no answer of a token endpoint"),
        (always(200, "[]"), "what is no answer of a token endpoint"),
        (always(200, "{}"), "gave no id_token"),
        (always(200, '{"access_token": 5, "id_token": "s3cret"}'), "gave no id_token"),
        (always(200, '{"access_token": "a", "id_token": {}}'), "gave no id_token"),
        (always(200, '{"access_token": "a", "id_token": "s3cret"}'), "id-token is no JSON Web Token"),
        (always(200, "x" * 3_000_000), "answered with more than 1 MiB"),
        (always(200, "s3cret", "text/plain"), "gave no id_token"),
    ],
)
async def test_an_answer_that_is_lost_does_not_burn_the_token(
    shared: SharedCredentials, provider: Provider, file: File, answer: Callable[[web.Request], object], said: str
) -> None:
    """It may have been taken; x/oauth2 would send it again at once."""
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    provider.before = answer  # type: ignore[assignment]
    assert said in await reason(file.credential(shared))
    assert len(provider.posts) == 1


async def test_a_login_that_ended_is_asked_for_with_pauses(
    provider: Provider, file: File, authority: trustme.CA
) -> None:
    file.write(provider.settings(**{"refresh-token": "s3cret-gone"}))
    shared = SharedCredentials(PAUSING)
    credential = file.credential(shared)
    for _ in range(5):
        assert "answered 400 (invalid_grant) to the refresh token" in await reason(credential)
    assert provider.ways == ["header", "body"]
    # Who logs in anew need not wait for the end of a pause.
    write_tokens(str(file.path), "ann", Tokens(id_token(time.time() + 3600), provider.login()), 1.0)
    again = file.credential(shared)
    assert bearer(await again.current()) == bearer(await credential.current()) == file.tokens.id_token
    await shared.close()


async def test_forms_of_answers(shared: SharedCredentials, provider: Provider, file: File) -> None:
    token = id_token(int(time.time()) + 60)
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    provider.before = always(200, f"access_token=a&id_token={token}", "application/x-www-form-urlencoded")  # type: ignore[assignment]
    assert bearer(await file.credential(shared).current()) == token
    assert file.tokens.refresh_token.startswith("s3cret-refresh"), "one that is not replaced stays"


async def test_no_id_token_but_another_refresh_token(shared: SharedCredentials, provider: Provider, file: File) -> None:
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    provider.gives_id_token = False
    credential = file.credential(shared)
    before = file.tokens
    assert "gave no id_token" in await reason(credential)
    assert file.tokens.refresh_token != before.refresh_token, "what is valid now is not lost"
    provider.gives_id_token = True
    await asyncio.sleep(TIMING.identity_provider_backoff[1] * 2)
    assert bearer(await credential.current()) == file.tokens.id_token


async def test_discovery(shared: SharedCredentials, provider: Provider, file: File) -> None:
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    credential = file.credential(shared)
    for document, said in (
        ({}, "has no token_endpoint"),
        ({"token_endpoint": 5}, "has no token_endpoint"),
        ({"token_endpoint": "http://a.test/s3cret"}, "its token_endpoint is plain http"),
        ({"token_endpoint": "s3cret"}, "its token_endpoint is no URL"),
        ({"token_endpoint": "https://127.0.0.1:1/"}, "Cannot connect to host 127.0.0.1:1"),
    ):
        provider.document = document  # type: ignore[assignment]
        await asyncio.sleep(TIMING.identity_provider_backoff[1] * 2)
        assert said in await reason(credential)
    assert provider.posts == []


async def test_redirects_of_the_discovery_document_stay_safe(authority: trustme.CA) -> None:
    async with providing(authority) as provider:
        asked: list[str] = []

        async def moved(request: web.Request) -> web.StreamResponse:
            asked.append(request.path)
            location = {"/a": f"{provider.url}", "/b": "http://a.test", "/c": f"{here}/c"}[request.path[:2]]
            rest = "/.well-known/openid-configuration"
            return web.Response(status=302, headers={"Location": location + rest})

        application = web.Application()
        application.router.add_get("/{path:.*}", moved)
        runner = web.AppRunner(application)
        await runner.setup()
        # Plain http, but of this machine.
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        here = f"http://127.0.0.1:{runner.addresses[0][1]}"
        shared = SharedCredentials(TIMING)

        async def refreshed(path: str) -> Tokens:
            settings = provider.settings(**{"idp-issuer-url": here + path})
            identity = IdentityProvider(settings, no_proxy, shared.threads.of(""))
            return await identity.refresh(provider.login())

        assert (await refreshed("/a/")).id_token
        with pytest.raises(BadCredentials, match="leads is plain http"):
            await refreshed("/b")
        with pytest.raises(BadCredentials, match="leads on and on"):
            await refreshed("/c")
        assert asked[0] == "/a/.well-known/openid-configuration"
        await runner.cleanup()
        await shared.close()


async def test_one_that_does_not_answer(provider: Provider) -> None:
    hangs = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse | None:
        await hangs.wait()
        return None

    provider.before = hang
    shared = SharedCredentials(TIMING)
    identity = IdentityProvider(
        provider.settings(), no_proxy, shared.threads.of(""), ProducerTiming(identity_provider=0.3)
    )
    with pytest.raises(BadCredentials, match=r"identity provider 127.0.0.1:\d+ did not answer within 0.3 s"):
        await identity.refresh("x")
    hangs.set()
    await shared.close()


async def test_an_authority_in_a_file_that_hangs(
    provider: Provider, file: File, tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file server that does not answer: it has a time limit, one thread, and none of the kubeconfig's."""
    release, opened = threading.Event(), []
    dead = tmp_path / "dead"
    dead.mkdir()
    (dead / "ca.crt").write_bytes(authority.cert_pem.bytes())

    def reads(path: str, what: str) -> bytes:
        opened.append(path)
        release.wait(PATIENCE)
        return read_file(path, what)

    monkeypatch.setattr(identity_provider, "read_file", reads)
    shared = SharedCredentials(msgspec.structs.replace(TIMING, credential_files=0.05))
    settings = provider.settings() | {"idp-certificate-authority": str(dead / "ca.crt")}
    del settings["idp-certificate-authority-data"]
    file.write({**settings, "refresh-token": provider.login()})
    credential = file.credential(shared)
    for _ in range(2):
        said = await reason(credential)
        assert said == f"idp-certificate-authority {dead}/ca.crt could not be read within 0.05 s"
        await asyncio.sleep(0.03)
    assert len(opened) == 1
    assert (
        await asyncio.gather(
            *(asyncio.wrap_future(shared.threads.of(str(tmp_path)).submit(int, "7")) for _ in range(20))
        )
        == [7] * 20
    )
    release.set()

    async def there() -> bool:
        try:
            return bool((await credential.current()).headers)
        except BadCredentials:
            return False

    await eventually_awaited(there)
    await credential.close()
    await shared.close()


async def test_a_kubeconfig_that_hangs(provider: Provider, file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server does not answer: the error says so, no refresh token is spent, and one thread waits for it."""
    release, opened, real = threading.Event(), [], os.open

    def hanging(path: str, flags: int, *rest: int, **named: int) -> int:
        if str(path) == str(file.path):
            opened.append(path)
            release.wait(PATIENCE)
        return real(path, flags, *rest, **named)

    file.write(provider.settings(**{"refresh-token": provider.login()}))
    shared = SharedCredentials(msgspec.structs.replace(TIMING, credential_files=0.04, kubeconfig_lock=0.01))
    credential = file.credential(shared)
    monkeypatch.setattr(os, "open", hanging)
    asking = asyncio.create_task(reason(credential))
    await eventually(lambda: bool(opened))
    assert asking.done() or credential.waits_for == f"kubeconfig {file.path} has not been read yet"
    for _ in range(2):
        assert await asking == f"kubeconfig {file.path} could not be read within 0.05 s"
        asking = asyncio.create_task(reason(credential))
    await asking
    assert (len(opened), provider.posts) == (1, [])
    release.set()

    async def there() -> bool:
        with contextlib.suppress(BadCredentials):
            return bool((await credential.current()).headers)
        return False

    await eventually_awaited(there)
    assert len(provider.posts) == 1
    monkeypatch.undo()
    # What came too late keeps no lock.
    lock = RefreshLock(str(file.path), PATIENCE)
    lock.take()
    assert lock.held
    lock.release()
    await credential.close()
    await shared.close()


async def test_through_a_proxy(provider: Provider) -> None:
    asked: list[str] = []
    tunnels: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        tunnels.append(head.split(b"\r\n")[0].decode())
        host, _, port = head.split(b" ")[1].decode().rpartition(":")
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while piece := await source.read(65536):
                    sink.write(piece)
            sink.close()

        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def chosen(url: str) -> str:
        asked.append(url)
        return f"http://127.0.0.1:{port}"

    shared = SharedCredentials(TIMING)
    identity = IdentityProvider(provider.settings(), chosen, shared.threads.of(""))
    assert (await identity.refresh(provider.login())).id_token
    assert asked == [f"{provider.url}/.well-known/openid-configuration", f"{provider.url}/token"]
    assert tunnels == [f"CONNECT {provider.url.removeprefix('https://')} HTTP/1.1"] * 2
    socks = IdentityProvider(provider.settings(), lambda _: "socks5://u:s3cret@127.0.0.1:1", shared.threads.of(""))
    with pytest.raises(BadCredentials, match="through no socks5 proxy") as refused:
        await socks.refresh("x")
    assert "s3cret" not in str(refused.value)
    server.close()
    await shared.close()


# -- with others -------------------------------------------------------------------------------------------------------


async def test_many_ask_and_it_is_asked_once(provider: Provider, file: File) -> None:
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    shared = SharedCredentials(TIMING)
    credentials = [file.credential(shared) for _ in range(5)]
    asking = [asyncio.create_task(one.current()) for one in credentials * 4]
    await asyncio.sleep(0)
    for task in asking[:5]:
        task.cancel()
    shown = {bearer(await task) for task in asking[5:]}
    assert shown == {file.tokens.id_token}
    assert len(provider.posts) == 1
    await shared.close()


async def test_two_clusters_with_one_entry_share_it(shared: SharedCredentials, provider: Provider, file: File) -> None:
    """client-go would ask twice, with a token that is good once."""
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    one = file.access
    two = replace(one, name="other", cluster=Cluster("https://127.0.0.2:6443"))
    acting = replace(one, user=replace(one.user, impersonation=Impersonation("jane")))
    first, second, third = (credential_for(access, shared, TIMING) for access in (one, two, acting))
    shown = await asyncio.gather(first.current(), second.current(), third.current())
    assert shown[2].headers == (*shown[0].headers, ("Impersonate-User", "jane"))
    assert shown[0] == shown[1]
    assert len(provider.posts) == 1
    await first.close()
    assert await second.current() == shown[1]


async def test_another_user_of_the_same_client_is_another(
    shared: SharedCredentials, provider: Provider, file: File
) -> None:
    """client-go gives the second one the first one's tokens."""
    tokens = [id_token(int(time.time()) + 60, sub=name) for name in ("ann", "bob")]
    given = [
        credential_for(
            ClusterAccess(
                "dev",
                SECURE,
                User(auth_provider=AuthProvider("oidc", tuple(provider.settings(**{"id-token": token}).items()))),
            ),
            shared,
            TIMING,
        )
        for token in tokens
    ]
    assert [bearer(await one.current()) for one in given] == tokens


async def test_two_processes_refresh_once(provider: Provider, file: File) -> None:
    """Each has the same token, good once: the second one takes what the first has written."""
    file.write(provider.settings(**{"refresh-token": provider.login()}))

    async def slow(request: web.Request) -> None:
        await asyncio.sleep(0.3)

    provider.after = slow
    timing = ProducerTiming(kubeconfig_lock=60.0)
    processes = [SharedCredentials(timing), SharedCredentials(timing)]
    shown = await asyncio.gather(*(file.credential(shared).current() for shared in processes))
    assert shown[0] == shown[1]
    assert len(provider.posts) == 1
    for shared in processes:
        await shared.close()


async def test_what_another_has_refreshed_is_taken(
    shared: SharedCredentials, provider: Provider, file: File, clock: Clock
) -> None:
    file.write(provider.settings(**{"id-token": id_token(clock.now + 60), "refresh-token": provider.login()}))
    credential = file.credential(shared)
    await credential.current()
    other = Tokens(id_token(clock.now + 3600), provider.login())
    write_tokens(str(file.path), "ann", other, 1.0)
    clock.now += 61
    assert bearer(await credential.current()) == other.id_token
    assert provider.posts == []


async def test_what_another_refreshes_at_the_same_time_is_taken(
    shared: SharedCredentials, provider: Provider, file: File
) -> None:
    """As kubectl, which takes no lock for it."""
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    other = Tokens(id_token(time.time() + 3600), "s3cret-another")

    async def overtaken(request: web.Request) -> None:
        if not provider.ended:
            provider.login()
            write_tokens(str(file.path), "ann", other, 1.0)

    provider.before = overtaken
    assert bearer(await file.credential(shared).current()) == other.id_token
    assert file.tokens == other


async def test_tokens_that_cannot_be_written_are_kept_and_written_later(
    provider: Provider, file: File, clock: Clock
) -> None:
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    stale = file.access
    lock = Path(f"{file.path}.lock")
    lock.touch()
    shared = SharedCredentials(TIMING, clock=clock)
    credential = file.credential(shared)
    before = file.tokens
    with capture_logs() as logs:
        shown = bearer(await credential.current())
        assert file.tokens == before
        # What the file still says does not count again.
        same = credential_for(stale, shared, TIMING)
        assert bearer(await same.current()) == shown
        clock.now += 2 * provider.lifetime
        shown = bearer(await credential.current())
    assert len(provider.posts) == 2
    assert not provider.ended
    warned = [line["reason"] for line in logs if line["log_level"] == "warning"]
    assert len(warned) == 1
    assert "is locked: remove" in warned[0]
    assert "s3cret" not in str(logs)
    clock.now -= 2 * provider.lifetime
    lock.unlink()

    async def written() -> bool:
        await credential.current()
        return file.tokens.id_token == shown

    await eventually_awaited(written)
    await shared.close()


async def test_closing_waits_for_the_answer_that_took_the_token(provider: Provider, file: File) -> None:
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    before = file.tokens
    asked = asyncio.Event()

    async def slow(request: web.Request) -> None:
        asked.set()
        await asyncio.sleep(0.3)

    provider.after = slow
    shared = SharedCredentials(TIMING)
    credential = file.credential(shared)
    waiting = asyncio.create_task(credential.current())
    await asked.wait()
    waiting.cancel()
    await credential.close()
    assert file.tokens.refresh_token != before.refresh_token
    assert not provider.ended
    await shared.close()


@pytest.mark.parametrize("seed", range(20))
async def test_closed_at_any_moment_no_login_is_lost(provider: Provider, file: File, seed: int) -> None:
    """Also where who closes is cancelled: a refresh token that was taken is good once."""
    chance = random.Random(seed)

    async def slow(request: web.Request) -> None:
        await asyncio.sleep(chance.uniform(0, 0.02))

    provider.after = slow
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    shared = SharedCredentials(TIMING)
    credential = file.credential(shared)
    asking = [asyncio.create_task(credential.current()) for _ in range(3)]
    await asyncio.sleep(chance.uniform(0, 0.06))
    asking[0].cancel()
    closing = asyncio.create_task(credential.close())
    await asyncio.sleep(chance.uniform(0, 0.01))
    if seed % 2:
        closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    for task in asking:
        with contextlib.suppress(asyncio.CancelledError, BadCredentials):
            await task
    await shared.close()
    again = SharedCredentials(TIMING)
    assert bearer(await file.credential(again).current()) == file.tokens.id_token
    assert not provider.ended
    await again.close()


async def test_a_token_that_has_expired_when_it_comes(provider: Provider, file: File) -> None:
    """The clocks differ: it is shown, and not asked for again with each request."""
    provider.lifetime = -60.0
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    shared = SharedCredentials(PAUSING)
    credential = file.credential(shared)
    shown = [bearer(await credential.current()) for _ in range(5)]
    assert set(shown) == {file.tokens.id_token}
    assert len(provider.posts) == 1
    await shared.close()


async def test_beside_what_goes_before_it(
    shared: SharedCredentials, provider: Provider, file: File, issue: Callable[[str], Pair]
) -> None:
    file.write(provider.settings(**{"refresh-token": provider.login()}))
    base = file.access
    pair = issue("ann")

    async def shown(server: str = SECURE.server, **user: object) -> Presented:
        access = replace(base, cluster=Cluster(server), user=replace(base.user, **user))  # type: ignore[arg-type]
        return await credential_for(access, shared, TIMING).current()

    assert bearer(await shown(token="t")) == "t"
    assert (await shown(username="ann")).headers == (("Authorization", "Basic YW5uOg=="),)
    assert (await shown("https://u:p@127.0.0.1")).headers == ()
    assert (await shown("http://127.0.0.1")).headers == ()
    assert (await shown("127.0.0.1:6443")).headers == ()
    assert provider.posts == []
    both = await shown(certificate_data=pair.certificate, key_data=pair.key)
    assert bearer(both) == file.tokens.id_token
    assert both.certificate is not None


@pytest.mark.processes
async def test_kubectl_goes_on_with_what_was_written(
    shared: SharedCredentials, provider: Provider, authority: trustme.CA, file: File, clock: Clock
) -> None:
    """Ours, then kubectl's refresh, then ours again: with tokens that are good once, one login for both."""
    seen: list[str] = []

    async def version(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization", ""))
        return web.json_response({"major": "1", "minor": "36"})

    application = web.Application()
    application.router.add_get("/{path:.*}", version)
    runner = web.AppRunner(application)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    file.server = f"https://127.0.0.1:{runner.addresses[0][1]}"
    file.write(provider.settings(**{"refresh-token": provider.login()}))

    async def kubectl() -> str:
        command = ["kubectl", "--kubeconfig", str(file.path), "get", "--raw", "/version"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return seen[-1].removeprefix("Bearer ")

    credential = file.credential(shared)
    ours = bearer(await credential.current())
    assert await kubectl() == ours
    assert len(provider.posts) == 1
    # Expired for kubectl: it refreshes with what we wrote.
    text = file.path.read_text()
    document = parse(text.encode())
    document["users"][0]["user"]["auth-provider"]["config"]["id-token"] = id_token(0)
    file.path.write_text(dump(document))
    theirs = await kubectl()
    assert theirs not in (ours, id_token(0))
    assert len(provider.posts) == 2
    # And expired for us: kubectl's is taken, and later refreshed.
    clock.now = time.time() + provider.lifetime + 5
    provider.lifetime *= 2
    again = bearer(await credential.current())
    assert len(provider.posts) == 3
    assert again not in (ours, theirs)
    assert await kubectl() == again == file.tokens.id_token
    assert not provider.ended
    await runner.cleanup()
    await eventually(lambda: not Path(f"{file.path}.lock").exists())
