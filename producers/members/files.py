"""The clusters that files name: contexts of a kubeconfig, or a kubeconfig for each file of a directory.

A cluster keeps its name: one that was chosen stays while its context exists, whatever context is the current one now.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from producers.kubeconfig.document import Document
from producers.kubeconfig.files import Files, default_kubeconfig, directory_files, file_state, paths_of
from producers.kubeconfig.merged import LeftOut, MergedKubeconfig
from producers.kubeconfig.model import BadKubeconfig, ClusterAccess
from producers.rules.configuration import Directory, Kubeconfig


@dataclass(frozen=True, slots=True)
class Found:
    """What files say now: clusters by name, files that cannot be read by the name of their cluster.

    `remarks`: what an operator should know once, each an event with its fields and the way out.
    """

    clusters: dict[str, ClusterAccess]
    unreadable: dict[str, str] = field(default_factory=dict)
    remarks: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()


class FileSource:
    """The files of one source. Used by one task at a time; `state` and `read` block, and belong into a thread."""

    def __init__(self, origin: Kubeconfig | Directory) -> None:
        self.origin = origin
        self._files = Files()
        # What entries name and what could not be opened: when one of them is there, the entries are looked at again.
        self._missing: tuple[str, ...] = ()

    def state(self) -> object:
        """Another value when there is something to read anew."""
        missing = tuple((path, file_state(path)) for path in self._missing)
        if isinstance(self.origin, Kubeconfig):
            return (*((path, file_state(path)) for path in paths_of(self.origin.path)), missing)
        try:
            names = sorted(os.listdir(self.origin.path))
        except OSError:
            return None
        return (*((name, file_state(os.path.join(self.origin.path, name))) for name in names), missing)

    def read(self, known: Collection[str] = ()) -> Found:
        """What the files say. `known`: the names that clusters have. Raises BadKubeconfig."""
        if isinstance(self.origin, Kubeconfig):
            return self._contexts(self.origin, known)
        return self._directory(self.origin)

    def _contexts(self, origin: Kubeconfig, known: Collection[str]) -> Found:
        shown = origin.path or default_kubeconfig()
        paths = paths_of(origin.path)
        merged = self._files.merged(paths)
        self._files.forget(paths)
        if not any(os.path.exists(path) for path in paths):
            raise BadKubeconfig(f"no kubeconfig at {shown}; give one with --kubeconfig or $KUBECONFIG")
        names, remarks = choose(merged, origin.contexts, known, shown)
        clusters = {name: merged.access(name) for name in names}
        self._missing = tuple(path for name in names for path in merged.missing(name))
        remarks += [_left_out(lost) for lost in merged.left_out]
        return Found(clusters, {}, tuple(remarks))

    def _directory(self, origin: Directory) -> Found:
        clusters: dict[str, ClusterAccess] = {}
        unreadable: dict[str, str] = {}
        missing: list[str] = []
        files = directory_files(origin.path)
        self._files.forget(tuple(files.values()))
        for name, path in files.items():
            try:
                merged = MergedKubeconfig.merge([self._files.document(path) or Document(path)], [path])
                context = merged.one_context(path)
                clusters[name] = merged.access(context, name)
                missing += merged.missing(context)
            except BadKubeconfig as problem:
                unreadable[name] = str(problem)
        self._missing = tuple(missing)
        return Found(clusters, unreadable)


_Remarks = list[tuple[str, tuple[tuple[str, str], ...]]]


def choose(
    merged: MergedKubeconfig, wanted: Iterable[str], known: Collection[str], where: str
) -> tuple[list[str], _Remarks]:
    """The contexts to take as clusters, in the files' order, and remarks on those that are left out.

    `wanted`: names, or patterns with wildcards; empty: all. Of several contexts with one cluster entry one is taken,
    if not each is wanted by name: one of the `known`, else the current one, else the first. Raises BadKubeconfig.
    """
    remarks: _Remarks = []
    found = {}
    for name, (one, _) in merged.contexts.items():
        if not {".", ".."}.isdisjoint(name.split("/")):
            # Of the paths below /clusters/<cluster> none would lead there.
            mend = ("mend", "rename it: . and .. are steps of a path")
            remarks.append(("context left out: it could not be asked for", (("context", name), mend)))
        elif name:
            found[name] = one.cluster
    wanted = tuple(wanted)
    exact = [name for name in dict.fromkeys(wanted) if "*" not in name]
    wild = [name for name in wanted if "*" in name]
    if not found:
        raise BadKubeconfig(f"{where} names no contexts")
    for name in exact:
        if name not in found:
            raise BadKubeconfig(f"no context {name!r} in {where}; it has {', '.join(sorted(found)[:20])}")
    if exact and not wild:
        return exact, remarks
    kept = {*exact, *(name for name in known if name in found and _wanted(name, wild))}
    chosen = {found[name] or name: name for name in reversed(list(found)) if name in kept}
    for name in sorted(found, key=lambda name: name != merged.current_context):
        if name in kept or not _wanted(name, wild):
            continue
        first = chosen.setdefault(found[name] or name, name)
        if first == name:
            kept.add(name)
        else:
            fields = (("context", name), ("taken", first), ("mend", "name it by --context"))
            remarks.append(("context left out: same cluster entry", fields))
    return [name for name in found if name in kept], remarks


def _wanted(name: str, wild: list[str]) -> bool:
    return not wild or any(fnmatchcase(name, one) for one in wild)


def _left_out(lost: LeftOut) -> tuple[str, tuple[tuple[str, str], ...]]:
    named = (("contexts", lost.contexts), ("clusters", lost.clusters), ("users", lost.users))
    return (
        "left out: an earlier file has these names, and the first counts",
        (
            ("file", lost.where),
            *((key, ", ".join(names)) for key, names in named if names),
            ("mend", "give them other names there, or put the files into a directory and follow it with --directory"),
        ),
    )
