"""A bearer token in a file that somebody else renews, as the kubelet does for pods.

Rules: k8s.io/client-go transport/token_source.go (NewCachedFileTokenSource), transport/round_trippers.go.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

import structlog

from producers.credentials.credential import BadCredentials, Presented
from producers.credentials.files import read_file
from producers.credentials.shared_work import OffLoop, SharedWork
from producers.credentials.static import bearer
from producers.timing import ProducerTiming

log = structlog.get_logger("producers.credentials.token_file")

# unicode.IsSpace, which is what Go trims; Python would trim some control characters too.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


class TokenFile:
    """The token of a file, trimmed, read again once it is `timing.token_file` seconds old and after a 401.

    What cannot be read leaves the token of before, or `token`, which stands beside the file in the kubeconfig.
    """

    def __init__(self, path: str, token: str, threads: Executor, timing: ProducerTiming) -> None:
        self._path = path
        self._timing = timing
        self._given = token
        self._shown: Presented | None = None
        self._said = ""
        # When it is read again, and when it was read last, by the event loop's clock.
        self._due = float("-inf")
        self._read_at = float("-inf")
        self._file = OffLoop(threads, self._read, f"tokenFile {path}")
        self._reading = SharedWork(self._renew)

    async def current(self) -> Presented:
        if self._shown is not None and asyncio.get_running_loop().time() < self._due:
            return self._shown
        if self._shown is None:
            return await self._reading.result()
        # The token of before does while the file is read, which may hang: only who begins that waits a little.
        if not self._reading.under_way:
            await asyncio.wait((self._reading.begin(),), timeout=self._timing.credential_files / 10)
        return self._shown

    @property
    def waits_for(self) -> str:
        return f"tokenFile {self._path} has not been read yet" if self._reading.under_way else ""

    async def refused(self, shown: Presented) -> None:
        if shown == self._shown:
            self._due = min(self._due, self._read_at + self._timing.reload_credentials_every / 5)

    async def close(self) -> None:
        await self._reading.close()

    async def _renew(self) -> Presented:
        loop = asyncio.get_running_loop()
        try:
            self._shown = await self._file.result(self._timing.credential_files)
            self._said, wait = "", self._timing.token_file
        except BadCredentials as problem:
            wait = self._timing.reload_credentials_every
            if self._shown is None and self._given:
                self._shown = bearer(self._given)
            if self._shown is None:
                raise
            if str(problem) != self._said:
                self._said = str(problem)
                log.warning("token file cannot be read, the token of before stays", reason=self._said)
        self._read_at = loop.time()
        self._due = self._read_at + wait
        return self._shown

    def _read(self) -> Presented:
        try:
            token = read_file(self._path, "tokenFile").decode().strip(_SPACE)
        except UnicodeDecodeError:
            raise BadCredentials(f"tokenFile {self._path} is no text in UTF-8") from None
        if not token:
            raise BadCredentials(f"tokenFile {self._path} is empty")
        return bearer(token, f"tokenFile {self._path}")
