"""What the writer keeps of each object: packed, and the same when it is asked for."""

from __future__ import annotations

import gc
import math
import sys
import tracemalloc
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalog import Record, Replaced
from deltalog.wire.kubernetes import newer, object_key
from deltalog.wire.summary import Summary
from producers.follow.known import (
    NO_DIGEST,
    Known,
    KnownObjects,
    hold,
    known_of,
    newer_version,
    packed_uid,
    packed_version,
)

DIGEST = b"\xff1234567"
UID = "ed02aa20-d7a8-48a4-a50a-71203ff73986"
odd = st.text(alphabet="0123456789abcdefABCDEF-. ²٣", max_size=40)


# Uids, versions and digests as they come, and odd ones.
UIDS = st.uuids().map(str) | st.uuids().map(lambda uid: str(uid).upper()) | odd
VERSIONS = st.integers(0, 2**70).map(str) | odd


@given(UIDS, odd)
def test_packed_uids_come_back_and_differ_as_they_did(uid: str, other: str) -> None:
    assert Known(packed_uid(uid), DIGEST, 1, 0).uid == uid
    assert (packed_uid(uid) == packed_uid(other)) == (uid == other)


@given(VERSIONS, VERSIONS)
def test_packed_versions_come_back_and_differ_as_they_did(version: str, other: str) -> None:
    assert Known(b"u", DIGEST, packed_version(version), 0).member_version == version
    assert (packed_version(version) == packed_version(other)) == (version == other)
    assert newer_version(packed_version(version), packed_version(other)) == newer(version, other)


def test_what_is_usual_is_packed() -> None:
    uid = "ed02aa20-d7a8-48a4-a50a-71203ff73986"
    assert packed_uid(uid) == UUID(uid).bytes
    assert packed_version("2986835454716") == 2986835454716
    assert [packed_version(odd) for odd in ("0", "007", "", "-1", "+1", "1_0", "1\n")] == [
        *("0", "007", "", "-1", "+1", "1_0", "1\n")
    ]


REPLACED = Replaced(uid="u", uid_index=3, oldest_uid_index=3, time=1, deletion_index=4, member_version="5")
INDEXES = st.integers(0, 2**63)


@given(
    st.builds(
        Known,
        UIDS.map(packed_uid),
        st.binary(min_size=8, max_size=8),
        VERSIONS.map(packed_version),
        INDEXES,
        INDEXES,
        st.just(0.0) | st.floats(1, 1e10),
        INDEXES,
        st.none() | st.just(REPLACED),
        st.booleans(),
    )
)
def test_what_is_held_is_what_is_asked_for(known: Known) -> None:
    if not known.deleted_at:
        known.deletion_index = 0
    objects, key = KnownObjects("v1", ""), object_key("shop", "cart")
    objects.put(key, known)
    assert objects.get(key) == known
    assert len(objects) == (not known.deleted_at)
    assert objects.missing(set()) == ([] if known.deleted_at else [key])
    # What was asked for is a copy: it counts once it is put there.
    changed = objects.get(key)
    assert changed is not None
    changed.packed_member_version, changed.in_parts = "other", True
    assert objects.get(key) == known
    objects.acknowledged(key, 77)
    found = objects.get(key)
    assert found is not None
    assert found == msgspec.structs.replace(known, uid_index=77)
    if known.deleted_at:
        objects.deletion_acknowledged(key, 78)
        found = objects.get(key)
        assert found is not None
        assert found.deletion_index == 78
        objects.forget_deleted(known.deleted_at)
        assert not objects.empty
        objects.forget_deleted(math.nextafter(known.deleted_at, math.inf))
        assert objects.empty


def test_what_is_acknowledged_after_it_was_dropped_is_nothing() -> None:
    objects, key = KnownObjects("v1", ""), object_key("", "node-1")
    objects.acknowledged(key, 1)
    objects.deletion_acknowledged(key, 1)
    assert objects.empty


@pytest.mark.parametrize(
    ("summary", "first", "oldest", "gone", "held"),
    [
        (Summary("ADDED", UID, "1", 0, 0), 9, 9, 0, 80),
        (Summary("MODIFIED", UID, "1", 4, 4), 4, 4, 0, 80),
        (Summary("MODIFIED", UID, "1", 4, 2), 4, 2, 0, 96),
        (Summary("DELETED", UID, "1", 4, 4), 4, 4, 9, 96),
        (Summary("DELETED", UID, "1", 4, 2), 4, 2, 9, 112),
        (Summary("MODIFIED", UID, "1", 4, 4, parts=2), 4, 4, 0, 0),
        (Summary("MODIFIED", "u", "1", 4, 4), 4, 4, 0, 0),
        (Summary("MODIFIED", UID, "a", 4, 4), 4, 4, 0, 0),
    ],
)
def test_what_a_message_states_of_an_object(summary: Summary, first: int, oldest: int, gone: int, held: int) -> None:
    known = known_of(summary, Record(9, 5_000_000_000, "kb.x", b""))
    assert (known.uid_index, known.first_uid_index, known.deletion_index) == (first, oldest, gone)
    assert known.deleted_at == (5.0 if gone else 0.0)
    assert known.in_parts == (summary.parts > 0)
    assert known.digest == NO_DIGEST
    # CPython's allocator has blocks of multiples of 16 bytes.
    found = hold(known)
    assert (-(-sys.getsizeof(found) // 16) * 16 if isinstance(found, bytes) else 0) == held


@pytest.mark.slow
def test_an_object_takes_so_much_memory_and_no_more() -> None:
    """By key, state and map; the process around it is what `benchmarks follow` measures."""
    many = 50_000
    objects = KnownObjects("v1", "")
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(many):
            uid = UUID(int=number * 0x1234_5678_9ABC_DEF1)
            version = packed_version(str(2_986_835_000_000 + number))
            key = object_key(f"namespace-{number % 50}", f"service-{number % 997}-6b9c7d5f48-{number:06}")
            objects.put(key, Known(packed_uid(str(uid)), number.to_bytes(8, "big"), version, 0))
            objects.acknowledged(key, number + 1)
            del uid, version, key
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / many < 230
