"""Deltas on the wire: read back by us, and by a reader that knows docs/log.md and msgpack only."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalog import (
    ADDED,
    DELETED,
    MODIFIED,
    UNCHANGED,
    Delta,
    Replaced,
    Selectables,
    UnreadableRecord,
    decode_delta,
    encode_delta,
)
from deltalog.wire import delta as wire
from deltalog.wire.delta import SharingDecoder
from deltalog.wire.kubernetes import newer
from deltalog.wire.summary import encode_selectables, parse_summary, selectables_digest, summary_headers

TEXT = st.text(max_size=12)
WORD = st.text("abc-.0123456789", max_size=12)
LABELS = st.dictionaries(TEXT, TEXT, max_size=3)
COUNT = st.integers(0, 2**62)
REPLACED = st.builds(
    Replaced,
    uid=TEXT,
    uid_index=COUNT,
    oldest_uid_index=COUNT,
    time=COUNT,
    member_version=TEXT,
    labels=LABELS,
    fields=LABELS,
)
DELTAS = st.builds(
    Delta,
    type=st.sampled_from([ADDED, MODIFIED, DELETED]),
    cluster=TEXT,
    group=TEXT,
    version=TEXT,
    resource=TEXT,
    namespace=TEXT,
    name=TEXT,
    uid=WORD.filter(lambda text: text != "-"),
    member_version=WORD.filter(lambda text: text != "-"),
    time=COUNT,
    producer=TEXT,
    epoch=COUNT,
    uid_index=COUNT,
    created=COUNT,
    final=st.booleans(),
    controller_uid=TEXT,
    labels=LABELS,
    fields=LABELS,
    replaced=st.none() | REPLACED,
    compression=st.sampled_from(["", "zlib"]),
    parts=st.lists(COUNT, max_size=3).map(tuple),
    version_offset=COUNT,
    metadata_end=COUNT,
    object=st.binary(),
    was=st.none() | st.just(UNCHANGED) | st.builds(Selectables, labels=LABELS, fields=LABELS, controller_uid=TEXT),
)
LOG_MD = (Path(__file__).parents[2] / "docs" / "log.md").read_text()


def documented_keys() -> list[str]:
    """The keys of an object's message by the table in docs/log.md."""
    table = LOG_MD.partition("## An object's message")[2].partition("\n## ")[0].partition("### Headers")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [key for row in rows for key in re.findall("`(.+?)`", row)]


DELTA_KEYS = documented_keys()


@given(DELTAS)
def test_a_delta_comes_back(delta: Delta) -> None:
    assert decode_delta(encode_delta(delta)) == delta


def read(decode: Callable[[bytes], Delta], payload: bytes) -> dict[str, Any] | str:
    try:
        return msgspec.structs.asdict(decode(payload))
    except UnreadableRecord as problem:
        return str(problem).partition(":")[0]


@given(st.lists(DELTAS, min_size=1, max_size=8), st.data())
def test_sharing_changes_nothing_but_identities(deltas: list[Delta], data: st.DataObject) -> None:
    """Also of payloads that are broken somewhere, and when what is remembered is forgotten in between."""
    decoder = SharingDecoder()
    for delta in deltas:
        payload = bytearray(encode_delta(delta))
        if data.draw(st.booleans()):
            payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
        assert read(decoder.decode, bytes(payload)) == read(decode_delta, bytes(payload))
        if data.draw(st.booleans()):
            decoder.forget()


def test_equal_texts_and_labels_are_shared(delta: Callable[..., Delta]) -> None:
    decoder = SharingDecoder()
    given = {"namespace": "some", "controller_uid": "o-u", "labels": {"app": "web"}}
    one, two = (
        decoder.decode(encode_delta(delta(name, **given, fields={"spec.nodeName": "node-1", "status.podIP": name})))
        for name in ("a-name", "b-name")
    )
    for field in ("cluster", "version", "namespace", "controller_uid", "labels"):
        assert getattr(one, field) is getattr(two, field)
    assert (one.fields["status.podIP"], two.fields["status.podIP"]) == ("a-name", "b-name")


def test_what_is_remembered_is_bounded(delta: Callable[..., Delta], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_REMEMBERED", 10)
    decoder = SharingDecoder()
    for number in range(100):
        found = decoder.decode(encode_delta(delta(labels={"n": str(number)}, controller_uid=f"o{number}")))
        assert (found.labels, found.controller_uid) == ({"n": str(number)}, f"o{number}")
        assert len(decoder._labels) <= 10
        # As many as one delta has, beyond it.
        assert len(decoder._texts) <= 14


@given(DELTAS)
def test_any_msgpack_library_reads_a_delta(delta: Delta) -> None:
    found = msgpack.unpackb(encode_delta(delta))
    assert next(iter(found)) == "v"
    assert sorted(found) == sorted(key for key in DELTA_KEYS if key != "was" or delta.was is not None)
    assert found["v"] == 1
    for field in msgspec.structs.fields(Delta):
        if field.name not in ("replaced", "parts", "was"):
            assert found[field.encode_name] == getattr(delta, field.name)
            assert type(found[field.encode_name]) is type(getattr(delta, field.name))
    assert found["parts"] == list(delta.parts)
    if delta.was is not None:
        was = delta.was
        told = {"labels": was.labels, "fields": was.fields, "controller": was.controller_uid}
        # What was empty is left out; the controller is not, so that the map is empty only of an unchanged one.
        assert found["was"] == {key: value for key, value in told.items() if value not in ({}, None)}
    if delta.replaced is None:
        assert found["replaced"] is None
    else:
        replaced = found["replaced"]
        assert (replaced["uid"], replaced["first"]) == (delta.replaced.uid, delta.replaced.uid_index)
        assert (replaced["oldest"], replaced["time"]) == (delta.replaced.oldest_uid_index, delta.replaced.time)
        assert replaced.get("labels", {}) == delta.replaced.labels
        assert replaced.get("fields", {}) == delta.replaced.fields
        assert replaced.get("original", "") == delta.replaced.member_version


def test_another_writers_delta_is_read(delta: Callable[..., Delta]) -> None:
    """Packed by the msgpack package, keys in another order, with a key of the future."""
    expected = delta("web", labels={"app": "a"}, replaced=Replaced(uid="o", uid_index=3, oldest_uid_index=2, time=5))
    fields: dict[str, Any] = msgpack.unpackb(encode_delta(expected))
    foreign = {"v": 1, "since_v2": {"deep": [1, None]}, **dict(reversed(fields.items()))}
    assert decode_delta(msgpack.packb(foreign)) == expected


def test_a_newer_format_is_refused_whatever_it_looks_like(delta: Callable[..., Delta]) -> None:
    fields = msgpack.unpackb(encode_delta(delta()))
    for payload in ({**fields, "v": 2}, {"v": 2}, {"v": 99, "type": 7}):
        with pytest.raises(UnreadableRecord, match=r"format version (2|99); this reader knows up to 1"):
            decode_delta(msgpack.packb(payload))


@pytest.mark.parametrize("missing", ["type", "cluster", "uid", "object", "gap", "meta_end", "epoch"])
def test_a_delta_without_a_needed_key_is_unreadable(delta: Callable[..., Delta], missing: str) -> None:
    fields = msgpack.unpackb(encode_delta(delta()))
    del fields[missing]
    with pytest.raises(UnreadableRecord, match="malformed record of version 1"):
        decode_delta(msgpack.packb(fields))


@given(st.binary(max_size=64))
def test_noise_is_unreadable_and_nothing_worse(payload: bytes) -> None:
    with pytest.raises(UnreadableRecord):
        decode_delta(payload)


@given(DELTAS, st.data())
def test_a_damaged_delta_is_unreadable_or_a_delta(delta: Delta, data: st.DataObject) -> None:
    payload = bytearray(encode_delta(delta))
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(decode_delta(bytes(payload)), Delta)
    except UnreadableRecord:
        pass


NOTHING = Selectables(controller_uid="")


@pytest.mark.parametrize("decode", [decode_delta, lambda payload: SharingDecoder().decode(payload)])
@pytest.mark.parametrize("was", [None, UNCHANGED, NOTHING, Selectables({"a": "b"}, {}, "")])
def test_what_was_is_told_apart(
    delta: Callable[..., Delta], decode: Callable[[bytes], Delta], was: Selectables | None
) -> None:
    """Not known, as it is now, and nothing to select by: three things."""
    found = decode(encode_delta(delta(was=was))).was
    assert found == was
    assert (found is UNCHANGED) == (was is UNCHANGED)


def test_a_digest_names_labels_fields_and_controller() -> None:
    def digest(*looked_at: Any) -> bytes:
        return selectables_digest(encode_selectables(*looked_at))

    one = digest({"a": "1", "b": "2"}, {"x": "y"}, "c")
    assert len(one) == 8
    assert one == digest({"b": "2", "a": "1"}, {"x": "y"}, "c")
    others = [
        *(digest({"a": "1"}, {"b": "2", "x": "y"}, "c"), digest({"a": "1", "b": "2"}, {}, "c")),
        *(
            digest({"a": "1", "b": "2"}, {"x": "y"}, ""),
            digest({"a": "2", "b": "1"}, {"x": "y"}, "c"),
            digest({}, {}, ""),
        ),
    ]
    assert len({one, *others}) == 6


def test_text_that_is_not_utf_8_is_unreadable(delta: Callable[..., Delta]) -> None:
    payload = encode_delta(delta(uid="ABCD")).replace(b"ABCD", b"AB\xff\xfe")
    with pytest.raises(UnreadableRecord):
        decode_delta(payload)


@given(DELTAS)
def test_the_summary_in_the_headers_comes_back(delta: Delta) -> None:
    digest = selectables_digest(encode_selectables(delta.labels, delta.fields, delta.controller_uid))
    headers = summary_headers(delta, digest=digest)
    # A header is one line of ASCII or UTF-8 text.
    assert all("\r" not in value and "\n" not in value for value in headers.values())
    summary = parse_summary(headers)
    assert summary is not None
    assert (summary.type, summary.uid, summary.member_version) == (delta.type, delta.uid, delta.member_version)
    assert summary.uid_index == delta.uid_index
    assert summary.replaced == delta.replaced
    assert summary.parts == len(delta.parts)
    assert summary.digest == digest
    without = parse_summary(summary_headers(delta))
    assert without is not None
    assert without.digest == b""
    assert summary.oldest_uid_index == (delta.replaced.oldest_uid_index if delta.replaced else delta.uid_index)


async def test_the_summary_survives_the_server(
    delta: Callable[..., Delta], log: Any, put: Callable[..., Any], follow: Callable[..., Any]
) -> None:
    replaced = Replaced(
        uid="old", uid_index=3, oldest_uid_index=2, time=5, member_version="77", labels={"app": "ü中", "b": ""}
    )
    await put("a", uid="", member_version="", uid_index=9)
    await put("b", type=MODIFIED, uid="new", member_version="78", uid_index=4, replaced=replaced)
    reading = follow(log, headers_only=True, stop_when_caught_up=True)
    await reading.ended()
    first, second = (parse_summary(record.headers) for record in reading.records)
    assert first is not None
    assert second is not None
    assert (first.type, first.uid, first.member_version, first.uid_index) == (ADDED, "", "", 9)
    assert (second.uid, second.uid_index, second.oldest_uid_index, second.replaced) == ("new", 4, 2, replaced)


def test_a_message_without_a_summary_has_none() -> None:
    assert parse_summary({}) is None
    assert parse_summary({"Nats-Marker-Reason": "MaxAge"}) is None


@pytest.mark.parametrize("line", ["", "ADDED u 1 2", "ADDED u 1 x 3", "ADDED u 1 2 3 4"])
def test_a_malformed_summary_is_unreadable(line: str) -> None:
    with pytest.raises(UnreadableRecord):
        parse_summary({"Kb": line})


@pytest.mark.parametrize("digest", ["x", "0123", "0123456789abcdef01"])
def test_a_malformed_digest_is_unreadable(digest: str) -> None:
    with pytest.raises(UnreadableRecord):
        parse_summary({"Kb": "ADDED u 1 2 3", "Kb-Digest": digest})


def test_a_malformed_replaced_header_is_unreadable() -> None:
    with pytest.raises(UnreadableRecord):
        parse_summary({"Kb": "ADDED u 1 2 3", "Kb-Replaced": "{"})


@pytest.mark.parametrize(
    ("version", "than", "expected"),
    [
        ("2", "1", True),
        ("1", "1", False),
        ("10", "9", True),
        ("9", "10", False),
        ("99999999999999999999999", "99999999999999999999998", True),
        ("abc", "abd", True),
        ("abc", "abc", False),
        ("1", "", True),
        ("", "", False),
    ],
)
def test_versions_of_one_cluster_compare(version: str, than: str, expected: bool) -> None:
    assert newer(version, than) is expected


@given(st.integers(0, 2**70), st.integers(0, 2**70))
def test_numeric_versions_compare_as_numbers(one: int, other: int) -> None:
    assert newer(str(one), str(other)) is (one > other)
