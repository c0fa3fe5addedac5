"""Bearer tokens of headers and of WebSockets' subprotocols."""

from __future__ import annotations

import base64

import pytest
from multidict import CIMultiDict

from query.access.authentication.authenticator import CredentialRefused, RequestCredentials
from query.access.authentication.bearer import IGNORED, BearerAuthenticator, WebSocketAuthenticator
from query.identity import Identity

JANE = Identity("jane")


class Owns:
    """An authenticator of tokens that knows one."""

    def __init__(self, token: str) -> None:
        self.token = token

    async def authenticate_token(self, token: str) -> Identity | None:
        return JANE if token == self.token else None


def header(value: str) -> RequestCredentials:
    return RequestCredentials(CIMultiDict({"Authorization": value}))


@pytest.mark.parametrize("value", ["Bearer t", "bearer t", "BEARER t ", "  Bearer t", "Bearer t and more"])
async def test_the_second_word_is_the_token(value: str) -> None:
    assert await BearerAuthenticator(Owns("t")).authenticate(header(value)) == JANE


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic t", "t", "Bearer\tt"])
async def test_what_is_no_bearer_token_says_nothing(value: str) -> None:
    presented = header(value)
    assert await BearerAuthenticator(Owns("t")).authenticate(presented) is None
    assert presented.warnings == []


async def test_a_token_after_two_spaces_is_ignored_with_a_warning() -> None:
    presented = header("Bearer  t")
    assert await BearerAuthenticator(Owns("t")).authenticate(presented) is None
    assert presented.warnings == [IGNORED]


async def test_a_token_that_no_one_knows_is_refused() -> None:
    with pytest.raises(CredentialRefused, match="invalid bearer token"):
        await BearerAuthenticator(Owns("t")).authenticate(header("Bearer u"))


def encoded(token: bytes) -> str:
    return "base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(token).decode().rstrip("=")


def socket(*protocols: str, upgrade: str = "websocket") -> RequestCredentials:
    headers = [("Connection", "keep-alive, Upgrade"), ("Upgrade", upgrade)]
    return RequestCredentials(CIMultiDict([*headers, *(("Sec-WebSocket-Protocol", one) for one in protocols)]))


TOKEN = "a tökén??>>"


@pytest.mark.parametrize(
    "protocols",
    [
        (f"{encoded(TOKEN.encode())}, v4.channel.k8s.io",),
        (f"v4.channel.k8s.io,{encoded(TOKEN.encode())}",),
        ("v4.channel.k8s.io", encoded(TOKEN.encode())),
    ],
)
async def test_a_websocket_has_its_token_among_its_protocols(protocols: tuple[str, ...]) -> None:
    assert await WebSocketAuthenticator(Owns(TOKEN)).authenticate(socket(*protocols)) == JANE


async def test_what_asks_for_no_websocket_or_has_no_token_says_nothing() -> None:
    one = WebSocketAuthenticator(Owns(TOKEN))
    protocols = ("v4.channel.k8s.io", encoded(TOKEN.encode()))
    assert await one.authenticate(socket(*protocols, upgrade="SPDY/3.1")) is None
    assert (
        await one.authenticate(RequestCredentials(CIMultiDict({"Sec-WebSocket-Protocol": ",".join(protocols)}))) is None
    )
    assert await one.authenticate(socket()) is None
    assert await one.authenticate(socket("v4.channel.k8s.io")) is None
    assert await one.authenticate(socket("v4.channel.k8s.io", encoded(b""))) is None


@pytest.mark.parametrize(
    ("protocols", "said"),
    [
        ((encoded(TOKEN.encode()),), "missing additional subprotocol"),
        (("v4", encoded(b"a"), encoded(b"a")), "multiple"),
        (("v4", encoded(b"\xff")), "invalid base64.bearer.authorization token"),
        (("v4", encoded(b"a") + "=="), "token encoding"),
        (("v4", encoded(b"a") + "+"), "token encoding"),
        (("v4", encoded(b"") + "A"), "token encoding"),
        (("v4", encoded(b"another")), "invalid bearer token"),
    ],
)
async def test_what_is_no_token_is_refused(protocols: tuple[str, ...], said: str) -> None:
    with pytest.raises(CredentialRefused, match=said):
        await WebSocketAuthenticator(Owns(TOKEN)).authenticate(socket(*protocols))
