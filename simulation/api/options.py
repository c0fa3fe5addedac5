"""Options: the parameters of LIST and WATCH, and the form of answer that a request accepts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from simulation.registry.selectors import ObjectSelector, parse_selector
from simulation.resources import SimulatedType
from simulation.status import StatusError, bad_request, invalid, invalid_list_options

__all__ = ["AnswerForm", "ContinueToken", "ListOptions", "accepted_form", "parse_options"]

MAX_VERSION = 2**64 - 1


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
    """The token of a request.

    Raises:
        StatusError: 400 if it is none.
    """
    try:
        raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        token = msgspec.json.decode(raw, type=ContinueToken)
    except (binascii.Error, UnicodeError, msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    if token.v != "meta.k8s.io/v1" or not token.start or token.rv == 0 or token.rv < -1:
        raise bad_request(f"continue key is not valid: server does not recognize this encoded version {token.v!r}")
    if token.start.startswith("/") or ".." in token.start.split("/"):
        raise bad_request(f"continue key is not valid: {token.start}")
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
    initial_events_known: bool = True,
) -> ListOptions:
    """The options of a query. Without `initial_events_known`, sendInitialEvents is ignored, as by older servers.

    Raises:
        StatusError: 400 or 422, with Kubernetes' texts.
    """
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    selector = parse_selector(type, namespace, labels, fields)
    text = query.get("resourceVersion", "")
    match = query.get("resourceVersionMatch", "")
    initial = _boolean(query, "sendInitialEvents") if query.get("sendInitialEvents") else None
    token = query.get("continue", "")
    if watch and not initial_events_known:
        # A server that does not know the parameter ignores it, and resourceVersionMatch beside it.
        initial, match = None, ""
    causes = _watch_causes(match, initial, token) if watch else _list_causes(match, initial, token, text)
    if causes:
        raise invalid_list_options(causes)
    if token and text not in ("", "0") and not watch:
        raise bad_request("specifying resource version is not allowed when using continue")
    return ListOptions(
        namespace=namespace,
        selector=selector,
        narrowed=bool(labels.strip() or fields.strip()),
        version=_version(type, text, watch=watch),
        match=match,
        limit=_integer(query, "limit") or 0,
        continued=decode_continue(token) if token and not watch else None,
        bookmarks=_boolean(query, "allowWatchBookmarks"),
        initial_events=initial,
        timeout=_integer(query, "timeoutSeconds"),
    )


def _list_causes(match: str, initial: bool | None, token: str, version: str) -> list[tuple[str, str, str]]:
    causes = []
    if initial is not None:
        causes.append((_FORBIDDEN, "Forbidden: sendInitialEvents is forbidden for list", "sendInitialEvents"))
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
    text = query.get(name, "")
    if not text:
        return None
    digits = text[1:] if text[:1] in "+-" else text
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 18:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _version(type: SimulatedType, text: str, *, watch: bool) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= MAX_VERSION:
        return int(text)
    message = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
    if watch:
        raise invalid(type.group, type.resource, "", [("FieldValueInvalid", message, "resourceVersion")])
    # A real server answers 500 here; the request is wrong, so 400.
    raise bad_request(f"resourceVersion: {message}")


AnswerForm = Literal["json", "table", "metadata", "metadata_list", "discovery"]


def accepted_form(accept: str) -> tuple[AnswerForm, str]:
    """The first form of an Accept header that can be served, and its version.

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
        if shape == "Table":
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
