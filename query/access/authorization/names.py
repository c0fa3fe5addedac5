"""Names: what a user and its groups are called in each member cluster, where that is not what they are called here.

kube-apiservers that use one identity provider may each have another prefix for its users and groups
(`claimMappings.username.prefix` of AuthenticationConfiguration), or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from query.identity import SERVICE_ACCOUNT, SERVICE_ACCOUNTS, Identity

ACCOUNT_OF = "authentication.kubebraid.io/cluster"
"""Extra of an identity that a member cluster's TokenReview has vouched for: the cluster's name."""

# Names that Kubernetes keeps for itself. A prefix neither is put before one nor makes one.
_RESERVED = "system:"
# What a service account of another cluster is called: no subject of kind ServiceAccount is.
_FOREIGN = "kubebraid:foreign:"
_REMEMBERED = 4096


def covers(patterns: Sequence[str], name: str) -> bool:
    """Whether one of some patterns is a name, or with a `*` at its end the beginning of one. O(patterns)."""
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in patterns)


@dataclass(frozen=True)
class Renaming:
    """What names are in some clusters. `clusters`: their names, or beginnings of names with a `*`.

    - `users`, `groups`: names that are others there; "" leaves a group out. They go before the prefixes.
    - `user_prefix`, `group_prefix`: put before all other names, but for those that begin with `system:`.
    - `strip_user_prefix`, `strip_group_prefix`: taken away before that, and only names with it are changed.
    - `service_accounts`: whether a service account is that cluster's own account of its name, whichever cluster it is
      of. If not, it has no rights there but those of its other groups: accounts of the same name in two clusters are
      not the same.

    Example: `Renaming(("prod-*",), user_prefix="corp:", strip_user_prefix="oidc:")` calls `oidc:jane` `corp:jane`.
    """

    clusters: tuple[str, ...] = ("*",)
    users: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    user_prefix: str = ""
    group_prefix: str = ""
    strip_user_prefix: str = ""
    strip_group_prefix: str = ""
    service_accounts: bool = False

    def user(self, name: str) -> str:
        """What a user is called there."""
        if (found := self.users.get(name)) is not None:
            return found
        return _prefixed(name, self.strip_user_prefix, self.user_prefix)

    def group(self, name: str) -> str:
        """What a group is called there; "" for nothing."""
        if (found := self.groups.get(name)) is not None:
            return found
        return _prefixed(name, self.strip_group_prefix, self.group_prefix)


def _prefixed(name: str, strip: str, prefix: str) -> str:
    if name.startswith(_RESERVED) or not name.startswith(strip):
        return name
    renamed = prefix + name[len(strip) :]
    # An identity provider's `oidc:system:masters` must not become what no prefix was to let it be.
    return name if renamed.startswith(_RESERVED) or not renamed else renamed


class Names:
    """Who somebody is in each cluster. Of several renamings that cover a cluster the first counts."""

    def __init__(self, renamings: Sequence[Renaming] = ()) -> None:
        self._renamings = (*renamings, Renaming())
        self._of_cluster: dict[str, int] = {}
        self._known: dict[tuple[int, bool, Identity], Identity] = {}

    def within(self, cluster: str, who: Identity) -> Identity:
        """Who somebody is in a cluster. Amortised O(1)."""
        at = self._of_cluster.get(cluster)
        if at is None:
            if len(self._of_cluster) >= _REMEMBERED:
                self._of_cluster.clear()
            at = next(at for at, one in enumerate(self._renamings) if covers(one.clusters, cluster))
            self._of_cluster[cluster] = at
        own = who.name.startswith(SERVICE_ACCOUNT) and (
            self._renamings[at].service_accounts or (cluster,) == dict(who.extra).get(ACCOUNT_OF)
        )
        key = (at, own, who)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[key] = _renamed(self._renamings[at], who, own)
        return found


def _renamed(renaming: Renaming, who: Identity, own: bool) -> Identity:
    name, groups = renaming.user(who.name), who.groups
    if name.startswith(SERVICE_ACCOUNT) and name == who.name and not own:
        name = _FOREIGN + name
        groups = tuple(one for one in groups if one != SERVICE_ACCOUNTS and not one.startswith(f"{SERVICE_ACCOUNTS}:"))
    groups = tuple(renamed for one in groups if (renamed := renaming.group(one)))
    return who if (name, groups) == (who.name, who.groups) else replace(who, name=name, groups=groups)
