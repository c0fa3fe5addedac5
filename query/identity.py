"""Identity: who asks, as a cluster's own API server would know them."""

from __future__ import annotations

from dataclasses import dataclass, replace

ANONYMOUS = "system:anonymous"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
MASTERS = "system:masters"
SERVICE_ACCOUNT = "system:serviceaccount:"
SERVICE_ACCOUNTS = "system:serviceaccounts"


@dataclass(frozen=True, slots=True)
class Identity:
    """A user: k8s.io/apiserver pkg/authentication/user (Info). Hashable: equal users may see the same.

    - `extra`: keys in lower case with their values, sorted by key.
    - `within`: of a user who is impersonated in a request for all clusters: the clusters in which that is allowed. It
      sees nothing of others, and has no rights at the root itself. None: there is no such bound.

    Example: `Identity("jane", groups=("dev",))`.
    """

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()
    within: frozenset[str] | None = None

    @property
    def masters(self) -> bool:
        """Whether everything is allowed to it, before any authorizer is asked."""
        return MASTERS in self.groups and self.within is None

    def authenticated(self) -> Identity:
        """The user with the group of all who were authenticated (k8s.io/apiserver pkg/authentication/group)."""
        if self.name == ANONYMOUS or AUTHENTICATED in self.groups or UNAUTHENTICATED in self.groups:
            return self
        return replace(self, groups=(*self.groups, AUTHENTICATED))


NOBODY = Identity(ANONYMOUS, groups=(UNAUTHENTICATED,))
"""Who asks without a credential."""
