"""Opening the log: what is waited for and how that is said, and what ends the wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats as nats_client
import pytest
from structlog.testing import capture_logs

from deltalog import Access, BadAccess, LogError, LogSettings
from deltalog.jetstream.connection import BrokerRefuses, Connection
from kubebraid.command.opening import Opening
from tests.nats_cluster import Lone
from tests.patience import PATIENCE
from tests.ports import free_port

SAID = "the log cannot be opened"
SETTINGS = LogSettings(name="WAITED")


def opening(url: str, access: Access | None = None, *, say_every: float = 60.0) -> Opening:
    return Opening(Connection(url, name="test", access=access), SETTINGS, patience=0.5, say_every=say_every)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Lone]:
    async with Lone(tmp_path) as started:
        yield started


async def attempts(one: Opening, count: int) -> None:
    """Returns after so many attempts that failed."""
    seen = 0
    attempt = one.connection.open

    async def counted(patience: float = 5.0) -> None:
        nonlocal seen
        try:
            await attempt(patience)
        finally:
            seen += 1

    one.connection.open = counted  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE):
        while seen < count:
            await asyncio.sleep(0.05)


async def test_one_reason_is_said_once_and_again_after_its_time() -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    with capture_logs() as lines:
        async with opening(url) as one:
            await attempts(one, 4)
    assert len([line for line in lines if line["event"] == SAID]) == 1
    with capture_logs() as lines:
        async with opening(url, say_every=0.01) as one:
            await attempts(one, 4)
    said = [line for line in lines if line["event"] == SAID]
    assert len(said) >= 3
    assert {line["log_level"] for line in said} == {"warning"}
    assert all("does not answer" in line["reason"] for line in said)


async def test_what_readyz_says_meanwhile(nats: Lone) -> None:
    await nats.kill()
    async with opening(nats.url) as one:
        assert await one.soon(asyncio.get_running_loop().time() + 0.1) is None
        (check,) = one.checks()
        assert check.line.startswith(f"[-]NATS at {nats.url} ")
        await nats.start()
        async with asyncio.timeout(PATIENCE):
            assert (await one.wait()).name == SETTINGS.name
        assert one.checks() == []


async def test_who_is_refused_ends_unless_something_is_served(tmp_path: Path) -> None:
    async with Lone(tmp_path, 'authorization { token: "secret" }\n') as secured:
        wrong = Access(token="wrong")
        async with opening(secured.url, wrong) as one:
            with pytest.raises(BrokerRefuses, match="refuses who we are"):
                await asyncio.wait_for(one.wait(), PATIENCE)
        async with opening(secured.url, wrong) as one:
            one.serving = True
            await attempts(one, 2)
            (check,) = one.checks()
            assert check.line.startswith("[!]")
            assert "check --nats-creds" in check.line
            secured.configure('authorization { token: "wrong" }\n')
            secured.reload()
            async with asyncio.timeout(PATIENCE):
                await one.wait()


async def test_a_file_of_credentials_has_to_be_good_at_first_only(nats: Lone, tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with opening(nats.url, Access(token_file=str(token))) as one:
        with pytest.raises(BadAccess, match="token_file"):
            await asyncio.wait_for(one.wait(), PATIENCE)
    token.write_text("any")
    await nats.kill()
    async with opening(nats.url, Access(token_file=str(token))) as one:
        await attempts(one, 1)
        token.unlink()
        async with asyncio.timeout(PATIENCE):
            while "token_file" not in one.reason:
                await asyncio.sleep(0.05)
        token.write_text("any")
        await nats.start()
        async with asyncio.timeout(PATIENCE):
            await one.wait()


async def test_another_stream_of_that_name_ends_it(nats: Lone) -> None:
    client = await nats_client.connect(nats.url)
    try:
        await client.jetstream().add_stream(name=SETTINGS.name, subjects=["other.>"])
    finally:
        await client.close()
    async with opening(nats.url) as one:
        with pytest.raises(LogError, match="was not made by kubebraid"):
            await asyncio.wait_for(one.wait(), PATIENCE)


async def test_a_nats_that_goes_away_between_connecting_and_opening(nats: Lone) -> None:
    one = opening(nats.url)
    await one.connection.open()
    await nats.kill()
    async with one:
        async with asyncio.timeout(PATIENCE):
            while not one.reason.endswith("does not answer"):
                await asyncio.sleep(0.05)
        await nats.start()
        async with asyncio.timeout(PATIENCE):
            await one.wait()
