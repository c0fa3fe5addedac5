"""Faults: what a test or a demo can make a running cluster do wrong.

Switched on a cluster's `Faults` in the same process, or over HTTP (`POST /_simulation/faults`, see `change`).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple

from simulation.status import StatusError, bad_request

__all__ = ["Faults", "InitialEvents"]

InitialEvents = Literal["supported", "ignored", "refused"]
AwayShown = Literal["empty", "cached", "missing"]

_MESSAGES = {
    429: "the server has received too many requests and has asked us to try again later",
    500: 'an error on the server ("simulated failure") has prevented the request from succeeding',
    503: "the server is currently unable to handle the request",
}


class Failure(NamedTuple):
    """An error that one request will be answered with. `retry_after` is in seconds; 0 sends no Retry-After."""

    code: int
    retry_after: int


class Faults:
    """The faults of one cluster. Used from the loop that serves the cluster.

    - `delay`: seconds before each answer (and before a watch's headers);
    - `skip_bookmarks`: watches send no bookmarks, except the one that ends initial events;
    - `initial_events`: `sendInitialEvents` is supported, ignored (as servers before 1.27 do) or refused with 422;
    - `aggregated_discovery`: if it is off, /api and /apis answer with the older lists;
    - `watch_lifetime`: watches end cleanly after a random time between the two, in seconds; None: as requested;
    - `away_shown`: how aggregated discovery shows versions that are unavailable: stale and empty, stale with their last
      known resources (cached), or not at all (missing), in the older lists neither;
    - `clock`: seconds that the cluster's clock is ahead, in Date headers and in all times that the API sets;
    - `refusing`: the cluster's port is closed.

    `watches` are the connections of the open watches; `flowing` is set unless watches hang.
    """

    def __init__(self, seed: int | str = 0) -> None:
        self.delay = 0.0
        self.skip_bookmarks = False
        self.initial_events: InitialEvents = "supported"
        self.aggregated_discovery = True
        self.watch_lifetime: tuple[float, float] | None = None
        self.refusing = False
        self.failures: deque[Failure] = deque()
        self.forbidden: frozenset[str] = frozenset()
        self.away: frozenset[str] = frozenset()
        self.away_shown: AwayShown = "empty"
        self.clock = 0.0
        self.watches: dict[object, asyncio.Transport] = {}
        self.random = random.Random(seed)
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._gate: Callable[[bool], Awaitable[None]] | None = None
        self._compact: Callable[[], None] | None = None
        self._availability: Callable[[], None] | None = None
        self._reopening: asyncio.Task[None] | None = None

    def attach(
        self,
        gate: Callable[[bool], Awaitable[None]],
        compact: Callable[[], None],
        availability: Callable[[], None],
    ) -> None:
        """Bind to a cluster: `gate(open)` opens and closes its port, `compact` drops its history, `availability` writes
        into the APIServices which are available."""
        self._gate = gate
        self._compact = compact
        self._availability = availability

    # What a test switches

    def fail_next(self, count: int, code: int, *, retry_after: int = 1) -> None:
        """Answer the next `count` requests (watches too, /_simulation not) with an error Status."""
        self.failures.extend([Failure(code, retry_after if code == 429 else 0)] * count)

    def forbid(self, *resources: str) -> None:
        """Answer requests for these resources (plural names) with 403, as RBAC does; without names, allow all."""
        self.forbidden = frozenset(resources)

    def unavailable(self, *names: str) -> None:
        """Let the servers behind these aggregated APIs not answer (503); without names, let all answer.

        A name is that of a group (`metrics.k8s.io`) or of an APIService (`v1beta1.metrics.k8s.io`).
        """
        self.away = frozenset(names)
        if self._availability is not None:
            self._availability()

    def is_away(self, group: str, version: str) -> bool:
        """Whether the server behind an aggregated API does not answer."""
        return group in self.away or f"{version}.{group}" in self.away

    def cut_watches(self) -> int:
        """Abort the connections of all open watches, in the middle of whatever they send. How many there were."""
        cut = list(self.watches.values())
        for transport in cut:
            transport.abort()
        return len(cut)

    def hang_watches(self, hanging: bool = True) -> None:
        """Let watches send nothing and not end, as over a half-open connection; with False they continue."""
        if hanging:
            self.flowing.clear()
        else:
            self.flowing.set()

    @property
    def hanging(self) -> bool:
        """Whether watches hang."""
        return not self.flowing.is_set()

    def compact(self) -> None:
        """Drop the event history: the next watch from an older version gets 410 Expired."""
        if self._compact is not None:
            self._compact()

    async def refuse_connections(self, seconds: float | None = None) -> None:
        """Close the port and abort every connection, for `seconds` or until `accept_connections`."""
        if self._reopening is not None:
            self._reopening.cancel()
            self._reopening = None
        self.refusing = True
        if self._gate is not None:
            await self._gate(False)
        if seconds is not None:
            self._reopening = asyncio.create_task(self._reopen(seconds))

    async def accept_connections(self) -> None:
        """Open the port again, with the same number."""
        if self._gate is not None:
            await self._gate(True)
        self.refusing = False

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._reopening = None
        await self.accept_connections()

    def clear(self) -> None:
        """Switch all faults off, except a closed port: that is for `accept_connections`."""
        self.delay = 0.0
        self.skip_bookmarks = False
        self.initial_events = "supported"
        self.aggregated_discovery = True
        self.watch_lifetime = None
        self.failures.clear()
        self.forbidden = frozenset()
        self.away_shown = "empty"
        self.unavailable()
        self.clock = 0.0
        self.flowing.set()

    # What the server calls

    async def before_answer(self, path: Sequence[str] = ()) -> None:
        """Wait as long as answers are delayed, and refuse the request if a fault says so. `path`: its parts.

        Raises:
            StatusError: 403, 503, or the code that `fail_next` was given.
        """
        if self.delay > 0:
            await asyncio.sleep(self.delay)
        if self.failures:
            failure = self.failures.popleft()
            details = {"retryAfterSeconds": failure.retry_after} if failure.retry_after else None
            message = _MESSAGES.get(failure.code, "simulated failure")
            raise StatusError(failure.code, message, details=details)
        if len(path) > 2 and path[0] == "apis" and self.is_away(path[1], path[2]):
            raise StatusError(503, "error trying to reach service: dial tcp: connect: connection refused")
        if not self.forbidden.isdisjoint(path):
            resource = next(part for part in path if part in self.forbidden)
            raise StatusError(
                403, f'{resource} is forbidden: User "simulated" cannot list or watch resource "{resource}"'
            )

    def lifetime(self) -> float | None:
        """After how many seconds a watch that starts now has to end; None if no fault ends it."""
        return None if self.watch_lifetime is None else self.random.uniform(*self.watch_lifetime)

    # The control endpoint

    def state(self) -> dict[str, Any]:
        """The faults as they are, with the names that `change` takes, and the numbers of failures and watches."""
        return {
            "delay": self.delay,
            "hang_watches": self.hanging,
            "skip_bookmarks": self.skip_bookmarks,
            "initial_events": self.initial_events,
            "aggregated_discovery": self.aggregated_discovery,
            "watch_lifetime": None if self.watch_lifetime is None else list(self.watch_lifetime),
            "forbidden": sorted(self.forbidden),
            "unavailable": sorted(self.away),
            "away_shown": self.away_shown,
            "clock": self.clock,
            "failures_due": len(self.failures),
            "open_watches": len(self.watches),
        }

    async def change(self, wanted: Any) -> dict[str, Any]:
        """Change faults as the body of a POST to /_simulation/faults says; the new state and how many watches were cut.

        Fields, all optional: `clear` (true), `delay` (seconds), `hang_watches`, `skip_bookmarks`,
        `aggregated_discovery` (booleans), `initial_events` (supported, ignored, refused), `watch_lifetime`
        ([least, most] seconds, or null), `fail_next` ({"count", "code", "retry_after"}), `forbidden` (plural names of
        resources), `unavailable` (groups or APIServices), `away_shown` (how discovery shows those: empty, cached,
        missing), `clock` (seconds that it is ahead), `cut_watches` (true), `compact` (true), `refuse_seconds` (seconds;
        the port is closed after the answer). `{"delay": 0.2, "fail_next": {"count": 3, "code": 503}}`, say.

        Raises:
            StatusError: 400 for an unknown field or a value that it cannot have; nothing is changed then.
        """
        if not isinstance(wanted, dict):
            raise bad_request("faults: an object is expected")
        unknown = set(wanted) - _FIELDS
        if unknown:
            raise bad_request(f"faults: unknown field {sorted(unknown)[0]!r}; known: {', '.join(sorted(_FIELDS))}")
        try:
            lifetime = wanted.get("watch_lifetime")
            span = None if lifetime is None else (float(lifetime[0]), float(lifetime[1]))
            delay = float(wanted.get("delay", self.delay))
            failing = wanted.get("fail_next") or {}
            count, code = int(failing.get("count", 1)), int(failing.get("code", 500))
            retry_after = int(failing.get("retry_after", 1))
            refuse = float(wanted.get("refuse_seconds", 0))
            clock = float(wanted.get("clock", self.clock))
            unavailable = [str(one) for one in wanted.get("unavailable", ())]
            forbidden = [str(one) for one in wanted.get("forbidden", ())]
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
            raise bad_request(f"faults: {error}") from error
        initial = wanted.get("initial_events", self.initial_events)
        if initial not in ("supported", "ignored", "refused"):
            raise bad_request("faults: initial_events is supported, ignored or refused")
        shown = wanted.get("away_shown", self.away_shown)
        if shown not in ("empty", "cached", "missing"):
            raise bad_request("faults: away_shown is empty, cached or missing")
        if failing and not (400 <= code <= 599 and 0 <= count <= 100_000):
            raise bad_request("faults: fail_next takes a code of 400 to 599 and a count up to 100000")
        if wanted.get("clear"):
            self.clear()
            initial, delay = wanted.get("initial_events", "supported"), float(wanted.get("delay", 0))
        self.delay = delay
        self.initial_events = initial
        self.skip_bookmarks = bool(wanted.get("skip_bookmarks", self.skip_bookmarks))
        self.aggregated_discovery = bool(wanted.get("aggregated_discovery", self.aggregated_discovery))
        if "watch_lifetime" in wanted:
            self.watch_lifetime = span
        if "clock" in wanted:
            self.clock = clock
        if "away_shown" in wanted:
            self.away_shown = shown
        if "unavailable" in wanted:
            self.unavailable(*unavailable)
        if "forbidden" in wanted:
            self.forbid(*forbidden)
        if "hang_watches" in wanted:
            self.hang_watches(bool(wanted["hang_watches"]))
        if failing:
            self.fail_next(count, code, retry_after=retry_after)
        if wanted.get("compact"):
            self.compact()
        cut = self.cut_watches() if wanted.get("cut_watches") else 0
        if refuse > 0:
            self._reopening = asyncio.create_task(self._refuse_soon(refuse))
        return {**self.state(), "watches_cut": cut}

    async def _refuse_soon(self, seconds: float) -> None:
        # The answer to this request is sent first.
        await asyncio.sleep(0.05)
        self._reopening = None
        await self.refuse_connections(seconds)


_FIELDS = frozenset(
    {
        "aggregated_discovery",
        "away_shown",
        "clear",
        "clock",
        "compact",
        "cut_watches",
        "delay",
        "fail_next",
        "forbidden",
        "hang_watches",
        "initial_events",
        "refuse_seconds",
        "skip_bookmarks",
        "unavailable",
        "watch_lifetime",
    }
)
