"""An instance in a process of its own that remembers few deletions: `python -m tests.faults.deletions_instance URL N`.

For each line on its standard input it prints one: what it remembers, and how many bytes it takes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from pathlib import Path

from deltalog import connect, open_log
from deltalog.history import History
from deltalog.timing import LogTiming
from materializer.forgetting import DeletionLimits
from materializer.materializer import Materializer
from materializer.timing import Timing

# What takes minutes in an installation takes a second here.
TIMING = Timing(look_every=1.0, forget_every=0.2, bury_after=1.0)
LOG_TIMING = LogTiming(purge_after=1.0, purge_others=0.5)


async def main(url: str, number: int) -> None:
    """Serves until its input ends."""
    log = await open_log(await connect(url, name="instance"))
    limits = DeletionLimits(number=number)
    materializer = Materializer(
        log, History(log), window=4 << 20, deletions=limits, timing=TIMING, log_timing=LOG_TIMING
    )
    running = asyncio.create_task(materializer.run())
    await materializer.ready.wait()
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        if running.done():
            running.result()
        gc.collect()
        store, found = materializer.store, materializer.forgetting.remembered()
        said = {
            "applied": store.applied,
            "floor": store.floor,
            "number": found.number,
            "bytes": found.bytes,
            "whole": sum(map(len, (one for kind in store.types.values() for one in kind.tombstones.values()))),
            "waiting": len(materializer.forgetting.purging),
            "resident": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        }
        print("said " + json.dumps(said), flush=True)
    running.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
