"""The entrance: what stands before every request: pages of other origins, who asks, how much at once, what is noted."""

from __future__ import annotations

from dataclasses import dataclass, field

from query.access.audit.events import Audit
from query.access.authorization.attributes import Attributes
from query.access.gate import Gate
from query.http.cors import Cors
from query.http.limits import RequestCounts, RequestLimits
from query.http.passthrough import HeaderNames

# Requests that last (k8s.io/kubernetes pkg/controlplane/apiserver/config.go: longRunningPredicate).
_LASTING_VERBS = frozenset({"proxy", "watch"})
_LASTING_SUBRESOURCES = frozenset({"attach", "exec", "log", "portforward", "proxy"})


@dataclass(frozen=True)
class Entrance:
    """All of it. As it is, everyone may come in, as on loopback. `audit` None: nothing is noted.

    `consumed`: the headers by which a front proxy says who asks, which are not passed on.
    """

    gate: Gate = field(default_factory=Gate)
    cors: Cors = field(default_factory=Cors)
    audit: Audit | None = None
    consumed: HeaderNames = field(default_factory=HeaderNames)
    limits: RequestCounts = field(default_factory=lambda: RequestCounts(RequestLimits(reading=0, mutating=0)))


def lasts(what: Attributes) -> bool:
    """Whether a request is one that lasts, such as a watch or a stream to a container."""
    return what.verb in _LASTING_VERBS or what.subresource in _LASTING_SUBRESOURCES
