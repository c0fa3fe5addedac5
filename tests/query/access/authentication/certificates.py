"""Certificates of all kinds for tests: good ones, and those that each break one rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


def elliptic() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def named(common: str, organizations: Sequence[str] = (), more: Sequence[x509.NameAttribute[str]] = ()) -> x509.Name:
    organized = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
    commons = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
    return x509.Name([*organized, *commons, *more])


def issue(
    subject: x509.Name,
    issuer: Issued | None = None,
    *,
    key: Key | None = None,
    authority: bool = False,
    basic: bool = True,
    path_length: int | None = None,
    usages: Sequence[x509.ObjectIdentifier] | None = (CLIENT,),
    key_usage: x509.KeyUsage | None = None,
    begins: float = -3600.0,
    ends: float = 3600.0,
    more: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Issued:
    """A certificate; without an issuer it is its own. `begins` and `ends` in seconds from now."""
    own = key or elliptic()
    signer = own if issuer is None else issuer.key
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(seconds=begins))
        .not_valid_after(now + timedelta(seconds=ends))
    )
    if authority or basic:
        builder = builder.add_extension(x509.BasicConstraints(authority, path_length), critical=True)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    for extension, critical in more:
        builder = builder.add_extension(extension, critical)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signer, algorithm), own)


def authority(name: str = "an authority", issuer: Issued | None = None, **options: object) -> Issued:
    """A certificate that may sign others."""
    return issue(named(name), issuer, authority=True, **{"usages": None, **options})  # type: ignore[arg-type]


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
