"""Health: what /readyz says of the parts of a process, as data; and the lines that it is shown as, in one place.

The lines are a kube-apiserver's (k8s.io/apiserver pkg/server/healthz: handleRootHealth), which marks what passed by
`[+]` and what failed by `[-]`. `[!]` is ours: it does not keep a process from being ready.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """How a check ended; the value is its mark in a line."""

    PASSED = "+"
    WARNING = "!"
    FAILED = "-"


class Check(NamedTuple):
    """What is said of one part of a process, e.g. `Check(Severity.FAILED, "leases are not shared yet")`."""

    severity: Severity
    text: str

    @property
    def line(self) -> str:
        """As it is shown, one line whatever names it has: `[-]leases are not shared yet`."""
        text = self.text
        if not text.isprintable():
            text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
        return f"[{self.severity}]{text}"

    @classmethod
    def of(cls, line: str) -> Check:
        """The check that a line shows, e.g. `[-]leases are not shared yet`; a line without a mark is a warning."""
        for severity in Severity:
            if line.startswith(f"[{severity}]"):
                return cls(severity, line[3:])
        return cls(Severity.WARNING, line)


def passed(text: str) -> Check:
    """A part that is as it should be."""
    return Check(Severity.PASSED, text)


def warning(text: str) -> Check:
    """A part of which something is wrong, though the process is ready."""
    return Check(Severity.WARNING, text)


def failed(text: str) -> Check:
    """A part for which the process is not ready."""
    return Check(Severity.FAILED, text)


def ready(checks: Iterable[Check]) -> bool:
    """Whether none of these failed, so that the process is ready."""
    return all(check.severity is not Severity.FAILED for check in checks)


def report(checks: Iterable[Check], name: str = "readyz") -> str:
    """The verbose text of an endpoint such as /readyz: a line for each check, and whether all passed."""
    checks = list(checks)
    end = f"{name} check {'passed' if ready(checks) else 'failed'}"
    return "\n".join([*(check.line for check in checks), end]) + "\n"
