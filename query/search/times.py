"""Times in searches: RFC 3339, date and time, a date, and Unix time in seconds or milliseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from query.http.status import ApiError


def parse_time(name: str, text: str) -> int | None:
    """A time as whole seconds since 1970, rounded up; None for an empty text.

    `2026-01-31T12:00:00Z`, `2026-01-31 12:00:00`, `2026-01-31` (both UTC), `1769860800`, `1769860800000`. Creation
    times are whole seconds: at or after 1.5 s is at or after 2 s. `name`: the parameter's, for the error.

    Raises:
        ApiError: 400, it is no time.
    """
    text = text.strip()
    if not text:
        return None
    if re.fullmatch(r"[0-9]{10}", text):
        return int(text)
    if re.fullmatch(r"[0-9]{13}", text):
        return -(-int(text) // 1000)
    # What a URL's query has for `+02:00`, if the plus sign was not escaped.
    zoned = re.sub(r"(T\S*) (\d\d:?\d\d)$", r"\1+\2", text)
    try:
        found = datetime.fromisoformat(zoned)
    except ValueError:
        raise ApiError(
            400,
            f"{name}: {text[:64]!r} is no time; write 2026-01-31T12:00:00Z, 2026-01-31 12:00:00, 2026-01-31, "
            "or Unix time in seconds or milliseconds",
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    seconds = found.timestamp()
    return int(seconds) + (seconds > int(seconds))
