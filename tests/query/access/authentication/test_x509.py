"""Client certificates: which chains hold, as Go's crypto/x509 has it, and whom they name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import NameOID
from multidict import CIMultiDict

from query.access.authentication.authenticator import CredentialRefused, RequestCredentials
from query.access.authentication.x509 import UID, CertificateAuthenticator, ClientAuthorities
from query.access.errors import BadAccessFile
from query.identity import Identity
from tests.query.access.authentication.certificates import (
    ANY,
    CLIENT,
    SERVER,
    Issued,
    Key,
    authority,
    elliptic,
    issue,
    key_usage,
    named,
)

ROOT = authority()
OTHER = authority("another authority")


def authenticator(path: Path, *roots: Issued, now: Callable[[], float] | None = None) -> CertificateAuthenticator:
    path.write_bytes(b"".join(one.pem for one in roots))
    authorities = ClientAuthorities(path, look_every=0.0, **({} if now is None else {"now": now}))
    return CertificateAuthenticator(authorities)


def presented(*chain: Issued) -> RequestCredentials:
    return RequestCredentials(CIMultiDict(), tuple(one.der for one in chain))


async def user(path: Path, *chain: Issued, roots: Sequence[Issued] = (ROOT,)) -> Identity | None:
    return await authenticator(path / "ca.pem", *roots).authenticate(presented(*chain))


async def test_the_common_name_is_the_user_and_the_organizations_are_the_groups(tmp_path: Path) -> None:
    jane = issue(named("jane", ["dev", "system:masters", "dev"]), ROOT)
    fingerprint = "X509SHA256=" + hashlib.sha256(jane.der).hexdigest()
    assert await user(tmp_path, jane) == Identity(
        "jane",
        groups=("dev", "system:masters", "dev"),
        extra=(("authentication.kubernetes.io/credential-id", (fingerprint,)),),
    )


async def test_without_a_certificate_or_without_a_name_there_is_no_opinion(tmp_path: Path) -> None:
    assert await user(tmp_path) is None
    assert await user(tmp_path, issue(named("", ["dev"]), ROOT)) is None


async def test_the_last_of_several_common_names_counts(tmp_path: Path) -> None:
    twice = issue(named("first", (), [x509.NameAttribute(NameOID.COMMON_NAME, "last")]), ROOT)
    found = await user(tmp_path, twice)
    assert found is not None
    assert found.name == "last"


async def test_a_uid_is_an_attribute_of_the_subject(tmp_path: Path) -> None:
    found = await user(tmp_path, issue(named("jane", (), [x509.NameAttribute(UID, "0815")]), ROOT))
    assert found is not None
    assert found.uid == "0815"
    twice = [x509.NameAttribute(UID, "1"), x509.NameAttribute(UID, "2")]
    with pytest.raises(CredentialRefused, match="more than one uid"):
        await user(tmp_path, issue(named("jane", (), twice), ROOT))


@pytest.mark.parametrize(
    "make",
    [
        elliptic,
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ],
    ids=["EC", "Ed25519", "RSA"],
)
async def test_keys_of_all_kinds_hold(tmp_path: Path, make: Callable[[], Key]) -> None:
    root = authority("of that kind", key=make())
    found = await user(tmp_path, issue(named("jane"), root, key=make()), roots=[root])
    assert found is not None


@pytest.mark.parametrize("usages", [None, (CLIENT,), (ANY,), (SERVER, CLIENT)])
async def test_usages_of_clients_hold(tmp_path: Path, usages: Sequence[x509.ObjectIdentifier] | None) -> None:
    assert await user(tmp_path, issue(named("jane"), ROOT, usages=usages)) is not None


async def test_a_certificate_for_servers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CredentialRefused, match="incompatible key usage"):
        await user(tmp_path, issue(named("jane"), ROOT, usages=(SERVER,)))


async def test_intermediates_come_with_the_client(tmp_path: Path) -> None:
    between = authority("between", ROOT)
    jane = issue(named("jane"), between)
    assert await user(tmp_path, jane, between) is not None
    assert await user(tmp_path, jane, OTHER, between) is not None
    with pytest.raises(CredentialRefused):
        await user(tmp_path, jane)
    assert await user(tmp_path, jane, roots=[OTHER, between]) is not None


async def test_authorities_for_servers_alone_are_no_authorities_of_clients(tmp_path: Path) -> None:
    between = authority("between", ROOT, usages=(SERVER,))
    with pytest.raises(CredentialRefused, match="incompatible key usage"):
        await user(tmp_path, issue(named("jane"), between), between)
    root = authority("a root for servers", usages=(SERVER,))
    with pytest.raises(CredentialRefused, match="incompatible key usage"):
        await user(tmp_path, issue(named("jane"), root), roots=[root])


async def test_what_may_not_sign_does_not_sign(tmp_path: Path) -> None:
    leaf = issue(named("a client", ["system:masters"]), ROOT)
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("forged"), leaf), leaf)
    without = issue(named("no constraints"), ROOT, basic=False, usages=None)
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("forged"), without), without)
    unsigning = authority("may not sign", ROOT, key_usage=key_usage(signs_certificates=False))
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("forged"), unsigning), unsigning)
    signing = authority("may sign", ROOT, key_usage=key_usage(signs_certificates=True))
    assert await user(tmp_path, issue(named("jane"), signing), signing) is not None


async def test_lengths_of_paths_are_kept(tmp_path: Path) -> None:
    root = authority("of clients alone", path_length=0)
    between = authority("between", root)
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("jane"), between), between, roots=[root])
    assert await user(tmp_path, issue(named("jane"), root), roots=[root]) is not None


async def test_another_authority_with_the_same_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("jane"), OTHER))
    namesake = authority()
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("jane"), namesake))
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("jane"), namesake), namesake)
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("jane")))


async def test_a_certificate_that_stands_in_the_bundle_holds_by_itself(tmp_path: Path) -> None:
    own = issue(named("jane"))
    assert await user(tmp_path, own, roots=[ROOT, own]) is not None
    server = issue(named("jane"), usages=(SERVER,))
    with pytest.raises(CredentialRefused, match="usage"):
        await user(tmp_path, server, roots=[server])
    old = issue(named("jane"), begins=-100.0, ends=-10.0)
    with pytest.raises(CredentialRefused, match="expired"):
        await user(tmp_path, old, roots=[old])


async def test_certificates_hold_in_their_time(tmp_path: Path) -> None:
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("jane"), ROOT, ends=-1.0))
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("jane"), ROOT, begins=600.0))
    old = authority("old", begins=-3600.0, ends=-60.0)
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("jane"), old), roots=[old])
    between = authority("between", ROOT, begins=-3600.0, ends=-60.0)
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("jane"), between), between)


async def test_a_remembered_certificate_ends_with_its_time(tmp_path: Path) -> None:
    jane = issue(named("jane"), ROOT, ends=600.0)
    ends = jane.certificate.not_valid_after_utc.timestamp()
    now = [ends - 3.0]
    one = authenticator(tmp_path / "ca.pem", ROOT, now=lambda: now[0])
    assert await one.authenticate(presented(jane)) is not None
    now[0] = ends - 1.0
    assert await one.authenticate(presented(jane)) is not None
    now[0] = ends + 1.5
    with pytest.raises(CredentialRefused):
        await one.authenticate(presented(jane))


async def test_unknown_critical_extensions_are_refused(tmp_path: Path) -> None:
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.57683.99"), b"\x05\x00")
    assert await user(tmp_path, issue(named("jane"), ROOT, more=[(odd, False)])) is not None
    with pytest.raises(CredentialRefused):
        await user(tmp_path, issue(named("jane"), ROOT, more=[(odd, True)]))


@pytest.mark.parametrize("chain", [(b"",), (b"0\x00",), (b"no certificate",), (ROOT.der[:-1],)])
async def test_what_is_no_certificate_is_refused(tmp_path: Path, chain: tuple[bytes, ...]) -> None:
    with pytest.raises(CredentialRefused):
        await authenticator(tmp_path / "ca.pem", ROOT).authenticate(RequestCredentials(CIMultiDict(), chain))


async def test_a_changed_signature_is_refused(tmp_path: Path) -> None:
    der = bytearray(issue(named("jane"), ROOT).der)
    der[-5] ^= 1
    with pytest.raises(CredentialRefused):
        await authenticator(tmp_path / "ca.pem", ROOT).authenticate(RequestCredentials(CIMultiDict(), (bytes(der),)))


async def test_the_bundle_is_read_anew_and_a_bad_one_keeps_the_old(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    one = authenticator(path, ROOT)
    of_root, of_other = issue(named("jane"), ROOT), issue(named("joe"), OTHER)
    assert await one.authenticate(presented(of_root)) is not None
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    assert await one.authenticate(presented(of_root)) is not None
    path.write_bytes(OTHER.pem)
    with pytest.raises(CredentialRefused):
        await one.authenticate(presented(of_root))
    assert await one.authenticate(presented(of_other)) is not None
    path.unlink()
    assert await one.authenticate(presented(of_other)) is not None
    path.write_bytes(ROOT.pem + OTHER.pem)
    assert await one.authenticate(presented(of_root)) is not None


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_bundle_without_certificates_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(BadAccessFile, match=r"ca\.pem: no certificates"):
        ClientAuthorities(path)
    with pytest.raises(BadAccessFile, match="No such file"):
        ClientAuthorities(tmp_path / "away.pem")
