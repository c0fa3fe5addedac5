"""Options: the query parameters of LIST and WATCH, checked as a kube-apiserver checks its ListOptions.

Contracts: kubernetes.io "Kubernetes API Concepts"; apimachinery pkg/apis/meta/internalversion/validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from query.http.status import ApiError, invalid_options
from query.search.terms import is_offset


@dataclass(frozen=True, slots=True)
class Options:
    """Query parameters, with a kube-apiserver's defaults. `version` "" is unset; `limit` 0 is none; times in seconds.

    `token`: that of `continue`; not an offset, which is the search's matter.

    `initial_events`: whether a watch begins with the present state; None of a list, and of a watch past a version.
    """

    watch: bool
    label_selector: str = ""
    field_selector: str = ""
    version: str = ""
    match: str = ""
    limit: int = 0
    token: str = ""
    bookmarks: bool = False
    initial_events: bool | None = None
    timeout: int | None = None


_NO_LIST_OPTIONS = Options(watch=False)
_NO_WATCH_OPTIONS = Options(watch=True, match="NotOlderThan", initial_events=True)
_PARAMETERS = frozenset(
    {
        "labelSelector",
        "fieldSelector",
        "resourceVersion",
        "resourceVersionMatch",
        "limit",
        "continue",
        "allowWatchBookmarks",
        "sendInitialEvents",
        "timeoutSeconds",
    }
)


def _flag(query: Mapping[str, str], name: str) -> bool | None:
    """Absent: None. Only "false" and "0" are false (apimachinery: Convert_Slice_string_To_bool)."""
    if name not in query:
        return None
    return query[name].lower() not in ("false", "0")


def _number(query: Mapping[str, str], name: str) -> int | None:
    """Absent: None. An empty one is none (apimachinery: Convert_Slice_string_To_int64, whose texts these are)."""
    if name not in query:
        return None
    text = query[name]
    if not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
        raise ApiError(400, f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
    # Few digits are sure to be in range; int() of many takes its time.
    if len(text) > _DIGITS or not -(2**63) <= int(text) < 2**63:
        raise ApiError(400, f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    return int(text)


def quoted(text: str) -> str:
    """A text of a client's as an error quotes it (Go's %q), at most 64 characters of it."""
    return msgspec.json.encode(text[:64]).decode()


# So many, with leading zeros, are still a number that is in range.
_DIGITS = 64


def asks_watch(query: Mapping[str, str]) -> bool:
    """Whether the query of a collection's path asks for a WATCH."""
    return bool(_flag(query, "watch"))


def parse_options(query: Mapping[str, str], *, watch: bool) -> Options:
    """The options of a request. `watch`: whether it is a WATCH, by its path or by `asks_watch`.

    Raises:
        ApiError: 400, a value that is none; 422, options that do not go together (ListOptions' validation).
    """
    if _PARAMETERS.isdisjoint(query):
        return _NO_WATCH_OPTIONS if watch else _NO_LIST_OPTIONS
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    initial_events = _flag(query, "sendInitialEvents")
    token = query.get("continue", "")
    if watch and initial_events is None and not match and version in ("", "0"):
        # apimachinery internalversion/defaults.go: SetListOptionsDefaults, since 1.32.
        initial_events, match = True, "NotOlderThan"
    options = Options(
        watch=watch,
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        version=version,
        match=match,
        limit=max(_number(query, "limit") or 0, 0),
        token="" if is_offset(token) else token,
        bookmarks=bool(_flag(query, "allowWatchBookmarks")),
        initial_events=initial_events,
        timeout=_number(query, "timeoutSeconds"),
    )
    _check(options)
    return options


def _check(options: Options) -> None:
    """Errors in the order in which a kube-apiserver finds them. Raises ApiError 422."""
    errors: list[tuple[str, str]] = []
    match, known = options.match, ("Exact", "NotOlderThan")
    if options.watch:
        if options.initial_events is not None and match != "NotOlderThan":
            errors.append(
                ("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
            )
        if match:
            if options.initial_events is None:
                errors.append(
                    (
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    )
                )
            if match != "NotOlderThan":
                errors.append(
                    ("resourceVersionMatch", f'Unsupported value: {quoted(match)}: supported values: "NotOlderThan"')
                )
            if options.token:
                errors.append(("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"))
    else:
        if match:
            if not options.version:
                errors.append(
                    ("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided")
                )
            if options.token:
                errors.append(("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"))
            if match not in known:
                supported = 'supported values: "Exact", "NotOlderThan", ""'
                errors.append(("resourceVersionMatch", f"Unsupported value: {quoted(match)}: {supported}"))
            if match == "Exact" and options.version == "0":
                errors.append(
                    ("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
                )
        if options.initial_events is not None:
            errors.append(("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if errors:
        raise invalid_options(errors)
