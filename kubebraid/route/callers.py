"""Callers: who sends a request to the router, as instances are told.

A token is the caller's to show, and an instance's to know: it is passed on as it came. Of who shows a certificate,
which ends at the router, it is said by headers who that is, as a front proxy does
(https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import structlog
from aiohttp import web
from multidict import CIMultiDict

from query.access.authentication.authenticator import (
    Authenticator,
    CredentialRefused,
    RequestCredentials,
    Union,
)
from query.access.authentication.front_proxy import DEFAULT_HEADERS, FrontProxyHeaders, naming
from query.access.authorization.denied import unauthorized
from query.http.passthrough import request_headers
from query.http.tls import peer_chain
from query.http.websocket import BEARER_PROTOCOL, offered_tokens
from query.identity import MASTERS, Identity

log = structlog.get_logger("kubebraid.route.callers")

_OF_FRONT_PROXIES = "x-remote-"
_IMPERSONATION = "impersonate-"
_PROTOCOLS = "sec-websocket-protocol"
ITSELF = Identity("system:kubebraid:router", groups=(MASTERS,))
"""As whom the router looks at instances."""
_MONITORING = "system:monitoring"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ProxiedCaller:
    """Who sent a request, and how instances are told.

    - `said`: the headers that say it. `named`: whether those are the router's word, which counts over its own
      certificate alone; else they are what the caller shows.
    - `key`: another one for each other caller, without a credential in it.
    - `monitors`: whether the router itself knows that they may see how its instances are.
    """

    said: Headers
    named: bool
    key: bytes
    monitors: bool = False


class ProxiedCallers:
    """Finds out who asks, as far as that ends at the router.

    `authenticators`: by client certificates, of users and of front proxies before the router. `names`: the headers
    by which instances are told; callers' own ones of these names are dropped.
    """

    def __init__(
        self, authenticators: Iterable[Authenticator] = (), names: FrontProxyHeaders = DEFAULT_HEADERS
    ) -> None:
        self._union = Union(authenticators)
        self._names = names
        exact, prefixes = names.consumed
        self._exact, self._prefixes = exact, (_OF_FRONT_PROXIES, *prefixes)
        # What remembers documents of callers must not have their tokens.
        self._secret = secrets.token_bytes(32)

    @property
    def itself(self) -> Headers:
        """The headers that name the router."""
        return tuple(naming(ITSELF, self._names).items())

    async def of(self, http: web.Request) -> ProxiedCaller:
        """Who sent a request.

        Raises:
            ApiError: 401, the certificate does not hold, and nothing else was shown.
        """
        who = await self._certified(http)
        impersonated = [(name, value) for name, value in http.headers.items() if _impersonates(name)]
        if who is None:
            shown = _shown(http)
            said = (*(("Authorization", value) for value in shown), *impersonated)
            return ProxiedCaller(said, False, self._key(said, named=False))
        said = (*naming(who, self._names).items(), *impersonated)
        monitors = not impersonated and (who.masters or _MONITORING in who.groups)
        return ProxiedCaller(said, True, self._key(said, named=True), monitors)

    def headers(self, http: web.Request, caller: ProxiedCaller) -> CIMultiDict[str]:
        """The headers with which a request is sent on."""
        kept: CIMultiDict[str] = CIMultiDict()
        for name, value in request_headers(http).items():
            lowered = name.lower()
            if lowered in self._exact or lowered.startswith(self._prefixes):
                continue
            if caller.named:
                if lowered == "authorization" or _impersonates(name):
                    continue
                if lowered == _PROTOCOLS and not (value := _without_token(value)):
                    continue
            kept.add(name, value)
        if caller.named:
            kept.extend(caller.said)
        return kept

    async def _certified(self, http: web.Request) -> Identity | None:
        """Whom a client's certificate names; None: no one, so that something else has to."""
        path = unquote(http.rel_url.raw_path, errors="replace")
        try:
            who = await self._union.authenticate(RequestCredentials(http.headers, peer_chain(http.transport), path))
            if who is not None and not _sayable(who):
                raise CredentialRefused("a certificate names a user that no header can: one with spaces at an end")
        except CredentialRefused as cause:
            if _has_token(http):
                # A token that holds counts beside a certificate that does not.
                return None
            log.info("a request was not authenticated", reason=str(cause))
            raise unauthorized() from cause
        return who

    def _key(self, said: Iterable[tuple[str, str]], *, named: bool) -> bytes:
        found = hashlib.blake2b(key=self._secret, digest_size=16)
        found.update(b"\1" if named else b"\0")
        for pair in said:
            for text in pair:
                encoded = text.encode("utf-8", "surrogateescape")
                found.update(len(encoded).to_bytes(4, "big") + encoded)
        return found.digest()


def _impersonates(name: str) -> bool:
    return name.lower().startswith(_IMPERSONATION)


def _sayable(who: Identity) -> bool:
    """Whether headers can say it: what an instance reads of them is without spaces at the ends, and may be no line.

    Without this ` system:masters`, which an authority may sign for anyone, would become `system:masters`.
    """
    values = (who.name, who.uid, *who.groups, *(value for _, values in who.extra for value in values))
    return all(value == value.strip() and value.isprintable() for value in values) and all(who.groups)


def _protocols(value: str) -> list[str]:
    return [one.strip() for one in value.split(",")]


def _without_token(protocols: str) -> str:
    return ", ".join(one for one in _protocols(protocols) if not one.startswith(BEARER_PROTOCOL))


def _shown(http: web.BaseRequest) -> Sequence[str]:
    """What a caller shows, as values of Authorization: that of a WebSocket's protocols, too."""
    if values := http.headers.getall("Authorization", ()):
        return values
    for encoded in offered_tokens(http.headers):
        try:
            return [f"Bearer {base64.urlsafe_b64decode(encoded + '=' * (-len(encoded) % 4)).decode()}"]
        except (binascii.Error, ValueError):
            # For an instance to refuse.
            return [f"Bearer {encoded}"]
    return ()


def _has_token(http: web.BaseRequest) -> bool:
    parts = http.headers.get("Authorization", "").strip().split(" ", 2)
    return (len(parts) > 1 and parts[0].lower() == "bearer" and bool(parts[1])) or bool(offered_tokens(http.headers))
