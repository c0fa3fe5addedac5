"""What is remembered of documents: whose it is, and how much of it there is."""

from __future__ import annotations

from kubebraid.route.remembered import DocumentKey, RememberedDocuments


def key(caller: str, path: str = "/apis") -> DocumentKey:
    return DocumentKey(caller.encode(), "rest", path, "application/json")


def test_each_caller_has_their_own() -> None:
    remembered = RememberedDocuments()
    remembered.note(key("jane"), 200, b"janes")
    remembered.note(key("joe"), 404, b"")
    assert remembered.of(key("jane")) == (200, b"janes")
    assert remembered.of(key("joe")) == (404, b"")
    assert remembered.of(key("mallory")) is None
    assert remembered.of(key("jane", "/api")) is None
    remembered.note(key("jane"), 200, b"newer")
    assert remembered.of(key("jane")) == (200, b"newer")
    assert remembered.of(key("joe")) == (404, b"")


def test_the_least_recently_used_go_first() -> None:
    remembered = RememberedDocuments(answers=2)
    remembered.note(key("a"), 200, b"1")
    remembered.note(key("b"), 200, b"2")
    assert remembered.of(key("a")) == (200, b"1")
    remembered.note(key("c"), 200, b"3")
    assert [remembered.of(key(one)) for one in "abc"] == [(200, b"1"), None, (200, b"3")]


def test_documents_that_many_have_are_kept_once() -> None:
    remembered = RememberedDocuments(size=100)
    for number in range(50):
        remembered.note(key(f"user-{number}"), 200, b"x" * 60)
        # The same once more is no more than once.
        remembered.note(key(f"user-{number}"), 200, b"x" * 60)
    assert all(remembered.of(key(f"user-{number}")) for number in range(50))
    # Another one does not fit beside it: all go who have the first.
    remembered.note(key("other"), 200, b"y" * 60)
    assert remembered.of(key("other")) == (200, b"y" * 60)
    assert not any(remembered.of(key(f"user-{number}")) for number in range(50))
    # And one that fits nowhere is not kept.
    remembered.note(key("large"), 200, b"z" * 101)
    assert remembered.of(key("large")) is None
