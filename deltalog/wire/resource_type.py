"""A resource type as one member cluster serves it: what discovery finds, and what the control record `type` states."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from deltalog.wire.kubernetes import GroupResource, GroupVersion


class Subresource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A subresource of a type, `log` or `scale`; `kind`, `group` and `version` are those of the object it answers with.

    They are empty where discovery names none. `verbs` as in an APIResource: `get`, `create`, ...
    """

    name: str
    kind: str = ""
    group: str = ""
    version: str = ""
    verbs: tuple[str, ...] = ()


class Scope(NamedTuple):
    """Which objects of a type are in the log; all of them where both are empty.

    - `namespaces`: names or patterns as of fnmatch, `!` before those whose objects are left out. For
      `("team-*", "!team-x")` objects of `team-a` are in the log, objects of `team-x` and of `shop` are not.
    - `selector`: a label selector as in a LIST's parameter, which the member cluster itself applies.
    """

    namespaces: tuple[str, ...] = ()
    selector: str = ""

    @property
    def only(self) -> tuple[str, ...]:
        """The namespaces to LIST and WATCH one by one; empty where the whole cluster is asked."""
        if any("*" in one or one.startswith("!") for one in self.namespaces):
            return ()
        return self.namespaces

    def covers(self, namespace: str) -> bool:
        """Whether objects of a namespace are in the log, provided that the selector matches them."""
        wanted = [one for one in self.namespaces if not one.startswith("!")]
        if any(fnmatchcase(namespace, one[1:]) for one in self.namespaces if one.startswith("!")):
            return False
        return not wanted or any(fnmatchcase(namespace, one) for one in wanted)


class ResourceType(msgspec.Struct, frozen=True, kw_only=True):
    """A resource type that can be listed and watched, in the version whose objects are in the log.

    Fields are those of an APIResource (k8s.io/apimachinery meta/v1) where none is explained here.

    - `group`: empty for the core group. `version`: without the group, `v1`.
    - `versions`: all versions of the group that serve the type, the preferred one first.
    - `columns`: additionalPrinterColumns of a CustomResourceDefinition's version, as they are there; None: the type has
      none of its own. `selectable`: the JSON paths of its selectableFields, `.spec.color`.
    - `namespaces`, `selector`: which of its objects are in the log, see `Scope`.
    - `pruned`: JSON pointers (RFC 6901, `*` for any member) to values that are left out of its objects.
    - `custom`: a CustomResourceDefinition defines it, as far as is known: records of release 0.1 do not state it.
    """

    group: str
    resource: str
    version: str
    kind: str
    singular: str = ""
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    columns: tuple[dict[str, Any], ...] | None = None
    selectable: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    namespaces: tuple[str, ...] = ()
    selector: str = ""
    pruned: tuple[str, ...] = ()
    custom: bool = False

    @property
    def group_resource(self) -> GroupResource:
        """What it is called, whatever its version."""
        return GroupResource.of(self.group, self.resource)

    @property
    def api_version(self) -> str:
        """As objects have it: `v1`, `apps/v1`."""
        return str(self.group_version)

    @property
    def group_version(self) -> GroupVersion:
        """The version that its objects are in."""
        return GroupVersion(self.group, self.version)

    @property
    def path(self) -> str:
        """Of a LIST over all namespaces, percent-encoded: `/api/v1/pods`, `/apis/apps/v1/deployments`."""
        root = f"/apis/{quote(self.group)}" if self.group else "/api"
        # Once for all clusters that have the type.
        return sys.intern(f"{root}/{quote(self.version)}/{quote(self.resource)}")

    def path_within(self, namespace: str | None) -> str:
        """Of a LIST in one namespace, `/api/v1/namespaces/shop/pods`; None: over all of them."""
        if namespace is None:
            return self.path
        root, _, name = self.path.rpartition("/")
        return f"{root}/namespaces/{quote(namespace)}/{name}"

    @property
    def scope(self) -> Scope:
        """Which of its objects are in the log."""
        return Scope(self.namespaces, self.selector)
