"""Verdicts: what authorizers answer about one cluster; about all of them, see `materializer.visible`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from materializer.visible import EVERYTHING, Visible

__all__ = ["ALLOWED", "EVERYTHING", "NO_OPINION", "Decision", "Verdict", "Visible"]


class Decision(Enum):
    """k8s.io/apiserver pkg/authorization/authorizer: the first authorizer that allows or denies decides."""

    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, the reason for it, and what went wrong meanwhile ("" for none)."""

    decision: Decision
    reason: str = ""
    error: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the request may go on."""
        return self.decision is Decision.ALLOW


ALLOWED = Verdict(Decision.ALLOW)
NO_OPINION = Verdict(Decision.NO_OPINION)
