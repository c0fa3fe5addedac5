"""Nothing: an empty dictionary that stays empty, for what is kept of each type of each cluster and seldom has anything.

An empty dictionary takes 64 bytes, and a writer has eight of them. Who puts something in makes a dictionary first.
"""

from __future__ import annotations

from typing import Any, Never


class _Nothing(dict[Any, Any]):
    """Refuses all that could put something in."""

    def _refuse(self, *_: object, **__: object) -> Never:
        raise TypeError("nothing is put into what many share")

    __setitem__ = setdefault = update = __ior__ = _refuse


NOTHING: dict[Any, Any] = _Nothing()
"""The one that all share."""
