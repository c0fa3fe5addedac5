"""A clock that tests move."""

from __future__ import annotations

import time


class Clock:
    """Seconds since 1970, as they are when it is made."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now
