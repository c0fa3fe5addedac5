"""Who certifies a cluster's server: what the kubeconfig has inline, or a file that is read again as it changes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import structlog

from producers.kubeconfig.entries import Cluster
from producers.kubeconfig.model import BadKubeconfig
from producers.upstream.tls import authorities_in

log = structlog.get_logger("producers.upstream.authority")


class Authority:
    """The authorities of one cluster, now. A file that cannot be used keeps those that were read from it before.

    `every`: seconds between two looks at the file, each at a request (client-go transport/ca_rotation.go).
    """

    def __init__(self, cluster: Cluster, where: str, every: float) -> None:
        self._file = "" if cluster.authority_data else cluster.authority_file
        self._data = cluster.authority_data
        self._where = where
        self._every = every
        self._read: bytes | None = None
        self._content = b""
        self._looked = 0.0
        self._reading = asyncio.Lock()

    async def current(self) -> bytes:
        """Certificates in PEM; empty: those of the system. Raises BadKubeconfig."""
        if not self._file and not self._data:
            return b""
        if self._read is None or (self._file and time.monotonic() - self._looked > self._every):
            async with self._reading:
                if self._read is None or time.monotonic() - self._looked > self._every:
                    await self._look()
        return self._read or b""

    async def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            content = await asyncio.to_thread(Path(self._file).read_bytes) if self._file else self._data
            if content != self._content or self._read is None:
                what = f"certificate-authority {self._file}" if self._file else "certificate-authority-data"
                self._read = authorities_in(content, f"{self._where}: {what}")
                self._content = content
        except OSError as cause:
            self._keep(f"{self._where}: certificate-authority {self._file}: {cause.strerror}")
        except BadKubeconfig as cause:
            self._keep(str(cause))

    def _keep(self, problem: str) -> None:
        """Raises BadKubeconfig if nothing was read before."""
        if self._read is None:
            raise BadKubeconfig(problem) from None
        log.warning("authorities cannot be read anew", reason=problem)
