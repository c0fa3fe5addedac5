"""What can be read of JSON of which only the beginning is there."""

from __future__ import annotations

import json

import pytest

from producers.upstream.objects import Unusable, identify
from producers.upstream.odd_json import begun_object, begun_rest, begun_value

_WHOLE = {
    "kind": "a,b}\\" + '"{[',
    "list": [{"metadata": 1}, "metadata", ["x"]],
    "inner": {"metadata": {"name": "no"}, "type": "no"},
    "metadata": {"annotations": {"metadata": "}"}, "name": "n", "resourceVersion": "7"},
    "number": -1.5e3,
    "true": True,
    "type": "ADDED",
}


@pytest.mark.parametrize("indent", [None, 2])
def test_a_value_is_there_as_soon_as_it_is_whole(indent: int | None) -> None:
    text = json.dumps(_WHOLE, indent=indent).encode()
    for key, value in _WHOLE.items():
        begins = -1
        for length in range(len(text) + 1):
            found, rest = begun_value(text[:length], key), begun_rest(text[:length], key)
            if found is not None:
                assert json.loads(found) == value
            if rest is not None and begins < 0:
                begins = length
            if length == len(text):
                assert found is not None, key
        assert 0 < begins < len(text)
        assert begun_rest(text, key) == text[text.index(f'"{key}": '.encode()) + len(key) + 4 :].strip() or key in (
            "metadata",
            "type",
        )
    for key in ("name", "annotations", "x", "no", ""):
        assert begun_value(text, key) is None
        assert begun_rest(text, key) is None


def test_an_object_is_known_by_the_metadata_in_its_beginning() -> None:
    text = json.dumps(_WHOLE).encode()
    whole = text.index(b'"number"')
    odd = begun_object(text[:whole], "too large")
    assert (odd.problem, identify(odd).name, identify(odd).resource_version) == ("too large", "n", "7")
    for length in range(whole - 2):
        with pytest.raises((ValueError, KeyError, Unusable)):
            begun_object(text[:length], "too large")


@pytest.mark.parametrize(
    "text", [b"", b"[1", b"1", b'"metadata"', b"}", b'{"metadata"', b'{"metadata":', b'{"a', b"\xff"]
)
def test_what_begins_no_object_has_no_values(text: bytes) -> None:
    assert begun_value(text, "metadata") is None
