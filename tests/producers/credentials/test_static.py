"""Headers that do not change: what is sent, what cannot be sent, and that no message shows it."""

from __future__ import annotations

import base64

import pytest

from producers.credentials.credential import BadCredentials
from producers.credentials.static import basic, bearer, impersonation_headers
from producers.kubeconfig.entries import Impersonation


def test_a_token_is_sent_as_it_is() -> None:
    assert bearer(" spaces\tand a tab ").headers == (("Authorization", "Bearer  spaces\tand a tab "),)
    assert bearer("zażółć").headers == (("Authorization", "Bearer zażółć"),)


@pytest.mark.parametrize("tail", ["\n", "\r\n", "\0", "\x7f", "\x1b[31m", "\ud800"])
def test_what_no_header_can_have_is_refused_and_not_shown(tail: str) -> None:
    with pytest.raises(BadCredentials) as refused:
        bearer(f"s3cret{tail}")
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert "\n" not in str(refused.value)


def test_a_line_break_at_the_end_is_named() -> None:
    with pytest.raises(BadCredentials, match="such as a line break at its end"):
        bearer("token\n")


@pytest.mark.parametrize(
    ("username", "password", "pair"), [("ann", "p:w", "ann:p:w"), ("ann", "", "ann:"), ("ä", "\n", "ä:\n")]
)
def test_basic(username: str, password: str, pair: str) -> None:
    ((name, value),) = basic(username, password).headers
    assert name == "Authorization"
    assert base64.b64decode(value.removeprefix("Basic ")).decode() == pair


def test_impersonation_as_client_go_writes_it() -> None:
    acts_as = Impersonation("jane", "u-1", ("ops", "dev", ""), (("acme.io/Scope", ("a", "ü")), ("50%|é", ("b",))))
    assert impersonation_headers(acts_as) == (
        ("Impersonate-User", "jane"),
        ("Impersonate-Uid", "u-1"),
        ("Impersonate-Group", "ops"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", ""),
        ("Impersonate-Extra-acme.io%2FScope", "a"),
        ("Impersonate-Extra-acme.io%2FScope", "ü"),
        ("Impersonate-Extra-50%25|%C3%A9", "b"),
    )
    assert impersonation_headers(Impersonation()) == ()


@pytest.mark.parametrize(
    "acts_as",
    [
        Impersonation(groups=("ops",)),
        Impersonation(uid="u-1"),
        Impersonation(extra=(("a", ("b",)),)),
        Impersonation("jane\n"),
        Impersonation("jane", groups=("a\0",)),
        Impersonation("jane", extra=(("a", ("b\r",)),)),
    ],
)
def test_impersonation_that_is_refused(acts_as: Impersonation) -> None:
    with pytest.raises(BadCredentials):
        impersonation_headers(acts_as)
