"""A rig: one of each server and proxy, and the certificates that all rigs of a run share."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
from dataclasses import dataclass
from typing import Self

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.oracle.proxies import HttpProxy, SocksProxy
from tests.oracle.recorded import Notes
from tests.oracle.servers import Listening, Provider, Recorder

LOGIN = "walker:proxy-pass"


def own_address() -> str:
    """An address of this machine that is not loopback's: proxies of the environment apply to it. Empty without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Of a datagram socket this sends nothing (192.0.2.0/24 is for documentation: RFC 5737).
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        found = str(probe.getsockname()[0])
    return "" if found.startswith("127.") else found


def has_ipv6() -> bool:
    """Whether this machine has ::1."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate (with its chain) and its key, PEM."""

    certificate: bytes
    key: bytes

    def server(self, clients: trustme.CA | None = None, required: bool = False) -> ssl.SSLContext:
        """For a server that takes client certificates of an authority, if given."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Python loads certificates from files alone.
        with trustme.Blob(self.certificate + self.key).tempfile() as path:
            context.load_cert_chain(path)
        if clients is not None:
            clients.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        return context


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _self_signed(name: str, *names: x509.GeneralName) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    return Pair(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))


def _issued(authority: trustme.CA, *names: str, expired: bool = False) -> Pair:
    until = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) if expired else None
    made = authority.issue_cert(*names, not_after=until)
    return Pair(b"".join(blob.bytes() for blob in made.cert_chain_pems), made.private_key_pem.bytes())


class Certificates:
    """Authorities, servers' and clients' certificates of a run."""

    def __init__(self) -> None:
        names = ("localhost", "127.0.0.1", "::1", "*.example.test", "api.alpha.test", *filter(None, (own_address(),)))
        self.authority = trustme.CA()
        self.other_authority = trustme.CA()
        self.intermediate = self.authority.create_child_ca()
        self.clients = trustme.CA()
        self._clients: dict[str, Pair] = {}
        self.server = _issued(self.authority, *names)
        self.other = _issued(self.other_authority, "other.test")
        self.chained = _issued(self.intermediate, *names)
        self.expired = _issued(self.authority, *names, expired=True)
        self.self_signed = _self_signed("self", x509.DNSName("localhost"), x509.DNSName("self.example.test"))
        self.nameless = _self_signed("localhost")

    @staticmethod
    def pem(authority: trustme.CA) -> bytes:
        """An authority's certificate."""
        return authority.cert_pem.bytes()

    def client(self, name: str) -> Pair:
        """A client certificate with this common name."""
        if name not in self._clients:
            made = self.clients.issue_cert(common_name=name)
            self._clients[name] = Pair(made.cert_chain_pems[0].bytes(), made.private_key_pem.bytes())
        return self._clients[name]


class Rig:
    """Servers and proxies of one case at a time; `notes` has what they saw."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.notes = Notes()
        self.address = own_address()
        self.ipv6 = has_ipv6()
        notes, clients = self.notes, certificates.clients
        of: list[Listening] = [
            Recorder("plain", notes),
            Recorder("tls", notes, certificates.server.server(clients)),
            Recorder("tls-strict", notes, certificates.server.server(clients, required=True)),
            Recorder("tls-self", notes, certificates.self_signed.server(clients)),
            Recorder("tls-chain", notes, certificates.chained.server(clients)),
            Recorder("tls-other", notes, certificates.other.server(clients)),
            Recorder("tls-expired", notes, certificates.expired.server(clients)),
            Recorder("tls-nameless", notes, certificates.nameless.server(clients)),
            HttpProxy("proxy", notes),
            HttpProxy("proxy-login", notes, login=LOGIN),
            HttpProxy("proxy-tls", notes, certificates.server.server(clients)),
            HttpProxy("proxy-tls-other", notes, certificates.other.server(clients)),
            SocksProxy("socks", notes),
            SocksProxy("socks-login", notes, login=LOGIN),
        ]
        if self.address:
            of.append(Recorder("open", notes, host=self.address))
            of.append(Recorder("open-tls", notes, certificates.server.server(clients), host=self.address))
        if self.ipv6:
            of.append(Recorder("plain6", notes, host="::1"))
            of.append(Recorder("tls6", notes, certificates.server.server(clients), host="::1"))
        self.provider = Provider("idp", notes)
        self.tls_provider = Provider("idp", notes, certificates.server.server(clients))
        self._listening = {one.name: one for one in of}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        for one in (*self._listening.values(), self.provider, self.tls_provider):
            await one.start()
            self._stack.push_async_callback(one.stop)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def port(self, name: str) -> int:
        """The port of a server or proxy."""
        return self._listening[name].port
