"""Orders of lists: what each field sorts by, several, and where a page goes on."""

from __future__ import annotations

import random

import pytest

from materializer.entry import Entry
from query.search.order import ListOrder, parse_order
from tests.query.search.made import entry

SMALL = [
    entry("b", "x", "n2", created=3, member_version="9", uid="u3"),
    entry("a", "y", "n1", created=1, member_version="10", uid="u1"),
    entry("a", "x", "n1", created=2, member_version="abc", uid="u2"),
    entry("a", "x", "n10", created=3, member_version="099", uid="u0"),
]


def places(entries: list[Entry]) -> list[str]:
    return [f"{one.cluster}/{one.namespace}/{one.name}" for one in entries]


def by_place(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda one: (one.cluster, one.namespace, one.name))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cluster", ["a/x/n1", "a/x/n10", "a/y/n1", "b/x/n2"]),
        ("cluster desc", ["b/x/n2", "a/x/n1", "a/x/n10", "a/y/n1"]),
        ("namespace", ["a/x/n1", "a/x/n10", "b/x/n2", "a/y/n1"]),
        ("name", ["a/x/n1", "a/y/n1", "a/x/n10", "b/x/n2"]),
        ("name desc", ["b/x/n2", "a/x/n10", "a/x/n1", "a/y/n1"]),
        ("created_at", ["a/y/n1", "a/x/n1", "a/x/n10", "b/x/n2"]),
        ("created_at desc", ["a/x/n10", "b/x/n2", "a/x/n1", "a/y/n1"]),
        # As numbers; what is none stands behind.
        ("resource_version", ["b/x/n2", "a/y/n1", "a/x/n10", "a/x/n1"]),
        ("resource_version desc", ["a/x/n1", "a/x/n10", "a/y/n1", "b/x/n2"]),
        ("uid", ["a/x/n10", "a/y/n1", "a/x/n1", "b/x/n2"]),
        ("namespace,created_at desc", ["a/x/n10", "b/x/n2", "a/x/n1", "a/y/n1"]),
        ("created_at desc,name desc", ["b/x/n2", "a/x/n10", "a/x/n1", "a/y/n1"]),
        ("", ["a/x/n1", "a/x/n10", "a/y/n1", "b/x/n2"]),
    ],
)
def test_what_lists_are_sorted_by(text: str, wanted: list[str]) -> None:
    order = parse_order(text.split(","), " ")
    assert places(order.sort(by_place(SMALL))) == wanted
    assert str(order) == text
    assert bool(order) is bool(text)


def test_a_page_goes_on_behind_any_object_in_any_order() -> None:
    """Also where that object is gone, and with runs that are merged."""
    draw = random.Random(5)
    many = by_place(
        [
            entry(draw.choice("abc"), draw.choice("xyz"), f"n{at}", created=draw.randrange(50), uid=f"u{at}")
            for at in range(9000)
        ]
    )
    for text in ("name desc", "created_at,uid desc", "created_at desc,namespace", "cluster desc,created_at", ""):
        order = parse_order(text.split(","), " ")
        plain = list(many)
        # Python's own sort, the last term first.
        for field, descending in reversed(order.terms):
            plain.sort(key=lambda one: getattr(one, field.replace("created_at", "created")), reverse=descending)
        found = order.sort(list(many))
        assert found == plain
        for at in draw.sample(range(9000), 20):
            assert order.behind(found, order.key(found[at])) == at + 1
            assert order.behind(found[:at] + found[at + 1 :], order.key(found[at])) == at


def test_keys_that_are_none_of_an_order() -> None:
    order = parse_order(["created_at", "name"], " ")
    assert order.key_fits([3, "n", "a", "x", "n"])
    for key in (
        ["3", "n", "a", "x", "n"],
        [3, "n", "a", "x"],
        [3, 1, "a", "x", "n"],
        ["a", "x", "n"],
        [True, "n", "a", "x", "n"],
    ):
        assert not order.key_fits(key)
    assert ListOrder().key_fits(["a", "x", "n"])
    assert not ListOrder().key_fits([1, "a", "x", "n"])
