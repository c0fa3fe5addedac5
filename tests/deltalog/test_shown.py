"""What a change is to a subscription, by what it has shown: without a log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deltalog import ADDED, DELETED, MODIFIED, Delta
from deltalog.shown import Showing, Shown
from deltalog.wire.selection import select
from deltalog.wire.subjects import control_subject, object_subject, type_prefix

Make = Callable[..., Delta]
WEB = {"app": "web"}


def of(name: str, cluster: str = "alpha", resource: str = "pods", version: str = "v1") -> str:
    return object_subject(type_prefix(cluster, "", version, resource), "x", name)


def test_what_was_there_at_the_beginning_is_modified_and_what_came_later_is_added_once(delta: Make) -> None:
    shown = Shown(select(type="pods"), 10)
    assert shown.showing(12, of("old"), delta("old", MODIFIED, uid_index=7)) == Showing(MODIFIED, False)
    assert shown.showing(13, of("new"), delta("new", ADDED, uid_index=13)) == Showing(ADDED, False)
    assert shown.showing(14, of("new"), delta("new", MODIFIED, uid_index=13)) == Showing(MODIFIED, False)
    # Without the index of its uid, it is as new as the message.
    assert shown.showing(15, of("plain"), delta("plain", MODIFIED, uid_index=0)) == Showing(ADDED, False)


def test_a_name_that_comes_again_is_added_again(delta: Make) -> None:
    shown = Shown(select(type="pods"), 0)
    assert shown.showing(1, of("n"), delta("n", uid="a", uid_index=1)) == Showing(ADDED, False)
    assert shown.showing(2, of("n"), delta("n", DELETED, uid="a", uid_index=1)) == Showing(DELETED, False)
    assert shown.showing(3, of("n"), delta("n", uid="b", uid_index=3)) == Showing(ADDED, False)
    # With another uid in one step, too; its message in another version of the API is the same object.
    assert shown.showing(4, of("n"), delta("n", MODIFIED, uid="c", uid_index=4)) == Showing(ADDED, False)
    again = delta("n", MODIFIED, uid="c", uid_index=4)
    assert shown.showing(5, of("n", version="v2"), again) == Showing(MODIFIED, False)


def test_at_the_end_of_the_log_all_was_shown(delta: Make) -> None:
    shown = Shown(select(type="pods"), 0)
    shown.showing(5, of("n"), delta("n", uid="a", uid_index=5))
    shown.complete(5)
    assert shown.showing(6, of("n"), delta("n", MODIFIED, uid="a", uid_index=5)) == Showing(MODIFIED, False)
    assert shown.showing(7, of("m"), delta("m", MODIFIED, uid="b", uid_index=7)) == Showing(ADDED, False)


def test_by_labels_objects_enter_and_leave(delta: Make) -> None:
    shown = Shown(select(type="pods", labels="app=web"), 10)
    shown.survey(3, of("in"), delta("in", uid="i", labels=WEB), resuming=False)
    shown.survey(4, of("out"), delta("out", uid="o"), resuming=False)
    assert shown.showing(11, of("in"), delta("in", MODIFIED, uid="i", labels=WEB)) == Showing(MODIFIED, False)
    assert shown.showing(12, of("in"), delta("in", MODIFIED, uid="i")) == Showing(DELETED, True)
    assert shown.showing(13, of("in"), delta("in", DELETED, uid="i")) is None
    assert shown.showing(14, of("out"), delta("out", MODIFIED, uid="o", labels=WEB)) == Showing(ADDED, False)
    assert shown.showing(15, of("out"), delta("out", DELETED, uid="o", labels=WEB)) == Showing(DELETED, False)
    assert shown.showing(16, of("never"), delta("never", DELETED, uid="n", labels=WEB)) is None


@pytest.mark.parametrize(("resuming", "expected"), [(True, Showing(DELETED, True)), (False, None)])
def test_what_changed_since_the_beginning_may_be_held_by_who_resumes(
    delta: Make, resuming: bool, expected: Showing | None
) -> None:
    shown = Shown(select(type="pods", labels="app=web"), 10)
    shown.survey(12, of("n"), delta("n", MODIFIED, uid="a", uid_index=4), resuming=resuming)
    assert shown.showing(12, of("n"), delta("n", MODIFIED, uid="a", uid_index=4)) == expected
    # It is doubted once only.
    assert shown.showing(13, of("n"), delta("n", MODIFIED, uid="a", uid_index=4)) is None


@pytest.mark.parametrize("labels", ["", "app=web"])
def test_what_was_removed_comes_again_as_added(delta: Make, labels: str) -> None:
    shown = Shown(select(labels=labels), 0)
    places: list[dict[str, Any]] = [
        {"cluster": "alpha", "resource": "pods"},
        {"cluster": "alpha", "resource": "secrets"},
        {"cluster": "bravo", "resource": "pods"},
    ]

    def show(at: int) -> list[str]:
        showings = [
            shown.showing(at + number, of("n", **place), delta("n", MODIFIED, labels=WEB, uid_index=1, **place))
            for number, place in enumerate(places)
        ]
        return [showing.type for showing in showings if showing is not None]

    assert show(1) == [ADDED, ADDED, ADDED]
    shown.removed(control_subject("alpha", "removed", "", "pods"))
    assert show(11) == [ADDED, MODIFIED, MODIFIED]
    shown.removed(control_subject("alpha", "removed"))
    assert show(21) == [ADDED, ADDED, MODIFIED]
