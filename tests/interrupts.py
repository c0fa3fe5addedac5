"""Whether a process that a test starts ends at SIGINT: not left to how the tests were started.

A child inherits which signals are ignored. POSIX shells without job control start what ends in `&` with SIGINT ignored,
and Python and asyncio leave it so: tests that run in the background start children that no Ctrl-C ends.
"""

from __future__ import annotations

import signal


def interruptible() -> None:
    """For `preexec_fn`: as from a terminal."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def in_the_background() -> None:
    """For `preexec_fn`: as by `&` of a script, or nohup in one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
