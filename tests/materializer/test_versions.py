"""resourceVersions: formed and parsed, and nothing else taken for one."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalog.wire.kubernetes import MEMBER_VERSION_ANNOTATION
from materializer.entry import entry_of
from materializer.versions import (
    BrokenVersions,
    MalformedVersion,
    Numbered,
    Version,
    check_prefix,
    list_version,
    object_version,
    parse_version,
    parse_versions,
)

PREFIXES = st.text("abcXYZ0189_-", min_size=1, max_size=64)
INDEXES = st.integers(0, 2**63 - 1)


@given(PREFIXES, INDEXES, st.text())
def test_an_objects_version_comes_back(prefix: str, index: int, original: str) -> None:
    assert parse_version(object_version(prefix, index, original)) == Version(prefix, index, original)


@given(PREFIXES, INDEXES)
def test_a_lists_version_comes_back(prefix: str, index: int) -> None:
    assert parse_version(list_version(prefix, index)) == Version(prefix, index, "")


@given(st.text("a.1-_ +٣²", max_size=12) | st.text())
def test_whatever_parses_says_what_was_written(text: str) -> None:
    try:
        version = parse_version(text)
    except MalformedVersion:
        return
    prefix, index, *rest = text.split(".", 2)
    assert version == Version(prefix, int(index), rest[0] if rest else "")
    assert prefix.isascii()
    assert index.isascii()
    assert index.isdigit()


def test_the_documented_forms() -> None:
    assert object_version("3f9a", 12, "4711") == "3f9a.12.4711"
    assert list_version("3f9a", 12) == "3f9a.12"
    assert parse_version("3f9a.12.a.b") == Version("3f9a", 12, "a.b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "12",
        "p",
        ".",
        "..",
        ".1",
        ".1.2",
        "p.",
        "p..1",
        "p.x",
        "p.-1",
        "p.+1",
        "p.1_0",
        "p. 1",
        "p.1 ",
        "p.1e3",
        "p.0x1",
        "p.1\n",
        "p\n.1",
        "p.٣",
        "p.²",
        "p.１",
        "p p.1",
        "ü.1",
        "p/q.1",
        "x" * 65 + ".1",
        f"p.{2**63}",
        f"p.{10**40}",
        "p." + "9" * 10_000,
        '{"alpha":"1"}',
    ],
)
def test_malformed_versions_are_told(text: str) -> None:
    with pytest.raises(MalformedVersion):
        parse_version(text)


def test_a_huge_version_makes_no_huge_message() -> None:
    with pytest.raises(MalformedVersion) as raised:
        parse_version("p." + "9" * 1_000_000)
    assert len(str(raised.value)) < 400


def test_the_largest_index() -> None:
    assert parse_version(f"p.{2**63 - 1}").index == 2**63 - 1


@pytest.mark.parametrize("prefix", ["a", "A-b_9", "x" * 64])
def test_good_prefixes(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["", "a.b", "a b", "a/b", "é", "x" * 65, "a\n"])
def test_bad_prefixes(prefix: str) -> None:
    with pytest.raises(ValueError):
        check_prefix(prefix)


# -- other ways to write them ----------------------------------------------------------------------------------------


def test_the_clusters_own_versions_as_json_and_as_base64() -> None:
    text = '{"alpha":"12","bravo":"0"}'
    wanted = {"alpha": "12", "bravo": ""}
    encoded = base64.b64encode(text.encode()).decode()
    for one in (text, " " + text, encoded, encoded.rstrip("="), base64.urlsafe_b64encode(text.encode()).decode()):
        assert parse_versions(one) == wanted
    for other in ("", "0", "12", "abcd1234.17", "abcd1234.17.5", "YWJj"):
        assert parse_versions(other) is None


@pytest.mark.parametrize("text", ["{", '{"alpha":5}', '{"alpha":"5"', "{]", '{"a":{"b":"c"}}', '{"a":null}'])
def test_broken_json_is_told(text: str) -> None:
    for one in (text, base64.b64encode(text.encode()).decode()):
        with pytest.raises(BrokenVersions):
            parse_versions(one)


@given(st.text() | st.text('{}":,abc0=', max_size=20))
def test_any_text_is_a_map_or_none_or_told(text: str) -> None:
    try:
        found = parse_versions(text)
    except BrokenVersions:
        return
    assert found is None or all(isinstance(one, str) for one in found.values())


def test_versions_as_numbers(delta: Callable[..., Any]) -> None:
    numbered = Numbered("h")
    assert (numbered.of_list(0), numbered.of_list(17), numbered.of_object(17, "5")) == ("1", "17", "17")
    assert numbered.parse("17") == Version("h", 17, "-")
    assert numbered.parse("h.17.5") == Version("h", 17, "5")
    for text in ("0", "017", "-1", "", "9" * 20):
        with pytest.raises(MalformedVersion):
            numbered.parse(text)
    for labels in ({}, {"annotations": "x", 'kubernetes.io/"annotations":{': "y"}):
        entry = entry_of(delta("web", member_version='7"7', labels=labels), 12, 0, "h")
        body = json.loads(entry.type_meta + numbered.content(entry, entry.rest, 15))
        metadata = body["metadata"]
        assert metadata.pop("resourceVersion") == "15"
        assert metadata.pop("annotations") == {MEMBER_VERSION_ANNOTATION: '7"7'}
        own = json.loads(entry.body)
        del own["metadata"]["resourceVersion"]
        assert body == own
