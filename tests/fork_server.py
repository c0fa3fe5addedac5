"""Starts kubebraid's processes by forking: a program that has loaded their modules, and then forks for each.

Loading them takes most of the processor time of a start, and tests start hundreds. What is forked is a process as any
other: with a process id, a session, an environment and files of its own. `tests/processes.py` asks for them.

A connection is one process: the request has what `Start` says as JSON, with the files for standard input, output and
error; the answer is a line with the process id, and once that has ended one with its code, as `subprocess` gives it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from typing import TypedDict

from kubebraid.loading import loading

_PR_SET_PDEATHSIG = 1
# What a request is at most, in bytes: environments are a few thousand.
_REQUEST = 2**20


class Start(TypedDict):
    """What a process is to be: `python -m module arguments`, in an environment and a working directory."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    directory: str
    # Whether the system ends it when this server ends.
    dies_with_us: bool
    # Whether it begins with SIGINT ignored, as what a script starts by `&`.
    in_the_background: bool


def received(connection: socket.socket) -> tuple[Start, list[int]] | None:
    """A request, up to the end of what was sent, and its three files; None if its sender has gone."""
    data, files, _, _ = socket.recv_fds(connection, _REQUEST, 3)
    while data and (more := connection.recv(_REQUEST)):
        data += more
    return (json.loads(data), files) if data else None


def become(start: Start, files: list[int]) -> None:
    """Makes this process, just forked, one that was started anew."""
    os.setsid()
    if start["dies_with_us"]:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN if start["in_the_background"] else signal.default_int_handler)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(start["environment"])
    os.chdir(start["directory"])
    sys.argv[1:] = start["arguments"]


class _Server:
    """Forks until its owner, at the other end of `owner`, has gone."""

    def __init__(self, listener: socket.socket, owner: socket.socket) -> None:
        self._listener = listener
        self._owner = owner
        self._running: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()

    def serve(self) -> Start | None:
        """Returns None when its owner has gone; in each process that was forked, what that is to be."""
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for one in (self._listener, self._owner, self._woken):
            self._selector.register(one, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if self._woken in ready:
                self._woken.recv(4096)
                self._report_ended()
            if self._owner in ready:
                return None
            if self._listener in ready and (start := self._fork()) is not None:
                return start

    def _fork(self) -> Start | None:
        connection, _ = self._listener.accept()
        if (request := received(connection)) is None:
            connection.close()
            return None
        start, files = request
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for one in (self._listener, self._owner, self._woken, self._wake, connection, *self._running.values()):
                one.close()
            become(start, files)
            return start
        for file in files:
            os.close(file)
        self._running[pid] = connection
        connection.sendall(b"%d\n" % pid)
        return None

    def _report_ended(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._running.pop(pid) as connection, contextlib.suppress(OSError):
                # Its starter may have gone, as a test that is over.
                connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def main() -> None:
    """`python -m tests.fork_server LISTENER OWNER`: the numbers of two open sockets."""
    listener, owner = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    with loading():
        importlib.import_module("kubebraid.command.cli")
        importlib.import_module("simulation.run")
        # What the versions of typer that have it load only when a command has options.
        with contextlib.suppress(ImportError):
            importlib.import_module("typer._adapters")
    if (start := _Server(listener, owner).serve()) is not None:
        runpy.run_module(start["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
