"""Types that many clusters have alike, once in memory: a thousand clusters of a version have the same hundred."""

from __future__ import annotations

from hashlib import blake2b
from typing import TypeVar

import msgspec

from deltalog.wire.resource_type import ResourceType

T = TypeVar("T", ResourceType, tuple[ResourceType, ...])

# Different ones that are kept; beyond that all are forgotten, and equal ones shared anew.
_MOST = 20_000
_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_shared: dict[tuple[type, bytes], object] = {}


def shared(types: T) -> T:
    """An equal value that others have, too. O(its size)."""
    # Columns are dictionaries, which have no hash.
    key = (type(types), blake2b(_encode(types), digest_size=16).digest())
    if len(_shared) >= _MOST and key not in _shared:
        _shared.clear()
    return _shared.setdefault(key, types)  # type: ignore[return-value]  # by its key
