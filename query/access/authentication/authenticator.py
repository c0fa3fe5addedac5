"""Authenticators: from what a request presents to who asks.

k8s.io/apiserver pkg/authentication/authenticator, request/union, request/anonymous and group.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import structlog
from multidict import MultiMapping

from query.access.authorization.denied import unauthorized
from query.access.errors import AccessError, aggregate
from query.http.replaced import is_text
from query.identity import NOBODY, Identity

log = structlog.get_logger()

_ODD = re.compile(r"\A\s|\s\Z|[\x00-\x1f\x7f]")


class CredentialRefused(AccessError):
    """A credential does not hold. The reason is for the log: a client gets 401 without one."""


@dataclass(frozen=True, slots=True)
class RequestCredentials:
    """What a request presents of who asks.

    - `peer_chain`: the client's certificates (DER), its own first, without any check; empty: none, or no TLS.
    - `path`: decoded, with a slash at its beginning.
    - `warnings`: texts for the answer's Warning headers that authenticators add.
    """

    headers: MultiMapping[str]
    peer_chain: Sequence[bytes] = ()
    path: str = "/"
    warnings: list[str] = field(default_factory=list)

    @property
    def websocket(self) -> bool:
        """Whether it asks for a WebSocket (apiserver pkg/util/httpstream/wsstream: IsWebSocketRequest)."""
        return (
            self.headers.get("Upgrade", "").lower() == "websocket"
            and "upgrade" in self.headers.get("Connection", "").lower()
        )


class Authenticator(Protocol):
    """One way to tell who asks."""

    async def authenticate(self, presented: RequestCredentials) -> Identity | None:
        """Who asks; None: nothing was presented that this one knows of.

        Raises:
            CredentialRefused: what was presented does not hold.
            AccessUnavailable: it cannot be found out now.
        """
        ...


class TokenAuthenticator(Protocol):
    """One way to tell who has a token, whichever way it came."""

    async def authenticate_token(self, token: str) -> Identity | None:
        """Who has this token; None: it is none of those that this one knows of.

        Raises:
            CredentialRefused: it is one, and does not hold.
            AccessUnavailable: it cannot be found out now.
        """
        ...


class Union:
    """Authenticators in order: the first who knows who asks. Errors count only if none does."""

    def __init__(self, authenticators: Iterable[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    async def authenticate(self, presented: RequestCredentials) -> Identity | None:
        """See `Authenticator`. With several errors: CredentialRefused with all of them."""
        return await _first(one.authenticate(presented) for one in self._authenticators)


class TokenUnion:
    """Authenticators of tokens in order, as `Union`."""

    def __init__(self, authenticators: Iterable[TokenAuthenticator]) -> None:
        self._authenticators = tuple(authenticators)

    async def authenticate_token(self, token: str) -> Identity | None:
        """See `TokenAuthenticator`. With several errors: CredentialRefused with all of them."""
        return await _first(one.authenticate_token(token) for one in self._authenticators)


async def _first(answers: Iterator[Awaitable[Identity | None]]) -> Identity | None:
    """The first answer that knows who it is; each is begun when the one before did not. Raises CredentialRefused."""
    errors: list[str] = []
    for answer in answers:
        try:
            identity = await answer
        except AccessError as cause:
            errors.append(str(cause))
        else:
            if identity is not None:
                return identity
    if errors:
        raise CredentialRefused(aggregate(errors))
    return None


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Whether requests without a credential are answered, as `system:anonymous`.

    `paths`: on which paths alone, compared as a whole; None: on all.
    """

    enabled: bool = False
    paths: frozenset[str] | None = None

    def admits(self, path: str) -> bool:
        """Whether a request without a credential may have this path."""
        return self.enabled and (self.paths is None or path in self.paths)


class Authentication:
    """Who asks, of each request: the whole of authentication."""

    def __init__(self, authenticators: Iterable[Authenticator], anonymous: Anonymous = Anonymous()) -> None:
        self._union = Union(authenticators)
        self._anonymous = anonymous

    async def who(self, presented: RequestCredentials) -> Identity:
        """Who asks, with the groups that everyone has who was authenticated.

        Raises:
            ApiError: 401, as kube-apiserver words it; its cause is a CredentialRefused, if a credential was refused.
        """
        try:
            identity = await self._union.authenticate(presented)
            if identity is not None and _is_odd(identity):
                raise CredentialRefused(
                    "a name of the user or a group has characters that none has, or space at an end"
                )
        except CredentialRefused as cause:
            log.info("a request was not authenticated", reason=str(cause))
            raise unauthorized() from cause
        if identity is not None:
            return identity.authenticated()
        if self._anonymous.admits(presented.path):
            return NOBODY
        raise unauthorized()


@lru_cache(maxsize=4096)
def _is_odd(identity: Identity) -> bool:
    """Whether a name would be another one where a header has said it: a server drops the space around what it says.

    A kube-apiserver lets ` system:masters` be a group of a certificate or a token, which is none there. Sent on by
    `Impersonate-Group` or `X-Remote-Group` it would become one.
    """
    names = (identity.name, identity.uid, *identity.groups)
    extra = (text for key, values in identity.extra for text in (key, *values))
    return any(map(_ODD.search, names)) or not all(map(is_text, (*names, *extra)))
