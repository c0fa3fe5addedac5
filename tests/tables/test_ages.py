"""Ages: the table of spans, and timestamps that are and are not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.tables.ages import human_duration, seconds_since_epoch

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"),
        (-1.9, "0s"),
        (-0.5, "0s"),
        (0, "0s"),
        (0.9, "0s"),
        (1, "1s"),
        (119.99, "119s"),
        (2 * MINUTE, "2m"),
        (2 * MINUTE + 1, "2m1s"),
        (9 * MINUTE + 59, "9m59s"),
        (10 * MINUTE, "10m"),
        (10 * MINUTE + 1, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + 5 * MINUTE, "3h5m"),
        (8 * HOUR - 1, "7h59m"),
        (8 * HOUR, "8h"),
        (8 * HOUR + 59 * MINUTE, "8h"),
        (48 * HOUR - 1, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + HOUR, "2d1h"),
        (8 * DAY - 1, "7d23h"),
        (8 * DAY, "8d"),
        (8 * DAY + 23 * HOUR, "8d"),
        (2 * YEAR - 1, "729d"),
        (2 * YEAR, "2y"),
        (2 * YEAR + DAY, "2y1d"),
        (8 * YEAR - 1, "7y364d"),
        (8 * YEAR, "8y"),
        (8 * YEAR + 100 * DAY, "8y"),
        (10_000 * YEAR, "292y"),
    ],
)
def test_spans_are_written_as_kubectl_shows_them(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("2026-01-05T10:11:12Z", 1767607872.0),
        ("2026-01-05T12:11:12+02:00", 1767607872.0),
        ("2026-01-05T10:11:12.500000Z", 1767607872.5),
        ("2026-01-05T10:11:12.123456789Z", 1767607872.123456),
        (None, None),
        ("", None),
        ("0001-01-01T00:00:00Z", None),
        ("2026-01-05", None),
        ("2026-01-05T10:11:12", None),
        ("2026-13-05T10:11:12Z", None),
        ("yesterday", None),
        ("9999-12-31T23:59:59-23:59", 253402387139.0),
    ],
)
def test_timestamps(text: str | None, seconds: float | None) -> None:
    assert seconds_since_epoch(text) == seconds


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    assert seconds_since_epoch(text) is None or isinstance(seconds_since_epoch(text), float)
