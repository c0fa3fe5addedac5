"""Quantities: the examples of k8s.io/apimachinery pkg/api/resource/quantity_test.go as numbers, and what is none."""

from __future__ import annotations

import pytest

from query.search.quantities import parse_quantity


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0", 0),
        ("100", 100),
        ("100m", 0.1),
        ("-5n", -5e-9),
        ("3u", 3e-6),
        ("1k", 1_000),
        ("5M", 5_000_000),
        ("2G", 2_000_000_000),
        ("1T", 10**12),
        ("1P", 10**15),
        ("1E", 10**18),
        ("1Ki", 1024),
        ("1.5Gi", 1610612736),
        ("8Ti", 8 * 2**40),
        ("1Pi", 2**50),
        ("1Ei", 2**60),
        ("1e3", 1000),
        ("1E3", 1000),
        ("25e-1", 2.5),
        ("+.5", 0.5),
        ("3.", 3),
    ],
)
def test_what_they_say(text: str, wanted: float) -> None:
    assert parse_quantity(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "Mi", "1 Mi", "1mi", "1KI", "1.5.1", "--1", "1e", "1e300", "0x10", "1MiB", "9" * 99]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        parse_quantity(text)
