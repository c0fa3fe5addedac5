"""Objects that come back to their cluster: our version and annotations are taken out, in JSON, YAML and protobuf."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from materializer.entry import Entry
from materializer.versions import Named, Numbered
from query.forward.versions_in_bodies import to_cluster_versions, to_our_versions
from query.http.protobuf import PROTOBUF, read_fields, read_object
from query.http.status import ApiError
from tests.entries import made_entry

OURS = "8b187de1.3005.298"
CLUSTER = "shadow.clusterpedia.io/cluster-name"
ORIGINAL = "kubebraid.io/original-resource-version"
KNOWN = made_entry("a", 3005, member_version="298")


def own(
    document: object, content_type: str = "application/json", known: Entry | None = None, *, numbered: bool = False
) -> Any:
    body = json.dumps(document).encode()
    return json.loads(to_cluster_versions(content_type, body, known, numbered=numbered))


def test_version_and_annotations() -> None:
    metadata = {"name": "a", "resourceVersion": OURS, "annotations": {CLUSTER: "alpha", "kept": "é"}}
    assert own({"kind": "Pod", "metadata": metadata, "spec": {"a": 1}}) == {
        "kind": "Pod",
        "metadata": {"name": "a", "resourceVersion": "298", "annotations": {"kept": "é"}},
        "spec": {"a": 1},
    }
    assert own({"metadata": {"annotations": {CLUSTER: "alpha"}}}) == {"metadata": {}}
    # Of a history that is over; of a cluster whose versions are no numbers.
    assert own({"metadata": {"resourceVersion": "mine-0af3.7.a.b"}}) == {"metadata": {"resourceVersion": "a.b"}}


@pytest.mark.parametrize(
    "body",
    [
        b'{"metadata": {"resourceVersion": "298"}, "spec": {"x": 1e400, "y": 12345678901234567890123}}',
        b'{"metadata": {"resourceVersion": ""}}',
        b'{"metadata": {"resourceVersion": 5}}',
        b'{"metadata": {"resourceVersion": "8b187de1.3005"}}',
        b'{"metadata": null, "resourceVersion": "8b187de1.3005.298"}',
        b'{"metadata": [], "preconditions": 3, "resourceVersion": 1}',
        b'{"metadata": {"annotations": [], "resourceVersion": null}}',
        b'[{"resourceVersion": 1}]',
        b"resourceVersion {",
        b"\xff resourceVersion",
        b"",
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "application/apply-patch+yaml", PROTOBUF, ""])
def test_all_else_is_passed_on_as_it_came(body: bytes, content_type: str) -> None:
    made = to_cluster_versions(content_type, body, KNOWN, numbered=False)
    if "yaml" in content_type and made != body:
        assert json.loads(made) == yaml.safe_load(body)
    else:
        assert made == body


def test_what_is_not_metadata_stays_byte_for_byte() -> None:
    spec = b'{"z" : 1e400, "big": 12345678901234567890123, "a":"\\u00e9 %b"}' % OURS.encode()
    body = b'{"metadata":{"resourceVersion":"%b"}, "spec": %b}' % (OURS.encode(), spec)
    assert to_cluster_versions("application/json", body, None, numbered=False) == (
        b'{"metadata":{"resourceVersion":"298"},"spec":%b}' % spec
    )


def test_patches_preconditions_and_yaml() -> None:
    operations = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": OURS},
        {"op": "replace", "path": "/spec/of", "value": OURS},
    ]
    assert own(operations, "application/json-patch+json") == [{**operations[0], "value": "298"}, operations[1]]
    options = {"kind": "DeleteOptions", "preconditions": {"uid": "u", "resourceVersion": OURS}}
    wanted = {"kind": "DeleteOptions", "preconditions": {"uid": "u", "resourceVersion": "298"}}
    assert own(options) == wanted
    assert own({"kind": "Eviction", "metadata": {}, "deleteOptions": options})["deleteOptions"] == wanted
    text = f"metadata:\n  name: a\n  resourceVersion: {OURS}\n  annotations: {{{CLUSTER}: alpha}}\n"
    made = to_cluster_versions("application/apply-patch+yaml", text.encode(), None, numbered=False)
    assert yaml.safe_load(made) == {"metadata": {"name": "a", "resourceVersion": "298"}}


def test_versions_that_are_numbers() -> None:
    def of(version: str, known: Entry | None = KNOWN, /, **annotations: str) -> str:
        metadata = {"resourceVersion": version, "annotations": annotations}
        return str(own({"metadata": metadata}, known=known, numbered=True)["metadata"]["resourceVersion"])

    assert of("77", **{ORIGINAL: "555"}) == "555"
    assert of("3005") == "298"
    # What the cluster itself has answered, to a subresource for instance.
    assert of("298") == "298"
    assert of(OURS) == "298"
    for known in (KNOWN, None):
        with pytest.raises(ApiError) as told:
            of("2999", known)
        assert (told.value.code, told.value.reason) == (409, "Conflict")


def field(number: int, content: bytes) -> bytes:
    size, lengths = len(content), b""
    while size > 0x7F:
        lengths += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + lengths + bytes([size]) + content


def protobuf(kind: str, message: bytes) -> bytes:
    about = field(1, b"v1") + field(2, kind.encode())
    return b"k8s\x00" + field(1, about) + field(2, message) + field(3, b"") + field(4, b"")


def test_protobuf() -> None:
    def annotation(name: str, value: str) -> bytes:
        return field(12, field(1, name.encode()) + field(2, value.encode()))

    # A number (generation: 7) stands between, as it does.
    head, tail = field(1, b"a"), b"\x38\x05" + field(11, field(1, b"l") + field(2, b"m" * 300))
    metadata = head + field(6, OURS.encode()) + tail + annotation(CLUSTER, "alpha") + annotation("kept", "yes")
    spec = field(2, field(6, OURS.encode()))
    wanted = field(1, head + field(6, b"298") + tail + annotation("kept", "yes")) + spec
    made = to_cluster_versions(PROTOBUF, protobuf("Pod", field(1, metadata) + spec), None, numbered=False)
    assert made == protobuf("Pod", wanted)
    assert read_object(made) == ({"apiVersion": "v1", "kind": "Pod"}, wanted)
    preconditions = field(2, field(1, b"u") + field(2, OURS.encode()))
    options = b"\x08\x1e" + preconditions
    wanted = b"\x08\x1e" + field(2, field(1, b"u") + field(2, b"298"))
    made = to_cluster_versions(PROTOBUF, protobuf("DeleteOptions", options), None, numbered=False)
    assert made == protobuf("DeleteOptions", wanted)
    made = to_cluster_versions(PROTOBUF, protobuf("Eviction", field(1, head) + field(2, options)), None, numbered=False)
    assert read_fields(read_object(made)[1]) == {1: [head], 2: [wanted]}
    for broken in (made[:-3], b"k8s\x00\xff\xff", protobuf("Pod", b"\x0f")):
        assert to_cluster_versions(PROTOBUF, broken, None, numbered=False) == broken


def test_answers_have_the_version_that_is_read_here() -> None:
    body = b'{"kind":"Pod","metadata":{"resourceVersion":"298","annotations":{"kept":"yes"}},"spec":{"a":1e400}}\n'
    made = to_our_versions(body, KNOWN, Named("8b187de1"), "alpha")
    assert made.endswith(b'"spec":{"a":1e400}}\n')
    metadata = json.loads(made)["metadata"]
    assert metadata == {"resourceVersion": OURS, "annotations": {"kept": "yes", CLUSTER: "alpha"}}
    metadata = json.loads(to_our_versions(body, KNOWN, Numbered("8b187de1"), "alpha"))["metadata"]
    assert (metadata["resourceVersion"], metadata["annotations"][ORIGINAL]) == ("3005", "298")
    # Not of another state, nor of what is unknown or unreadable.
    for other in (body.replace(b"298", b"299"), b"{}", b"[]", b"x", b'{"metadata":{"resourceVersion":298}}'):
        assert to_our_versions(other, KNOWN, Named("8b187de1"), "alpha") == other
    assert to_our_versions(body, None, Named("8b187de1"), "alpha") == body


def test_aliases_are_left_to_the_cluster() -> None:
    """A few of them stand for more than any memory holds."""
    lines = ["metadata: {resourceVersion: abc.5.298}", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    bomb = "\n".join(lines).encode()
    assert to_cluster_versions("application/apply-patch+yaml", bomb, None, numbered=False) == bomb
