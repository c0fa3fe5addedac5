"""Block YAML of what was JSON, so that YAML 1.1, YAML 1.2 and Go's reader (sigs.k8s.io/yaml) take it for the same.

Text is plain only where it is plainly safe, a literal block where it has several simple lines, and else as in JSON:
YAML's double quotes take that, but for some characters. One expression tells each, which makes this ten times as fast
as PyYAML's emitter. Keys are sorted, as a kube-apiserver does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

# Words of ASCII with single blanks or colons in them, that begin like no number and no indicator.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+=,;()*%?~^$|<>!&'\"-]*(?:[ :][A-Za-z0-9_./@+=,;()*%?~^$|<>!&'\"-]+)*")
# Those that some YAML reads as something else than text.
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
# What JSON leaves as it is, and YAML does not: characters that do not print there, and its other ends of lines.
_SPECIAL = re.compile("[\x7f-\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
# What a literal block cannot hold, or loses: those, control characters, blanks at the end of a line, empty last lines.
_UNSTEADY = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]|[ \t](?:\n|\\Z)|\n\n\\Z"
)
# Readers look for the colon behind a key within so many characters (1024), unless a question mark stands before it.
_LONG_KEY = 256
# Text that may come again in other objects, as a name does.
_SHORT = 64

Write = Callable[[str], None]


def block_yaml(content: object) -> bytes:
    """Members of an object, items of an array, each from the beginning of a line; O(size)."""
    written: list[str] = []
    if isinstance(content, dict) and content:
        _object(content, "", "\n", written.append)
    elif isinstance(content, list) and content:
        _array(content, "", "\n", written.append)
    else:
        written.append(_scalar(content, "\n"))
    written.append("\n")
    return "".join(written).encode()


def _object(members: dict[str, Any], begin: str, line: str, write: Write) -> None:
    """`begin`: what the first member stands behind; `line`: a line feed and the indentation of the others."""
    for key in sorted(members):
        value = members[key]
        write(begin)
        write(_key(key) if len(key) <= _SHORT else _long_key(key, line))
        begin = line
        if type(value) is str:
            write(" ")
            write(_text(value, line))
        elif type(value) is dict and value:
            inner = line + "  "
            _object(value, inner, inner, write)
        elif type(value) is list and value:
            _array(value, line, line, write)
        else:
            write(" ")
            write(_scalar(value, line))


def _array(items: list[Any], begin: str, line: str, write: Write) -> None:
    inner = line + "  "
    for item in items:
        write(begin)
        write("- ")
        begin = line
        if type(item) is dict and item:
            _object(item, "", inner, write)
        elif type(item) is list and item:
            _array(item, "", inner, write)
        else:
            write(_scalar(item, line))


def _scalar(value: object, line: str) -> str:
    if isinstance(value, str):
        return _text(value, line)
    if isinstance(value, float):
        # Without a point YAML 1.1 takes 1e+16 for text.
        digits, exponent, power = repr(value).partition("e")
        return digits + (".0" if exponent and "." not in digits else "") + exponent + power
    return msgspec.json.encode(value).decode()


@lru_cache(8192)
def _key(key: str) -> str:
    """A key without lines of its own, as a plain or quoted word, and its colon."""
    return _word(key) + ":"


def _long_key(key: str, line: str) -> str:
    return f"{_word(key)}:" if len(key) <= _LONG_KEY else f"? {_word(key)}{line}:"


def _text(text: str, line: str) -> str:
    if "\n" in text and text[0] not in " \t\n" and _UNSTEADY.search(text) is None:
        header = "|"
        if text.endswith("\n"):
            text = text[:-1]
        else:
            header = "|-"
        inner = line + "  "
        # Empty lines have no indentation.
        return header + "".join([inner + one if one else "\n" for one in text.split("\n")])
    return _word(text)


def _word(text: str) -> str:
    """Text in one line: plain, or in double quotes."""
    if _PLAIN.fullmatch(text) is not None and not (len(text) <= 5 and text.lower() in _WORDS):
        return text
    quoted = msgspec.json.encode(text).decode()
    return _SPECIAL.sub(_escaped, quoted) if not quoted.isascii() or "\x7f" in quoted else quoted


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
