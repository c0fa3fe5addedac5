"""AuthorizationConfiguration of apiserver.config.k8s.io/v1: which authorizers there are, in which order.

As kube-apiserver's `--authorization-config`: `Webhook`, `AlwaysAllow` and `AlwaysDeny`; and two types of our own.

    apiVersion: apiserver.config.k8s.io/v1
    kind: AuthorizationConfiguration
    authorizers:
      - type: Policy
        name: policy
        policy: {file: policy.yaml}
      - type: Members
        name: members
        members:
          staleAfter: 5m
          names:
            - {clusters: ["prod-*"], userPrefix: "corp:", groupPrefix: "corp:"}

k8s.io/apiserver pkg/apis/apiserver/v1/types.go and pkg/apis/apiserver/validation/validation.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from materializer.materializer import Materializer
from query.access.authorization.chain import ALWAYS_ALLOW, ALWAYS_DENY, Authorizer, Chain
from query.access.authorization.members import STALE_AFTER, MembersRbac
from query.access.authorization.names import Names, Renaming
from query.access.authorization.policy import PolicyFile
from query.access.authorization.webhook import Ask, Webhook, WebhookSettings, condition
from query.access.documents import Strict, decoded
from query.access.errors import BadAccessFile
from query.access.expressions import Expression
from query.access.files import read_file

VERSIONS: Final = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")

_LONGEST_TIMEOUT = 30.0
_MOST_CONDITIONS = 64
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns)", re.ASCII)
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")


# -- as it stands in the file --------------------------------------------------------------------------------------


class _Connection(Strict, frozen=True):
    type: str
    kube_config_file: str | None = None
    cluster: str | None = None


class _Condition(Strict, frozen=True):
    expression: str = ""


class _Webhook(Strict, frozen=True, kw_only=True):
    timeout: str | None = None
    authorized_ttl: str | None = msgspec.field(default=None, name="authorizedTTL")
    unauthorized_ttl: str | None = msgspec.field(default=None, name="unauthorizedTTL")
    cache_authorized_requests: bool = True
    cache_unauthorized_requests: bool = True
    subject_access_review_version: str = ""
    match_condition_subject_access_review_version: str = ""
    failure_policy: str = ""
    connection_info: _Connection | None = None
    match_conditions: tuple[_Condition, ...] = ()


class _Renaming(Strict, frozen=True):
    clusters: tuple[str, ...] = ()
    users: dict[str, str] = msgspec.field(default_factory=dict)
    groups: dict[str, str] = msgspec.field(default_factory=dict)
    user_prefix: str = ""
    group_prefix: str = ""
    strip_user_prefix: str = ""
    strip_group_prefix: str = ""
    service_accounts: bool = False


class _Members(Strict, frozen=True):
    stale_after: str | None = None
    names: tuple[_Renaming, ...] = ()


class _Policy(Strict, frozen=True):
    file: str


class _Authorizer(Strict, frozen=True):
    type: str = ""
    name: str = ""
    webhook: _Webhook | None = None
    members: _Members | None = None
    policy: _Policy | None = None


class _File(Strict, frozen=True):
    authorizers: tuple[_Authorizer, ...] = ()


# -- as it is used -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReviewConnection:
    """Which server a webhook asks: the current context of a kubeconfig, a member cluster by its name, or, where both
    are "", the cluster that this runs in."""

    kubeconfig: str = ""
    cluster: str = ""


@dataclass(frozen=True)
class MembersSettings:
    """`stale_after` in seconds."""

    stale_after: float = STALE_AFTER
    names: tuple[Renaming, ...] = ()


@dataclass(frozen=True)
class PolicySettings:
    """Where the policy file is."""

    file: Path


@dataclass(frozen=True)
class WebhookAuthorizer:
    """A webhook, and whom it asks."""

    settings: WebhookSettings
    connection: ReviewConnection


@dataclass(frozen=True)
class AlwaysSettings:
    """AlwaysAllow, or AlwaysDeny."""

    allows: bool


AuthorizerSettings = MembersSettings | PolicySettings | WebhookAuthorizer | AlwaysSettings

MEMBERS_ALONE: Final[tuple[AuthorizerSettings, ...]] = (MembersSettings(),)
"""Where there is authentication and no configuration: each cluster's own RBAC."""


def read_authorization(path: Path) -> tuple[AuthorizerSettings, ...]:
    """The authorizers that a file names, in order. Blocking.

    Raises:
        BadAccessFile: it cannot be read, or says what cannot be.
    """
    content = read_file(path)
    try:
        return authorization_of(content, path.parent)
    except BadAccessFile as cause:
        raise BadAccessFile(f"{path}: {cause}") from None


def authorization_of(content: bytes, base: Path) -> tuple[AuthorizerSettings, ...]:
    """The same of a file's content; paths of other files in it are relative to `base`.

    Raises:
        BadAccessFile: with the path of the field, without the file's name.
    """
    read = decoded(content, _File, "AuthorizationConfiguration", VERSIONS)
    if not read.authorizers:
        raise BadAccessFile("authorizers: name one at least")
    found: list[AuthorizerSettings] = []
    types: set[str] = set()
    names: set[str] = set()
    for at, one in enumerate(read.authorizers):
        try:
            if one.type in types and one.type != "Webhook":
                raise BadAccessFile(f"type: {one.type} stands twice; once is enough")
            found.append(_settings(one, base))
            if one.name in names:
                raise BadAccessFile(f"name: {one.name} stands twice; write another one")
        except BadAccessFile as cause:
            raise BadAccessFile(f"authorizers[{at}].{cause}") from None
        types.add(one.type)
        names.add(one.name)
    return tuple(found)


def chain_of(
    authorizers: Sequence[AuthorizerSettings], materializer: Materializer, ask: Callable[[ReviewConnection], Ask]
) -> Chain:
    """The chain of these authorizers; its `run` has to go on while it is asked. Blocking: reads the policy file.

    `ask`: what sends SubjectAccessReviews to a server.

    Raises:
        BadAccessFile: the policy file cannot be used.
    """

    def made(settings: AuthorizerSettings) -> Authorizer:
        match settings:
            case MembersSettings(stale_after, names):
                return MembersRbac(materializer, stale_after=stale_after, names=Names(names))
            case PolicySettings(file):
                return PolicyFile(file, materializer)
            case WebhookAuthorizer(webhook, connection):
                return Webhook(webhook, ask(connection))
            case AlwaysSettings(allows):
                return ALWAYS_ALLOW if allows else ALWAYS_DENY

    return Chain([made(one) for one in authorizers])


def _settings(read: _Authorizer, base: Path) -> AuthorizerSettings:
    sections = {"Webhook": read.webhook, "Members": read.members, "Policy": read.policy}
    for kind, section in sections.items():
        if section is not None and read.type != kind:
            raise BadAccessFile(f"{kind.lower()}: only an authorizer of type {kind} has it")
    if not read.name:
        raise BadAccessFile("name: is needed")
    if len(read.name) > 253 or not _SUBDOMAIN.fullmatch(read.name):
        raise BadAccessFile(f"name: {read.name[:64]!r} is no lower-case DNS subdomain, as audit.example.com is")
    if read.type != "Webhook" and read.type in _TYPES and read.name != read.type.lower():
        raise BadAccessFile(f"name: write {read.type.lower()}")
    match read.type:
        case "AlwaysAllow" | "AlwaysDeny":
            return AlwaysSettings(read.type == "AlwaysAllow")
        case "Members":
            return _members(read.members or _Members())
        case "Policy":
            if read.policy is None:
                raise BadAccessFile("policy: is needed, with file: policy.yaml")
            return PolicySettings(base / Path(read.policy.file).expanduser())
        case "Webhook":
            if read.webhook is None:
                raise BadAccessFile("webhook: is needed")
            try:
                return _webhook(read.name, read.webhook)
            except BadAccessFile as cause:
                raise BadAccessFile(f"webhook.{cause}") from None
        case "RBAC":
            raise BadAccessFile("type: RBAC is each cluster's own here; write Members")
        case "Node" | "ABAC":
            raise BadAccessFile(f"type: {read.type} is not there; write {_OR}")
        case "":
            raise BadAccessFile(f"type: is needed; write {_OR}")
        case other:
            raise BadAccessFile(f"type: {other[:64]!r} is none; write {_OR}")


_TYPES = ("Members", "Policy", "Webhook", "AlwaysAllow", "AlwaysDeny")
_OR = f"{', '.join(_TYPES[:-1])} or {_TYPES[-1]}"


def _members(read: _Members) -> MembersSettings:
    stale_after = STALE_AFTER if read.stale_after is None else _duration("members.staleAfter", read.stale_after)
    renamings = []
    for at, one in enumerate(read.names):
        if not one.clusters:
            raise BadAccessFile(f'members.names[{at}].clusters: name one at least, "*" for all')
        if wrong := [name for name in one.clusters if not name or "*" in name[:-1]]:
            raise BadAccessFile(
                f"members.names[{at}].clusters: {wrong[0]!r} is no name, nor the beginning of one with a * behind it"
            )
        if empty := [name for name, renamed in one.users.items() if not renamed]:
            raise BadAccessFile(f"members.names[{at}].users: {empty[0]!r} needs a name")
        renamings.append(
            Renaming(
                one.clusters,
                one.users,
                one.groups,
                one.user_prefix,
                one.group_prefix,
                one.strip_user_prefix,
                one.strip_group_prefix,
                one.service_accounts,
            )
        )
    return MembersSettings(stale_after, tuple(renamings))


def _webhook(name: str, read: _Webhook) -> WebhookAuthorizer:
    if read.timeout is None:
        raise BadAccessFile("timeout: is needed, 30s at most")
    timeout = _duration("timeout", read.timeout)
    if not 0 < timeout <= _LONGEST_TIMEOUT:
        raise BadAccessFile(f"timeout: {read.timeout} is not between 0 and 30s")
    authorized = _ttl("authorizedTTL", read.authorized_ttl, 300.0)
    unauthorized = _ttl("unauthorizedTTL", read.unauthorized_ttl, 30.0)
    if read.subject_access_review_version != "v1":
        raise BadAccessFile("subjectAccessReviewVersion: write v1")
    if read.failure_policy not in ("NoOpinion", "Deny"):
        raise BadAccessFile("failurePolicy: write NoOpinion or Deny")
    if read.connection_info is None:
        raise BadAccessFile("connectionInfo: is needed")
    if read.match_conditions and read.match_condition_subject_access_review_version != "v1":
        raise BadAccessFile("matchConditionSubjectAccessReviewVersion: write v1")
    settings = WebhookSettings(
        name,
        timeout,
        authorized if read.cache_authorized_requests else 0.0,
        unauthorized if read.cache_unauthorized_requests else 0.0,
        read.failure_policy == "Deny",
        _conditions(read.match_conditions),
    )
    return WebhookAuthorizer(settings, _connection(read.connection_info))


def _conditions(read: tuple[_Condition, ...]) -> tuple[Expression, ...]:
    if len(read) > _MOST_CONDITIONS:
        raise BadAccessFile(f"matchConditions: {len(read)} are too many; {_MOST_CONDITIONS} at most")
    found = []
    for at, one in enumerate(read):
        where = f"matchConditions[{at}].expression"
        if not one.expression.strip():
            raise BadAccessFile(f"{where}: is needed")
        if one in read[:at]:
            raise BadAccessFile(f"{where}: stands twice")
        try:
            found.append(condition(one.expression))
        except BadAccessFile as cause:
            raise BadAccessFile(f"{where}: {cause}") from None
    return tuple(found)


def _connection(read: _Connection) -> ReviewConnection:
    if read.type != "KubeConfigFile" and read.kube_config_file is not None:
        raise BadAccessFile("connectionInfo.kubeConfigFile: only the type KubeConfigFile has it")
    if read.type != "MemberCluster" and read.cluster is not None:
        raise BadAccessFile("connectionInfo.cluster: only the type MemberCluster has it")
    match read.type:
        case "KubeConfigFile":
            if not read.kube_config_file or not Path(read.kube_config_file).is_absolute():
                raise BadAccessFile("connectionInfo.kubeConfigFile: write an absolute path")
            return ReviewConnection(kubeconfig=read.kube_config_file)
        case "MemberCluster":
            if not read.cluster:
                raise BadAccessFile("connectionInfo.cluster: is needed, the name of a member cluster")
            return ReviewConnection(cluster=read.cluster)
        case "InClusterConfig":
            return ReviewConnection()
        case _:
            raise BadAccessFile("connectionInfo.type: write KubeConfigFile, InClusterConfig or MemberCluster")


def _ttl(field: str, text: str | None, default: float) -> float:
    if text is None:
        return default
    if (seconds := _duration(field, text)) <= 0:
        raise BadAccessFile(f"{field}: {text} is none; write 5m, or leave it out")
    return seconds


def _duration(field: str, text: str) -> float:
    """Seconds, as Go's time.ParseDuration reads them, but for a sign."""
    if text == "0":
        return 0.0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise BadAccessFile(f"{field}: {text[:64]!r} is no duration; write 30s or 5m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
