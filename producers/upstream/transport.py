"""Requests to one server over as few connections as it allows: HTTP/2 where it speaks it, else HTTP/1.1."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Response(Protocol):
    """An answer whose body is read as it comes; who does not read holds the server back, not others' streams."""

    status: int
    reason: str
    headers: Mapping[str, str]

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces, decompressed unless asked for as it is. Raises TransportError."""
        ...

    async def read(self, limit: int | None = None) -> bytes:
        """The whole body, or its beginning. Raises TransportError."""
        ...


class Transport(Protocol):
    """The connections to one server with one set of TLS settings."""

    def request(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        body: bytes | AsyncIterator[bytes] | None = None,
        *,
        silence: float | None = None,
        decompress: bool = True,
    ) -> AbstractAsyncContextManager[Response]:
        """Sends a request; the block has the answer. `path` with its query, encoded; redirects are not followed.

        `silence`: seconds without a byte after which it is given up. Raises TransportError.
        """
        ...

    async def close(self) -> None:
        """Ends all connections, and requests under way."""
        ...
