"""Impersonation: who asks in another user's name, and may.

A transcription of k8s.io/apiserver pkg/endpoints/filters/impersonation (constrained_impersonation.go, mode.go) of
Kubernetes 1.36, without what it remembers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from urllib.parse import unquote

from multidict import MultiMapping

from simulation.access.actions import Action
from simulation.access.rbac import RbacDecision
from simulation.access.refusals import denied
from simulation.access.users import (
    ANONYMOUS,
    AUTHENTICATED,
    MASTERS,
    UNAUTHENTICATED,
    ClusterUser,
    service_account,
    split_service_account,
)
from simulation.status import StatusError, bad_request

__all__ = ["impersonated"]

DecideAction = Callable[[ClusterUser, Action], RbacDecision]

_GROUP = "authentication.k8s.io"
_NODE = "system:node:"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_NODE_KEYS = "authentication.kubernetes.io/associated-node-keys"
_EXTRA = "impersonate-extra-"
_MANY = 4
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_EXTRA_KEY = re.compile(rf"{_SUBDOMAIN.pattern}/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+")


def impersonated(
    decide: DecideAction, user: ClusterUser, headers: MultiMapping[str], action: Action
) -> ClusterUser | None:
    """As whom a request goes on; None: as who sent it.

    Raises:
        StatusError: 400, headers without a user; 403, it may not be that user.
    """
    wanted = _wanted(headers)
    if wanted is None:
        return None
    refused: StatusError | None = None
    for mode in ("associated-node", "arbitrary-node", "serviceaccount", "user-info", ""):
        if not _applies(mode, wanted, user):
            continue
        try:
            return _checked(decide, mode, user, wanted, action)
        except StatusError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _wanted(headers: MultiMapping[str]) -> ClusterUser | None:
    name, uid = headers.get("Impersonate-User", ""), headers.get("Impersonate-Uid", "")
    groups = tuple(headers.getall("Impersonate-Group", ()))
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in headers.items():
        if header.lower().startswith(_EXTRA):
            key = header.lower()[len(_EXTRA) :]
            if not re.search("%(?![0-9a-f]{2})", key):
                key = unquote(key)
            extra[key] = (*extra.get(key, ()), value)
    if name:
        return ClusterUser(name, groups, uid, extra)
    if uid or groups or extra:
        raise bad_request(f"requested {ClusterUser(name, groups, uid, extra)!r} without impersonating a user name")
    return None


def _node(name: str) -> str:
    node = name.removeprefix(_NODE)
    return node if node != name and len(node) <= 253 and _SUBDOMAIN.fullmatch(node) else ""


def _applies(mode: str, wanted: ClusterUser, user: ClusterUser) -> bool:
    alone = not (wanted.uid or wanted.groups or wanted.extra)
    account = split_service_account(wanted.name) is not None
    if mode == "associated-node":
        own = user.extra.get(_NODE_NAME, ()) == (_node(wanted.name),)
        return alone and bool(_node(wanted.name)) and split_service_account(user.name) is not None and own
    if mode == "arbitrary-node":
        return alone and bool(_node(wanted.name))
    if mode == "serviceaccount":
        return alone and account
    if mode == "user-info":
        return not _node(wanted.name) and not account
    return True


def _checked(decide: DecideAction, mode: str, user: ClusterUser, wanted: ClusterUser, action: Action) -> ClusterUser:
    """The user in full. `mode` "": the one of old, with the verb `impersonate` alone. Raises StatusError."""
    verb = f"impersonate:{mode}" if mode else "impersonate"
    # Users and groups are of the core group there.
    group = _GROUP if mode else ""
    requester = user
    if mode == "associated-node":
        requester = replace(user, extra={_NODE_KEYS: tuple(sorted(user.extra))})

    def check(what: Action) -> None:
        if mode == "associated-node" and what.verb == verb:
            what = replace(what, name="*")
        allowed, reason = decide(requester, what)
        if not allowed:
            raise denied(user, what, reason)

    def passes(what: Action) -> bool:
        try:
            check(what)
        except StatusError:
            return False
        return True

    if mode:
        check(replace(action, verb=f"impersonate-on:{mode}:{action.verb}"))
    groups = wanted.groups
    named = Action(verb, group, "users", name=wanted.name)
    if mode and _node(wanted.name):
        named = replace(named, resource="nodes", name=_node(wanted.name))
        groups = ("system:nodes",)
    if (account := split_service_account(wanted.name)) is not None:
        named = replace(named, resource="serviceaccounts", namespace=account[0], name=account[1])
        groups = wanted.groups or service_account(*account).groups
    check(named)
    if wanted.uid:
        check(Action(verb, _GROUP, "uids", name=wanted.uid))
    _check_groups(wanted.groups, Action(verb, group, "groups"), mode, user, check, passes)
    _check_extra(wanted, Action(verb, _GROUP, "userextras"), mode, user, check, passes)
    if wanted.name == ANONYMOUS.name:
        groups = _with(groups, UNAUTHENTICATED)
    elif UNAUTHENTICATED not in groups:
        groups = _with(groups, AUTHENTICATED)
    return replace(wanted, groups=groups)


def _check_groups(
    groups: Iterable[str],
    what: Action,
    mode: str,
    user: ClusterUser,
    check: Callable[[Action], None],
    passes: Callable[[Action], bool],
) -> None:
    groups = tuple(groups)
    if mode:
        if "" in groups:
            raise denied(user, what, "impersonating the empty string group is not allowed")
        if MASTERS in groups:
            raise denied(user, replace(what, name=MASTERS), f"impersonating the {MASTERS} group is not allowed")
        if len(groups) >= _MANY and passes(replace(what, name="*")):
            return
    for group in groups:
        check(replace(what, name=group))


def _check_extra(
    wanted: ClusterUser,
    what: Action,
    mode: str,
    user: ClusterUser,
    check: Callable[[Action], None],
    passes: Callable[[Action], bool],
) -> None:
    if mode:
        for key, values in wanted.extra.items():
            if not key:
                raise denied(user, what, "impersonating the empty string key in extra is not allowed")
            if not _EXTRA_KEY.fullmatch(key):
                raise denied(user, what, f"impersonating an invalid key in extra is not allowed: {key}")
            if "" in values:
                raise denied(user, what, "impersonating the empty string value in extra is not allowed")
        count = sum(len(values) for values in wanted.extra.values())
        if count >= _MANY and passes(replace(what, subresource="*", name="*")):
            return
    for key, values in wanted.extra.items():
        for value in values:
            check(replace(what, subresource=key, name=value))


def _with(groups: tuple[str, ...], group: str) -> tuple[str, ...]:
    return groups if group in groups else (*groups, group)
