"""Rules: which of a cluster's resource types are synced, in which version, and which of their objects."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from deltalog.wire.resource_type import ResourceType, Scope
from deltalog.wire.selectors import BadSelector, parse_labels
from producers.errors import UnusableInput

# Synced only when named: one is confidential, the other is mostly noise and the bulk of all writes.
OPT_IN = ("secrets", "events", "events.events.k8s.io")
# Words that stand for several types.
ALL = "*"
NOISE = "noise"
CUSTOM = "custom"
# What components write all the time and hardly anybody reads.
NOISY = (
    "events",
    "events.events.k8s.io",
    "endpoints",
    "leases.coordination.k8s.io",
    "leasecandidates.coordination.k8s.io",
    "endpointslices.discovery.k8s.io",
    "csistoragecapacities.storage.k8s.io",
    "*.metrics.k8s.io",
    "ciliumendpoints.cilium.io",
    "ciliumendpointslices.cilium.io",
    "*.reports.kyverno.io",
    "*.wgpolicyk8s.io",
)


class BadRule(UnusableInput):
    """A pattern, namespace or selector that cannot be; one line with the remedy."""


# -- types ---------------------------------------------------------------------------------------------------------

_FORMS = "write pods, deployments.apps, deployments.apps/v1, *.apps, *. (core), *, custom or noise"
_PATTERN = re.compile(r"[a-z0-9*-]+(\.[a-z0-9.*-]*)?(/[a-z0-9*]+)?")


class TypePattern(NamedTuple):
    """Types by resource, group and version, each with `*` as wildcard.

    `resource`: of a GroupResource's text, `deployments.*`; `*.` is the core group, CUSTOM and NOISE are words for many.
    `version`: empty for the preferred one.
    """

    resource: str
    version: str

    def names(self, resource: ResourceType) -> bool:
        """Whether it names a type, in whatever version."""
        if self.resource == CUSTOM:
            return resource.custom
        if self.resource == NOISE:
            return any(fnmatchcase(str(resource.group_resource), noisy) for noisy in NOISY)
        if self.resource.endswith("."):
            return not resource.group and fnmatchcase(resource.resource, self.resource[:-1])
        return fnmatchcase(str(resource.group_resource), self.resource)

    @property
    def wild(self) -> bool:
        """Whether it names types by a wildcard or a word, and so none of the opt-in types."""
        return "*" in self.resource or self.resource in (CUSTOM, NOISE)


def type_pattern(text: str) -> TypePattern:
    """Reads `RESOURCE[.GROUP][/VERSION]` or a word. Raises BadRule."""
    if not _PATTERN.fullmatch(text):
        raise BadRule(f"{text!r} names no resource type; {_FORMS}")
    resource, _, version = text.partition("/")
    return TypePattern(resource, version)


# -- objects -------------------------------------------------------------------------------------------------------

_NAMESPACE = re.compile(r"!?[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?")


def check_selector(text: str) -> str:
    """A label selector, unchanged, if every API server takes it (the parser is the one that LIST uses).

    `check_selector("tier=backend,env in (prod, stage),!legacy")` returns its argument; `"tier="` selects an empty value
    and is fine, too; `"-tier"` and `"env in prod"` are not. Raises:
        BadRule: with what a kube-apiserver says of it.
    """
    try:
        parse_labels(text)
    except BadSelector as problem:
        example = "write tier=backend,env in (prod, stage),!legacy"
        reason = " ".join(str(problem).split())
        raise BadRule(f"{text!r} is no label selector: {reason}; {example}") from None
    return text


@dataclass(frozen=True, slots=True)
class Rule:
    """Types, and which of their objects. Namespaces restrict namespaced types only."""

    types: tuple[str, ...]
    namespaces: tuple[str, ...] = ()
    selector: str = ""

    def __post_init__(self) -> None:
        for text in self.types:
            type_pattern(text)
        for name in self.namespaces:
            if not _NAMESPACE.fullmatch(name):
                raise BadRule(f"{name!r} names no namespace; write shop, team-* or !kube-system")
        check_selector(self.selector)


# -- rules ---------------------------------------------------------------------------------------------------------


class Chosen(NamedTuple):
    """A type to be synced, in the version it is synced in."""

    resource: ResourceType
    scope: Scope


@dataclass(frozen=True, slots=True)
class Rules:
    """What to sync: the first rule that names a type decides for it; `exclude` comes before all of them.

    Wildcards don't name the opt-in types (secrets, events).
    """

    include: tuple[Rule, ...] = (Rule(("*",)),)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in self.exclude:
            type_pattern(text)

    @classmethod
    def of(
        cls,
        include: Iterable[str] = ("*",),
        exclude: Iterable[str] = (),
        *,
        namespaces: Iterable[str] = (),
        selector: str = "",
    ) -> Rules:
        """One rule for all the types. Raises BadRule."""
        return cls((Rule(tuple(include), tuple(namespaces), selector),), tuple(exclude))

    def _excluded(self, resource: ResourceType) -> bool:
        for text in self.exclude:
            pattern = type_pattern(text)
            if pattern.names(resource) and fnmatchcase(resource.version, pattern.version or "*"):
                return True
        return False

    def choose(self, versions: tuple[ResourceType, ...]) -> Chosen | None:
        """The version and scope of one type, of which `versions` are the served ones, preferred first."""
        for rule in self.include:
            for text in rule.types:
                pattern = type_pattern(text)
                for resource in versions:
                    if not pattern.names(resource) or (pattern.wild and str(resource.group_resource) in OPT_IN):
                        continue
                    if fnmatchcase(resource.version, pattern.version or "*") and not self._excluded(resource):
                        namespaces = rule.namespaces if resource.namespaced else ()
                        return Chosen(resource, Scope(namespaces, rule.selector))
        return None

    def chosen(self, served: Iterable[tuple[ResourceType, ...]]) -> list[Chosen]:
        """Of all types that a cluster serves, each in its versions, those to be synced."""
        return [one for versions in served if (one := self.choose(versions)) is not None]
