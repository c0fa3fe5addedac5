"""Health: what /readyz says, as data and as the lines of a kube-apiserver."""

from __future__ import annotations

import pytest

from query.http.health import Check, Severity, failed, passed, ready, report, warning


def test_lines_and_the_last_one() -> None:
    checks = [passed("log replayed to index 7"), warning("cluster a is stale: gone"), passed("cluster b ok")]
    assert report(checks) == (
        "[+]log replayed to index 7\n[!]cluster a is stale: gone\n[+]cluster b ok\nreadyz check passed\n"
    )
    checks.append(failed("cluster c: its types are being discovered"))
    assert report(checks).endswith("[-]cluster c: its types are being discovered\nreadyz check failed\n")
    assert report([passed("ping ok")], "livez") == "[+]ping ok\nlivez check passed\n"


def test_only_what_failed_keeps_a_process_from_being_ready() -> None:
    assert ready([])
    assert ready([passed("a"), warning("b")])
    assert not ready([passed("a"), failed("b")])


@pytest.mark.parametrize("severity", list(Severity))
def test_lines_are_read_as_they_are_written(severity: Severity) -> None:
    check = Check(severity, "[x] text: of [-] any kind")
    assert Check.of(check.line) == check


def test_a_line_without_a_mark_is_a_warning() -> None:
    assert Check.of("of another release") == Check(Severity.WARNING, "of another release")


def test_a_check_is_one_line_whatever_it_names() -> None:
    check = failed("cluster a\n[+]cluster b ok\x1b[31m is stale: gr\u00fcn")
    assert check.line == "[-]cluster a\\n[+]cluster b ok\\x1b[31m is stale: gr\u00fcn"
