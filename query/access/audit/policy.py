"""Policy: which requests are noted, how much of them, and at which stages (audit.k8s.io/v1).

k8s.io/apiserver pkg/apis/audit/v1/types.go, pkg/audit/policy/checker.go, pkg/apis/audit/validation. What is said of
requests' and answers' bodies is never noted here: levels Request and RequestResponse count as Metadata.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import structlog

from query.access.authorization.attributes import Attributes
from query.access.documents import Strict, decoded
from query.access.errors import BadAccessFile
from query.access.files import read_file
from query.identity import Identity

log = structlog.get_logger("query.access.audit")

ANY = "*"
_VERSIONS = ("audit.k8s.io/v1",)
_GROUP = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class Level(StrEnum):
    """How much of a request is noted."""

    NONE = "None"
    METADATA = "Metadata"
    REQUEST = "Request"
    REQUEST_RESPONSE = "RequestResponse"


class Stage(StrEnum):
    """When a request is noted: it has come, an answer that lasts has begun, it is complete, it failed within."""

    REQUEST_RECEIVED = "RequestReceived"
    RESPONSE_STARTED = "ResponseStarted"
    RESPONSE_COMPLETE = "ResponseComplete"
    PANIC = "Panic"


# -- as it stands in the file ------------------------------------------------------------------------------------------


class _GroupResources(Strict, frozen=True):
    group: str = ""
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()


class _Rule(Strict, frozen=True):
    level: Level
    users: tuple[str, ...] = ()
    user_groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[_GroupResources, ...] = ()
    namespaces: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(default=(), name="nonResourceURLs")
    omit_stages: tuple[Stage, ...] = ()
    # Of bodies, which are never noted.
    omit_managed_fields: bool | None = None


class _File(Strict, frozen=True):
    rules: tuple[_Rule, ...]
    metadata: dict[str, Any] | None = None
    omit_stages: tuple[Stage, ...] = ()
    omit_managed_fields: bool = False


# -- as it is used -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Noted:
    """How a request is noted: at which level, and at which stages not."""

    level: Level
    omitted: frozenset[Stage] = frozenset()


NOT_NOTED = Noted(Level.NONE)


class Policy:
    """The rules of a Policy: the first that matches a request says how it is noted; where none does, it is not."""

    def __init__(self, rules: tuple[_Rule, ...], omitted: frozenset[Stage]) -> None:
        self._rules = tuple((rule, _noted(rule, omitted)) for rule in rules)

    def noted(self, who: Identity | None, what: Attributes) -> Noted:
        """How a request is noted; `who`: as it was authenticated, before impersonation, None: nobody was."""
        for rule, noted in self._rules:
            if _matches(rule, who, what):
                return noted
        return NOT_NOTED


def load(path: Path) -> Policy:
    """The Policy of a file. Blocking.

    Raises:
        BadAccessFile: with the file's name.
    """
    content = read_file(path)
    try:
        return read_policy(content)
    except BadAccessFile as cause:
        raise BadAccessFile(f"{path}: {cause}") from None


def read_policy(content: bytes) -> Policy:
    """The Policy of a file's bytes.

    Raises:
        BadAccessFile: with the path of the field, without the file's name.
    """
    read = decoded(content, _File, "Policy", _VERSIONS)
    if not read.rules:
        raise BadAccessFile("rules: name one at least")
    for at, rule in enumerate(read.rules):
        try:
            _check(rule)
        except BadAccessFile as cause:
            raise BadAccessFile(f"rules[{at}]{cause}") from None
    if lowered := sorted({rule.level for rule in read.rules} & {Level.REQUEST, Level.REQUEST_RESPONSE}):
        log.warning("bodies are not noted here: these levels count as Metadata", levels=[str(one) for one in lowered])
    return Policy(read.rules, frozenset(read.omit_stages))


def _check(rule: _Rule) -> None:
    """pkg/apis/audit/validation/validation.go: validatePolicyRule."""
    if rule.non_resource_urls and (rule.resources or rule.namespaces):
        raise BadAccessFile(".nonResourceURLs: a rule is for these or for resources, not for both")
    for at, url in enumerate(rule.non_resource_urls):
        if url != ANY and (not url.startswith("/") or ANY in url[:-1]):
            raise BadAccessFile(f".nonResourceURLs[{at}]: write a path from / on, with a * at most at its end")
    for at, one in enumerate(rule.resources):
        if one.group not in ("", ANY) and not _GROUP.fullmatch(one.group):
            raise BadAccessFile(f".resources[{at}].group: it is no API group; write apps, without a version")
        if one.resource_names and not one.resources:
            raise BadAccessFile(f".resources[{at}].resourceNames: names are of resources; name those, too")


def _noted(rule: _Rule, omitted: frozenset[Stage]) -> Noted:
    level = Level.NONE if rule.level is Level.NONE else Level.METADATA
    return Noted(level, omitted | frozenset(rule.omit_stages))


def _matches(rule: _Rule, who: Identity | None, what: Attributes) -> bool:
    if rule.users and (who is None or who.name not in rule.users):
        return False
    if rule.user_groups and (who is None or not set(who.groups).intersection(rule.user_groups)):
        return False
    if rule.verbs and what.verb not in rule.verbs:
        return False
    if rule.namespaces or rule.resources:
        # What is in no namespace is in "".
        if not what.is_resource or (rule.namespaces and what.namespace not in rule.namespaces):
            return False
        return not rule.resources or any(_matches_resource(one, what) for one in rule.resources)
    if rule.non_resource_urls:
        return not what.is_resource and any(_matches_path(what.path, one) for one in rule.non_resource_urls)
    return True


def _matches_resource(one: _GroupResources, what: Attributes) -> bool:
    if one.group not in (ANY, what.group):
        return False
    if not one.resources:
        return True
    if one.resource_names and what.name not in one.resource_names:
        return False
    named = f"{what.resource}/{what.subresource}" if what.subresource else what.resource
    meant = {named, ANY, f"{what.resource}/*"}
    if what.subresource:
        meant.add(f"*/{what.subresource}")
    return not meant.isdisjoint(one.resources)


def _matches_path(path: str, wanted: str) -> bool:
    return wanted in (ANY, path) or (wanted.endswith(ANY) and path.startswith(wanted.rstrip(ANY)))
