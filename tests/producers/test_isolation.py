"""Isolation: whatever one member's work raises, wherever, it is stale and tried again; others lose no event."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import inspect
import itertools
import types
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import structlog

from deltalog import Appender
from kubebraid.command.settings import Forward
from kubebraid.command.upstreams import MemberServers
from producers.follow.ownership import Owner
from producers.follow.writer import Writer
from producers.kubeconfig.model import ClusterAccess
from producers.members.membership import Members, _Found
from producers.rules.configuration import Configuration, Directory, Kubeconfig, Source
from producers.rules.rules import Rules
from producers.upstream.apiserver import ApiServer
from query.discovery.readiness import Readiness
from query.forward.forwarding import NoUpstream
from query.identity import NOBODY
from simulation import write_kubeconfig
from tests.producers.three_clusters import QUICK, WELL, Fleet, fleet

__all__ = ["fleet"]


class Injected(RuntimeError):
    """What nothing expects."""


@pytest.fixture
def pods() -> int:
    return 5


# -- an exception at each await ------------------------------------------------------------------------------------


# Where a coroutine waits: the four innermost functions of ours, and the innermost one of all, with their lines.
Place = tuple[str, ...]


def place_of(work: Any) -> Place:
    ours: list[str] = []
    last = ""
    while work is not None:
        if isinstance(work, types.CoroutineType):
            frame, inner = work.cr_frame, work.cr_await
        elif isinstance(work, types.AsyncGeneratorType):
            frame, inner = work.ag_frame, work.ag_await
        elif isinstance(work, types.GeneratorType):
            frame, inner = work.gi_frame, work.gi_yieldfrom
        else:
            # The next item of an asynchronous generator, which the object does not tell.
            frame, inner = None, next((one for one in gc.get_referents(work) if inspect.isasyncgen(one)), None)
        if frame is not None:
            last = f"{frame.f_globals['__name__']}:{frame.f_code.co_name}:{frame.f_lineno}"
            if last.startswith(("producers.", "deltalog.")):
                ours.append(last)
        work = inner
    return (*ours[-4:], last)


class Injector:
    """A task factory that raises in the tasks of one cluster, once at each place where they wait, when it is armed.

    A task is the cluster's if it produces it, or if a task of the cluster makes it.
    """

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.armed = False
        self.hit: set[Place] = set()
        self.tasks: set[asyncio.Task[Any]] = set()

    def make(self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **given: Any) -> asyncio.Task[Any]:
        try:
            of_cluster = asyncio.current_task() in self.tasks
        except RuntimeError:
            of_cluster = False
        if isinstance(work, types.CoroutineType) and work.__qualname__ == "Producer._produce" and work.cr_frame:
            of_cluster = work.cr_frame.f_locals["cluster"].name == self.cluster
        task: asyncio.Task[Any] = asyncio.Task(Driven(work, self) if of_cluster else work, loop=loop, **given)
        if of_cluster:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        return task

    def raises(self, work: Coroutine[Any, Any, Any]) -> bool:
        if not self.armed or (place := place_of(work)) in self.hit:
            return False
        if place[-1].startswith("asyncio.taskgroups:"):
            # A group waits for its tasks by a future that nothing else can reach.
            return False
        if place[0].startswith("producers.producer:"):
            # The supervisor itself, which sleeps.
            return False
        self.hit.add(place)
        return True


class Driven(Coroutine[Any, Any, Any]):
    """A coroutine that an injector may have raise where it waits."""

    def __init__(self, work: Any, injector: Injector) -> None:
        self.work = work
        self.injector = injector
        self.begun = False
        self.__qualname__ = work.__qualname__
        self.__name__ = work.__name__

    def send(self, value: Any) -> Any:
        if self.begun and self.injector.raises(self.work):
            return self.work.throw(Injected("an injected failure"))
        self.begun = True
        return self.work.send(value)

    def throw(self, *error: Any) -> Any:
        return self.work.throw(*error)

    def close(self) -> None:
        self.work.close()

    def __await__(self) -> Any:
        return self.work.__await__()


PARTS = {"producers.follow.probe", "producers.follow.reflector", "deltalog.append", "producers.upstream.exchange"}


def _parts(hit: set[Place]) -> set[str]:
    return {function.split(":")[0] for place in hit for function in place}


async def test_an_exception_at_each_await_of_a_members_work(fleet: Fleet) -> None:
    """One place where it waits after the other, as it comes to each anew; all events of the others come through."""
    injector = Injector("alpha")
    loop = asyncio.get_running_loop()
    loop.set_task_factory(injector.make)  # type: ignore[arg-type]
    try:
        _, warm = await fleet.start("configmaps")
        await fleet.flows(warm, *WELL, "alpha")
        injector.armed = True
        idle = 0
        # On a busy machine rounds go by in which some of it did not have its turn.
        for _ in range(100):
            if idle >= 5 and _parts(injector.hit) >= PARTS:
                break
            before = len(injector.hit)
            await fleet.flows(warm, *WELL)
            await fleet.write("alpha")
            # So long that all that is done from time to time is done.
            await asyncio.sleep(2 * QUICK.probe_every)
            idle = 0 if len(injector.hit) > before else idle + 1
        # It passes them all, now that none is left.
        await fleet.flows(warm, *WELL, "alpha")
        await fleet.until(lambda: warm.stale_reason(warm.store.clusters["alpha"]) is None, "alpha is well again")
        assert _parts(injector.hit) >= PARTS, injector.hit
        assert len(injector.hit) > 25, injector.hit
        warm.store.check()
    finally:
        loop.set_task_factory(None)


# -- an exception out of what its work uses ------------------------------------------------------------------------


def failing(of_alpha: Callable[..., bool], name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """A function that raises what nothing expects where it is called for alpha."""

    def replaced(*given: Any, **options: Any) -> Any:
        if of_alpha(*given):
            raise Injected(f"{name} with secret-of-alpha")
        return real(*given, **options)

    return replaced


def server_is_alphas(server: ApiServer, *_: Any) -> bool:
    return server.access.name == "alpha"


@pytest.mark.parametrize(
    ("of", "name", "of_alpha"),
    [
        (ApiServer, "open", server_is_alphas),
        (ApiServer, "get", server_is_alphas),
        (ApiServer, "_begin_way", server_is_alphas),
        (ApiServer, "_transport", server_is_alphas),
        (Appender, "append", lambda appender, subject, *_: ".alpha." in subject),
        (Writer, "observe", lambda writer, *_: writer._owner.cluster == "alpha"),
        (Writer, "read_back", lambda writer, *_: writer._owner.cluster == "alpha"),
        (Owner, "control", lambda owner, *_: owner.cluster == "alpha"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
async def test_whatever_its_work_uses_raises(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, of: type, name: str, of_alpha: Callable[..., bool]
) -> None:
    """Before its first list, and again while it is followed."""
    real = getattr(of, name)
    monkeypatch.setattr(of, name, failing(of_alpha, name, real))
    with structlog.testing.capture_logs() as lines:
        producer, warm = await fleet.start("configmaps")
        await fleet.flows(warm, *WELL)
        server = producer.clusters["alpha"].server
        await fleet.until(lambda: producer.clusters["alpha"].unreachable is not None, "alpha is stale")
        reason = producer.clusters["alpha"].unreachable or ""
        assert "unexpected Injected" in reason
        monkeypatch.setattr(of, name, real)
        await fleet.flows(warm, *WELL, "alpha")

        def stale() -> str | None:
            return warm.stale_reason(warm.store.clusters["alpha"])

        await fleet.until(lambda: stale() is None, "alpha is well again")
        monkeypatch.setattr(of, name, failing(of_alpha, name, real))
        if of is ApiServer:
            # As a watch is asked for again only when it ends.
            fleet.clusters["alpha"].faults.cut_watches()
            await fleet.until(lambda: "unexpected Injected" in (stale() or ""), "the log says that alpha is stale")
            verbose = Readiness(warm).probe("readyz", verbose=True)[1]
            assert "cluster alpha is stale: " in verbose
            assert "unexpected Injected" in verbose
            assert "unexpected Injected" in str(Readiness(warm).document()["clusters"])
            # What speaks to a cluster may speak of its credentials.
            assert name == "get" or "secret-of-alpha" not in verbose
        await fleet.flows(warm, *WELL)
        monkeypatch.setattr(of, name, real)
        await fleet.flows(warm, *WELL, "alpha")
        await fleet.until(lambda: stale() is None, "alpha is well again")
    # However often its connection began anew, it is the same one to all that have it, and of the same server.
    assert producer.clusters["alpha"].server is server
    assert server.streams_lists == producer.clusters["bravo"].server.streams_lists
    errors = [line for line in lines if line["event"] == "work of a cluster failed" and line["log_level"] == "error"]
    assert {line["cluster"] for line in errors} <= {"alpha"}
    # Not at each attempt.
    reasons = [line["reason"] for line in errors]
    assert len(reasons) <= 3 * len(set(reasons)), reasons
    traced = [line for line in lines if line["log_level"] == "debug" and "exception" in line]
    assert all("Injected" in line["exception"] for line in traced)
    assert traced or not errors


async def test_new_credentials_that_fail_are_that_clusters_alone(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are taken while the configuration changes, for all clusters one after the other."""
    members_of = tmp_path / "members"
    members_of.mkdir()
    for name, cluster in fleet.clusters.items():
        write_kubeconfig([cluster], members_of / f"{name}.yaml")
    real, hanging = ApiServer.change, asyncio.Event()

    async def change(server: ApiServer, access: Any) -> None:
        if access.name == "alpha":
            raise Injected("no credentials")
        if access.name == "bravo":
            await hanging.wait()
        await real(server, access)

    monkeypatch.setattr(ApiServer, "change", change)
    producer, warm = await fleet.start("configmaps")
    await fleet.flows(warm, *WELL, "alpha")
    current = producer.members.current
    producer.members.current = {
        name: member._replace(access=_renamed(member.access, name)) for name, member in current.items()
    }
    producer.members.changed.set()
    await fleet.until(lambda: "Injected" in (producer.clusters["alpha"].unreachable or ""), "alpha is stale")
    await fleet.flows(warm, *WELL)
    # One whose credentials take long does not hold up another's.
    await fleet.until(lambda: producer.clusters["charlie"].server.access.where == "renamed", "charlie's are new")
    assert producer.clusters["bravo"].server.access.where != "renamed"
    hanging.set()
    await fleet.until(lambda: producer.clusters["bravo"].server.access.where == "renamed", "bravo's are new")
    await fleet.flows(warm, *WELL, "alpha")


def _renamed(access: ClusterAccess, name: str) -> ClusterAccess:
    """Other access to the same cluster."""
    return dataclasses.replace(access, name=name, where="renamed")


async def test_requests_for_a_cluster_whose_access_raises_are_refused(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(Kubeconfig(str(fleet.kubeconfig)), Rules.of(("*",)))
    members = Members(Configuration((source,)), timing=QUICK)
    await members.first()
    servers = MemberServers(members, Forward.CONFIGURED)
    monkeypatch.setattr(ApiServer, "way", failing(server_is_alphas, "way", ApiServer.way))
    for _ in range(2):
        with pytest.raises(NoUpstream, match="unexpected Injected"):
            async with servers.using("alpha", NOBODY):
                pass
        async with servers.using("bravo", NOBODY) as upstream:
            assert upstream.url == fleet.clusters["bravo"].url
    # What is raised inside is the request's.
    with pytest.raises(Injected):
        async with servers.using("bravo", NOBODY):
            raise Injected
    await servers.aclose()


# -- sources of members --------------------------------------------------------------------------------------------


async def test_a_source_that_raises_is_tried_again_and_others_go_on(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        directory.mkdir()
    sources = tuple(Source(Directory(str(path)), Rules.of(("*",))) for path in (one, other))
    members = Members(Configuration(sources), timing=QUICK)
    await members.first()
    real, failures = Members._look, itertools.count()

    async def look(self: Members, origin: Any) -> Any:
        if origin.path == str(one) and next(failures) < 3:
            raise Injected("no such thing")
        return await real(self, origin)

    monkeypatch.setattr(Members, "_look", look)
    fleet.task = asyncio.create_task(members.run())
    fleet.rig._background(fleet.task)
    write_kubeconfig([fleet.clusters["bravo"]], other / "bravo.yaml")
    write_kubeconfig([fleet.clusters["alpha"]], one / "alpha.yaml")
    await fleet.until(lambda: set(members.current) == {"alpha", "bravo"}, "both are members")
    assert next(failures) > 3


@pytest.mark.parametrize("name", ["\udc80broken", "n" * 5000])
async def test_a_file_whose_name_can_be_no_clusters_is_left_out(fleet: Fleet, tmp_path: Path, name: str) -> None:
    members = Members(Configuration(()), timing=QUICK)
    origin = Directory(str(tmp_path))
    members.configuration = Configuration((Source(origin, Rules.of(("*",))),))
    found: dict[str, ClusterAccess] = {one: ClusterAccess(one) for one in ("alpha", name)}
    with structlog.testing.capture_logs() as lines:
        members._take_in(origin, _Found(found, {}))
    assert set(members.current) == {"alpha"}
    assert [line for line in lines if "a cluster's name" in str(line.get("reason"))]
