"""An issuer's keys: found by its discovery document, kept, and asked for anew when a token needs another one.

OpenID Connect Discovery 1.0, RFC 7517; what kube-apiserver does with github.com/coreos/go-oidc, but for two things.
Keys are renewed while they are used, so that one which the issuer has taken away ends; there, known keys hold for as
long as no unknown one is met. And an unknown key is asked for although the issuer said that its key set may be kept for
longer, as rotation would fail otherwise, but no more often than `again` says, so that invented tokens do not flood it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from query.access.authentication.jwt_http import IssuerClient
from query.access.errors import AccessUnavailable
from query.access.single_flight import SingleFlight

log = structlog.get_logger()

PublicKey = ECKey | RSAKey


@dataclass(frozen=True, slots=True)
class KeyTiming:
    """Seconds. `again`: at least between two requests to an issuer; `kept`: for how long keys are used without asking
    for them anew, at least, at most, and where the issuer says nothing."""

    again: float = 10.0
    kept: tuple[float, float, float] = (60.0, 3600.0, 300.0)


DEFAULT_KEY_TIMING = KeyTiming()


class _Provider(msgspec.Struct, frozen=True):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


@dataclass(frozen=True)
class _Keys:
    by_id: dict[str, tuple[PublicKey, ...]]
    every: tuple[PublicKey, ...]
    renew_at: float

    def of(self, key_id: str) -> tuple[PublicKey, ...]:
        """Those of a name; without a name all."""
        return self.by_id.get(key_id, ()) if key_id else self.every


class IssuerKeys:
    """The keys of one issuer: nothing is asked before a token needs one. Who makes it closes it.

    `discovery`: the discovery document's URL, "" for the usual one below the issuer's.
    """

    def __init__(
        self,
        issuer: str,
        discovery: str,
        client: IssuerClient,
        *,
        timing: KeyTiming = DEFAULT_KEY_TIMING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self._discovery = discovery or f"{issuer.removesuffix('/')}/.well-known/openid-configuration"
        self._client, self._timing, self._clock = client, timing, clock
        self._keys: _Keys | None = None
        self._key_set_url = ""
        self._asked_at = float("-inf")
        self._problem = ""
        self._asking: SingleFlight[None] = SingleFlight()

    async def known(self, key_id: str) -> Sequence[PublicKey]:
        """Keys of a name, without one all, that are known by now. Asks the issuer if none is, else does not wait.

        Raises:
            AccessUnavailable: none was ever known.
        """
        if self._keys is None:
            await self._ask_again()
            if self._keys is None:
                raise AccessUnavailable(f"the keys of {self.issuer} are not known: {self._problem}")
        elif self._clock() >= self._keys.renew_at and self._may_ask:
            self._start()
        return self._keys.of(key_id)

    async def renewed(self, key_id: str) -> Sequence[PublicKey]:
        """Keys of a name that were not known before; none if it is too early to ask again, or in vain."""
        before = self._keys
        await self._ask_again()
        return () if self._keys is None or self._keys is before else self._keys.of(key_id)

    @property
    def _may_ask(self) -> bool:
        return self._clock() >= self._asked_at + self._timing.again

    async def _ask_again(self) -> None:
        if len(self._asking) or self._may_ask:
            await self._asking.run("keys", self._ask)

    def _start(self) -> None:
        self._asking.start("keys", self._ask)

    async def _ask(self) -> None:
        self._asked_at = self._clock()
        try:
            if not self._key_set_url:
                self._key_set_url = await self._discovered()
            document = await self._client.get(self._key_set_url)
            keys = _read(document.content, self._key_set_url)
        except AccessUnavailable as cause:
            # It may have moved.
            self._key_set_url = ""
            if str(cause) != self._problem:
                log.warning("the keys of an issuer cannot be read", issuer=self.issuer, reason=str(cause))
            self._problem = str(cause)
            return
        self._problem = ""
        least, most, usual = self._timing.kept
        kept = usual if document.max_age is None else min(max(document.max_age, least), most)
        by_id: dict[str, tuple[PublicKey, ...]] = {}
        for key in keys:
            by_id[key.kid or ""] = (*by_id.get(key.kid or "", ()), key)
        self._keys = _Keys(by_id, tuple(keys), self._clock() + kept)

    async def _discovered(self) -> str:
        """Where the key set is. Raises AccessUnavailable."""
        document = await self._client.get(self._discovery)
        try:
            provider = msgspec.json.decode(document.content, type=_Provider)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise AccessUnavailable(f"{self._discovery} has no issuer and jwks_uri in JSON") from None
        if provider.issuer != self.issuer:
            raise AccessUnavailable(f"{self._discovery} is of {provider.issuer[:200]!r}, not of {self.issuer!r}")
        if not provider.jwks_uri.startswith("https://"):
            raise AccessUnavailable(f"{self._discovery} names a jwks_uri that is not https")
        return provider.jwks_uri

    async def close(self) -> None:
        """Ends what is being asked."""
        await self._asking.close()


def _read(content: bytes, url: str) -> list[PublicKey]:
    """A key set's keys of the kinds that are used; others are left out. Raises AccessUnavailable."""
    try:
        found = msgspec.json.decode(content, type=_KeySet).keys
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise AccessUnavailable(f"{url} is no key set in JSON") from None
    keys: list[PublicKey] = []
    for one in found:
        # As in go-jose, what a key says of its use is not looked at: some issuers say "enc" of all. Private parts are
        # left where they are.
        public = {name: value for name, value in one.items() if name in ("kty", "kid", "n", "e", "crv", "x", "y")}
        try:
            if public.get("kty") == "RSA":
                keys.append(RSAKey.import_key(public))
            elif public.get("kty") == "EC":
                keys.append(ECKey.import_key(public))
        except (JoseError, ValueError, TypeError, KeyError):
            log.warning("a key of an issuer cannot be used", url=url, key=str(one.get("kid", ""))[:200])
    return keys
