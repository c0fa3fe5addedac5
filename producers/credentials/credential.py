"""What a cluster is shown of who asks: headers and a client certificate, renewed by each kind in its own way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from producers.errors import ClusterUnavailable


class BadCredentials(ClusterUnavailable):
    """There are no credentials to be shown now; one line that says why, and the remedy; never a secret."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate with what stands behind it, and its key, unencrypted, both PEM."""

    chain: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Presented:
    """What is shown to a server with a request; equal ones are the same identity.

    `headers`: names and values as they are sent (Authorization, Impersonate-*); over plain http only impersonation and
    what the URL itself says are sent. A new `certificate` needs new connections, new headers do not.
    """

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    certificate: ClientCertificate | None = None


class Credential(Protocol):
    """Who we are to one cluster. Any number of requests may ask at once; what takes long is done once for all."""

    async def current(self) -> Presented:
        """What to show now. Raises BadCredentials."""
        ...

    @property
    def waits_for(self) -> str:
        """What `current` waits for now, for who gives up sooner: `plugin X has not answered yet`; empty: nothing."""
        ...

    async def refused(self, shown: Presented) -> None:
        """The server has answered 401 to what was shown: the next `current` may be another one. Does not raise."""
        ...

    async def close(self) -> None:
        """Ends what it has running: plugins, their children."""
        ...
