"""Users by ID tokens (OpenID Connect) of the issuers that an AuthenticationConfiguration trusts.

k8s.io/apiserver plugin/pkg/authenticator/token/oidc. The file is read anew when it changes; an issuer of which nothing
but mappings and rules changes keeps its keys.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from query.access.authentication.authenticator import Anonymous
from query.access.authentication.configuration import (
    AuthenticationSettings,
    TrustedIssuer,
    authentication_settings,
)
from query.access.authentication.jwt_http import IssuerClient
from query.access.authentication.jwt_keys import DEFAULT_KEY_TIMING, IssuerKeys, KeyTiming
from query.access.authentication.jwt_tokens import unverified, verified_claims
from query.access.errors import BadAccessFile
from query.access.files import WatchedFile
from query.identity import Identity

_Reached = tuple[str, str, str]


class _Issuer:
    """An issuer that is trusted now, and its keys."""

    def __init__(self, trusted: TrustedIssuer, client: IssuerClient, keys: IssuerKeys) -> None:
        self.trusted, self.client, self.keys = trusted, client, keys

    async def close(self) -> None:
        await self.keys.close()
        await self.client.close()


class IssuedTokens:
    """Users by tokens of issuers, as a file says. Who makes it closes it.

    `now`: seconds since 1970; `clock`: of intervals.
    """

    def __init__(
        self,
        path: Path,
        *,
        look_every: float = 1.0,
        patience: float = 30.0,
        timing: KeyTiming = DEFAULT_KEY_TIMING,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the file. Blocking. Raises BadAccessFile."""
        self._patience, self._timing, self._now, self._clock = patience, timing, now, clock
        self._first: AuthenticationSettings | None = None
        self._file = WatchedFile(path, self._read, look_every=look_every)
        self._first = self._settings = self._file.latest
        self._issuers = {one.url: self._made(one) for one in self._settings.issuers}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def anonymous(self) -> Anonymous | None:
        """Who may be anonymous, as the file says; None: it says nothing. This cannot change while it is used."""
        return self._settings.anonymous

    async def authenticate_token(self, token: str) -> Identity | None:
        """See `TokenAuthenticator`: a token of an issuer that is not trusted is none of those that are known."""
        claimed = unverified(token)
        if claimed is None:
            return None
        settings = await self._file.current()
        if settings is not self._settings:
            self._settings = settings
            self._take_over()
        issuer = self._issuers.get(claimed.issuer)
        if issuer is None:
            return None
        claims = await verified_claims(claimed, issuer.keys, issuer.trusted.audiences, self._now())
        return issuer.trusted.mappings.user(claims)

    def _read(self, content: bytes) -> AuthenticationSettings:
        settings = authentication_settings(content)
        if self._first is not None and settings.anonymous != self._first.anonymous:
            raise BadAccessFile("changes of it need a restart", "anonymous")
        return settings

    def _take_over(self) -> None:
        """Those whose way to them stays keep their keys; what is not used any more is closed."""
        before = {_way(one.trusted): one for one in self._issuers.values()}
        self._issuers = {}
        for trusted in self._settings.issuers:
            kept = before.pop(_way(trusted), None)
            self._issuers[trusted.url] = (
                self._made(trusted) if kept is None else _Issuer(trusted, kept.client, kept.keys)
            )
        for unused in before.values():
            closing = asyncio.create_task(unused.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _made(self, trusted: TrustedIssuer) -> _Issuer:
        client = IssuerClient(trusted.authorities, patience=self._patience)
        keys = IssuerKeys(trusted.url, trusted.discovery, client, timing=self._timing, clock=self._clock)
        return _Issuer(trusted, client, keys)

    async def close(self) -> None:
        """Ends connections and what is being asked."""
        await asyncio.gather(*(one.close() for one in self._issuers.values()), *self._closing)


def _way(trusted: TrustedIssuer) -> _Reached:
    return trusted.url, trusted.discovery, trusted.authorities
