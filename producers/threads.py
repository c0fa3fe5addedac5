"""Threads of their own for work that may hang, as reading a file whose server does not answer.

The event loop's default threads are for everything else: one dead file server (NFS, FUSE) would take them all. Here
work is done in shares, each of which has a few of all threads at a time: what hangs holds up its own share only.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

# Threads at once, and how many of them for one share.
_AT_ONCE = 64
_EACH = 8
_MOUNTS = Path("/proc/self/mountinfo")
# A space, tab, line feed or backslash in a path, as the kernel writes it there.
_OCTAL = re.compile(r"\\([0-7]{3})")

P = ParamSpec("P")
T = TypeVar("T")


class _Work(NamedTuple):
    future: Future[Any]
    call: Callable[[], Any]


class Threads:
    """At most `at_once` threads, at most `each` of them for one share. All of its methods may be called by any thread.

    They are daemons: work that hangs keeps no process from ending. A thread ends when there is nothing for it to do.
    """

    def __init__(self, name: str, at_once: int = _AT_ONCE, each: int = _EACH) -> None:
        self._name = name
        self._at_once = at_once
        self._each = each
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: dict[str, deque[_Work]] = {}
        self._running: dict[str, int] = {}
        self._threads = 0
        # Shares with work that waits, and room for it, in the order in which they have their turn.
        self._ready: dict[str, None] = {}
        self._closed = False

    def of(self, share: str) -> Executor:
        """What runs work of a share."""
        return _Share(self, share)

    def close(self) -> None:
        """No work begins after this; that which is running goes on."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
            self._ready.clear()
        for works in waiting.values():
            for work in works:
                work.future.cancel()

    def wait(self, seconds: float) -> bool:
        """Whether nothing is running, within so many seconds. Blocking."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._threads, seconds)

    def submit(self, share: str, call: Callable[[], Any]) -> Future[Any]:
        """Begins work of a share, or has it wait. Raises RuntimeError when closed, or if no thread can be started."""
        work = _Work(Future(), call)
        with self._lock:
            if self._closed:
                raise RuntimeError("closed")
            waiting = self._waiting.setdefault(share, deque())
            while waiting and waiting[0].future.cancelled():
                waiting.popleft()
            waiting.append(work)
            if self._running.get(share, 0) < self._each:
                self._ready[share] = None
            if self._threads < self._at_once and self._ready:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._threads += 1
        return work.future

    def _run(self) -> None:
        share: str | None = None
        while (begun := self._next(share)) is not None:
            share, work = begun
            if not work.future.set_running_or_notify_cancel():
                continue
            try:
                result = work.call()
            except BaseException as cause:  # noqa: BLE001 - whoever waits for it gets it
                work.future.set_exception(cause)
            else:
                work.future.set_result(result)
            # Nothing of it is held while the next work runs.
            del begun, work

    def _next(self, ended: str | None) -> tuple[str, _Work] | None:
        """The next work, by turns of shares; None: the thread that asks ends. `ended`: the share of its last work."""
        with self._lock:
            if ended is not None:
                self._running[ended] -= 1
                if not self._running[ended]:
                    del self._running[ended]
                if ended in self._waiting:
                    self._ready[ended] = None
            if not self._ready:
                self._threads -= 1
                if not self._threads:
                    self._idle.notify_all()
                return None
            share = next(iter(self._ready))
            del self._ready[share]
            waiting = self._waiting[share]
            work = waiting.popleft()
            self._running[share] = self._running.get(share, 0) + 1
            if not waiting:
                del self._waiting[share]
            elif self._running[share] < self._each:
                self._ready[share] = None
            return share, work


class _Share(Executor):
    """One share of `Threads`, as `run_in_executor` takes it."""

    def __init__(self, threads: Threads, share: str) -> None:
        self._threads = threads
        self._share = share

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._threads.submit(self._share, functools.partial(fn, *args, **kwargs))


def share_of(path: str) -> str:
    """The share that a file's readers have: of what is mounted there, or on the root file system its directory.

    Symbolic links are not followed: that may hang.
    """
    try:
        directory = os.path.dirname(os.path.abspath(path))
        mounted = _mounts(_MOUNTS.read_text(errors="surrogateescape"))
    except (OSError, ValueError):
        return os.path.dirname(path)
    place = directory
    while place not in mounted and place != os.path.dirname(place):
        place = os.path.dirname(place)
    return directory if place == os.path.dirname(place) else place


@functools.lru_cache(maxsize=1)
def _mounts(text: str) -> frozenset[str]:
    """Where something is mounted, by proc(5)."""
    places = (line.split(" ", 5)[4] for line in text.splitlines() if line.count(" ") > 4)
    return frozenset(_OCTAL.sub(lambda found: chr(int(found[1], 8)), place) for place in places)


@functools.cache
def _of_kubeconfigs() -> Threads:
    return Threads("kubeconfigs")


async def reading(path: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs what reads a kubeconfig, and files that it names, in the share of its path."""
    executor = _of_kubeconfigs().of(share_of(path))
    return await asyncio.get_running_loop().run_in_executor(executor, functools.partial(call, *args, **kwargs))
