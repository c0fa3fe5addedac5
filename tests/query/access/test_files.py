"""Files of access: read anew when they change, bad ones keep what was said before; documents are read strictly."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from query.access.documents import Strict, decoded, parsed, shaped
from query.access.errors import BadAccessFile
from query.access.files import LARGEST, WatchedFile, read_file


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Words:
    """Reads words; remembers how often."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self, content: bytes) -> list[str]:
        self.read += 1
        if b"bad" in content:
            raise BadAccessFile("a bad word", "words[1]")
        return content.decode().split()


def long_ago(path: Path, *, content: str | None = None, seconds: int = 1_000_000) -> None:
    """Writes a file as if that was long ago, for its times to tell of changes."""
    if content is not None:
        path.write_text(content)
    os.utime(path, (seconds, seconds))


async def test_a_file_is_looked_at_once_in_a_while(tmp_path: Path) -> None:
    path, clock = tmp_path / "words", Clock()
    path.write_text("one")
    file = WatchedFile(path, Words(), look_every=1.0, clock=clock)
    path.write_text("two")
    assert await file.current() == ["one"]
    clock.now = 1.0
    assert await file.current() == ["two"]
    assert file.latest == ["two"]


async def test_changes_within_one_tick_and_of_the_same_size_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_text("aaa")
    file = WatchedFile(path, Words(), look_every=0.0)
    for word in ("bbb", "ccc", "aaa", "ddd"):
        before = path.stat()
        path.write_text(word)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert await file.current() == [word]


async def test_a_file_that_stays_as_it_is_is_read_once(tmp_path: Path) -> None:
    path, words = tmp_path / "words", Words()
    long_ago(path, content="one")
    file = WatchedFile(path, words, look_every=0.0)
    for _ in range(3):
        # Its times are new, its content is not.
        os.utime(path)
        assert await file.current() == ["one"]
    assert words.read == 1


async def test_links_are_followed_when_they_are_swapped(tmp_path: Path) -> None:
    """As a kubelet changes the files of a Secret or ConfigMap: the directory that they lead through is replaced."""
    for name, word in (("v1", "one"), ("v2", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "words").write_text(word)
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "words").symlink_to("data/words")
    file = WatchedFile(tmp_path / "words", Words(), look_every=0.0)
    assert await file.current() == ["one"]
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(tmp_path / "data")
    assert await file.current() == ["two"]


async def test_a_bad_file_keeps_what_was_said_before(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_text("one")
    file = WatchedFile(path, Words(), look_every=0.0)
    for spoil in (lambda: path.write_text("bad"), path.unlink, path.mkdir):
        spoil()
        assert await file.current() == ["one"]
    path.rmdir()
    path.write_text("two")
    assert await file.current() == ["two"]


async def test_all_who_ask_while_a_change_is_read_get_the_new(tmp_path: Path) -> None:
    path, words = tmp_path / "words", Words()
    path.write_text("one")
    file = WatchedFile(path, words, look_every=0.0)
    path.write_text("two")
    assert await asyncio.gather(*(file.current() for _ in range(10))) == [["two"]] * 10
    assert words.read == 2


def test_a_bad_file_at_the_start_is_named(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_text("bad")
    with pytest.raises(BadAccessFile, match=rf"^{path}: words\[1\]: a bad word$"):
        WatchedFile(path, Words())


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(LARGEST + 1)
    for path, said in (
        (pipe, "is no regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "away", "No such file"),
        (large, "has more than 16 MiB"),
        (Path("a\0b"), "NUL"),
    ):
        with pytest.raises(BadAccessFile, match=said):
            read_file(path)


class _Inner(Strict, frozen=True):
    some_name: str
    number: int = 0


class _Outer(Strict, frozen=True):
    entries: tuple[_Inner, ...] = ()


def test_documents_are_read_strictly() -> None:
    content = b"kind: Outer\napiVersion: v1\nentries:\n- someName: 2026-01-01\n- {someName: 'on', number: 3}\n"
    assert decoded(content, _Outer, "Outer", ["v1"]) == _Outer((_Inner("2026-01-01"), _Inner("on", 3)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "write apiVersion: v1 and kind: Outer"),
        (b"- a", "write apiVersion: v1 and kind: Outer"),
        (b"kind: Inner\napiVersion: v1", "kind: write Outer"),
        (b"kind: Outer\napiVersion: v2", "apiVersion: write v1"),
        (
            b"kind: Outer\napiVersion: v1\nkind: Outer",
            "no YAML that can be used: 'kind' stands twice in line 3, column 1",
        ),
        (b"kind: Outer\napiVersion: v1\nentry: []", "unknown field entry"),
        (b"kind: Outer\napiVersion: v1\nentries: [{}]", "entries[0]: someName is needed"),
        (b"kind: Outer\napiVersion: v1\nentries: [{some_name: a}]", "entries[0]: unknown field some_name"),
        (b"kind: Outer\napiVersion: v1\nentries: [{someName: 1}]", "entries[0].someName: Expected `str`, got `int`"),
        (b"!!python/object/apply:os.system ['true']", "no YAML that can be used: could not determine a constructor"),
        (b"\xff", "no YAML"),
        (b"[" * 2000, "no YAML"),
    ],
)
def test_what_is_no_document_is_said(content: bytes, said: str) -> None:
    with pytest.raises(BadAccessFile) as caught:
        decoded(content, _Outer, "Outer", ["v1"])
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_errors_have_the_path_of_their_field() -> None:
    error = BadAccessFile("is needed", "url").below("issuer").below("jwt[0]")
    assert (str(error), error.field) == ("jwt[0].issuer.url: is needed", "jwt[0].issuer.url")
    assert str(BadAccessFile("is needed").below("jwt")) == "jwt: is needed"
    assert str(BadAccessFile("is needed", "[1]").below("jwt")) == "jwt[1]: is needed"
    assert shaped(parsed(b"{entries: []}"), _Outer) == _Outer()
