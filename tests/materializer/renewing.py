"""Packing whose dictionaries are renewed again and again, for models whose bodies are small."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from deltalog.wire.kubernetes import GroupResource
from materializer.bodies import ALONE, AtRest, Body, Dictionary, Packing
from materializer.store import Store


class Renewing(Packing):
    """Packs whatever it is given, and renews the dictionary of all types every few times, from what comes just then."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._dictionary = ALONE
        self.renewed = 0

    def take(
        self,
        batch: Sequence[tuple[GroupResource, Body]],
        objects: Mapping[GroupResource, int] | None = None,
        samples: Mapping[GroupResource, Sequence[AtRest]] | None = None,
        *,
        train: bool = True,
    ) -> list[AtRest]:
        if train and self._random.random() < 0.2:
            self._dictionary = Dictionary(b"".join(rest for _, rest in batch)[-4096:].rjust(64))
            self.renewed += 1
        frames = self._dictionary.pack_many([rest for _, rest in batch])
        return [
            (None, rest) if self._random.random() < 0.1 else (self._dictionary, frame)
            for (_, rest), frame in zip(batch, frames, strict=True)
        ]

    def present(self, key: GroupResource) -> Dictionary | None:
        return self._dictionary

    def adopt(self, key: GroupResource, dictionary: Dictionary) -> None:
        self._dictionary = dictionary

    def at_random(self, store: Store) -> None:
        """Packs some of a store's bodies, or none, or all."""
        if self._random.random() < 0.3:
            store.pack(self._random.choice((0, store.plain.size // 2)), train=self._random.random() < 0.8)
