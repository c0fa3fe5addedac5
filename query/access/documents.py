"""Documents that say who may ask and see what: YAML or JSON, read strictly, as kube-apiserver reads its own.

k8s.io/apiserver decodes its configuration files with `strict`: unknown fields, and fields that stand twice, are errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable
from typing import Any, TypeVar

import msgspec
import yaml

from query.access.errors import BadAccessFile

Shape = TypeVar("Shape")
Read = TypeVar("Read")

_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$\.?(.*)`)?$")
_MISSING = re.compile(r"Object missing required field `(.*?)`(?: - at `\$\.?(.*)`)?$")
_WRONG = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?$")


class Strict(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """A part of such a document. Fields are in camel case there."""


class _Loader(yaml.SafeLoader):
    """YAML whose mappings name each key once, and whose dates are the text that stands there, as in JSON."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key_node.value!r} stands twice", key_node.start_mark
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parsed(content: bytes) -> Any:
    """What a YAML or JSON document says. Raises BadAccessFile, without the file's name."""
    # A loader of its own, derived from SafeLoader.
    return _reading(lambda: yaml.load(content, _Loader))


def all_parsed(content: bytes) -> list[Any]:
    """What each document of a YAML stream says. Raises BadAccessFile, without the file's name."""
    return _reading(lambda: list(yaml.load_all(content, _Loader)))


def _reading(read: Callable[[], Read]) -> Read:
    try:
        return read()
    except yaml.MarkedYAMLError as cause:
        # Not the lines that stand there: they may be secret.
        mark = cause.problem_mark
        at = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise BadAccessFile(f"no YAML that can be used: {cause.problem or 'unreadable'}{at}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
        raise BadAccessFile("no YAML in UTF-8") from None


def shaped(document: Any, shape: type[Shape]) -> Shape:
    """A document as a type. Raises BadAccessFile with the path of the field, without the file's name."""
    try:
        return msgspec.convert(document, shape)
    except msgspec.ValidationError as cause:
        raise _said(str(cause)) from None


def decoded(content: bytes, shape: type[Shape], kind: str, versions: Collection[str]) -> Shape:
    """A document of Kubernetes' form, by its `kind` and one of the `versions` of its group, without those two.

    Raises:
        BadAccessFile: with the path of the field, without the file's name.
    """
    document = parsed(content)
    if not isinstance(document, dict):
        raise BadAccessFile(f"write apiVersion: {next(iter(versions))} and kind: {kind}")
    document = dict(document)
    if document.pop("kind", None) != kind:
        raise BadAccessFile(f"write {kind}", "kind")
    if document.pop("apiVersion", None) not in versions:
        raise BadAccessFile(f"write {' or '.join(versions)}", "apiVersion")
    return shaped(document, shape)


def _said(text: str) -> BadAccessFile:
    """msgspec's message as an error of a field."""
    if (found := _UNKNOWN.match(text)) is not None:
        what = f"unknown field {found[1]}"
    elif (found := _MISSING.match(text)) is not None:
        what = f"{found[1]} is needed"
    else:
        found = _WRONG.match(text)
        assert found is not None
        what = found[1]
    return BadAccessFile(what, found[2] or "")
