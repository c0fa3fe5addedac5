"""Options: the query parameters of LIST and WATCH, checked as a kube-apiserver checks its ListOptions.

Contracts: kubernetes.io "Kubernetes API Concepts"; apimachinery pkg/apis/meta/internalversion/validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from query.http.status import ApiError, invalid_options


@dataclass(frozen=True, slots=True)
class Options:
    """Query parameters as given. `version` "" is unset; `limit` 0 is none; times in seconds."""

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


_NO_LIST_OPTIONS, _NO_WATCH_OPTIONS = Options(watch=False), Options(watch=True)
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
    text = query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,30}", text):
        raise ApiError(400, f'{name}: strconv.ParseInt: parsing "{text[:64]}": invalid syntax')
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ApiError(400, f'{name}: strconv.ParseInt: parsing "{text[:64]}": value out of range')
    return number


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
    options = Options(
        watch=watch,
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        version=query.get("resourceVersion", ""),
        match=query.get("resourceVersionMatch", ""),
        limit=max(_number(query, "limit") or 0, 0),
        token=query.get("continue", ""),
        bookmarks=bool(_flag(query, "allowWatchBookmarks")),
        initial_events=_flag(query, "sendInitialEvents"),
        timeout=_number(query, "timeoutSeconds"),
    )
    _check(options)
    return options


def _check(options: Options) -> None:
    errors: list[tuple[str, str]] = []
    match, known = options.match, ("Exact", "NotOlderThan")
    if options.watch:
        if options.initial_events is not None and match != "NotOlderThan":
            errors.append(
                (
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
                    if not match or match in known
                    else "resourceVersionMatch must be NotOlderThan with sendInitialEvents",
                )
            )
        elif options.initial_events is None and match:
            errors.append(
                (
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )
            )
    else:
        if options.initial_events is not None:
            errors.append(("sendInitialEvents", "sendInitialEvents is forbidden for list"))
        if match:
            if not options.version:
                errors.append(
                    ("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided")
                )
            if options.token:
                errors.append(("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"))
            if match not in known:
                supported = 'supported values: "Exact", "NotOlderThan", ""'
                errors.append(("resourceVersionMatch", f'Unsupported value: "{match[:64]}": {supported}'))
            elif match == "Exact" and options.version == "0":
                errors.append(
                    ("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
                )
    if errors:
        raise invalid_options(errors)
    if options.token and options.version not in ("", "0"):
        raise ApiError(400, "specifying resource version is not allowed when using continue")
