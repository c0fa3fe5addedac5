"""Impersonation: who asks in another user's name, and may.

k8s.io/apiserver pkg/endpoints/filters/impersonation; https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
and KEP-5284 (constrained impersonation). Its caches are left out: decisions are made in memory here, or remembered by
who makes them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from multidict import MultiMapping

from deltalog.wire.selectors import quoted
from query.access.authentication.identity_names import extra_key, is_label, is_subdomain, why_not_domain_prefixed
from query.access.authorization.attributes import Attributes
from query.access.authorization.denied import forbidden
from query.access.authorization.names import ACCOUNT_OF
from query.access.authorization.verdicts import Verdict
from query.http.replaced import is_text
from query.http.status import ApiError
from query.identity import (
    ANONYMOUS,
    AUTHENTICATED,
    MASTERS,
    SERVICE_ACCOUNT,
    SERVICE_ACCOUNTS,
    UNAUTHENTICATED,
    Identity,
)

Decide = Callable[[Identity, str | None, Attributes], Awaitable[Verdict]]
"""Decides about a request of a user to a cluster, or to the root."""

_NODE = "system:node:"
_NODES = "system:nodes"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_NODE_KEYS = "authentication.kubernetes.io/associated-node-keys"
_GROUP = "authentication.k8s.io"
_EXTRA = "impersonate-extra-"
# From so many groups or values of extra on, one check for all of them is tried first.
_MANY = 4
# Requesters whose last mode is remembered.
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Impersonated:
    """As whom a request goes on. `constraint`: the verb that allowed it in a constrained mode, "" in the legacy one."""

    who: Identity
    constraint: str


class _Refusal(Exception):
    """One mode does not allow it."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(str(error))
        self.error = error


def wanted_user(headers: MultiMapping[str]) -> Identity | None:
    """Whom a request wants to be, as its headers have it; None: no one else.

    Raises:
        ApiError: 400, there is one header of these or more, and none with a user; one is not in UTF-8.
    """
    name, uid = headers.get("Impersonate-User", ""), headers.get("Impersonate-Uid", "")
    groups = tuple(headers.getall("Impersonate-Group", ()))
    extra: dict[str, list[str]] = {}
    for header, value in headers.items():
        if header.lower().startswith(_EXTRA):
            extra.setdefault(extra_key(header[len(_EXTRA) :]), []).append(value)
    if not all(map(is_text, (name, uid, *groups, *(text for key, values in extra.items() for text in (key, *values))))):
        raise ApiError(400, "the headers that begin with Impersonate- are not in UTF-8")
    if name:
        return Identity(name, uid, groups, tuple((key, tuple(values)) for key, values in sorted(extra.items())))
    if not (uid or groups or extra):
        return None
    listed = f"[]string{{{', '.join(map(quoted, groups))}}}" if groups else "[]string(nil)"
    mapped = ", ".join(
        f"{quoted(key)}:[]string{{{', '.join(map(quoted, values))}}}" for key, values in sorted(extra.items())
    )
    user = (
        f'&user.DefaultInfo{{Name:"", UID:{quoted(uid)}, Groups:{listed}, '
        f"Extra:map[string][]string{f'{{{mapped}}}' if mapped else '(nil)'}}}"
    )
    raise ApiError(400, f"requested {user} without impersonating a user name")


class ImpersonationChecks:
    """Decides whether users may be others, in the modes of a kube-apiserver 1.36, and remembers which mode did."""

    def __init__(self, decide: Decide) -> None:
        self._modes: tuple[_Legacy, ...] = (*(_Constrained(mode, decide) for mode in _CONSTRAINED), _Legacy(decide))
        self._last: OrderedDict[str, int] = OrderedDict()

    async def who(self, requester: Identity, wanted: Identity, cluster: str | None, what: Attributes) -> Impersonated:
        """As whom a request goes on, if the requester may be that user there.

        A service account that a cluster's rules let be impersonated is that cluster's own.

        Raises:
            ApiError: 403, in the words of the first mode that could have allowed it.
        """
        order = list(range(len(self._modes)))
        last = self._last.get(requester.name)
        if last is not None:
            order.remove(last)
            order.insert(0, last)
        first: ApiError | None = None
        for index in order:
            try:
                found = await self._modes[index].check(requester, wanted, cluster, what)
            except _Refusal as cause:
                first = first or cause.error
                continue
            if found is not None:
                self._last[requester.name] = index
                self._last.move_to_end(requester.name)
                if len(self._last) > _REMEMBERED:
                    self._last.popitem(last=False)
                return replace(found, who=of_cluster(found.who, cluster))
        # The legacy mode knows every user: it has refused.
        assert first is not None
        raise first


class _Legacy:
    """The verb `impersonate` on users, groups, service accounts, uids and values of extra."""

    constrained = False
    verb = "impersonate"

    def __init__(self, decide: Decide) -> None:
        self._decide = decide

    async def check(
        self, requester: Identity, wanted: Identity, cluster: str | None, what: Attributes
    ) -> Impersonated | None:
        """The user, if it may be it. Raises _Refusal."""
        return Impersonated(await self.user(requester, wanted, cluster), "")

    async def user(self, requester: Identity, wanted: Identity, cluster: str | None) -> Identity:
        """The user, once each part of it is allowed. Raises _Refusal."""

        async def check(attributes: Attributes) -> None:
            await _check(self._decide, requester, cluster, attributes)

        user = await self._named(wanted, requester, check)
        if wanted.uid:
            await check(self._attributes("uids", wanted.uid, group=_GROUP))
        await self._check_groups(wanted.groups, requester, check)
        await self._check_extra(wanted.extra, requester, check)
        return _with_implicit_group(user)

    async def _named(
        self, wanted: Identity, requester: Identity, check: Callable[[Attributes], Awaitable[None]]
    ) -> Identity:
        attributes, user = self._attributes("users", wanted.name), wanted
        if self.constrained and (node := node_of(wanted.name)):
            attributes = replace(attributes, resource="nodes", name=node)
            user = replace(wanted, groups=(_NODES,))
        if (account := account_of(wanted.name)) is not None:
            namespace, name = account
            attributes = replace(attributes, resource="serviceaccounts", namespace=namespace, name=name)
            if not wanted.groups:
                user = replace(wanted, groups=(SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}"))
        await check(attributes)
        return user

    async def _check_groups(
        self, groups: tuple[str, ...], requester: Identity, check: Callable[[Attributes], Awaitable[None]]
    ) -> None:
        attributes = self._attributes("groups", "")
        if self.constrained:
            if "" in groups:
                raise _Refusal(forbidden(requester, attributes, "impersonating the empty string group is not allowed"))
            if MASTERS in groups:
                named = replace(attributes, name=MASTERS)
                raise _Refusal(forbidden(requester, named, f"impersonating the {MASTERS} group is not allowed"))
            if len(groups) >= _MANY and await _allows(check, replace(attributes, name="*")):
                return
        for group in groups:
            await check(replace(attributes, name=group))

    async def _check_extra(
        self,
        extra: tuple[tuple[str, tuple[str, ...]], ...],
        requester: Identity,
        check: Callable[[Attributes], Awaitable[None]],
    ) -> None:
        attributes = self._attributes("userextras", "", group=_GROUP)
        if self.constrained:
            for key, values in extra:
                if problem := _why_not_extra(key, values):
                    raise _Refusal(forbidden(requester, attributes, problem))
            if sum(len(values) for _, values in extra) >= _MANY and await _allows(
                check, replace(attributes, subresource="*", name="*")
            ):
                return
        for key, values in extra:
            for value in values:
                await check(replace(attributes, subresource=key, name=value))

    def _attributes(self, resource: str, name: str, group: str = "") -> Attributes:
        """Users and groups are of the core group in the legacy mode."""
        of = _GROUP if self.constrained else group
        return Attributes(self.verb, group=of, version="v1", resource=resource, name=name)


class _Constrained(_Legacy):
    """The verb `impersonate:MODE` on a user's parts, and `impersonate-on:MODE:VERB` on what the user wants to do."""

    constrained = True

    def __init__(self, mode: str, decide: Decide) -> None:
        super().__init__(decide)
        self._mode, self.verb = mode, f"impersonate:{mode}"
        if mode == _ASSOCIATED_NODE:
            self._decide = _of_any_node(self.verb, decide)

    async def check(
        self, requester: Identity, wanted: Identity, cluster: str | None, what: Attributes
    ) -> Impersonated | None:
        """The user, if it may be it in this mode; None: the mode is not for such users. Raises _Refusal."""
        if not _CONSTRAINED[self._mode](wanted, requester):
            return None
        on = replace(what, verb=f"impersonate-on:{self._mode}:{what.verb}")
        await _check(self._decide, requester, cluster, on)
        return Impersonated(await self.user(requester, wanted, cluster), self.verb)


async def _check(decide: Decide, requester: Identity, cluster: str | None, attributes: Attributes) -> None:
    """Raises _Refusal unless it is allowed."""
    verdict = await decide(requester, cluster, attributes)
    if not verdict.allowed:
        said = ": ".join(part for part in (verdict.error, verdict.reason) if part)
        raise _Refusal(forbidden(requester, attributes, said))


async def _allows(check: Callable[[Attributes], Awaitable[None]], attributes: Attributes) -> bool:
    try:
        await check(attributes)
    except _Refusal:
        return False
    return True


def _of_any_node(verb: str, decide: Decide) -> Decide:
    """Decides about service accounts that want to be the node on which they are, whichever it is.

    Of the requester's extra the authorizer sees the keys alone: it may trust that the node is the right one.
    """

    async def decided(who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        keys = tuple(key for key, _ in who.extra)
        named = replace(what, name="*") if what.verb == verb else what
        # Of which cluster an account is, is no matter of nodes, and of our own rules alone.
        kept = tuple(entry for entry in who.extra if entry[0] == ACCOUNT_OF)
        return await decide(replace(who, extra=tuple(sorted(((_NODE_KEYS, keys), *kept)))), cluster, named)

    return decided


def node_of(name: str) -> str:
    """The node that a user is; "" for none."""
    node = name.removeprefix(_NODE)
    return node if node != name and is_subdomain(node) else ""


def account_of(name: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user is (k8s.io/apiserver pkg/authentication/serviceaccount)."""
    parts = name.removeprefix(SERVICE_ACCOUNT).split(":")
    if not name.startswith(SERVICE_ACCOUNT) or len(parts) != 2 or not (is_label(parts[0]) and is_subdomain(parts[1])):
        return None
    return parts[0], parts[1]


def _only_named(wanted: Identity) -> bool:
    return not (wanted.uid or wanted.groups or wanted.extra)


def _is_own_node(wanted: Identity, requester: Identity) -> bool:
    node = node_of(wanted.name)
    on = dict(requester.extra).get(_NODE_NAME, ())
    return _only_named(wanted) and bool(node) and account_of(requester.name) is not None and on == (node,)


_ASSOCIATED_NODE = "associated-node"
# In the order in which they are tried, with whom they are for.
_CONSTRAINED: dict[str, Callable[[Identity, Identity], bool]] = {
    _ASSOCIATED_NODE: _is_own_node,
    "arbitrary-node": lambda wanted, _: _only_named(wanted) and bool(node_of(wanted.name)),
    "serviceaccount": lambda wanted, _: _only_named(wanted) and account_of(wanted.name) is not None,
    "user-info": lambda wanted, _: not node_of(wanted.name) and account_of(wanted.name) is None,
}


def _why_not_extra(key: str, values: tuple[str, ...]) -> str:
    if not key:
        return "impersonating the empty string key in extra is not allowed"
    if problem := why_not_domain_prefixed(key):
        return (
            f"impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {quoted(key)}: {problem}"
        )
    if "" in values:
        return "impersonating the empty string value in extra is not allowed"
    return ""


def _with_implicit_group(user: Identity) -> Identity:
    if user.name == ANONYMOUS:
        implicit = UNAUTHENTICATED
    elif UNAUTHENTICATED in user.groups:
        return user
    else:
        implicit = AUTHENTICATED
    return user if implicit in user.groups else replace(user, groups=(*user.groups, implicit))


def of_cluster(user: Identity, cluster: str | None) -> Identity:
    """Somebody whom a request to one cluster names: a service account is that cluster's own."""
    if cluster is None or account_of(user.name) is None:
        return user
    return replace(user, extra=tuple(sorted({**dict(user.extra), ACCOUNT_OF: (cluster,)}.items())))
