"""The member clusters of now, from all sources of a configuration; they are added and removed while producers run."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import NamedTuple

import structlog

from deltalog.jetstream.backoff import Backoff
from deltalog.wire.subjects import encode_token
from producers.errors import ProducersError, UnusableInput
from producers.kubeconfig.files import file_state
from producers.kubeconfig.model import BadKubeconfig, ClusterAccess
from producers.members import host_cluster
from producers.members.described import Described
from producers.members.files import FileSource
from producers.rules.configuration import (
    Configuration,
    Directory,
    Kubeconfig,
    Origin,
    Source,
    load,
)
from producers.rules.rules import Rules
from producers.supervision import Complaints, being_cancelled, endless
from producers.threads import reading
from producers.timing import DEFAULT, ProducerTiming

log = structlog.get_logger("producers.members.membership")


# Bytes of a cluster's name, as subjects have it: a subject is part of a line of NATS' protocol, of 4 KB at most.
_LONGEST_NAME = 1024


def name_problem(name: str) -> str:
    """Why a cluster cannot have a name, in a few words; empty if it can: it has to be a token of the log's subjects."""
    if not name:
        return "is empty"
    try:
        if len(encode_token(name)) > _LONGEST_NAME:
            return "is too long"
    except UnicodeEncodeError:
        return "is no UTF-8"
    return ""


class Member(NamedTuple):
    """One cluster: how it is reached, and what is synced of it."""

    access: ClusterAccess
    rules: Rules


class _Found(NamedTuple):
    """What one source has now. `rules`: of clusters that bring their own."""

    clusters: dict[str, ClusterAccess]
    rules: dict[str, Rules]


class Members:
    """All members of a configuration, kept current. Owned by the producer; one task runs `run`.

    `current` is replaced, never changed; `changed` is set with each replacement. `configuration` is the one in force.
    A source that cannot be read keeps the clusters it had: only clusters that it certainly lacks are removed.
    """

    def __init__(
        self, configuration: Configuration, file: Path | None = None, timing: ProducerTiming = DEFAULT
    ) -> None:
        self.configuration = configuration
        self.current: dict[str, Member] = {}
        self.changed = asyncio.Event()
        self._file = file
        self._timing = timing
        self._seen = file_state(str(file)) if file is not None else None
        self._found: dict[Origin, _Found] = {}
        self._sources: dict[Origin, FileSource] = {}
        self._read: dict[Origin, object] = {}
        self._following: dict[Origin, asyncio.Task[None]] = {}
        self._complaints: dict[str, str] = {}
        self._remarks: set[tuple[object, ...]] = set()

    async def first(self) -> None:
        """Reads all sources once; of several, one that cannot be read yet is left to `run`.

        Raises BadKubeconfig if none of the sources can be read.
        """
        problems = []
        for source in self.configuration.sources:
            if isinstance(source.origin, Kubeconfig | Directory) and source.origin not in self._found:
                try:
                    state = await self._source(source.origin).state()
                    self._found[source.origin] = await self._look(source.origin)
                except BadKubeconfig as problem:
                    problems.append(problem)
                    if len(problems) == len(self.configuration.sources):
                        raise problems[0] from None
                    self._complain(str(source.origin), str(problem))
                    continue
                self._read[source.origin] = state
        self._merge()

    async def once(self, patience: float) -> list[str]:
        """Reads all sources once, objects of host clusters, too, each for `patience` seconds at most.

        Returns what cannot be read, a line each.
        """
        for origin in dict.fromkeys(source.origin for source in self.configuration.sources):
            try:
                if isinstance(origin, Kubeconfig | Directory):
                    self._found[origin] = await self._look(origin)
                else:
                    async with asyncio.timeout(patience):
                        described = await host_cluster.described_now(origin, self._timing)
                    self._found[origin] = self._described(origin, described)
            except TimeoutError:
                self._complain(str(origin), f"{_in_words(origin)}: no answer within {patience:g} s")
            except ProducersError as problem:
                self._complain(str(origin), str(problem))
        self._merge()
        return list(self._complaints.values())

    async def run(self) -> None:
        """Follows the sources, and the configuration's file, until cancelled.

        Whatever a source fails with is that source's alone: it is tried again, and its clusters stay as they were.
        """
        complain = Complaints(log, "the configuration cannot be followed")
        async with asyncio.TaskGroup() as tasks:
            self._follow_all(tasks)
            while True:
                await asyncio.sleep(self._timing.look_at_files_every)
                try:
                    if self._file is not None and await self._configuration_changed():
                        self._follow_all(tasks)
                        self._merge()
                except Exception as cause:
                    if being_cancelled():
                        raise
                    complain(cause)
                else:
                    complain.clear()

    def _follow_all(self, tasks: asyncio.TaskGroup) -> None:
        wanted = {source.origin for source in self.configuration.sources}
        for origin in [origin for origin in self._following if origin not in wanted]:
            self._following.pop(origin).cancel()
            self._read.pop(origin, None)
            self._sources.pop(origin, None)
        for origin in wanted - set(self._following):
            self._following[origin] = tasks.create_task(self._supervise(origin), name=f"members: {origin}")

    async def _supervise(self, origin: Origin) -> None:
        """Follows a source until cancelled, whatever that raises."""
        complain = Complaints(log, "member clusters cannot be read", source=str(origin))
        backoff = Backoff(*self._timing.failure_backoff)
        while True:
            started = time.monotonic()
            try:
                await endless(self._follow(origin))
            except Exception as cause:
                if being_cancelled():
                    raise
                complain(cause)
            if time.monotonic() - started >= self._timing.host_stable:
                backoff.reset()
            await backoff.wait()

    async def _configuration_changed(self) -> bool:
        assert self._file is not None
        seen = await reading(str(self._file), file_state, str(self._file))
        if seen == self._seen:
            return False
        try:
            configuration = await reading(str(self._file), load, self._file)
        except UnusableInput as problem:
            # It may be half written; what was read before holds until it can be read again.
            self._complain("configuration", str(problem))
            return False
        self._seen = seen
        self._clear("configuration")
        if configuration == self.configuration:
            return False
        log.info("configuration read anew", file=str(self._file))
        for origin in {source.origin for source in configuration.sources} - self._found.keys() - self._following.keys():
            if isinstance(origin, Kubeconfig | Directory):
                try:
                    self._found[origin] = await self._look(origin)
                except BadKubeconfig as problem:
                    # Its task tries again; other sources are not kept waiting.
                    self._complain(str(origin), str(problem))
        self.configuration = configuration
        return True

    # -- files -----------------------------------------------------------------------------------------------------

    def _source(self, origin: Kubeconfig | Directory) -> FileSource:
        if origin not in self._sources:
            self._sources[origin] = FileSource(origin, self._timing.kubeconfig_files)
        return self._sources[origin]

    async def _look(self, origin: Kubeconfig | Directory) -> _Found:
        """Reads a source of files. Raises BadKubeconfig."""
        known = self._found.get(origin, _Found({}, {})).clusters
        found = await self._source(origin).read(tuple(known))
        for event, fields in found.remarks:
            self._remark(event, dict(fields))
        clusters = dict(found.clusters)
        for name, problem in found.unreadable.items():
            # It may be half written.
            self._complain(f"{origin}/{name}", problem)
            if name in known:
                clusters[name] = known[name]
        for name in clusters.keys() - found.unreadable.keys():
            self._clear(f"{origin}/{name}")
        return _Found(clusters, {})

    async def _follow_files(self, origin: Kubeconfig | Directory) -> None:
        source = self._source(origin)
        while True:
            try:
                seen = await source.state()
                if seen != self._read.get(origin):
                    found = await self._look(origin)
                    known = self._found.get(origin, _Found({}, {})).clusters
                    removed = known.keys() - found.clusters.keys()
                    if removed:
                        # A file just being written may have less than it will: believed when it stays so.
                        await asyncio.sleep(self._timing.look_at_files_every)
                        if await source.state() != seen:
                            continue
                    self._read[origin] = seen
                    self._take_in(origin, found)
                self._clear(str(origin))
            except BadKubeconfig as problem:
                self._complain(str(origin), str(problem))
            await asyncio.sleep(self._timing.look_at_files_every)

    async def _follow(self, origin: Origin) -> None:
        if isinstance(origin, Kubeconfig | Directory):
            await self._follow_files(origin)
            return

        def report(described: Described) -> None:
            self._take_in(origin, self._described(origin, described))

        def complain(problem: str | None) -> None:
            if problem is None:
                self._clear(str(origin))
            else:
                self._complain(str(origin), problem)

        await host_cluster.follow(origin, report, complain, self._timing)

    def _described(self, origin: Origin, described: Described) -> _Found:
        for name, problem in described.problems.items():
            self._complain(f"{origin}/{name}", problem)
        return _Found(described.clusters, described.rules)

    # -- together --------------------------------------------------------------------------------------------------

    def _take_in(self, origin: Origin, found: _Found) -> None:
        if self._found.get(origin) != found:
            self._found[origin] = found
            self._merge()

    def _merge(self) -> None:
        current: dict[str, Member] = {}
        named_by: dict[str, Source] = {}
        origins = {source.origin for source in self.configuration.sources}
        for origin in self._found.keys() - origins:
            del self._found[origin]
        for source in self.configuration.sources:
            found = self._found.get(source.origin)
            if found is None:
                continue
            for name, access in found.clusters.items():
                if problem := name_problem(name):
                    self._complain(repr(name[:80]), f"{source.origin}: a cluster's name {problem}: {name[:80]!r}")
                    continue
                if name in current:
                    if named_by[name] != source:
                        self._complain(name, _twice(name))
                    continue
                named_by[name] = source
                current[name] = Member(access, found.rules.get(name, source.rules))
        if origins - self._found.keys():
            # One that was not read yet may have what others had before.
            current = {**self.current, **current}
        self.current = current
        self.changed.set()

    def _complain(self, what: str, problem: str) -> None:
        """Logs a problem once, until it is another one."""
        if self._complaints.get(what) != problem:
            self._complaints[what] = problem
            log.error("member clusters cannot be read", reason=problem)

    def _remark(self, event: str, fields: dict[str, str]) -> None:
        """Says what an operator should know of the files, once."""
        said = (event, *fields.items())
        if said not in self._remarks:
            self._remarks.add(said)
            log.warning(event, **fields)

    def _clear(self, what: str) -> None:
        if self._complaints.pop(what, None) is not None:
            log.info("member clusters can be read again", what=what)


def _in_words(origin: Origin) -> str:
    return origin.path if isinstance(origin, Kubeconfig | Directory) else host_cluster.name_of(origin)


def _twice(name: str) -> str:
    return (
        f"two sources name a cluster {name!r}; the first is taken: give the other's context, file or label another name"
    )
