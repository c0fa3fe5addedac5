"""The chain: several authorizers asked in order, of which the first that allows or denies decides.

k8s.io/apiserver pkg/authorization/union, and pkg/authorization/authorizerfactory for the built-in ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from query.access.authorization.attributes import Attributes
from query.access.authorization.rules import PolicyRule, SubjectRules
from query.access.authorization.verdicts import ALLOWED, EVERYTHING, NO_OPINION, Decision, Verdict, Visible
from query.access.errors import aggregate
from query.identity import Identity


@dataclass(frozen=True)
class Opinion:
    """What one authorizer says of a request over all clusters.

    - `visible`: what may be seen. `denied`: clusters of which no authorizer behind it may show more.
    - `undecided`: clusters whose rules it does not know; another one may.
    """

    visible: Visible
    denied: frozenset[str] = frozenset()
    undecided: frozenset[str] = frozenset()


NO_OPINION_OF_ANY = Opinion(Visible())


class Authorizer(Protocol):
    """Decides about requests. `decide_now` and `visible_now` answer at once, None where that takes waiting."""

    def decide_now(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict | None:
        """A decision about one cluster; `cluster` None: about a request to the root, for no cluster's objects."""
        ...

    async def decide(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """The same, waited for."""
        ...

    def visible_now(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion | None:
        """What of these clusters may be seen by a LIST or WATCH at the root, or by a GET of a path in each."""
        ...

    async def visible(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        """The same, waited for."""
        ...

    def rules(self, who: Identity, cluster: str | None, namespace: str) -> SubjectRules:
        """Which rules a user has; `cluster` None: in any cluster."""
        ...

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` when decisions may be others than before; returns what ends that."""
        ...

    async def run(self) -> None:
        """Whatever goes on in the background, until cancelled; it decides without it, too."""
        ...


@dataclass(frozen=True, slots=True)
class Always:
    """Decides the same about everything: AlwaysAllow and AlwaysDeny of kube-apiserver's `--authorization-mode`."""

    allows: bool = True

    def decide_now(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """Allow without a reason, or "Everything is forbidden."."""
        return ALLOWED if self.allows else _FORBIDDEN

    async def decide(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """The same."""
        return self.decide_now(who, cluster, what)

    def visible_now(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        """Everything, or nothing."""
        return _ALL if self.allows else NO_OPINION_OF_ANY

    async def visible(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        """The same."""
        return self.visible_now(who, what, clusters)

    def rules(self, who: Identity, cluster: str | None, namespace: str) -> SubjectRules:
        """All of it, or none."""
        return _ALL_RULES if self.allows else SubjectRules()

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Nothing changes."""
        return _nothing

    async def run(self) -> None:
        """Nothing goes on."""


def _nothing() -> None:
    pass


ALWAYS_ALLOW = Always()
ALWAYS_DENY = Always(allows=False)
_ALL = Opinion(EVERYTHING)
# authorizerfactory/builtin.go: alwaysDenyAuthorizer has no opinion, for this reason.
_FORBIDDEN = Verdict(Decision.NO_OPINION, "Everything is forbidden.")
_STARS = ("*",)
_ALL_RULES = SubjectRules((PolicyRule(_STARS, _STARS, _STARS), PolicyRule(_STARS, non_resource_urls=_STARS)))


# Unions over all clusters that are kept.
_UNIONS = 128


class Chain:
    """Authorizers in order. Members of system:masters are allowed everything, before any of them is asked.

    Example: `Chain([policy, MembersRbac(...)])` allows what the policy file does, and all that the RBAC of each cluster
    does. What none of them allows is not allowed.
    """

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self._authorizers = tuple(authorizers)
        # The union that was made last of what several say.
        self._unions: dict[tuple[Identity, Attributes], tuple[list[Opinion], Visible]] = {}

    def decide_now(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict | None:
        """`decide`, None if it has to wait for a server's answer."""
        if who.masters:
            return ALLOWED
        gathered = _Gathered()
        for authorizer in self._authorizers:
            verdict = authorizer.decide_now(who, cluster, what)
            if verdict is None:
                return None
            if gathered.take(verdict):
                return verdict
        return gathered.verdict()

    async def decide(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """What is decided about a request to one cluster. `cluster` None: to the root, for no cluster's objects.

        The first authorizer that allows or denies decides; if none does, the reasons of all are there, a line each.
        """
        if who.masters:
            return ALLOWED
        gathered = _Gathered()
        for authorizer in self._authorizers:
            verdict = authorizer.decide_now(who, cluster, what)
            if verdict is None:
                verdict = await authorizer.decide(who, cluster, what)
            if gathered.take(verdict):
                return verdict
        return gathered.verdict()

    def visible_now(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Visible | None:
        """`visible`, None if it has to wait for a server's answer."""
        if who.masters:
            return EVERYTHING
        if len(self._authorizers) == 1:
            only = self._authorizers[0].visible_now(who, what, clusters)
            return None if only is None else only.visible
        union = _Union(clusters)
        for authorizer in self._authorizers:
            if not union.open:
                break
            opinion = authorizer.visible_now(who, what, union.open)
            if opinion is None:
                return None
            union.take(opinion)
        return self._kept(who, what, union)

    async def visible(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Visible:
        """What of these clusters a LIST or WATCH at the root may show, or which have a path that may be read.

        The union of what the authorizers allow, of which one that denies a cluster ends it for this cluster.
        O(clusters) for each authorizer.
        """
        if (visible := self.visible_now(who, what, clusters)) is not None:
            return visible
        union = _Union(clusters)
        for authorizer in self._authorizers:
            if not union.open:
                break
            opinion = authorizer.visible_now(who, what, union.open)
            if opinion is None:
                opinion = await authorizer.visible(who, what, union.open)
            union.take(opinion)
        return self._kept(who, what, union)

    def _kept(self, who: Identity, what: Attributes, union: _Union) -> Visible:
        """What a union shows: the same object as last time if all say the same, as much is kept with it."""
        before = self._unions.get((who, what))
        if before is not None and before[0] == union.opinions:
            return before[1]
        if len(self._unions) >= _UNIONS:
            self._unions.clear()
        visible = union.visible()
        self._unions[who, what] = (union.opinions, visible)
        return visible

    def rules(self, who: Identity, cluster: str | None, namespace: str) -> SubjectRules:
        """The rules of a user, in the authorizers' order (pkg/authorization/union: RulesFor). system:masters as such
        have none, as in a kube-apiserver."""
        found = [authorizer.rules(who, cluster, namespace) for authorizer in self._authorizers]
        return SubjectRules(
            tuple(rule for one in found for rule in one.rules),
            any(one.incomplete for one in found),
            aggregate([one.error for one in found if one.error]),
        )

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` when decisions may be others than before; returns what ends that."""
        stops = [authorizer.listen(wake) for authorizer in self._authorizers]

        def stop() -> None:
            for one in stops:
                one()

        return stop

    async def run(self) -> None:
        """What authorizers do in the background, until cancelled: listeners are woken by it as soon as they can be."""
        async with asyncio.TaskGroup() as tasks:
            for one in self._authorizers:
                tasks.create_task(one.run(), name=f"authorizer-{type(one).__name__}")
            # Also where none of them does anything: whoever runs it takes its end for the end of all.
            await asyncio.Event().wait()


@dataclass
class _Gathered:
    """Reasons and errors of authorizers without an opinion."""

    reasons: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def take(self, verdict: Verdict) -> bool:
        """Whether a verdict decides."""
        if verdict.decision is not Decision.NO_OPINION:
            return True
        if verdict.reason:
            self.reasons.append(verdict.reason)
        if verdict.error:
            self.errors.append(verdict.error)
        return False

    def verdict(self) -> Verdict:
        if not self.reasons and not self.errors:
            return NO_OPINION
        return Verdict(Decision.NO_OPINION, "\n".join(self.reasons), aggregate(self.errors))


class _Union:
    """What several authorizers show together. `open`: the clusters of which the next one may show more."""

    def __init__(self, clusters: Collection[str]) -> None:
        self.open: Collection[str] = clusters
        self.opinions: list[Opinion] = []
        self._whole = False
        self._only: Visible | None = None
        self._shown: dict[str, frozenset[str] | None] = {}
        self._denied: frozenset[str] = frozenset()
        self._undecided: set[str] = set()

    def take(self, opinion: Opinion) -> None:
        if opinion.visible.whole and self._denied:
            # All that there is but for some: these clusters, and none that are yet to come.
            opinion = Opinion(Visible(clusters=dict.fromkeys(self.open)), opinion.denied, opinion.undecided)
        self.opinions.append(opinion)
        self._undecided |= opinion.undecided
        if opinion.visible.whole:
            self._whole = True
            self.open = ()
            return
        shown: Mapping[str, frozenset[str] | None] = opinion.visible.clusters
        if not self._shown and not self._denied and not opinion.denied:
            # Shared as it is with all who see the same, as long as no other authorizer shows anything.
            self._only = opinion.visible
            self._shown = dict(shown) if shown else {}
        else:
            if shown or opinion.denied:
                self._only = None
            for cluster, namespaces in shown.items():
                if cluster in self._denied:
                    continue
                before = self._shown.get(cluster, frozenset())
                self._shown[cluster] = None if before is None or namespaces is None else before | namespaces
        self._denied |= opinion.denied
        self.open = [one for one in self.open if self._shown.get(one, _NONE) is not None and one not in self._denied]

    def visible(self) -> Visible:
        if self._whole:
            return EVERYTHING
        undecided = any(self._shown.get(one, _NONE) is not None for one in self._undecided)
        if self._only is not None and self._only.undecided == undecided:
            return self._only
        return Visible(clusters=self._shown, undecided=undecided)


_NONE: frozenset[str] = frozenset()
