"""One request while it is answered: what was found out about it, and the warnings that go along with its answer."""

from __future__ import annotations

from functools import cached_property
from urllib.parse import quote

import msgspec
from aiohttp import web

from materializer.visible import EVERYTHING, Visible
from query.http.accept import Accept
from query.http.rendering import Rendering, answer, rendering
from query.http.status import ApiError
from query.http.warnings import warning_headers
from query.identity import NOBODY, Identity

_RESOURCES = "/apis/clusterpedia.io/v1beta1/resources"


def client_address(http: web.BaseRequest) -> tuple[str, str]:
    """Scheme and host that a client used, as the first proxy on its way says, if there is one; not to be trusted."""
    scheme, host = (http.headers.get(f"X-Forwarded-{name}", "").partition(",")[0].strip() for name in ("Proto", "Host"))
    return scheme.lower() if scheme.lower() in ("http", "https") else http.scheme, host or http.host


class Request:
    """A request in the scope of one cluster, or of all.

    - `who`: who asks. `visible`: what they may see of each cluster, of a request in the scope of all.
    - `cluster`: the cluster of its path, None for all clusters.
    - `numbered`: whether resourceVersions are written as numbers, as below `/int`.
    - `below_resources`: whether its path is one of Clusterpedia's, see `query.discovery.paths.below_resources`.
    - `collection`: the collection that its path names, "" for the list of them, None: it names something else.
    - `resource`: the group and resource that it names, "" unless that is one that is served. For metrics.
    - `watching`: whether it is a WATCH. What the query says at first; the path decides it once it is known.
    - `warnings`: texts of Warning headers, in the order in which they are sent.
    - `warned_of_age`: whether one of them says how old the state is, which should be said once.
    - `begun`: whether the head of its answer was sent, so that the answer cannot become an error any more.
    - `in_yaml`: whether the answer is in YAML, once that was negotiated.
    """

    def __init__(self, http: web.Request, *, watching: bool = False) -> None:
        self.http = http
        self.method = http.method
        self.who: Identity = NOBODY
        self.visible: Visible = EVERYTHING
        self.cluster: str | None = None
        self.numbered = False
        self.below_resources = False
        self.collection: str | None = None
        self.resource = ""
        self.watching = watching
        self.warnings: list[str] = []
        self.warned_of_age = False
        self.begun = False
        self.in_yaml: bool | None = None

    @property
    def client(self) -> str:
        """Whose lists it reads: the user, or the address of somebody unknown."""
        return self.http.remote or "" if self.who == NOBODY else f"user {self.who.name}"

    @cached_property
    def accept(self) -> Accept:
        """The forms that the client accepts."""
        return Accept.of(self.http.headers)

    def server_below(self, cluster: str) -> str:
        """What `kubectl --server` is given to ask one cluster here, by the address that the client used.

        As proxies and the router say it, X-Forwarded-Host and -Proto; only to be shown.
        """
        below = f"{'/int' if self.numbered else ''}{_RESOURCES if self.below_resources else ''}"
        return f"{'://'.join(client_address(self.http))}{below}/clusters/{quote(cluster, safe='/:@')}"

    def begin(self) -> None:
        """Notes that the head of the answer is being sent."""
        self.begun = True

    def rendering(self) -> Rendering:
        """The text that the answer is to be; of an error before the form was negotiated, what is preferred."""
        in_yaml = self.accept.prefers_yaml() if self.in_yaml is None else self.in_yaml
        return rendering(self.http.headers, self.http.query, in_yaml=in_yaml)

    def warning_headers(self) -> list[tuple[str, str]]:
        """Warning headers of the answer."""
        return warning_headers(self.warnings)

    def answer(self, body: bytes, *, status: int = 200) -> web.Response:
        """The answer with a document, given as compact JSON, and the warnings."""
        return answer(body, self.rendering(), self.warning_headers(), status=status)

    def document(self, content: object) -> web.Response:
        """The answer with a document that is about no cluster's objects, and so without warnings."""
        return answer(msgspec.json.encode(content) + b"\n", self.rendering())

    def failure(self, error: ApiError) -> web.Response:
        """An error as its client gets it: a Status in the form that it accepts, with Retry-After and Allow."""
        response = self.answer(error.body(), status=error.code)
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        if error.code == 405:
            response.headers["Allow"] = "GET"
        return response
