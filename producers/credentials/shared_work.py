"""Work that many wait for and that is done once: none of those who wait ends it by going away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

from producers.credentials.credential import BadCredentials

T = TypeVar("T")
_CLOSED = "closed: the kubeconfig has changed, or this cluster is no longer followed"


class SharedWork(Generic[T]):
    """One run of `work` at a time. The task of a run is owned here: `close` ends it and waits for its end."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._task: asyncio.Task[T] | None = None
        self._closed = False

    @property
    def under_way(self) -> bool:
        """Whether a run has begun and has not ended."""
        return self._task is not None and not self._task.done()

    def begin(self) -> asyncio.Task[T]:
        """The run under way, or a new one. Raises BadCredentials when this is closed."""
        if self._closed:
            raise BadCredentials(_CLOSED)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            # That all have gone away is no failure of its own.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._task

    async def _run(self) -> T:
        return await self._work()

    async def result(self) -> T:
        """What the run under way, or a new one, comes to. Raises what `work` raises."""
        task = self.begin()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # Ours, or the run's, which was closed below us.
            if task.cancelled() and not _being_cancelled():
                raise BadCredentials(_CLOSED) from None
            raise

    async def close(self, patience: float = 0.0) -> None:
        """Ends a run, after `patience` seconds in which it may end by itself; none begins after this.

        When the caller is cancelled, a run that was to have patience has it all the same; another call waits for it.
        """
        self._closed = True
        task = self._task
        if task is None or task.done():
            return
        if patience:
            try:
                await asyncio.wait((task,), timeout=patience)
            except asyncio.CancelledError:
                asyncio.get_running_loop().call_later(patience, task.cancel)
                raise
        task.cancel()
        await asyncio.wait((task,))


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class OffLoop(Generic[T]):
    """A blocking call in a thread, never two at once: one that hangs (a dead file server) takes one thread."""

    def __init__(self, threads: Executor, call: Callable[[], T], what: str) -> None:
        self._threads = threads
        self._call = call
        self._what = what
        self._pending: asyncio.Future[T] | None = None

    async def result(self, limit: float) -> T:
        """What the call returns, for at most `limit` seconds. Raises BadCredentials then, and what the call raises."""
        if self._pending is None or self._pending.done():
            try:
                self._pending = asyncio.get_running_loop().run_in_executor(self._threads, self._call)
            except RuntimeError:
                raise BadCredentials("closed: this process is ending") from None
            self._pending.add_done_callback(lambda future: future.cancelled() or future.exception())
        try:
            async with asyncio.timeout(limit):
                return await asyncio.shield(self._pending)
        except TimeoutError:
            raise BadCredentials(f"{self._what} could not be read within {limit:g} s") from None
