"""Which answers are OpenAPI documents: by what they say, not by what the server calls them."""

from __future__ import annotations

import gzip

import pytest

from deltalog.wire.records import DocumentName
from producers.follow import openapi_documents as openapi

SWAGGER = b"\x0a\x032.0\x12\x05\x0a\x03abc"


def answered(body: bytes, content_type: str) -> openapi._Answer:
    return openapi._Answer(body, content_type, "")


@pytest.mark.parametrize(
    "content_type",
    # A kube-apiserver of 1.20 sends the second.
    ["application/com.github.proto-openapi.spec.v2.v1.0+protobuf", "application/octet-stream"],
)
def test_version_2_in_protobuf(content_type: str) -> None:
    key = DocumentName(openapi.V2, openapi.PROTOBUF)
    document = openapi._document(key, answered(SWAGGER, content_type), "")
    assert document is not None
    assert gzip.decompress(document.body) == SWAGGER
    assert openapi._document(key, answered(SWAGGER, content_type), document.hash) is None
    for body in (b"", b"<html></html>", b'{"swagger":"2.0"}'):
        with pytest.raises(openapi._Unusable):
            openapi._document(key, answered(body, content_type), "")
