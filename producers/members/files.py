"""The clusters that files name: contexts of a kubeconfig, or a kubeconfig for each file of a directory.

A cluster keeps its name: one that was chosen stays while its context exists, whatever context is the current one now.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeVar

from producers.kubeconfig.document import Document
from producers.kubeconfig.files import Files, default_kubeconfig, directory_entries, file_state, paths_of
from producers.kubeconfig.merged import LeftOut, MergedKubeconfig
from producers.kubeconfig.model import BadKubeconfig, ClusterAccess
from producers.members.apart import Apart
from producers.rules.configuration import Directory, Kubeconfig
from producers.timing import DEFAULT

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """What files say now: clusters by name, files that cannot be read by the name of their cluster.

    `remarks`: what an operator should know once, each an event with its fields and the way out.
    """

    clusters: dict[str, ClusterAccess]
    unreadable: dict[str, str] = field(default_factory=dict)
    remarks: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()


class FileSource:
    """The files of one source. Used by one task at a time.

    `limit`: seconds after which a file that does not answer, or a cluster whose files do not, is passed over until it
    does: one on a dead file server holds up no others.
    """

    def __init__(self, origin: Kubeconfig | Directory, limit: float = DEFAULT.kubeconfig_files) -> None:
        self.origin = origin
        self._limit = limit
        self._files = Files()
        path = origin.path or default_kubeconfig()
        self._where = path
        self._apart = Apart(path, limit)
        # What entries name and what could not be opened: when one of them is there, the entries are looked at again.
        self._missing: tuple[str, ...] = ()

    async def state(self) -> object:
        """Another value when there is something to read anew. Raises BadKubeconfig where nothing answers."""
        if isinstance(self.origin, Kubeconfig):
            paths = await self._alone(paths_of, self.origin.path)
        else:
            try:
                names = sorted(await self._alone(os.listdir, self.origin.path))
            except OSError:
                return None
            paths = [os.path.join(self.origin.path, name) for name in names]
        found = await self._apart.each((*paths, *self._missing), file_state)
        # Of what hangs it is known when it does no longer.
        return (tuple(found.items()), self._apart.hanging)

    async def read(self, known: Collection[str] = ()) -> Found:
        """What the files say. `known`: the names that clusters have. Raises BadKubeconfig."""
        if isinstance(self.origin, Kubeconfig):
            return await self._contexts(self.origin, known)
        return await self._directory(self.origin)

    async def _contexts(self, origin: Kubeconfig, known: Collection[str]) -> Found:
        paths = await self._alone(paths_of, origin.path)
        documents = await self._apart.each(paths, self._files.document)
        self._files.forget(paths)
        for path in paths:
            if path not in documents:
                raise BadKubeconfig(self._silent(path))
        found = [document for document in map(_whole, documents.values()) if document is not None]
        if not found:
            raise BadKubeconfig(f"no kubeconfig at {self._where}; give one with --kubeconfig or $KUBECONFIG")
        merged = MergedKubeconfig.merge(found, [os.path.abspath(path) for path in paths])
        names, remarks = choose(merged, origin.contexts, known, self._where)
        # A cluster's certificates are files, too, which have to be there.
        looked = await self._apart.each(names, lambda name: (merged.access(name), merged.missing(name)))
        answered = {name: _whole(one) for name, one in looked.items()}
        self._missing = tuple(path for _, missing in answered.values() for path in missing)
        remarks += [_left_out(lost) for lost in merged.left_out]
        silent = {name: self._silent(f"a file that context {name} names") for name in names if name not in answered}
        return Found({name: access for name, (access, _) in answered.items()}, silent, tuple(remarks))

    async def _directory(self, origin: Directory) -> Found:
        clusters: dict[str, ClusterAccess] = {}
        unreadable: dict[str, str] = {}
        missing: list[str] = []
        files = await self._alone(directory_entries, origin.path)
        self._files.forget(tuple(files))

        def look(path: str) -> tuple[ClusterAccess, list[str]] | None:
            if not os.path.isfile(path):
                return None
            merged = MergedKubeconfig.merge([self._files.document(path) or Document(path)], [path])
            context = merged.one_context(path)
            return merged.access(context, files[path]), merged.missing(context)

        looked = await self._apart.each(files, look)
        for path, name in files.items():
            if name in clusters or name in unreadable:
                # Two files with one name but for the suffix: the first counts.
                continue
            one = looked.get(path)
            if isinstance(one, BadKubeconfig):
                unreadable[name] = str(one)
            elif path not in looked:
                unreadable[name] = self._silent(path)
            elif (found := _whole(one)) is not None:
                clusters[name], named = found
                missing += named
        self._missing = tuple(missing)
        return Found(clusters, unreadable)

    async def _alone(self, look: Callable[[str], T], path: str) -> T:
        """What one look at the source's own path comes to. Raises BadKubeconfig where there is no answer."""
        found = await self._apart.each((path,), look)
        if path not in found:
            raise BadKubeconfig(self._silent(path or self._where))
        return _whole(found[path])

    def _silent(self, what: str) -> str:
        return f"{what}: no answer from the file system within {self._limit:g} s"


def _whole(found: T | Exception) -> T:
    """Raises what a look raised."""
    if isinstance(found, Exception):
        raise found
    return found


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
