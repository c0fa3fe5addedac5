"""Filter expressions: what they select, what indexes answer of them, what they may cost, and where they are wrong."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from deltalog.wire.selectors import Requirement
from query.http.status import ApiError
from query.search.cel_syntax import Constant
from query.search.expression import FilterExpression, parse_expression
from query.search.narrowing import Conditions, EntryPlace
from query.search.paths import Projection

OBJECT: dict[str, Any] = {
    "kind": "Deployment",
    "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web", "a.b/c": "x"}},
    "spec": {
        "replicas": 4,
        "share": 0.5,
        "paused": True,
        "containers": [{"image": "nginx:1.25", "ports": [80]}, {"image": "envoy", "args": ["--x"]}],
        "matrix": [[1, 2], [3]],
    },
    "status": {"phase": "Running", "since": "2026-01-01T00:00:00Z"},
}


def place(data: dict[str, Any], cluster: str) -> EntryPlace:
    metadata = data["metadata"]
    return EntryPlace(cluster, metadata.get("namespace", ""), metadata["name"], metadata.get("labels", {}))


def selected(text: str, data: dict[str, Any] = OBJECT, cluster: str = "eu-1") -> bool:
    """Whether an expression selects an object: of the whole, of what it uses, and without the body if that says it."""
    expression = parse_expression(text)
    whole = expression.matches(cluster, data)
    part = Projection(expression.paths).read(msgspec.json.encode(data))
    assert expression.matches(cluster, part) is whole
    if expression.early is not None:
        assert expression.early(place(data, cluster)) in (None, whole)
    return whole


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('object.spec.replicas > 3 && cluster.startsWith("eu-")', True),
        ('object.spec.replicas > 3 && cluster.startsWith("us-")', False),
        ("object.spec.replicas == 4.0", True),
        ("object.spec.share < 1", True),
        ("object.spec.paused", True),
        ("!object.spec.paused", False),
        # Without a value it is not selected, whichever way it is asked.
        ("object.spec.unheard > 3", False),
        ("!(object.spec.unheard > 3)", False),
        ("object.spec.unheard > 3 || object.spec.replicas == 4", True),
        ("object.status.phase > 3", False),
        ("object.spec.replicas", False),
        ("has(object.spec.unheard)", False),
        ("!has(object.spec.unheard) && has(object.spec.replicas)", True),
        ("object.?spec.?unheard.orValue(7) == 7", True),
        # An optional equals no text: neither indexes nor labels answer for it.
        ('object.metadata.labels[?"app"] == "web"', False),
        ('!(object.metadata.labels[?"app"] == "web")', True),
        ('object.metadata.labels[?"app"] == optional.of("web")', True),
        ('object[?"kind"] == "Deployment" || object.metadata[?"name"] == "web-1"', False),
        ('object.metadata.labels["app"] == "web"', True),
        ('object.metadata.labels.app in ["db", "web"]', True),
        ('"a.b/c" in object.metadata.labels', True),
        ('"none" in object.metadata.labels', False),
        ('object.metadata.labels.exists(k, k.startsWith("a.") && object.metadata.labels[k] == "x")', True),
        ('object.metadata.labels.exists(k, k == "app") && object.metadata.labels.app == "web"', True),
        ('object.metadata.labels.exists(k, v, k == "app" && v == "web")', True),
        ('object.spec.containers.exists(c, c.image.contains("nginx"))', True),
        ('object.spec.containers.all(c, c.image.contains("nginx"))', False),
        ("object.spec.containers.exists(c, has(c.ports) && 80 in c.ports)", True),
        ("object.spec.containers.exists(c, true)", True),
        ('object.spec.containers.filter(c, has(c.args)).map(c, c.image) == ["envoy"]', True),
        ("object.spec.containers.size() == 2 && size(object.spec.containers[0].ports) == 1", True),
        ('object.spec.containers[1].image == "envoy"', True),
        ("object.spec.containers[9].image == 'envoy'", False),
        ("object.spec.matrix.exists(row, row.exists(one, one == 3))", True),
        ("object.spec.matrix[0].sum() == 3", True),
        (
            'object.status.since < "2026-02-01" && timestamp(object.status.since) < timestamp("2026-02-01T00:00:00Z")',
            True,
        ),
        ('object.status.phase.matches("^Run+ing$")', True),
        ('object.kind == "Deployment"', True),
        ("object.metadata.name.startsWith('web') && object.metadata.namespace != 'db'", True),
        ("cluster in ['a', 'eu-1']", True),
        ("cluster == 'a' || object.metadata.labels.app == 'web'", True),
        ("has(object.metadata.labels.app) && !has(object.metadata.labels.none)", True),
        ("1 < 2", True),
        ('quantity("1.5Gi").isGreaterThan(quantity("1500Mi")) && quantity("250m").isLessThan(quantity("0.3"))', True),
        ('quantity("1k").compareTo(quantity("1000")) == 0 && quantity("2e3").asInteger() == 2000', True),
        ('quantity("1.5").isInteger() || quantity("x").isInteger()', False),
        ('isQuantity("5Mi") && !isQuantity("5 Mi") && !isQuantity("Mi")', True),
        ('quantity(string(object.spec.replicas)).add(quantity("1")).sub(quantity("500m")) == 4.5', True),
    ],
)
def test_what_is_selected(text: str, wanted: bool) -> None:
    assert selected(text) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('cluster == "a"', Conditions(clusters=frozenset("a"))),
        ('"a" == cluster', Conditions(clusters=frozenset("a"))),
        ('cluster in ["a","b"] && cluster != "b"', Conditions(clusters=frozenset("ab"))),
        ('cluster == "a" || cluster in ["b"]', Conditions(clusters=frozenset("ab"))),
        ('cluster == "a" && cluster == "b"', Conditions(clusters=frozenset())),
        ('cluster == "a" || object.spec.x == "b"', Conditions()),
        ('!(cluster == "a")', Conditions()),
        ('object.metadata.labels[?"app"] == "x"', Conditions()),
        ('object.metadata[?"name"] == "x" && object.status[?"phase"] in ["Running"]', Conditions()),
        ('object[?"metadata"]["name"] in ["x"] && "a" in object.metadata[?"labels"]', Conditions()),
        ('object.metadata.namespace == "x"', Conditions(namespaces=frozenset("x"))),
        ('object.metadata.name in ["x", "y"]', Conditions(names=frozenset("xy"))),
        ('object.metadata["name"] == "x"', Conditions(names=frozenset("x"))),
        ('object.metadata.name.contains("x") && object.metadata.name.startsWith("y")', Conditions(parts=("x", "y"))),
        ('object.metadata.labels["a.b/c"] == "x"', Conditions(labels=(Requirement("a.b/c", "in", ("x",)),))),
        ('object.metadata.labels.app in ["b", "a"]', Conditions(labels=(Requirement("app", "in", ("a", "b")),))),
        ('"app" in object.metadata.labels', Conditions(labels=(Requirement("app", "exists", ()),))),
        ("has(object.metadata.labels.app)", Conditions(labels=(Requirement("app", "exists", ()),))),
        ('object.status.phase == "Running"', Conditions(fields=((("status", "phase"), ("Running",)),))),
        ('object.status.phase == ""', Conditions()),
        ("object.spec.replicas == 3", Conditions()),
        ('object.spec.x in ["a", 3]', Conditions()),
        ('object.spec.replicas > 3 && (cluster == "a" && object.metadata.name == "n")',
         Conditions(clusters=frozenset("a"), names=frozenset("n"))),
        ('cluster == "a" ? true : false', Conditions()),
    ],
)  # fmt: skip
def test_what_indexes_answer(text: str, wanted: Conditions) -> None:
    assert parse_expression(text).conditions == wanted


PARTS = (
    'cluster == "a"',
    'cluster.startsWith("a")',
    'cluster.contains("b")',
    'cluster in ["a", "b"]',
    'object.metadata.namespace == "x"',
    'object.metadata.namespace.endsWith("y")',
    "has(object.metadata.namespace)",
    'object.metadata.name != "n"',
    'object.metadata.labels.app == "web"',
    'object.metadata.labels["app"] != "web"',
    'object.metadata.labels.app in ["web", "db"]',
    '"app" in object.metadata.labels',
    "has(object.metadata.labels.app)",
    "object.spec.n > 2",
    'object.spec.s == "x"',
    "has(object.spec.n)",
    "object.spec.flag",
)


def _expression(draw: random.Random, depth: int) -> str:
    if not depth or draw.random() < 0.3:
        return draw.choice(PARTS)
    if draw.random() < 0.3:
        return f"!({_expression(draw, depth - 1)})"
    return f"({_expression(draw, depth - 1)} {draw.choice(['&&', '||'])} {_expression(draw, depth - 1)})"


def test_verdicts_and_conditions_are_those_of_the_whole() -> None:
    """Random expressions of random objects: nothing that is decided, or left out, without the body is wrong."""
    draw, early, right = random.Random(11), 0, 0
    for _ in range(1500):
        expression = parse_expression(_expression(draw, 3))
        metadata: dict[str, Any] = {"name": draw.choice(["n", "m"])}
        if draw.random() < 0.7:
            metadata["namespace"] = draw.choice(["x", "xy"])
        if draw.random() < 0.7:
            metadata["labels"] = draw.choice([{"app": "web"}, {"app": "db"}, {"other": "x"}])
        spec = {key: value for key, value in (("n", 3), ("s", "x"), ("flag", True)) if draw.random() < 0.6}
        data, cluster = {"metadata": metadata, "spec": spec}, draw.choice(["a", "b", "ab"])
        where = place(data, cluster)
        wanted = expression.matches(cluster, data)
        right += wanted
        verdict = None if expression.early is None else expression.early(where)
        assert verdict in (None, wanted), expression
        early += verdict is not None
        assert not wanted or _holds(expression.conditions, where, data), expression
    assert right > 200
    assert early > 500


def _holds(conditions: Conditions, where: EntryPlace, data: dict[str, Any]) -> bool:
    def among(value: str, wanted: frozenset[str] | None) -> bool:
        return wanted is None or value in wanted

    labels = all(
        one.key in where.labels and (one.operator == "exists" or where.labels[one.key] in one.values)
        for one in conditions.labels
    )
    fields = all(data[path[0]].get(path[1]) in values for path, values in conditions.fields)  # type: ignore[index]
    named = among(where.name, conditions.names) and all(part in where.name for part in conditions.parts)
    return (
        labels
        and fields
        and named
        and among(where.cluster, conditions.clusters)
        and among(where.namespace, conditions.namespaces)
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "column 1: Syntax error"),
        ("object.a +", "column 11: Syntax error"),
        ("object.a\n && (", "line 2, column 6: Syntax error"),
        ("obj.x == 1", "column 4: undeclared reference to 'obj.x'"),
        ('1 + "a" == 1', "column 3: found no matching overload"),
        ("cluster == 3", "column 9: found no matching overload"),
        ("cluster", "column 1: it must be true or false, and not string"),
        ("1", "column 1: it must be true or false"),
        ('object.a.find("x") == ""', "undeclared reference"),
        ('object.a.replace("a", "b") == ""', "column 10: replace is not available in filters"),
        ('object.a.matches("(")', "column 10: INVALID_ARGUMENT: invalid regular expression"),
        ("object.a.matches(object.b)", "column 10: the pattern of matches must be written out"),
        ("a" * 5000, "column 4097: an expression has at most 4096 characters"),
        (f"object.a in [{', '.join('1' * 600)}]", "column 1: 604 operands and operators; there may be 500"),
        (" + ".join(["object.a"] * 300) + " > 1", "column 1: parts within parts, deeper than 32"),
        ("object" + "[0]" * 40 + " > 1", "column 1: parts within parts, deeper than 32"),
        ("(" * 40 + "true" + ")" * 40, "column 1: parts within parts, deeper than 32"),
        (" || ".join([f"{'object' + '.a' * 31} > 1"] * 2), "column 1: parts within parts, deeper than 32"),
        (f"object.a.all(x, {' && '.join(['x > 1'] * 80)})", "operands and operators in a loop; there may be 250"),
        ("object.a.transformMap(k, v, v) == {}", "column 10: transformMap is not available in filters"),
        ("object.a.transformMap(k, v, v > 1, v) == {}", "column 10: transformMap is not available in filters"),
        ("object.a.transformMapEntry(k, v, {v: k}) == {}", "column 10: transformMapEntry is not available in filters"),
        ("\ud800", "column 1: it is no text in UTF-8"),
        ("object.a.all(a, object.b.all(b, object.c.all(c, object.d.all(d, true))))", "column 1: loops within loops"),
        ("[1].map(x, 'ab').map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x+x+x).map(x, x+x) == []", "more than 64 times"),
        ("'a'.format([]) == ''", ""),
    ],
)  # fmt: skip
def test_errors_name_the_column(text: str, told: str) -> None:
    with pytest.raises(ApiError) as error:
        parse_expression(text)
    assert error.value.code == 400
    assert error.value.message.startswith("filter: ")
    assert "column " in error.value.message
    assert told in error.value.message


def test_work_is_bounded() -> None:
    """An object that would take long is not selected."""
    few, many = list(range(20)), list(range(5000))
    nested = "object.a.exists(x, object.b.exists(y, x == y + 1))"
    assert selected(nested, {"metadata": {"name": "n"}, "a": few, "b": few})
    assert not selected(nested, {"metadata": {"name": "n"}, "a": many, "b": many})
    flat = "object.a.exists(x, x == 4999)"
    assert selected(flat, {"metadata": {"name": "n"}, "a": many})
    # cel-cpp's own budget of steps.
    assert not selected("object.a.all(x, x >= 0)", {"metadata": {"name": "n"}, "a": list(range(200_000))})
    assert not selected("object.a.exists(x, x in object.a)", {"metadata": {"name": "n"}, "a": many})
    # What cel-cpp makes of each element copies all before it.
    for text in (
        "object.a.map(x, x).size() > 1",
        "object.a.filter(x, x > 3).size() > 1",
        "sets.contains(object.a, [1])",
    ):
        assert selected(text, {"metadata": {"name": "n"}, "a": few})
        assert not selected(text, {"metadata": {"name": "n"}, "a": many})


def test_one_text_is_read_once_and_equal_to_itself() -> None:
    one = parse_expression("object.spec.replicas > 3")
    assert parse_expression("object.spec.replicas > 3") is one
    assert one == FilterExpression(one.text, one._compiled, Constant(True))
    assert hash(one) == hash(FilterExpression(one.text, one._compiled, Constant(True)))
    assert one != parse_expression("object.spec.replicas > 4")
    assert one.paths == (("spec", "replicas"),)
    assert not one.whole
    assert parse_expression("object.kind == 'x'").whole
    assert parse_expression("object == {}").whole
