"""QueryTiming: how long the query service waits for what, handed in as one value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueryTiming:
    """Times in seconds. The defaults are a kube-apiserver's where it has them.

    - `version_wait`: how long a read waits for an index that is ahead (apiserver storage/cacher: blockTimeout).
    - `watch_length`: bounds of a watch's length when the client names none; `bookmark_every`: between bookmarks;
      `bookmark_before_end`: how long before the end the last one is sent (apiserver pkg/endpoints/handlers/get.go,
      storage/cacher).
    - `watch_grace`: what a client has left to take what was being sent when its watch's time was over.
    - `snapshot_life`: how long the frozen state of a paged list is kept unused; `weigh_every`: between two looks at
      what these cost.
    - `client_patience`: how long a client may take nothing of its answer; `client_look_every`: between two looks.
    - `forward_connect`: how long connecting to a member cluster may take; `forward_readable`: how long an answer is
      held back until what it says can be read here.
    """

    version_wait: float = 3.0
    watch_length: tuple[float, float] = (1800.0, 3600.0)
    bookmark_every: float = 60.0
    bookmark_before_end: float = 2.0
    watch_grace: float = 10.0
    snapshot_life: float = 300.0
    weigh_every: float = 5.0
    client_patience: float = 60.0
    client_look_every: float = 5.0
    forward_connect: float = 10.0
    forward_readable: float = 3.0


DEFAULT_TIMING = QueryTiming()
