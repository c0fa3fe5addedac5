"""Rows of objects too odd for a server to send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.tables.printers import BUILT_IN
from tests.tables.row_times import AGE, AGO, NOW
from tests.tables.shown_rows import EVENT_ROWS, ROWS, shown


def test_a_null_or_an_odd_field_counts_as_absent_and_the_others_stay() -> None:
    body = {
        "metadata": {"name": "n", "creationTimestamp": AGO, "labels": 5},
        "spec": {
            "replicas": "three",
            "selector": None,
            "template": {"spec": {"containers": [7, {"name": "b"}]}},
        },
        "status": {"readyReplicas": True, "availableReplicas": 2, "updatedReplicas": None},
    }
    cells = BUILT_IN["apps", "deployments"].row(json.dumps(body).encode()).cells(NOW)
    assert cells == ["n", "0/1", 0, 2, AGE, ",b", ",", ""]


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)
SAMPLES = [(group, resource, content) for group, resource, content, _ in ROWS if content]
SAMPLES += [(group, "events", content) for group, content, _ in EVENT_ROWS if content]


def mutated(value: Any, draw: Any) -> Any:
    """The value with a part here and there replaced by something of any type."""
    if draw(st.integers(0, 5)) == 0:
        return draw(VALUES)
    if isinstance(value, dict):
        return {key: mutated(item, draw) for key, item in value.items()}
    if isinstance(value, list):
        return [mutated(item, draw) for item in value]
    return value


@settings(max_examples=150)
@given(st.data())
def test_no_object_is_too_odd(data: Any) -> None:
    group, resource, content = data.draw(st.sampled_from(SAMPLES))
    printer = BUILT_IN[group, resource]
    body = {
        "metadata": {"name": "n", "creationTimestamp": AGO, "labels": {}, "ownerReferences": [{}]},
        **content,
    }
    assert len(shown(printer, json.dumps(mutated(body, data.draw)).encode())) == len(printer.columns)


@pytest.mark.parametrize("key", sorted(BUILT_IN))
@pytest.mark.parametrize("body", [b"{}", b"null", b"[]", b"1", b'"x"', b'{"metadata":1,"spec":[],"status":"x"}'])
def test_no_shape_is_too_odd(key: tuple[str, str], body: bytes) -> None:
    printer = BUILT_IN[key]
    assert len(printer.row(body).cells(NOW)) == len(printer.columns)


def test_an_object_nested_deep() -> None:
    deep = b'{"spec":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for printer in BUILT_IN.values():
        assert len(printer.row(deep).cells(NOW)) == len(printer.columns)
