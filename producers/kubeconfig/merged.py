"""The kubeconfig that several files make together, and what a context of it resolves to.

Merging is clientcmd's (tools/clientcmd/loader.go): the first file that names a cluster, a user or a context gives that
entry whole; the current context is the first that is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from producers.kubeconfig.document import Document
from producers.kubeconfig.entries import Cluster, Context, User
from producers.kubeconfig.model import BadKubeconfig, ClusterAccess
from producers.kubeconfig.validation import missing_files, problems

_Entry = TypeVar("_Entry")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Names in one file which an earlier file gives another meaning: that one counts."""

    where: str
    clusters: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MergedKubeconfig:
    """Documents merged. `clusters` and `users` with the document that each is of, `files` those that were read."""

    clusters: Mapping[str, tuple[Cluster, str]] = field(default_factory=dict)
    users: Mapping[str, tuple[User, str]] = field(default_factory=dict)
    contexts: Mapping[str, tuple[Context, str]] = field(default_factory=dict)
    current_context: str = ""
    files: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @staticmethod
    def merge(documents: Sequence[Document], files: Sequence[str] = ()) -> MergedKubeconfig:
        """The documents as one; of those with the same name the first counts."""
        clusters: dict[str, tuple[Cluster, str]] = {}
        users: dict[str, tuple[User, str]] = {}
        contexts: dict[str, tuple[Context, str]] = {}
        current = ""
        left_out = []
        for document in documents:
            current = current or document.current_context
            where = document.where
            lost_clusters = _add(clusters, document.clusters, where)
            lost_users = _add(users, document.users, where)
            lost_contexts = _add(contexts, document.contexts, where)
            # The same words in two files are two contexts if what they name is not the same.
            lost_contexts += [
                name
                for name, one in document.contexts.items()
                if name not in lost_contexts
                and contexts[name][1] != where
                and (one.cluster in lost_clusters or one.user in lost_users)
            ]
            if lost_clusters or lost_users or lost_contexts:
                lost = LeftOut(where, tuple(lost_clusters), tuple(lost_users), tuple(lost_contexts))
                left_out.append(lost)
        return MergedKubeconfig(clusters, users, contexts, current, tuple(files), tuple(left_out))

    @property
    def empty(self) -> bool:
        """Whether it says nothing of any cluster."""
        return not (self.clusters or self.users or self.contexts or self.current_context)

    def one_context(self, where: str) -> str:
        """The context to take where one cluster is wanted: the current one, or the only one. Raises BadKubeconfig."""
        if self.current_context in self.contexts and self.current_context:
            return self.current_context
        if self.current_context:
            raise BadKubeconfig(f"{where}: its current-context {self.current_context!r} is not among its contexts")
        named = [name for name in self.contexts if name]
        if len(named) == 1:
            return named[0]
        raise BadKubeconfig(f"{where}: {len(named)} contexts and no current-context that says which")

    def access(self, context: str, name: str | None = None) -> ClusterAccess:
        """How the cluster of a context is reached, with what is wrong with its entries. Blocking, but not for long.

        `name`: the cluster's, if it is not the context's. Raises BadKubeconfig if there is no such context.
        """
        if context not in self.contexts:
            known = ", ".join(sorted(self.contexts)[:20]) or "none"
            raise BadKubeconfig(f"no context {context!r} in {', '.join(self.files)}; it has {known}")
        chosen, file = self.contexts[context]
        shown = f"context {context}"
        name = context if name is None else name
        if not chosen.cluster and "" not in self.clusters:
            return ClusterAccess(name, problem=f"{shown} of {file} names no cluster", where=shown)
        if chosen.cluster not in self.clusters:
            there = f"{shown} of {file}: there is no cluster {chosen.cluster!r}"
            return ClusterAccess(name, problem=there, where=shown)
        cluster, cluster_file = self.clusters[chosen.cluster]
        # An unknown user is none (clientcmd's getAuthInfo).
        user, user_file = self.users.get(chosen.user, (User(), file))
        if user.auth_provider is not None:
            written = replace(user.auth_provider, file=user_file, entry=chosen.user, files=self.files)
            user = replace(user, auth_provider=written)
        found = problems(
            cluster, user, f"cluster {chosen.cluster!r} of {cluster_file}", f"user {chosen.user!r} of {user_file}"
        )
        return ClusterAccess(name, cluster, user, "; ".join(found), shown)

    def missing(self, context: str) -> list[str]:
        """Files that a context's entries name and that cannot be opened now."""
        chosen, _ = self.contexts[context]
        cluster, _ = self.clusters.get(chosen.cluster, (Cluster(), ""))
        user, _ = self.users.get(chosen.user, (User(), ""))
        return missing_files(cluster, user)


def _add(into: dict[str, tuple[_Entry, str]], found: Mapping[str, _Entry], where: str) -> list[str]:
    """Adds what is new; the names of what is there already and is another."""
    lost = []
    for name, one in found.items():
        if into.setdefault(name, (one, where))[0] != one:
            lost.append(name)
    return lost
