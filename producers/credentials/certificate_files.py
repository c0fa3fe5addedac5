"""A client certificate, checked off the event loop; one whose files somebody renews is read again when they change.

Rules: k8s.io/client-go transport/cert_rotation.go, transport/transport.go.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass

import structlog

from producers.credentials.credential import BadCredentials, ClientCertificate
from producers.credentials.files import Identity, file_identity, read_file
from producers.credentials.key_pairs import key_pair
from producers.credentials.shared_work import OffLoop, SharedWork
from producers.kubeconfig.entries import User
from producers.timing import ProducerTiming

log = structlog.get_logger("producers.credentials.certificate_files")


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read, and what the files were then."""

    files: tuple[Identity | None, Identity | None]
    pair: ClientCertificate


class CertificateFiles:
    """The certificate and key of a user, each a file or data. To check them takes 3 ms, which an event loop has not.

    Files are looked at every `timing.reload_credentials_every` seconds. Half-written ones, and those that do not belong
    together, leave the pair of before.
    """

    def __init__(self, user: User, threads: Executor, timing: ProducerTiming) -> None:
        self._user = user
        self._timing = timing
        self._known: _Read | None = None
        self._said = ""
        self._due = float("-inf")
        self._what = (
            f"client-certificate {user.certificate_file}" if user.certificate_file else "client-certificate-data"
        )
        self._files = OffLoop(threads, self._read, self._what)
        self._reading = SharedWork(self._renew)

    async def current(self) -> ClientCertificate:
        """The pair as it is now. Raises BadCredentials."""
        if self._known is None:
            return await self._reading.result()
        if asyncio.get_running_loop().time() >= self._due and not self._reading.under_way:
            await asyncio.wait((self._reading.begin(),), timeout=self._timing.credential_files / 10)
        return self._known.pair

    @property
    def waits_for(self) -> str:
        """What `current` is waiting for; empty: nothing."""
        return f"{self._what} has not been read yet" if self._reading.under_way else ""

    async def refused(self) -> None:
        """The server did not take it: files are looked at with the next `current`."""
        if self._due != float("inf"):
            self._due = min(self._due, asyncio.get_running_loop().time())

    async def close(self) -> None:
        await self._reading.close()

    async def _renew(self) -> ClientCertificate:
        try:
            self._known = await self._files.result(self._timing.credential_files)
            self._said = ""
        except BadCredentials as problem:
            if self._known is None:
                raise
            if str(problem) != self._said:
                self._said = str(problem)
                log.warning("client certificate cannot be read, the one of before stays", reason=self._said)
        user = self._user
        if user.certificate_data and user.key_data:
            self._due = float("inf")
        else:
            self._due = asyncio.get_running_loop().time() + self._timing.reload_credentials_every
        return self._known.pair

    def _read(self) -> _Read:
        user = self._user
        files = (file_identity(user.certificate_file), file_identity(user.key_file))
        if self._known is not None and files == self._known.files:
            return self._known
        certificate = user.certificate_data or read_file(user.certificate_file, "client-certificate")
        key = user.key_data or read_file(user.key_file, "client-key")
        return _Read(files, key_pair(certificate, key, self._what))
