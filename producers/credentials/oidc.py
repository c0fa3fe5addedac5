"""Users of an OpenID Connect provider: an id-token while it lasts, then a new one for the refresh token.

Rules: k8s.io/client-go plugin/pkg/client/auth/oidc/oidc.go.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

import structlog

from deltalog.jetstream.backoff import Backoff, Once
from producers.credentials.credential import BadCredentials, Presented
from producers.credentials.identity_provider import IdentityProvider, TokenRefused, Tokens
from producers.credentials.kubeconfig_tokens import (
    ID_TOKEN,
    REFRESH_TOKEN,
    RefreshLock,
    read_tokens,
    write_tokens,
)
from producers.credentials.shared_work import SharedWork
from producers.credentials.static import bearer
from producers.kubeconfig.entries import AuthProvider
from producers.timing import ProducerTiming

log = structlog.get_logger("producers.credentials.oidc")

# An id-token counts as expired so many seconds before it is, for clocks that differ.
_LEEWAY = 10.0
# A refresh under way when all is closed may have spent its token: so long its answer is waited for.
_PATIENCE = 5.0
_RAW_URL = re.compile(r"[A-Za-z0-9_-]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)


def id_token_expiry(id_token: str) -> float:
    """When an id-token expires, in seconds since 1970; one that does not say so has expired. Raises BadCredentials.

    Only what it says is looked at: whether it is genuine is for the server to see.
    """
    parts = id_token.split(".")
    if len(parts) != 3:
        raise BadCredentials("id-token is no JSON Web Token: three parts with dots between them are expected")
    payload = parts[1].replace("\r", "").replace("\n", "")
    if not _RAW_URL.fullmatch(payload) or len(payload) % 4 == 1:
        raise BadCredentials("id-token is no JSON Web Token: its second part is no base64url without padding")
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        raise BadCredentials("id-token is no JSON Web Token: its second part is no JSON") from None
    if claims is None:
        return float("-inf")
    if not isinstance(claims, dict):
        raise BadCredentials("id-token is no JSON Web Token: its second part is no JSON object")
    if "exp" not in claims:
        return float("-inf")
    said = claims["exp"]
    if isinstance(said, str) and _NUMBER.fullmatch(said):
        said = float(said)
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise BadCredentials("id-token: its exp is no number")
    # Go has it in 64 bits; what does not fit becomes the smallest.
    return float(int(said)) if -(2**63) <= said < 2**63 else float("-inf")


class OidcUser:
    """One user of a provider, for all clusters that name the entry. Tokens are renewed by one task at a time.

    Before that the kubeconfig is looked at: kubectl, or another process of ours, may have renewed them. Afterwards they
    are written there; where that fails they are kept here, and written later.
    """

    def __init__(
        self,
        provider: AuthProvider,
        identity: IdentityProvider,
        threads: Executor,
        timing: ProducerTiming,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file, self._entry = provider.file, provider.entry
        self._identity = identity
        self._threads = threads
        self._timing = timing
        self._clock = clock
        self._tokens = tokens_of(provider)
        # What the file was last seen to have, and whether ours have still to be written there.
        self._in_file = self._tokens
        self._unwritten = False
        self._write_again = 0.0
        self._say_unwritten = Once(lambda reason: log.warning("tokens cannot be written back", reason=reason))
        self._failure = ""
        self._backoff = Backoff(*timing.identity_provider_backoff)
        self._not_before = float("-inf")
        self._known: tuple[str, float] = ("", float("-inf"))
        # What a thread last began with the kubeconfig, and what that is: it may hang, on a dead file server.
        self._with_file: asyncio.Future[None] | None = None
        self._what = ""
        self._renewing = SharedWork(self._renew)
        self._writing = SharedWork(self._write)

    def offer(self, provider: AuthProvider) -> None:
        """The entry as the kubeconfig has it now: taken if somebody else has changed it."""
        self._adopt(tokens_of(provider))

    def _adopt(self, found: Tokens) -> bool:
        if found == self._in_file:
            return False
        self._in_file = self._tokens = found
        self._unwritten = False
        self._not_before = float("-inf")
        return True

    def _valid(self) -> bool:
        """Whether there is an id-token that can be shown. Raises BadCredentials for one that is none."""
        token = self._tokens.id_token
        if not token:
            return False
        if self._known[0] != token:
            self._known = (token, id_token_expiry(token))
        return self._clock() + _LEEWAY < self._known[1]

    async def current(self) -> Presented:
        """An id-token as it is now. Raises BadCredentials."""
        if self._valid():
            if self._unwritten and not self._writing.under_way and self._loop_time() >= self._write_again:
                self._writing.begin()
            return self._shown()
        if self._loop_time() < self._not_before:
            if self._failure:
                raise BadCredentials(self._failure)
            return self._shown()
        return await self._renewing.result()

    def _shown(self) -> Presented:
        return bearer(self._tokens.id_token, "id-token")

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()

    @property
    def waits_for(self) -> str:
        if not self._renewing.under_way:
            return ""
        if self._with_file is not None and not self._with_file.done():
            return f"kubeconfig {self._file} has not been {self._what} yet"
        return f"{self._identity.name} has not answered yet"

    async def refused(self, shown: Presented) -> None:
        """Nothing: as with kubectl a 401 renews no id-token; who has logged in anew has changed the kubeconfig."""

    async def close(self) -> None:
        try:
            await self._renewing.close(_PATIENCE)
        finally:
            await self._writing.close(_PATIENCE)

    async def _renew(self) -> Presented:
        try:
            await self._renewed()
            shown = self._shown()
        except BadCredentials as problem:
            self._failure = str(problem)
            self._not_before = self._loop_time() + self._backoff.pause()
            raise
        self._failure = ""
        if self._valid():
            self._backoff.reset()
            self._not_before = float("-inf")
        else:
            # The clocks differ, or it is made for seconds: shown it is, but not renewed with each request.
            self._not_before = self._loop_time() + self._backoff.pause()
        return shown

    async def _renewed(self) -> None:
        lock = RefreshLock(self._file, self._timing.kubeconfig_lock) if self._file else None
        try:
            if lock is not None:
                await self._in_thread(lock.take, "read")
                await self._look()
                if self._valid():
                    return
            await self._refresh()
        finally:
            if lock is not None:
                lock.release()

    async def _refresh(self) -> None:
        asked_with = self._tokens.refresh_token
        if not asked_with:
            raise BadCredentials(
                "no valid id-token, and no refresh-token to get one: log in again, for instance with kubectl's "
                "plugin oidc-login"
            )
        try:
            tokens = await self._identity.refresh(asked_with)
        except TokenRefused:
            # kubectl may have used it, and have written what it got.
            if await self._look() and self._valid():
                return
            raise
        self._tokens = Tokens(tokens.id_token or self._tokens.id_token, tokens.refresh_token or asked_with)
        if self._tokens != self._in_file:
            self._unwritten = True
            await self._write()
        if not tokens.id_token:
            raise BadCredentials(
                f"{self._identity.name} gave no id_token: it has none for refresh tokens, or the login did not ask for "
                "the scope openid"
            )

    async def _look(self) -> bool:
        """Takes what the file has if that is new; whether it was. Raises BadCredentials where it takes too long."""
        if not self._file:
            return False
        found: Tokens | None = None

        def read() -> None:
            nonlocal found
            found = read_tokens(self._file, self._entry)

        await self._in_thread(read, "read")
        return found is not None and self._adopt(found)

    async def _write(self) -> None:
        if not self._file:
            self._unwritten = False
            return
        tokens = self._tokens
        try:
            write = partial(write_tokens, self._file, self._entry, tokens, self._timing.kubeconfig_lock)
            await self._in_thread(write, "written")
        except BadCredentials as problem:
            self._write_again = self._loop_time() + self._timing.identity_provider_backoff[1]
            self._say_unwritten(f"{problem}; until then this process alone has them")
            return
        self._say_unwritten.clear()
        self._in_file = tokens
        self._unwritten = self._tokens != tokens

    async def _in_thread(self, call: Callable[[], None], what: str) -> None:
        """Runs what reads or writes the kubeconfig, behind what was begun before: tokens are written in their order.

        A write under way when who waits for it is cancelled is waited for all the same. Raises BadCredentials where it
        takes longer than a file and a lock on it may; it goes on then, and takes one thread.
        """
        loop = asyncio.get_running_loop()
        limit = self._timing.credential_files + self._timing.kubeconfig_lock
        until = loop.time() + limit
        late = BadCredentials(f"kubeconfig {self._file} could not be {what} within {limit:g} s")
        while (before := self._with_file) is not None and not before.done():
            if loop.time() >= until:
                raise late
            await asyncio.wait((before,), timeout=until - loop.time())
        try:
            running = self._with_file = loop.run_in_executor(self._threads, call)
        except RuntimeError:
            raise BadCredentials("closed: this process is ending") from None
        self._what = what
        # Nobody may be there any longer to see what it raises.
        running.add_done_callback(lambda future: future.cancelled() or future.exception())
        try:
            await asyncio.wait((running,), timeout=until - loop.time())
        except asyncio.CancelledError:
            # Tokens that are not written are a login that is lost, when this process ends.
            if what == "written":
                await asyncio.wait((running,), timeout=until - loop.time())
            raise
        if not running.done():
            raise late
        running.result()


def tokens_of(provider: AuthProvider) -> Tokens:
    """The tokens of an entry."""
    config = dict(provider.config)
    return Tokens(config.get(ID_TOKEN, ""), config.get(REFRESH_TOKEN, ""))
