"""Processes of the command `kubebraid` that tests start: forked from one that has loaded its modules (`fork_server`).

Where they are not (`KUBEBRAID_TESTS_FORK=no`, under coverage, not on Linux), each is started as users start it; some
tests of the command line always do (`tests/e2e/test_command_line.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import IO, Protocol

from kubebraid.command.broker import child_set_up
from tests.fork_server import Start
from tests.patience import PATIENCE

# Variables that count already while modules are loaded.
_LOADED_WITH = ("PYTHON", "SSL_CERT_", "OPENSSL_", "LD_", "COVERAGE_")
# In bytes: objects are printed in one.
_LONGEST_LINE = 2**24


class Child(Protocol):
    """What `asyncio.subprocess.Process` has of a process without pipes."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def returncode(self) -> int | None:
        """Its code once it has ended: negative where a signal ended it."""

    async def wait(self) -> int:
        """Its code, as soon as it has ended."""

    def send_signal(self, signal: int) -> None:
        """Raises ProcessLookupError where it has ended."""

    def kill(self) -> None:
        """SIGKILL."""


@dataclasses.dataclass(frozen=True)
class _Pipe:
    """A pipe whose end for writing is to be given away and closed."""

    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport
    writing: IO[bytes]


class Piped:
    """A process whose output is read while it runs."""

    def __init__(self, child: Child, stdout: _Pipe, stderr: _Pipe) -> None:
        self.child = child
        self.stdout = stdout.reader
        self.stderr = stderr.reader
        # As a reader that goes away, such as `head`.
        self.close_stdout = stdout.transport.close

    @property
    def returncode(self) -> int | None:
        return self.child.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """What is left of its output and errors once it has ended."""
        out, err = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.child.wait()
        return out, err


class _Forked(asyncio.Protocol):
    """A process of the fork server's, whose code comes over the connection that asked for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._said = b""

    def data_received(self, data: bytes) -> None:
        self._said += data

    def connection_lost(self, exc: Exception | None) -> None:
        # Without a code the server itself has ended.
        self.returncode = int(self._said or 255)
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, signal: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError(f"process {self.pid} has ended with {self.returncode}")
        os.kill(self.pid, signal)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Server:
    """The fork server of this process; it ends when this process has, or closes its sockets."""

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        # An abstract name, which the system chooses (unix(7), autobind).
        self._listener.bind("")
        self._listener.listen()
        self._owner, its_own = socket.socketpair()
        self._environment = loaded_with(os.environ)
        files = (self._listener.fileno(), its_own.fileno())
        self._process = subprocess.Popen(
            (sys.executable, "-m", "tests.fork_server", *map(str, files)),
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.DEVNULL,
            pass_fds=files,
            start_new_session=True,
        )
        its_own.close()

    def makes(self, environment: Mapping[str, str]) -> bool:
        """Whether its processes are as any that are started with this environment."""
        return loaded_with(environment) == self._environment

    async def start(self, start: Start, output: IO[bytes], errors: IO[bytes]) -> _Forked:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._listener.getsockname())
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            socket.send_fds(connection, [json.dumps(start).encode()], [nothing, output.fileno(), errors.fileno()])
        finally:
            os.close(nothing)
        connection.shutdown(socket.SHUT_WR)
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        said = b""
        while not said.endswith(b"\n"):
            # A byte at a time: what comes behind the line is the code of a process that has ended already.
            more = await loop.sock_recv(connection, 1)
            assert more, "the fork server has ended"
            said += more
        child = _Forked(int(said))
        await loop.create_unix_connection(lambda: child, sock=connection)
        return child


def loaded_with(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment counts while modules are loaded."""
    return {name: value for name, value in environment.items() if name.startswith(_LOADED_WITH)}


@functools.cache
def _server() -> _Server | None:
    """This process's; None where processes are started as users start them."""
    if "COVERAGE_RUN" in os.environ or not sys.platform.startswith("linux"):
        return None
    return None if os.environ.get("KUBEBRAID_TESTS_FORK") == "no" else _Server()


async def start(
    *arguments: str,
    output: IO[bytes],
    errors: IO[bytes] | None = None,
    module: str = "kubebraid",
    environment: Mapping[str, str] | None = None,
    dies_with_us: bool = False,
    in_the_background: bool = False,
) -> Child:
    """Starts `python -m kubebraid` with arguments, in a session of its own; `errors` None: they go to `output`.

    `dies_with_us`: the system ends it when the process of the tests ends, however that does. `in_the_background`: it
    begins with SIGINT ignored, as by `&` of a script, or nohup in one; else SIGINT ends it, however the tests were
    started: a child inherits which signals are ignored, and Python and asyncio leave it so.
    """
    given = dict(os.environ if environment is None else environment)
    server = _server()
    if server is not None and server.makes(given):
        wanted = Start(
            module=module,
            arguments=list(arguments),
            environment=given,
            directory=os.getcwd(),
            dies_with_us=dies_with_us,
            in_the_background=in_the_background,
        )
        return await server.start(wanted, output, errors or output)
    die_with_us = child_set_up() if dies_with_us else None

    def set_up() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN if in_the_background else signal.SIG_DFL)
        if die_with_us is not None:
            die_with_us()

    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=errors or output,
        env=given,
        preexec_fn=set_up,
        start_new_session=True,
    )


async def run(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Runs `kubebraid` to its end: code, standard output, standard error. Neither of them is a terminal."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        child = await start(*arguments, output=output, errors=errors, environment=environment)
        try:
            code = await asyncio.wait_for(child.wait(), PATIENCE)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        for file in (output, errors):
            file.seek(0)
        return code, output.read().decode(), errors.read().decode()


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[_Pipe]:
    reading, writing = (os.fdopen(one, mode, buffering=0) for one, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), reading)
    try:
        yield _Pipe(reader, transport, writing)
    finally:
        writing.close()
        transport.close()


@contextlib.asynccontextmanager
async def piped(
    *arguments: str, environment: Mapping[str, str] | None = None, in_the_background: bool = False
) -> AsyncIterator[Piped]:
    """Starts `kubebraid` with pipes for its output; what still runs at the end of the block is killed."""
    async with _pipe() as stdout, _pipe() as stderr:
        child = await start(
            *arguments,
            output=stdout.writing,
            errors=stderr.writing,
            environment=environment,
            in_the_background=in_the_background,
        )
        stdout.writing.close()
        stderr.writing.close()
        try:
            yield Piped(child, stdout, stderr)
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()
