"""Visible: what of the objects of a type, over all clusters, may be seen by who asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from materializer.filter import Spaces


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

    @cached_property
    def scope(self) -> tuple[frozenset[str] | None, Spaces | None]:
        """Parts of a `Filter`: the clusters, None for all, and the namespaces of those of which not all may be seen."""
        if self.whole:
            return None, None
        spaces = {cluster: within for cluster, within in self.clusters.items() if within is not None}
        return frozenset(self.clusters), Spaces(spaces) if spaces else None

    def sees(self, cluster: str, namespace: str) -> bool:
        """Whether an object may be seen, by its place. O(1)."""
        if self.whole:
            return True
        within = self.clusters.get(cluster, frozenset())
        return within is None or namespace in within

    @property
    def empty(self) -> bool:
        """Whether nothing may be seen."""
        return not self.whole and not self.clusters


EVERYTHING = Visible(whole=True)
