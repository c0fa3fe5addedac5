"""TLS of what is served: files that change, and certificates of clients that the handshake refuses none of."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog.testing
import trustme
import uvloop
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from prometheus_client import CollectorRegistry, Counter

from query.http.accepting import Site
from query.http.connections import SLOW_CLIENTS, ConnectionLimits, Runner
from query.http.slow_clients import SlowClients
from query.http.tls import BadTlsFile, ServingContext, ServingFiles, peer_chain
from tests.patience import PATIENCE, eventually

# Both loops; and versions of TLS that are out of use.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Overriding the"),
    pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning"),
]
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Both have TLS of their own."""
    made: asyncio.AbstractEventLoopPolicy = request.param()
    return made


class Files:
    """What is served with, in a directory; `ask`: whether clients are asked for certificates."""

    def __init__(self, directory: Path, *, ask: bool) -> None:
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.now = 0.0
        self.certificate, self.key = directory / "tls.crt", directory / "tls.key"
        self.bundle = directory / "clients.crt"
        self.clients.cert_pem.write_to_path(self.bundle)
        self.files = ServingFiles(self.certificate, self.key, (self.bundle,) if ask else ())
        self.issue()

    def issue(self, authority: trustme.CA | None = None) -> bytes:
        """Another certificate, of this authority or another; its serial number's digits."""
        made = (authority or self.authority).issue_cert("localhost", "127.0.0.1")
        made.private_key_pem.write_to_path(self.key)
        self.certificate.write_bytes(b"".join(one.bytes() for one in made.cert_chain_pems))
        return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())

    def context(self) -> ServingContext:
        return ServingContext(self.files, lambda: self.now)

    def client(self, shown: Path | None = None, *trusted: trustme.CA) -> ssl.SSLContext:
        context = ssl.create_default_context()
        for one in trusted or (self.authority,):
            one.configure_trust(context)
        if shown is not None:
            context.load_cert_chain(shown)
        return context


@pytest.fixture(params=[False, True], ids=["not asked", "asked"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return Files(tmp_path, ask=request.param)


@pytest.fixture
def asking(tmp_path: Path) -> Files:
    return Files(tmp_path, ask=True)


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that says which certificates it was shown, and sends back what it is sent."""

    async def handle(http: web.Request) -> web.StreamResponse:
        if http.method == "POST":
            return web.Response(body=await http.read())
        if http.path == "/long":
            response = web.StreamResponse()
            await response.prepare(http)
            while True:
                await response.write(b"event\n")
                await asyncio.sleep(0.01)
        return web.json_response([one.hex() for one in peer_chain(http.transport)])

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = Runner(application, ConnectionLimits(body=64 * 2**20), shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    bound = socket.create_server(("127.0.0.1", 0))
    await Site(runner, bound, context, 128).start()
    try:
        yield bound.getsockname()[1]
    finally:
        await runner.cleanup()


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def asked(streams: Streams, request: str = "GET / HTTP/1.1", body: bytes = b"") -> bytes:
    reader, writer = streams
    writer.write(f"{request}\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    assert head.startswith(b"HTTP/1.1 200"), head
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return await asyncio.wait_for(reader.readexactly(length), PATIENCE)


async def shown_to(port: int, context: ssl.SSLContext) -> list[str]:
    async with connected(port, context) as streams:
        text = (await asked(streams)).decode()
    return [part.strip('" ') for part in text.strip("[]").split(",") if part.strip()]


def served(streams: Streams) -> bytes:
    found = streams[1].get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert isinstance(found, bytes)
    return found


# -- what is served ------------------------------------------------------------------------------------------------


async def test_large_bodies_come_and_go_whole(files: Files) -> None:
    body = os.urandom(8 * 2**20)
    async with serving(files.context()) as port, connected(port, files.client()) as streams:
        assert await asked(streams, "POST / HTTP/1.1", body) == body
        # The connection is good for more.
        assert await asked(streams, "POST / HTTP/1.1", b"x") == b"x"
        assert await asked(streams, "POST / HTTP/1.1", body[: 2**20]) == body[: 2**20]


async def test_versions_and_protocols(files: Files) -> None:
    async with serving(files.context()) as port:
        context = files.client()
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with connected(port, context) as streams:
            found = streams[1].get_extra_info("ssl_object")
            assert (found.version(), found.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
        context = files.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with connected(port, context) as streams:
            assert streams[1].get_extra_info("ssl_object").version() == "TLSv1.2"
            assert await asked(streams, "POST / HTTP/1.1", b"x") == b"x"
        context = files.client()
        context.set_alpn_protocols(["h2"])
        # A client that only offers others goes on without: Go's servers of Kubernetes refuse it, older ones do not.
        async with connected(port, context) as streams:
            assert streams[1].get_extra_info("ssl_object").selected_alpn_protocol() is None
        old = files.client()
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connected(port, old):
                pass


async def test_a_client_that_ends_without_a_word_hurts_nobody(files: Files) -> None:
    async with serving(files.context()) as port:
        for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", os.urandom(4096)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            if len(sent) > 4:
                # What is no TLS is answered with an alert, or not at all.
                assert len(await asyncio.wait_for(reader.read(), PATIENCE)) < 16
            writer.transport.abort()
        async with connected(port, files.client()) as streams:
            assert await asked(streams, "POST / HTTP/1.1", b"x") == b"x"


# -- files that change -----------------------------------------------------------------------------------------------


async def test_a_changed_certificate_is_for_new_connections(files: Files) -> None:
    async with serving(files.context()) as port, connected(port, files.client()) as before:
        first, second = served(before), files.issue()
        # Not before the next look.
        async with connected(port, files.client()) as streams:
            assert served(streams) == first
        files.now += 1.0
        async with connected(port, files.client()) as streams:
            assert served(streams) == second != first
        assert await asked(before, "POST / HTTP/1.1", b"still") == b"still"


async def test_another_authority(files: Files) -> None:
    other = trustme.CA()
    async with serving(files.context()) as port, connected(port, files.client()) as before:
        files.issue(other)
        files.now += 1.0
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connected(port, files.client()):
                pass
        async with connected(port, files.client(None, other)):
            pass
        assert await asked(before, "POST / HTTP/1.1", b"still") == b"still"


def _broken(files: Files) -> Iterator[tuple[str, str]]:
    """Files that cannot be used one after the other, and what is said of them."""
    good = files.certificate.read_bytes(), files.key.read_bytes()
    files.key.write_bytes(b"nonsense")
    yield "key", f"{files.key} has no private key"
    other = ec.generate_private_key(ec.SECP256R1())
    for encryption, said in (
        (serialization.NoEncryption(), f"{files.key} is not the key of the first certificate in {files.certificate}"),
        (serialization.BestAvailableEncryption(b"secret"), f"{files.key} is encrypted"),
    ):
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        files.key.write_bytes(other.private_bytes(*form, encryption))
        yield said, said
    files.key.write_bytes(good[1])
    files.certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    yield "certificate", f"{files.certificate} has no certificate"
    files.certificate.unlink()
    yield "gone", f"{files.certificate}: No such file or directory"
    files.certificate.write_bytes(good[0])
    if files.files.client_authorities:
        bundle = files.bundle.read_bytes()
        files.bundle.write_bytes(b"")
        yield "bundle", f"{files.bundle} has no certificate"
        files.bundle.write_bytes(bundle)


async def test_files_that_cannot_be_used_leave_what_was(files: Files) -> None:
    async with serving(files.context()) as port:
        async with connected(port, files.client()) as streams:
            first = served(streams)
        for _, said in _broken(files):
            with structlog.testing.capture_logs() as logged:
                for _ in range(2):
                    files.now += 1.0
                    async with connected(port, files.client()) as streams:
                        assert served(streams) == first
            # Once.
            [line] = [one for one in logged if one["log_level"] == "error"]
            assert said in line["reason"]
        second = files.issue()
        files.now += 1.0
        async with connected(port, files.client()) as streams:
            assert served(streams) == second


def test_files_that_cannot_be_used_at_the_start(files: Files) -> None:
    for _, said in _broken(files):
        with pytest.raises(BadTlsFile) as found:
            files.context()
        assert said in str(found.value)
        assert "\n" not in str(found.value)
    files.context()


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(BadTlsFile, match="Is a directory"):
        ServingContext(ServingFiles(tmp_path, tmp_path))


@pytest.mark.slow
async def test_watches_go_on_while_everything_is_rotated(asking: Files) -> None:
    """200 of them, while the certificate, its key, its authority and that of clients change again and again."""
    events = [0] * 200

    async def watch(at: int, port: int, context: ssl.SSLContext) -> None:
        async with connected(port, context) as (reader, writer):
            writer.write(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while await reader.readuntil(b"event\n"):
                events[at] += 1

    async with serving(asking.context()) as port:
        context = asking.client()
        async with asyncio.TaskGroup() as watching:
            tasks = [watching.create_task(watch(at, port, context)) for at in range(len(events))]
            while min(events) == 0:
                await asyncio.sleep(0.01)
            for turn in range(5):
                authority = asking.authority if turn % 2 else trustme.CA()
                asking.clients = trustme.CA()
                asking.clients.cert_pem.write_to_path(asking.bundle)
                issued = asking.issue(authority)
                asking.now += 1.0
                async with connected(port, asking.client(None, authority)) as streams:
                    assert served(streams) == issued
                seen = list(events)
                async with asyncio.timeout(PATIENCE):
                    while any(now < before + 3 for now, before in zip(events, seen, strict=True)):
                        await asyncio.sleep(0.01)
            assert not any(task.done() for task in tasks)
            for task in tasks:
                task.cancel()


# -- certificates of clients -------------------------------------------------------------------------------------------


def _write(path: Path, made: trustme.LeafCert) -> Path:
    made.private_key_and_cert_chain_pem.write_to_path(path)
    return path


def _chain(path: Path) -> list[str]:
    found = x509.load_pem_x509_certificates(path.read_bytes())
    return [one.public_bytes(serialization.Encoding.DER).hex() for one in found]


async def test_no_certificate_of_a_client_is_refused(asking: Files, tmp_path: Path) -> None:
    below = asking.clients.create_child_ca().create_child_ca()
    stranger = trustme.CA()
    made = {
        "good": asking.clients.issue_cert("jane"),
        "expired": asking.clients.issue_cert("jane", not_after=LONG_AGO),
        "of another authority": stranger.issue_cert("jane"),
        "with those between": below.issue_cert("jane"),
        "RSA": asking.clients.issue_cert("jane", key_type=trustme.KeyType.RSA),
    }
    async with serving(asking.context()) as port:
        for name, leaf in made.items():
            shown = _write(tmp_path / "client.pem", leaf)
            assert await shown_to(port, asking.client(shown)) == _chain(shown), name
            context = asking.client(shown)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            assert await shown_to(port, context) == _chain(shown), name
        assert len(_chain(_write(tmp_path / "client.pem", made["with those between"]))) == 3
        assert await shown_to(port, asking.client()) == []


@pytest.mark.parametrize("kind", ["weak RSA", "Ed25519", "of itself", "not yet valid"])
async def test_odd_certificates_come_through(asking: Files, tmp_path: Path, kind: str) -> None:
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey = ec.generate_private_key(
        ec.SECP256R1()
    )
    if kind == "weak RSA":
        key = rsa.generate_private_key(65537, 1024)
    elif kind == "Ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    begin = datetime.datetime(2099 if kind == "not yet valid" else 2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=36500))
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    shown = tmp_path / "client.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    shown.write_bytes(key.private_bytes(*form) + certificate.public_bytes(serialization.Encoding.PEM))
    async with serving(asking.context()) as port:
        context = asking.client()
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.load_cert_chain(shown)
        assert await shown_to(port, context) == _chain(shown)


async def test_nobody_is_asked_without_authorities(tmp_path: Path) -> None:
    files = Files(tmp_path, ask=False)
    shown = _write(tmp_path / "client.pem", files.clients.issue_cert("jane"))
    async with serving(files.context()) as port:
        assert await shown_to(port, files.client(shown)) == []


async def test_the_names_of_authorities_are_sent(asking: Files) -> None:
    """By them clients choose which of their certificates to show; Go's show none where none fits."""

    def names(port: int) -> list[bytes]:
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), socket.create_connection(("127.0.0.1", port)))
        connection.set_connect_state()
        connection.do_handshake()
        found = [one.der() for one in connection.get_client_ca_list()]
        connection.close()
        return found

    def name(authority: trustme.CA) -> bytes:
        return x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject.public_bytes()

    async with serving(asking.context()) as port:
        assert await asyncio.to_thread(names, port) == [name(asking.clients)]
        other = trustme.CA()
        asking.bundle.write_bytes(asking.clients.cert_pem.bytes() * 2 + other.cert_pem.bytes())
        asking.now += 1.0
        assert await asyncio.to_thread(names, port) == [name(asking.clients), name(other)]


def test_no_chain_without_a_connection() -> None:
    assert peer_chain(None) == ()


# -- slow clients ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def streaming(context: ssl.SSLContext, slow_clients: SlowClients) -> AsyncIterator[int]:
    """A server of 24 MiB, which looks after clients that take nothing of it."""

    async def handle(http: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        for at in range(384):
            await response.write(at.to_bytes(8, "big") * 8192)
        await response.write_eof()
        return response

    application = web.Application()
    application[SLOW_CLIENTS] = slow_clients
    application.router.add_get("/", handle)
    runner = Runner(application, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    bound = socket.create_server(("127.0.0.1", 0))
    await Site(runner, bound, context, 128).start()
    yield bound.getsockname()[1]
    await runner.cleanup()


class SlowClient:
    """A client with a small buffer, which takes what it is told to."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        plain.connect(("127.0.0.1", port))
        self._socket = context.wrap_socket(plain, server_hostname="localhost")
        self._socket.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

    def take(self) -> bytes:
        return self._socket.recv(2**20)

    def close(self) -> None:
        self._socket.close()


async def test_who_takes_nothing_is_left(files: Files) -> None:
    slow_clients = SlowClients(Counter("stalled", "", registry=CollectorRegistry()), 0.5, 0.05)
    async with streaming(files.context(), slow_clients) as port:
        client = await asyncio.to_thread(SlowClient, port, files.client())
        with contextlib.closing(client):
            await eventually(lambda: slow_clients._count._value.get() == 1)
            await eventually(lambda: not slow_clients._open)


async def test_who_takes_slowly_gets_all(files: Files) -> None:
    slow_clients = SlowClients(Counter("stalled", "", registry=CollectorRegistry()), 3.0, 0.05)
    async with streaming(files.context(), slow_clients) as port:
        client = await asyncio.to_thread(SlowClient, port, files.client())
        with contextlib.closing(client):
            taken, limit = 0, asyncio.get_running_loop().time() + 4.0
            while data := await asyncio.to_thread(client.take):
                taken += len(data)
                if taken < 8 * 2**20 and asyncio.get_running_loop().time() < limit:
                    await asyncio.sleep(0.02)
            assert taken > 384 * 64 * 1024
    assert slow_clients._count._value.get() == 0
