"""resourceVersions as served: `<prefix>.<index>.<original>` on objects, `<prefix>.<index>` on lists.

The forms are Clusterpedia's (ConvertResourceVersionToMemoryResourceVersion and ...ForList). The prefix names
the history, the index is the position in the log, the original is the member cluster's own version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,64}")
_INDEX_LIMIT = 2**63


class MalformedVersion(Exception):
    """A resourceVersion in none of our forms. A client must start afresh: 410, as only that makes it."""


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
