"""Replaced: JSON of texts that clients have sent, whose headers may have bytes that are no UTF-8."""

from __future__ import annotations

import json
import re

import msgspec

# As which such bytes stand in texts (PEP 383).
_BYTES = re.compile("[\ud800-\udfff]")


def is_text(text: str) -> bool:
    """Whether a text has none of these bytes."""
    return text.isascii() or _BYTES.search(text) is None


def json_of(content: object) -> bytes:
    """Compact JSON of builtin types, with U+FFFD instead of each of these bytes, as Go writes them."""
    try:
        return msgspec.json.encode(content)
    except UnicodeEncodeError:
        return _BYTES.sub("\ufffd", json.dumps(content, ensure_ascii=False, separators=(",", ":"))).encode()
