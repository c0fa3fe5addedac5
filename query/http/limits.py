"""Limits of what is answered at once: requests in flight, and watches, in all and for each user.

k8s.io/apiserver pkg/server/filters/maxinflight.go: what is only read and what changes something count apart; requests
that last, such as watches and exec, count in neither, so that overload ends none of them. What is beyond a limit is
answered with 429 at once; nothing is queued. `system:masters` passes always, so that who is to mend it gets in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from query.http.status import ApiError
from query.identity import Identity

# Verbs that change nothing (maxinflight.go: nonMutatingRequestVerbs).
_READING = frozenset({"get", "list", "watch"})
_RETRY_AFTER = 1


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How many requests are answered at once; 0: any number.

    `reading`, `mutating`: requests that end soon, of all users; `per_user`: of one user, of both kinds. `watches`,
    `watches_per_user`: requests that last. The first two are a kube-apiserver's --max-requests-inflight and
    --max-mutating-requests-inflight. `bytes`, `bytes_per_user`: of lists that are under way to their clients.
    """

    reading: int = 400
    mutating: int = 200
    per_user: int = 0
    watches: int = 0
    watches_per_user: int = 0
    bytes: int = 0
    bytes_per_user: int = 0


class RequestCounts:
    """Counts requests while they are answered, and refuses those that are too many."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._reading = _Count(limits.reading)
        self._mutating = _Count(limits.mutating)
        self._lasting = _Count(limits.watches)
        # By name: another group or uid makes no other user. Only users that have any now.
        self._of_user: dict[str, _Count] = {}
        self._lasting_of_user: dict[str, _Count] = {}
        self._bytes = 0
        self._bytes_of_user: Counter[str] = Counter()

    @contextmanager
    def admit(self, who: Identity, verb: str, long_running: bool) -> Iterator[None]:
        """Counts a request for as long as the block lasts.

        `verb`: as authorizers see it; `long_running`: whether it is a watch, or a stream to a container. Health checks
        are not to be asked about at all.

        Raises:
            ApiError: 429, there are as many as may be.
        """
        if who.masters:
            yield
            return
        users, most = (
            (self._lasting_of_user, self._limits.watches_per_user)
            if long_running
            else (self._of_user, self._limits.per_user)
        )
        of_all = self._lasting if long_running else self._reading if verb in _READING else self._mutating
        own = None
        if most:
            own = users.get(who.name) or _Count(most)
            own.take()
        try:
            of_all.take()
        except ApiError:
            if own is not None:
                own.taken -= 1
            raise
        if own is not None:
            users[who.name] = own
        try:
            yield
        finally:
            of_all.taken -= 1
            if own is not None:
                own.taken -= 1
                if not own.taken:
                    users.pop(who.name, None)

    @contextmanager
    def sending(self, who: Identity, size: int) -> Iterator[None]:
        """Counts the bytes of a list, before compression, while the block sends it.

        A list that is larger than a limit is sent if no other one is under way.

        Raises:
            ApiError: 429, with it there would be more under way than may be.
        """
        limits, of_user = self._limits, self._bytes_of_user
        if who.masters or not (limits.bytes or limits.bytes_per_user):
            yield
            return
        own = of_user[who.name]
        if _too_many(self._bytes, size, limits.bytes) or _too_many(own, size, limits.bytes_per_user):
            raise ApiError(429, "Too many bytes are under way, please try again later.", retry_after=_RETRY_AFTER)
        self._bytes += size
        of_user[who.name] += size
        try:
            yield
        finally:
            self._bytes -= size
            of_user[who.name] -= size
            if not of_user[who.name]:
                del of_user[who.name]

    def counts(self) -> dict[str, int]:
        """How many are being answered, by `reading`, `mutating` and `watches`; for metrics."""
        return {"reading": self._reading.taken, "mutating": self._mutating.taken, "watches": self._lasting.taken}


def _too_many(under_way: int, more: int, most: int) -> bool:
    return bool(most and under_way) and under_way + more > most


class _Count:
    """How many of something there are, and how many there may be (0: any number)."""

    __slots__ = ("most", "taken")

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0

    def take(self) -> None:
        """Raises ApiError 429."""
        if self.most and self.taken >= self.most:
            # The words of a kube-apiserver.
            raise ApiError(429, "Too many requests, please try again later.", retry_after=_RETRY_AFTER)
        self.taken += 1
