"""Verdicts: what authorizers answer about one cluster, and what of all clusters a user may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


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


@dataclass(frozen=True)
class Visible:
    """What of a LIST or WATCH over all clusters may be seen: nothing but what it names.

    - `whole`: everything, of clusters that are yet to come, too; `clusters` is empty then.
    - `clusters`: by the name of a cluster its namespaces, None for all of it, of cluster-scoped objects too.
    - `undecided`: whether clusters are left out because their rules are not known, or too old.

    Example: `Visible(clusters={"alpha": None, "bravo": frozenset({"web"})})`.
    """

    whole: bool = False
    clusters: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    undecided: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing may be seen."""
        return not self.whole and not self.clusters


EVERYTHING = Visible(whole=True)
