"""One run of a command whose output is wanted: bounded in time and output, and ended with all that it started.

The command becomes the leader of a session and process group of its own. The group is killed before its leader is
waited for, while its number cannot be anybody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from producers.errors import ProducersError

LARGEST_OUTPUT = 1024 * 1024
"""What an answer may have, in bytes: a hundred times as much as a chain of certificates."""
_MOST_SAID = 16 * 1024 * 1024
_KEPT = 4096
_PIECE = 64 * 1024
# A process that was killed is gone at once, unless it waits for a device.
_AFTER_KILL = 5.0


class RunFailed(ProducersError):
    """A command gave no answer; `reason` reads on after the command's name. `said`: its last line on standard error."""

    def __init__(self, reason: str, said: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.said = said


class NotInstalled(RunFailed):
    """There is no such command."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is run: a path, its arguments, its whole environment; both may have secrets."""

    path: str
    arguments: Sequence[str] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)

    def begin(self) -> subprocess.Popen[bytes]:
        """Starts it, with nothing to read. Blocking. Raises OSError, ValueError, SubprocessError."""
        return subprocess.Popen(
            [self.path, *self.arguments],
            executable=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )


async def run(command: Command, limit: float, threads: Executor) -> bytes:
    """Runs a command to its end and returns what it printed. After `limit` seconds it is killed, and all it started.

    Where only something in the background keeps its output open until then, what was printed counts. When the caller is
    cancelled, the command is killed, too. Raises RunFailed.
    """
    until = asyncio.get_running_loop().time() + limit
    running = _Running(await _begun(command, until, limit, threads))
    try:
        await running.until_its_end(until)
        return running.output(limit)
    finally:
        running.kill()
        await running.reaped()


async def _begun(command: Command, until: float, limit: float, threads: Executor) -> subprocess.Popen[bytes]:
    start = _Start(command)
    try:
        async with asyncio.timeout_at(until):
            return await asyncio.get_running_loop().run_in_executor(threads, start)
    except asyncio.CancelledError:
        start.give_up()
        raise
    except TimeoutError:
        start.give_up()
        raise RunFailed(f"did not begin within {limit:g} s") from None
    except (OSError, subprocess.SubprocessError) as cause:
        raise RunFailed(f"cannot be started: {getattr(cause, 'strerror', None) or type(cause).__name__}") from None
    except ValueError:
        raise RunFailed("cannot be started: its arguments or environment have what none can have (a NUL)") from None


class _Start:
    """Starting in a thread, as it may take long (a command on a file server): given up, nothing stays behind."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._given_up = False
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> subprocess.Popen[bytes]:
        process = self._command.begin()
        with self._lock:
            self._process = process
            if self._given_up:
                _discard(process)
        return process

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._process is not None:
                _discard(self._process)


def _discard(process: subprocess.Popen[bytes]) -> None:
    _kill_group(process)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # Its number is the group's as long as it was not waited for.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


class _Running:
    """A process whose pipes are read on the event loop; owned by the task that runs it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._stdout, self._stderr = process.stdout.fileno(), process.stderr.fileno()
        self._printed = bytearray()
        self._said = bytearray()
        self._said_bytes = 0
        self._too_much = ""
        self._open = {self._stdout, self._stderr}
        self._gone = asyncio.Event()
        self._changed = asyncio.Event()
        self._exit = _Exit(process, self._exited)
        for descriptor in (self._stdout, self._stderr):
            os.set_blocking(descriptor, False)
            self._loop.add_reader(descriptor, self._read, descriptor)

    def _exited(self) -> None:
        self._gone.set()
        self._changed.set()

    def _read(self, descriptor: int) -> None:
        try:
            piece = os.read(descriptor, _PIECE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            piece = b""
        if not piece:
            self._loop.remove_reader(descriptor)
            self._open.discard(descriptor)
            self._changed.set()
        elif descriptor == self._stdout:
            self._printed += piece
            if len(self._printed) > LARGEST_OUTPUT:
                self._stop(
                    f"printed more than {LARGEST_OUTPUT // 1024 // 1024} MiB, where an ExecCredential alone is "
                    "expected: run it by hand to see what"
                )
        else:
            self._said_bytes += len(piece)
            self._said = (self._said + piece)[-_KEPT:]
            if self._said_bytes > _MOST_SAID:
                self._stop(f"wrote more than {_MOST_SAID // 1024 // 1024} MiB to standard error")

    def _stop(self, reason: str) -> None:
        self._too_much = reason
        self._close_pipes()
        self._changed.set()

    def _over(self) -> bool:
        """Whether nothing more is to be waited for: an error says so at once, an answer ends with its pipe."""
        if self._too_much:
            return True
        return self._gone.is_set() and (self._stdout not in self._open or self._exit.code() != 0)

    async def until_its_end(self, until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while not self._over():
                    self._changed.clear()
                    await self._changed.wait()

    def output(self, limit: float) -> bytes:
        """What it printed. Raises RunFailed."""
        if self._too_much:
            raise RunFailed(self._too_much, self._last_line())
        if not self._gone.is_set():
            raise RunFailed(f"did not answer within {limit:g} s", self._last_line())
        if self._stderr in self._open:
            self._read(self._stderr)
        code = self._exit.code()
        if code > 0:
            raise RunFailed(f"failed with exit code {code}", self._last_line())
        if code < 0:
            raise RunFailed(f"was ended by signal {-code}", self._last_line())
        return bytes(self._printed)

    def _last_line(self) -> str:
        lines = [line for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:400] if lines else ""

    def _close_pipes(self) -> None:
        for descriptor in self._open:
            self._loop.remove_reader(descriptor)
        self._open.clear()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def kill(self) -> None:
        """Kills it with its group; what has gone another way is in a session of its own."""
        _kill_group(self._process)
        self._close_pipes()

    async def reaped(self) -> None:
        """Waits for the end of what was killed."""
        try:
            async with asyncio.timeout(_AFTER_KILL):
                await self._gone.wait()
        except TimeoutError:
            # It waits for a device: the system ends it when that answers.
            pass
        finally:
            self._exit.close()
            self._process.poll()


class _Exit:
    """The end of a process, seen without waiting for it: until then its number, and its group's, stay its own."""

    def __init__(self, process: subprocess.Popen[bytes], ended: Callable[[], None]) -> None:
        self._process = process
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._descriptor = -1
        try:
            self._descriptor = os.pidfd_open(process.pid)
        except (AttributeError, OSError):
            # No such thing on this system, or not in this sandbox.
            threading.Thread(target=self._wait, name="plugin", daemon=True).start()
        else:
            self._loop.add_reader(self._descriptor, self._ready)

    def _ready(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._ended()

    def _wait(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):
            # The loop may have ended meanwhile.
            self._loop.call_soon_threadsafe(self._ended)

    def code(self) -> int:
        """The exit code of a process that has ended; that of a signal is negative."""
        found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        assert found is not None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
