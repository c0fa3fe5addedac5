"""What the writer keeps of each object: packed, and the same when it is asked for."""

from __future__ import annotations

import sys
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalog import Record
from deltalog.wire.summary import Summary
from producers.follow.known import NO_DIGEST, Known, known_of, packed_uid, packed_version

DIGEST = b"\xff1234567"
odd = st.text(alphabet="0123456789abcdefABCDEF-. ²٣", max_size=40)


@given(st.uuids().map(str) | st.uuids().map(lambda uid: str(uid).upper()) | odd, odd)
def testpacked_uids_come_back_and_differ_as_they_did(uid: str, other: str) -> None:
    assert Known(packed_uid(uid) + DIGEST, 1, 0).uid == uid
    assert (packed_uid(uid) == packed_uid(other)) == (uid == other)


@given(st.integers(0, 2**70).map(str) | odd, st.integers(0, 2**70).map(str) | odd)
def testpacked_versions_come_back_and_differ_as_they_did(version: str, other: str) -> None:
    assert Known(b"u" + DIGEST, packed_version(version), 0).member_version == version
    assert (packed_version(version) == packed_version(other)) == (version == other)


def test_what_is_usual_is_packed() -> None:
    uid = "ed02aa20-d7a8-48a4-a50a-71203ff73986"
    assert packed_uid(uid) == UUID(uid).bytes
    assert packed_version("2986835454716") == 2986835454716
    assert [packed_version(odd) for odd in ("0", "007", "", "-1", "+1", "1_0", "1\n")] == [
        *("0", "007", "", "-1", "+1", "1_0", "1\n")
    ]


@pytest.mark.parametrize(
    ("summary", "first", "oldest", "gone", "rare"),
    [
        (Summary("ADDED", "u", "1", 0, 0), 9, 9, 0, False),
        (Summary("MODIFIED", "u", "1", 4, 4), 4, 4, 0, False),
        (Summary("MODIFIED", "u", "1", 4, 2), 4, 2, 0, True),
        (Summary("DELETED", "u", "1", 4, 4), 4, 4, 9, True),
        (Summary("MODIFIED", "u", "1", 4, 4, parts=2), 4, 4, 0, True),
    ],
)
def test_what_a_message_states_of_an_object(summary: Summary, first: int, oldest: int, gone: int, rare: bool) -> None:
    known = known_of(summary, Record(9, 5_000_000_000, "kb.x", b""))
    assert (known.uid_index, known.oldest_uid_index, known.past.deletion_index) == (first, oldest, gone)
    assert known.past.deleted_at == (5.0 if gone else 0.0)
    assert (known.own_past is not None) == rare
    assert known.past.in_parts == (summary.parts > 0)
    assert known.digest == NO_DIGEST


def test_a_digest_stands_beside_the_uid_and_costs_nothing() -> None:
    uid = "ed02aa20-d7a8-48a4-a50a-71203ff73986"
    with_digest = known_of(Summary("ADDED", uid, "1", 0, 0, digest=DIGEST), Record(9, 5, "kb.x", b""))
    assert (with_digest.uid, with_digest.digest) == (uid, DIGEST)
    # CPython's allocator has blocks of multiples of 16 bytes.
    assert -(-sys.getsizeof(with_digest.packed) // 16) == -(-sys.getsizeof(packed_uid(uid)) // 16)
