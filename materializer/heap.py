"""Heap: what was freed within a process's memory goes back to the system."""

from __future__ import annotations

import ctypes
import sys


def trim() -> None:
    """Gives whole pages back that nothing is in, where glibc can (`malloc_trim(3)`); else it does nothing.

    Of itself glibc gives back only what is free at the heap's end. It takes about 0.1 ms a MB that is given back, and
    holds no GIL: to be called in a thread.
    """
    if sys.platform.startswith("linux"):
        found = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if found is not None:
            found(0)
