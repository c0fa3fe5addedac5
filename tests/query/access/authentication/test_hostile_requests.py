"""Whatever requests present: an identity, or a refusal of one line that tells no secret; never a failure."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from query.access.authentication.authenticator import (
    Anonymous,
    Authentication,
    RequestCredentials,
    TokenUnion,
)
from query.access.authentication.bearer import BearerAuthenticator, WebSocketAuthenticator
from query.access.authentication.front_proxy import FrontProxyAuthenticator
from query.access.authentication.impersonation import wanted_user
from query.access.authentication.oidc import IssuedTokens
from query.access.authentication.token_cache import TokenCache
from query.access.authentication.token_file import HashedTokens
from query.access.authentication.x509 import CertificateAuthenticator, ClientAuthorities
from query.http.passthrough import Upstream, identified
from query.http.status import ApiError
from query.identity import Identity
from tests.query.access.authentication.certificates import authority, issue, named

CLIENTS, PROXIES = authority("of clients"), authority("of proxies")
JANE = issue(named("jane", ["dev"]), CLIENTS)
PROXY = issue(named("proxy"), PROXIES)
ISSUER = "https://issuer.example"
TOKEN = "a-good-token"

Answer = tuple[Identity | None, ApiError | None]


Ask = Callable[[RequestCredentials], Answer]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks all kinds of authenticators, in one event loop."""
    directory = tmp_path_factory.mktemp("access")
    (directory / "clients.pem").write_bytes(CLIENTS.pem)
    (directory / "proxies.pem").write_bytes(PROXIES.pem)
    (directory / "tokens").write_text(f"{hashlib.sha256(TOKEN.encode()).hexdigest()},joe,\n")
    issued = _issued(directory)
    tokens = TokenCache(TokenUnion([HashedTokens(directory / "tokens"), issued]))
    authentication = Authentication(
        [
            FrontProxyAuthenticator(ClientAuthorities(directory / "proxies.pem"), ["proxy"]),
            CertificateAuthenticator(ClientAuthorities(directory / "clients.pem")),
            BearerAuthenticator(tokens),
            WebSocketAuthenticator(tokens),
        ],
        Anonymous(True, frozenset({"/livez"})),
    )
    with asyncio.Runner() as runner:
        yield lambda presented: runner.run(_asked(authentication, presented))
        runner.run(tokens.close())
        runner.run(issued.close())


def _issued(directory: Path) -> IssuedTokens:
    configuration = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        # No issuer that is asked: its tokens are refused before, by what they say of themselves.
        "jwt": [
            {
                "issuer": {"url": ISSUER, "discoveryURL": "https://localhost:1/d", "audiences": ["a"]},
                "claimMappings": {"username": {"claim": "sub", "prefix": ""}},
            }
        ],
    }
    (directory / "authentication.yaml").write_text(json.dumps(configuration))
    return IssuedTokens(directory / "authentication.yaml", patience=0.5)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


_TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=0x24FF, codec="utf-8"), max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_HEAD = st.fixed_dictionaries({}, optional={"alg": st.sampled_from(["none", "HS256", "RS256"]) | _JSON, "kid": _JSON})
_CLAIMS = st.fixed_dictionaries({}, optional={"iss": st.just(ISSUER) | _JSON, "aud": _JSON, "exp": _JSON, "sub": _JSON})
_TOKENS = st.one_of(
    st.just(TOKEN),
    _TEXT,
    st.builds(lambda *parts: ".".join(parts), (_HEAD | _JSON).map(part), (_CLAIMS | _JSON).map(part), _TEXT),
)
_BEARER = st.builds(
    lambda scheme, space, token: scheme + space + token,
    st.sampled_from(["Bearer", "bearer", "Basic", ""]),
    st.sampled_from([" ", "  ", ""]),
    _TOKENS,
)
_PREFIX = "base64url.bearer.authorization.k8s.io."
_PROTOCOL = st.lists(
    st.one_of(
        st.sampled_from(["v4.channel.k8s.io", "", " "]),
        _TEXT.map(lambda text: _PREFIX + text),
        _TOKENS.map(lambda token: _PREFIX + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")),
    ),
    max_size=3,
).map(",".join)
_HEADERS = st.lists(
    st.one_of(
        st.tuples(st.just("Authorization"), _BEARER),
        st.tuples(st.just("Sec-WebSocket-Protocol"), _PROTOCOL),
        st.tuples(st.sampled_from(["X-Remote-User", "X-Remote-Group", "X-Remote-Uid", "X-Remote-Extra-a%2"]), _TEXT),
        st.tuples(st.sampled_from(["Impersonate-User", "Impersonate-Group", "Impersonate-Extra-%zz"]), _TEXT),
        st.just(("Upgrade", "websocket")),
        st.just(("Connection", "Upgrade")),
    ),
    max_size=6,
)
_CHAINS = st.one_of(
    st.just(()),
    st.just((JANE.der,)),
    st.just((PROXY.der,)),
    st.just((JANE.der, PROXIES.der)),
    st.lists(st.binary(max_size=40), max_size=3).map(tuple),
    st.builds(lambda at, bit: (_flipped(JANE.der, at, bit),), st.integers(0, len(JANE.der) - 1), st.integers(0, 7)),
)


def _flipped(der: bytes, at: int, bit: int) -> bytes:
    changed = bytearray(der)
    changed[at] ^= 1 << bit
    return bytes(changed)


@settings(max_examples=400, deadline=None)
@given(headers=_HEADERS, chain=_CHAINS, path=st.sampled_from(["/livez", "/api", "/livez/"]))
def test_requests_are_answered(ask: Ask, headers: list[tuple[str, str]], chain: tuple[bytes, ...], path: str) -> None:
    presented = RequestCredentials(CIMultiDict(headers), chain, path)
    who, refusal = ask(presented)
    if refusal is not None:
        assert (refusal.code, refusal.message, refusal.details) == (401, "Unauthorized", {})
        said = str(refusal.__cause__ or "")
        assert "\n" not in said
        assert len(said) < 2000
    if who is not None:
        users = {value for name, value in headers if name == "X-Remote-User"} if chain == (PROXY.der,) else set()
        assert who.name in {"jane", "joe", "proxy", "system:anonymous"} | users
        assert who.name != "system:anonymous" or path == "/livez"
        assert "system:masters" not in who.groups or chain == (PROXY.der,)
    kept = identified(CIMultiDict(headers), Upstream("http://a", identity=()))
    assert not any(name.lower().startswith(("authorization", "impersonate-", "x-remote-")) for name in kept)
    assert not any("base64url.bearer" in value for name, value in kept.items() if name.startswith("Sec-"))
    with contextlib.suppress(ApiError):
        wanted_user(presented.headers)


async def _asked(authentication: Authentication, presented: RequestCredentials) -> Answer:
    try:
        return await authentication.who(presented), None
    except ApiError as error:
        return None, error
