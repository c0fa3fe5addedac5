"""Expressions in CEL, as Kubernetes' configuration files have them: checked when they are read, evaluated later.

Evaluated by cel-cpp (`cel_expr_python`), with what it has of k8s.io/apiserver pkg/cel/environment/base.go:
strings, sets, lists, encoders, optionals and comprehensions over two variables; and of Kubernetes' own libraries regex
(`find`, `findAll`), lists (`isSorted`, `sum`, `min`, `max`) and URLs. Not ip, cidr, quantity, format, semver and
`indexOf` of lists: an expression that uses those is refused when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from cel_expr_python import cel

from query.access.errors import AccessError, BadAccessFile

ANY = cel.Type.DYN
BOOL = cel.Type.BOOL
STRING = cel.Type.STRING
STRINGS = cel.Type.List(cel.Type.STRING)

_EXTENSIONS = """
extensions:
- {name: strings}
- {name: sets}
- {name: lists}
- {name: encoders}
- {name: optional}
- {name: two-var-comprehensions}
"""
# Texts that Python's regular expressions, which may take long, are let at.
_LONGEST_SEARCHED = 4096
# Kubernetes' names for keys that are no identifiers (apiserver pkg/cel/escaping.go).
_ESCAPED = re.compile(r"__(?:dot|dash|slash|underscores)__")
_ESCAPES = {"__dot__": ".", "__dash__": "-", "__slash__": "/", "__underscores__": "__"}
_KEYWORD = re.compile(
    r"__(true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|"
    r"namespace|return|var|void|while)__"
)
_TEXT_OR_COMMENT = re.compile(
    r"(?P<text>(?:[rR][bB]?|[bB][rR]?)?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''"
    r"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'))|(?P<comment>//[^\n]*)",
    re.DOTALL,
)
_HAS_ESCAPED = re.compile(r"\bhas\s*\(\s*(?P<of>[\w.\s]+?)\s*\.\s*(?P<field>\w*__\w+__\w*)\s*\)")
_SELECTS_ESCAPED = re.compile(r"\.\s*(?P<field>[A-Za-z_]\w*)\b(?!\s*\()")


class ExpressionFailed(AccessError):
    """An expression has no value for this data: a key is missing, a type does not fit, it takes too long."""


class Expression:
    """An expression that was read: its text, and whether it uses a field."""

    def __init__(self, text: str, compiled: cel.Expression) -> None:
        self.text = text
        self._compiled = compiled

    def evaluate(self, data: Mapping[str, Any]) -> Any:
        """Its value: None, bool, int, float, str, bytes, and lists and dicts of these.

        Raises:
            ExpressionFailed: it has none.
        """
        try:
            value = self._compiled.eval(data=data)
            if value.type() == cel.Type.ERROR or value.type() == cel.Type.UNKNOWN:
                raise ExpressionFailed(f"expression {self.text!r}: {' '.join(str(value.plain_value()).split())[:200]}")
            return value.plain_value()
        except (RuntimeError, TypeError, ValueError) as cause:
            raise ExpressionFailed(f"expression {self.text!r}: {' '.join(str(cause).split())[:200]}") from None

    def selects(self, variable: str, field: str) -> bool:
        """Whether it selects a field of a variable: `variable.field` or `variable.?field`, not `variable["field"]`."""
        found = re.search(rf"(?<![\w.]){variable}\s*\.\s*\??\s*{field}\b(?!\s*\()", _without_texts(self.text))
        return found is not None


class Language:
    """What expressions may say: variables by their names, with their types. A name may have dots: `user.groups`.

    `always`: fields that `has()` is true of, of variables whose fields are variables of their own.
    """

    def __init__(self, variables: Mapping[str, cel.Type], *, always: Sequence[str] = ()) -> None:
        self._environment = cel.NewEnv(
            config=cel.NewEnvConfigFromYaml(_EXTENSIONS),
            variables=dict(variables),
            functions=list(functions().values()),
        )
        self._always = re.compile(rf"\bhas\s*\(\s*(?:{'|'.join(map(re.escape, always))})\s*\)") if always else None

    def read(self, text: str, result: cel.Type | None = None) -> Expression:
        """An expression whose value has a type, if one is given.

        Raises:
            BadAccessFile: it is none; without the file's name and the field's path.
        """
        source = _unescaped(text)
        if self._always is not None:
            source = _outside_texts(source, lambda code: self._always.sub("true", code))  # type: ignore[union-attr]
        try:
            compiled = self._environment.compile(source)
        except RuntimeError as cause:
            said = str(cause).partition("ERROR: ")[2] or str(cause)
            raise BadAccessFile(f"{text!r} is no expression: {said.splitlines()[0][:200]}") from None
        if result is not None and compiled.return_type() != result:
            raise BadAccessFile(f"{text!r} must evaluate to {result.name().lower()}")
        return Expression(text, compiled)


def _outside_texts(source: str, change: Callable[[str], str]) -> str:
    """The source with its code changed, and its literals as they are; without comments."""
    parts, end = [], 0
    for found in _TEXT_OR_COMMENT.finditer(source):
        parts += [change(source[end : found.start()]), found["text"] or " "]
        end = found.end()
    return "".join((*parts, change(source[end:])))


def _without_texts(source: str) -> str:
    return _TEXT_OR_COMMENT.sub(lambda found: '""' if found["text"] else " ", source)


def _unescaped(source: str) -> str:
    """The source with selections of escaped names as look-ups: `claims.a__dot__b` as `claims["a.b"]`."""
    if "__" not in source:
        return source

    def has(found: re.Match[str]) -> str:
        name = _plain(found["field"])
        return found[0] if name == found["field"] else f'("{name}" in {found["of"]})'

    def select(found: re.Match[str]) -> str:
        name = _plain(found["field"])
        return found[0] if name == found["field"] else f'["{name}"]'

    return _outside_texts(source, lambda code: _SELECTS_ESCAPED.sub(select, _HAS_ESCAPED.sub(has, code)))


def _plain(name: str) -> str:
    keyword = _KEYWORD.fullmatch(name)
    return keyword[1] if keyword else _ESCAPED.sub(lambda found: _ESCAPES[found[0]], name)


# -- Kubernetes' libraries: apiserver pkg/cel/library --------------------------------------------------------------


def functions() -> dict[str, cel.FunctionDecl]:
    """The functions of Kubernetes' libraries that cel-cpp does not have, by their names."""
    numbers = cel.Type.List(ANY)
    text, strings = STRING, STRINGS
    # A URL is a map of its parts.
    url = cel.Type.Map(STRING, ANY)

    def member(name: str, *overloads: tuple[Sequence[cel.Type], cel.Type, Callable[..., Any]]) -> cel.FunctionDecl:
        declared = [
            cel.Overload(f"{name}_{number}", return_type=result, parameters=taken, is_member=True, impl=work)
            for number, (taken, result, work) in enumerate(overloads)
        ]
        return cel.FunctionDecl(name, declared)

    def plain(name: str, work: Callable[[str], Any], result: cel.Type) -> cel.FunctionDecl:
        overload = cel.Overload(f"{name}_of", return_type=result, parameters=[text], is_member=False, impl=work)
        return cel.FunctionDecl(name, [overload])

    found = [
        member("find", ([text, text], text, _find)),
        member("findAll", ([text, text], strings, _find_all), ([text, text, cel.Type.INT], strings, _find_all)),
        member("isSorted", ([numbers], BOOL, _is_sorted)),
        member("sum", ([numbers], ANY, _sum)),
        member("min", ([numbers], ANY, _least)),
        member("max", ([numbers], ANY, _greatest)),
        plain("isURL", _is_url, BOOL),
        plain("url", _url, url),
        *(member(name, ([url], text, _part(name))) for name in _PARTS),
        member("getQuery", ([url], cel.Type.Map(text, strings), _query)),
    ]
    named = ("find", "findAll", "isSorted", "sum", "min", "max", "isURL", "url", *_PARTS, "getQuery")
    return dict(zip(named, found, strict=True))


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, _searched(text))
    return found[0] if found else ""


def _find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    found = [one[0] for one in re.finditer(pattern, _searched(text))]
    return found if most < 0 else found[:most]


def _searched(text: str) -> str:
    if len(text) > _LONGEST_SEARCHED:
        raise ValueError(f"a text of more than {_LONGEST_SEARCHED} characters is not searched")
    return text


def _is_sorted(values: list[Any]) -> bool:
    return all(one <= another for one, another in pairwise(values))


def _sum(values: list[Any]) -> Any:
    return sum(values) if values else 0


def _least(values: list[Any]) -> Any:
    return min(values)


def _greatest(values: list[Any]) -> Any:
    return max(values)


def _parsed(text: str) -> SplitResult:
    """An absolute URL, or a path from a root (Go's url.ParseRequestURI). Raises ValueError."""
    found = urlsplit(text)
    if not (found.scheme and (found.netloc or found.path.startswith("/"))) and not (
        not found.scheme and not found.netloc and text.startswith("/")
    ):
        raise ValueError("URL parse error")
    _ = found.port
    return found


def _is_url(text: str) -> bool:
    try:
        _parsed(text)
    except ValueError:
        return False
    return True


def _url(text: str) -> dict[str, Any]:
    found = _parsed(text)
    host = found.netloc.rpartition("@")[2]
    return {
        "getScheme": found.scheme,
        "getHost": host,
        "getHostname": found.hostname or "",
        "getPort": "" if found.port is None else str(found.port),
        "getEscapedPath": found.path,
        "query": parse_qs(found.query, keep_blank_values=True),
    }


_PARTS = ("getScheme", "getHost", "getHostname", "getPort", "getEscapedPath")


def _part(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda url: url[name]


def _query(url: dict[str, Any]) -> Any:
    return url["query"]
