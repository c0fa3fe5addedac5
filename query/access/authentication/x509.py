"""Client certificates: their chains verified against a bundle of authorities, and the users whom they name.

k8s.io/apiserver pkg/authentication/request/x509, with the rules of Go's crypto/x509 for what a chain is. TLS itself
only asks for a certificate: one that does not hold is refused here, with 401. There are no revocation lists: an
authority is taken out of the file, or what the user may do is taken away.

OpenSSL verifies: `cryptography.x509.verification` has the rules of the web, by which certificates of Kubernetes'
clients have no names, and keys of Ed25519 are refused.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL.crypto import X509, Error, X509Store, X509StoreContext, X509StoreContextError, X509StoreFlags

from query.access.authentication.authenticator import CredentialRefused, RequestCredentials
from query.access.errors import BadAccessFile
from query.access.files import WatchedFile
from query.identity import Identity

CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
"""The key of `extra` with which credential a user was authenticated."""
UID = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")
"""The attribute of a subject that is a user's uid (KEP-4193's successor, gate AllowParsingUserUIDFromCertAuth)."""

_FOR_CLIENTS = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})
# Chains of which it is remembered whether they hold: until they end, or for so many seconds if they do not.
_REFUSED_FOR = 10.0
_REMEMBERED = 4096
# Certificates of one chain that are looked at.
_LONGEST = 16

# What cryptography raises for parts of certificates, when they are asked for.
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

Chain = tuple[bytes, ...]
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, eq=False)
class _Authorities:
    """A bundle: the certificates that chains may end at, roots or not."""

    certificates: tuple[X509, ...]


def _store(bundles: Iterable[_Authorities], now: float) -> X509Store:
    """What OpenSSL verifies against, at a time: a store's time can be set once, later ones do nothing."""
    store = X509Store()
    # As in Go: whatever stands in a bundle is trusted, whether it signed itself or not.
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    store.set_time(datetime.fromtimestamp(now, UTC))
    for bundle in bundles:
        for certificate in bundle.certificates:
            store.add_cert(certificate)
    return store


class VerifiedCertificate:
    """A client's certificate that was verified; what it says is read once."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self.common_name = _common_name(certificate)
        try:
            self._user: Identity | CredentialRefused | None = _user_of(certificate)
        except CredentialRefused as cause:
            self._user = cause

    def user(self) -> Identity | None:
        """Its user; None: it names none.

        Raises:
            CredentialRefused: its uid is none.
        """
        if isinstance(self._user, CredentialRefused):
            raise CredentialRefused(str(self._user))
        return self._user


class ClientAuthorities:
    """Files of authorities (PEM) that clients' certificates are verified against, read anew when they change."""

    def __init__(self, *paths: Path, look_every: float = 1.0, now: Callable[[], float] = time.time) -> None:
        """Reads the files. Blocking. `now`: seconds since 1970. Raises BadAccessFile."""
        self._files = [WatchedFile(path, _authorities, look_every=look_every) for path in paths]
        self._now = now
        self._of = tuple(file.latest for file in self._files)
        # By chain: its own certificate or why it does not hold, and until when that need not be found out again.
        self._verified: OrderedDict[Chain, tuple[VerifiedCertificate | str, float]] = OrderedDict()

    async def verified(self, peer_chain: Sequence[bytes]) -> VerifiedCertificate:
        """A client's own certificate, once a chain from it to an authority holds now, for clients.

        Raises:
            CredentialRefused: there is none.
        """
        authorities = tuple([await file.current() for file in self._files])
        if authorities != self._of:
            self._of = authorities
            self._verified.clear()
        now, chain = self._now(), tuple(peer_chain)
        remembered = self._verified.get(chain)
        if remembered is None or now >= remembered[1]:
            remembered = self._remember(chain, now)
        found = remembered[0]
        if isinstance(found, str):
            raise CredentialRefused(found)
        return found

    def _remember(self, chain: Chain, now: float) -> tuple[VerifiedCertificate | str, float]:
        try:
            leaf, ends = _verified(_store(self._of, now), chain)
            remembered: tuple[VerifiedCertificate | str, float] = (VerifiedCertificate(leaf), ends)
        except CredentialRefused as cause:
            # Whoever has a certificate for another purpose shows it with each request.
            remembered = (str(cause), now + _REFUSED_FOR)
        self._verified[chain] = remembered
        self._verified.move_to_end(chain)
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return remembered


class CertificateAuthenticator:
    """Users by their certificates: the common name is the user's, the organizations are the groups."""

    def __init__(self, authorities: ClientAuthorities) -> None:
        self._authorities = authorities

    async def authenticate(self, presented: RequestCredentials) -> Identity | None:
        """See `Authenticator`."""
        if not presented.peer_chain:
            return None
        return (await self._authorities.verified(presented.peer_chain)).user()


def _user_of(certificate: x509.Certificate) -> Identity | None:
    name = _common_name(certificate)
    if not name:
        return None
    groups = tuple(_texts(certificate, NameOID.ORGANIZATION_NAME))
    uids = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(UID)]
    if len(uids) > 1:
        raise CredentialRefused("a certificate's subject has more than one uid")
    if uids and (not isinstance(uids[0], str) or not uids[0]):
        raise CredentialRefused("a certificate's subject has a uid that is empty, or no text")
    fingerprint = f"X509SHA256={certificate.fingerprint(hashes.SHA256()).hex()}"
    return Identity(name, str(uids[0]) if uids else "", groups, ((CREDENTIAL_ID, (fingerprint,)),))


def _common_name(certificate: x509.Certificate) -> str:
    """The common name of a certificate's subject, the last of several as in Go; "" for none."""
    names = _texts(certificate, NameOID.COMMON_NAME)
    return names[-1] if names else ""


def authorities_of(content: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file. Raises BadAccessFile, without the file's name."""
    try:
        certificates = x509.load_pem_x509_certificates(content)
    except _UNREADABLE:
        raise BadAccessFile("no certificates in PEM; -----BEGIN CERTIFICATE----- and what follows is needed") from None
    try:
        # Only what can be read to its end: extensions are read when they are asked for.
        for certificate in certificates:
            _ = certificate.subject, certificate.extensions
    except _UNREADABLE:
        raise BadAccessFile("a certificate that cannot be read") from None
    return certificates


def _authorities(content: bytes) -> _Authorities:
    return _Authorities(tuple(X509.from_cryptography(one) for one in authorities_of(content)))


def _texts(certificate: x509.Certificate, attribute: x509.ObjectIdentifier) -> list[str]:
    found = certificate.subject.get_attributes_for_oid(attribute)
    return [one.value for one in found if isinstance(one.value, str)]


def _verified(store: X509Store, chain: Chain) -> tuple[x509.Certificate, float]:
    """A chain's first certificate, and until when the chain holds. Raises CredentialRefused."""
    if len(chain) > _LONGEST:
        raise CredentialRefused(f"a client's chain has more than {_LONGEST} certificates")
    try:
        leaf, *between = [x509.load_der_x509_certificate(one) for one in chain]
        context = X509StoreContext(
            store, X509.from_cryptography(leaf), [X509.from_cryptography(one) for one in between]
        )
    except (*_UNREADABLE, Error):
        raise CredentialRefused("a client's certificate cannot be read") from None
    try:
        certificates = [one.to_cryptography() for one in context.get_verified_chain()]
        reason = _unlike_go(certificates)
    except X509StoreContextError as cause:
        reason = str(cause)
    except _UNREADABLE:
        reason = "it cannot be read"
    if reason:
        raise CredentialRefused(f"verifying certificate SN={leaf.serial_number} failed: {reason}")
    return leaf, min(one.not_valid_after_utc.timestamp() for one in certificates)


def _unlike_go(chain: Sequence[x509.Certificate]) -> str:
    """Why Go's crypto/x509 would refuse a chain that OpenSSL, which is laxer in these, has verified; "" if it is one.

    Raises one of _UNREADABLE for what cannot be read.
    """
    for certificate in chain:
        extensions = certificate.extensions
        # Absent is any; and it holds all along the chain.
        usage = _extension(extensions, x509.ExtendedKeyUsage)
        if usage is not None and not _FOR_CLIENTS.intersection(usage):
            return "certificate specifies an incompatible key usage"
    for issuer in chain[1:]:
        basic = _extension(issuer.extensions, x509.BasicConstraints)
        if (basic is None or not basic.ca) and issuer.version is x509.Version.v3:
            return "parent certificate cannot sign this kind of certificate"
    for signed in chain[:-1]:
        digest = signed.signature_hash_algorithm
        if isinstance(digest, hashes.MD5 | hashes.SHA1):
            return f"insecure algorithm {digest.name}"
    return ""


def _extension(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
