"""Training: a dictionary made of samples of a type's bodies, and whether it is better than the one there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import zstandard

from materializer.bodies.dictionary import LEVEL, Body, Dictionary

LEAST_BYTES = 64 << 10
"""What there has to be for a dictionary: so many bytes, and `LEAST_BODIES` bodies."""

LEAST_BODIES = 32

MOST_BYTES = 4 << 20
"""Of samples for one. Three times as many make it better by a hundredth at most."""

# Of a large body that is enough.
_PIECE = 32 << 10
# One of so many samples is kept apart.
_APART = 8
# With fewer bytes of samples for one of the dictionary zstd's trainer does worse than it would with a smaller one.
_SAMPLES_FOR_CONTENT = 8
_LEAST_CONTENT = 4 << 10
_MOST_CONTENT = 512 << 10
# zstd's trainer (fastCover): bytes of the pieces that it counts, bytes of the stretches that it takes, bits of the
# table in which it counts. Left to it, it tries eight pairs of the first two, for two hundredths.
_PIECES, _STRETCHES, _TABLE = 8, 1024, 18


class Candidate(NamedTuple):
    """A dictionary on trial, and bytes of frames for each plain byte of samples kept apart: under it, and under the
    present one.
    """

    dictionary: Dictionary
    ratio: float
    present_ratio: float


def train_candidate(present: Dictionary, bodies: Sequence[Body], most: int, *, newest: bool) -> Candidate | None:
    """Trains a candidate of at most `most` bytes, 4 KB at least; None if zstd makes none of these, or they are too few.

    It is measured on an eighth of the bodies, which it is not trained from: with `newest` the last ones, so that it is
    seen how it serves what comes after those it was made of. Some 40 ms of CPU at most, without the GIL for most of it.
    """
    samples = _pieces(bodies)
    if len(samples) < LEAST_BODIES or sum(map(len, samples)) < LEAST_BYTES:
        return None
    if newest:
        kept = len(samples) // _APART
        apart, known = samples[-kept:], samples[:-kept]
    else:
        apart = samples[::_APART]
        known = [sample for at, sample in enumerate(samples) if at % _APART]
    room = min(sum(map(len, known)) // _SAMPLES_FOR_CONTENT, most, _MOST_CONTENT)
    try:
        trained = zstandard.train_dictionary(
            max(room, _LEAST_CONTENT), [*known], level=LEVEL, d=_PIECES, k=_STRETCHES, f=_TABLE
        )
    except zstandard.ZstdError:
        # It finds nothing that repeats, in random bytes for one.
        return None
    dictionary = Dictionary(trained.as_bytes())
    plain = sum(map(len, apart)) or 1
    return Candidate(
        dictionary,
        sum(map(len, dictionary.pack_many(apart))) / plain,
        sum(map(len, present.pack_many(apart))) / plain,
    )


def _pieces(bodies: Sequence[Body]) -> list[bytes]:
    """The newest of them, as many as are enough."""
    pieces = []
    room = MOST_BYTES
    for body in reversed(bodies):
        if room <= 0:
            break
        pieces.append(bytes(body[:_PIECE]))
        room -= len(pieces[-1])
    return pieces[::-1]
