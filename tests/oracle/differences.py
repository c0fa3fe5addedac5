"""Where kubebraid does something else than kubectl, deliberately, and why; docs/kubeconfig.md says the same.

Everything else is a fault: a case that differs and is not here, and an entry here whose cases do not differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tests.oracle.recorded import Outcome


@dataclass(frozen=True, slots=True)
class Difference:
    """`cases`: a pattern that a case's `family/title` matches as a whole. `ours`: what we do instead.

    `may`: whether some of those cases do not differ, as chance in them decides.
    """

    cases: str
    ours: Literal["refuses", "answers", "another way"]
    reason: str
    may: bool = False

    def covers(self, name: str) -> bool:
        """Whether it is about a case."""
        return re.fullmatch(self.cases, name, re.DOTALL) is not None

    def as_said(self, theirs: Outcome, ours: Outcome) -> bool:
        """Whether the two outcomes differ in the way that this one says."""
        if self.ours == "refuses":
            return ours.refused and not theirs.refused
        if self.ours == "answers":
            return ours.answered and not theirs.answered
        return ours != theirs


DIFFERENCES: tuple[Difference, ...] = ()


def difference_of(name: str) -> Difference | None:
    """The deliberate difference that a case is to show, if any."""
    return next((one for one in DIFFERENCES if one.covers(name)), None)
