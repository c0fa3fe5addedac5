"""A TCP way to a port that can be cut: what goes through it is closed, or stands still for a while."""

from __future__ import annotations

import asyncio
import contextlib


class CuttableWay:
    """Listens on `port` of loopback and passes everything on to `target`'s port."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> CuttableWay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Resets all connections there are."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """From now on nothing comes through, though nothing is closed."""
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
                self._writers.add(far_writer)
                try:
                    ways = [
                        asyncio.ensure_future(self._pass(reader, far_writer)),
                        asyncio.ensure_future(self._pass(far_reader, writer)),
                    ]
                    self._tasks.update(ways)
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                    for way in ways:
                        way.cancel()
                    await asyncio.wait(ways)
                    self._tasks.difference_update(ways)
                finally:
                    self._writers.discard(far_writer)
                    far_writer.close()
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(256 * 1024):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
