"""Processes that stand still."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def halt(pid: int) -> None:
    """SIGSTOP; returns when none of its threads runs any more, which is a moment later.

    Where nothing tells (no /proc), that moment is waited for.
    """
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    if not threads.exists():
        time.sleep(0.05)
        return
    while any(_state(thread / "stat") not in "TtZX" for thread in threads.iterdir()):
        time.sleep(0.001)


def _state(stat: Path) -> str:
    try:
        # Behind the command's name, which may hold anything.
        return stat.read_text().rpartition(")")[2].split()[0]
    except OSError:
        # The thread has gone meanwhile.
        return "X"
