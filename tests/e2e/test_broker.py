"""The embedded NATS: its port, when others want the same one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from pathlib import Path

import nats
import pytest

from deltalog import BrokerUnavailable, connect
from deltalog.jetstream.connection import BrokerRefuses, Connection
from kubebraid.command import broker
from kubebraid.command.broker import EmbeddedBroker, PortTaken
from tests.patience import PATIENCE
from tests.ports import free_port


async def test_several_that_want_one_port_get_one_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that looked in the same moment, when it was free: none may take another's server for its own."""
    monkeypatch.setattr(broker, "port_in_use", lambda host, port: False)
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        started = await asyncio.gather(
            *(stack.enter_async_context(EmbeddedBroker(tmp_path / str(n), preferred=port)) for n in range(4))
        )
        assert len({one.url for one in started}) == 4
        assert sum(one.port == port for one in started) == 1
        names = set()
        for one in started:
            client = await nats.connect(one.url)
            names.add(client._server_info["server_name"])
            await client.close()
        assert len(names) == 4
        # Once started it stays where it is.
        await started[0].stop()
        before = started[0].port
        await started[0].start()
        assert started[0].port == before


async def test_a_port_that_is_insisted_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for looked in (True, False):
            monkeypatch.setattr(broker, "port_in_use", lambda host, port, looked=looked: looked)
            with pytest.raises(PortTaken, match=f"port {port} of 127.0.0.1 is in use"):
                async with EmbeddedBroker(tmp_path / "data", port):
                    pass


async def test_its_own_port_is_waited_for(tmp_path: Path) -> None:
    """While it is away, a connection of any process may have got its port."""
    async with EmbeddedBroker(tmp_path / "data") as one:
        url = one.url
        await one.stop()
        with socket.socket() as connection:
            connection.bind(("127.0.0.1", one.port))
            starting = asyncio.create_task(one.start())
            done, _ = await asyncio.wait((starting,), timeout=1.0)
            assert not done
        await asyncio.wait_for(starting, PATIENCE)
        assert one.url == url
        await (await nats.connect(url)).close()


async def test_the_port_of_one_that_was_killed_is_waited_for(tmp_path: Path) -> None:
    """A server dies with its process, and has its port a moment longer than that."""
    port = free_port()
    async with EmbeddedBroker(tmp_path / "data", port) as one:
        os.kill(one.pid, signal.SIGKILL)
        await one.wait()
        shutil.copytree(tmp_path / "data" / "nats", tmp_path / "again" / "nats")
        with socket.socket() as dying:
            dying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            dying.bind(("127.0.0.1", port))
            dying.listen()
            next_one = EmbeddedBroker(tmp_path / "again", port)
            starting = asyncio.create_task(next_one.start())
            done, _ = await asyncio.wait((starting,), timeout=0.5)
            assert not done
        await asyncio.wait_for(starting, PATIENCE)
        await next_one.stop()


async def test_another_server_on_its_port_is_none(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path / "one") as one, EmbeddedBroker(tmp_path / "other") as other:
        mine = await connect(one.url, name="test", server=one.name)
        assert mine.connected
        await mine.close()
        wrong = Connection(other.url, name="test", server=one.name)
        with pytest.raises(BrokerUnavailable, match=f"another server, '{other.name}', has its port") as found:
            await wrong.open(patience=0.5)
        # It goes by itself, when ours gets its port back.
        assert not isinstance(found.value, BrokerRefuses)
        assert not wrong.connected
        anybody = await connect(other.url, name="test")
        await anybody.close()
