"""An authority of our own, for a service that is given no certificate: what it signs, and when that is renewed.

Below the data directory, in `pki/`, which only its user may read:

- `ca.crt`, `ca.key`: the authority. It is made once and kept, as clients trust it by its certificate.
- `server.pem`: the server's certificate and key, in one file, so that both change at once.
- `admin.pem`: a client certificate of the group `system:masters`, for whoever may read it: who started the service.
- `url`: where the service listens, for commands on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import os
import socket
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kubebraid.command.doors import Doors
from kubebraid.command.settings import Address, BadSetting
from query.identity import MASTERS

log = structlog.get_logger("kubebraid")

ADMIN = "kubebraid:admin"
_AUTHORITY_DAYS, _DAYS = 3650, 365
# What is left of it when a certificate is renewed; and seconds between two looks.
_LEFT, _LOOK_EVERY = timedelta(days=_DAYS / 3), 12 * 3600.0
# Clocks of clients may be a little behind.
_BEFORE = timedelta(hours=1)
# An address of no network (RFC 5737, RFC 3849): by which of ours it would be sent to is asked, nothing is sent.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


class OwnAuthority:
    """The certificates of one data directory, for a service that listens at an address.

    `names`: other host names and addresses that clients reach it by.

    Raises:
        BadSetting: what is there cannot be used, or the directory cannot be written.
    """

    def __init__(self, data: Path, address: Address, names: Sequence[str] = ()) -> None:
        self.directory = pki_of(data)
        self._address = address
        self._names = _names(address, names)
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._authority, self._key = self._read_or_make()
            self.renew()
            _write(self.directory / "url", f"{address.url}\n".encode())
        except OSError as cause:
            raise BadSetting(f"{cause.filename or self.directory}: {cause.strerror or type(cause).__name__}") from None

    @property
    def authority(self) -> Path:
        """The authority's certificate."""
        return self.directory / "ca.crt"

    @property
    def server(self) -> Path:
        """The server's certificate and its key."""
        return self.directory / "server.pem"

    @property
    def admin(self) -> Path:
        """The administrator's certificate and its key."""
        return self.directory / "admin.pem"

    def guards(self, doors: Doors) -> Doors:
        """The same doors with this certificate, where those who show one of this authority are known, too."""
        return dataclasses.replace(
            doors,
            certificate=self.server,
            key=self.server,
            client_authorities=(*doors.client_authorities, self.authority),
        )

    async def run(self) -> None:
        """Renews in time what ends, until cancelled; connections that are made then get what is new."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await asyncio.to_thread(self.renew)
            except OSError as cause:
                log.error("certificates cannot be renewed", reason=cause.strerror, directory=str(self.directory))

    def renew(self, now: datetime | None = None) -> None:
        """Makes what is missing, ends soon, is for other names or of another authority. Blocking. Raises OSError."""
        now = now or datetime.now(UTC)
        if self._authority.not_valid_after_utc - now < _LEFT:
            log.warning(
                "the authority of our own ends soon; remove its directory to make another, which clients have to trust",
                directory=str(self.directory),
                ends=self._authority.not_valid_after_utc.isoformat(),
            )
        if not self._good(self.server, now, self._names):
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubebraid")])
            self._issue(self.server, subject, ExtendedKeyUsageOID.SERVER_AUTH, now, self._names)
        if not self._good(self.admin, now, ()):
            subject = x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, MASTERS),
                    x509.NameAttribute(NameOID.COMMON_NAME, ADMIN),
                ]
            )
            self._issue(self.admin, subject, ExtendedKeyUsageOID.CLIENT_AUTH, now, ())

    def _read_or_make(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """The authority. Raises BadSetting, OSError."""
        key_file = self.directory / "ca.key"
        if not self.authority.exists() and not key_file.exists():
            key, certificate = _make_authority(datetime.now(UTC))
            # The key first: a certificate that is there has one.
            _write(key_file, _key_pem(key))
            _write(self.authority, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        try:
            certificate = x509.load_pem_x509_certificate(self.authority.read_bytes())
            found = serialization.load_pem_private_key(key_file.read_bytes(), None)
        except (ValueError, TypeError, FileNotFoundError):
            found = None
        if not isinstance(found, ec.EllipticCurvePrivateKey) or found.public_key() != certificate.public_key():
            raise BadSetting(
                f"{self.directory}: ca.crt and ca.key are not an authority that was made here; remove the directory to "
                "make another, which clients have to trust"
            )
        return certificate, found

    def _good(self, path: Path, now: datetime, names: Iterable[x509.GeneralName]) -> bool:
        """Whether a certificate is there that serves for a while."""
        try:
            content = path.read_bytes()
            found = x509.load_pem_x509_certificate(content)
            key = serialization.load_pem_private_key(content, None)
            found.verify_directly_issued_by(self._authority)
        except (OSError, ValueError, TypeError, InvalidSignature):
            return False
        try:
            has = set(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except x509.ExtensionNotFound:
            has = set()
        ends = min(found.not_valid_after_utc, self._authority.not_valid_after_utc)
        left = ends - now
        return (
            has == set(names)
            and key.public_key() == found.public_key()
            and found.not_valid_before_utc <= now
            and left > min(_LEFT, (found.not_valid_after_utc - found.not_valid_before_utc) / 3)
        )

    def _issue(
        self,
        path: Path,
        subject: x509.Name,
        usage: x509.ObjectIdentifier,
        now: datetime,
        names: Sequence[x509.GeneralName],
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._authority.subject, key, now, timedelta(days=_DAYS))
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        _write(path, certificate.public_bytes(serialization.Encoding.PEM) + _key_pem(key))
        log.info("made a certificate", path=str(path), ends=certificate.not_valid_after_utc.isoformat())


def pki_of(data: Path) -> Path:
    """Where the authority of a data directory is."""
    return data / "pki"


def _make_authority(now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    # Named by its time: clients may have several that they trust.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"kubebraid-ca@{int(now.timestamp())}")])
    certificate = (
        _builder(name, name, key, now, timedelta(days=_AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes a file as a whole: whoever reads it has the former or this one."""
    beside = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _names(address: Address, more: Sequence[str]) -> list[x509.GeneralName]:
    """By which names and addresses clients may reach a listening address, each once."""
    texts = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *more]
    if address.host in ("0.0.0.0", "::", ""):
        texts.extend(_own_addresses())
    else:
        texts.append(address.host)
    found: dict[x509.GeneralName, None] = {}
    for text in texts:
        try:
            found[x509.IPAddress(ipaddress.ip_address(text))] = None
        except ValueError:
            with contextlib.suppress(ValueError):
                # A machine's name may be none that a certificate can have.
                found[x509.DNSName(text.lower())] = None
    return list(found)


def _own_addresses() -> Iterable[str]:
    """The addresses by which this machine sends to others."""
    for family, elsewhere in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            yield probe.getsockname()[0]
