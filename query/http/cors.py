"""CORS: pages of other origins that may use the API, as https://fetch.spec.whatwg.org/#http-cors-protocol has it.

k8s.io/apiserver pkg/server/filters/cors.go: patterns of origins, an answer to a preflight before anybody is
authenticated, and credentials allowed, as a page without them would see nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web

from query.errors import UnusableSetting

_METHODS = "POST, GET, OPTIONS, PUT, DELETE, PATCH"
_HEADERS = (
    "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since"
)
# What pages may read of an answer.
_EXPOSED = "Date, Audit-ID, Warning, Retry-After"


class BadOrigin(UnusableSetting):
    """A pattern of origins cannot be used; one line that says why."""


def check_origin(pattern: str) -> re.Pattern[str]:
    r"""The pattern of an `--allow-origin`.

    It has to say where a host begins (`^`, or the `//` behind the scheme) and where it ends (`$`, or the `:` of its
    port), as otherwise `https://console.example` would let in `https://console.example.evil.org` (k8s.io/apiserver
    pkg/server/options/server_run_options.go: validateCorsAllowedOriginList). Example: `//console\.example(:|$)`.

    Raises:
        BadOrigin: it has not, or is no regular expression.
    """
    if not ("^" in pattern or "//" in pattern) or not ("$" in pattern or pattern.endswith(":")):
        raise BadOrigin(r"it says not where a host begins and ends, as ^https://console\.example\.org$ does")
    try:
        return re.compile(pattern)
    except re.error as cause:
        raise BadOrigin(f"it is no regular expression: {cause}") from None


def _pinned(pattern: re.Pattern[str], origin: str) -> bool:
    """Whether a pattern matches from an origin's beginning, or its host's, to its end, or its host's.

    A pattern may have a `^` and a `$` and still not hold both, as `^https://a|b$` does not.
    """
    found = pattern.search(origin)
    if found is None:
        return False
    host = origin.find("://") + 1
    port = re.search(r":\d*$", origin)
    ends = (len(origin), len(origin) if port is None else port.start() + 1)
    return found.start() in (0, host - 1, host) and found.end() in ends


class Cors:
    """Which origins may use the API, and what their pages' browsers are answered.

    Raises:
        BadOrigin: see `check_origin`.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._patterns = tuple(map(check_origin, patterns))

    def allows(self, http: web.BaseRequest) -> bool:
        """Whether a page of an allowed origin sends it."""
        origin = http.headers.get("Origin")
        return origin is not None and any(_pinned(one, origin) for one in self._patterns)

    def preflight(self, http: web.BaseRequest) -> web.Response | None:
        """The answer to a browser that asks whether its page may send a request; None: it is none of an allowed origin.

        No credential comes along with it, so it is answered before authentication.
        """
        if http.method != "OPTIONS" or not self.allows(http):
            return None
        response = web.Response(status=204)
        self.allow(http, response)
        return response

    def allow(self, http: web.BaseRequest, response: web.StreamResponse) -> None:
        """Lets a page of an allowed origin read the answer; to be called before the answer's head is sent."""
        if not self._patterns:
            return
        # A cache between must not give one origin's answer to another.
        if "Origin" not in response.headers.getall("Vary", ()):
            response.headers.add("Vary", "Origin")
        if not self.allows(http):
            return
        response.headers["Access-Control-Allow-Origin"] = http.headers["Origin"]
        response.headers["Access-Control-Allow-Methods"] = _METHODS
        response.headers["Access-Control-Allow-Headers"] = _HEADERS
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        response.headers["Access-Control-Allow-Credentials"] = "true"
