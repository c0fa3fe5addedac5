"""Options: the parameters of LIST and WATCH, and the form of answer that a request accepts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from simulation.resources import ResourceType
from simulation.selectors import Selector, parse_selector
from simulation.status import ApiError, bad_request, invalid, invalid_list_options

__all__ = ["ContinueToken", "Form", "ListOptions", "accepted_form", "parse_options"]

MAX_VERSION = 2**64 - 1


class ContinueToken(msgspec.Struct, omit_defaults=True):
    """What a continue token says: list on from `start` as of `rv`; rv -1 means as of now."""

    v: str = ""
    rv: int = 0
    start: str = ""

    def encode(self) -> str:
        """Its opaque form: base64url without padding."""
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).rstrip(b"=").decode()


def decode_continue(text: str) -> ContinueToken:
    """The token of a request. Raises ApiError 400."""
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
    """A LIST or WATCH as asked. `version` None: resourceVersion is unset."""

    namespace: str
    selector: Selector
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
    type: ResourceType,
    namespace: str,
    query: Mapping[str, str],
    *,
    watch: bool,
    initial_events_known: bool = True,
) -> ListOptions:
    """The options of a query string. Raises ApiError 400 or 422 with Kubernetes' texts."""
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    selector = parse_selector(type, namespace, labels, fields)
    text = query.get("resourceVersion", "")
    match = query.get("resourceVersionMatch", "")
    initial = _boolean(query, "sendInitialEvents") if query.get("sendInitialEvents") else None
    token = query.get("continue", "")
    if watch and not initial_events_known:
        # A server that does not know the parameter ignores it, and the match that comes with it.
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
    """A boolean as Kubernetes reads it from a query: everything but "false" and "0" is true, if it is there."""
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


def _version(type: ResourceType, text: str, *, watch: bool) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= MAX_VERSION:
        return int(text)
    message = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
    if watch:
        raise invalid(type.group, type.resource, "", [("FieldValueInvalid", message, "resourceVersion")])
    # A real server answers 500 here, for want of a better mapping; 400 says whose fault it is.
    raise bad_request(f"resourceVersion: {message}")


Form = Literal["json", "table", "metadata", "metadata_list", "discovery"]


def accepted_form(accept: str) -> tuple[Form, str]:
    """The form that an Accept header asks for and its version (`v1`), the first that can be served.

    Raises ApiError 406 where none can.
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
    raise ApiError(
        406,
        "only the following media types are accepted: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf",
    )
