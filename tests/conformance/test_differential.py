"""The same watches and lists on a member and through kubebraid, while the member changes: event by event, byte by byte.

What may differ is in `same_bytes.py`. KUBEBRAID_CONFORMANCE_SEED is another course, KUBEBRAID_SOAK_STEPS a longer one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import pytest

from tests.conformance.conftest import Ground
from tests.conformance.course import Course, Selection, pod_spec
from tests.conformance.endpoint import Endpoint, Event
from tests.conformance.same_bytes import Shown, bare_list, shown
from tests.conformance.test_custom_resources import defined
from tests.patience import PATIENCE

pytestmark = [pytest.mark.clusters, pytest.mark.asyncio(loop_scope="module")]

SEED = int(os.environ.get("KUBEBRAID_CONFORMANCE_SEED", "7"))
STEPS = int(os.environ.get("KUBEBRAID_SOAK_STEPS", "240"))
# In so many parts the course is run; between them watches begin that go on from an event of the part before.
PARTS = 4


class Following:
    """One watch on one side; a task reads it, from the start of the block to its mark."""

    def __init__(self, endpoint: Endpoint, path: str, selection: Selection, mark: int, version: str | None) -> None:
        self.endpoint = endpoint
        self.selection = selection
        self.mark = str(mark)
        self.events: list[Event] = []
        self._path = path
        self._query = {**selection.query, **({} if version is None else {"resourceVersion": version})}
        self._opened = asyncio.Event()
        self._more = asyncio.Event()

    async def run(self) -> None:
        async with self.endpoint.watch(self._path, self.selection.accept, **self._query) as watch:
            self._opened.set()
            while not self._at_mark():
                event = await watch.next(None)
                assert event is not None, f"{self.endpoint.name} ends the watch of {self.selection}"
                assert event.type != "ERROR", (self.selection, self._query, event.object)
                if event.type != "BOOKMARK":
                    self.events.append(event)
                    self._more.set()

    def __str__(self) -> str:
        return f"{self.endpoint.name}: {self.selection} {self._query}, {len(self.events)} events"

    def _at_mark(self) -> bool:
        if not self.events or self.events[-1].type != "ADDED":
            return False
        metadata = self.events[-1].object["metadata"]
        return (metadata.get("annotations") or {}).get("mark") == self.mark

    async def opened(self) -> None:
        await self._opened.wait()

    async def has(self, count: int) -> None:
        """Returns when so many events have come."""
        async with asyncio.timeout(PATIENCE):
            while len(self.events) < count:
                self._more.clear()
                await self._more.wait()

    def shown(self, cluster: str | None) -> list[Shown]:
        custom = self.selection.custom
        return [shown(event.line, cluster, custom=custom) for event in self.events]


@dataclass
class Pair:
    """A watch on both sides. `initial`: it begins with the state, whose versions are in no order."""

    selection: Selection
    theirs: Following
    ours: Following
    initial: bool
    since: str

    def compare(self, cluster: str) -> None:
        theirs, ours = self.theirs.shown(None), self.ours.shown(cluster)
        said = f"{self.selection} {self.since}"
        for number, (one, other) in enumerate(zip(theirs, ours, strict=False)):
            assert (other.type, other.object) == (one.type, one.object), f"{said}: event {number} of {len(theirs)}"
            index, original = other.version.split(".")[1:]
            if one.type != "DELETED":
                assert original == one.version, f"{said}: event {number}"
            assert index.isdecimal()
        assert len(ours) == len(theirs), said
        indexes = [int(event.version.split(".")[1]) for event in ours]
        if not self.initial:
            assert indexes == sorted(set(indexes)), f"{said}: versions do not grow"


class Both:
    """Member and kubebraid, watched at once."""

    def __init__(self, ground: Ground, course: Course, group: asyncio.TaskGroup) -> None:
        self.ground = ground
        self.course = course
        self.pairs: list[Pair] = []
        self._group = group
        self._reading: dict[asyncio.Task[None], Following] = {}

    async def watch(
        self, selection: Selection, versions: tuple[str, str] | None, since: str, ours: Endpoint | None = None
    ) -> Pair:
        """Begin a watch on both sides, from the state or from versions of the same moment on each.

        `ours`: an instance of kubebraid, if not the first.
        """
        mark, path = len(self.pairs), self.course.paths[selection.kind]
        of_theirs, of_ours = versions or (None, None)
        member = Following(self.ground.member, path, selection, mark, of_theirs)
        braided = Following(ours or self.ground.ours, path, selection, mark, of_ours)
        for following in (member, braided):
            self._reading[self._group.create_task(following.run())] = following
            await following.opened()
        pair = Pair(selection, member, braided, initial=versions is None, since=since)
        self.pairs.append(pair)
        return pair

    async def versions(self, kind: str) -> tuple[str, str]:
        """Of a list on both sides, when nothing is under way."""
        theirs, ours = [await side.get(self.course.paths[kind]) for side in (self.ground.member, self.ground.ours)]
        assert len(theirs["items"]) == len(ours["items"])
        return theirs["metadata"]["resourceVersion"], ours["metadata"]["resourceVersion"]

    async def end(self) -> None:
        """Write the marks of all watches, and wait until each has come to its own."""
        for number, pair in enumerate(self.pairs):
            await self.course.mark(number, pair.selection)
        _, waiting = await asyncio.wait(self._reading, timeout=PATIENCE)
        assert not waiting, [str(self._reading[task]) for task in waiting]


@contextlib.asynccontextmanager
async def course_on(ground: Ground, seed: int) -> AsyncIterator[Course]:
    """A course in a new namespace and with a new custom resource, which both sides serve."""
    async with defined(ground.ours, "Namespaced", ("host", "port")) as definition, ground.member.namespace() as name:
        yield Course(ground.member, name, definition, seed)


async def same_lists(ground: Ground, course: Course, **more: str) -> None:
    """Every selection, listed on both sides: whole, and in pages."""
    for selection in course.selections:
        if selection.accept != "application/json":
            continue
        path, custom = course.paths[selection.kind], selection.custom

        async def listed(
            endpoint: Endpoint, cluster: str | None, query: Mapping[str, str], path: str = path, custom: bool = custom
        ) -> list[tuple[bytes, list[bytes]]]:
            pages, token = [], ""
            while True:
                body = await endpoint.bytes(path, **query, **({"continue": token} if token else {}))
                pages.append(bare_list(body, cluster, custom=custom))
                token = json.loads(body)["metadata"].get("continue", "")
                if not token:
                    break
            # A kube-apiserver that has found a page of what is selected looks no further: nothing may be behind it.
            if len(pages) > 1 and not pages[-1][1]:
                pages.pop()
            return pages

        for query in (selection.query, {**selection.query, "limit": "3"}):
            theirs = await listed(ground.member, None, {**query, **more})
            ours = await listed(ground.ours, ground.cluster, {**query, **more})
            assert ours == theirs, f"{selection} {query}"


@pytest.mark.parametrize(
    "another",
    [pytest.param(False, id="here"), pytest.param(True, id="another")],
)
async def test_every_event_is_the_members(ground: Ground, another: bool) -> None:
    """`another`: watches go on at an instance that starts then, too."""
    async with course_on(ground, SEED) as course:
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            both = Both(ground, course, group)
            for selection in course.selections:
                await both.watch(selection, None, "from the state")
                await both.watch(selection, await both.versions(selection.kind), "from a list")
            whole = {pair.selection.kind: pair for pair in both.pairs if not pair.selection.query}
            for part in range(PARTS):
                for _ in range(STEPS // PARTS):
                    await course.step()
                if part == PARTS - 1:
                    break
                elsewhere = None
                if another and part == PARTS - 2:
                    elsewhere = await stack.enter_async_context(ground.another())
                for selection in course.selections:
                    # From the version of an event that both sides have shown, and that may be long past.
                    pair = whole[selection.kind]
                    if not pair.theirs.events:
                        continue
                    at = course.random.randrange(len(pair.theirs.events))
                    await pair.ours.has(at + 1)
                    versions = (pair.theirs.events[at].version, pair.ours.events[at].version)
                    await both.watch(selection, versions, f"from event {at} on")
                    if elsewhere is not None:
                        await both.watch(selection, versions, f"from event {at} on, at another instance", elsewhere)
            await both.end()
        for pair in both.pairs:
            pair.compare(ground.cluster)
        counted = [len(pair.ours.events) for pair in both.pairs]
        assert sum(counted) > STEPS
        await same_lists(ground, course)


async def test_many_patches_and_forced_deletions(ground: Ground) -> None:
    """60 patches of one object in a row are 60 events, and 10 forced deletions are 20: live, resumed, and selected."""
    async with course_on(ground, SEED + 1) as course:
        member, pods, maps = ground.member, course.paths["pods"], course.paths["configmaps"]
        whole_of = {
            kind: next(one for one in course.selections if one.kind == kind and not one.query)
            for kind in ("pods", "configmaps")
        }
        of_none = f"spec.nodeName={course.nodes.none}"
        elsewhere = next(one for one in course.selections if one.query.get("fieldSelector") == of_none)
        async with asyncio.TaskGroup() as group:
            both = Both(ground, course, group)
            before = {kind: await both.versions(kind) for kind in whole_of}
            live = {kind: await both.watch(whole_of[kind], before[kind], "live") for kind in whole_of}
            selected = await both.watch(elsewhere, before["pods"], "live")
            await member.create(maps, {"metadata": {"name": "one"}})
            for number in range(60):
                await member.patch(f"{maps}/one", {"data": {"number": str(number)}})
            for number in range(10):
                await member.create(pods, {"metadata": {"name": f"pod-{number}"}, "spec": pod_spec(course.nodes.a)})
            for number in range(10):
                await member.delete(f"{pods}/pod-{number}", gracePeriodSeconds=0)
            resumed = {kind: await both.watch(whole_of[kind], before[kind], "resumed") for kind in whole_of}
            again = await both.watch(elsewhere, before["pods"], "resumed")
            await both.end()
        for pair in both.pairs:
            pair.compare(ground.cluster)
        for watches in (live, resumed):
            types = [event.type for event in watches["configmaps"].ours.events if event.name == "one"]
            assert types == ["ADDED"] + ["MODIFIED"] * 60
            types = [event.type for event in watches["pods"].ours.events if event.name.startswith("pod-")]
            assert types == ["ADDED"] * 10 + ["MODIFIED", "DELETED"] * 10
        for pair in (selected, again):
            # The marks alone: no pod was ever on this node.
            assert {event.type for event in pair.ours.events} == {"ADDED"}


async def test_lists_at_the_versions_of_events(ground: Ground) -> None:
    """The state right after any event, asked for with `Exact`."""
    async with course_on(ground, SEED + 2) as course:
        async with asyncio.TaskGroup() as group:
            both = Both(ground, course, group)
            # From before the first step, as a watch begins with the state that its side has by then.
            pairs = [await both.watch(one, None, "from the state") for one in course.selections if not one.query]
            for _ in range(60):
                await course.step()
            await both.end()
        for pair in pairs:
            if pair.selection.accept != "application/json":
                continue
            path, custom = course.paths[pair.selection.kind], pair.selection.custom
            events = list(zip(pair.theirs.events, pair.ours.events, strict=True))
            for their_event, our_event in events[-40::4]:
                exact = {"resourceVersionMatch": "Exact"}
                theirs = await ground.member.bytes(path, resourceVersion=their_event.version, **exact)
                ours = await ground.ours.bytes(path, resourceVersion=our_event.version, **exact)
                assert bare_list(ours, ground.cluster, custom=custom) == bare_list(theirs, None, custom=custom)
