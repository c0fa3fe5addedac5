"""Ages: timestamps read as seconds, spans of time written as `kubectl get` shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

UNKNOWN = "<unknown>"
"""What the server prints for the age of a timestamp that is not set."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST = 2_562_047
"""A Go duration ends at 2^63 ns, so many hours (292 years), and stays there."""

_ZERO_TIME = -62135596800.0
"""The first second of year 1, which Go takes for a time that is not set."""


def seconds_since_epoch(text: str | None) -> float | None:
    """An RFC 3339 timestamp as unix seconds; None if it is missing, broken or Go's zero time."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        # ISO 8601 has forms that RFC 3339 has not: dates alone, local times, weeks, no dashes.
        if at.tzinfo is None or text[10] not in "Tt":
            return None
        since = (at - _EPOCH).total_seconds()
    except (ValueError, OverflowError, IndexError):
        return None
    return None if since == _ZERO_TIME else since


def human_duration(seconds: float) -> str:
    """A span in at most two units: `5m30s`, `3h`, `12d` (apimachinery/pkg/util/duration: HumanDuration).

    Clocks of two machines differ: less than two seconds in the future count as now.
    """
    whole = int(seconds)
    if whole >= 28800:
        return _hours(whole // 3600)
    if whole < 120:
        if whole < -1:
            return "<invalid>"
        return f"{whole}s" if whole > 0 else "0s"
    minutes = whole // 60
    if minutes < 10:
        rest = whole % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    rest = minutes % 60
    return f"{minutes // 60}h{rest}m" if rest else f"{minutes // 60}h"


def age_text(seconds: int) -> bytes:
    """`human_duration` as it stands in JSON."""
    if seconds >= 28800:
        return _hours_text(seconds // 3600)
    return human_duration(seconds).encode()


@lru_cache(maxsize=16384)
def _hours_text(hours: int) -> bytes:
    return _hours(hours).encode()


@lru_cache(maxsize=16384)
def _hours(hours: int) -> str:
    """A span of eight hours or more, which whole hours tell: most objects are old, and many are equally old."""
    hours = min(hours, _LONGEST)
    if hours < 48:
        return f"{hours}h"
    days, rest = divmod(hours, 24)
    if hours < 192:
        return f"{days}d{rest}h" if rest else f"{days}d"
    if days < 730:
        return f"{days}d"
    years, rest = divmod(days, 365)
    return f"{years}y{rest}d" if rest and years < 8 else f"{years}y"
