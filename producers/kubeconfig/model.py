"""How a member cluster is reached and as whom: the value that a context of kubeconfig files resolves to."""

from __future__ import annotations

from dataclasses import dataclass

from producers.errors import UnusableInput
from producers.kubeconfig.entries import Cluster, User


class BadKubeconfig(UnusableInput):
    """The kubeconfig, or a context of it, cannot be used; one line that says why, and the remedy; never a secret."""


_NO_CLUSTER, _NO_USER = Cluster(), User()


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """A member cluster as it is reached. Equal values are the same access: nothing is begun anew for them.

    `problem`: why it cannot be used at all, in one line without a secret; empty if it can. `where`: what it stands in,
    for messages, as `context dev`.
    """

    name: str
    cluster: Cluster = _NO_CLUSTER
    user: User = _NO_USER
    problem: str = ""
    where: str = ""
