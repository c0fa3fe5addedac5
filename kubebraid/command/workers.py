"""Workers: `serve --workers N`, several serving processes behind one address, each with its own replay.

The kernel spreads connections over them (SO_REUSEPORT). They share nothing: a version that one of them gave is good
at each other one, so a client whose worker dies goes on at the next. One that died is started again, and takes
connections again only when it has caught up with the log, as long as others do meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pickle
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import aiohttp
import msgspec
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from kubebraid.command.broker import child_set_up
from kubebraid.command.settings import Address, Settings

log = structlog.get_logger("kubebraid.command.workers")

# A worker that ends by itself, or is killed sooner than that many seconds after its start, without having been ready,
# so many times in a row, will not do better the next time: what waiting can mend it waits for.
_SOON = 10.0
_PATIENCE = 3
_PAUSES = (0.1, 10.0)
# Seconds that workers have to end when all is to end.
_END = 15.0
# Seconds to wait for another worker's metrics.
_SCRAPE = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Worker:
    """Which worker this process is. `directory`: where all of them have sockets; `wait`: listen only when ready."""

    number: int
    count: int
    directory: Path
    log_level: str
    log_json: bool
    wait: bool = False

    def socket(self, number: int) -> Path:
        return self.directory / f"{number}.sock"


class Ready(msgspec.Struct, frozen=True):
    """What a worker says when it is ready."""

    clusters: tuple[str, ...]
    stale: tuple[str, ...]


def reserve(address: Address) -> socket.socket:
    """A socket that holds the port of `address` for workers, without listening. Raises OSError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Without the option on this one first: whoever else has the port is to be found out, not to be joined.
        bound.bind((address.host, address.port))
        port = bound.getsockname()[1]
        bound.close()
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address.host, port))
    except OSError:
        bound.close()
        raise
    return bound


class Workers:
    """The parent of all workers. `on_ready` is called once, when the first of them serves all there is."""

    def __init__(
        self, settings: Settings, count: int, log_level: str, *, log_json: bool, on_ready: Callable[[Ready], None]
    ) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._directory = Path(tempfile.mkdtemp(prefix="kubebraid-workers-"))
        self._workers = [Worker(number, count, self._directory, log_level, log_json) for number in range(count)]
        self._ready: set[int] = set()
        self._announced = False

    async def run(self) -> None:
        """Keeps all workers running until cancelled. Raises ChildProcessError if they cannot run."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for worker in self._workers:
                    tasks.create_task(self._keep(worker), name=f"worker {worker.number}")
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _keep(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        failures, pause = 0, _PAUSES[0]
        while True:
            started = loop.time()
            was_ready, code = await self._run(worker)
            if was_ready:
                failures, pause = 0, _PAUSES[0]
            elif code > 0 or loop.time() - started < _SOON:
                failures += 1
                if failures >= _PATIENCE and not self._ready:
                    # It has said why by itself.
                    raise ChildProcessError(f"worker {worker.number} ends again and again, with code {code}")
            log.error("a worker ended: starting it again", worker=worker.number, code=code)
            worker = dataclasses.replace(worker, wait=bool(self._ready))
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSES[1])

    async def _run(self, worker: Worker) -> tuple[bool, int]:
        """Runs a worker until it ends: whether it was ready, and its code."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kubebraid.command.workers"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=child_set_up(),
            # A terminal's ^C reaches the parent alone, which ends its workers in order.
            start_new_session=True,
        )
        was_ready = False
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(pickle.dumps((worker, self._settings)))
                await process.stdin.drain()
                process.stdin.close()
            if line := await process.stdout.readline():
                was_ready = True
                self._ready.add(worker.number)
                log.info("worker is ready", worker=worker.number)
                if not self._announced:
                    self._announced = True
                    self._on_ready(msgspec.json.decode(line, type=Ready))
            return was_ready, await process.wait()
        finally:
            self._ready.discard(worker.number)
            if process.returncode is None:
                process.terminate()
                try:
                    async with asyncio.timeout(_END):
                        await process.wait()
                except TimeoutError:
                    process.kill()
                    await process.wait()


# -- in a worker -----------------------------------------------------------------------------------------------------


class _Labelled(Collector):
    """Metrics of several workers, told apart by a label."""

    def __init__(self, texts: Iterable[tuple[int, bytes]]) -> None:
        self._families: dict[str, Metric] = {}
        for number, text in texts:
            for family in text_string_to_metric_families(text.decode()):
                known = self._families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    known.samples.append(sample._replace(labels={**sample.labels, "worker": str(number)}))

    def collect(self) -> Iterable[Metric]:
        return self._families.values()


async def _scrape(worker: Worker, number: int) -> tuple[int, bytes] | None:
    """Another worker's metrics; None if it does not answer."""
    connector = aiohttp.UnixConnector(path=str(worker.socket(number)))
    timeout = aiohttp.ClientTimeout(total=_SCRAPE)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get("http://worker/metrics") as answer,
        ):
            return number, await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


async def metrics_of_all(worker: Worker, own: Callable[[], bytes]) -> bytes:
    """The metrics of all workers that answer, each with the label `worker`."""
    others = [number for number in range(worker.count) if number != worker.number]
    found = await asyncio.gather(*(_scrape(worker, number) for number in others))
    registry = CollectorRegistry()
    registry.register(_Labelled(sorted([(worker.number, own()), *(one for one in found if one is not None)])))
    return generate_latest(registry)


@contextlib.asynccontextmanager
async def metrics_served(worker: Worker, own: Callable[[], bytes]) -> AsyncIterator[None]:
    """Shows this worker's metrics to the others while the block lasts."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=own())

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    place = worker.socket(worker.number)
    # One that was killed has left its own.
    place.unlink(missing_ok=True)
    await web.UnixSite(runner, str(place)).start()
    try:
        yield
    finally:
        await runner.cleanup()


def say_ready(ready: Ready) -> None:
    """Tells the parent, whose pipe our standard output is."""
    sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    """A worker process: what it is to do comes by its standard input, from its parent."""
    from kubebraid.command import cli

    worker, settings = pickle.load(sys.stdin.buffer)
    cli.run_worker(worker, settings)


if __name__ == "__main__":
    main()
