"""Audit events: what is noted of a request as it comes, begins to be answered, and ends.

k8s.io/apiserver pkg/audit, pkg/endpoints/filters/audit.go and authn_audit.go.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from query.access.audit.log_file import EventLines
from query.access.audit.policy import NOT_NOTED, Level, Noted, Policy, Stage
from query.access.authorization.attributes import Attributes
from query.http.replaced import json_of
from query.http.tls import peer_chain
from query.identity import Identity

HEADER = "Audit-ID"
# Under which a request holds its id, once it was asked for.
_ID = web.RequestKey("AUDIT_ID", str)
_LONGEST_ID, _LONGEST_AGENT = 256, 1024
_CUT = "...TRUNCATED"
_CLUSTER = "kubebraid.io/cluster"


def audit_id(http: web.BaseRequest) -> str:
    """A request's id: the one that it brings along, else a new one; the same each time it is asked for.

    Answers have it in the header of the same name, whether or not anything is noted.
    """
    if (found := http.get(_ID)) is None:
        given = http.headers.get(HEADER, "")
        found = given if 0 < len(given) <= _LONGEST_ID else str(uuid.uuid4())
        http[_ID] = found
    return found


def pass_audit_id(http: web.BaseRequest, headers: MutableMapping[str, str]) -> None:
    """Gives a request that is passed on the id by which it is noted here: so events of both can be put together."""
    if (found := http.get(_ID)) is not None:
        headers[HEADER] = found


class Audit:
    """Notes requests as a policy says; None: it notes nothing."""

    def __init__(self, policy: Policy | None = None, lines: EventLines | None = None) -> None:
        self._policy = policy
        self._lines = lines

    def close(self) -> None:
        """Notes no more."""
        if self._lines is not None:
            self._lines.close()

    def begin(
        self,
        http: web.BaseRequest,
        who: Identity,
        impersonator: Identity | None,
        what: Attributes,
        *,
        cluster: str | None = None,
        lasting: bool = False,
        constraint: str = "",
    ) -> AuditEvent:
        """Notes that a request has come.

        `who`: as authorizers see it; `impersonator`: who was authenticated, where that is another; `constraint`: by
        which verb they could, of a constrained mode. `cluster`: of its path; `lasting`: whether it is a watch or
        another stream, the begin of whose answer is noted, too.
        """
        if self._policy is None or self._lines is None:
            return NO_EVENT
        noted = self._policy.noted(impersonator or who, what)
        if noted.level is Level.NONE:
            return NO_EVENT
        content = _content(http, noted, what, cluster)
        _put_user(content, who, impersonator)
        if constraint:
            content["authenticationMetadata"] = {"impersonationConstraint": constraint}
        event = AuditEvent(content, noted, self._lines, lasting=lasting)
        event.note(Stage.REQUEST_RECEIVED)
        return event

    def unauthenticated(self, http: web.BaseRequest, what: Attributes, *, cluster: str | None = None) -> None:
        """Notes a request that was refused with 401; by what it tried to be known, and not with what."""
        if self._policy is None or self._lines is None:
            return
        noted = self._policy.noted(None, what)
        if noted.level is Level.NONE:
            return
        content = _content(http, noted, what, cluster)
        content["user"] = {}
        event = AuditEvent(content, noted, self._lines, lasting=True)
        event.started(401, _attempted(http))


class AuditEvent:
    """One request that is noted, or is not."""

    __slots__ = ("_content", "_lasting", "_lines", "_noted", "_received")

    def __init__(
        self, content: dict[str, Any], noted: Noted, lines: EventLines | None, *, lasting: bool = False
    ) -> None:
        self._content = content
        self._noted = noted
        self._lines = lines
        self._lasting = lasting

    def annotate(self, key: str, value: str) -> None:
        """Adds an annotation, as of the decision about it; what is there already stays."""
        if self._lines is not None:
            self._content.setdefault("annotations", {}).setdefault(key, value)

    def started(self, code: int, message: str = "") -> None:
        """The head of the answer was sent; noted of what lasts only, whose end may be far."""
        if self._lasting and self._lines is not None:
            self._content["responseStatus"] = _status(code, message, "")
            self.note(Stage.RESPONSE_STARTED)

    def complete(self, code: int, message: str = "", reason: str = "") -> None:
        """The answer was sent. `message`, `reason`: of a Status that says why it failed."""
        if self._lines is not None:
            self._content["responseStatus"] = _status(code, message, reason)
            self.note(Stage.RESPONSE_COMPLETE)

    def panicked(self, message: str) -> None:
        """The service itself failed on it."""
        if self._lines is not None:
            self._content["responseStatus"] = _status(500, message, "InternalError")
            self.note(Stage.PANIC)

    def note(self, stage: Stage) -> None:
        """Writes the event at a stage, unless that is one that is not noted."""
        if self._lines is None or stage in self._noted.omitted:
            return
        content = self._content
        content["stage"] = stage.value
        content["stageTimestamp"] = content["requestReceivedTimestamp"] if stage is Stage.REQUEST_RECEIVED else _now()
        self._lines.write(json_of(content) + b"\n")


NO_EVENT = AuditEvent({}, NOT_NOTED, None)
"""Of a request that is not noted."""


def _content(http: web.BaseRequest, noted: Noted, what: Attributes, cluster: str | None) -> dict[str, Any]:
    """The event so far, its fields in the order of Kubernetes' own."""
    content: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": noted.level.value,
        "auditID": audit_id(http),
        "stage": "",
        "requestURI": http.raw_path,
        "verb": what.verb,
        "user": {},
    }
    content["sourceIPs"] = source_addresses(http)
    if agent := http.headers.get("User-Agent", ""):
        content["userAgent"] = agent if len(agent) <= _LONGEST_AGENT else agent[:_LONGEST_AGENT] + _CUT
    if what.is_resource:
        parts = {
            "resource": what.resource,
            "namespace": what.namespace,
            "name": what.name,
            "apiGroup": what.group,
            "apiVersion": what.version,
            "subresource": what.subresource,
        }
        content["objectRef"] = {key: value for key, value in parts.items() if value}
    content["requestReceivedTimestamp"] = _now()
    content["stageTimestamp"] = ""
    if cluster is not None:
        content["annotations"] = {_CLUSTER: cluster}
    return content


def _put_user(content: dict[str, Any], who: Identity, impersonator: Identity | None) -> None:
    content["user"] = _user(impersonator or who)
    if impersonator is not None:
        content["impersonatedUser"] = _user(who)


def _user(who: Identity) -> dict[str, Any]:
    found: dict[str, Any] = {"username": who.name}
    if who.uid:
        found["uid"] = who.uid
    if who.groups:
        found["groups"] = who.groups
    if who.extra:
        found["extra"] = dict(who.extra)
    return found


def _status(code: int, message: str, reason: str) -> dict[str, Any]:
    status: dict[str, Any] = {"metadata": {}}
    if reason:
        status["status"] = "Failure"
    if message:
        status["message"] = message
    if reason:
        status["reason"] = reason
    status["code"] = code
    return status


def source_addresses(http: web.BaseRequest) -> list[str]:
    """From where a request comes: what proxies say, which anybody may, and at the end who is connected.

    k8s.io/apimachinery pkg/util/net/http.go: SourceIPs.
    """
    proxies = map(_address, http.headers.get("X-Forwarded-For", "").split(","))
    found = [one for one in proxies if one is not None]
    if (address := _address(http.headers.get("X-Real-Ip", ""))) is not None and address not in found:
        found.append(address)
    if (address := _address(http.remote or "")) is not None and found[-1:] != [address]:
        found.append(address)
    return found


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return None


def _attempted(http: web.BaseRequest) -> str:
    """By what a request tried to be known (pkg/endpoints/filters/authn_audit.go: getAuthMethods)."""
    scheme, _, _ = http.headers.get("Authorization", "").strip().partition(" ")
    methods = [scheme.lower()] if scheme.lower() in ("basic", "bearer") else []
    if peer_chain(http.transport):
        methods.append("x509")
    if not methods:
        return "Authentication failed, no credentials provided"
    return f"Authentication failed, attempted: {', '.join(methods)}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
