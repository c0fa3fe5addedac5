"""The filter, condition by condition: names, times, selections, and what is remembered of earlier states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from deltalog.wire.selectors import Requirement, parse_labels
from materializer.entry import Entry, Past, changed_entry, entry_of, life_in
from materializer.filter import Filter, Spaces
from tests.entries import made_entry
from tests.stable_ids import stable

Make = Callable[..., Any]
A, B = {"app": "a"}, {"app": "b"}
APP_A = Filter(labels=parse_labels("app=a"))


class Anything:
    """A condition on bodies that holds for all."""

    at_once = 256

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        return list(entries)

    def unknown(self, entries: Sequence[Entry]) -> list[str]:
        return []

    def __repr__(self) -> str:
        # Tests are named by it, and all processes that run some of them have to agree.
        return type(self).__name__


class Nothing(Anything):
    """One that holds for none."""

    def chosen(self, entries: Sequence[Entry]) -> list[Entry]:
        return []


@pytest.fixture
def entry(delta: Make) -> Callable[..., Entry]:
    """Makes the entry of cluster alpha, namespace x, name n, version v1, own version 5."""

    def made(**given: Any) -> Entry:
        return entry_of(delta("n", **{"member_version": "5", **given}), 9, 0, "h")

    return made


@pytest.mark.parametrize(
    ("given", "narrow", "selective"),
    [
        ({}, False, False),
        ({"clusters": frozenset()}, True, False),
        ({"namespaces": frozenset()}, True, False),
        ({"names": frozenset()}, True, False),
        ({"version": "v1"}, True, False),
        ({"not_namespaces": frozenset("x")}, True, False),
        ({"not_names": frozenset("n")}, True, False),
        ({"not_clusters": frozenset("n")}, True, False),
        ({"parts": ("n",)}, True, False),
        ({"not_parts": ("n",)}, True, False),
        ({"spaces": Spaces({})}, True, False),
        ({"beyond": (("alpha", "1"),)}, True, False),
        ({"since": 1}, False, False),
        ({"before": 1}, False, False),
        ({"labels": parse_labels("app")}, False, True),
        ({"fields": (Requirement("f", "in", ("1",)),)}, False, True),
        ({"controller_uids": frozenset()}, False, True),
        ({"where": Anything()}, False, True),
    ],
    ids=stable,
)
def test_what_a_filter_restricts_by(given: dict[str, Any], narrow: bool, selective: bool) -> None:
    assert (Filter(**given).narrow, Filter(**given).selective) == (narrow, selective)


@pytest.mark.parametrize(
    ("given", "covered"),
    [
        ({}, True),
        ({"clusters": frozenset({"alpha", "beta"})}, True),
        ({"clusters": frozenset({"beta"})}, False),
        ({"namespaces": frozenset({"x", "y"})}, True),
        ({"namespaces": frozenset({"y"})}, False),
        ({"names": frozenset({"n", "m"})}, True),
        ({"names": frozenset({"m"})}, False),
        ({"version": "v1"}, True),
        ({"version": "v2"}, False),
        ({"not_namespaces": frozenset({"y"})}, True),
        ({"not_namespaces": frozenset({"x"})}, False),
        ({"not_names": frozenset({"m"})}, True),
        ({"not_names": frozenset({"n"})}, False),
        ({"not_clusters": frozenset({"beta"})}, True),
        ({"not_clusters": frozenset({"alpha"})}, False),
        ({"parts": ("n",)}, True),
        ({"parts": ("n", "m")}, False),
        ({"not_parts": ("m",)}, True),
        ({"not_parts": ("m", "n")}, False),
        ({"parts": ("n",), "not_parts": ("n",)}, False),
        ({"spaces": Spaces({"alpha": frozenset({"x"})})}, True),
        ({"spaces": Spaces({"alpha": frozenset({"y"})})}, False),
        ({"beyond": (("alpha", "4"),)}, True),
        ({"beyond": (("alpha", "5"),)}, False),
        ({"beyond": (("beta", "7"),)}, True),
        ({"beyond": (("beta", "7"), ("alpha", "7"))}, False),
        # All that is given has to hold.
        ({"clusters": frozenset({"alpha"}), "names": frozenset({"m"})}, False),
        ({"namespaces": frozenset({"y"}), "names": frozenset({"n"})}, False),
    ],
    ids=stable,
)
def test_names_in_scope(entry: Callable[..., Entry], given: dict[str, Any], covered: bool) -> None:
    assert Filter(**given).covers(entry()) is covered
    assert Filter(**given).matches(entry()) is covered
    assert bool(Filter(**given).chosen([entry()])) is covered
    # What an object is called says nothing of its state.
    assert Filter(**given).selects(entry())


def test_a_deletion_without_a_last_state_is_newer_than_any_version(entry: Callable[..., Entry]) -> None:
    """Its version is that of the last change before it, so it cannot say whether the client knows of the deletion."""
    wanted = Filter(beyond=(("alpha", "5"),))
    assert wanted.covers(entry(type="DELETED", final=False))
    assert not wanted.covers(entry(type="DELETED", final=True))
    assert not wanted.covers(entry(final=False))


def test_times_of_creation(entry: Callable[..., Entry]) -> None:
    """`since` is at or after, `before` is before."""
    made = entry(created=100)
    cases: tuple[tuple[dict[str, Any], bool], ...] = (
        ({"since": 99}, True),
        ({"since": 100}, True),
        ({"since": 101}, False),
        ({"before": 100}, False),
        ({"before": 101}, True),
        ({"since": 50, "before": 100}, False),
        ({"since": 101, "before": 200}, False),
        ({"since": 100, "before": 101}, True),
    )
    for given, timely in cases:
        assert Filter(**given).timely(made) is timely
        assert Filter(**given).matches(made) is timely
        assert bool(Filter(**given).chosen([made])) is timely


@pytest.mark.parametrize(
    ("given", "selected"),
    [
        ({"labels": parse_labels("app=a")}, True),
        ({"labels": parse_labels("app=b")}, False),
        ({"fields": (Requirement("f", "in", ("1", "2")),)}, True),
        ({"fields": (Requirement("f", "in", ("2",)),)}, False),
        ({"fields": (Requirement("f", "notin", ("1",)),)}, False),
        ({"fields": (Requirement("f", "notin", ("2",)),)}, True),
        # k8s.io/apimachinery/pkg/fields: an absent field reads as empty.
        ({"fields": (Requirement("absent", "in", ("",)),)}, True),
        ({"fields": (Requirement("absent", "notin", ("",)),)}, False),
        ({"fields": (Requirement("f", "in", ("1",)), Requirement("g", "in", ("1",)))}, False),
        ({"controller_uids": frozenset({"o", "p"})}, True),
        ({"controller_uids": frozenset({"p"})}, False),
        ({"labels": parse_labels("app=b"), "controller_uids": frozenset({"o"})}, False),
        ({"labels": parse_labels("app=a"), "controller_uids": frozenset({"p"})}, False),
    ],
    ids=stable,
)
def test_selections(entry: Callable[..., Entry], given: dict[str, Any], selected: bool) -> None:
    made = entry(labels=A, fields={"f": "1"}, controller_uid="o")
    assert Filter(**given).selects(made) is selected
    assert Filter(**given).matches(made) is selected
    # Beside another one, and one with the same label set.
    other = entry(labels={"app": "c"}, fields={"f": "3"})
    both = Filter(**given).chosen([made, other, made])
    assert both == [one for one in (made, other, made) if Filter(**given).matches(one)]
    assert (made in both) is selected
    assert Filter(**given).covers(made)


@pytest.fixture
def relabelled(entry: Callable[..., Entry]) -> Entry:
    """app=b from 4 on, app=a from 6 on, app=b from 9 on."""
    first = Past(4, B, {}, "", None)
    made = entry(labels=B)
    life = life_in(made)
    life.uid_index, life.selectable_since, life.past = 4, 9, Past(6, A, {}, "", first)
    return changed_entry(made, life=life)


def test_what_was_selected_at_an_index(relabelled: Entry) -> None:
    assert [APP_A.matched_at(relabelled, index) for index in range(3, 11)] == [
        None,
        *[False] * 2,
        *[True] * 3,
        *[False] * 2,
    ]
    # What cannot change during its life needs no memory.
    assert Filter().matched_at(relabelled, 3) is True
    assert relabelled.past is not None
    relabelled.past.forget()
    assert APP_A.matched_at(relabelled, 7) is None
    assert APP_A.matched_at(relabelled, 9) is False


def test_what_was_selected_between_two_indexes(relabelled: Entry) -> None:
    expected = {
        (9, 12): False,
        (8, 9): True,
        (8, 8): True,
        (6, 6): True,
        (5, 6): True,
        (5, 5): False,
        (4, 5): False,
        (3, 5): None,
        (3, 6): True,
        (4, 12): True,
    }
    assert {span: APP_A.matched_between(relabelled, *span) for span in expected} == expected
    app_b = Filter(labels=parse_labels("app=b"))
    expected = {(9, 9): True, (8, 9): True, (8, 8): False, (6, 8): False, (5, 8): True, (4, 4): True, (3, 3): None}
    assert {span: app_b.matched_between(relabelled, *span) for span in expected} == expected
    assert Filter().matched_between(relabelled, 3, 3) is True
    assert relabelled.past is not None
    assert relabelled.past.before is not None
    relabelled.past.before.forget()
    assert APP_A.matched_between(relabelled, 5, 5) is None
    assert APP_A.matched_between(relabelled, 6, 6) is True
    assert APP_A.matched_between(relabelled, 9, 9) is False


def test_spaces_are_namespaces_by_cluster() -> None:
    spaces = Spaces({"alpha": frozenset({"web"}), "bravo": frozenset()})
    places = (("alpha", "web"), ("alpha", "db"), ("bravo", "web"), ("charlie", "web"))
    assert [spaces.has(*place) for place in places] == [True, False, False, True]
    same = Spaces({"bravo": frozenset(), "alpha": frozenset({"web"})})
    assert spaces == same
    assert hash(spaces) == hash(same)
    other = Spaces({"alpha": frozenset({"db"})})
    assert spaces != other
    assert other != spaces
    assert spaces != "alpha"
    # Whatever their hashes.
    other._hash = spaces._hash
    assert spaces != other
    for wanted in (frozenset({"web"}), frozenset({"db"})):
        found = [spaces.of(cluster, wanted) for cluster in ("alpha", "bravo", "charlie")]
        assert found == [wanted & {"web"}, set(), wanted]
    assert [spaces.of(cluster, None) for cluster in ("alpha", "charlie")] == [{"web"}, None]


def test_a_body_that_is_not_here_may_meet_any_condition(entry: Callable[..., Entry]) -> None:
    """Of an earlier state, and of what was buried; there are types whose live objects have no body, too."""
    wanted = Filter(where=Nothing())
    assert wanted.selects(Past(4, A, {}, "", None))
    bare, buried = made_entry("n", 9), made_entry("n", 9)
    buried.deleted = True
    assert [wanted.selects(one) for one in (bare, buried)] == [False, True]
    assert [wanted.selects(entry(type=type)) for type in ("ADDED", "DELETED")] == [False, False]
    assert wanted.chosen([bare, buried, entry()]) == [buried]


def test_of_earlier_bodies_nothing_is_known(relabelled: Entry) -> None:
    app_a, app_b = (Filter(labels=parse_labels(f"app={app}"), where=Anything()) for app in "ab")
    assert [app_a.matched_at(relabelled, index) for index in (3, 4, 6, 9)] == [None, False, None, False]
    assert [app_b.matched_at(relabelled, index) for index in (3, 4, 6, 9)] == [None, None, False, True]
    assert Filter(where=Nothing()).matched_at(relabelled, 9) is False
    assert Filter(where=Anything()).matched_at(made_entry("n", 9), 9) is None
    assert [app_a.matched_between(relabelled, *span) for span in ((4, 5), (6, 8), (9, 12))] == [False, None, False]
    assert [app_b.matched_between(relabelled, *span) for span in ((5, 8), (6, 8), (9, 12))] == [None, False, True]
    assert Filter(where=Anything()).matched_between(made_entry("n", 9), 9, 9) is None
