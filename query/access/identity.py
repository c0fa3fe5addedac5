"""Identity: who asks; see `query.identity`."""

from __future__ import annotations

from query.identity import (
    ANONYMOUS,
    AUTHENTICATED,
    MASTERS,
    NOBODY,
    SERVICE_ACCOUNT,
    SERVICE_ACCOUNTS,
    UNAUTHENTICATED,
    Identity,
)

__all__ = [
    "ANONYMOUS",
    "AUTHENTICATED",
    "MASTERS",
    "NOBODY",
    "SERVICE_ACCOUNT",
    "SERVICE_ACCOUNTS",
    "UNAUTHENTICATED",
    "Identity",
]
