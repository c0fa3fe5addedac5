"""Field selectors over any path: grammar, operators, lists, numbers, and reading no more than is asked about."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from query.http.status import ApiError
from query.search.fields import FieldTerm, parse_field_terms, uses_paths
from query.search.paths import EACH, Path, Projection, text_of, values_at, weight_of

POD = {
    "metadata": {"name": "web-1", "annotations": {"test.io": "x", "a.b/c": "y"}, "finalizers": ["f/a", "f/b"]},
    "spec": {
        "replicas": 3,
        "share": 0.5,
        "big": 2**70,
        "paused": False,
        "host": "",
        "port": "8080",
        "nothing": None,
        "empty": [],
        "containers": [
            {"name": "app", "image": "nginx:1.25", "ports": [80, 443], "env": [{"name": "A", "value": "1"}]},
            {"name": "side", "image": "envoy", "env": [{"name": "B"}]},
        ],
    },
    "status": {"phase": "Running"},
}


def chosen(selector: str, data: Any = POD) -> bool:
    """Whether all terms hold, of all of an object and of what is read of it."""
    terms = parse_field_terms(selector)
    part = Projection([term.path for term in terms]).read(msgspec.json.encode(data))
    whole = [term.matches(data) for term in terms]
    assert [term.matches(part) for term in terms] == whole
    return all(whole)


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ("spec.replicas", True),
        ("spec.unheard", False),
        ("spec.nothing", False),
        ("!spec.unheard", True),
        ("! spec.nothing", True),
        ("!spec.replicas", False),
        ("spec.empty", True),
        ("spec.empty[]", False),
        (".status.phase=Running", True),
        ("status.phase == Running", True),
        ("status.phase!=Running", False),
        ("status.phase!=Failed", True),
        ("status.phase in (Failed, Running)", True),
        ("status.phase notin (Failed, Running)", False),
        ("status.phase notin (Failed)", True),
        ("status.phase=Running,spec.replicas=3", True),
        ("status.phase=Running,spec.replicas=4", False),
        # What is not there reads as empty.
        ("spec.unheard=", True),
        ("spec.host=", True),
        ("spec.unheard!=x", True),
        ("spec.unheard!=", False),
        ("spec.unheard in (a,)", True),
        ("spec.unheard=x", False),
        ("status.phase=", False),
        # Numbers and booleans.
        ("spec.replicas=3", True),
        ("spec.replicas=3.0", True),
        ("spec.replicas=03", True),
        ("spec.replicas=4", False),
        ("spec.replicas=three", False),
        ("spec.share=0.5", True),
        ("spec.share=5e-1", True),
        ("spec.paused=false", True),
        ("spec.paused=true", False),
        ("spec.paused=0", False),
        ("spec.replicas>2", True),
        ("spec.replicas>3", False),
        ("spec.replicas<4", True),
        ("spec.replicas < -1", False),
        ("spec.share<1", True),
        ("spec.share>0", True),
        ("spec.port>8000", True),
        ("spec.big>3", True),
        ("spec.paused<1", False),
        ("status.phase>1", False),
        ("spec.unheard<1", False),
        # Members with dots.
        ("metadata.annotations['test.io']=x", True),
        ('metadata.annotations["a.b/c"] in (y)', True),
        ("metadata.annotations.'test.io'==x", True),
        ("metadata.annotations['test.io']", True),
        ("metadata.annotations.test.io", False),
        # Lists.
        ("spec.containers[].image=envoy", True),
        ("spec.containers[].image=other", False),
        ("spec.containers[].image!=envoy", False),
        ("spec.containers[].image!=other", True),
        ("spec.containers[].image notin (a,b)", True),
        ("spec.containers[].image", True),
        ("spec.containers[].unheard", False),
        ("!spec.containers[].unheard", True),
        ("spec.containers[0].image=nginx:1.25", True),
        ("spec.containers[1].image=nginx:1.25", False),
        ("spec.containers[2].image", False),
        ("spec.containers[].ports[]=443", True),
        ("spec.containers[].ports[]>400", True),
        ("spec.containers[].ports[]>500", False),
        ("spec.containers[].ports[1]=443", True),
        ("spec.containers[].env[].value=1", True),
        ("spec.containers[].env[].name in (B)", True),
        ("metadata.finalizers[]=f/b", True),
        ("metadata.finalizers[0]=f/b", False),
        # A list is no text, and its elements are asked for by [].
        ("metadata.finalizers=f/a", False),
        ("metadata.finalizers", True),
        ("spec.containers.image=envoy", False),
        ("spec[].image=envoy", False),
        ("metadata[0]", False),
        ("status.phase.more", False),
    ],
)
def test_operators(selector: str, wanted: bool) -> None:
    assert chosen(selector) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # Clusterpedia's own examples (fields/selector_test.go).
        ("metadata.name", [(("metadata", "name"), "exists", ())]),
        (".field1['prefix.field2'].field3", [(("field1", "prefix.field2", "field3"), "exists", ())]),
        (".field1['prefix.field2']['prefix.field3']", [(("field1", "prefix.field2", "prefix.field3"), "exists", ())]),
        (".field1['prefix.listed'][0].field2", [(("field1", "prefix.listed", 0, "field2"), "exists", ())]),
        (
            ".metadata.annotations['test.io'] in (value1,value2),.spec.replica=3",
            [
                (("metadata", "annotations", "test.io"), "in", ("value1", "value2")),
                (("spec", "replica"), "in", ("3",)),
            ],
        ),
        ("spec.containers[]==something", [(("spec", "containers", EACH), "in", ("something",))]),
        # Values.
        (r"a=x\,y\=z\\", [(("a",), "in", ("x,y=z\\",))]),
        ("a='x, (y) = z'", [(("a",), "in", ("x, (y) = z",))]),
        ('a in ("x,y", z )', [(("a",), "in", ("x,y", "z"))]),
        ("a = x y ", [(("a",), "in", ("x y",))]),
        ("a in ()", [(("a",), "in", ("",))]),
        ("a-b_c.in=1", [(("a-b_c", "in"), "in", ("1",))]),
        ("", []),
        (" , ,", []),
        ("b,,a", [(("a",), "exists", ()), (("b",), "exists", ())]),
        ("a,a", [(("a",), "exists", ())]),
    ],
)
def test_what_selectors_say(text: str, wanted: list[FieldTerm]) -> None:
    assert list(parse_field_terms(text)) == [FieldTerm(*one) for one in wanted]


@pytest.mark.parametrize(
    ("text", "column", "part"),
    [
        ("[]", 1, "the name of a field"),
        ("[0]", 1, "the name of a field"),
        (".metadata.annotations[test.io]", 22, "[], [0] or ['name']"),
        (".metadata.annotations['test.io'.go]", 22, "[], [0] or ['name']"),
        (".metadata.annotations['test'io'] in (a)", 22, "[], [0] or ['name']"),
        ("a[-1]", 2, "[], [0] or ['name']"),
        ("a..b", 3, "the name of a field"),
        ("a.[0]", 3, "the name of a field"),
        ("a.", 3, "the name of a field"),
        ("=x", 1, "the name of a field"),
        ("a=1,!", 6, "the name of a field"),
        ("!a=b", 3, "a comma or the end"),
        ("a b", 3, "one of =, ==, !=, >, <, in (...), notin (...)"),
        ("a in b", 3, "one of ="),
        ("a>x", 3, "an integer"),
        ("a<1.5", 3, "an integer"),
        ("a>", 3, "an integer"),
        ("a>=3", 3, "an equals sign in a value"),
        ("a=b=c", 4, "an equals sign in a value"),
        ("a in (b", 8, "a comma or `)`"),
        ("a=\\x", 3, "only a backslash"),
        ("a='x' y", 7, "a comma or the end"),
        (".".join("a" * 65), 129, "a path has at most 64 steps"),
        ("a" + "[]" * 400, 128, "a path has at most 64 steps"),
    ],
)
def test_errors_name_the_column(text: str, column: int, part: str) -> None:
    with pytest.raises(ApiError) as error:
        parse_field_terms(text)
    assert error.value.code == 400
    assert error.value.message.startswith(f"fieldSelector: column {column}: {part}")


def test_what_is_kubernetes_own_grammar() -> None:
    for text in ("a=b", "metadata.name!=x,spec.y==z", "a", "a=x y"):
        assert not uses_paths(text)
    for text in ("a>1", "!a", ".a=b", "a[0]=b", "a in (b)", "a='b'", "x=1, !a", "a notin (b)"):
        assert uses_paths(text)


def test_paths_as_they_are_written() -> None:
    for text in ("spec.containers[].image", "metadata.annotations['a.b/c'].x", "a[0][]", "a.b-c"):
        [term] = parse_field_terms(text)
        assert text_of(term.path) == text


STEPS: tuple[str | int, ...] = ("a", "b", "c", EACH, 0, 1)


def _json(draw: random.Random, depth: int) -> Any:
    kind = draw.randrange(4 if depth else 2)
    if kind == 2:
        return {draw.choice("abc"): _json(draw, depth - 1) for _ in range(draw.randrange(4))}
    if kind == 3:
        return [_json(draw, depth - 1) for _ in range(draw.randrange(4))]
    return draw.choice([None, True, False, 0, -1, 1.5, "", "a", "1", 2**70])


def test_what_is_read_is_what_paths_lead_to() -> None:
    """Of random documents, by random paths: the same values as from the whole."""
    draw, found = random.Random(3), 0
    for _ in range(3000):
        whole = {draw.choice("abc"): _json(draw, 4) for _ in range(3)}
        paths: list[Path] = [
            (draw.choice("abc"), *(draw.choice(STEPS) for _ in range(draw.randrange(4))))
            for _ in range(draw.randrange(1, 4))
        ]
        part = Projection(paths).read(msgspec.json.encode(whole))
        for path in paths:
            values = list(values_at(whole, path))
            assert list(values_at(part, path)) == values, (whole, path)
            found += len(values)
        assert weight_of(part) <= weight_of(whole)
    assert found > 1000


def test_only_that_is_read() -> None:
    body = msgspec.json.encode(POD)
    part = Projection([("spec", "containers", EACH, "image"), ("status", "phase")]).read(body)
    assert part == {
        "spec": {"containers": [{"image": "nginx:1.25"}, {"image": "envoy"}]},
        "status": {"phase": "Running"},
    }
    assert Projection([()]).read(body) == POD
