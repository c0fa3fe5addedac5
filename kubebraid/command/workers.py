"""Workers: `serve --workers N`, several serving processes behind one address, each with its own replay.

The kernel spreads connections over them (SO_REUSEPORT). A version that one of them gave is good at each other one, so a
client whose worker dies goes on at the next. What they share is the snapshot's file, from which they read what has not
changed since (`materializer.mapped`). One that died is started again, and takes
connections again only when it has caught up with the log, as long as others do meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from kubebraid.command.broker import child_set_up
from kubebraid.command.settings import Settings

log = structlog.get_logger("kubebraid.command.workers")

# A worker that ends by itself, or is killed sooner than that many seconds after its start, without having been ready,
# so many times in a row, will not do better the next time: what may pass by itself a worker waits for.
_SOON = 10.0
_PATIENCE = 3
_PAUSES = (0.1, 10.0)
# Seconds that workers have to end when all is to end.
_END = 15.0


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
        """Where worker `number` listens for the others."""
        return self.directory / f"{number}.sock"


class Ready(msgspec.Struct, frozen=True):
    """What a worker says when it is ready."""

    clusters: tuple[str, ...]
    stale: tuple[str, ...]


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
            *(sys.executable, "-m", "kubebraid.command.worker"),
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


def say_ready(ready: Ready) -> None:
    """Tells the parent, whose pipe our standard output is."""
    sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
    sys.stdout.flush()
