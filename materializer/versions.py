"""resourceVersions as served: `<prefix>.<index>.<member version>` on objects, `<prefix>.<index>` on lists.

The forms are Clusterpedia's (ConvertResourceVersionToMemoryResourceVersion and ...ForList). The prefix names the
history, the index is the sequence in the log, the member version is the object's resourceVersion in its cluster. There
are two more forms: the index alone, for clients that take versions for numbers, and `{"<cluster>":"<member version>"}`,
for clients that have listed the clusters themselves.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from deltalog.wire.kubernetes import MEMBER_VERSION_ANNOTATION
from materializer.entry import METADATA, Entry
from materializer.errors import MaterializerError

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")
_INDEX_LIMIT = 2**63
# So many digits are.
_SURELY_IN_RANGE = 18


class MalformedVersion(MaterializerError):
    """A resourceVersion in none of our forms (410 Expired: nothing else makes a client list again)."""


class BrokenVersions(MaterializerError):
    """A JSON object that is no map of the clusters' versions (400: the client has to be corrected)."""


@dataclass(frozen=True, slots=True)
class Version:
    """A parsed version: the history, the index in it, and the member version, which is "" in the list form.

    `Version("3f9a", 12, "4711")` is that of an object, `3f9a.12.4711`; `Version("3f9a", 12, "")` of a list, `3f9a.12`.
    """

    prefix: str
    index: int
    member_version: str


def check_prefix(prefix: str) -> str:
    """The prefix itself.

    Raises:
        ValueError: it could not be told from the rest of a version, or would have to be escaped in a URL.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix {prefix!r}: 1 to 64 letters, digits, `-` and `_`")
    return prefix


def object_version(prefix: str, index: int, member_version: str) -> str:
    """An object's version: `object_version("3f9a", 12, "4711")` is `3f9a.12.4711`."""
    return f"{prefix}.{index}.{member_version}"


def list_version(prefix: str, index: int) -> str:
    """A list's or bookmark's version: `list_version("3f9a", 12)` is `3f9a.12`."""
    return f"{prefix}.{index}"


@dataclass(frozen=True, slots=True)
class Named:
    """How versions are written and read by default: with the history's prefix, by which a client notices another one.

    Between `parse` and `of_list` an index is an int: LIST and WATCH carry `Version.index`, and never the text.
    """

    prefix: str

    def of_list(self, index: int) -> str:
        """The version of a list or a bookmark. O(1)."""
        return list_version(self.prefix, index)

    def named(self, index: int) -> str:
        """A list's version with the prefix, in whatever form others are written: what continue tokens hold. O(1)."""
        return list_version(self.prefix, index)

    def of_object(self, index: int, member_version: str) -> str:
        """The version of an object. O(1)."""
        return object_version(self.prefix, index, member_version)

    def content(self, entry: Entry, rest: bytes, at: int, member_version: str | None = None) -> bytes:
        """An entry's content, of which `rest` is given, with its version at an index (`ShownChange.at`). O(size).

        `member_version`: of the change that shows it, where that is not the entry's own (`ShownChange`).
        """
        return (entry.opening() if at == entry.index else entry.opening(at, member_version)) + rest

    def parse(self, text: str) -> Version:
        """A version as a client sends it; of which history it is, is for the caller to look at. O(length).

        Raises:
            MalformedVersion: it has none of the forms.
        """
        return parse_version(text)


_ANNOTATIONS = b'"annotations":{'


@dataclass(frozen=True, slots=True)
class Numbered(Named):
    """Versions that are numbers: the index alone. The member version is in an annotation; named ones are read, too."""

    def of_list(self, index: int) -> str:
        """The version of a list or bookmark: `12`."""
        # "0" has a meaning of its own. The first message of a log changes no object.
        return str(max(index, 1))

    def of_object(self, index: int, member_version: str) -> str:
        """The version of an object: `12`, whatever it has in its cluster."""
        return str(index)

    def content(self, entry: Entry, rest: bytes, at: int, member_version: str | None = None) -> bytes:
        """An entry's content, its version a number, its member version in an annotation. O(size)."""
        behind = entry.behind_metadata
        metadata = rest[:-behind]
        member_version = entry.member_version if member_version is None else member_version
        annotation = b'"%b":%b' % (MEMBER_VERSION_ANNOTATION.encode(), msgspec.json.encode(member_version))
        # Labels are the only other member with keys of anybody's choice, and their values are strings.
        before, found, others = metadata.partition(_ANNOTATIONS)
        if found:
            metadata = b"%b%b%b%b%b" % (before, found, annotation, b"" if others.startswith(b"}") else b",", others)
        else:
            metadata = b"%b{%b},%b" % (_ANNOTATIONS[:-1], annotation, metadata)
        version = b'"resourceVersion":"%d",' % at
        return METADATA + version + metadata + rest[-behind:]

    def parse(self, text: str) -> Version:
        """The parsed version, with this history's prefix if it is a number. O(length).

        Raises:
            MalformedVersion: it has none of the forms.
        """
        if text.isascii() and text.isdigit() and not text.startswith("0"):
            # Nothing tells an object's number from a list's, so it may be an object's.
            if len(text) <= _SURELY_IN_RANGE:
                return Version(self.prefix, int(text), "-")
            return parse_version(f"{self.prefix}.{text}.-")
        return parse_version(text)


def parse_versions(text: str) -> Mapping[str, str] | None:
    """The clusters' own versions in `{"<cluster>":"<member version>"}`, or in the base64 of that.

    The base64 is Clusterpedia's form (memory storage, version 1). None: the text is something else. `"0"` becomes "":
    the client knows nothing of that cluster.

    Raises:
        BrokenVersions: it begins like such a map and is none.
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
    """Parses either form; the inverse of `object_version` and `list_version`. O(length).

    Raises:
        MalformedVersion: it has neither.
    """
    prefix, dot, rest = text.partition(".")
    index, _, member_version = rest.partition(".")
    # int() takes signs, spaces, underscores and other scripts' digits; a version has none of them.
    if not dot or not _PREFIX.fullmatch(prefix) or not (index.isascii() and index.isdigit()):
        raise MalformedVersion(f"{text[:128]!r} is not of the form <prefix>.<index> or <prefix>.<index>.<original>")
    if len(index) > _SURELY_IN_RANGE + 1 or (number := int(index)) >= _INDEX_LIMIT:
        raise MalformedVersion(f"{text[:128]!r}: the index is out of range")
    return Version(prefix, number, member_version)
