"""Training: samples of a type's bodies, and whether a dictionary made of them is better than the one there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import zstandard

from materializer.bodies.dictionary import LEVEL, Dictionary

LEAST_BYTES = 64 << 10
"""What a type must have for a dictionary: so many bytes, and `LEAST_SAMPLES` bodies."""

LEAST_SAMPLES = 32

# Samples of one training. Twice as many make no dictionary better by more than a hundredth.
_MOST_BYTES = 4 << 20
# Of a large body that is enough.
_PIECE = 32 << 10
# One of so many samples is kept apart.
_APART = 8
# With fewer bytes of samples for one of the dictionary zstd's trainer does worse than it would with a smaller one.
_SAMPLES_FOR_CONTENT = 8
_LEAST_CONTENT = 4 << 10
_MOST_CONTENT = 112 << 10


class Sampling:
    """Samples of what comes: `goal` bytes, one body of several if they are to be spread over `over` bytes."""

    def __init__(self, goal: int, over: int = 0) -> None:
        self._goal = min(max(goal, LEAST_BYTES), _MOST_BYTES)
        self._step = max(over // self._goal, 1)
        self._offered = 0
        self._full = False
        self.size = 0
        self.samples: list[bytes] = []

    def offer(self, bodies: Sequence[bytes], room: int) -> None:
        """Takes of them what it needs, at most `room` bytes. O(bodies)."""
        for body in bodies:
            self._offered += 1
            if self._offered % self._step:
                continue
            if self.size >= _MOST_BYTES:
                return
            sample = body[:_PIECE]
            room -= len(sample)
            if room < 0:
                self._full = True
                return
            self.samples.append(sample)
            self.size += len(sample)

    @property
    def enough(self) -> bool:
        """Whether a dictionary can be trained: the goal is reached, or as much as there is room for."""
        least = len(self.samples) >= LEAST_SAMPLES and self.size >= LEAST_BYTES
        return least and (self._full or self.size >= self._goal)


class Trial(NamedTuple):
    """A candidate, and bytes of frames for each plain byte of samples kept apart: under it, and under the present."""

    candidate: Dictionary
    ratio: float
    present_ratio: float


def try_dictionary(present: Dictionary, sampling: Sampling, most: int) -> Trial | None:
    """Trains a candidate of at most `most` bytes, 4 KB at least; None if zstd makes none of these samples.

    Up to 0.2 s of CPU, without the GIL for most of it.
    """
    # The newest: what is made of the others has to serve what comes after them.
    known = len(sampling.samples) - len(sampling.samples) // _APART
    apart = sampling.samples[known:]
    samples: list[bytes | bytearray | memoryview] = [*sampling.samples[:known]]
    room = min(sum(map(len, samples)) // _SAMPLES_FOR_CONTENT, most, _MOST_CONTENT)
    try:
        trained = zstandard.train_dictionary(max(room, _LEAST_CONTENT), samples, level=LEVEL)
    except zstandard.ZstdError:
        # It finds nothing that repeats, in random bytes for one.
        return None
    candidate = Dictionary(trained.as_bytes())
    plain = sum(map(len, apart)) or 1
    return Trial(
        candidate,
        sum(map(len, candidate.pack_many(apart))) / plain,
        sum(map(len, present.pack_many(apart))) / plain,
    )
