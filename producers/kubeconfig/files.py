"""Kubeconfig files: which ones, each read once for each of its states, off the event loop.

Which files: client-go tools/clientcmd/loader.go, `ClientConfigLoadingRules`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from producers.kubeconfig.document import Document, read
from producers.kubeconfig.merged import MergedKubeconfig
from producers.kubeconfig.model import BadKubeconfig, ClusterAccess
from producers.kubeconfig.yaml_values import FOREIGN

FileState = tuple[int, int, int]
"""Modification time in nanoseconds, inode and size; zeros if there is no such file."""

_NONE: FileState = (0, 0, 0)
_SUFFIXES = (".yaml", ".yml", ".json", ".conf", ".kubeconfig")


def file_state(path: str) -> FileState:
    """Another value when the file changes. A link's is that of what it leads to."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return _NONE
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def default_kubeconfig() -> str:
    """The path, or paths, that kubectl takes: $KUBECONFIG, else ~/.kube/config."""
    return os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")


def paths_of(kubeconfig: str) -> list[str]:
    """The files that are meant by what --kubeconfig, $KUBECONFIG or a configuration says; empty: the default ones.

    Several are separated as in $KUBECONFIG, where `~` is a name as any other; one file's name may have a colon.
    """
    if not kubeconfig:
        return list(dict.fromkeys(path for path in default_kubeconfig().split(os.pathsep) if path))
    if os.path.exists(kubeconfig):
        return [kubeconfig]
    paths = (path for path in kubeconfig.split(os.pathsep) if path)
    return list(dict.fromkeys(path if os.path.exists(path) else os.path.expanduser(path) for path in paths))


class _Read(NamedTuple):
    state: FileState
    digest: bytes
    found: Document | BadKubeconfig


def _read(text: bytes, path: str) -> Document | BadKubeconfig:
    try:
        return read(text, path, os.path.dirname(os.path.abspath(path)))
    except BadKubeconfig as problem:
        return problem


class Files:
    """Files as they were last read. Used by one task at a time; all its methods block, and belong into a thread.

    A file that was only touched is read, but not parsed: 1 ms instead of 100 for 100 clusters with certificates.
    """

    def __init__(self) -> None:
        self._read: dict[str, _Read] = {}

    def document(self, path: str) -> Document | None:
        """What a file says; None if there is none. Raises BadKubeconfig."""
        state = file_state(path)
        known = self._read.get(path)
        if known is None or known.state != state or state == _NONE:
            try:
                text = Path(path).read_bytes()
            except FileNotFoundError:
                self._read.pop(path, None)
                return None
            except (OSError, ValueError) as cause:
                raise BadKubeconfig(f"{path}: {getattr(cause, 'strerror', None) or 'no path'}") from None
            digest = hashlib.blake2b(text).digest()
            same = known is not None and known.digest == digest
            known = _Read(state, digest, known.found if known is not None and same else _read(text, path))
            self._read[path] = known
        if isinstance(known.found, BadKubeconfig):
            raise BadKubeconfig(str(known.found))
        return known.found

    def kubeconfig(self, kubeconfig: str = "") -> MergedKubeconfig:
        """The files of `paths_of` as one; those that do not exist are passed over. Raises BadKubeconfig."""
        return self.merged(paths_of(kubeconfig))

    def merged(self, paths: Sequence[str]) -> MergedKubeconfig:
        """These files as one. Raises BadKubeconfig."""
        found = [document for path in paths if (document := self.document(path)) is not None]
        return MergedKubeconfig.merge(found, [os.path.abspath(path) for path in paths])

    def forget(self, paths: Sequence[str]) -> None:
        """Keeps nothing of other files than these."""
        self._read = {path: known for path, known in self._read.items() if path in paths}


def access_of(kubeconfig: str, context: str = "", name: str | None = None) -> ClusterAccess:
    """How the cluster of one context is reached; `context` empty: the current one, or the only one.

    Blocking. Raises BadKubeconfig.
    """
    found = Files().kubeconfig(kubeconfig)
    return found.access(context or found.one_context(kubeconfig), name)


def directory_entries(directory: str) -> dict[str, str]:
    """What is in a directory of kubeconfigs, by path: the cluster that it is, if it is a file: its name without suffix.

    Blocking, as far as the directory is. Raises BadKubeconfig if there is no such directory.
    """
    found: dict[str, str] = {}
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
    except OSError as cause:
        raise BadKubeconfig(f"{directory}: {cause.strerror}") from None
    for file in names:
        name = file
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        found[str(Path(directory) / file)] = name
    return found


def directory_files(directory: str) -> dict[str, str]:
    """The files of a directory of kubeconfigs by cluster; of several for one name the first.

    Blocking. Raises BadKubeconfig if there is no such directory.
    """
    found: dict[str, str] = {}
    for path, name in directory_entries(directory).items():
        if os.path.isfile(path):
            found.setdefault(name, path)
    return found


# -- kubeconfigs that are no files -------------------------------------------------------------------------------------

# What would run a command of its writer's choice, or read our files.
_FOREIGN_USER = (
    ("exec", "exec"),
    ("auth-provider", "auth_provider"),
    ("tokenFile", "token_file"),
    ("client-certificate", "certificate_file"),
    ("client-key", "key_file"),
)


def inline_access(name: str, text: bytes, where: str) -> ClusterAccess:
    """How the cluster of a kubeconfig is reached that an object of a host cluster holds, by its current context.

    Whoever may write such an object must not gain more than access to a cluster: no commands, no files of ours, and no
    more work than a bounded text makes. What is wrong with it is the access's `problem`. Blocking.
    """
    try:
        document = read(text, where, "/", FOREIGN)
        for entry, user in document.users.items():
            for key, attribute in _FOREIGN_USER:
                if getattr(user, attribute):
                    _refuse(where, f"users[{entry}].{key}")
        for entry, cluster in document.clusters.items():
            if cluster.authority_file:
                _refuse(where, f"clusters[{entry}].certificate-authority")
        merged = MergedKubeconfig.merge([document], (where,))
        access = merged.access(merged.one_context(where), name)
    except BadKubeconfig as cause:
        return ClusterAccess(name, problem=str(cause), where=where)
    return ClusterAccess(name, access.cluster, access.user, access.problem, where)


def _refuse(where: str, key: str) -> None:
    raise BadKubeconfig(
        f"{where}: {key} is not allowed in a kubeconfig from an object; put the token or the -data there"
    )
