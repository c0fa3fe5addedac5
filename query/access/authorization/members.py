"""Members: each cluster's own roles and bindings, as the log has them, decide about that cluster."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Set
from typing import Final, NamedTuple

import structlog

from deltalog.wire.kubernetes import GroupResource
from materializer.cluster_facts import ClusterFacts
from materializer.entry import Entry
from materializer.materializer import Materializer
from query.access.authorization.attributes import Attributes
from query.access.authorization.chain import Opinion
from query.access.authorization.names import Names
from query.access.authorization.rbac import CLUSTER_ROLES, ROLES, TYPES, ClusterRbac
from query.access.authorization.rules import PolicyRule, SubjectRules
from query.access.authorization.verdicts import EVERYTHING, NO_OPINION, Decision, Verdict, Visible
from query.identity import Identity

log = structlog.get_logger("query.access.members")

STALE_AFTER: Final = 300.0
"""Seconds for which the rules of a cluster that cannot be followed go on deciding."""

# What of a type's objects decides. Where a producer leaves one out, the rest must not be taken for all of it.
_DECIDING = frozenset({"rules", "subjects", "roleRef", "*"})
_ROLES = (CLUSTER_ROLES, ROLES)
# Seconds: between two looks of `run` at how old everything is; after which requests look if it does not, as that takes
# milliseconds where there are many clusters; and between two of `run` when much happens.
_LOOK_EVERY = 1.0
_LOOK_AT_LATEST = 1.5
_AT_MOST_EVERY = 0.05
# What an answer weighs without any cluster.
_EMPTY = 20
# Restrictions of one such answer to a namespace that it remembers.
_RESTRICTIONS = 16
# So many clusters are compiled without a pause for others: a millisecond each, where there are 160 objects.
_AT_ONCE = 8
_NONE: frozenset[str] = frozenset()


class _Key(NamedTuple):
    """What of a request over all clusters matters here."""

    who: Identity
    verb: str
    group: str
    resource: str
    subresource: str
    name: str
    path: str


class _Answer:
    """What may be seen of all clusters as of change `at`, and the same within one namespace."""

    __slots__ = ("at", "visible", "weight", "within")

    def __init__(self, at: int, visible: Visible) -> None:
        self.at = at
        self.visible = visible
        self.within: dict[str, Visible] = {}
        # An empty one takes memory, too, and users may ask for any word.
        self.weight = _EMPTY + sum(1 + len(one or ()) for one in visible.clusters.values())


class MembersRbac:
    """RBAC of all clusters, kept equal to a materializer's store.

    A cluster whose rules are not known, or are those of longer than `stale_after` seconds ago, decides nothing:
    nothing of it is allowed. `names`: who users are in each cluster. `most`: how many clusters and namespaces answers
    remember, all together.

    Answers are remembered until rules change: `visible` of a user over 1,000 clusters is one look-up where nothing has.
    It needs no task of its own to be right; `run` has listeners woken when time, and not an object, changes what is
    decided, and compiles clusters before they are asked about.
    """

    def __init__(
        self,
        materializer: Materializer,
        *,
        stale_after: float = STALE_AFTER,
        names: Names | None = None,
        most: int = 1_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._materializer = materializer
        self._stale_after = stale_after
        self._most = most
        self._clock = clock
        self.names = Names() if names is None else names
        self._listeners: set[Callable[[], None]] = set()
        self._stops: list[Callable[[], None]] = []
        self._generation = -1
        # By type: up to which index its changes are taken in.
        self._read: dict[GroupResource, int] = {}
        self._rbac: dict[str, ClusterRbac] = {}
        # Changes are counted; by cluster, the number of its last one, in their order.
        self._changes = self._told = 0
        self._changed: OrderedDict[str, int] = OrderedDict()
        # Clusters whose rules are known, and of the others why not; and what was the case when that was looked at.
        self._known: set[str] = set()
        self._undecided: dict[str, str] = {}
        self._seen = (False, -1)
        self._controls = -1
        self._looked_at = float("-inf")
        self._answers: OrderedDict[_Key, _Answer] = OrderedDict()
        self._weight = 0

    # -- Authorizer --------------------------------------------------------------------------------------------------

    def decide_now(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """What a cluster's RBAC says. No opinion about the root, and of what is none: one whose rules say nothing of a
        user is not told from one that does not exist.
        """
        if cluster is None or cluster not in self._materializer.store.clusters:
            return NO_OPINION
        self._catch_up()
        if (why := self._why_undecided(cluster)) is not None:
            return Verdict(Decision.NO_OPINION, f"the RBAC of this cluster is not known here: {why}")
        return self._compiled(cluster).decide(self.names.within(cluster, who), what)

    async def decide(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """The same."""
        return self.decide_now(who, cluster, what)

    def visible_now(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion | None:
        """What of these clusters may be seen; the same object for the same answer. None: many are to be compiled.

        Within the request's namespace, if it has one. O(clusters), most of it once for all who ask the same.
        """
        self._catch_up()
        if self._behind():
            return None
        return self._visible(who, what, clusters)

    async def visible(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        """The same; others have their turn while clusters are compiled."""
        self._catch_up()
        while self._behind():
            self._compile_some()
            await asyncio.sleep(0)
            self._catch_up()
        return self._visible(who, what, clusters)

    def rules(self, who: Identity, cluster: str | None, namespace: str) -> SubjectRules:
        """The rules of a user in a cluster; `cluster` None: those it has in any, each once. O(rules)."""
        self._catch_up()
        if cluster is not None:
            if (why := self._why_undecided(cluster)) is not None:
                return SubjectRules(incomplete=True, error=f"the RBAC of this cluster is not known here: {why}")
            rules, error = self._compiled(cluster).rules(self.names.within(cluster, who), namespace)
            return SubjectRules(rules, error=error)
        found: dict[PolicyRule, None] = {}
        for one in self._materializer.store.clusters:
            if one in self._known:
                rules, _ = self._compiled(one).rules(self.names.within(one, who), namespace)
                # Paths at the root are none of a cluster's.
                found.update(dict.fromkeys(rule for rule in rules if not rule.non_resource_urls))
        return SubjectRules(tuple(found), incomplete=bool(self._undecided))

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` when rules have changed, or are not known any more; returns what ends that."""
        if not self._listeners:
            self._stops = [self._materializer.listen(key, self._look) for key in TYPES]
        self._listeners.add(wake)

        def stop() -> None:
            self._listeners.discard(wake)
            if not self._listeners:
                for one in self._stops:
                    one()
                self._stops = []

        return stop

    def undecided(self, cluster: str) -> str:
        """Why a cluster's rules are not known here, or no longer; "" if they are. O(1)."""
        self._catch_up()
        return self._why_undecided(cluster) or ""

    async def run(self) -> None:
        """Wakes listeners when rules become known, or too old, and compiles them, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY):
                    await self._materializer.wait_control()
            self._look()
            while self._behind(0):
                self._compile_some()
                await asyncio.sleep(0)
                self._catch_up()
            await asyncio.sleep(_AT_MOST_EVERY)

    # -- what may be seen ----------------------------------------------------------------------------------------------

    def _visible(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        if who.masters:
            return Opinion(EVERYTHING)
        key = _Key(who, what.verb, what.group, what.resource, what.subresource, what.name, what.path)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._remember(key, _Answer(self._changes, self._anew(who, what)))
        elif answer.at != self._changes:
            answer = self._remember(key, self._up_to_date(who, what, answer))
        self._answers.move_to_end(key)
        visible = answer.visible
        if what.namespace:
            visible = self._within(answer, what.namespace)
        asked: Set[str]
        if isinstance(clusters, Mapping):
            asked = clusters.keys()
        else:
            asked = clusters if isinstance(clusters, Set) else frozenset(clusters)
        if not visible.clusters.keys() <= asked:
            shown = {cluster: within for cluster, within in visible.clusters.items() if cluster in asked}
            visible = Visible(clusters=shown, undecided=visible.undecided)
        undecided = frozenset(self._undecided.keys() & asked) if self._undecided else _NONE
        if visible.undecided != bool(undecided):
            visible = Visible(clusters=visible.clusters, undecided=bool(undecided))
        return Opinion(visible, undecided=undecided)

    @staticmethod
    def _within(answer: _Answer, namespace: str) -> Visible:
        if (found := answer.within.get(namespace)) is None:
            if len(answer.within) >= _RESTRICTIONS:
                answer.within.clear()
            only = frozenset({namespace})
            whole = answer.visible
            shown = {
                cluster: only if within is not None else None
                for cluster, within in whole.clusters.items()
                if within is None or namespace in within
            }
            found = answer.within[namespace] = Visible(clusters=shown, undecided=whole.undecided)
        return found

    def _anew(self, who: Identity, what: Attributes) -> Visible:
        shown: dict[str, frozenset[str] | None] = {}
        for cluster in self._materializer.store.clusters:
            if (within := self._of(cluster, who, what)) is None or within:
                shown[cluster] = within
        return Visible(clusters=shown, undecided=bool(self._undecided))

    def _up_to_date(self, who: Identity, what: Attributes, answer: _Answer) -> _Answer:
        """The answer as of now: the same object where it is the same."""
        shown = dict(answer.visible.clusters)
        for cluster in reversed(self._changed):
            if self._changed[cluster] <= answer.at:
                break
            within = self._of(cluster, who, what)
            if within is None or within:
                shown[cluster] = within
            else:
                shown.pop(cluster, None)
        undecided = bool(self._undecided)
        if shown == answer.visible.clusters and undecided == answer.visible.undecided:
            answer.at = self._changes
            return answer
        return _Answer(self._changes, Visible(clusters=shown, undecided=undecided))

    def _of(self, cluster: str, who: Identity, what: Attributes) -> frozenset[str] | None:
        """The namespaces of a cluster, None for all of it."""
        if cluster not in self._known or cluster not in self._materializer.store.clusters:
            return _NONE
        return self._compiled(cluster).namespaces(self.names.within(cluster, who), what)

    def _remember(self, key: _Key, answer: _Answer) -> _Answer:
        before = self._answers.get(key)
        self._weight += answer.weight - (0 if before is None else before.weight)
        self._answers[key] = answer
        self._answers.move_to_end(key)
        while self._weight > self._most and len(self._answers) > 1:
            _, oldest = self._answers.popitem(last=False)
            self._weight -= oldest.weight
        return answer

    # -- keeping equal to the store ------------------------------------------------------------------------------------

    def _look(self) -> None:
        self._catch_up(self._looked_at + _LOOK_EVERY)
        if self._told != self._changes:
            self._told = self._changes
            for wake in list(self._listeners):
                wake()

    def _catch_up(self, look_at: float | None = None) -> None:
        """Takes in what has changed since the last time. O(changed objects); O(clusters) at `look_at` by the clock."""
        materializer = self._materializer
        store = materializer.store
        if materializer.generation != self._generation:
            self._begin_anew()
        elif not store.loading:
            for key in TYPES:
                types = store.types.get(key)
                if types is not None and (last := types.last()) > self._read.get(key, 0):
                    self._take_in(key, last)
        now = self._clock()
        seen = (materializer.ready.is_set(), store.catalogue)
        if look_at is None:
            look_at = self._looked_at + _LOOK_AT_LATEST
        if now >= look_at or seen != self._seen:
            self._looked_at = now
            self._look_at_clusters(store.clusters)
        elif len(self._known) != len(store.clusters) and store.controls != self._controls:
            # What is not known may become known by any record.
            self._look_at_clusters(store.clusters, store.clusters.keys() - self._known)
        self._seen, self._controls = seen, store.controls

    def _begin_anew(self) -> None:
        self._generation = self._materializer.generation
        self._rbac.clear()
        self._answers.clear()
        self._weight = 0
        self._changed.clear()
        self._known.clear()
        self._undecided.clear()
        # What is compiled from now on has all up to here.
        self._read = {key: types.last() for key, types in self._materializer.store.types.items() if key in TYPES}
        self._looked_at = float("-inf")
        self._changes += 1

    def _take_in(self, key: GroupResource, last: int) -> None:
        types = self._materializer.store.types[key]
        read = self._read.get(key, 0)
        self._read[key] = last
        if types.forgotten > read:
            # A deletion may be among what was forgotten before it was looked at.
            for cluster in list(self._rbac):
                del self._rbac[cluster]
            self._note(*self._materializer.store.clusters)
            return
        changed: set[str] = set()
        for item in types.after(read):
            for entry in (item,) if isinstance(item, Entry) else item.entries.values():
                changed.add(entry.cluster)
                if (rbac := self._rbac.get(entry.cluster)) is not None:
                    _apply(rbac, key, entry)
        self._note(*changed)

    def _note(self, *clusters: str) -> None:
        """Counts a change of clusters' rules."""
        if clusters:
            self._changes += 1
            for cluster in clusters:
                self._changed[cluster] = self._changes
                self._changed.move_to_end(cluster)

    def _compiled(self, cluster: str) -> ClusterRbac:
        if (found := self._rbac.get(cluster)) is None:
            found = self._rbac[cluster] = ClusterRbac()
            for key in TYPES:
                if (types := self._materializer.store.types.get(key)) is not None:
                    for entry in types.clusters.get(cluster, {}).values():
                        _apply(found, key, entry)
        return found

    def _behind(self, most: int = _AT_ONCE) -> bool:
        """Whether more than so many clusters that decide are yet to be compiled."""
        return len(self._known) - len(self._rbac) > most

    def _compile_some(self) -> None:
        left = _AT_ONCE
        for cluster in self._known:
            if cluster not in self._rbac:
                self._compiled(cluster)
                left -= 1
                if not left:
                    return

    # -- whether rules are known ---------------------------------------------------------------------------------------

    def _why_undecided(self, cluster: str) -> str | None:
        if cluster not in self._materializer.store.clusters:
            return "no such cluster is followed"
        return None if cluster in self._known else self._undecided.get(cluster, "it has only just come")

    def _look_at_clusters(self, clusters: Mapping[str, ClusterFacts], only: Collection[str] | None = None) -> None:
        """Notes which clusters' rules are known. O(clusters)."""
        materializer = self._materializer
        loading = not materializer.ready.is_set()
        outage = materializer.outage_seconds() or 0.0
        now = materializer.log.now()
        if not materializer.confirmed:
            # All that is known is what a snapshot says, as of its time.
            outage = max(outage, (now - materializer.store.applied_time) / 1e9)
        changed = []
        for cluster in (self._known | self._undecided.keys()) - clusters.keys():
            changed.append(cluster)
            self._forget(cluster)
        for cluster in list(clusters if only is None else only):
            why = "the log is being replayed" if loading else self._why(clusters[cluster], now, outage)
            if bool(why) == (cluster in self._known):
                changed.append(cluster)
                self._forget(cluster)
            if why:
                self._undecided[cluster] = why
            else:
                self._known.add(cluster)
        self._note(*changed)

    def _forget(self, cluster: str) -> None:
        # What it says once it is known again may have been compiled from half of it.
        self._rbac.pop(cluster, None)
        self._known.discard(cluster)
        self._undecided.pop(cluster, None)

    def _why(self, facts: ClusterFacts, now: int, outage: float) -> str:
        """Why its rules are not known; "" if they are. `now`: in nanoseconds by the log's clock."""
        stale = outage
        if facts.health is not None and not facts.health.healthy:
            stale = max(stale, now / 1e9 - facts.health.since / 1e3)
        elif not outage and self._materializer.stale_reason(facts) is not None:
            stale = max(stale, (now - facts.heard) / 1e9)
        for key in TYPES:
            info = facts.types.get(key)
            if info is None:
                return f"its {key} are not synced"
            if not facts.synced.get(key):
                return f"its {key} are not synced yet"
            if info.namespaces or info.selector:
                return f"only some of its {key} are synced"
            if any(not _DECIDING.isdisjoint(pointer.split("/")[:2]) for pointer in info.pruned):
                return f"its {key} are pruned"
            health = facts.type_health.get(key)
            if health is not None and not health.healthy:
                stale = max(stale, now / 1e9 - health.since / 1e3)
        return f"it is older than {self._stale_after:.0f} s" if stale > self._stale_after else ""


def _apply(rbac: ClusterRbac, key: GroupResource, entry: Entry) -> None:
    """Takes in one state of an object."""
    if key in _ROLES:
        if entry.deleted:
            rbac.drop_role(entry.namespace, entry.name)
        else:
            rbac.put_role(entry.namespace, entry.name, entry.body)
    elif entry.deleted:
        rbac.drop_binding(entry.namespace, entry.name)
    else:
        rbac.put_binding(entry.namespace, entry.name, entry.body)
