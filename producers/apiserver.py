"""A member cluster's API server: GET and streams of raw bytes, errors as Kubernetes means them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import structlog
from kubernetes_asyncio.client import ApiClient

from producers.kubeconfig import BadKubeconfig, Context

log = structlog.get_logger("producers.apiserver")

# Seconds to connect, and between two reads of an answer that is not a watch.
_CONNECT = 10.0
_READ = 60.0
# A changed token is looked for at most this often, in seconds.
_RELOAD_EVERY = 5.0


class Unreachable(Exception):
    """The API server cannot be reached, or broke off."""


class Refused(Exception):
    """The API server answered with an error. `retry_after` in seconds, from its header (429, 503)."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code} {reason or message}" if not message else f"{code} {message}")
        self.code = code
        self.reason = reason
        self.retry_after = retry_after

    @property
    def expired(self) -> bool:
        """410: the version is too old; only a new list helps."""
        return self.code == 410 or self.reason in ("Expired", "Gone")


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""


class ApiServer:
    """The connection to one member cluster, owned by its producer. Credentials are loaded anew after a 401."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._client: ApiClient | None = None
        self._loaded = 0.0
        self._lock = asyncio.Lock()

    @property
    def host(self) -> str:
        return str(self._client.configuration.host) if self._client is not None else ""

    async def _connected(self) -> ApiClient:
        if self._client is None:
            async with self._lock:
                if self._client is None:
                    self._client = await self.context.client()
                    self._loaded = time.monotonic()
        return self._client

    async def reload(self) -> None:
        """Takes the credentials as the kubeconfig has them now; streams under way break off and are resumed."""
        async with self._lock:
            if time.monotonic() - self._loaded < _RELOAD_EVERY:
                return
            self._loaded = time.monotonic()
            fresh = await self.context.client()
            old, self._client = self._client, fresh
            if old is not None:
                await old.close()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    @asynccontextmanager
    async def open(
        self, path: str, query: Mapping[str, str] | None = None, *, accept: str = "application/json", silence: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET whose answer is read as it comes; `silence`: seconds without a byte after which it is dead.

        Raises Refused for an error answer, Unreachable if there is none or it breaks off inside the block.
        """
        try:
            client = await self._connected()
            response: aiohttp.ClientResponse = await client.call_api(
                path,
                "GET",
                query_params=list((query or {}).items()),
                header_params={"Accept": accept},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT, sock_read=silence),
            )
            try:
                if response.status != 200:
                    await self._refuse(response)
                yield response
            finally:
                response.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as cause:
            raise Unreachable(f"{self.host}: {' '.join(str(cause).split()) or type(cause).__name__}") from cause
        except BadKubeconfig as cause:
            raise Unreachable(str(cause)) from cause

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        body = await response.content.read(64 * 1024)
        try:
            status = msgspec.json.decode(body, type=_Status)
        except msgspec.MsgspecError:
            status = _Status(message=body[:200].decode(errors="replace").strip())
        retry_after = None
        if (text := response.headers.get("Retry-After", "")).isdigit():
            retry_after = float(text)
        if response.status == 401:
            await self.reload()
        raise Refused(response.status, status.reason, status.message or str(response.reason or ""), retry_after)

    async def get(
        self, path: str, query: Mapping[str, str] | None = None, *, accept: str = "application/json"
    ) -> tuple[bytes, str]:
        """Body and content type of an answer. Raises Refused and Unreachable."""
        async with self.open(path, query, accept=accept, silence=_READ) as response:
            return await response.read(), response.headers.get("Content-Type", "")
