"""Packing: under which dictionary a type's bodies are packed, when it gets one, and when another."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from deltalog.wire.kubernetes import GroupResource
from materializer.bodies.dictionary import ALONE, Body, CorruptFrame, Dictionary
from materializer.bodies.training import LEAST_BODIES, LEAST_BYTES, MOST_BYTES, Candidate, train_candidate

AtRest = tuple[Dictionary | None, Body]
"""A body at rest: a dictionary and the frame under it, or None and the body itself."""

# A frame is worth its reading if it takes an eighth off.
_WORTHWHILE = 7 / 8
# A type's first dictionary has to take so many times its size off what is held; more as the budget is used up.
_PAYS = 2
# It is at most this part of what it is for.
_PART_OF_ALL = 64
# Bodies pack clearly worse than those at training did, and that over so many bytes; a candidate packs clearly better.
_CLEARLY_WORSE = 1.15
_RECENT = 128 << 10
_CLEARLY_BETTER = 0.92
# A type that has grown so many times is worth another look, and a candidate that is a little better.
_GROWN = 4
_BETTER = 0.97
# Between two renewals so much of what is there has to have come anew: the old dictionary is kept, too.
_RENEWED = 4
# Bytes of a type between a candidate that was refused and the next: at first, doubled each time, and at most.
_PATIENCE = 4 << 20
_MOST_PATIENCE = 1 << 30
# More bodies than this are no better samples.
_MOST_BODIES = 4000


class Wanted(NamedTuple):
    """Samples that a type should be given: how many bodies, the newest ones, or from everywhere in the type's order."""

    bodies: int
    newest: bool


class PackingCounts(msgspec.Struct, frozen=True):
    """What `Packing` did since it was made, for all types. Bytes are those of bodies.

    - `plain`, `held`: bytes that came, and what they were held in (frames, or plain where that is as good).
    - `dictionaries`, `dictionary_bytes`: those that exist now, old ones that entries refer to among them.
    - `trainings`: dictionaries that were trained and taken; `refused`: trained and not taken.
    - `packing_seconds`, `training_seconds`: CPU.
    """

    plain: int
    held: int
    dictionaries: int
    dictionary_bytes: int
    trainings: int
    refused: int
    packing_seconds: float
    training_seconds: float


class _TypePacking:
    """What is known of a type's bodies.

    `expected`: bytes of frames for each plain byte, as measured at training on samples kept apart; 0: not known yet.
    `recent_plain`, `recent_held`: the same for what came lately. `bodies`, `plain`: how many came in all, their bytes.
    `look_at`: how many bytes the type must have for a look at more samples; `quiet_until`: how many must have come for
    another look at how they pack. `trying`: a candidate is being trained.
    """

    __slots__ = (
        "bodies",
        "dictionary",
        "expected",
        "look_at",
        "patience",
        "plain",
        "quiet_until",
        "recent_held",
        "recent_plain",
        "trying",
    )

    def __init__(self) -> None:
        self.dictionary: Dictionary | None = None
        self.expected = 0.0
        self.bodies = self.plain = 0
        self.recent_plain = self.recent_held = 0
        self.look_at = 0
        self.quiet_until = 0
        self.patience = _PATIENCE
        self.trying = False

    def count(self, bodies: int, plain: int, held: int, under: Dictionary) -> None:
        self.bodies += bodies
        self.plain += plain
        if under is not self.dictionary:
            return
        self.recent_plain += plain
        self.recent_held += held
        if self.recent_plain > 8 * _RECENT:
            self.recent_plain //= 2
            self.recent_held //= 2
        if not self.expected and self.recent_plain >= _RECENT:
            # One from a snapshot: it is judged by how it does from here on.
            self.expected = self.recent_held / self.recent_plain

    def has_drifted(self) -> bool:
        """Whether what came lately packs clearly worse than what the dictionary was trained from."""
        return (
            self.dictionary is not None
            and self.expected > 0
            and self.recent_plain >= _RECENT
            and self.plain >= self.quiet_until
            and self.recent_held > _CLEARLY_WORSE * self.expected * self.recent_plain
        )

    def is_due(self, there: int) -> bool:
        """Whether a look at samples from everywhere is due, with so many bytes of the type."""
        return there >= self.look_at or (self.dictionary is None and self.plain >= self.quiet_until)


class Packing:
    """Packs bodies of all types. One for a store; safe to be called by several threads.

    A type gets its first dictionary when it has enough bodies for one to pay. It gets another when what comes packs
    clearly worse than the dictionary did when it was trained, and a candidate trained from what comes now packs it
    clearly better, on samples that it was not trained from; the same is tried whenever a type has grown fourfold.
    Nothing is timed: a type whose bodies stay alike keeps its dictionary. Samples are what the store has, and are not
    kept.

    All dictionaries that exist, old ones that entries still refer to among them, take at most `budget` bytes: what one
    must save to be taken grows as that is used up, so those with the largest gain have room.

    Example: 1,000 pods of 5 KB have a dictionary of 78 KB, and a frame of 0.8 KB each; 20 of a custom resource stay
    without, packed alone; a type of random bytes is left plain.
    """

    def __init__(self, budget: int = 32 << 20) -> None:
        self._budget: Final = budget
        self._lock = threading.Lock()
        self._types: dict[GroupResource, _TypePacking] = {}
        self._known: weakref.WeakSet[Dictionary] = weakref.WeakSet()
        self._trainings = self._refused = 0
        self._plain = self._held = 0
        self._packing_seconds = self._training_seconds = 0.0

    def wanted(self, objects: Mapping[GroupResource, int]) -> dict[GroupResource, Wanted]:
        """Of which of these types `take` should have samples, given how many objects of each there are. O(types)."""
        with self._lock:
            return {key: found for key, number in objects.items() if (found := self._wanted(key, number)) is not None}

    def take(
        self,
        batch: Sequence[tuple[GroupResource, Body]],
        objects: Mapping[GroupResource, int] | None = None,
        samples: Mapping[GroupResource, Sequence[AtRest]] | None = None,
        *,
        train: bool = True,
    ) -> list[AtRest]:
        """For each body the dictionary and the frame under it, or None and the body itself; in their order.

        `objects`: how many objects of each of these types there are now (without it, all that ever came count).
        `samples`: bodies of the types that `wanted` asked for, in the order of their age; None: those of the batch.
        With `train` a dictionary may be trained on the way, which takes up to 50 ms of CPU: not for the event loop.
        Packing itself takes 8 to 12 us for 5 KB. O(bytes).
        """
        groups: dict[GroupResource, list[int]] = {}
        for at, (key, _) in enumerate(batch):
            groups.setdefault(key, []).append(at)
        taken: list[AtRest] = [(None, b"")] * len(batch)
        for key, places in groups.items():
            rests = [batch[at][1] for at in places]
            plain = sum(map(len, rests))
            number = None if objects is None else objects.get(key, 0)
            if train and (samples is None or key in samples):
                self._try(key, rests, number, samples[key] if samples is not None else ())
            under = self.present(key) or ALONE
            started = time.thread_time()
            held = 0
            for at, rest, frame in zip(places, rests, under.pack_many(rests), strict=True):
                smaller = len(frame) < _WORTHWHILE * len(rest)
                taken[at] = (under, frame) if smaller else (None, rest)
                held += len(frame) if smaller else len(rest)
            seconds = time.thread_time() - started
            with self._lock:
                self._packing_seconds += seconds
                self._plain += plain
                self._held += held
                self._types.setdefault(key, _TypePacking()).count(len(rests), plain, held, under)
        return taken

    def present(self, key: GroupResource) -> Dictionary | None:
        """The dictionary that a type's bodies are packed under from now on; None: it has none. O(1)."""
        state = self._types.get(key)
        return state.dictionary if state is not None else None

    def adopt(self, key: GroupResource, dictionary: Dictionary) -> None:
        """Goes on with a dictionary that was in use before, from a snapshot. O(1)."""
        with self._lock:
            state = self._types.setdefault(key, _TypePacking())
            state.dictionary = dictionary
            state.expected = 0.0
            state.recent_plain = state.recent_held = 0
            state.look_at = max(state.look_at, _GROWN * _PART_OF_ALL * len(dictionary.content))
            self._known.add(dictionary)

    def known(self, dictionary: Dictionary) -> Dictionary:
        """The equal one that exists already; if there is none, this one, which counts from now on. O(dictionaries)."""
        if not dictionary.content:
            return dictionary
        with self._lock:
            for one in self._known:
                if one.id == dictionary.id:
                    return one
            self._known.add(dictionary)
        return dictionary

    def count_in(self, dictionaries: Iterable[Dictionary]) -> None:
        """Counts old ones as well that entries of a snapshot are under, as long as these are there. O(those)."""
        with self._lock:
            self._known.update(one for one in dictionaries if one.content)

    def forget(self, key: GroupResource) -> None:
        """Forgets a type that there is no longer; entries under its dictionary go on having it. O(1)."""
        with self._lock:
            self._types.pop(key, None)

    def counts(self) -> PackingCounts:
        """What was done so far. O(types + dictionaries)."""
        with self._lock:
            known = list(self._known)
            return PackingCounts(
                plain=self._plain,
                held=self._held,
                dictionaries=len(known),
                dictionary_bytes=_size(known),
                trainings=self._trainings,
                refused=self._refused,
                packing_seconds=self._packing_seconds,
                training_seconds=self._training_seconds,
            )

    # -- another dictionary ----------------------------------------------------------------------------------------

    def _wanted(self, key: GroupResource, number: int) -> Wanted | None:
        state = self._types.get(key)
        if number < LEAST_BODIES or (state is not None and state.trying):
            return None
        if state is None or not state.bodies:
            return Wanted(min(number, _MOST_BODIES), newest=False)
        average = state.plain // state.bodies + 1
        bodies = min(number, _MOST_BODIES, MOST_BYTES // average)
        if number * average < LEAST_BYTES:
            return None
        if state.has_drifted():
            return Wanted(min(bodies, max(bodies // 8, LEAST_BYTES // average, LEAST_BODIES)), newest=True)
        return Wanted(bodies, newest=False) if state.is_due(number * average) else None

    def _try(self, key: GroupResource, rests: list[Body], number: int | None, samples: Sequence[AtRest]) -> None:
        """Tries a candidate if one is due."""
        with self._lock:
            state = self._types.setdefault(key, _TypePacking())
            size = sum(map(len, rests))
            # What there is of the type, in bytes: what a dictionary can save on.
            there = state.plain + size if number is None else number * size // len(rests)
            drifted = state.has_drifted()
            enough = there >= LEAST_BYTES and (samples or (len(rests) >= LEAST_BODIES and size >= LEAST_BYTES))
            # With samples it is due: what `wanted` saw was before this batch.
            if state.trying or not enough or not (samples or drifted or state.is_due(there)):
                return
            state.trying = True
            present = state.dictionary
        started = time.thread_time()
        candidate = None
        try:
            with self._lock:
                room = min(there // _PART_OF_ALL, self._left() // 4)
            bodies = _plain(samples) or rests
            candidate = train_candidate(present or ALONE, bodies, room, newest=drifted or not samples)
        except CorruptFrame:
            # Of one that is held already, in memory or in a mapped file: whoever reads it is told. All else goes on,
            # and this counts as refused.
            pass
        finally:
            with self._lock:
                self._training_seconds += time.thread_time() - started
                state.trying = False
                if state.dictionary is present:
                    self._decide(state, candidate, drifted, there)

    def _decide(self, state: _TypePacking, candidate: Candidate | None, drifted: bool, there: int) -> None:
        state.look_at = max(state.look_at, _GROWN * there)
        first = state.dictionary is None
        if candidate is not None and self._is_taken(candidate, first, drifted, there):
            state.dictionary = candidate.dictionary
            state.expected = candidate.ratio
            state.recent_plain = state.recent_held = 0
            state.patience = _PATIENCE
            state.quiet_until = state.plain + max(_RECENT, there // _RENEWED)
            self._known.add(candidate.dictionary)
            self._trainings += 1
            return
        self._refused += 1
        if drifted and state.recent_plain:
            # What comes is harder than it was, and no dictionary helps: from here on that is what is expected.
            state.expected = max(state.expected, state.recent_held / state.recent_plain)
        if drifted or first:
            state.quiet_until = state.plain + state.patience
            state.patience = min(2 * state.patience, _MOST_PATIENCE)

    def _left(self) -> int:
        return self._budget - _size(list(self._known))

    def _is_taken(self, candidate: Candidate, first: bool, drifted: bool, there: int) -> bool:
        if candidate.ratio > (_CLEARLY_BETTER if first or drifted else _BETTER) * candidate.present_ratio:
            return False
        cost = len(candidate.dictionary.content)
        left = self._left()
        if cost > left:
            return False
        saved = there * (candidate.present_ratio - candidate.ratio)
        return saved >= (_PAYS if first else 1) * cost * self._budget / left


def _size(dictionaries: Iterable[Dictionary]) -> int:
    return sum(len(dictionary.content) for dictionary in dictionaries)


def _plain(samples: Sequence[AtRest]) -> list[Body]:
    """The bodies, in their order."""
    groups: dict[Dictionary | None, list[int]] = {}
    for at, (dictionary, _) in enumerate(samples):
        groups.setdefault(dictionary, []).append(at)
    rests = [frame for _, frame in samples]
    for dictionary, places in groups.items():
        if dictionary is not None:
            for at, rest in zip(places, dictionary.unpack_many([rests[at] for at in places]), strict=True):
                rests[at] = rest
    return rests
