"""YAML read into plain values, typed as kubectl's reader (go.yaml.in/yaml/v2 below sigs.k8s.io/yaml) types them.

Only the first document counts. Keys are texts as in JSON: `y: 1` is {"true": 1}. Values are None, bool, int, float,
str, list and dict; an alias is the very object that its anchor names, so that nothing is expanded here.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml
from yaml import events

from producers.errors import UnusableInput

_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_NUMERIC = frozenset("+-.0123456789")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
# strconv.ParseInt with base 0, of what has lost its underscores.
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|\s+)[0-9]{1,2}:.*)?")
# Which plain values an explicit tag admits.
_ADMITS: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "timestamp": (),
}
# A slash behind an odd number of backslashes: JSON has that escape, go-yaml does not.
_ESCAPED_SLASH = re.compile(r"(?<!\\)(?:\\\\)*\\/")

Value = Any
_MERGE = object()


class BadYaml(UnusableInput):
    """No YAML that go-yaml would take. `problem` says why without anything of what is in the text; `line` from 1."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"line {line}, column {column}: {problem}" if line else problem)
        self.problem, self.line, self.column = problem, line, column


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a text may ask of us. `nodes` counts what aliases stand for each time."""

    depth: int = 1_000
    nodes: int = 0
    size: int = 0


FILE = Bounds()
"""libyaml's own; go-yaml takes 10,000 levels."""
FOREIGN = Bounds(depth=100, nodes=20_000, size=2 * 1024 * 1024)
"""For texts whose writer is to gain nothing here: at most 0.2 s, and a kubeconfig of 500 clusters is below that."""


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come. `start`: how many nodes there were at its beginning."""

    value: list[Value] | dict[str, Value]
    anchor: str | None
    start: int
    key: object = None
    has_key: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    """What an anchor names; `weight`: how many nodes it stands for."""

    value: Value
    weight: int


def parse(text: bytes, bounds: Bounds = FILE) -> Value:
    """The first document of a text in UTF-8 or, with a byte order mark, UTF-16; None if there is none.

    Blocking, about 10 MB/s. Raises BadYaml.
    """
    if bounds.size and len(text) > bounds.size:
        raise BadYaml(f"{len(text)} bytes; {bounds.size} are allowed")
    try:
        return _Reader(text, bounds).document()
    except yaml.MarkedYAMLError as cause:
        mark = cause.problem_mark or cause.context_mark
        where = (0, 0) if mark is None else (mark.line + 1, mark.column + 1)
        # libyaml's own words, none of which are of the text.
        raise BadYaml(str(cause.problem or cause.context or "no YAML"), *where) from None
    except yaml.reader.ReaderError as cause:
        raise BadYaml(f"no text that YAML allows: {cause.reason}") from None
    except UnicodeDecodeError:
        raise BadYaml("no text that YAML allows") from None


class _Reader:
    """One document, from libyaml's events: no recursion, so that depth costs no stack."""

    def __init__(self, text: bytes, bounds: Bounds) -> None:
        self._parser = yaml.CSafeLoader(text)
        self._bounds = bounds
        self._text = text
        self._slashes = b"/" in text and (b"\\/" in text or text[:2] in (b"\xff\xfe", b"\xfe\xff"))
        self._decoded = ""
        self._known: dict[str, _Known] = {}
        self._nodes = 0
        self._aliased = 0
        self._open: list[_Open] = []
        self._root: Value = None
        self._done = False

    def document(self) -> Value:
        parser = self._parser
        parser.get_event()
        begin = parser.get_event()
        if isinstance(begin, events.StreamEndEvent):
            return None
        if getattr(begin, "version", None) not in (None, (1, 1)):
            _fail("found incompatible YAML document", begin)
        while not self._done:
            event: Any = parser.get_event()
            kind = type(event)
            if kind is events.ScalarEvent:
                self._count(event)
                self._take(event, self._scalar(event), event.anchor, 1)
            elif kind is events.MappingStartEvent or kind is events.SequenceStartEvent:
                self._begin(event, {} if kind is events.MappingStartEvent else [])
            elif kind is events.AliasEvent:
                self._alias(event)
            else:
                self._end(event)
        # What follows is looked at as far as go-yaml does: to the token that ends the document.
        parser.get_event()
        return self._root

    def _count(self, event: Any, weight: int = 1) -> None:
        self._nodes += weight
        if self._bounds.nodes and self._nodes > self._bounds.nodes:
            _fail(f"more than {self._bounds.nodes} values, aliases included", event)

    def _begin(self, event: Any, value: list[Value] | dict[str, Value]) -> None:
        self._count(event)
        if len(self._open) >= self._bounds.depth:
            _fail(f"more than {self._bounds.depth} levels", event)
        if self._open and isinstance(self._open[-1].value, dict) and not self._open[-1].has_key:
            _fail("a list or mapping is no key", event)
        self._open.append(_Open(value, event.anchor, self._nodes))
        if event.anchor is not None:
            self._known.pop(event.anchor, None)

    def _end(self, event: Any) -> None:
        ended = self._open.pop()
        self._take(event, ended.value, ended.anchor, self._nodes - ended.start + 1)

    def _alias(self, event: Any) -> None:
        known = self._known.get(event.anchor)
        if known is None:
            inside = any(one.anchor == event.anchor for one in self._open)
            _fail("an anchor's value contains itself" if inside else "an alias of an anchor that is not there", event)
        self._count(event, known.weight + 1)
        self._aliased += known.weight
        # go-yaml v2 decode.go: few values may come from aliases where there are many.
        if self._aliased > 100 and self._nodes > 1000 and self._aliased / self._nodes > _ratio(self._nodes):
            _fail("document contains excessive aliasing", event)
        self._take(event, known.value, None, known.weight)

    def _take(self, event: Any, value: Value, anchor: str | None, weight: int) -> None:
        """A value is complete: it goes where the innermost open one wants it."""
        if anchor is not None:
            self._known[anchor] = _Known(value, weight)
        if not self._open:
            self._root, self._done = None if value is _MERGE else value, True
            return
        within = self._open[-1]
        if isinstance(within.value, list):
            within.value.append("<<" if value is _MERGE else value)
        elif not within.has_key:
            within.key, within.has_key = (value if value is _MERGE else _key(value, event)), True
        else:
            within.has_key = False
            if within.key is _MERGE:
                _merge(within.value, value, event)
            else:
                assert isinstance(within.key, str)
                within.value[within.key] = "<<" if value is _MERGE else value

    def _scalar(self, event: Any) -> Value:
        text, tag = event.value, event.tag
        plain = event.implicit[0]
        if event.style == '"' and self._slashes:
            self._refuse_slash(event)
        if text == "<<" and ((plain and tag is None) or tag == f"{_TAG}merge"):
            return _MERGE
        if tag is None:
            return resolve(text, event) if plain else text
        short = tag.removeprefix(_TAG)
        if short == tag or short == "str" or (short not in _ADMITS and short != "binary"):
            return text
        if short == "binary":
            try:
                return decode_base64(text).decode(errors="replace")
            except ValueError:
                _fail("!!binary value contains invalid base64 data", event)
        if short == "timestamp" and _DATE.fullmatch(text):
            return text
        found = resolve(text, event, dates=False)
        if isinstance(found, bool) != (short == "bool") or not isinstance(found, _ADMITS[short]):
            _fail(f"the value is no !!{short}", event)
        return float(found) if short == "float" and isinstance(found, int) else found

    def _refuse_slash(self, event: Any) -> None:
        if not self._decoded:
            text = self._text
            utf16 = text[:2] in (b"\xff\xfe", b"\xfe\xff")
            self._decoded = text.decode("utf-16" if utf16 else "utf-8-sig")
        # Marks count characters.
        if _ESCAPED_SLASH.search(self._decoded, event.start_mark.index, event.end_mark.index):
            _fail("found unknown escape character", event)


def _ratio(nodes: int) -> float:
    if nodes <= 400_000:
        return 0.99
    if nodes >= 4_000_000:
        return 0.10
    return 0.99 - 0.89 * (nodes - 400_000) / 3_600_000


def _fail(problem: str, event: Any) -> NoReturn:
    raise BadYaml(problem, event.start_mark.line + 1, event.start_mark.column + 1)


def _merge(into: dict[str, Value], value: Value, event: Any) -> None:
    """`<<`: what it names overrides what stands before it, and of several the first counts."""
    sources = value if isinstance(value, list) else [value]
    for source in reversed(sources):
        if not isinstance(source, dict):
            _fail("map merge requires map or sequence of maps as the value", event)
        into.update(source)


def _key(value: Value, event: Any) -> str:
    """A key as sigs.k8s.io/yaml writes it into JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, float):
        # 'g' with the digits of a float32.
        return f"{value:.9g}"
    _fail("a key that is neither text nor number", event)


def resolve(text: str, event: Any = None, *, dates: bool = True) -> bool | int | float | str | None:
    """A plain scalar as go-yaml v2 types it. Raises BadYaml for what JSON cannot say: infinity, and what is no number.

    Example: `yes` is True, `0x1f` 31, `08` and `1e3` numbers, `1:20`, `2026-01-02` and `=` texts.
    """
    if text in _WORDS:
        word = _WORDS[text]
        if isinstance(word, float):
            raise BadYaml(
                "infinity, or what is no number",
                *(() if event is None else (event.start_mark.line + 1, event.start_mark.column + 1)),
            )
        return word
    if text[0] not in _NUMERIC:
        return text
    if text[0] == ".":
        return float(text) if _FLOAT.fullmatch(text) else text
    if dates and _DATE.fullmatch(text):
        return text
    plain = text.replace("_", "")
    if match := _INTEGER.fullmatch(plain):
        sign, hexadecimal, binary, octal, decimal = match.groups()
        digits, base = next(
            (found, base)
            for found, base in ((hexadecimal, 16), (binary, 2), (octal, 8), (decimal, 10))
            if found is not None
        )
        # Longer ones are no integers of 64 bits; Python would refuse some.
        if len(digits) <= 64:
            number = int(digits, base) * (-1 if sign == "-" else 1)
            if -(2**63) <= number < (2**64 if not sign else 2**63):
                return number
    if _FLOAT.fullmatch(plain):
        number_ = float(plain)
        return text if math.isinf(number_) else number_
    return text


def decode_base64(text: str) -> bytes:
    """As Go's encoding/base64 does: standard letters, padded, line breaks anywhere. Raises ValueError."""
    plain = text.replace("\r", "").replace("\n", "")
    try:
        encoded = plain.encode("ascii")
        if len(encoded) % 4:
            raise ValueError("padding is missing")
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("no base64 in its standard form") from None


class _Dumper(yaml.SafeDumper):
    """Quotes each text that go-yaml would take for something else."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        same = resolve(text) == text if text else False
    except BadYaml:
        same = False
    return dumper.represent_scalar(f"{_TAG}str", text, style=None if same else '"')


_Dumper.add_representer(str, _represent)


def dump(value: Value) -> str:
    """YAML that kubectl reads as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)
