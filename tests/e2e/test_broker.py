"""The embedded NATS: its port, when others want the same one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import nats
import pytest

from kubebraid.command import broker
from kubebraid.command.broker import EmbeddedBroker, PortTaken
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
