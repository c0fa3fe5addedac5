"""Subjects: reversible, valid for NATS, and filtered by a real server's wildcards."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deltalog import Appender, Log
from deltalog.reader import read_to_end
from deltalog.wire.subjects import (
    ControlAddress,
    ObjectAddress,
    control_subject,
    decode_token,
    encode_token,
    object_filter,
    object_subject,
    parse_control,
    parse_object,
    type_prefix,
)

# Any text, and what is special to NATS, to percent-encoding and to this scheme, more often than by chance.
SPECIAL = st.text("core_.*>% \t%2Eé中\x00\x7f", min_size=1)
TEXT = st.text(min_size=1) | SPECIAL | st.sampled_from(["core", "_", "%63ore", "%5F", "*", ">", "a.b", " "])
MAYBE = TEXT | st.just("")


def is_nats_token(token: str) -> bool:
    """What a server takes as one literal token of a subject (nats-server: isValidLiteralSubject, and ASCII)."""
    return bool(token) and token.isascii() and not any(c in ".*>" or c <= " " or c == "\x7f" for c in token)


@given(TEXT)
def test_a_token_is_valid_and_reversible(text: str) -> None:
    token = encode_token(text)
    assert is_nats_token(token)
    assert decode_token(token) == text


@given(TEXT, TEXT)
def test_different_texts_have_different_tokens(one: str, other: str) -> None:
    assert (encode_token(one) == encode_token(other)) == (one == other)


def test_kubernetes_names_stay_readable() -> None:
    assert encode_token("my-app_1:x@y/z") == "my-app_1:x@y/z"
    assert encode_token("system:node.x") == "system:node%2Ex"


def test_an_empty_token_is_refused() -> None:
    with pytest.raises(ValueError):
        encode_token("")


@given(TEXT, MAYBE, TEXT, TEXT, MAYBE, TEXT)
@example("core", "core", "core", "core", "core", "core")
@example("_", "_", "_", "_", "_", "_")
@example("c", "", "v1", "pods", "", "_")
def test_an_objects_subject_is_reversible(
    cluster: str, group: str, version: str, resource: str, namespace: str, name: str
) -> None:
    subject = object_subject(type_prefix(cluster, group, version, resource), namespace, name)
    assert all(is_nats_token(token) for token in subject.split("."))
    assert parse_object(subject) == ObjectAddress(cluster, group, version, resource, namespace, name)
    assert subject == object_filter(cluster, group, resource, namespace, name, version)


@given(MAYBE, MAYBE)
def test_groups_and_namespaces_are_told_apart(one: str, other: str) -> None:
    subjects = {object_subject(type_prefix("c", text, "v1", "r"), text, "n") for text in (one, other)}
    assert len(subjects) == len({one, other})


def test_the_documented_form() -> None:
    assert object_subject(type_prefix("alpha", "", "v1", "nodes"), "", "n1") == "kb.alpha.core.v1.nodes._.n1"
    assert object_subject(type_prefix("alpha", "core", "v1", "r"), "_", "n") == "kb.alpha.%63ore.v1.r.%5F.n"
    assert control_subject("alpha", "owner") == "kbc.alpha.owner"
    assert control_subject("alpha", "synced", "apps.io", "deployments") == "kbc.alpha.synced.apps%2Eio.deployments"


@given(TEXT, MAYBE, MAYBE)
def test_a_control_subject_is_reversible(cluster: str, group: str, resource: str) -> None:
    subject = control_subject(cluster, "synced", group, resource)
    assert all(is_nats_token(token) for token in subject.split("."))
    assert parse_control(subject) == ControlAddress(cluster, "synced", group if resource else "", resource)


@pytest.mark.parametrize(
    "subject",
    ["", "kb", "kb.a.b", "kb.a.b.c.d.e", "kb.a.b.c.d.e.f.g", "kbc.alpha.core.v1.pods.x.n", "other.a.core.v1.pods.x.n"],
)
def test_what_is_no_objects_subject_is_refused(subject: str) -> None:
    with pytest.raises(ValueError):
        parse_object(subject)


@pytest.mark.parametrize("subject", ["", "kbc", "kbc.a", "kbc.a.b.c", "kbc.a.b.c.d.e", "kb.a.owner"])
def test_what_is_no_control_subject_is_refused(subject: str) -> None:
    with pytest.raises(ValueError):
        parse_control(subject)


OBJECTS = [
    ObjectAddress("alpha", "", "v1", "pods", "x", "a"),
    ObjectAddress("alpha", "", "v1", "pods", "x.y", "a.b"),
    ObjectAddress("alpha", "", "v1", "nodes", "", "a"),
    ObjectAddress("alpha", "core", "v1", "pods", "_", "*"),
    ObjectAddress("al.pha", "apps", "v1", "deployments", "x", ">"),
    ObjectAddress("beta", "a.io", "v1beta1", "pods", "x", "ü 中"),
    ObjectAddress("beta", "a.io", "v1", "pods", "_", "%"),
]


async def test_filters_select_by_each_part_on_a_real_server(log: Log, appender: Appender) -> None:
    for one in OBJECTS:
        prefix = type_prefix(one.cluster, one.group, one.version, one.resource)
        await appender.append_wait(object_subject(prefix, one.namespace, one.name), b"")

    async def found(**parts: str | None) -> list[ObjectAddress]:
        records: list[ObjectAddress] = []
        pattern = object_filter(**parts)
        await read_to_end(log, lambda record: records.append(parse_object(record.subject)), subjects=(pattern,))
        return records

    assert await found() == OBJECTS
    for part in ("cluster", "group", "resource", "namespace", "name", "version"):
        for value in {getattr(one, part) for one in OBJECTS}:
            expected = [one for one in OBJECTS if getattr(one, part) == value]
            assert await found(**{part: value}) == expected, (part, value)
    assert await found(cluster="beta", namespace="_") == [OBJECTS[-1]]
    assert await found(cluster="gamma") == []
