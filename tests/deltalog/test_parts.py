"""Objects too large for a message: compressed, in parts, and whole again."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from deltalog import DELETED, Delta, UnreadableRecord, decode_delta, encode_delta
from deltalog.wire.parts import Assembler, fit, part_subject, parts_filter, payload_limit
from deltalog.wire.subjects import object_subject, type_prefix

LIMIT = 4096
HEAD = b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"n"},"spec":"'
NOISE = random.Random(1).randbytes(40_000).hex().encode()


def through(delta: Delta) -> tuple[Delta, Delta, int]:
    """A delta as it is stored and as a reader makes it whole; and in how many parts it was."""
    stored, fitting, parts = fit(delta, LIMIT)
    assert all(len(part) <= LIMIT for part in parts)
    assembler = Assembler()
    for sequence, part in enumerate(parts, 5):
        assembler.hold(sequence, part)
    if parts:
        fields = {name: getattr(stored, name) for name in Delta.__struct_fields__}
        stored = Delta(**{**fields, "parts": tuple(range(5, 5 + len(parts)))})
    payload = encode_delta(stored)
    assert fitting == (b"" if parts else payload)
    assert len(payload) <= LIMIT
    return stored, assembler.whole(decode_delta(payload)), len(parts)


@pytest.mark.parametrize(
    ("spec", "compression", "in_parts"),
    [(b"small", "", False), (b"again and " * 3000, "zlib", False), (NOISE, "zlib", True)],
    ids=["as it is", "compressed", "in parts"],
)
def test_an_object_of_any_size_comes_back(
    delta: Callable[..., Delta], spec: bytes, compression: str, in_parts: bool
) -> None:
    body = HEAD + spec + b'"}'
    stored, whole, parts = through(delta(object=body))
    assert (stored.compression, parts > 0) == (compression, in_parts)
    assert whole.object == body
    assert whole.compression == ""


def test_a_large_tombstone_keeps_its_metadata(delta: Callable[..., Delta]) -> None:
    stored, whole, parts = through(delta(type=DELETED, object=HEAD + NOISE + b'"}'))
    assert parts == 0
    assert not whole.final
    assert whole.object == b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"n"}}'
    assert stored.version_offset == 44


def test_a_missing_part_and_a_broken_one_are_told(delta: Callable[..., Delta]) -> None:
    with pytest.raises(UnreadableRecord, match="part 7 of x/n is not in the log"):
        Assembler().whole(delta(object=b"", compression="zlib", parts=(7,)))
    with pytest.raises(UnreadableRecord, match="broken"):
        Assembler().whole(delta(object=b"no zlib", compression="zlib"))
    with pytest.raises(UnreadableRecord, match="'lzma' is unknown"):
        Assembler().whole(delta(compression="lzma"))


def test_parts_have_subjects_of_their_object() -> None:
    subject = object_subject(type_prefix("alpha", "", "v1", "pods"), "x", "a.b")
    assert part_subject(subject, "12", 3) == "kbp.alpha.core.v1.pods.x.a%2Eb.12.3"
    assert part_subject(subject, "", 0) == "kbp.alpha.core.v1.pods.x.a%2Eb.0.0"
    assert parts_filter(subject) == "kbp.alpha.core.v1.pods.x.a%2Eb.>"


def test_the_limit_leaves_room_for_headers() -> None:
    assert payload_limit(1024 * 1024) == 1024 * 1024 - 16 * 1024
    assert payload_limit(1024) == 512
