"""A cache of tokens: who has one is asked once in ten seconds, whatever tells it.

k8s.io/apiserver pkg/authentication/token/cache: successes alone are kept, and keys are no tokens but hashes of them
with a key of this process, so that what leaks of its memory by its timing is of no use.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from query.access.authentication.authenticator import TokenAuthenticator
from query.access.errors import AccessUnavailable
from query.access.single_flight import SingleFlight
from query.identity import Identity


def token_key(secret: bytes, token: str) -> bytes:
    """A token's hash with a secret of this process."""
    return hmac.digest(secret, token.encode("utf-8", "surrogateescape"), hashlib.sha256)


class TokenCache:
    """Another authenticator of tokens, whose successes are kept for `seconds`; at most `most` of them.

    The same token is asked about once at a time, and for no longer than `patience` seconds.
    """

    def __init__(
        self,
        tokens: TokenAuthenticator,
        *,
        seconds: float = 10.0,
        most: int = 10_000,
        patience: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._seconds, self._most, self._patience, self._clock = seconds, most, patience, clock
        self._secret = secrets.token_bytes(32)
        # By key: who, and until when; those that end first are at the beginning.
        self._known: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()
        self._asking: SingleFlight[Identity | None] = SingleFlight()

    async def authenticate_token(self, token: str) -> Identity | None:
        """See `TokenAuthenticator`. Raises AccessUnavailable also when there is no answer in time."""
        key = token_key(self._secret, token)
        known = self._known.get(key)
        if known is not None and self._clock() < known[1]:
            return known[0]
        return await self._asking.run(key, lambda: self._ask(key, token))

    async def _ask(self, key: bytes, token: str) -> Identity | None:
        try:
            async with asyncio.timeout(self._patience):
                identity = await self._tokens.authenticate_token(token)
        except TimeoutError:
            raise AccessUnavailable(f"no answer about a token within {self._patience:g} s") from None
        if identity is not None:
            self._known[key] = (identity, self._clock() + self._seconds)
            self._known.move_to_end(key)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return identity

    async def close(self) -> None:
        """Ends what is being asked."""
        await self._asking.close()
