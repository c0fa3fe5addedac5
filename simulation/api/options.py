"""Options: the parameters of LIST and WATCH, and the form of answer that a request accepts."""

from __future__ import annotations

import base64
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from simulation.faults import InitialEvents
from simulation.registry.selectors import ObjectSelector, exact_values, parse_selector
from simulation.resources import SimulatedType
from simulation.status import StatusError, bad_request, invalid_list_options

__all__ = ["AnswerForm", "ContinueToken", "ListOptions", "accepted_form", "parse_options"]

MAX_VERSION = 2**64 - 1
_BASE64 = frozenset(f"{string.ascii_letters}{string.digits}-_")


class ContinueToken(msgspec.Struct, omit_defaults=True):
    """What a continue token says: continue the list at the path `start`, as of the version `rv`; -1 means the present.

    The fields are those of k8s.io/apiserver pkg/storage/continue.go. `start` is a path below that of the request:
    listing the namespace `shop` in pages, `web-0\\u0000` continues behind `web-0`.
    """

    v: str = ""
    rv: int = 0
    start: str = ""

    def encode(self) -> str:
        """The opaque form: base64url of the JSON, without padding."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).rstrip(b"=").decode()


def decode_continue(text: str) -> ContinueToken:
    """The token of a request (`DecodeContinue` of k8s.io/apiserver pkg/storage/continue.go).

    Raises:
        StatusError: 400 if it is none, of what is no JSON not in Go's words.
    """

    def refused(why: str) -> StatusError:
        return bad_request(f"invalid continue token: continue key is not valid{why}")

    foreign = next((at for at, char in enumerate(text) if char not in _BASE64), None)
    if foreign is None and len(text) % 4 == 1:
        foreign = len(text) - 1
    if foreign is not None:
        raise refused(f": illegal base64 data at input byte {foreign}")
    try:
        token = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=ContinueToken)
    except (UnicodeError, msgspec.MsgspecError, RecursionError) as error:
        raise refused(f": {error}") from error
    if token.v != "meta.k8s.io/v1":
        raise refused(f": server does not recognize this encoded version {token.v}")
    if token.rv == 0:
        raise refused(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
    if not token.start:
        raise refused(": encoded start key empty (version meta.k8s.io/v1)")
    parts = token.start.removeprefix("/").split("/")
    if "" in parts or "." in parts or ".." in parts:
        raise refused(f": {token.start}")
    return token


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The options of a LIST or WATCH (meta/v1 ListOptions).

    `narrowed`: there is a label or field selector. `version` is resourceVersion, None if it is unset; `match` is
    resourceVersionMatch, empty if it is unset. `limit` 0 means all. `continued` is the continue token. `bookmarks` is
    allowWatchBookmarks, `initial_events` sendInitialEvents, `timeout` timeoutSeconds.
    """

    namespace: str
    selector: ObjectSelector
    narrowed: bool
    version: int | None
    match: str
    limit: int
    continued: ContinueToken | None
    bookmarks: bool
    initial_events: bool | None
    timeout: int | None


_FORBIDDEN = "FieldValueForbidden"


def parse_options(
    type: SimulatedType,
    namespace: str,
    query: Mapping[str, str],
    *,
    watch: bool,
    name: str = "",
    initial_events: InitialEvents = "supported",
) -> ListOptions:
    """The options of a query. `name`: that of the object that the path of a watch ends with.

    `initial_events`: whether sendInitialEvents is known, and allowed; older servers ignore it. The checks are in the
    order of ListResource in k8s.io/apiserver pkg/endpoints/handlers/get.go.

    Raises:
        StatusError: 400 or 422, with Kubernetes' texts; 500 for a watch from a version that is none.
    """
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    limit, timeout = _integer(query, "limit"), _integer(query, "timeoutSeconds")
    text = query.get("resourceVersion", "")
    match = query.get("resourceVersionMatch", "")
    initial = _boolean(query, "sendInitialEvents") if "sendInitialEvents" in query else None
    token = query.get("continue", "")
    if watch and initial_events == "ignored":
        # A server that does not know the parameter ignores it, and resourceVersionMatch beside it.
        initial, match = None, ""
    elif _boolean(query, "watch") and initial is None and not match and text in ("", "0"):
        # SetListOptionsDefaults, to which a watch by the older path alone is none.
        initial, match = (True, "NotOlderThan") if initial_events == "supported" else (None, "")
    causes = _watch_causes(match, initial, token) if watch else _list_causes(match, initial, token, text)
    if causes:
        raise invalid_list_options(causes)
    if name and not fields.strip():
        fields = f"metadata.name={name}"
    elif name and name not in exact_values(fields, "metadata.name"):
        raise bad_request("fieldSelector metadata.name doesn't match requested name")
    selector = parse_selector(type, namespace, labels, fields)
    continued = decode_continue(token) if token and not watch else None
    if continued is not None and text not in ("", "0"):
        raise bad_request("specifying resource version is not allowed when using continue")
    return ListOptions(
        namespace=namespace,
        selector=selector,
        narrowed=bool(labels.strip() or fields.strip()),
        version=_version(text, watch=watch),
        match=match,
        limit=limit or 0,
        continued=continued,
        bookmarks=_boolean(query, "allowWatchBookmarks"),
        initial_events=initial,
        timeout=timeout,
    )


def _list_causes(match: str, initial: bool | None, token: str, version: str) -> list[tuple[str, str, str]]:
    causes = []
    if match:
        field = "resourceVersionMatch"
        if not version:
            causes.append((_FORBIDDEN, f"Forbidden: {field} is forbidden unless resourceVersion is provided", field))
        if token:
            causes.append((_FORBIDDEN, f"Forbidden: {field} is forbidden when continue is provided", field))
        if match not in ("Exact", "NotOlderThan"):
            message = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan", ""'
            causes.append(("FieldValueNotSupported", message, field))
        if match == "Exact" and version == "0":
            message = f'Forbidden: {field} "exact" is forbidden for resourceVersion "0"'
            causes.append((_FORBIDDEN, message, field))
    if initial is not None:
        causes.append((_FORBIDDEN, "Forbidden: sendInitialEvents is forbidden for list", "sendInitialEvents"))
    return causes


def _watch_causes(match: str, initial: bool | None, token: str) -> list[tuple[str, str, str]]:
    causes = []
    field = "resourceVersionMatch"
    if initial is not None and match != "NotOlderThan":
        message = f"Forbidden: sendInitialEvents requires setting {field} to NotOlderThan"
        causes.append((_FORBIDDEN, message, field))
    if match:
        if initial is None:
            message = f"Forbidden: {field} is forbidden for watch unless sendInitialEvents is provided"
            causes.append((_FORBIDDEN, message, field))
        if match != "NotOlderThan":
            message = f'Unsupported value: "{match}": supported values: "NotOlderThan"'
            causes.append(("FieldValueNotSupported", message, field))
        if token:
            message = f"Forbidden: {field} is forbidden when continue is provided"
            causes.append((_FORBIDDEN, message, field))
    return causes


def _boolean(query: Mapping[str, str], name: str) -> bool:
    # As k8s.io/apimachinery pkg/runtime has it: everything but "false" and "0" is true, the empty text, too.
    if name not in query:
        return False
    return query[name].lower() not in ("false", "0")


def _integer(query: Mapping[str, str], name: str) -> int | None:
    if name not in query:
        return None
    text = query[name]
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdecimal()):
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    digits = digits.lstrip("0") or "0"
    number = int(digits[:20]) * (-1 if text[0] == "-" else 1)
    if len(digits) > 19 or not -(2**63) <= number < 2**63:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": value out of range')
    return number


def _version(text: str, *, watch: bool) -> int | None:
    if not text:
        return None
    decimal = text.isascii() and text.isdecimal()
    digits = text.lstrip("0") or "0"
    if decimal and len(digits) <= 20 and int(digits) <= MAX_VERSION:
        return int(digits)
    why = "value out of range" if decimal else "invalid syntax"
    message = f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": {why}'
    if watch:
        # A real server takes it for a fault of its own (kubernetes/kubernetes issue 139485).
        raise StatusError(500, message, reason="")
    raise bad_request(f"invalid resource version: {message}")


AnswerForm = Literal["json", "table", "metadata", "metadata_list", "discovery"]


def accepted_form(accept: str, *, tables: bool = True) -> tuple[AnswerForm, str]:
    """The first form of an Accept header that can be served, and its version. `tables`: whether a Table can be.

    `application/json;as=Table;v=v1;g=meta.k8s.io,application/json` gives `("table", "v1")`; plain JSON has no version.

    Raises:
        StatusError: 406 if none can be served.
    """
    if not accept.strip():
        return "json", ""
    for clause in accept.split(","):
        media, *pairs = (part.strip() for part in clause.split(";"))
        parameters = dict(pair.partition("=")[::2] for pair in pairs)
        if media not in ("application/json", "application/*", "*/*"):
            continue
        shape = parameters.get("as")
        version = parameters.get("v", "")
        if shape is None:
            return "json", ""
        if media != "application/json":
            continue
        group = parameters.get("g")
        if group == "apidiscovery.k8s.io" and shape == "APIGroupDiscoveryList" and version == "v2":
            return "discovery", version
        if group != "meta.k8s.io" or version not in ("v1", "v1beta1"):
            continue
        if shape == "Table" and tables:
            return "table", version
        if shape == "PartialObjectMetadataList":
            return "metadata_list", version
        if shape == "PartialObjectMetadata":
            return "metadata", version
    raise StatusError(
        406,
        "only the following media types are accepted: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf",
    )
