"""ID tokens of issuers: good ones, forged ones, and issuers that are away, slow, lie, or change their keys."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme
from joserfc.jwk import ECKey, OctKey, RSAKey

from query.access.authentication.authenticator import CredentialRefused
from query.access.authentication.jwt_keys import DEFAULT_KEY_TIMING, KeyTiming
from query.access.authentication.jwt_tokens import ALGORITHMS
from query.access.authentication.oidc import IssuedTokens
from query.access.errors import AccessUnavailable, BadAccessFile
from query.access.expressions import ExpressionFailed
from query.identity import Identity
from tests.query.access.authentication import issuer as issuers
from tests.query.access.authentication.issuer import CA_PEM, Issuer, rsa, signed_with_text, unsigned

KEY, OTHER = rsa("one"), rsa("two")


class Clocks:
    """Time that tests move: of tokens (`now`) and of intervals."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def clock(self) -> float:
        return time.monotonic() + self.ahead


def entry(url: str, **changes: Any) -> dict[str, Any]:
    """An issuer's part of the file. `changes`: of `issuer`, and others whole."""
    of_issuer = {"url": url, "certificateAuthority": CA_PEM, "audiences": ["kubebraid"]}
    whole = {"issuer": of_issuer, "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}}}
    for name, value in changes.items():
        if name in ("claimMappings", "claimValidationRules", "userValidationRules"):
            whole[name] = value
        else:
            of_issuer[name] = value
    return whole


def write(path: Path, *entries: dict[str, Any], **more: Any) -> None:
    document = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": list(entries)}
    path.write_text(json.dumps({**document, **more}))


class World:
    """An issuer, the file that trusts it, and authenticators by that file."""

    def __init__(self, issuer: Issuer, path: Path, stack: AsyncExitStack) -> None:
        self.issuer, self.path, self.clocks, self._stack = issuer, path, Clocks(), stack
        issuer.keys = [KEY]
        write(path, entry(issuer.url))

    def tokens(self, timing: KeyTiming = DEFAULT_KEY_TIMING, patience: float = 5.0) -> IssuedTokens:
        made = IssuedTokens(
            self.path,
            look_every=0.0,
            patience=patience,
            timing=timing,
            now=self.clocks.now,
            clock=self.clocks.clock,
        )
        self._stack.push_async_callback(made.close)
        return made


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with issuers.running() as issuer, AsyncExitStack() as stack:
        yield World(issuer, tmp_path / "authentication.yaml", stack)


JANE = Identity("oidc:jane")


# -- tokens --------------------------------------------------------------------------------------------------------


async def test_a_good_token_names_a_user(world: World) -> None:
    tokens = world.tokens()
    assert await tokens.authenticate_token(world.issuer.token()) == JANE
    assert await tokens.authenticate_token(world.issuer.token(head={"kid": None})) == JANE
    more = {"typ": "at+jwt", "nonce": "n", "x5c": ["x" * 4000]}
    assert await tokens.authenticate_token(world.issuer.token(head=more, padding="x" * 200_000)) == JANE
    assert world.issuer.asked == ["/.well-known/openid-configuration", "/keys"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_algorithms_of_all_kinds_hold(world: World, algorithm: str) -> None:
    curve = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}.get(algorithm)
    key = rsa("k") if curve is None else ECKey.generate_key(curve, {"kid": "k"})
    world.issuer.keys = [KEY, key]
    assert await world.tokens().authenticate_token(world.issuer.token(key, algorithm=algorithm)) == JANE


Changed = Callable[[Issuer], str]


def _public_pem(issuer: Issuer) -> bytes:
    key = issuer.keys[0]
    assert isinstance(key, RSAKey)
    return key.as_pem(private=False)


FORGED: dict[str, Changed] = {
    "none": lambda issuer: unsigned({"alg": "none"}, issuer.claims()),
    "None": lambda issuer: unsigned({"alg": "None", "kid": "one"}, issuer.claims()),
    "no algorithm": lambda issuer: unsigned({"kid": "one"}, issuer.claims()),
    "HS256 with the public key": lambda issuer: signed_with_text(
        _public_pem(issuer), issuer.claims(), {"alg": "HS256", "kid": "one"}
    ),
    "HS256 with the modulus": lambda issuer: signed_with_text(
        str(issuer.keys[0].as_dict()["n"]).encode(), issuer.claims(), {"alg": "HS256", "kid": "one"}
    ),
    "RS256 signed as HS256": lambda issuer: signed_with_text(
        _public_pem(issuer), issuer.claims(), {"alg": "RS256", "kid": "one"}
    ),
    "another key": lambda issuer: issuer.token(OTHER),
    "another key under the same name": lambda issuer: issuer.token(OTHER, head={"kid": "one"}),
    "another key without a name": lambda issuer: issuer.token(OTHER, head={"kid": None}),
    "a key in its head": lambda issuer: issuer.token(OTHER, head={"kid": None, "jwk": OTHER.as_dict(private=False)}),
    "another algorithm's key": lambda issuer: unsigned({"alg": "ES256", "kid": "one"}, issuer.claims(), b"0" * 64),
    "no signature": lambda issuer: unsigned({"alg": "RS256", "kid": "one"}, issuer.claims()),
    "changed claims": lambda issuer: _swapped(issuer.token(), issuer.token(sub="root")),
    "an extension that must be understood": lambda issuer: issuer.token(head={"crit": ["x"], "x": 1}),
    "a head that is none": lambda issuer: f"e30{issuer.token()[issuer.token().index('.') :]}",
    "expired": lambda issuer: issuer.token(exp=int(time.time()) - 1),
    "no end": lambda issuer: issuer.token(exp=None),
    "an end that is none": lambda issuer: issuer.token(exp="2100-01-01"),
    "an end that is true": lambda issuer: issuer.token(exp=True),
    "not yet": lambda issuer: issuer.token(nbf=int(time.time()) + 120),
    "a beginning that is none": lambda issuer: issuer.token(nbf="now"),
    "another audience": lambda issuer: issuer.token(aud="another"),
    "other audiences": lambda issuer: issuer.token(aud=["a", "b", 1]),
    "no audience": lambda issuer: issuer.token(aud=None),
    "an audience that is none": lambda issuer: issuer.token(aud={"kubebraid": True}),
    "no user": lambda issuer: issuer.token(sub=None),
    "an empty user": lambda issuer: issuer.token(sub=""),
    "a user that is a number": lambda issuer: issuer.token(sub=1),
}


def _swapped(signed: str, other: str) -> str:
    head, _, signature = signed.split(".")
    return ".".join((head, other.split(".")[1], signature))


@pytest.mark.parametrize("kind", FORGED)
async def test_what_does_not_hold_is_refused(world: World, kind: str) -> None:
    with pytest.raises(CredentialRefused):
        await world.tokens().authenticate_token(FORGED[kind](world.issuer))


async def test_symmetric_keys_of_a_key_set_are_not_used(world: World) -> None:
    secret = OctKey.import_key("a secret that is long enough for it", {"kid": "s"})
    world.issuer.published = [secret.as_dict(), {"kty": "OKP", "kid": "o"}, {"kty": "RSA", "kid": "b"}, {}]
    world.issuer.published.append(KEY.as_dict(private=False))
    forged = signed_with_text(
        b"a secret that is long enough for it", world.issuer.claims(), {"alg": "HS256", "kid": "s"}
    )
    with pytest.raises(CredentialRefused, match="HS256"):
        await world.tokens().authenticate_token(forged)
    assert await world.tokens().authenticate_token(world.issuer.token()) == JANE


async def test_what_a_key_says_of_its_use_does_not_matter(world: World) -> None:
    world.issuer.published = [{**KEY.as_dict(private=False), "use": "enc", "alg": "RSA-OAEP", "key_ops": ["encrypt"]}]
    assert await world.tokens().authenticate_token(world.issuer.token()) == JANE


async def test_bounds_of_time(world: World) -> None:
    tokens, now = world.tokens(), int(time.time())
    assert await tokens.authenticate_token(world.issuer.token(exp=now + 600.5, nbf=now + 30)) == JANE
    assert await tokens.authenticate_token(world.issuer.token(exp=now + 600, nbf=None, iat=now + 9999)) == JANE
    old = world.issuer.token(exp=now + 100)
    assert await tokens.authenticate_token(old) == JANE
    world.clocks.ahead = 102.0
    with pytest.raises(CredentialRefused, match="expired"):
        await tokens.authenticate_token(old)


@pytest.mark.parametrize(
    "token",
    ["", "t", "a.b", "a.b.c", "a.b.c.d", "....", '{"payload":"x"}', "e30.e30.", "e30.W10.x", "é.é.é", "e30.bnVsbA.x"],
)
async def test_what_is_no_token_of_an_issuer_is_not_known(world: World, token: str) -> None:
    assert await world.tokens().authenticate_token(token) is None
    assert world.issuer.asked == []


async def test_other_issuers_are_not_known_and_nothing_is_asked(world: World) -> None:
    tokens = world.tokens()
    for iss in ("https://another.example", world.issuer.url + "/", "", None):
        assert await tokens.authenticate_token(world.issuer.token(iss=iss)) is None
    assert world.issuer.asked == []


async def test_several_audiences(world: World) -> None:
    write(world.path, entry(world.issuer.url, audiences=["a", "b"], audienceMatchPolicy="MatchAny"))
    tokens = world.tokens()
    for aud in ("a", "b", ["x", "b"]):
        assert await tokens.authenticate_token(world.issuer.token(aud=aud)) == JANE
    with pytest.raises(CredentialRefused, match="for none of a, b"):
        await tokens.authenticate_token(world.issuer.token())


# -- keys ----------------------------------------------------------------------------------------------------------


async def test_a_new_key_is_found_when_a_token_needs_it(world: World) -> None:
    world.issuer.cache_control = "public, max-age=86400"
    tokens = world.tokens()
    assert await tokens.authenticate_token(world.issuer.token()) == JANE
    world.issuer.keys = [OTHER, KEY]
    with pytest.raises(CredentialRefused, match="no key"):
        await tokens.authenticate_token(world.issuer.token(OTHER))
    world.clocks.ahead = 10.0
    assert await tokens.authenticate_token(world.issuer.token(OTHER)) == JANE
    assert await tokens.authenticate_token(world.issuer.token(KEY)) == JANE
    assert world.issuer.asked.count("/keys") == 2


async def test_a_key_that_was_taken_away_ends(world: World) -> None:
    world.issuer.cache_control = "max-age=120"
    tokens = world.tokens()
    world.issuer.keys = [KEY, OTHER]
    stolen = world.issuer.token(exp=int(time.time()) + 9999)
    assert await tokens.authenticate_token(stolen) == JANE
    world.issuer.keys = [OTHER]
    world.clocks.ahead = 119.0
    assert await tokens.authenticate_token(stolen) == JANE
    world.clocks.ahead = 121.0
    # What is known by now is used, and the issuer asked meanwhile.
    await tokens.authenticate_token(world.issuer.token(OTHER))
    await _until(lambda: world.issuer.asked.count("/keys") == 2)
    await _until_refused(lambda: tokens.authenticate_token(stolen))


async def test_invented_keys_do_not_flood_the_issuer(world: World) -> None:
    tokens = world.tokens()
    assert await tokens.authenticate_token(world.issuer.token()) == JANE
    invented = [world.issuer.token(OTHER, head={"kid": f"{number}"}) for number in range(50)]
    for _ in range(2):
        world.clocks.ahead += 10.0
        ended = await asyncio.gather(*map(tokens.authenticate_token, invented), return_exceptions=True)
        assert all(isinstance(one, CredentialRefused) for one in ended)
    assert world.issuer.asked.count("/keys") == 3


async def test_keys_are_asked_for_once_by_all_who_need_them(world: World) -> None:
    world.issuer.let.clear()
    tokens, token = world.tokens(), world.issuer.token()
    asking = [asyncio.create_task(tokens.authenticate_token(token)) for _ in range(5)]
    await _until(lambda: bool(world.issuer.asked))
    asking[0].cancel()
    world.issuer.let.set()
    assert await asyncio.gather(*asking[1:]) == [JANE] * 4
    assert world.issuer.asked == ["/.well-known/openid-configuration", "/keys"]


async def test_an_issuer_that_is_away_later_does_not_matter(world: World) -> None:
    tokens = world.tokens(KeyTiming(kept=(1.0, 1.0, 1.0)))
    assert await tokens.authenticate_token(world.issuer.token()) == JANE
    world.issuer.status = 503
    for _ in range(3):
        world.clocks.ahead += 20.0
        assert await tokens.authenticate_token(world.issuer.token()) == JANE
        await _until(lambda: world.issuer.asked[-1] != "/keys" or world.issuer.asked.count("/keys") > 1)
    world.clocks.ahead += 20.0
    with pytest.raises(CredentialRefused, match="no key"):
        await tokens.authenticate_token(world.issuer.token(OTHER))
    world.issuer.status = 200
    world.issuer.keys = [OTHER]
    world.clocks.ahead += 20.0
    assert await tokens.authenticate_token(world.issuer.token(OTHER)) == JANE


async def test_an_issuer_that_is_away_at_first_is_asked_again(world: World) -> None:
    world.issuer.status = 500
    tokens = world.tokens()
    for _ in range(3):
        with pytest.raises(AccessUnavailable, match="answered 500"):
            await tokens.authenticate_token(world.issuer.token())
    assert world.issuer.asked == ["/.well-known/openid-configuration"]
    world.issuer.status = 200
    world.clocks.ahead = 10.0
    assert await tokens.authenticate_token(world.issuer.token()) == JANE


async def test_an_issuer_that_does_not_listen(tmp_path: Path, world: World) -> None:
    write(world.path, entry("https://localhost:1"))
    with pytest.raises(AccessUnavailable, match="cannot be read"):
        await world.tokens().authenticate_token(world.issuer.token(iss="https://localhost:1"))


async def test_an_issuer_that_is_slow_is_given_up(world: World) -> None:
    world.issuer.let.clear()
    with pytest.raises(AccessUnavailable, match=r"within 0\.05 s"):
        await world.tokens(patience=0.05).authenticate_token(world.issuer.token())


async def test_an_issuer_without_the_right_certificate(world: World) -> None:
    other = trustme.CA()
    write(world.path, entry(world.issuer.url, certificateAuthority=other.cert_pem.bytes().decode()))
    with pytest.raises(AccessUnavailable, match=r"(?i)certificate verify failed"):
        await world.tokens().authenticate_token(world.issuer.token())
    write(world.path, entry(world.issuer.url, certificateAuthority=""))
    with pytest.raises(AccessUnavailable, match=r"(?i)certificate verify failed"):
        await world.tokens().authenticate_token(world.issuer.token())
    async with issuers.running(issuers.AUTHORITY.issue_cert("another.example")) as named:
        write(world.path, entry(named.url))
        with pytest.raises(AccessUnavailable, match=r"(?i)certificate verify failed"):
            await world.tokens().authenticate_token(world.issuer.token(iss=named.url))


def _lie_of_name(issuer: Issuer) -> None:
    issuer.claims_to_be = "https://another.example"


def _lie_of_slash(issuer: Issuer) -> None:
    issuer.claims_to_be = issuer.url + "/"


def _plain_keys(issuer: Issuer) -> None:
    issuer.key_set_url = issuer.url.replace("https", "http") + "/keys"


def _local_keys(issuer: Issuer) -> None:
    issuer.key_set_url = "file:///etc/passwd"


def _away(issuer: Issuer) -> None:
    issuer.redirect = issuer.url.replace("https", "http") + "/elsewhere"


def _in_circles(issuer: Issuer) -> None:
    issuer.redirect = issuer.url + "/again"


def _nonsense(issuer: Issuer) -> None:
    issuer.body = b"<html>\xff"


def _list(issuer: Issuer) -> None:
    issuer.body = b"[]"


def _large(issuer: Issuer) -> None:
    issuer.body = b" " * 1_100_000 + b"{}"


@pytest.mark.parametrize(
    "lie", [_lie_of_name, _lie_of_slash, _plain_keys, _local_keys, _away, _in_circles, _nonsense, _list, _large]
)
async def test_an_issuer_that_lies_is_not_believed(world: World, lie: Callable[[Issuer], None]) -> None:
    lie(world.issuer)
    with pytest.raises(AccessUnavailable) as caught:
        await world.tokens().authenticate_token(world.issuer.token())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [b"{}", b'{"keys":{}}', b'{"keys":[1]}', b"null", b""])
async def test_a_key_set_that_is_none_keeps_the_keys_that_are_known(world: World, body: bytes) -> None:
    tokens = world.tokens()
    assert await tokens.authenticate_token(world.issuer.token()) == JANE
    world.issuer.body = body
    world.clocks.ahead = 20.0
    with pytest.raises(CredentialRefused, match="no key"):
        await tokens.authenticate_token(world.issuer.token(OTHER))
    assert await tokens.authenticate_token(world.issuer.token()) == JANE


async def test_discovery_may_be_elsewhere(world: World) -> None:
    issuer = world.issuer
    issuer.claims_to_be = "https://issuer.example"
    write(world.path, entry("https://issuer.example", discoveryURL=f"{issuer.url}/discovery"))
    assert await world.tokens().authenticate_token(issuer.token(iss="https://issuer.example")) == JANE
    assert issuer.asked == ["/discovery", "/keys"]


# -- users ---------------------------------------------------------------------------------------------------------

MAPPINGS = {
    "username": {"claim": "email", "prefix": "corp:"},
    "groups": {"claim": "roles", "prefix": "corp:"},
    "uid": {"claim": "sub"},
    "extra": [{"key": "acme.io/team", "valueExpression": "claims.?team.orValue('')"}],
}
EXPRESSIONS = {
    "username": {"expression": "claims.preferred.lowerAscii() + ':x'"},
    "groups": {"expression": "claims.?roles.orValue([]).map(r, 'g:' + r)"},
    "uid": {"expression": "string(int(claims.number))"},
    "extra": [
        {"key": "acme.io/a", "valueExpression": "[claims.preferred, '']"},
        {"key": "acme.io/b", "valueExpression": "null"},
    ],
}


async def mapped(world: World, claims: dict[str, Any], **parts: Any) -> Identity | None:
    write(world.path, entry(world.issuer.url, **parts))
    return await world.tokens().authenticate_token(world.issuer.token(**claims))


async def test_claims_become_a_user(world: World) -> None:
    claims = {"email": "j@example.com", "email_verified": True, "roles": ["dev", "ops"], "team": "web", "jti": "id-1"}
    assert await mapped(world, claims, claimMappings=MAPPINGS) == Identity(
        "corp:j@example.com",
        "jane",
        ("corp:dev", "corp:ops"),
        (("acme.io/team", ("web",)), ("authentication.kubernetes.io/credential-id", ("JTI=id-1",))),
    )
    assert await mapped(world, {"email": "j", "roles": "dev"}, claimMappings=MAPPINGS) == Identity(
        "corp:j", "jane", ("corp:dev",)
    )
    assert await mapped(world, {"email": "j"}, claimMappings=MAPPINGS) == Identity("corp:j", "jane")


async def test_expressions_become_a_user(world: World) -> None:
    claims = {"preferred": "Jane", "roles": ["a", "b"], "number": 42, "huge": 2**80}
    assert await mapped(world, claims, claimMappings=EXPRESSIONS) == Identity(
        "jane:x", "42", ("g:a", "g:b"), (("acme.io/a", ("Jane",)),)
    )


@pytest.mark.parametrize(
    ("mappings", "claims"),
    [
        (MAPPINGS, {"email": "j", "email_verified": False}),
        (MAPPINGS, {"email": "j", "email_verified": "true"}),
        (MAPPINGS, {}),
        (MAPPINGS, {"email": "j", "roles": {"a": 1}}),
        (MAPPINGS, {"email": "j", "roles": ["a", 1]}),
        (MAPPINGS, {"email": "j", "team": 1}),
        (MAPPINGS, {"email": "j", "sub": None}),
        (
            MAPPINGS,
            {"email": "j", "_claim_names": {"roles": "src"}, "_claim_sources": {"src": {"endpoint": "https://e"}}},
        ),
        (EXPRESSIONS, {"number": 1}),
        (EXPRESSIONS, {"preferred": 1, "number": 1}),
        (EXPRESSIONS, {"preferred": "J", "number": 1, "roles": [1]}),
        ({"username": {"expression": "claims.sub == 'jane'"}}, {}),
        ({"username": {"expression": "''"}}, {}),
        ({"username": {"expression": "'a'"}, "groups": {"expression": "1"}}, {}),
        ({"username": {"expression": "'a'"}, "uid": {"expression": "claims.exp"}}, {}),
    ],
)
async def test_claims_that_are_no_user_are_refused(
    world: World, mappings: dict[str, Any], claims: dict[str, Any]
) -> None:
    with pytest.raises((CredentialRefused, ExpressionFailed)):
        await mapped(world, claims, claimMappings=mappings)


async def test_rules_must_hold(world: World) -> None:
    rules = [
        {"claim": "hd", "requiredValue": "example.com"},
        {"expression": "claims.exp - claims.iat <= 3600", "message": "lives too long"},
    ]
    users = [{"expression": "!user.username.startsWith('oidc:system:')", "message": "is reserved"}]
    now = int(time.time())
    good = {"hd": "example.com", "iat": now, "exp": now + 3600}
    parts = {"claimValidationRules": rules, "userValidationRules": users}
    assert await mapped(world, good, **parts) == JANE
    for claims, said in (
        ({**good, "hd": "evil.example"}, "'hd' is not what is required"),
        ({**good, "hd": ["example.com"]}, "'hd' is not what is required"),
        ({**good, "hd": None}, "'hd' is not what is required"),
        ({**good, "exp": now + 3601}, "failed: lives too long"),
        ({**good, "sub": "system:admin"}, "failed: is reserved"),
        ({**good, "iat": None}, "iat"),
    ):
        with pytest.raises((CredentialRefused, ExpressionFailed), match=said):
            await mapped(world, claims, **parts)


# -- the file ------------------------------------------------------------------------------------------------------


async def test_the_file_is_read_anew_and_keys_stay(world: World) -> None:
    tokens, token = world.tokens(), world.issuer.token(groups=["g"])
    assert await tokens.authenticate_token(token) == JANE
    world.path.write_text("kind: nonsense")
    assert await tokens.authenticate_token(token) == JANE
    write(world.path, entry(world.issuer.url), anonymous={"enabled": True})
    assert await tokens.authenticate_token(token) == JANE
    assert tokens.anonymous is None
    mapping = {"username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": ""}}
    write(world.path, entry(world.issuer.url, claimMappings=mapping))
    assert await tokens.authenticate_token(token) == Identity("jane", groups=("g",))
    assert world.issuer.asked == ["/.well-known/openid-configuration", "/keys"]
    async with issuers.running() as second:
        second.keys = [OTHER]
        write(world.path, entry(second.url))
        assert await tokens.authenticate_token(token) is None
        assert await tokens.authenticate_token(second.token()) == JANE
        write(world.path)
        assert await tokens.authenticate_token(second.token()) is None


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("kind: AuthenticationConfiguration\napiVersion: apiserver.config.k8s.io/v1\njwt: [{issuers: {}}]")
    with pytest.raises(BadAccessFile, match=rf"^{path}: jwt\[0\]: unknown field issuers$"):
        IssuedTokens(path)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.002)


async def _until_refused(work: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await work()
            except CredentialRefused:
                return
            await asyncio.sleep(0.002)
