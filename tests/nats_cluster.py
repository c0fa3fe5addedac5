"""A cluster of real nats-servers with JetStream, any of which can be killed, stopped and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import nats
import nats.errors

from kubebraid.command.broker import binary, child_set_up
from tests.halting import halt
from tests.patience import PATIENCE
from tests.ports import free_port


class Server:
    """One nats-server of a cluster."""

    def __init__(
        self, number: int, directory: Path, port: int, cluster_port: int, routes: list[int], more: str
    ) -> None:
        self.number = number
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self.directory = directory / f"nats-{number}"
        self.directory.mkdir(parents=True)
        self.process: asyncio.subprocess.Process | None = None
        self.stopped = False
        listed = ", ".join(f'"nats://127.0.0.1:{one}"' for one in routes)
        (self.directory / "nats.conf").write_text(
            f"listen: 127.0.0.1:{port}\n"
            f"server_name: n{number}\n"
            "max_payload: 8MB\n"
            "max_pending: 256MB\n"
            f'jetstream {{ store_dir: "{self.directory}/js", sync_interval: always }}\n'
            f"cluster {{ name: test, listen: 127.0.0.1:{cluster_port}, routes: [{listed}], no_advertise: true }}\n"
            f"{more}"
        )

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None and not self.stopped

    async def start(self) -> None:
        with (self.directory / "nats.log").open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                str(binary()),
                "-c",
                str(self.directory / "nats.conf"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=child_set_up(),
                start_new_session=True,
            )
        self.stopped = False

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def stop(self) -> None:
        """SIGSTOP: it is there, and does not answer."""
        assert self.process is not None
        halt(self.process.pid)
        self.stopped = True

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.stopped = False


class Lone(Server):
    """A nats-server by itself, with `more` in its configuration; to be entered."""

    def __init__(self, directory: Path, more: str = "", name: str = "lone", jetstream: str = "") -> None:
        self.number = 0
        self.name = name
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.directory = directory / f"nats-{name}"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.process = None
        self.stopped = False
        self.jetstream = jetstream
        self.configure(more)

    def configure(self, more: str) -> None:
        """Takes effect with the next start, or with `reload`."""
        (self.directory / "nats.conf").write_text(
            f"listen: 127.0.0.1:{self.port}\nserver_name: {self.name}\nmax_payload: 8MB\n"
            f'jetstream {{ store_dir: "{self.directory}/js", {self.jetstream} }}\n{more}'
        )

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    async def start(self) -> None:
        await super().start()
        assert self.process is not None
        async with asyncio.timeout(PATIENCE):
            while True:
                assert self.process.returncode is None, (self.directory / "nats.log").read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                return

    async def __aenter__(self) -> Lone:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.stopped:
            self.go_on()
        await self.kill()


class NatsCluster:
    """`count` servers. `url` names them all. `more`: further configuration of each."""

    def __init__(self, directory: Path, count: int = 3, more: str = "") -> None:
        cluster_ports = [free_port() for _ in range(count)]
        self.servers = [
            Server(number, directory, free_port(), cluster_ports[number], cluster_ports, more)
            for number in range(count)
        ]
        self.url = ",".join(server.url for server in self.servers)

    async def __aenter__(self) -> NatsCluster:
        for server in self.servers:
            await server.start()
        await self.healthy()
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self.servers:
            if server.stopped:
                server.go_on()
            await server.kill()

    async def ask(self, subject: str, request: object = None, patience: float = PATIENCE) -> dict[str, Any]:
        """An answer of the JetStream API, by a running server. Raises what nats-py raises, and TimeoutError.

        A question (`INFO`) is asked again until there is an answer: servers without a leader give none, or 503.
        """
        payload = b"" if request is None else json.dumps(request).encode()
        if "INFO" not in subject:
            return await self._ask(subject, payload, patience)
        async with asyncio.timeout(patience):
            while True:
                with contextlib.suppress(nats.errors.Error, OSError):
                    answer = await self._ask(subject, payload, 5.0)
                    if answer.get("error", {}).get("code") != 503:
                        return answer
                await asyncio.sleep(0.1)

    async def _ask(self, subject: str, payload: bytes, patience: float) -> dict[str, Any]:
        server = next(one for one in self.servers if one.running)
        client = await nats.connect(server.url, allow_reconnect=False, connect_timeout=10)
        try:
            return dict(json.loads((await client.request(subject, payload, timeout=patience)).data))
        finally:
            with contextlib.suppress(Exception):
                await client.close()

    async def healthy(self, streams: tuple[str, ...] = (), patience: float = PATIENCE) -> None:
        """Returns when JetStream works, and each of `streams` has a leader and all replicas current."""
        async with asyncio.timeout(patience):
            while not await self._healthy(streams):
                await asyncio.sleep(0.1)

    async def _healthy(self, streams: tuple[str, ...]) -> bool:
        try:
            if "error" in await self._ask("$JS.API.INFO", b"", 5.0):
                return False
            for stream in streams:
                cluster = (await self._ask(f"$JS.API.STREAM.INFO.{stream}", b"", 5.0)).get("cluster") or {}
                followers = cluster.get("replicas") or []
                if not cluster.get("leader") or len(followers) != len(self.servers) - 1:
                    return False
                if not all(one.get("current") and not one.get("offline") for one in followers):
                    return False
        except Exception:  # noqa: BLE001 - whatever it is, it is not healthy yet
            return False
        return True

    async def leader(self, stream: str) -> Server:
        """The server that leads a stream now; waits for one where it has none."""
        async with asyncio.timeout(PATIENCE):
            while not (name := (await self.ask(f"$JS.API.STREAM.INFO.{stream}"))["cluster"].get("leader")):
                await asyncio.sleep(0.1)
        return self.servers[int(name.removeprefix("n"))]


class SlowWay:
    """Passes a port on, at most `rate` bytes a second each way; as fast as it can without a rate."""

    def __init__(self, target: int, rate: float | None) -> None:
        self.target, self.rate, self.port = target, rate, 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> SlowWay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        finally:
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(8192):
                if self.rate is not None:
                    await asyncio.sleep(len(data) / self.rate)
                writer.write(data)
                await writer.drain()
        writer.close()
