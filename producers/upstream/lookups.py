"""Addresses of names, looked up by a bounded number of threads of their own beside the event loop.

libcurl would start threads for each lookup, and wait for them on the event loop where a connection is closed before its
server's address is known. Here who waits may go, a name is looked up once for all that ask for it, and neither names
that take long nor a cluster that asks for many keep others from being found.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

# Threads at once, and how many of them for names whose last lookup took long: some are always left for others.
_AT_ONCE = 64
_LONG_AT_ONCE = 32
# Of those, how many for one cluster, whose kubeconfig may name another server every second.
_EACH = 4
# Seconds from which on a lookup took long; names of which that is kept in mind.
_LONG = 1.0
_REMEMBERED = 10_000
# Seconds for which addresses count, as libcurl keeps them.
_KEPT = 60.0

Found = tuple[str, ...]
"""Addresses in the order in which they are to be tried; empty: the name has none."""


class Lookups:
    """Lookups of one event loop. `ask`: finds a name's addresses, in a thread; raises OSError.

    `at_once`: threads in all; `long_at_once`: those for names whose last lookup took `long` seconds; `each`: those for
    names that one cluster asks for. A name that several ask for counts for the first one that has room.
    """

    def __init__(
        self,
        ask: Callable[[str], Found] | None = None,
        *,
        at_once: int = _AT_ONCE,
        long_at_once: int = _LONG_AT_ONCE,
        long: float = _LONG,
        each: int = _EACH,
    ) -> None:
        self._ask = ask if ask is not None else _addresses
        self._at_once = at_once
        self._long_at_once = long_at_once
        self._long = long
        self._each = each
        self._loop = asyncio.get_running_loop()
        # Names that are being looked up, or wait for it, with which clusters ask for each, and how often.
        self._asked: dict[str, asyncio.Future[Found]] = {}
        self._asking: dict[str, dict[str, int]] = {}
        # A name may stand in these more than once, and after its lookup has begun or nobody asks for it any longer.
        self._waiting: deque[str] = deque()
        self._waiting_long: deque[str] = deque()
        # Names that wait until the clusters that ask for them have room, by each of those.
        self._held_back: dict[str, dict[str, None]] = {}
        self._running = self._running_long = 0
        # Whose lookup is running, by name; how many of each cluster are.
        self._running_for: dict[str, str] = {}
        self._running_of: dict[str, int] = {}
        # Names whose last lookup took long; in the order in which that was seen.
        self._took_long: dict[str, None] = {}
        self._kept: dict[str, tuple[float, Found]] = {}

    async def addresses(self, name: str, cluster: str) -> Found:
        """The addresses of a name now, or as they were within the last minute. Waits as long as it takes."""
        kept = self._kept.get(name)
        if kept is not None and self._loop.time() - kept[0] < _KEPT:
            return kept[1]
        asking = self._asking.setdefault(name, {})
        future = self._asked.get(name)
        if future is None:
            future = self._asked[name] = self._loop.create_future()
            self._wait(name)
        elif cluster not in asking and name not in self._running_for:
            # It may be held back for others.
            self._wait(name)
        asking[cluster] = asking.get(cluster, 0) + 1
        self._begin_next()
        try:
            return await asyncio.shield(future)
        finally:
            asking[cluster] -= 1
            if not asking[cluster]:
                del asking[cluster]
            if not asking and self._asking.get(name) is asking:
                del self._asking[name]

    def forget(self, name: str) -> None:
        """Its addresses lead nowhere: the next who asks looks it up again."""
        self._kept.pop(name, None)

    def _begin_next(self) -> None:
        while self._running < self._at_once:
            if self._waiting:
                name, long = self._waiting.popleft(), False
            elif self._waiting_long and self._running_long < self._long_at_once:
                name, long = self._waiting_long.popleft(), True
            else:
                return
            if name in self._running_for or name not in self._asked:
                continue
            asking = self._asking.get(name)
            if not asking:
                # Who asked has gone.
                del self._asked[name]
                continue
            cluster = next((one for one in asking if self._running_of.get(one, 0) < self._each), None)
            if cluster is None:
                for one in asking:
                    self._held_back.setdefault(one, {})[name] = None
                continue
            self._running += 1
            self._running_long += long
            self._running_for[name] = cluster
            self._running_of[cluster] = self._running_of.get(cluster, 0) + 1
            # As a daemon: a lookup that hangs keeps no process from ending.
            threading.Thread(
                target=self._look_up, args=(name, long), name=f"lookup of {name}"[:60], daemon=True
            ).start()
            self._loop.call_later(self._long, self._look_at, name, self._asked[name])

    def _leave(self, name: str) -> None:
        """A lookup has ended: what its cluster asks for besides may have its turn."""
        cluster = self._running_for.pop(name)
        self._running_of[cluster] -= 1
        if not self._running_of[cluster]:
            del self._running_of[cluster]
        for one in self._held_back.pop(cluster, ()):
            self._wait(one)

    def _wait(self, name: str) -> None:
        (self._waiting_long if name in self._took_long else self._waiting).append(name)

    def _look_at(self, name: str, future: asyncio.Future[Found]) -> None:
        if self._asked.get(name) is future:
            self._took_long.pop(name, None)
            self._took_long[name] = None
            if len(self._took_long) > _REMEMBERED:
                del self._took_long[next(iter(self._took_long))]

    def _look_up(self, name: str, long: bool) -> None:
        began = self._loop.time()
        try:
            found = self._ask(name)
        except (OSError, ValueError):
            found = ()
        took = self._loop.time() - began
        with contextlib.suppress(RuntimeError):
            # The loop may be closed by now.
            self._loop.call_soon_threadsafe(self._end, name, long, found, took)

    def _end(self, name: str, long: bool, found: Found, took: float) -> None:
        self._running -= 1
        self._running_long -= long
        if took < self._long:
            self._took_long.pop(name, None)
        if found:
            now = self._loop.time()
            if len(self._kept) > _REMEMBERED:
                self._kept = {one: kept for one, kept in self._kept.items() if now - kept[0] < _KEPT}
            self._kept[name] = (now, found)
        future = self._asked.pop(name)
        if not future.done():
            future.set_result(found)
        self._leave(name)
        self._begin_next()


def _addresses(name: str) -> Found:
    # As bytes: Python's own rules for names in other scripts would refuse some that resolvers take.
    found = socket.getaddrinfo(name.encode(), None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def needs_lookup(host: str) -> bool:
    """Whether a host is a name that is not this machine's own: libcurl knows `localhost` and names below it."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


_lookups: WeakKeyDictionary[asyncio.AbstractEventLoop, Lookups] = WeakKeyDictionary()


def lookups_of_process() -> Lookups:
    """The lookups of all connections that the running event loop makes."""
    loop = asyncio.get_running_loop()
    found = _lookups.get(loop)
    if found is None:
        found = _lookups[loop] = Lookups()
    return found
