"""Names of resource types: their text, and that they are found where a plain tuple is looked up."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltalog.wire.kubernetes import CLUSTER_ANNOTATION, GroupResource, GroupVersion
from kubebraid.client import many_clusters


@pytest.mark.parametrize(
    ("named", "text"),
    [
        (GroupResource("", "pods"), "pods"),
        (GroupResource("apps", "deployments"), "deployments.apps"),
        (GroupResource("sea.example.io", "boats"), "boats.sea.example.io"),
    ],
)
def test_the_text_of_a_type(named: GroupResource, text: str) -> None:
    assert str(named) == f"{named}" == text
    assert GroupResource.parse(text) == named


@given(st.text("ab.", max_size=6), st.text("ab-", min_size=1, max_size=4))
def test_a_text_is_read_back(group: str, resource: str) -> None:
    named = GroupResource(group, resource)
    assert GroupResource.parse(str(named)) == named


def test_the_text_of_a_version() -> None:
    assert [str(GroupVersion("apps", "v1")), str(GroupVersion("", "v1"))] == ["apps/v1", "v1"]


def test_a_plain_tuple_finds_it() -> None:
    """What the store relies on where it takes a delta in."""
    found: dict[tuple[str, str], int] = {GroupResource("apps", "deployments"): 1}
    assert found["apps", "deployments"] == 1


def test_it_is_a_key_of_msgpack_maps() -> None:
    """As images of the store have it."""
    types = {GroupResource("apps", "deployments"): 1}
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(types), type=dict[GroupResource, int])
    assert read == types
    assert [type(key) for key in read] == [GroupResource]


def test_clients_know_the_annotation() -> None:
    """The informer for clients imports nothing of the log, so that it has a copy."""
    assert many_clusters.CLUSTER_ANNOTATION == CLUSTER_ANNOTATION
