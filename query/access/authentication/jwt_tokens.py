"""ID tokens: signed JSON (RFC 7519) whose signature, issuer, audience and time hold.

What kube-apiserver checks with github.com/coreos/go-oidc: `exp` is needed and has no leeway, `nbf` has a minute, `iat`
and `typ` are not looked at.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError

from query.access.authentication.authenticator import CredentialRefused
from query.access.authentication.jwt_keys import IssuerKeys, PublicKey

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
"""Those of a kube-apiserver's configuration file: neither `none` nor any with a shared key."""

_NOT_BEFORE_LEEWAY = 60.0
_GOOGLE, _GOOGLE_ONCE = "https://accounts.google.com", "accounts.google.com"


class _Registry(jws.JWSRegistry):
    """Heads may say more than is known here (RFC 7515 4), except in `crit`, and hold chains of certificates."""

    max_header_length = 64 * 1024
    max_payload_length = 1024 * 1024


_REGISTRY = _Registry(algorithms=ALGORITHMS, strict_check_header=False)


class _Head(msgspec.Struct, frozen=True):
    alg: str
    kid: str = ""


class _Issuer(msgspec.Struct, frozen=True):
    iss: str = ""


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token that says of itself whose it is; nothing of it may be believed yet."""

    text: str
    issuer: str


def unverified(token: str) -> UnverifiedToken | None:
    """A token as one of three parts with a payload in JSON; None: it is none."""
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        return None
    try:
        issuer = msgspec.json.decode(_decoded(parts[1]), type=_Issuer).iss
    except (msgspec.DecodeError, ValueError):
        return None
    return UnverifiedToken(token, _GOOGLE if issuer == _GOOGLE_ONCE else issuer)


async def verified_claims(
    token: UnverifiedToken, keys: IssuerKeys, audiences: Collection[str], now: float
) -> dict[str, Any]:
    """A token's claims, once they hold. `now`: seconds since 1970.

    Raises:
        CredentialRefused: they do not.
        AccessUnavailable: the issuer's keys are not known.
    """
    try:
        head = msgspec.json.decode(_decoded(token.text.partition(".")[0]), type=_Head)
    except (msgspec.DecodeError, ValueError):
        raise CredentialRefused("a token's head is none") from None
    if head.alg not in ALGORITHMS:
        raise CredentialRefused(f"a token is signed with {head.alg[:20]!r}, not with one of {', '.join(ALGORITHMS)}")
    payload = _payload(token.text, await keys.known(head.kid))
    if payload is None:
        payload = _payload(token.text, await keys.renewed(head.kid))
    if payload is None:
        raise CredentialRefused(f"no key of {keys.issuer} has signed the token")
    try:
        claims = msgspec.json.decode(payload)
    except (msgspec.DecodeError, ValueError):
        raise CredentialRefused("a token's payload is no JSON") from None
    if not isinstance(claims, dict):
        raise CredentialRefused("a token's payload is no object")
    _check(claims, keys.issuer, audiences, now)
    return claims


def _payload(token: str, keys: Sequence[PublicKey]) -> bytes | None:
    """What is signed by one of the keys; None: nothing is."""
    for key in keys:
        try:
            return jws.deserialize_compact(token, key, registry=_REGISTRY).payload
        # Also a key of another kind or curve than the algorithm's.
        except (JoseError, ValueError):
            continue
    return None


def _check(claims: dict[str, Any], issuer: str, audiences: Collection[str], now: float) -> None:
    found = claims.get("iss")
    if found != issuer and not (issuer == _GOOGLE and found == _GOOGLE_ONCE):
        raise CredentialRefused(f"a token is of another issuer than {issuer}")
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
    if not any(isinstance(one, str) and one in audiences for one in named):
        raise CredentialRefused(f"a token of {issuer} is for none of {', '.join(sorted(audiences))}")
    expires = _number(claims.get("exp"))
    if expires is None or expires < now:
        raise CredentialRefused(f"a token of {issuer} has expired")
    begins = _number(claims.get("nbf", 0))
    if begins is None or now + _NOT_BEFORE_LEEWAY < begins:
        raise CredentialRefused(f"a token of {issuer} does not hold yet")


def _number(value: object) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _decoded(part: str) -> bytes:
    """Base64 of URLs without padding. Raises ValueError."""
    if "=" in part or "+" in part or "/" in part:
        raise ValueError
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise ValueError from None
