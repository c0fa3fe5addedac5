"""Patterns of `matches`: what they cost, by their texts, and what is refused or not looked at for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from materializer.entry import Entry
from query.http.status import ApiError
from query.search.cel_syntax import Call, Constant, Ident
from query.search.expression import parse_expression
from query.search.patterns import AT_ONCE, MOST_COST, MOST_WORK, CostlyPattern, Patterns, cost_of
from query.search.where import Where, chosen_by, where_of
from tests.query.search.made import entry


def _object(value: Any) -> dict[str, Any]:
    return {"metadata": {"name": "n"}, "a": value}


@pytest.mark.parametrize(
    ("pattern", "least"),
    [
        ("a" * 1000, 1000),
        ("[^a]{1000}", 8000),
        (".{0,1000}", 6000),
        (r"\pL{40}", 60_000),
        (r"^\pL[\pL\pN-]{0,62}$", 180_000),
        (r"(\p{L}{0,10}){0,10}", 150_000),
        # What stands in a class is of the class, whatever it looks like.
        (r"[]\pL]{40}", 60_000),
        (r"[^]\pL]{40}", 60_000),
        (r"[[:alpha:]\pL]{40}", 60_000),
        (r"[(\pL]{40}", 60_000),
        (r"[\]\pL]{40}", 60_000),
        (r"(?P<one>(?:\PL)){40}", 60_000),
        (r"(?<one>\PL){40}", 60_000),
        (r"\pL{40,}", 60_000),
        (r"\pL?{40}", 60_000),
        ("(((a{10}){10}){10})", 3000),
        ("(?i)[^À-Ԁ]{50}", 2000),
        (r"[\x{c0}-\x{500}]{50}", 2000),
    ],
)
def test_what_patterns_cost(pattern: str, least: int) -> None:
    assert cost_of(pattern) >= least
    if least > MOST_COST:
        with pytest.raises(ApiError, match=r"column 10: the patterns of matches would take too long"):
            parse_expression(f"object.a.matches(r'{pattern}')")


@pytest.mark.parametrize(
    "pattern",
    [
        "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        r"^([a-z0-9.-]+(:[0-9]+)?/)?[a-z0-9._/-]+(:[\w.-]{1,128})?(@sha256:[a-f0-9]{64})?$",
        r"^v?(\d{1,3})\.(\d{1,3})\.(\d{1,3})$",
        r"^\pL+$",
    ],
)
def test_what_is_usual_may_be_asked(pattern: str) -> None:
    assert cost_of(pattern) <= MOST_COST
    parse_expression(f"object.a.matches(r'{pattern}')")


def test_patterns_cost_together() -> None:
    one = r"object.a.matches('[^a]{50}')"
    parse_expression(" || ".join([one] * 2))
    with pytest.raises(ApiError, match="too long") as error:
        parse_expression(" || ".join([one] * 20))
    assert error.value.code == 400


@pytest.mark.parametrize("pattern", [r"\Q[\E\pL{40}", "[a", r"[[:alpha:]", r"[\]"])
def test_what_cannot_be_told(pattern: str) -> None:
    with pytest.raises(CostlyPattern):
        cost_of(pattern)
    with pytest.raises(ApiError, match="filter: column 10: ") as error:
        parse_expression(f"object.a.matches(r'{pattern}')")
    assert error.value.code == 400


def test_texts_are_as_long_as_the_pattern_lets_them() -> None:
    wide = parse_expression('object.a.matches("[ab]*a[ab]{50}c|x$")')
    assert wide.matches("c", _object("ab" * 100 + "x"))
    assert not wide.matches("c", _object("ab" * 100_000 + "x"))
    plain = parse_expression('object.a.matches("x$")')
    assert plain.matches("c", _object("ab" * 20_000 + "x"))
    assert not plain.matches("c", _object("ab" * 500_000 + "x"))
    # Also of names of members, and of what the expression says itself.
    names = parse_expression('object.a.exists(k, k.matches("x$"))')
    assert names.matches("c", _object({"yx": 1}))
    assert not names.matches("c", _object({"y" * 500_000 + "x": 1}))
    assert parse_expression('"y".matches("y") && (object.a + object.a).matches("x")').matches("c", _object("x"))


def test_loops_match_each_element() -> None:
    images = parse_expression('object.a.exists(c, c.i.matches("^registry[.]example[.]io/.*:v[0-9]+$"))')
    one = {"i": "registry.example.io/agent:v2"}
    assert images.matches("c", _object([{"i": "other"}] * 15 + [one]))
    assert not images.matches("c", _object([{"i": "other"}] * 700 + [one]))
    ones = ", ".join("1" * 60)
    of_constants = parse_expression(f"[{ones}].exists(x, [{ones}].exists(y, object.a.matches('z|x')))")
    assert not of_constants.matches("c", _object("x"))
    split = parse_expression('object.a.split("").exists(x, x.matches("z"))')
    assert split.matches("c", _object("yz"))
    assert not split.matches("c", _object("y" * 600 + "z"))


def test_calls_of_python_are_counted() -> None:
    hosts = parse_expression("object.a.exists(u, url(u).getHost() == 'b' || url(u).getPort() == '99')")
    assert hosts.matches("c", _object(["http://a"] * 50 + ["http://b"]))
    assert not hosts.matches("c", _object(["http://a"] * 690 + ["http://b"]))
    sums = parse_expression("object.a.all(x, object.a.sum() > 0)")
    assert sums.matches("c", _object([1] * 100))
    assert not sums.matches("c", _object([1] * 600))
    assert parse_expression("object.a.sum() > 0").matches("c", _object([1] * 5000))
    quantities = where_of((), parse_expression("quantity(object.a).isLessThan(quantity('2'))"))
    assert quantities is not None
    assert quantities.at_once == AT_ONCE


def test_few_objects_at_one_go() -> None:
    assert AT_ONCE * (MOST_WORK + MOST_COST) <= 50_000
    matching, plain = where_of((), parse_expression('object.a.matches("x")')), where_of((), parse_expression("true"))
    assert matching is not None
    assert plain is not None
    assert matching.at_once == AT_ONCE
    assert plain.at_once > AT_ONCE
    loop = where_of((), parse_expression("object.a.exists(x, x == 1)"))
    square = where_of((), parse_expression("object.a.map(x, x).size() > 1"))
    assert loop is not None
    assert square is not None
    assert 1 <= square.at_once < loop.at_once < plain.at_once


def test_work_grows_with_what_is_made_of_texts() -> None:
    tree = Call(Ident("object"), "matches", (Constant("x"),))
    once, more = Patterns(tree, 1).work("y" * 1000, ""), Patterns(tree, 64).work("y" * 1000, "")
    assert once < more / 50


def test_no_more_are_looked_at_at_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    where = where_of((), parse_expression('object.metadata.name.matches("1$")'))
    assert where is not None
    asked: list[int] = []
    chosen = Where.chosen

    def counted(self: Where, some: Sequence[Entry]) -> list[Entry]:
        asked.append(len(some))
        return chosen(self, some)

    monkeypatch.setattr(Where, "chosen", counted)
    entries = [entry(name=f"n{number}") for number in range(30)]
    *_, found = chosen_by(where, entries)
    assert [one.name for one in found] == ["n1", "n11", "n21"]
    assert sum(asked) == 30
    assert max(asked) <= AT_ONCE
