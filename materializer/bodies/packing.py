"""Packing: under which dictionary a type's bodies are packed, when it gets one, and when another."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from deltalog.wire.kubernetes import GroupResource
from materializer.bodies.dictionary import ALONE, Dictionary
from materializer.bodies.training import LEAST_BYTES, Sampling, Trial, try_dictionary

# A frame is worth its reading if it takes an eighth off.
_WORTHWHILE = 7 / 8
# A dictionary of `n` bytes has to take this many times as much off what is held; more as the budget is used up.
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


class PackingCounts(msgspec.Struct, frozen=True):
    """What `Packing` did since it was made. Bytes are those of bodies.

    - `plain`, `held`: by type, bytes that came, and what they were held in (frames, or plain where that is as good).
    - `dictionaries`, `dictionary_bytes`: those that exist now, old ones that entries refer to among them.
    - `trainings`: dictionaries that were trained and taken; `refused`: trained and not taken.
    - `packing_seconds`, `training_seconds`: CPU.
    """

    plain: dict[GroupResource, int]
    held: dict[GroupResource, int]
    dictionaries: int
    dictionary_bytes: int
    trainings: int
    refused: int
    packing_seconds: float
    training_seconds: float


class _TypePacking:
    """What is known of a type's bodies.

    `expected`: bytes of frames for each plain byte, as measured at training on samples kept apart; 0: not known yet.
    `recent_plain`, `recent_held`: the same for what came lately. `seen`: bytes that came; `look_at`: at how many a look
    at larger samples is due. `sampling`: set while samples for a candidate are taken, `drifted` says why.
    """

    __slots__ = (
        "dictionary",
        "drifted",
        "expected",
        "held",
        "look_at",
        "patience",
        "plain",
        "quiet_until",
        "recent_held",
        "recent_plain",
        "sampling",
        "trying",
    )

    def __init__(self) -> None:
        self.dictionary: Dictionary | None = None
        self.expected = 0.0
        self.plain = self.held = 0
        self.recent_plain = self.recent_held = 0
        self.look_at = 0
        self.quiet_until = 0
        self.patience = _PATIENCE
        self.sampling: Sampling | None = None
        self.drifted = False
        self.trying = False

    def count(self, plain: int, held: int) -> None:
        self.plain += plain
        self.held += held
        self.recent_plain += plain
        self.recent_held += held
        if self.recent_plain > 8 * _RECENT:
            self.recent_plain //= 2
            self.recent_held //= 2
        if self.dictionary is not None and not self.expected and self.recent_plain >= _RECENT:
            # One from a snapshot: it is judged by how it does from here on.
            self.expected = self.recent_held / self.recent_plain

    def has_drifted(self) -> bool:
        return (
            self.expected > 0
            and self.recent_plain >= _RECENT
            and self.plain >= self.quiet_until
            and self.recent_held > _CLEARLY_WORSE * self.expected * self.recent_plain
        )


class Packing:
    """Packs bodies of all types. One for a store; safe to be called by several threads.

    A type gets its first dictionary when it has enough bodies for one to pay. It gets another when what comes packs
    clearly worse than the dictionary did when it was trained, and a candidate trained from what comes now packs it
    clearly better, on samples that it was not trained from; the same is tried, with more samples, whenever a type has
    grown fourfold. Nothing is timed: a type whose bodies stay alike keeps its dictionary.

    All dictionaries that exist, old ones that entries still refer to among them, take at most `dictionary_budget`
    bytes: what one must save to be taken grows as that is used up, so those with the largest gain have room. Samples
    are held only while a candidate is due, at most `sample_budget` bytes of all types.

    Example: 1,000 pods of 5 KB: the first 230 come in one batch, and a dictionary of 112 KB at most is trained from
    them; 20 of a custom resource stay without, packed alone; a type of random bytes is left plain.
    """

    def __init__(self, dictionary_budget: int = 32 << 20, sample_budget: int = 16 << 20) -> None:
        self._dictionary_budget: Final = dictionary_budget
        self._sample_budget: Final = sample_budget
        self._lock = threading.Lock()
        self._types: dict[GroupResource, _TypePacking] = {}
        # Those that samples are taken of, in the order in which that began.
        self._samplings: dict[GroupResource, _TypePacking] = {}
        self._known: weakref.WeakSet[Dictionary] = weakref.WeakSet()
        self._trainings = self._refused = 0
        self._packing_seconds = self._training_seconds = 0.0

    def take(
        self,
        batch: Sequence[tuple[GroupResource, bytes]],
        objects: Mapping[GroupResource, int] | None = None,
        *,
        train: bool = True,
    ) -> list[tuple[Dictionary | None, bytes]]:
        """For each body the dictionary and the frame under it, or None and the body itself; in their order.

        `objects` says how many objects of each of these types there are now (without it, all that ever came count).
        With `train` a dictionary may be trained on the way, which takes up to 0.3 s of CPU: not for the event loop.
        Packing itself takes 8 us for 5 KB. O(bytes).
        """
        groups: dict[GroupResource, list[int]] = {}
        for at, (key, _) in enumerate(batch):
            groups.setdefault(key, []).append(at)
        taken: list[tuple[Dictionary | None, bytes] | None] = [None] * len(batch)
        for key, places in groups.items():
            rests = [batch[at][1] for at in places]
            live = None if objects is None else objects.get(key, 0)
            found = self._consider(key, rests, live, train)
            started = time.thread_time()
            plain = held = 0
            for at, rest, frame in zip(places, rests, found.pack_many(rests), strict=True):
                plain += len(rest)
                if len(frame) < _WORTHWHILE * len(rest):
                    taken[at] = (found, frame)
                    held += len(frame)
                else:
                    taken[at] = (None, rest)
                    held += len(rest)
            seconds = time.thread_time() - started
            with self._lock:
                self._packing_seconds += seconds
                state = self._types.setdefault(key, _TypePacking())
                if state.dictionary is found or (state.dictionary is None and found is ALONE):
                    state.count(plain, held)
                else:
                    state.plain += plain
                    state.held += held
        return taken  # type: ignore[return-value]  # each place is in one group

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

    def forget(self, key: GroupResource) -> None:
        """Forgets a type that there is no longer; entries under its dictionary go on having it. O(1)."""
        with self._lock:
            self._types.pop(key, None)
            self._samplings.pop(key, None)

    def counts(self) -> PackingCounts:
        """What was done so far. O(types + dictionaries)."""
        with self._lock:
            known = list(self._known)
            return PackingCounts(
                plain={key: state.plain for key, state in self._types.items()},
                held={key: state.held for key, state in self._types.items()},
                dictionaries=len(known),
                dictionary_bytes=sum(len(dictionary.content) for dictionary in known),
                trainings=self._trainings,
                refused=self._refused,
                packing_seconds=self._packing_seconds,
                training_seconds=self._training_seconds,
            )

    # -- another dictionary ----------------------------------------------------------------------------------------

    def _consider(self, key: GroupResource, rests: list[bytes], live: int | None, train: bool) -> Dictionary:
        """The dictionary for these bodies, after samples were taken of them, and a candidate tried if one is due."""
        with self._lock:
            state = self._types.setdefault(key, _TypePacking())
            # What there is of the type, in bytes: what a dictionary can save on.
            size = sum(map(len, rests))
            seen = state.plain + size
            there = seen if live is None else min(seen, live * size // len(rests))
            self._sample(key, state, rests, seen, there)
            sampling = state.sampling
            due = train and not state.trying and sampling is not None and sampling.enough
            if not due or sampling is None:
                return state.dictionary or ALONE
            state.trying = True
            present, drifted = state.dictionary, state.drifted
        started = time.thread_time()
        trial = None
        try:
            trial = try_dictionary(present or ALONE, sampling, min(there // _PART_OF_ALL, self._left() // 4))
        finally:
            with self._lock:
                self._training_seconds += time.thread_time() - started
                state.trying = False
                state.sampling = None
                self._samplings.pop(key, None)
                self._decide(state, trial, present, drifted, seen, there)
        return state.dictionary or ALONE

    def _sample(self, key: GroupResource, state: _TypePacking, rests: list[bytes], seen: int, there: int) -> None:
        if state.sampling is None:
            if there < LEAST_BYTES:
                return
            if state.dictionary is None:
                if seen < state.look_at:
                    return
                state.sampling, state.drifted = Sampling(seen // 4), False
            elif state.has_drifted():
                state.sampling, state.drifted = Sampling(there // 16), True
            elif seen >= state.look_at:
                state.sampling, state.drifted = Sampling(seen // 8), False
            else:
                return
        room = self._sample_budget - self._sampled()
        if room < sum(map(len, rests)):
            room += self._drop_samples(state)
        state.sampling.offer(rests, room)
        self._samplings[key] = state

    def _sampled(self) -> int:
        return sum(state.sampling.size for state in self._samplings.values() if state.sampling is not None)

    def _drop_samples(self, keep: _TypePacking) -> int:
        """Drops those of the type that has waited longest for enough of them; they begin anew with what comes."""
        for key, state in self._samplings.items():
            if state is not keep and not state.trying and state.sampling is not None:
                size = state.sampling.size
                state.sampling = None
                del self._samplings[key]
                return size
        return 0

    def _decide(
        self,
        state: _TypePacking,
        trial: Trial | None,
        present: Dictionary | None,
        drifted: bool,
        seen: int,
        there: int,
    ) -> None:
        state.look_at = max(state.look_at, _GROWN * seen)
        if state.dictionary is not present:
            return
        if trial is not None and self._is_taken(trial, present, drifted, there):
            state.dictionary = trial.candidate
            state.expected = trial.ratio
            state.recent_plain = state.recent_held = 0
            state.patience = _PATIENCE
            state.quiet_until = seen + max(_RECENT, there // _RENEWED)
            self._known.add(trial.candidate)
            self._trainings += 1
            return
        self._refused += 1
        if drifted and state.recent_plain:
            # What comes is harder than it was, and no dictionary helps: from here on that is what is expected.
            state.expected = max(state.expected, state.recent_held / state.recent_plain)
            state.quiet_until = seen + state.patience
            state.patience = min(2 * state.patience, _MOST_PATIENCE)

    def _left(self) -> int:
        return self._dictionary_budget - sum(len(known.content) for known in list(self._known))

    def _is_taken(self, trial: Trial, present: Dictionary | None, drifted: bool, there: int) -> bool:
        better = _CLEARLY_BETTER if drifted or present is None else _BETTER
        if trial.ratio > better * trial.present_ratio:
            return False
        cost = len(trial.candidate.content)
        left = self._left()
        if cost > left:
            return False
        saved = there * (trial.present_ratio - trial.ratio)
        return saved >= _PAYS * cost * self._dictionary_budget / left
