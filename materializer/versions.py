"""resourceVersions as served: `<prefix>.<index>.<original>` on objects, `<prefix>.<index>` on lists.

The forms are Clusterpedia's (ConvertResourceVersionToMemoryResourceVersion and ...ForList). The prefix names
the history, the index is the position in the log, the original is the member cluster's own version. Beside them
stand the index alone, for clients that take versions for numbers, and `{"<cluster>":"<original>"}`, for those that
know only what the clusters said.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from deltalog.wire.kubernetes import MEMBER_VERSION_ANNOTATION
from materializer.entry import Entry

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")
_INDEX_LIMIT = 2**63


class MalformedVersion(Exception):
    """A resourceVersion in none of our forms. A client must start afresh: 410, as only that makes it."""


class BrokenVersions(Exception):
    """What should be a JSON map of the clusters' versions is none: 400, as the client's author must mend it."""


@dataclass(frozen=True, slots=True)
class Version:
    """A parsed version: the history and the position in it; `original` is empty in the list form."""

    prefix: str
    index: int
    original: str


def check_prefix(prefix: str) -> str:
    """The prefix itself. ValueError if it could not be told from the rest of a version or breaks a URL."""
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix {prefix!r}: 1 to 64 letters, digits, `-` and `_`")
    return prefix


def object_version(prefix: str, index: int, original: str) -> str:
    return f"{prefix}.{index}.{original}"


def list_version(prefix: str, index: int) -> str:
    return f"{prefix}.{index}"


@dataclass(frozen=True, slots=True)
class Named:
    """Versions with the history's name in them: they tell a replay from the history that a client knows."""

    prefix: str

    def of_list(self, index: int) -> str:
        return list_version(self.prefix, index)

    def of_object(self, index: int, original: str) -> str:
        return object_version(self.prefix, index, original)

    def body(self, entry: Entry, at: int) -> bytes:
        """An entry's JSON with the version that it has at an index."""
        return entry.body if at == entry.index else entry.as_of(self.prefix, at)

    def parse(self, text: str) -> Version:
        """Raises MalformedVersion."""
        return parse_version(text)


_ANNOTATIONS = b'"annotations":{'


@dataclass(frozen=True, slots=True)
class Numbered(Named):
    """Versions that are numbers: the index alone. The original goes into an annotation; named ones are taken too."""

    def of_list(self, index: int) -> str:
        # "0" has a meaning of its own. The first message of a log changes no object.
        return str(max(index, 1))

    def of_object(self, index: int, original: str) -> str:
        return str(index)

    def body(self, entry: Entry, at: int) -> bytes:
        metadata = entry.body[entry.version_end : entry.metadata_end]
        annotation = b'"%b":%b' % (MEMBER_VERSION_ANNOTATION.encode(), msgspec.json.encode(entry.member_version))
        # Labels are the only other member with keys of anybody's choice, and their values are strings.
        before, found, behind = metadata.partition(_ANNOTATIONS)
        if found:
            metadata = b"%b%b%b%b%b" % (before, found, annotation, b"" if behind.startswith(b"}") else b",", behind)
        else:
            metadata = b"%b{%b},%b" % (_ANNOTATIONS[:-1], annotation, metadata)
        version = b'"resourceVersion":"%d",' % at
        return entry.body[: entry.version_offset] + version + metadata + entry.body[entry.metadata_end :]

    def parse(self, text: str) -> Version:
        if text.isascii() and text.isdigit() and not text.startswith("0"):
            # Nothing tells an object's number from a list's, so it may be an object's.
            return parse_version(f"{self.prefix}.{text}.-")
        return parse_version(text)


def parse_versions(text: str) -> Mapping[str, str] | None:
    """The clusters' own versions in `{"<cluster>":"<original>"}`, or in the base64 of it (Clusterpedia's memory v1).

    None: the text is something else. Raises BrokenVersions.
    """
    if not text.lstrip().startswith("{"):
        padded = text + "=" * (-len(text) % 4)
        try:
            decoded = base64.b64decode(padded, altchars=b"-_" if "-" in text or "_" in text else None, validate=True)
        except (binascii.Error, ValueError):
            return None
        if not decoded.startswith(b"{"):
            return None
        text = decoded.decode(errors="replace")
    try:
        versions = msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as cause:
        raise BrokenVersions(
            f'resourceVersion: {cause}; write {{"<cluster>":"<resourceVersion there>"}}, all of them strings'
        ) from None
    return {cluster: "" if version == "0" else version for cluster, version in versions.items()}


def parse_version(text: str) -> Version:
    """Parses either form; the inverse of `object_version` and `list_version`. Raises MalformedVersion."""
    prefix, dot, rest = text.partition(".")
    index, _, original = rest.partition(".")
    # int() takes signs, spaces, underscores and other scripts' digits; a version has none of them.
    if not dot or not _PREFIX.fullmatch(prefix) or not (index.isascii() and index.isdigit()):
        raise MalformedVersion(f"{text[:128]!r} is not of the form <prefix>.<index> or <prefix>.<index>.<original>")
    if len(index) > 19 or (number := int(index)) >= _INDEX_LIMIT:
        raise MalformedVersion(f"{text[:128]!r}: the index is out of range")
    return Version(prefix, number, original)
