"""Two NATS servers with JetStream domains of their own, one the leaf node of the other."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from deltalog import Access, connect
from tests.nats_cluster import Lone
from tests.patience import PATIENCE
from tests.ports import free_port


class Regions:
    """A NATS in domain `hub` and one in domain `west` that is its leaf node."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.hub = Lone(directory, f"leafnodes {{ listen: 127.0.0.1:{port} }}\n", "hub", "domain: hub")
        self.remote = f'leafnodes {{ reconnect: 1, remotes: [{{ url: "nats://127.0.0.1:{port}" }}] }}\n'
        self.west = Lone(directory, self.remote, "west", "domain: west")

    async def __aenter__(self) -> Regions:
        await self.hub.start()
        await self.west.start()
        await self.joined()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.west.__aexit__()
        await self.hub.__aexit__()

    async def joined(self) -> None:
        """Returns when the hub's JetStream answers in the west."""
        connection = await connect(self.west.url, name="test", access=Access(domain="hub"))
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    with contextlib.suppress(Exception):
                        await connection.api("INFO", timeout=0.5)
                        return
                    await asyncio.sleep(0.1)
        finally:
            await connection.close()
