"""The permissions that docs/nats.md gives to producers, serving instances and consumers: enough, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import nats as nats_client
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from deltalog import Access, Appender, BrokerUnavailable, LogSettings, connect, open_log
from tests.ageing import cut
from tests.e2e.conftest import Comparison, Members, Service, Starter, StartProcess, View
from tests.nats_cluster import Lone
from tests.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("limited")
PAGE = Path(__file__).parents[2] / "docs" / "nats.md"
ROLES = ("producer", "serve", "consumer")


async def prefix_of(serving: Service) -> str | None:
    """The name of the history that is served; None while it is being read."""
    async with aiohttp.ClientSession() as session, session.get(f"{serving.url}/clusters") as answer:
        if answer.status == 429:
            return None
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["prefix"])


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Lone]:
    """A server with the page's configuration."""
    [block] = [one for one in re.findall(r"```conf\n(.*?)```", PAGE.read_text(), re.DOTALL) if "authorization" in one]
    for role in ROLES:
        block = block.replace(f"${role.upper()}_PASSWORD", f'"{role} secret"')
    async with Lone(tmp_path, block) as server:
        yield server


def options(role: str, tmp_path: Path) -> list[str]:
    file = tmp_path / f"{role}.password"
    file.write_text(f"{role} secret\n")
    return [f"--nats-user={role}", f"--nats-password-file={file}", f"--nats-inbox=_INBOX_{role}"]


async def test_enough(
    guarded: Lone,
    members: Members,
    start: Starter,
    compare: Comparison,
    process: StartProcess,
    view: type[View],
    tmp_path: Path,
) -> None:
    producing = await start(
        *("--nats", guarded.url, "--kubeconfig", str(members.kubeconfig), *options("producer", tmp_path)),
        command="produce",
        ready=False,
    )
    await producing.ready()
    serving = await start(
        *("--nats", guarded.url, *options("serve", tmp_path)),
        *("--forward", "configured", "--kubeconfig", str(members.kubeconfig)),
        # Who may come in is nothing that NATS is asked about.
        *("--anonymous-auth", "--authorization-mode", "Members", "--authorization-mode", "AlwaysAllow"),
        command="serve",
    )
    await compare.settle(serving.url, members.clusters)
    watcher = view(serving.url, "/api/v1/pods")
    await watcher.list()
    following = asyncio.create_task(watcher.follow())
    # A write through us is handed over to the producer; what is deleted is purged; a type that is gone, too.
    async with aiohttp.ClientSession() as session:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "written"}}
        url = f"{serving.url}/clusters/alpha/api/v1/namespaces"
        async with session.post(url, json=body) as answer:
            assert answer.status == 201
        async with session.get(f"{url}/written", params={"resourceVersion": "0"}) as answer:
            assert answer.status == 200
    comparing = await process("relist", "--nats", guarded.url, *options("producer", tmp_path))
    assert await comparing.child.wait() == 1, "a producer may not ask, only answer"
    await compare.settle(serving.url, members.clusters)

    # The log is made anew by those who may.
    administrator = Access(user="producer", password="producer secret", inbox="_INBOX_producer")
    connection = await connect(guarded.url, name="test", access=administrator)
    try:
        log = await open_log(connection)
        await cut(log, ">", await log.head() + 1)
        async with asyncio.timeout(PATIENCE):
            while await prefix_of(serving) in (None, log.prefix):
                await asyncio.sleep(0.1)
        await compare.settle(serving.url, members.clusters)
    finally:
        await connection.close()
    with contextlib.suppress(AssertionError):
        await following
    refusals = [line for one in (producing, serving) for line in one.output().splitlines() if "does not permit" in line]
    assert not refusals, refusals
    # As it was asked for by a producer above.
    assert "permits" not in serving.output()


async def test_no_more(guarded: Lone, tmp_path: Path) -> None:
    made = await connect(
        guarded.url, name="made", access=Access(user="producer", password="producer secret", inbox="_INBOX_producer")
    )
    serving = await connect(
        guarded.url, name="serve", access=Access(user="serve", password="serve secret", inbox="_INBOX_serve")
    )
    try:
        log = await open_log(made)
        await open_log(serving)
        async with Appender(made) as appender:
            first = await appender.append_wait("kb.alpha.core.v1.pods.a.b", b"mine")
            await appender.append_wait("kb.alpha.core.v1.secrets.a.b", b"not mine")
            second = await appender.append_wait("kb.alpha.core.v1.pods.a.c", b"mine, too")
        async with Appender(serving, deadline=0.5) as appender:
            with pytest.raises(Exception, match="no acknowledgement"):
                await appender.append_wait("kb.alpha.core.v1.pods.a.b", b"forged")
        assert await log.last("kb.alpha.core.v1.pods.a.b") == (first, b"mine")
        for verb in ("STREAM.DELETE.KUBEBRAID", "STREAM.PURGE.KUBEBRAID"):
            with pytest.raises(BrokerUnavailable, match=r"says: permissions violation for publish to .*docs/nats.md"):
                await serving.api(verb, timeout=0.5)
        with pytest.raises(BrokerUnavailable):
            await open_log(serving, LogSettings(name="OTHER"))
        client = await nats_client.connect(
            guarded.url, user="consumer", password="consumer secret", inbox_prefix=b"_INBOX_consumer"
        )
        try:
            inbox = client.new_inbox()
            reading = await client.subscribe(inbox)

            async def consume(name: str, subject: str) -> None:
                wanted = ConsumerConfig(
                    name=name,
                    filter_subject=subject,
                    deliver_subject=inbox,
                    deliver_policy=DeliverPolicy.ALL,
                    ack_policy=AckPolicy.NONE,
                )
                await client.jetstream(timeout=1).add_consumer("KUBEBRAID", wanted)

            await consume("pods", "kb.alpha.core.v1.pods.>")
            found = [await reading.next_msg(timeout=5) for _ in range(2)]
            assert [one.data for one in found] == [b"mine", b"mine, too"]
            assert [one.metadata.sequence.stream for one in found] == [first, second]
            for name, subject in (("one", "kb.alpha.core.v1.secrets.>"), ("two", "kb.bravo.>"), ("three", "kb.>")):
                with pytest.raises(nats_client.errors.TimeoutError):
                    await consume(name, subject)
        finally:
            await client.close()
    finally:
        await made.close()
        await serving.close()
