"""Search: what a request asks for beyond Kubernetes' own selectors, in Clusterpedia's query parameters.

`clusters`, `namespaces`, `names` (comma lists), `since` and `before` (creation), `ownerUID` and `ownerSeniority`. What
the path says overrides them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from query.http.status import ApiError

# Hops are few in reality; each costs a look at what the hop before found.
_SENIORITY = 10


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for; None: all.

    `since` (at or after) and `before` are of the creation, in seconds since 1970. `owner`: uid of a controller;
    `seniority`: how many hops below it the objects' own controllers are, 0 for its own dependents.
    """

    clusters: frozenset[str] | None = None
    namespaces: frozenset[str] | None = None
    names: frozenset[str] | None = None
    since: int | None = None
    before: int | None = None
    owner: str = ""
    seniority: int = 0


_PARAMETERS = frozenset({"clusters", "namespaces", "names", "since", "before", "ownerUID", "ownerSeniority"})
_NOTHING = Search()


def parse_search(query: Mapping[str, str]) -> Search:
    """The search of a request.

    Raises:
        ApiError: 400, a parameter that cannot be read, or one that does not go with another.
    """
    if _PARAMETERS.isdisjoint(query):
        return _NOTHING
    since, before = _time(query, "since"), _time(query, "before")
    if since is not None and before is not None and since > before:
        raise ApiError(400, "since is after before: nothing can have been created then")
    owner, seniority = query.get("ownerUID", ""), query.get("ownerSeniority", "")
    if seniority and not owner:
        raise ApiError(400, "ownerSeniority needs ownerUID")
    if seniority and not (re.fullmatch(r"[0-9]{1,3}", seniority) and int(seniority) <= _SENIORITY):
        raise ApiError(400, f"ownerSeniority: {seniority[:64]!r} is no number from 0 to {_SENIORITY}")
    return Search(
        clusters=_list(query, "clusters"),
        namespaces=_list(query, "namespaces"),
        names=_list(query, "names"),
        since=since,
        before=before,
        owner=owner,
        seniority=int(seniority or "0"),
    )


def _list(query: Mapping[str, str], name: str) -> frozenset[str] | None:
    found = frozenset(one.strip() for one in query.get(name, "").split(",")) - {""}
    return found or None


def _time(query: Mapping[str, str], name: str) -> int | None:
    """RFC 3339, `YYYY-MM-DD HH:MM:SS`, a date (both UTC), or Unix time in seconds (10 digits) or milliseconds (13)."""
    text = query.get(name, "").strip()
    if not text:
        return None
    if re.fullmatch(r"[0-9]{10}", text):
        return int(text)
    if re.fullmatch(r"[0-9]{13}", text):
        # Creation times are whole seconds: at or after 1.5 s is at or after 2 s.
        return -(-int(text) // 1000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ApiError(
            400,
            f"{name}: {text[:64]!r} is no time; write 2026-01-31T12:00:00Z, 2026-01-31 12:00:00, 2026-01-31, "
            "or Unix time in seconds or milliseconds",
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    seconds = found.timestamp()
    return int(seconds) + (seconds != int(seconds))
