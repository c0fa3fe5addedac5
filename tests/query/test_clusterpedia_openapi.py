"""OpenAPI of Clusterpedia's group: of version 3 by itself, of version 2 within what a cluster says."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

import pytest

from deltalog.wire.records import ClusterDocument, DocumentName
from query.discovery import clusterpedia_openapi
from query.http.protobuf import field, read_fields, text_of
from query.search.terms import PARAMETERS
from tests.query.scene import Scene

TYPE = "com.github.clusterpedia-io.api.clusterpedia.v1beta1.CollectionResource"
PATH = "/apis/clusterpedia.io/v1beta1/collectionresources"
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


def document(text: bytes, paths: int = 0) -> ClusterDocument:
    return ClusterDocument(paths=paths, hash=hashlib.sha256(text).hexdigest(), size=len(text), body=gzip.compress(text))


def described(*, version2: bytes = b"", protobuf: bytes = b"") -> Scene:
    """A scene whose cluster alpha has documents."""
    made = Scene()
    found = {DocumentName("v3", "api/v1"): document(b"{}")}
    if version2:
        found[DocumentName("v2", "json")] = document(version2, 1)
    if protobuf:
        found[DocumentName("v2", "protobuf")] = document(protobuf)
    made.store.clusters["alpha"].documents = found
    return made


async def test_version_3() -> None:
    async with described().serving() as ask:
        index = (await ask.json("/openapi/v3"))["paths"]
        assert set(index) == {"api/v1", "apis/clusterpedia.io/v1beta1"}
        url = index["apis/clusterpedia.io/v1beta1"]["serverRelativeURL"]
        found = await ask.json(url)
        schema = found["components"]["schemas"][TYPE]
        kind = {"group": "clusterpedia.io", "version": "v1beta1", "kind": "CollectionResource"}
        assert schema["x-kubernetes-group-version-kind"] == [kind]
        assert {"metadata", "resourceTypes", "items", "continue", "remainingItemCount"} < schema["properties"].keys()
        for reference in _references(found):
            place, _, name = reference.rpartition("/")
            assert place == "#/components/schemas"
            assert name in found["components"]["schemas"]
        operation = found["paths"][f"{PATH}/{{name}}"]["get"]
        assert operation["x-kubernetes-group-version-kind"] == kind
        # What can be asked for, but for what is of one cluster.
        names = {one["name"] for one in operation["parameters"]}
        assert {*PARAMETERS.values(), "groups", "resources", "labelSelector", "fieldSelector"} - {"forward"} <= names
        # Of one cluster, and below `resources`, it is not.
        for scope in ("/clusters/alpha", "/apis/clusterpedia.io/v1beta1/resources"):
            assert set((await ask.json(f"{scope}/openapi/v3"))["paths"]) == {"api/v1"}
            await ask.json(f"{scope}/openapi/v3/apis/clusterpedia.io/v1beta1", code=404)


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [one for inner in value.values() for one in _references(inner)]
    return [one for inner in value for one in _references(inner)] if isinstance(value, list) else []


@pytest.mark.parametrize(
    "text",
    [
        '{"swagger":"2.0","info":{"title":"K"},"paths":{"/api/":{"a":[1,{"b":"}"}]}},"definitions":{"Pod":{}},"x":1}',
        '{ "paths" : { } , "definitions" : { "Pod" : { } } }',
        '{"swagger":"2.0"}',
        "[]",
        "{",
    ],
)
async def test_version_2_is_a_clusters_with_the_group(text: str) -> None:
    async with described(version2=text.encode()).serving() as ask:
        status, body = await ask.text("/openapi/v2")
        assert status == 200
        if text in ("[]", "{"):
            assert body == text.encode()
            return
        found, theirs = json.loads(body), json.loads(text)
        assert PATH in found["paths"]
        assert found["definitions"][TYPE]["x-kubernetes-group-version-kind"][0]["kind"] == "CollectionResource"
        assert all(one.startswith("#/definitions/") for one in _references(found))
        assert {one.removeprefix("#/definitions/") for one in _references(found)} <= found["definitions"].keys()
        assert found["paths"].items() >= theirs.get("paths", {}).items()
        assert found["definitions"].items() >= theirs.get("definitions", {}).items()
        assert {name: found[name] for name in theirs.keys() - {"paths", "definitions"}} == {
            name: theirs[name] for name in theirs.keys() - {"paths", "definitions"}
        }
        async with ask.session.get(f"{ask.url}/openapi/v2") as answer:
            tag = answer.headers["ETag"]
        assert (await ask.text("/openapi/v2", **{"If-None-Match": tag}))[0] == 304
        # Of one cluster it is the cluster's own.
        assert (await ask.text("/clusters/alpha/openapi/v2"))[1] == text.encode()
        # A cluster that has the group itself is told of as it is.
        assert clusterpedia_openapi.with_group("json", document(body)).hash == hashlib.sha256(body).hexdigest()


async def test_version_2_in_protobuf() -> None:
    theirs = field(1, b"2.0") + field(9, field(1, field(1, b"Pod") + field(2, b"")))
    async with described(version2=b"{}", protobuf=theirs).serving() as ask:
        status, body = await ask.text("/openapi/v2", PROTOBUF)
    assert status == 200
    assert body.startswith(theirs)
    definitions = read_fields(b"".join(read_fields(body)[9]))[1]
    assert [text_of(read_fields(one), 1) for one in definitions] == ["Pod", TYPE, f"{TYPE}List", f"{TYPE}Type"]


async def test_version_2_where_no_cluster_has_one() -> None:
    async with described().serving() as ask:
        # So that a router asks another log's instances.
        await ask.json("/openapi/v2", code=404)
