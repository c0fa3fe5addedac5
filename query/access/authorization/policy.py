"""Policy: a file of our own that allows subjects what its rules say, in some clusters and namespaces.

    rules:
      - groups: [sre]
        clusters: ["prod-*"]
        namespaces: ["*"]
        verbs: [get, list, watch]
        apiGroups: ["", apps]
        resources: [pods, pods/log, deployments]
      - users: [prometheus]
        clusters: [""]
        verbs: [get]
        nonResourceURLs: [/metrics]

It allows and never denies. Verbs, groups, resources, names and URLs mean what they mean in a PolicyRule of RBAC; users,
groups, clusters and namespaces may be `*`, clusters and namespaces the beginning of a name with `*` behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from deltalog.wire.kubernetes import GroupResource
from materializer.materializer import Materializer
from query.access.authorization.attributes import Attributes
from query.access.authorization.chain import NO_OPINION_OF_ANY, Opinion
from query.access.authorization.names import covers
from query.access.authorization.rules import ANY, PolicyRule, SubjectRules
from query.access.authorization.verdicts import EVERYTHING, NO_OPINION, Decision, Verdict, Visible
from query.access.documents import Strict, parsed, shaped
from query.access.errors import BadAccessFile
from query.access.files import WatchedFile
from query.identity import Identity

ROOT: Final = ""
"""Among a rule's clusters: the root itself, of which /metrics is a path."""

NAMESPACES = GroupResource("", "namespaces")

_REMEMBERED = 1024
# Answers over all clusters, each of which may name a thousand.
_ANSWERS = 128
_NONE: frozenset[str] = frozenset()


class _Entry(Strict, frozen=True):
    verbs: tuple[str, ...]
    clusters: tuple[str, ...]
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(default=(), name="nonResourceURLs")


class _File(Strict, frozen=True):
    rules: tuple[_Entry, ...]


@dataclass(frozen=True)
class Grant:
    """What a rule allows (`rule`), to whom and where."""

    users: frozenset[str]
    groups: frozenset[str]
    clusters: tuple[str, ...]
    namespaces: tuple[str, ...]
    rule: PolicyRule

    def applies_to(self, who: Identity) -> bool:
        """Whether it is for a user."""
        return (
            ANY in self.users or ANY in self.groups or who.name in self.users or not self.groups.isdisjoint(who.groups)
        )

    def allows(self, what: Attributes) -> bool:
        """Whether it is for such a request, wherever."""
        if what.path:
            return self.rule.allows_path(what.verb, what.path)
        return self.rule.allows(what.verb, what.group, what.resource, what.subresource) and (
            not self.rule.resource_names or what.name in self.rule.resource_names
        )

    def in_namespace(self, what: Attributes) -> bool:
        """Whether it is for the namespace of a request; for all of a cluster only if for every namespace."""
        return bool(what.path) or covers(self.namespaces, what.namespace or ANY)


def read_policy(content: bytes) -> tuple[Grant, ...]:
    """The rules of a policy file.

    Raises:
        BadAccessFile: with the path of the field, without the file's name.
    """
    found = []
    for at, one in enumerate(shaped(parsed(content) or {}, _File).rules):
        try:
            found.append(_rule(one))
        except BadAccessFile as cause:
            raise BadAccessFile(f"rules[{at}]: {cause}") from None
    return tuple(found)


def _rule(read: _Entry) -> Grant:
    if not read.users and not read.groups:
        raise BadAccessFile("users or groups is needed")
    if not read.verbs:
        raise BadAccessFile("verbs: name one at least")
    if not read.clusters:
        raise BadAccessFile('clusters: name one at least, "*" for all, "" for the root itself')
    if read.non_resource_urls:
        if read.resources or read.api_groups or read.namespaces or read.resource_names:
            raise BadAccessFile("nonResourceURLs stand in a rule of their own, without resources and namespaces")
        rule = PolicyRule(read.verbs, non_resource_urls=read.non_resource_urls)
    else:
        if not read.resources:
            raise BadAccessFile("resources or nonResourceURLs is needed")
        if not read.api_groups:
            raise BadAccessFile('apiGroups: name one at least, "" for pods and what else is in core, "*" for all')
        if not read.namespaces:
            raise BadAccessFile('namespaces: name one at least, "*" for all, and for what is in none')
        rule = PolicyRule(read.verbs, read.api_groups, read.resources, read.resource_names or None)
    for field, texts in (("clusters", read.clusters), ("namespaces", read.namespaces)):
        if wrong := [one for one in texts if ANY in one[:-1] or (not one and field == "namespaces")]:
            raise BadAccessFile(f"{field}: {wrong[0]!r} is no name, nor the beginning of one with a * behind it")
    return Grant(frozenset(read.users), frozenset(read.groups), tuple(read.clusters), tuple(read.namespaces), rule)


class PolicyFile:
    """The rules of a file, read anew when it changes; a bad one is logged, and what it said before stays.

    Beginnings of namespaces mean, for lists over all namespaces, those that the store has of the clusters.
    """

    def __init__(self, path: Path, materializer: Materializer, *, look_every: float = 1.0) -> None:
        """Reads the file, which is looked at every so many seconds. Blocking. Raises BadAccessFile."""
        self._look_every = look_every
        self._file = WatchedFile(path, read_policy, look_every=look_every)
        self._materializer = materializer
        self._rules: tuple[Grant, ...] = ()
        self._of: dict[Identity, tuple[Grant, ...]] = {}
        # What was answered last, so that equal answers are one object.
        self._answers: dict[tuple[Identity, Attributes], Opinion] = {}
        self._listeners: set[Callable[[], None]] = set()

    def _applying(self, who: Identity) -> tuple[Grant, ...]:
        rules = self._file.latest
        if rules is not self._rules:
            self._rules = rules
            self._of.clear()
            self._answers.clear()
        if (found := self._of.get(who)) is None:
            if len(self._of) >= _REMEMBERED:
                self._of.clear()
            found = self._of[who] = tuple(rule for rule in rules if rule.applies_to(who))
        return found

    def decide_now(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """Allow, or no opinion. O(rules of the user)."""
        place = ROOT if cluster is None else cluster
        for rule in self._applying(who):
            if covers(rule.clusters, place) and rule.allows(what) and rule.in_namespace(what):
                return _ALLOWED
        return NO_OPINION

    async def decide(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        """The same."""
        await self._file.current()
        return self.decide_now(who, cluster, what)

    def visible_now(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        """What of these clusters may be seen; all of it where a rule is for all. O(clusters · rules of the user)."""
        rules = [rule for rule in self._applying(who) if rule.allows(what)]
        if not rules:
            return NO_OPINION_OF_ANY
        if any(ANY in rule.clusters and (what.path or ANY in rule.namespaces) for rule in rules):
            return Opinion(EVERYTHING)
        shown: dict[str, frozenset[str] | None] = {}
        for cluster in clusters:
            here = [rule for rule in rules if covers(rule.clusters, cluster)]
            if not here:
                continue
            within = self._within(cluster, here, what)
            if within is None or within:
                shown[cluster] = within
        before = self._answers.get((who, what))
        if before is not None and before.visible.clusters == shown:
            return before
        if len(self._answers) >= _ANSWERS:
            self._answers.clear()
        made = self._answers[who, what] = Opinion(Visible(clusters=shown))
        return made

    async def visible(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        """The same."""
        await self._file.current()
        return self.visible_now(who, what, clusters)

    def _within(self, cluster: str, rules: list[Grant], what: Attributes) -> frozenset[str] | None:
        """The namespaces that rules which are for a cluster and a request allow there; None: all."""
        if what.path or any(ANY in rule.namespaces for rule in rules):
            return None
        if what.namespace:
            covered = any(covers(rule.namespaces, what.namespace) for rule in rules)
            return frozenset({what.namespace}) if covered else _NONE
        patterns = tuple(one for rule in rules for one in rule.namespaces)
        found = {one for one in patterns if not one.endswith(ANY)}
        if beginnings := [one for one in patterns if one.endswith(ANY)]:
            types = self._materializer.store.types.get(NAMESPACES)
            there = {} if types is None else types.clusters.get(cluster, {})
            found.update(entry.name for entry in there.values() if covers(beginnings, entry.name))
        return frozenset(found)

    def rules(self, who: Identity, cluster: str | None, namespace: str) -> SubjectRules:
        """The rules of a user there; `cluster` None: in any cluster and at the root. O(rules of the user)."""
        return SubjectRules(
            tuple(
                rule.rule
                for rule in self._applying(who)
                if (covers(rule.clusters, cluster or ROOT) or (cluster is None and not rule.rule.non_resource_urls))
                and (rule.rule.non_resource_urls or covers(rule.namespaces, namespace or ANY))
            )
        )

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` when the file says something else, or namespaces come and go; returns what ends that."""
        stop_namespaces = self._materializer.listen(NAMESPACES, wake)
        self._listeners.add(wake)

        def stop() -> None:
            self._listeners.discard(wake)
            stop_namespaces()

        return stop

    async def run(self) -> None:
        """Looks at the file, so that listeners are woken when it changes, until cancelled."""
        rules = self._file.latest
        while True:
            await asyncio.sleep(self._look_every)
            await self._file.current()
            if self._file.latest is not rules:
                rules = self._file.latest
                for wake in list(self._listeners):
                    wake()


_ALLOWED = Verdict(Decision.ALLOW, "allowed by the policy file")
