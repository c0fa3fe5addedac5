"""Wire format 1: what was written before is read as it was meant, and written again as it was (see README.md)."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from deltalog import Delta, UnreadableRecord, decode_control, decode_delta, encode_control, encode_delta
from deltalog.handover import Handover, HandoverAnswer, decode_handover, encode_answer, handover_subject
from deltalog.place import parse_place
from deltalog.wire.delta import SharingDecoder
from deltalog.wire.parts import Assembler, part_subject
from deltalog.wire.subjects import control_subject, object_subject, parse_control, parse_object, type_prefix
from deltalog.wire.summary import parse_summary, summary_headers
from materializer.versions import Numbered, parse_version, parse_versions
from producers.producer import Relist, Relisting, relist_subject
from query.objects.pages import decode_continue
from tests.golden.lines import Line, each, lines

LOG_MD = (Path(__file__).parents[2] / "docs" / "log.md").read_text()
DELTA_DEFAULTS = {
    "first": 0,
    "created": 0,
    "final": True,
    "restored": False,
    "in_order": False,
    "owner": "",
    "labels": {},
    "fields": {},
    "replaced": None,
    "was": None,
    "compression": "",
    "parts": [],
}
CONTROL_DEFAULTS = {"group": "", "resource": "", "data": {}}
REPLACED_DEFAULTS: dict[str, Any] = {"gone": 0, "original": "", "labels": {}, "fields": {}}


def by_wire_keys(decoded: object) -> Any:
    """A decoded message by its keys on the wire, whatever they are called in code."""
    return msgspec.to_builtins(decoded, builtin_types=(bytes,))


def plain(value: Any) -> Any:
    """The same with lists for tuples."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def with_defaults(defaults: dict[str, Any], given: dict[str, Any], known: set[str]) -> dict[str, Any]:
    return {**defaults, **{key: value for key, value in given.items() if key in known}}


# -- objects -----------------------------------------------------------------------------------------------------------


def section(title: str) -> str:
    """The text below a heading of docs/log.md, up to the next one of its level."""
    level = title.partition(" ")[0]
    return LOG_MD.partition(f"\n{title}\n")[2].partition(f"\n{level} ")[0]


def rows(text: str) -> dict[str, str]:
    """The rows of a table: what stands behind the first column, by each name in the first one."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            _, first, behind = line.split("|", 2)
            found.update(dict.fromkeys(re.findall("`(.+?)`", first), behind))
    return found


def words(text: str) -> set[str]:
    """What stands in backticks: keys, and examples of values."""
    return {word for quoted in re.findall("`(.+?)`", text) for word in re.findall(r"[\w./-]+", quoted)}


MESSAGE = section("## An object's message")
DELTA_KEYS = set(rows(MESSAGE.partition("\n### ")[0]))
REPLACED_KEYS = words(MESSAGE.partition("It has ")[2].partition("\n\n")[0])


@each("deltas")
def test_a_delta_is_read_as_it_was_written(line: Line) -> None:
    expected = with_defaults(DELTA_DEFAULTS, line.decoded, DELTA_KEYS)
    if expected["replaced"] is not None:
        expected["replaced"] = with_defaults(REPLACED_DEFAULTS, expected["replaced"], REPLACED_KEYS)
    for delta in (decode_delta(line.payload), SharingDecoder().decode(line.payload)):
        found = by_wire_keys(delta)
        if delta.replaced is not None:
            found["replaced"] = REPLACED_DEFAULTS | found["replaced"]
        assert plain(found) == expected
        assert isinstance(delta, Delta)


@each("deltas")
def test_a_delta_is_written_as_it_was(line: Line) -> None:
    again = encode_delta(decode_delta(line.payload))
    if "foreign" in line:
        assert plain(by_wire_keys(decode_delta(again))) == plain(by_wire_keys(decode_delta(line.payload)))
    else:
        assert again == line.payload


@each("deltas")
def test_a_subject_names_the_object(line: Line) -> None:
    address = line["address"]
    assert parse_object(line["subject"])._asdict() == address
    prefix = type_prefix(address["cluster"], address["group"], address["version"], address["resource"])
    assert object_subject(prefix, address["namespace"], address["name"]) == line["subject"]
    assert {key: line["decoded"][key] for key in address} == address


@each("deltas")
def test_headers_tell_what_a_producer_needs(line: Line) -> None:
    headers, delta = line["headers"], decode_delta(line.payload)
    summary = parse_summary(headers)
    assert summary is not None
    # In the order of the header's words; what these are called in code is not on the wire.
    *found, digest = (by_wire_keys(value) for value in msgspec.structs.astuple(summary))
    assert digest == bytes.fromhex(headers.get("Kb-Digest", ""))
    assert found == list(line["summary"].values())
    if "foreign" not in line:
        told = by_wire_keys(delta)
        kind, uid, original, first, _, replaced, parts, _ = found
        assert [kind, uid, original, first] == [told[key] for key in ("type", "uid", "original", "first")]
        assert (replaced, parts) == (told["replaced"], len(told["parts"]))
        ours = {key: value for key, value in headers.items() if key.startswith("Kb")}
        assert summary_headers(delta, headers.get("Kb-Pruned", ""), digest) == ours


@each("deltas")
def test_the_object_in_a_delta(line: Line) -> None:
    """Its parts put together and uncompressed, with the offsets in it where a version goes."""
    delta = decode_delta(line.payload)
    parts = {part["sequence"]: part for part in lines("parts")}
    assembler = Assembler()
    for number, sequence in enumerate(line.decoded.get("parts", ())):
        part = parts[sequence]
        assert part["subject"] == part_subject(line["subject"], line.decoded["original"], number)
        assembler.hold(sequence, part.payload)
    whole = assembler.whole(delta)
    stored = b"".join(parts[one].payload for one in line.decoded.get("parts", ())) or line.decoded["object"]
    expected = zlib.decompress(stored) if line.decoded.get("compression") else stored
    assert whole.object == expected
    assert not assembler.held()
    # By the keys of the message, as docs/log.md has it.
    offsets = by_wire_keys(whole)
    gap, end = offsets["gap"], offsets["meta_end"]
    found = json.loads(expected[:gap] + b'"resourceVersion":"7",' + expected[gap:])
    assert found["metadata"]["resourceVersion"] == "7"
    metadata = json.loads(expected[gap - 1 : end])
    assert metadata == {key: value for key, value in found["metadata"].items() if key != "resourceVersion"}
    named = (metadata["name"], metadata.get("namespace", ""), metadata["uid"])
    assert named == tuple(line.decoded[key] for key in ("name", "namespace", "uid"))
    assert b"\n" not in expected


def test_each_part_is_of_an_object() -> None:
    named = [sequence for line in lines("deltas") for sequence in line.decoded.get("parts", ())]
    assert sorted(named) == [part["sequence"] for part in lines("parts")]


# -- control records ---------------------------------------------------------------------------------------------------

RECORDS = section("## Control records")
RECORD_ROWS = rows(RECORDS)
CONTROL_KEYS = words(RECORDS.partition("| record |")[0])
# What stands in backticks in the rows of control records and is no key of theirs.
EXAMPLES = {"v2", "v3", "json", "protobuf", "api/v1", "pods", "deployments.apps", "/version", "true", "epoch"}
# Keys that other rows describe: "as above".
DOCUMENT_KEYS = {"body", "hash", "size"}


@each("controls")
def test_a_control_record_is_read_as_it_was_written(line: Line) -> None:
    expected = with_defaults(CONTROL_DEFAULTS, line.decoded, CONTROL_KEYS)
    # A foreign writer's data may have keys that are not known: what is read has not.
    expected["data"] = {key: value for key, value in expected["data"].items() if key != "later"}
    assert msgpack.unpackb(encode_control(decode_control(line.payload))) == expected


@each("controls")
def test_a_control_record_is_written_as_it_was(line: Line) -> None:
    again = encode_control(decode_control(line.payload))
    if "foreign" in line:
        assert decode_control(again) == decode_control(line.payload)
    else:
        assert again == line.payload


@each("controls")
def test_a_subject_names_the_record(line: Line) -> None:
    address = line["address"]
    assert parse_control(line["subject"])._asdict() == address
    assert control_subject(**address) == line["subject"]
    assert {key: line["decoded"].get(key, "") for key in address} == address


# -- what is no message of this format ---------------------------------------------------------------------------------


@each("refused")
def test_what_cannot_be_read_is_refused(line: Line) -> None:
    for what, decode in (
        ("delta", decode_delta),
        ("delta", SharingDecoder().decode),
        ("control", decode_control),
    ):
        with pytest.raises(UnreadableRecord) as refused:
            decode(line.payload)
        if "version 2" in line["case"]:
            assert str(refused.value) == line["refused"][what] == "format version 2; this reader knows up to 1"


# -- docs/log.md -------------------------------------------------------------------------------------------------------


def own(name: str) -> list[Line]:
    return [line for line in lines(name) if "foreign" not in line]


def test_the_page_names_each_key_of_a_delta_and_none_beside() -> None:
    for line in own("deltas"):
        # It came later, and is left out where it is not known.
        assert set(line.decoded) | {"was"} == DELTA_KEYS, line["case"]
    assert any("was" in line.decoded for line in own("deltas"))
    assert next(iter(own("deltas")[0].decoded)) == "v"
    replaced = [line.decoded["replaced"] for line in own("deltas") if line.decoded["replaced"]]
    assert {key for one in replaced for key in one} | {"controller", "created"} == REPLACED_KEYS


def test_the_page_names_each_header_and_none_beside() -> None:
    documented = set(rows(MESSAGE.partition("### Headers")[2]))
    documented = documented - {"...-Subject"} | {"Nats-Expected-Last-Subject-Sequence-Subject"}
    used = {key for name in ("deltas", "parts") for line in own(name) for key in line["headers"]}
    assert used == documented


def test_the_page_names_each_record_and_each_key_of_it_and_none_beside() -> None:
    records: dict[str, set[str]] = {}
    for line in own("controls"):
        decoded = line.decoded
        assert set(decoded) == CONTROL_KEYS, line["case"]
        keys = records.setdefault(decoded["record"], set())
        keys |= set(decoded["data"])
        for told in decoded["data"].get("types", ()) if decoded["record"] == "status" else ():
            keys |= set(decoded["data"]["types"][told])
        for subresource in decoded["data"].get("subresources", ()):
            keys |= set(subresource)
    assert set(records) == set(RECORD_ROWS)
    for record, keys in records.items():
        described = words(RECORD_ROWS[record])
        if DOCUMENT_KEYS & described:
            described |= DOCUMENT_KEYS
        # A type's own group and resource stand in the record itself; `group` of a document, too.
        assert keys <= described, record
        # What came later is left out where it says nothing.
        later = {"custom"} if record == "type" else set()
        assert described - keys <= EXAMPLES | {"group", "resource"} | later, record


def test_lines_that_were_taken_away_are_missed() -> None:
    files = (Path(__file__).parent / "wire1").glob("*.jsonl")
    counts = {path.stem: path.read_bytes().count(b"\n") for path in files if "-" not in path.stem}
    assert counts == {
        "buckets": 10,
        "controls": 35,
        "deltas": 35,
        "parts": 5,
        "refused": 12,
        "requests": 6,
        "streams": 7,
        "texts": 18,
    }


# -- beside the log ----------------------------------------------------------------------------------------------------


@each("requests")
def test_requests_and_answers(line: Line) -> None:
    case, payload, decoded = line["case"], line.payload, line.decoded
    if case in ("offer", "offer: deleted"):
        assert line["subject"] == handover_subject("KUBEBRAID", "bravo")
        offer = decode_handover(payload)
        assert by_wire_keys(offer) == decoded
        assert msgspec.msgpack.encode(Handover(**decoded)) == payload
    elif case in ("offer: taken", "offer: refused"):
        assert by_wire_keys(msgspec.msgpack.decode(payload, type=HandoverAnswer)) == decoded
        assert msgpack.unpackb(encode_answer(HandoverAnswer(**decoded))) == decoded
    elif case == "relist":
        assert line["subject"] == relist_subject("KUBEBRAID")
        assert msgspec.json.decode(payload, type=Relist) == Relist(**decoded)
        assert msgspec.json.encode(Relist(**decoded)) == payload
    else:
        assert case == "relist: answer"
        assert msgspec.json.decode(payload, type=Relisting) == Relisting(**decoded)
        assert msgspec.json.encode(Relisting(**decoded)) == payload


READERS: dict[str, Callable[[str], object]] = {
    "version": parse_version,
    "number": Numbered("8b187de1").parse,
    "versions": parse_versions,
    "continue": decode_continue,
    "place": parse_place,
}


@each("texts")
def test_texts_that_clients_hold(line: Line) -> None:
    found = msgspec.to_builtins(READERS[line["form"]](line["text"]))
    if line["form"] in ("version", "number"):
        # The lines have what code called it when they were written.
        found["original"] = found.pop("member_version")
    if line["form"] == "continue":
        # Tokens of then are nobody's in particular, as those of somebody unknown are, and of lists in their own order.
        assert found.pop("who") == ""
        assert found.pop("order") == ""
    assert found == line["decoded"]
