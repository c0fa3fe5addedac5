"""Control records: typed, on the wire as docs/log.md says, and read whatever else a writer may have put there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalog import ControlRecord, UnreadableRecord, decode_control, encode_control
from deltalog.wire import subjects
from deltalog.wire.kubernetes import GroupResource
from deltalog.wire.records import (
    ClusterDocument,
    ClusterRegistered,
    DiscoveryDocument,
    DocumentName,
    Fact,
    HealthChanged,
    ObjectsRemoved,
    OpenApiDocument,
    OwnerChanged,
    StatusReport,
    TypeStatus,
    TypeSynced,
    UnknownFact,
)
from deltalog.wire.resource_type import ResourceType, Subresource
from deltalog.wire.subjects import control_subject, parse_control

TEXT = st.text(max_size=12)
WORD = st.text("abc-/09", min_size=1, max_size=8)
COUNT = st.integers(0, 2**62)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
RESOURCES = st.builds(GroupResource, st.sampled_from(["", "apps", "core", "sea.example.io"]), WORD)
DOCUMENTS = st.builds(ClusterDocument, hash=TEXT, size=COUNT, body=st.binary(min_size=1), paths=COUNT)
TYPES = st.builds(
    ResourceType,
    group=st.sampled_from(["", "apps"]),
    resource=WORD,
    version=TEXT,
    kind=TEXT,
    singular=TEXT,
    namespaced=st.booleans(),
    short_names=TEXTS,
    categories=TEXTS,
    verbs=TEXTS,
    versions=TEXTS,
    columns=st.none() | st.lists(OBJECTS, max_size=2).map(tuple),
    selectable=TEXTS,
    subresources=st.lists(st.builds(Subresource, name=TEXT, kind=TEXT, verbs=TEXTS), max_size=2).map(tuple),
    namespaces=TEXTS,
    selector=TEXT,
    pruned=TEXTS,
)
FACTS: st.SearchStrategy[Fact] = st.one_of(
    st.builds(OwnerChanged, removed=st.booleans()),
    st.builds(ClusterRegistered, version=OBJECTS),
    st.builds(DiscoveryDocument, document=st.none() | DOCUMENTS),
    st.builds(
        OpenApiDocument, name=st.builds(DocumentName, st.sampled_from(["v2", "v3"]), WORD), document=DOCUMENTS, tag=TEXT
    ),
    st.builds(OpenApiDocument, name=st.builds(DocumentName, st.just("v3"), WORD), document=st.none()),
    TYPES,
    st.builds(TypeSynced, resource=RESOURCES, version=TEXT, objects=COUNT),
    st.builds(HealthChanged, resource=st.none() | RESOURCES, healthy=st.booleans(), reason=TEXT),
    st.builds(
        StatusReport,
        types=st.dictionaries(
            RESOURCES,
            st.builds(TypeStatus, objects=COUNT, synced=st.booleans(), version=TEXT, stale=COUNT, error=TEXT),
            max_size=3,
        ),
        every=COUNT,
    ),
    st.builds(
        ObjectsRemoved,
        resource=st.none() | RESOURCES,
        types=st.none() | st.lists(RESOURCES, max_size=3).map(tuple),
    ),
)
CONTROLS = st.builds(ControlRecord, cluster=WORD, time=COUNT, producer=TEXT, epoch=COUNT, fact=FACTS)
DOCUMENT = ClusterDocument(paths=3, hash="AB", size=2, body=b"z")
PODS = GroupResource("", "pods")
# One fact of each class, with a value for each key that its data can have.
FULL: tuple[Fact, ...] = (
    OwnerChanged(removed=True),
    ClusterRegistered(version={"major": "1"}),
    DiscoveryDocument(document=msgspec.structs.replace(DOCUMENT, paths=0)),
    OpenApiDocument(name=DocumentName("v2", "json"), document=DOCUMENT, tag="t"),
    ResourceType(
        group="sea.example.io",
        resource="boats",
        version="v1",
        kind="Boat",
        columns=(),
        subresources=(Subresource(name="s", kind="k", group="g", version="v", verbs=("get",)),),
        namespaces=("a",),
        selector="b",
        pruned=("/c",),
    ),
    TypeSynced(resource=PODS, version="7", objects=3),
    HealthChanged(healthy=False, reason="why"),
    StatusReport(
        types={PODS: TypeStatus(objects=1, synced=True, version="7", listed=1, event=2, stale=3, error="e")}, every=30
    ),
    ObjectsRemoved(types=(PODS,)),
)


def record(fact: Fact, cluster: str = "alpha") -> ControlRecord:
    return ControlRecord(cluster=cluster, time=1, producer="p", epoch=2, fact=fact)


def message(record: str, data: Any, group: str = "", resource: str = "", **more: Any) -> bytes:
    """A control record as another writer may put it."""
    fixed = {"v": 1, "record": record, "cluster": "alpha", "group": group, "resource": resource, "time": 1}
    payload: bytes = msgpack.packb({**fixed, "producer": "p", "epoch": 2, "data": data, **more})
    return payload


@pytest.mark.parametrize("fact", FULL, ids=lambda fact: type(fact).__name__)
def test_a_removal_ends_each_record_but_its_own_and_the_owners(fact: Fact) -> None:
    address = parse_control(record(fact).subject)
    if address.record in (subjects.OWNER, subjects.REMOVED):
        return
    if not address.resource:
        assert address.record in subjects.CLUSTER_RECORDS
    elif address.group in ("v2", "v3"):
        assert address.record in subjects.DOCUMENT_RECORDS
    else:
        assert address.record in subjects.TYPE_RECORDS


@given(CONTROLS)
def test_a_control_record_comes_back(control: ControlRecord) -> None:
    assert decode_control(encode_control(control)) == control


@given(CONTROLS)
def test_any_msgpack_library_reads_a_control_record(control: ControlRecord) -> None:
    found = msgpack.unpackb(encode_control(control))
    assert list(found) == ["v", "record", "cluster", "group", "resource", "time", "producer", "epoch", "data"]
    assert found["v"] == 1
    assert isinstance(found["data"], dict)
    assert control_subject(*(found[key] for key in ("cluster", "record", "group", "resource"))) == control.subject
    assert (parse_control(control.subject).cluster, parse_control(control.subject).record) == (
        control.cluster,
        control.record,
    )


# -- docs/log.md -------------------------------------------------------------------------------------------------------

LOG_MD = (Path(__file__).parents[2] / "docs" / "log.md").read_text()
TABLE = LOG_MD.partition("## Control records")[2].partition("\n## ")[0]
ROWS = {
    name: (of.strip(), what) for name, of, what in re.findall(r"^\| `(\w+)` \| ([^|]+) \| (.*) \|$", TABLE, flags=re.M)
}


def keys(data: dict[str, Any]) -> set[str]:
    """The keys of data, and of the maps in it that have keys of ours."""
    found = set(data)
    for told in (*data.get("subresources", ()), *(data["types"].values() if "every" in data else ())):
        found |= set(told)
    return found


def test_the_page_has_a_row_for_each_class() -> None:
    assert {record(fact).record for fact in FULL} == set(ROWS)


@pytest.mark.parametrize("fact", FULL, ids=lambda fact: type(fact).__name__)
def test_the_page_names_each_key(fact: Fact) -> None:
    found = msgpack.unpackb(encode_control(record(fact)))
    of, what = ROWS[found["record"]]
    described = set(re.findall(r"`(\w+)[`:]", what))
    if "as above" in what:
        described |= {"hash", "size"}
    assert keys(found["data"]) <= described
    assert bool(found["resource"]) == (of == "type" or found["record"] == "openapi")


@pytest.mark.parametrize("resource", [None, PODS], ids=["cluster", "type"])
@pytest.mark.parametrize("record_class", [HealthChanged, ObjectsRemoved])
def test_what_the_page_says_of_both_is_of_a_cluster_or_a_type(
    record_class: type[HealthChanged | ObjectsRemoved], resource: GroupResource | None
) -> None:
    control = record(record_class(resource=resource))
    assert ROWS[control.record][0] == "both"
    assert control.resource == resource
    assert control.subject == f"kbc.alpha.{control.record}" + (".core.pods" if resource else "")


# -- other writers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fact", FULL, ids=lambda fact: type(fact).__name__)
def test_unknown_keys_are_ignored(fact: Fact) -> None:
    fields = msgpack.unpackb(encode_control(record(fact)))
    fields["data"]["unheard"] = [{"deep": None}]
    assert decode_control(msgpack.packb({**fields, "unheard": [1]})) == record(fact)


def test_a_type_is_the_one_that_its_message_is_of() -> None:
    data = {"version": "v1", "kind": "Pod", "custom": True, "group": "other", "resource": "others"}
    read = decode_control(message("type", data, "", "pods")).fact
    assert read == ResourceType(group="", resource="pods", version="v1", kind="Pod", custom=True)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cluster", {"version": "1.36"}),
        ("status", {"every": "30s"}),
        ("status", {"types": ["pods"]}),
        ("status", {"types": {"pods": 3}}),
        ("type", {"version": "v1", "kind": []}),
        ("type", {"kind": "Pod"}),
        ("synced", {"objects": "many"}),
        ("health", {"healthy": "perhaps"}),
        ("openapi", {"body": 7}),
        ("discovery", {"body": b"z", "size": {}}),
        ("removed", {"types": "pods"}),
        ("removed", {"types": [7]}),
        ("health", [1]),
        ("owner", 3),
    ],
)
def test_data_of_other_types_is_unreadable(name: str, data: Any) -> None:
    with pytest.raises(UnreadableRecord, match="malformed record of version 1"):
        decode_control(message(name, data, "", "pods"))


def test_numbers_as_texts_are_read() -> None:
    assert decode_control(message("status", {"every": "30000"})).fact == StatusReport(every=30000)


def test_data_may_be_missing() -> None:
    for name, fact in (
        ("owner", OwnerChanged()),
        ("cluster", ClusterRegistered()),
        ("discovery", DiscoveryDocument(document=None)),
        ("health", HealthChanged()),
        ("removed", ObjectsRemoved()),
    ):
        assert decode_control(message(name, {})).fact == fact


@pytest.mark.parametrize("removed", [None, [], "", 0, "yes", 7.5, {"a": 1}])
def test_an_epoch_is_read_whatever_its_record_states(removed: object) -> None:
    """An epoch that a new owner could not read would be given a second time."""
    read = decode_control(message("owner", {"removed": removed}))
    assert (read.epoch, read.fact) == (2, OwnerChanged(removed=bool(removed)))


def test_a_record_of_a_later_release_is_kept_as_it_is() -> None:
    payload = message("weather", {"rain": [1, None]}, "apps", "deployments")
    read = decode_control(payload)
    assert isinstance(read.fact, UnknownFact)
    assert (read.record, read.resource) == ("weather", GroupResource("apps", "deployments"))
    assert read.subject == "kbc.alpha.weather.apps.deployments"
    assert msgpack.unpackb(encode_control(read)) == msgpack.unpackb(payload)


# -- what is none ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=64))
def test_noise_is_unreadable_and_nothing_worse(payload: bytes) -> None:
    with pytest.raises(UnreadableRecord):
        decode_control(payload)


@given(CONTROLS, st.data())
def test_a_damaged_record_is_unreadable_or_a_record(control: ControlRecord, data: st.DataObject) -> None:
    payload = bytearray(encode_control(control))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(decode_control(bytes(payload)), ControlRecord)
    except UnreadableRecord:
        pass


def test_a_newer_format_is_refused_whatever_it_looks_like() -> None:
    for payload in (message("owner", {}, v=2), msgpack.packb({"v": 2}), message("owner", 3, v=2)):
        with pytest.raises(UnreadableRecord, match="format version 2; this reader knows up to 1"):
            decode_control(payload)


def test_text_that_is_not_utf_8_is_unreadable() -> None:
    for payload in (message("ABCD", {}), message("health", {"reason": "ABCD"})):
        with pytest.raises(UnreadableRecord):
            decode_control(payload.replace(b"ABCD", b"AB\xff\xfe"))


def test_nesting_without_end_is_unreadable() -> None:
    payload = message("cluster", {"version": {"a": "ABCD"}})
    with pytest.raises(UnreadableRecord):
        decode_control(payload.replace(b"\xa4ABCD", b"\x91" * 100_000 + b"\xc0"))
