"""Who certifies a cluster's server: what the kubeconfig has inline, or a file that is read again as it changes."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor

import structlog

from producers.credentials.credential import BadCredentials
from producers.credentials.files import read_file
from producers.credentials.shared_work import OffLoop, SharedWork
from producers.kubeconfig.entries import Cluster
from producers.kubeconfig.model import BadKubeconfig
from producers.timing import ProducerTiming
from producers.upstream.tls import authorities_in

log = structlog.get_logger("producers.upstream.authority")


class Authority:
    """The authorities of one cluster, now. A file that cannot be used keeps those that were read from it before.

    `timing.reload_credentials_every`: seconds between two looks at the file, each at a request (client-go
    transport/ca_rotation.go). Close it.
    """

    def __init__(self, cluster: Cluster, where: str, threads: Executor, timing: ProducerTiming) -> None:
        self._path = "" if cluster.authority_data else cluster.authority_file
        self._data = cluster.authority_data
        self._where = where
        self._timing = timing
        self._file = OffLoop(threads, self._content_of_file, f"certificate-authority {self._path}")
        self._read: bytes | None = None
        self._content = b""
        self._looked = float("-inf")
        self._looking = SharedWork(self._look)

    async def current(self) -> bytes:
        """Certificates in PEM; empty: those of the system. Raises BadKubeconfig, BadCredentials."""
        if not self._path and not self._data:
            return b""
        if self._read is None:
            return await self._looking.result()
        due = time.monotonic() - self._looked > self._timing.reload_credentials_every
        if self._path and due and not self._looking.under_way:
            # Those of before do while the file is read, which may hang: only who begins that waits a little.
            await asyncio.wait((self._looking.begin(),), timeout=self._timing.credential_files / 10)
        return self._read

    async def close(self) -> None:
        """Ends looking."""
        await self._looking.close()

    def _content_of_file(self) -> bytes:
        return read_file(self._path, "certificate-authority")

    async def _look(self) -> bytes:
        what = f"certificate-authority {self._path}" if self._path else "certificate-authority-data"
        try:
            content = await self._file.result(self._timing.credential_files) if self._path else self._data
            if content != self._content or self._read is None:
                self._read = authorities_in(content, f"{self._where}: {what}")
                self._content = content
        except BadCredentials as cause:
            self._keep(f"{self._where}: {cause}")
        except BadKubeconfig as cause:
            self._keep(str(cause))
        finally:
            self._looked = time.monotonic()
        assert self._read is not None
        return self._read

    def _keep(self, problem: str) -> None:
        """Raises BadKubeconfig if nothing was read before."""
        if self._read is None:
            raise BadKubeconfig(problem) from None
        log.warning("authorities cannot be read anew", reason=problem)
