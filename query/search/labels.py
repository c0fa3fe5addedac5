"""Search labels: requirements of a labelSelector that are options of the search, taken out of it in their order.

Clusterpedia's clients send them since kubectl passes no queries. Values are those of the parameter and no label's: they
may be longer than 63 characters, have colons, and stand between quotes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from query.http.status import ApiError

_DOMAIN = "clusterpedia.io"
PREFIX = "search.clusterpedia.io/"
_STORAGE = "internalstorage.clusterpedia.io/"
# What Clusterpedia's SQL storage calls its own.
_OF_STORAGE = frozenset({"fuzzy-name", "owner-uid", "owner-seniority"})
_KEY = re.compile(rf"\s*(?P<absent>!)?\s*(?P<key>[^=!,()<>\s]*{re.escape(_DOMAIN)}[^=!,()<>\s]*)\s*")
_OPERATOR = re.compile(r"(?P<operator>==|=|!=)\s*|(?P<set>in|notin)\s*\(")
_PLAIN = re.compile(r"[^,()]*")


class SearchLabel(NamedTuple):
    """One option: `name` is what stands behind the domain; `operator`: `in`, `notin`, `exists` or `!`.

    `orderby in (cluster,name_desc)` is `("orderby", "in", ("cluster", "name_desc"))`: values in the order given.
    """

    name: str
    operator: str
    values: tuple[str, ...]

    @property
    def label(self) -> str:
        """The label as a client writes it."""
        return PREFIX + self.name


def split_labels(text: str, known: frozenset[str]) -> tuple[tuple[SearchLabel, ...], str]:
    """The options of a label selector, and the selector without them. `known`: the options' names.

    Example: `app=web,search.clusterpedia.io/limit=2` is the option `limit` and the selector `app=web`.

    Raises:
        ApiError: 400, a label of the domain that is no option, or an option that cannot be read.
    """
    if _DOMAIN not in text:
        return (), text
    if "\0" in text:
        # To Kubernetes' parser, by which is decided who may list, it ends a word: parts would be read otherwise.
        raise ApiError(400, "labelSelector: NUL does not stand beside search labels")
    options, rest, at = [], [], 0
    while at <= len(text):
        found = _KEY.match(text, at)
        if found is None:
            end = _end(text, at)
            rest.append(text[at:end])
        else:
            name = _name(found["key"], known)
            operator, values, end = _condition(text, found, name)
            options.append(SearchLabel(name, operator, values))
        at = end + 1
    return tuple(options), ",".join(rest) if any(one.strip() for one in rest) else ""


def _name(key: str, known: frozenset[str]) -> str:
    for prefix, names in ((PREFIX, known), (_STORAGE, known & _OF_STORAGE)):
        if key.startswith(prefix) and key.removeprefix(prefix) in names:
            return key.removeprefix(prefix)
    raise ApiError(
        400,
        f"labelSelector: {key[:128]!r} is no search label (labels of {_DOMAIN} are never selectors); there are "
        f"{', '.join(sorted(PREFIX + name for name in known))}",
    )


def _end(text: str, at: int) -> int:
    """Where a requirement that is no option ends: at the next comma outside of parentheses."""
    depth = 0
    while at < len(text):
        char = text[at]
        if char == "," and depth <= 0:
            return at
        depth += (char == "(") - (char == ")")
        at += 1
    return at


def _condition(text: str, found: re.Match[str], name: str) -> tuple[str, tuple[str, ...], int]:
    """Operator, values and end of an option."""
    at = found.end()
    if at == len(text) or text[at] == ",":
        return "!" if found["absent"] else "exists", (), at
    if found["absent"]:
        raise _bad(name, "`!` stands before a label alone")
    operator = _OPERATOR.match(text, at)
    if operator is None:
        raise _bad(name, f"{text[at : at + 16]!r} is none of =, ==, !=, in (...), notin (...)")
    if operator["operator"]:
        value, end = _value(text, operator.end(), name, last=True)
        if end < len(text) and text[end] != ",":
            raise _bad(name, f"a comma or the end is expected at {text[end : end + 16]!r}")
        return "notin" if operator["operator"] == "!=" else "in", (value,), end
    values, end = [], operator.end() - 1
    while text[end : end + 1] in ("(", ","):
        value, end = _value(text, end + 1, name, last=False)
        values.append(value)
    if text[end : end + 1] != ")":
        raise _bad(name, "its parenthesis is not closed")
    closed = end + 1 + len(text[end + 1 :]) - len(text[end + 1 :].lstrip())
    if closed < len(text) and text[closed] != ",":
        raise _bad(name, f"a comma or the end is expected at {text[closed : closed + 16]!r}")
    return operator["set"], tuple(dict.fromkeys(values)), closed


def _value(text: str, at: int, name: str, *, last: bool) -> tuple[str, int]:
    """One value, which may stand between quotes, and where it ends. `last`: of `=`, not of a list.

    A quote ends only before what ends the value, so that an expression may have the same quotes within.
    """
    at += len(text[at:]) - len(text[at:].lstrip())
    quote = text[at : at + 1]
    if quote in ("'", '"'):
        closing = re.compile(re.escape(quote) + (r"\s*(?=,|$)" if last else r"\s*(?=[,)])")).search(text, at + 1)
        if closing is None:
            raise _bad(name, f"its quote {quote} is not closed")
        return text[at + 1 : closing.start()], closing.end()
    plain = _PLAIN.match(text, at)
    assert plain is not None
    return plain[0].strip(), plain.end()


def _bad(name: str, why: str) -> ApiError:
    return ApiError(400, f"labelSelector: {PREFIX}{name}: {why}")
