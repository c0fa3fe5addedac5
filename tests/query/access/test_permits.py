"""Permits: which open watches the gate looks at again, and when."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection

from materializer.visible import Visible
from query.access.authorization.attributes import Attributes
from query.access.authorization.chain import Chain, Opinion
from query.access.authorization.rules import SubjectRules
from query.access.authorization.verdicts import NO_OPINION, Verdict
from query.access.gate import Gate, Permit
from query.identity import Identity

PODS = Attributes("watch", version="v1", resource="pods")


class Table:
    """An authorizer that shows each user one cluster, by a table. `asked`: about whom it was, in order."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self.asked: list[str] = []
        self.wakes: list[Callable[[], None]] = []

    def decide_now(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        return NO_OPINION

    async def decide(self, who: Identity, cluster: str | None, what: Attributes) -> Verdict:
        return NO_OPINION

    def visible_now(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        self.asked.append(who.name)
        return Opinion(self.now(who.name))

    async def visible(self, who: Identity, what: Attributes, clusters: Collection[str]) -> Opinion:
        return self.visible_now(who, what, clusters)

    def rules(self, who: Identity, cluster: str | None, namespace: str) -> SubjectRules:
        return SubjectRules()

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakes.append(wake)
        return self.wakes.clear

    async def run(self) -> None:
        await asyncio.Event().wait()

    def now(self, user: str) -> Visible:
        return Visible(clusters={self.shown.get(user, "alpha"): None})


@contextlib.asynccontextmanager
async def looking(table: Table, again: float) -> AsyncIterator[Gate]:
    gate = Gate(lambda: ("alpha", "bravo"), chain=Chain([table]), settle=0.001, again=again)
    running = asyncio.create_task(gate.run())
    await asyncio.sleep(0)
    try:
        yield gate
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def opened(gate: Gate, stack: contextlib.ExitStack, table: Table, user: str) -> Permit:
    return stack.enter_context(gate.watching(Identity(user), None, PODS, table.now(user)))


async def asked_about(table: Table, user: str) -> None:
    async with asyncio.timeout(10):
        while user not in table.asked:
            await asyncio.sleep(0.001)


async def test_a_watch_that_begins_is_looked_at_alone() -> None:
    table = Table()
    async with looking(table, again=1000) as gate:
        with contextlib.ExitStack() as stack:
            first = opened(gate, stack, table, "first")
            await asked_about(table, "first")
            table.asked.clear()
            # Without notice: only a look at this one would end it.
            table.shown["first"] = "bravo"
            opened(gate, stack, table, "second")
            await asked_about(table, "second")
            assert table.asked == ["second"]
            assert not first.ended


async def test_a_watch_whose_rules_changed_before_it_began_ends() -> None:
    table = Table()
    async with looking(table, again=1000) as gate:
        with contextlib.ExitStack() as stack:
            before = table.now("jane")
            table.shown["jane"] = "bravo"
            ended = asyncio.Event()
            permit = stack.enter_context(gate.watching(Identity("jane"), None, PODS, before))
            permit.on_end = ended.set
            await asyncio.wait_for(ended.wait(), 10)


async def test_notice_has_all_looked_at() -> None:
    table = Table()
    async with looking(table, again=1000) as gate:
        with contextlib.ExitStack() as stack:
            permits = {user: opened(gate, stack, table, user) for user in ("first", "second", "third")}
            await asked_about(table, "third")
            table.asked.clear()
            table.shown["second"] = "bravo"
            for wake in table.wakes:
                wake()
            await asked_about(table, "third")
            await asked_about(table, "first")
            assert sorted(table.asked) == ["first", "second", "third"]
            assert [user for user, permit in permits.items() if permit.ended] == ["second"]


async def test_what_changes_without_notice_is_seen_while_watches_go_on_being_opened() -> None:
    table = Table()
    async with looking(table, again=0.05) as gate:
        with contextlib.ExitStack() as stack:
            first = opened(gate, stack, table, "first")
            await asked_about(table, "first")
            table.shown["first"] = "bravo"
            async with asyncio.timeout(10):
                while not first.ended:
                    with gate.watching(Identity("other"), None, PODS, table.now("other")):
                        await asyncio.sleep(0.002)


async def test_a_watch_that_is_over_is_looked_at_no_more() -> None:
    table = Table()
    async with looking(table, again=1000) as gate:
        with contextlib.ExitStack() as stack:
            with gate.watching(Identity("gone"), None, PODS, table.now("gone")):
                pass
            opened(gate, stack, table, "here")
            await asked_about(table, "here")
            for wake in table.wakes:
                wake()
            table.asked.clear()
            await asked_about(table, "here")
            assert table.asked == ["here"]
