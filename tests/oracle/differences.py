"""Where kubebraid does something else than kubectl, deliberately, and why; docs/kubeconfigs.md says the same.

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


DIFFERENCES: tuple[Difference, ...] = (
    Difference("files/no current context", "answers", "A file's only context needs no `current-context`."),
    Difference(
        "encodings/BOM within",
        "refuses",
        "A byte order mark is taken at the beginning of a file alone.",
    ),
    Difference(
        r"servers/server '(http://)?:PLAIN'",
        "refuses",
        "A `server` without a host is refused (kubectl asks this machine).",
    ),
    Difference(
        r"servers/server .*(\[0:0::1\]:PLAIN6|\[127\.0\.0\.1\]:PLAIN|１２７\.0\.0\.1:PLAIN|127\.0\.0\.1:0TLS)'",
        "another way",
        "The `Host` header has the usual notation of an address and a port.",
        may=True,
    ),
    Difference(
        r"servers/server 'http://localhost\.:PLAIN'",
        "answers",
        "`localhost.` is this machine, whatever DNS says.",
        may=True,
    ),
    Difference(
        "tls/tls-nameless .*",
        "answers",
        "A server's certificate without names (SAN) counts for its common name.",
    ),
    Difference(
        r"proxies/proxy with the cluster's options \d+",
        "another way",
        "A proxy with TLS is known by its own name, and is not told the cluster's `tls-server-name`.",
        may=True,
    ),
    Difference(
        r"users/token file 5: .*",
        "refuses",
        "A token has to be text in UTF-8.",
    ),
    Difference(
        "providers/oidc: valid, (TLS, bad data|authority not there)",
        "answers",
        "An authority of an identity provider is read when tokens are renewed.",
    ),
    Difference(
        "providers/locked",
        "answers",
        "Renewed tokens that cannot be written, as the file is locked, are used all the same, and a line says so.",
    ),
)


def difference_of(name: str) -> Difference | None:
    """The deliberate difference that a case is to show, if any."""
    return next((one for one in DIFFERENCES if one.covers(name)), None)
