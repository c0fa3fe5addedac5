"""TLS to instances: by what authority they are known, and the router's own certificate, from files that may change.

Only what the router says in a caller's name goes over connections that show its certificate. What callers show of
themselves, a token or nothing, goes over others: an instance would take them for the router, whose certificate may be
of an authority that it also knows users by.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from kubebraid.errors import InvalidInput
from query.http.tls import file_identities

log = structlog.get_logger("kubebraid.route.instance_tls")

# Seconds between two looks at the files, which are only looked at when an instance is asked.
_LOOK_EVERY = 1.0


class BadInstanceTls(InvalidInput):
    """An authority of instances or the router's own certificate cannot be used; one line with the file's path."""


@dataclass(frozen=True, slots=True)
class InstanceTlsFiles:
    """Paths of PEM files.

    `authority`: of the instances' certificates, None: those of the system. `certificate` and `key`: the router's own,
    as a client of theirs; None: it has none.
    """

    authority: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file of it."""
        return tuple(path for path in (self.authority, self.certificate, self.key) if path is not None)


@dataclass(frozen=True, slots=True)
class _Contexts:
    """How connections are made that show the router's certificate (`identified`), and the others."""

    plain: ssl.SSLContext
    identified: ssl.SSLContext


class InstanceTls:
    """What connections to instances are made with: of each new one, what the files have by then.

    Files that cannot be used leave what was read before, and are logged once.

    Raises:
        BadInstanceTls: the files cannot be used at the start.
    """

    def __init__(self, files: InstanceTlsFiles, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the files. Blocking."""
        self._files = files
        self._clock = clock
        self._seen = file_identities(files.all)
        self._contexts = _make(files)
        self._look_at = clock() + _LOOK_EVERY

    @property
    def identified(self) -> bool:
        """Whether the router has a certificate, by which instances take its word for who asks."""
        return self._files.certificate is not None

    async def context(self, *, named: bool) -> ssl.SSLContext:
        """What a connection is made with; `named`: one on which the router says who asks."""
        if (now := self._clock()) >= self._look_at:
            self._look_at = now + _LOOK_EVERY
            await self._look()
        return self._contexts.identified if named else self._contexts.plain

    async def _look(self) -> None:
        if (found := file_identities(self._files.all)) == self._seen:
            return
        self._seen = found
        try:
            self._contexts = await asyncio.to_thread(_make, self._files)
        except BadInstanceTls as problem:
            log.error(
                "what instances are asked with was changed and cannot be used: the former stays", reason=str(problem)
            )
        else:
            log.info("what instances are asked with was read anew", files=[str(path) for path in self._files.all])


def _make(files: InstanceTlsFiles) -> _Contexts:
    """Raises BadInstanceTls."""
    plain, identified = _context(files), _context(files)
    if files.certificate is not None:
        try:
            # It asks nobody for a password.
            identified.load_cert_chain(files.certificate, files.key, password="")
        except (OSError, ssl.SSLError, ValueError) as cause:
            raise BadInstanceTls(f"{files.certificate} and its key cannot be used: {_said(cause)}") from None
    return _Contexts(plain, identified)


def _context(files: InstanceTlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.authority)
    except (OSError, ssl.SSLError, ValueError) as cause:
        raise BadInstanceTls(f"{files.authority} has no authority that can be used: {_said(cause)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _said(cause: Exception) -> str:
    if isinstance(cause, ssl.SSLError):
        return cause.reason or "no PEM"
    return getattr(cause, "strerror", None) or type(cause).__name__
