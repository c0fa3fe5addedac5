"""TokenReview: another API server is asked who has a token, for service accounts and webhooks of its.

authentication.k8s.io/v1 TokenReview; k8s.io/apiserver plugin/pkg/authenticator/token/webhook. A token is shown to the
server that is asked: ask none that should not have it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from query.access.authentication.authenticator import CredentialRefused
from query.access.authentication.token_cache import token_key
from query.access.authorization.names import ACCOUNT_OF
from query.access.errors import AccessUnavailable
from query.access.single_flight import SingleFlight
from query.identity import Identity

# k8s.io/apiserver pkg/util/webhook: DefaultRetryBackoff.
_TRIES = 5
_FACTOR = 1.5
_JITTER = 0.2
# Seconds for which it is remembered that a server refused a token: whose it is may still become known there.
_REFUSED_FOR = 10.0

Ask = Callable[[dict[str, Any]], Awaitable[Any]]
"""Creates a TokenReview at a server; returns the object that it answers. Raises AccessUnavailable."""


class _User(msgspec.Struct, frozen=True):
    username: str = ""
    uid: str = ""
    groups: list[str] | None = None
    extra: dict[str, list[str]] | None = None


class _Status(msgspec.Struct, frozen=True):
    authenticated: bool = False
    user: _User = _User()
    audiences: list[str] | None = None
    error: str = ""


class _Review(msgspec.Struct, frozen=True):
    status: _Status


class TokenReviewAuthenticator:
    """Users by tokens that a server knows; its answers are kept for `seconds`.

    - `cluster`: the name of the member cluster that is asked, which goes along as `extra`; "": it is none.
    - `audiences`: whom a token must be for, one of them at least; empty: for the server that is asked.
    - `patience`: seconds for one answer. `at_once`: tokens about which is asked at the same time; others are turned
      away, so that who invents tokens cannot flood the server. `pause`: seconds before a second try.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        cluster: str = "",
        audiences: Sequence[str] = (),
        seconds: float = 120.0,
        patience: float = 30.0,
        most: int = 10_000,
        at_once: int = 64,
        pause: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._cluster, self._audiences = ask, cluster, list(audiences)
        self._seconds, self._patience, self._most, self._at_once = seconds, patience, most, at_once
        self._pause, self._clock = pause, clock
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[Identity | CredentialRefused | None, float]] = OrderedDict()
        self._asking: SingleFlight[Identity | CredentialRefused | None] = SingleFlight()

    async def authenticate_token(self, token: str) -> Identity | None:
        """See `TokenAuthenticator`."""
        key = token_key(self._secret, token)
        known = self._known.get(key)
        if known is not None and self._clock() < known[1]:
            return _said(known[0])
        if len(self._asking) >= self._at_once:
            raise AccessUnavailable(f"a server is asked about {self._at_once} tokens already")
        return _said(await self._asking.run(key, lambda: self._review(key, token)))

    async def _review(self, key: bytes, token: str) -> Identity | CredentialRefused | None:
        spec: dict[str, Any] = {"token": token}
        if self._audiences:
            spec["audiences"] = self._audiences
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": spec}
        try:
            async with asyncio.timeout(self._patience):
                answer = await self._answer(review)
            status = msgspec.convert(answer, _Review).status
        except TimeoutError:
            raise AccessUnavailable(f"no answer to a TokenReview within {self._patience:g} s") from None
        except msgspec.ValidationError as cause:
            raise AccessUnavailable(f"the answer to a TokenReview is none: {cause}") from None
        identity = self._identity(status)
        kept = _REFUSED_FOR if isinstance(identity, CredentialRefused) else self._seconds
        self._known[key] = (identity, self._clock() + kept)
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return identity

    async def _answer(self, review: dict[str, Any]) -> Any:
        """What the server answers, which may take several tries. Raises AccessUnavailable."""
        pause = self._pause
        for left in range(_TRIES - 1, -1, -1):
            try:
                return await self._ask(review)
            except AccessUnavailable:
                if not left:
                    raise
            await asyncio.sleep(pause * (1 + _JITTER * random.random()))
            pause *= _FACTOR
        raise AssertionError("unreachable")

    def _identity(self, status: _Status) -> Identity | CredentialRefused | None:
        """Whom a status names; None: no one."""
        if not status.authenticated:
            if status.error:
                return CredentialRefused(f"a TokenReview was answered: {' '.join(status.error.split())[:200]}")
            return None
        # A server that does not know audiences answers none: the token is for that server itself.
        if self._audiences and not set(self._audiences).intersection(status.audiences or ()):
            return None
        user = status.user
        if not user.username:
            return None
        extra = {key: tuple(values) for key, values in (user.extra or {}).items()}
        # A service account is one of this cluster alone; of which, the server is not asked.
        extra.pop(ACCOUNT_OF, None)
        if self._cluster:
            extra[ACCOUNT_OF] = (self._cluster,)
        return Identity(user.username, user.uid, tuple(user.groups or ()), tuple(sorted(extra.items())))

    async def close(self) -> None:
        """Ends what is being asked."""
        await self._asking.close()


def _said(answer: Identity | CredentialRefused | None) -> Identity | None:
    if isinstance(answer, CredentialRefused):
        raise CredentialRefused(str(answer))
    return answer
