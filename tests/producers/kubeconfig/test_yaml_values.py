"""YAML as kubectl's reader types it: go-yaml v2 below sigs.k8s.io/yaml, not as PyYAML does."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

from producers.kubeconfig.yaml_values import FOREIGN, BadYaml, Bounds, decode_base64, dump, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Words and numbers of YAML 1.1, as go-yaml has them.
        ("[y, N, yes, Off, TRUE, tRUE]", [True, False, True, False, True, "tRUE"]),
        ("[~, null, Null, nULL, '']", [None, None, None, "nULL", ""]),
        ("[1:20, 1e3, 08, 0o17, 0b11, 0b12, 017]", ["1:20", 1000.0, 8.0, 15, 3, "0b12", 15]),
        ("[0x1F, 0x_1f, -0x1f, +5, 1_000, 0x]", [31, 31, -31, 5, 1000, "0x"]),
        ("[1., .5, -.5, ., 1e, 1e400, 0.0.1]", [1.0, 0.5, -0.5, ".", "1e", "1e400", "0.0.1"]),
        ("[2020-01-02, 2001-12-14t21:59:43.10-05:00, =]", ["2020-01-02", "2001-12-14t21:59:43.10-05:00", "="]),
        ("[18446744073709551615, 18446744073709551616]", [2**64 - 1, float(2**64)]),
        ("['5', \"5\", !!str 5, !foo 5, ! 5, !!python/object:os.system 5]", ["5"] * 6),
        ("[!!int '5', !!float 1, !!bool yes, !!binary aGk=, !!null '']", [5, 1.0, True, "hi", None]),
        # Keys are JSON's.
        ("{y: 1, 5: 2, 1.5: 3, n: 4}", {"true": 1, "5": 2, "1.5": 3, "false": 4}),
        ("{a: 1, a: 2}", {"a": 2}),
        # What is merged overrides what stands before it.
        ("{x: &a {k: 1, l: 1}, m: {k: 0, <<: *a, l: 2}}", {"x": {"k": 1, "l": 1}, "m": {"k": 1, "l": 2}}),
        ("{x: {<<: [{k: 1}, {k: 2, l: 2}]}}", {"x": {"k": 1, "l": 2}}),
        ('"<<": 5', {"<<": 5}),
        # The first document alone.
        ("a: 1\n---\n]][", {"a": 1}),
        ("a: 1\n...\n]][", {"a": 1}),
        ("", None),
        ("# nothing\n", None),
        ("--- null\n", None),
        ('{"a":\t"\\\\/"}', {"a": "\\/"}),
    ],
)
def test_values(text: str, value: object) -> None:
    found = parse(text.encode())
    assert found == value
    assert repr(found) == repr(value), "1, 1.0 and True are not the same"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"x: .inf", "infinity"),
        (b"x: .nan", "no number"),
        (b"{18446744073709551615: a}", "a key that is neither"),
        (b"{~: a}", "a key that is neither"),
        (b"{[a]: b}", "no key"),
        (b"!!int a", "no !!int"),
        (b"!!bool 5", "no !!bool"),
        (b"!!binary '='", "base64"),
        (b"&a [*a]", "contains itself"),
        (b"*a", "anchor"),
        (b"{<<: 5}", "map merge requires"),
        (b"%YAML 1.2\n---\na: b", "incompatible"),
        (b'"a\\/b"', "unknown escape"),
        (b'\xef\xbb\xbfx: "a\\/b"', "unknown escape"),
        (b'"\\ud83d\\ude00"', "invalid Unicode"),
        (b"a:\n\t- b", "cannot start any token"),
        (b"a: [", "did not find"),
        (b"a: \x00", "no text"),
        (b"a: \x07", "no text"),
        ("a: ü".encode("latin-1"), "no text"),
        ("a: b".encode("utf-16-le"), "no text"),
        ("\ufeffa: b".encode("utf-32-le"), "no text"),
    ],
)
def test_what_is_refused(text: bytes, problem: str) -> None:
    with pytest.raises(BadYaml, match=problem) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(encoding: str) -> None:
    assert parse("a: ü\r\nb: \U0001f600\r\n".encode(encoding)) == {"a": "ü", "b": "\U0001f600"}


def test_errors_have_nothing_of_the_text() -> None:
    for text in ("a: [SECRET", "a: {b: 'SECRET", "SECRET: a: b", "a: *SECRET", "a: &SECRET *SECRET", "a: !!int SECRET"):
        with pytest.raises(BadYaml) as caught:
            parse(text.encode())
        assert "SECRET" not in str(caught.value)


def bomb(levels: int) -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


def test_aliases_are_no_way_to_make_much_of_little() -> None:
    with pytest.raises(BadYaml, match="excessive aliasing"):
        parse(bomb(9))
    # What is expanded a little is no bomb, if its writer is one of us.
    assert len(parse(bomb(3))) == 3
    with pytest.raises(BadYaml, match="more than 500 values"):
        parse(bomb(3), Bounds(nodes=500))
    merges = (
        b"a: &a {"
        + b", ".join(b"k%d: v" % n for n in range(500))
        + b"}\n"
        + b"".join(b"m%d: {<<: [%s]}\n" % (n, b", ".join([b"*a"] * 100)) for n in range(10))
    )
    with pytest.raises(BadYaml, match="more than"):
        parse(merges, FOREIGN)


def test_bounds_of_depth_and_size() -> None:
    for opened in (b"[", b"{a: ", b"- "):
        with pytest.raises(BadYaml, match=r"levels|nesting"):
            parse(opened * 100_000, FOREIGN)
        with pytest.raises(BadYaml, match=r"levels|nesting"):
            parse(opened * 100_000)
    with pytest.raises(BadYaml, match="are allowed"):
        parse(b"a" * (FOREIGN.size + 1), FOREIGN)
    depth = 500
    value: Any = parse(b"[" * depth + b"]" * depth)
    for _ in range(depth - 1):
        (value,) = value
    assert value == []


def test_base64_as_go_has_it() -> None:
    assert decode_base64("aG\r\nk=\n") == b"hi"
    assert decode_base64("") == b""
    for wrong in ("aGk", "a G k=", "a-_=", "====", "aGk=aGk=", "aGkü"):
        with pytest.raises(ValueError):
            decode_base64(wrong)


VALUES = [
    "y",
    "no",
    "1e3",
    "0o17",
    "08",
    "1:20",
    "~",
    "",
    "a: b",
    "plain",
    "2020-01-02",
    "=",
    ".inf",
    "\U0001f600",
    "<<",
]


def test_what_is_written_is_read_as_the_same() -> None:
    document = {"texts": VALUES, "flag": True, "number": 5, **{value or "empty": value for value in VALUES}}
    assert parse(dump(document).encode()) == document
    # Others may read it, too.
    assert yaml.safe_load(dump(document)) == document


@pytest.mark.processes
def test_kubectl_reads_what_is_written_as_the_same(tmp_path: Any) -> None:
    file = tmp_path / "config"
    file.write_text(dump({"users": [{"name": value, "user": {"token": value}} for value in VALUES]}))
    view = ("kubectl", "--kubeconfig", str(file), "config", "view", "--raw", "-o", "yaml")
    done = subprocess.run(view, capture_output=True, check=True)
    assert {user["name"] for user in parse(done.stdout)["users"]} == set(VALUES)
