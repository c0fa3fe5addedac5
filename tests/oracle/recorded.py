"""What came of one kubeconfig, as servers saw it: requests, their identity and their way; runs of plugins."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

# What says who asks; all else (User-Agent, Accept, ...) may differ.
IDENTITY = ("authorization", "impersonate-")


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A request as a server saw it; ports are named, so that runs compare.

    `headers`: those of identity, names in lower case, in the order of names. `certificate`: the client certificate's
    common name. `way`: the proxy it came through and what that one was asked and shown, empty for none.
    """

    server: str
    method: str
    path: str
    host: str
    headers: tuple[tuple[str, str], ...] = ()
    certificate: str = ""
    server_name: str = ""
    way: str = ""

    def without(self, header: str, value: str) -> Arrival:
        """The same without one header."""
        return replace(self, headers=tuple(one for one in self.headers if one != (header, value)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client made of a kubeconfig: what servers saw of it, and whether it took the answer.

    `plugins`: what plugins were given (arguments, environment, cluster info), each once. `written`: the files that it
    changed, as they are now. `said`: its own words, for people.
    """

    arrivals: tuple[Arrival, ...] = ()
    answered: bool = False
    plugins: tuple[str, ...] = ()
    written: tuple[tuple[str, str], ...] = ()
    said: str = field(default="", compare=False)

    @property
    def refused(self) -> bool:
        """Nothing was asked of an API server, and there was no answer."""
        return not self.answered and not [one for one in self.arrivals if one.server != "idp"]

    def text(self) -> str:
        """For people, a line for each thing."""
        lines = [f"  {one}" for one in (*self.arrivals, *self.plugins, *self.written)]
        return "\n".join(("answered" if self.answered else "no answer", *lines, f"  said: {self.said}"))


class Notes:
    """What the servers of one rig have seen since it was last taken; names for the addresses of the rig."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        # The local port of a proxy's connection to a server, and what was asked of that proxy.
        self.ways: dict[int, str] = {}
        self._names: dict[str, str] = {}

    def name(self, port: int, name: str) -> None:
        """`:port` of what is recorded becomes `:name`."""
        self._names[str(port)] = name

    def named(self, text: str) -> str:
        """The text with names for ports."""
        return re.sub(r":(\d+)", lambda found: f":{self._names.get(found[1], found[1])}", text)

    def take(self) -> tuple[Arrival, ...]:
        """What was seen, each once, in a fixed order; forgotten from now on."""
        found = tuple(sorted(set(self.arrivals)))
        self.arrivals.clear()
        self.ways.clear()
        return found
