"""A front proxy's headers: who asks, as a proxy says it that has a certificate of an authority of its own.

k8s.io/apiserver pkg/authentication/request/headerrequest. So a host cluster's kube-apiserver passes on who asks when it
aggregates (https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/), and so do routers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from multidict import CIMultiDict, MultiMapping

from query.access.authentication.authenticator import CredentialRefused, RequestCredentials
from query.access.authentication.identity_names import escaped_key, extra_key
from query.access.authentication.x509 import ClientAuthorities
from query.http.passthrough import HeaderNames
from query.identity import Identity


@dataclass(frozen=True)
class FrontProxyHeaders:
    """Names of the headers. Of `users` and `uids` the first with a value counts, of the others all values do.

    `extras` are what the names of headers begin with; the rest is the key. Those of the client's own library
    (client-go's `transport.NewAuthProxyRoundTripper`) are the defaults.
    """

    users: Sequence[str] = ("X-Remote-User",)
    uids: Sequence[str] = ("X-Remote-Uid",)
    groups: Sequence[str] = ("X-Remote-Group",)
    extras: Sequence[str] = ("X-Remote-Extra-",)

    @property
    def consumed(self) -> HeaderNames:
        """Those that must not be sent on."""
        exact = frozenset(name.lower() for name in (*self.users, *self.uids, *self.groups))
        return HeaderNames(exact, tuple(prefix.lower() for prefix in self.extras))


DEFAULT_HEADERS = FrontProxyHeaders()


class FrontProxyAuthenticator:
    """Users whom a proxy names, if its certificate holds, and its common name is one of `allowed` (empty: any)."""

    def __init__(
        self,
        authorities: ClientAuthorities,
        allowed: Iterable[str] = (),
        headers: FrontProxyHeaders = DEFAULT_HEADERS,
    ) -> None:
        self._authorities = authorities
        self._allowed = frozenset(allowed)
        self._headers = headers

    async def authenticate(self, presented: RequestCredentials) -> Identity | None:
        """See `Authenticator`."""
        if not presented.peer_chain:
            return None
        name = (await self._authorities.verified(presented.peer_chain)).common_name
        if self._allowed and name not in self._allowed:
            raise CredentialRefused(f"a front proxy's common name {name!r} is not among those that are allowed")
        return named_by(presented.headers, self._headers)


def named_by(headers: MultiMapping[str], names: FrontProxyHeaders = DEFAULT_HEADERS) -> Identity | None:
    """Whom headers name; None: no one."""
    user = _first(headers, names.users)
    if not user:
        return None
    groups = tuple(value for name in names.groups for value in headers.getall(name, ()) if value)
    extra: dict[str, list[str]] = {}
    for prefix in names.extras:
        for name, value in headers.items():
            if name.lower().startswith(prefix.lower()):
                extra.setdefault(extra_key(name[len(prefix) :]), []).append(value)
    return Identity(
        user, _first(headers, names.uids), groups, tuple((key, tuple(values)) for key, values in sorted(extra.items()))
    )


def naming(who: Identity, names: FrontProxyHeaders = DEFAULT_HEADERS) -> CIMultiDict[str]:
    """The headers by which a front proxy names a user: what `named_by` reads."""
    headers: CIMultiDict[str] = CIMultiDict({names.users[0]: who.name})
    if who.uid:
        headers.add(names.uids[0], who.uid)
    for group in who.groups:
        headers.add(names.groups[0], group)
    for key, values in who.extra:
        for value in values:
            headers.add(f"{names.extras[0]}{escaped_key(key)}", value)
    return headers


def _first(headers: MultiMapping[str], names: Sequence[str]) -> str:
    """The first header's value that is not empty; of one header that stands several times, its first value."""
    return next((value for name in names if (value := headers.get(name, ""))), "")
