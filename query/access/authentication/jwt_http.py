"""Requests to an issuer of tokens: its documents, over HTTPS alone, within bounds."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass

import aiohttp

from query.access.errors import AccessUnavailable

_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=\"?(\d{1,10})", re.IGNORECASE)
_UNCACHED = re.compile(r"(?:^|[\s,])no-(?:cache|store)\b", re.IGNORECASE)
# More than any key set has.
_LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class IssuerDocument:
    """What an issuer answered. `max_age`: seconds for which it may be kept, as it says; None: it says nothing."""

    content: bytes
    max_age: float | None


class IssuerClient:
    """A client for one issuer. Who makes it closes it.

    `authorities`: PEM of those that the issuer's certificate must be of; "": the system's. `patience`: seconds for one
    answer, as kube-apiserver has it.
    """

    def __init__(self, authorities: str = "", *, patience: float = 30.0) -> None:
        self._authorities, self._patience = authorities, patience
        self._session: aiohttp.ClientSession | None = None

    async def get(self, url: str) -> IssuerDocument:
        """A document.

        Raises:
            AccessUnavailable: there is no answer in time, none of 200, one that is too large, or one not over HTTPS.
        """
        try:
            async with self._opened().get(url, max_redirects=5) as answer:
                if any(hop.url.scheme != "https" for hop in (*answer.history, answer)):
                    raise AccessUnavailable(f"{url} leads to a URL that is not https")
                if answer.status != 200:
                    raise AccessUnavailable(f"{url} answered {answer.status}")
                content = bytearray()
                async for chunk in answer.content.iter_any():
                    content += chunk
                    if len(content) > _LARGEST:
                        raise AccessUnavailable(f"{url} answered more than {_LARGEST // 1024} KiB")
                return IssuerDocument(bytes(content), _max_age(answer.headers.get("Cache-Control", "")))
        except TimeoutError:
            raise AccessUnavailable(f"{url} did not answer within {self._patience:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as cause:
            said = " ".join(str(cause).split())[:200] or type(cause).__name__
            raise AccessUnavailable(f"{url} cannot be read: {said}") from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cadata=self._authorities or None)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=4),
                timeout=aiohttp.ClientTimeout(total=self._patience),
                # What is unpacked has no bound.
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,
            )
        return self._session

    async def close(self) -> None:
        """Ends its connections."""
        if self._session is not None:
            await self._session.close()


def _max_age(header: str) -> float | None:
    if _UNCACHED.search(header):
        return 0.0
    found = _MAX_AGE.search(header)
    return None if found is None else float(found[1])
