"""Versions: the resourceVersions of requests as they are read, and those of answers as they are written."""

from __future__ import annotations

from collections.abc import Mapping

from materializer.materializer import Materializer
from materializer.resume import Expired, own_version
from materializer.versions import (
    BrokenVersions,
    MalformedVersion,
    Named,
    Numbered,
    Version,
    parse_version,
    parse_versions,
)
from query.http.request import Request
from query.http.status import ApiError, expired


def versions_for(materializer: Materializer, request: Request) -> Named:
    """How an answer writes the versions of the present history: as numbers where the path begins with `/int`."""
    prefix = materializer.store.prefix
    return Numbered(prefix) if request.numbered else Named(prefix)


def check_history(materializer: Materializer, versions: Named) -> None:
    """Refuses to go on with versions of a history that was replaced while a request waited.

    Raises:
        ApiError: 410.
    """
    prefix = materializer.store.prefix
    if versions.prefix != prefix:
        raise expired(f"History {versions.prefix} was replaced by {prefix} meanwhile: list anew")


def version_of(text: str, versions: Named) -> Version:
    """The parsed version, of the history that `versions` name.

    Raises:
        ApiError: 410, it is malformed or of another history. Not 400: only 410 makes a client's reflector list again.
    """
    try:
        return own_version(text, versions)
    except Expired as problem:
        raise expired(str(problem)) from None


def check_foreign(text: str, cluster: str) -> None:
    """Refuses one of our own versions where a cluster answers itself: it would be no version there.

    Raises:
        ApiError: 410, upon which a client lists anew; the cluster's 400 would make it repeat the request for ever.
    """
    try:
        parse_version(text)
    except MalformedVersion:
        return
    raise expired(f"{text[:128]} is no resourceVersion of {cluster}, which answers this itself: list anew")


def seen_versions_of(text: str, request: Request) -> Mapping[str, str] | None:
    """The versions of member clusters, by cluster, if the text has those; None if it is a version of another form.

    Of the clusters of which the request may see something: what is asked of another one is as if there were none.

    Raises:
        ApiError: 400, JSON that is no such mapping.
    """
    try:
        versions = parse_versions(text)
    except BrokenVersions as problem:
        raise ApiError(400, str(problem)) from None
    seen = request.visible.scope[0]
    if versions is None or seen is None:
        return versions
    return {cluster: version for cluster, version in versions.items() if cluster in seen}
