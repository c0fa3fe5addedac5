"""Users: who a request is from, and the file of static tokens by which a cluster knows them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = [
    "ADMINISTRATOR",
    "ANONYMOUS",
    "AUTHENTICATED",
    "MASTERS",
    "UNAUTHENTICATED",
    "ClusterUser",
    "read_tokens",
    "service_account",
    "split_service_account",
    "with_implicit_group",
]

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
UNAUTHENTICATED = "system:unauthenticated"
_SERVICE_ACCOUNT = "system:serviceaccount:"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_ACCOUNT = re.compile(rf"{_SERVICE_ACCOUNT}(?P<namespace>{_LABEL}):(?P<name>{_LABEL}(\.{_LABEL})*)")


@dataclass(frozen=True, slots=True)
class ClusterUser:
    """Name, groups, uid and extra, as user.Info of k8s.io/apiserver has them."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def info(self) -> dict[str, object]:
        """As authentication.k8s.io/v1 UserInfo."""
        found: dict[str, object] = {"username": self.name}
        if self.uid:
            found["uid"] = self.uid
        if self.groups:
            found["groups"] = list(self.groups)
        if self.extra:
            found["extra"] = {key: list(values) for key, values in self.extra.items()}
        return found


ADMINISTRATOR = ClusterUser("kubernetes-admin", (MASTERS,))
ANONYMOUS = ClusterUser("system:anonymous", (UNAUTHENTICATED,))


def service_account(namespace: str, name: str) -> ClusterUser:
    """The user that a service account is."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return ClusterUser(f"{_SERVICE_ACCOUNT}{namespace}:{name}", groups)


def split_service_account(name: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user is (k8s.io/apiserver pkg/authentication/serviceaccount)."""
    found = _ACCOUNT.fullmatch(name)
    return None if found is None else (found["namespace"], found["name"])


def with_implicit_group(user: ClusterUser) -> ClusterUser:
    """With the group of all that are authenticated (k8s.io/apiserver pkg/authentication/group)."""
    if user.name == ANONYMOUS.name or AUTHENTICATED in user.groups or UNAUTHENTICATED in user.groups:
        return user
    return replace(user, groups=(*user.groups, AUTHENTICATED))


def read_tokens(path: Path) -> dict[str, ClusterUser]:
    """Users by token, of lines `token,user,uid,"group,group"` as kube-apiserver's --token-auth-file has them.

    Raises:
        OSError: it cannot be read.
        ValueError: a line has less than three columns.
    """
    found: dict[str, ClusterUser] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row:
                continue
            if len(row) < 3:
                raise ValueError(f"{path}: line {number}: token, user name and uid are needed")
            groups = tuple(row[3].split(",")) if len(row) > 3 and row[3] else ()
            if row[0]:
                found[row[0]] = ClusterUser(row[1], groups, row[2])
    return found
