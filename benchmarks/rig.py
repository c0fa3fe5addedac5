"""The rig: a broker in a temporary directory, processes of their own, and what those cost.

Every part under test runs in a process of its own, so that its CPU time and memory are its own, and ends with
the block that started it. What a process is to do is a coroutine function of a module; arguments and results
are pickled.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import ssl
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.client import get
from deltalog import Connection, connect
from kubebraid.command.broker import EmbeddedBroker, child_set_up, free_port

_CONTEXT = multiprocessing.get_context("spawn")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Seconds that a command may take to be ready.
_PATIENCE = 120.0

# Told to a process: its end of a pipe, then the arguments.
Main = Callable[..., Coroutine[Any, Any, Any]]


class ProcessFailed(Exception):
    """A process ended without a result; what it said is on standard error."""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, of all its threads."""
    try:
        # Nanoseconds where the kernel keeps them, else ticks of 10 ms.
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except FileNotFoundError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(pid: int | None = None) -> int:
    """Resident memory of a process; of this one if none is named."""
    return int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1]) * _PAGE


def proportional_bytes(pid: int) -> int:
    """Resident memory of a process, with its share of what it has in common with others (Pss)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


@contextlib.asynccontextmanager
async def broker() -> AsyncIterator[EmbeddedBroker]:
    """A nats-server on files of its own."""
    with tempfile.TemporaryDirectory(prefix="kubebraid-bench-", ignore_cleanup_errors=True) as data:
        async with EmbeddedBroker(Path(data)) as running:
            yield running


@contextlib.asynccontextmanager
async def connection(url: str) -> AsyncIterator[Connection]:
    made = await connect(url, name="kubebraid-bench")
    try:
        yield made
    finally:
        await made.close()


class Process:
    """A coroutine function that runs in a fresh process, and the pipe to it."""

    def __init__(self, process: BaseProcess, pipe: Pipe) -> None:
        self._process = process
        self._pipe = pipe

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def send(self, message: object) -> None:
        self._pipe.send(message)

    async def receive(self) -> Any:
        """The next message from it. Raises ProcessFailed if it ended instead."""
        try:
            return await asyncio.to_thread(self._pipe.recv)
        except EOFError:
            raise ProcessFailed(f"{self._process.name} ended without an answer") from None


def _body(main: Main, pipe: Pipe, arguments: tuple[object, ...]) -> None:
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        uvloop.run(main(pipe, *arguments))
    except KeyboardInterrupt:
        pass
    finally:
        pipe.close()


@contextlib.asynccontextmanager
async def process(main: Main, *arguments: object) -> AsyncIterator[Process]:
    """`main(pipe, *arguments)` on uvloop in a process of its own, which ends with this block.

    It is to end when its pipe does (`until_closed`); one that doesn't is terminated.
    """
    ours, theirs = _CONTEXT.Pipe()
    started = _CONTEXT.Process(target=_body, args=(main, theirs, arguments), name=main.__qualname__, daemon=True)
    started.start()
    theirs.close()
    try:
        yield Process(started, ours)
    finally:
        ours.close()
        await asyncio.to_thread(started.join, 5.0)
        if started.is_alive():
            started.terminate()
            await asyncio.to_thread(started.join)
        started.close()


async def fresh(main: Main, *arguments: object) -> Any:
    """The one message that `main` sends from a fresh process."""
    async with process(main, *arguments) as running:
        return await running.receive()


async def until_closed(pipe: Pipe) -> None:
    """Inside a process: returns when the other end of the pipe is closed."""
    try:
        await asyncio.to_thread(pipe.recv)
    except (EOFError, OSError):
        pass


class Service:
    """A running `kubebraid serve`."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port


@contextlib.asynccontextmanager
async def service(
    nats: str,
    *arguments: str,
    context: ssl.SSLContext | None = None,
    tree: Path | None = None,
    patience: float = _PATIENCE,
) -> AsyncIterator[Service]:
    """The query service as users run it, ready to be asked.

    `context`: of clients, for https. `tree`: the source tree of another release that is to be run instead of this one.
    `patience`: how many seconds it may take to be ready.
    """
    async with _kubebraid(
        "serve", "--nats", nats, *arguments, context=context, tree=tree, patience=patience
    ) as running:
        yield running


@contextlib.asynccontextmanager
async def clusters_served(kubeconfig: Path, data: Path, *arguments: str) -> AsyncIterator[Service]:
    """`kubebraid up` on a kubeconfig's clusters, all their first lists taken in."""
    async with _kubebraid("up", "--kubeconfig", str(kubeconfig), "--data", str(data), *arguments) as running:
        yield running


@contextlib.asynccontextmanager
async def _kubebraid(
    command: str,
    *arguments: str,
    context: ssl.SSLContext | None = None,
    tree: Path | None = None,
    patience: float = _PATIENCE,
) -> AsyncIterator[Service]:
    port = free_port()
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kubebraid", command, *arguments),
        *("--listen", f"127.0.0.1:{port}", "--log-level", "warning"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        preexec_fn=child_set_up(),
        cwd=tree,
        env=None if tree is None else {**os.environ, "PYTHONPATH": str(tree)},
    )
    try:
        async with asyncio.timeout(patience):
            while not await asyncio.to_thread(_ready, port, context):
                if running.returncode is not None:
                    raise ProcessFailed(f"kubebraid {command} ended with code {running.returncode}")
                await asyncio.sleep(0.05)
        yield Service(running.pid, port)
    finally:
        if running.returncode is None:
            running.terminate()
            try:
                await asyncio.wait_for(running.wait(), 10)
            except TimeoutError:
                running.kill()
                await running.wait()


def _ready(port: int, context: ssl.SSLContext | None) -> bool:
    try:
        if context is None:
            return get(port, "/readyz").status == 200
        with urllib.request.urlopen(f"https://127.0.0.1:{port}/readyz", context=context) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
