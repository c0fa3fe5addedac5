"""A front proxy's headers: whom they name, from which proxies they are taken, and that none get past others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from query.access.authentication.authenticator import CredentialRefused, RequestCredentials
from query.access.authentication.front_proxy import (
    FrontProxyAuthenticator,
    FrontProxyHeaders,
    named_by,
    naming,
)
from query.access.authentication.identity_names import extra_key
from query.access.authentication.x509 import ClientAuthorities
from query.identity import Identity
from tests.query.access.authentication.certificates import Issued, authority, issue, named

ROOT = authority("of front proxies")
PROXY = issue(named("front-proxy-client"), ROOT)
JANE = {"X-Remote-User": "jane", "X-Remote-Group": "dev"}


def authenticator(directory: Path, *allowed: str) -> FrontProxyAuthenticator:
    path = directory / "proxy-ca.pem"
    path.write_bytes(ROOT.pem)
    return FrontProxyAuthenticator(ClientAuthorities(path), allowed)


def presented(headers: dict[str, str], *chain: Issued) -> RequestCredentials:
    return RequestCredentials(CIMultiDict(headers), tuple(one.der for one in chain))


async def test_a_proxy_with_a_certificate_names_the_user(tmp_path: Path) -> None:
    expected = Identity("jane", groups=("dev",))
    assert await authenticator(tmp_path).authenticate(presented(JANE, PROXY)) == expected
    assert await authenticator(tmp_path, "a", "front-proxy-client").authenticate(presented(JANE, PROXY)) == expected


async def test_without_a_certificate_headers_say_nothing(tmp_path: Path) -> None:
    assert await authenticator(tmp_path).authenticate(presented(JANE)) is None


async def test_without_a_user_there_is_no_opinion(tmp_path: Path) -> None:
    for headers in ({}, {"X-Remote-User": ""}, {"X-Remote-Group": "system:masters"}):
        assert await authenticator(tmp_path).authenticate(presented(headers, PROXY)) is None


async def test_who_is_no_proxy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CredentialRefused, match="not among those that are allowed"):
        await authenticator(tmp_path, "another").authenticate(presented(JANE, PROXY))
    other = issue(named("front-proxy-client"), authority("another"))
    with pytest.raises(CredentialRefused, match="verifying certificate"):
        await authenticator(tmp_path).authenticate(presented(JANE, other))


def test_headers_are_read_as_kube_apiserver_does() -> None:
    headers = CIMultiDict(
        [
            ("X-User", ""),
            ("x-remote-user", "jane"),
            ("X-Remote-User", "joe"),
            ("X-Remote-Group", "b"),
            ("X-Remote-Group", ""),
            ("X-Remote-Group", "a,c"),
            ("X-Group", "d"),
            ("X-Remote-Uid", "42"),
            ("X-Remote-Extra-Acme.com%2FProject", "one"),
            ("x-remote-extra-acme.com%2fproject", "two"),
            ("X-Remote-Extra-100%", "kept"),
            ("X-Remote-Extra-a%2fb%zz", ""),
        ]
    )
    names = FrontProxyHeaders(users=("X-User", "X-Remote-User"), groups=("X-Group", "X-Remote-Group"))
    assert named_by(headers, names) == Identity(
        "jane",
        "42",
        ("d", "b", "a,c"),
        (("100%", ("kept",)), ("a%2fb%zz", ("",)), ("acme.com/project", ("one", "two"))),
    )


@pytest.mark.parametrize(
    ("encoded", "key"),
    [("Scopes", "scopes"), ("A%2FB", "a/b"), ("%C3%A4", "ä"), ("a%2", "a%2"), ("a%", "a%"), ("", "")],
)
def test_keys_of_extra_are_decoded(encoded: str, key: str) -> None:
    assert extra_key(encoded) == key


_KEYS = st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda key: key == key.lower())
_VALUES = st.lists(st.text("abc/:", max_size=4), min_size=1, max_size=3).map(tuple)


@given(
    st.text("abc:", min_size=1),
    st.text("01"),
    st.lists(st.text("ab:,", min_size=1)).map(tuple),
    st.dictionaries(_KEYS, _VALUES, max_size=3).map(lambda extra: tuple(sorted(extra.items()))),
)
def test_what_one_side_names_the_other_reads(
    name: str, uid: str, groups: tuple[str, ...], extra: tuple[tuple[str, tuple[str, ...]], ...]
) -> None:
    who = Identity(name, uid, groups, extra)
    assert named_by(naming(who)) == who
