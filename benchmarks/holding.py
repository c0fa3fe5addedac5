"""Holding: a materializer in a process of its own, of this source tree or of another: when it is ready, what it holds.

Run as a program, `python -P holding.py OPTIONS` with PYTHONPATH set to a tree, so that one release can be measured
beside another: it asks for what only later ones have where they have it. It writes a line of JSON once it is ready, and
another for each line that it reads: what it holds by then. It ends with its input.
"""

import asyncio
import contextlib
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

# A process that takes less of a processor than this part has settled; it is given so many seconds to do so.
_IDLE = 0.03
_PATIENCE = 120.0


class Holder:
    """The process, seen by who measures it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def state(self) -> dict[str, Any]:
        """What it says next.

        Raises:
            RuntimeError: it ended instead; why, is on standard error.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the materializer ended with code {await self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    async def again(self) -> dict[str, Any]:
        """What it holds now, once it has settled."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        await self._process.stdin.drain()
        return await self.state()


@contextlib.asynccontextmanager
async def holding(
    tree: Path, url: str, *, snapshots: Path | None = None, writes: bool = False, deletions: int = 0
) -> AsyncIterator[Holder]:
    """A materializer of a source tree on the log at `url`.

    `snapshots`: the directory that it goes on from; with `writes` it writes one when it is ready. With `deletions` the
    first minutes of deletions, in which they are remembered whole, are a second, and so many are remembered.
    """
    options = {"url": url, "snapshots": str(snapshots or ""), "writes": writes, "deletions": deletions}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", __file__, json.dumps(options)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tree)},
        cwd=tree,
    )
    try:
        yield Holder(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _most_resident() -> int:
    # That of getrusage is inherited from who started the process.
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


async def _settle() -> None:
    """Return once nothing goes on in the background any more, or after a while."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        cpu = time.process_time()
        await asyncio.sleep(1.0)
        if time.process_time() - cpu < _IDLE:
            break
    gc.collect()


def _bounded(deletions: int) -> dict[str, Any]:
    """Options of a materializer that remembers so many deletions, and their bodies for a second; of old ones, none."""
    try:
        from materializer.forgetting import DeletionLimits
        from materializer.timing import Timing
    except ImportError:
        return {}
    return {"timing": Timing(forget_every=0.5, bury_after=1.0), "deletions": DeletionLimits(number=deletions)}


async def _main(*, url: str, snapshots: str, writes: bool, deletions: int) -> None:
    from deltalog import connect, open_log
    from materializer.materializer import Materializer
    from materializer.snapshot import Snapshots

    connection = await connect(url, name="kubebraid-bench")
    kept = Snapshots(Path(snapshots), 3600.0, writes=writes) if snapshots else None
    options = _bounded(deletions) if deletions else {}
    materializer = Materializer(await open_log(connection), snapshots=kept, **options)
    gc.collect()
    gc.freeze()
    before = _resident()
    started, cpu = time.perf_counter(), time.process_time()
    running = asyncio.create_task(materializer.run())
    ready = asyncio.create_task(materializer.ready.wait())
    await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    found: dict[str, Any] = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    found["messages"] = materializer.replayed
    loop = asyncio.get_running_loop()
    while True:
        await _settle()
        store = materializer.store
        for _ in range(int(_PATIENCE)):
            if not (options and store.fading):
                break
            # Bodies of deleted objects are still to go.
            await asyncio.sleep(1.0)
        gc.collect()
        found |= {
            "objects": sum(len(one) for one in store.types.values()),
            "held": _resident() - before,
            "before": before,
            "most": _most_resident(),
            "cpu_settled": time.process_time() - cpu,
            "applied": store.applied,
        }
        if writes:
            writing = time.perf_counter()
            await materializer.save()
            found |= {"saving": time.perf_counter() - writing, "file": kept.size if kept else 0}
        print(json.dumps(found), flush=True)
        if not await loop.run_in_executor(None, sys.stdin.readline):
            break
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await connection.close()


if __name__ == "__main__":
    import logging

    import structlog
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    uvloop.run(_main(**json.loads(sys.argv[1])))
